"""The three latents as values, and the one function that samples any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ..errors import InvalidArgumentError
from ..progress import Monitor
from ..samplers.acceleration import Passes
from ..samplers.euler import FlowEulerSampler, build_sampler
from .conditioner import Condition
from .latents import Normalization

STAGES = ("sparse_structure", "shape_slat", "tex_slat")
STATISTICS = {"shape_slat": "shape_slat_normalization", "tex_slat": "tex_slat_normalization"}

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class LatentStage:
    """How one latent is sampled: by which sampler, with which settings, and its statistics."""

    name: str
    sampler: FlowEulerSampler | None  # None: the pipeline is given such latents and makes none
    defaults: Settings = field(default_factory=dict)
    normalization: Normalization | None = None  # None: the flow works on the latent as it is
    fine: Settings = field(default_factory=dict)  # where a cascade's second pass has other defaults
    averaged_samples: int = 1  # of different noise, whose mean is the (structure's) latent

    def settings(self, overrides: Settings | None = None, fine: bool = False) -> dict[str, Any]:
        """The defaults, or those of a cascade's second pass, with the caller's overrides.

        Raises `InvalidArgumentError` for unknown names.
        """
        overrides = dict(overrides or {})
        known = self.sampler.parameters if self.sampler is not None else frozenset[str]()
        unknown = sorted(set(overrides) - set(known))
        if unknown:
            raise InvalidArgumentError(
                f"{self.name}_sampler_params has no {', '.join(unknown)}; it takes {', '.join(sorted(known))}"
            )
        return {**self.defaults, **(self.fine if fine else {}), **overrides}


@dataclass(frozen=True)
class SamplingRun:
    """What the stages of one run share: the source of noise, the caller's settings by stage, and reports."""

    generator: torch.Generator | Sequence[torch.Generator] | None = None  # of all samples, or one each
    settings: Mapping[str, Settings | None] = field(default_factory=dict)  # those by label come first
    monitor: Monitor = field(default_factory=Monitor)
    quality: str = "exact"  # or "fast": see `trellis2.samplers.acceleration`
    passes: dict[str, Passes] = field(default_factory=dict)  # filled in: what each stage computed


@torch.no_grad()
def sample(
    stage: LatentStage,
    model: Any,
    noise: Any,
    condition: Condition,
    run: SamplingRun | None = None,
    *,
    label: str | None = None,
    **extra: Any,
) -> Any:
    """The latent that a flow makes of noise (dense `[B, C, R, R, R]` or sparse), denormalised.

    `label` names the stage in progress reports, `extra` (such as `concat_cond`) goes to the network. Nobody
    waits for the device: see `require_finite` before a result leaves the pipeline.
    """
    run = run or SamplingRun()
    if stage.sampler is None:
        raise InvalidArgumentError(f"this pipeline has no sampler for the {stage.name} stage")
    latent: Any = stage.sampler.denoise(
        model,
        noise,
        condition.cond,
        neg_cond=condition.neg_cond,
        **stage.settings(run.settings.get(label or stage.name, run.settings.get(stage.name))),
        **extra,
        monitor=run.monitor,
        stage=label or stage.name,
        quality=run.quality,
        passes=partial(run.passes.__setitem__, label or stage.name),
    )
    return latent if stage.normalization is None else stage.normalization.undo(latent)


def stages_from_config(args: Settings) -> dict[str, LatentStage]:
    """The stages that a pipeline's config describes."""
    stages = {}
    for name in STAGES:
        sampler, statistics = args.get(f"{name}_sampler"), args.get(STATISTICS.get(name, ""))
        if sampler is not None or statistics is not None:
            stages[name] = LatentStage(
                name,
                None if sampler is None else build_sampler(sampler["name"], sampler["args"]),
                {} if sampler is None else sampler["params"],
                None if statistics is None else Normalization(statistics),
                {} if sampler is None else sampler.get("fine_params", {}),
                1 if sampler is None else sampler.get("averaged_samples", 1),
            )
    return stages
