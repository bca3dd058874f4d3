"""The texture latent: the stage that both pipelines share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from ..errors import InvalidArgumentError
from ..progress import Monitor
from ..samplers.euler import FlowEulerSampler
from ..samplers.flow import require_finite
from ..sparse import SparseTensor
from .latents import Normalization, repeat_cond, sent
from .staging import StagedPipeline

Statistics = Mapping[str, Any]


class TexturePipeline(StagedPipeline):
    """A pipeline with a texture sampler and the statistics of both latents."""

    shape_slat_normalization: Statistics | None
    tex_slat_normalization: Statistics | None
    tex_slat_sampler: FlowEulerSampler | None
    tex_slat_sampler_params: dict[str, Any]

    @torch.no_grad()
    def sample_tex_slat(
        self,
        cond: Mapping[str, torch.Tensor],
        flow_model: Any,
        shape_slat: SparseTensor,
        sampler_params: Mapping[str, Any] | None = None,
        *,
        generator: torch.Generator | None = None,
        monitor: Monitor | None = None,
        check: bool = True,
    ) -> SparseTensor:
        """The texture latent `[N, C]` on the voxels of a (denormalised) shape latent.

        The flow sees the normalised shape latent beside its own noise. `check`: as for `_sample`.
        """
        concat_cond = Normalization(self.shape_slat_normalization or {}).apply(shape_slat.to(self.device))
        channels = flow_model.in_channels - concat_cond.feats.shape[1]
        samples = self._sample(
            self.tex_slat_sampler,
            merged(self.tex_slat_sampler, self.tex_slat_sampler_params, sampler_params, "tex_slat"),
            flow_model,
            concat_cond.replace(self._noise((len(concat_cond.coords), channels), generator)),
            cond,
            "texture",
            monitor,
            check,
            concat_cond=concat_cond,
        )
        return Normalization(self.tex_slat_normalization or {}).undo(samples)

    def _noise(self, shape: tuple[int, ...], generator: torch.Generator | None) -> torch.Tensor:
        """Normal noise, drawn on the CPU whatever the device, so that a seed means the same everywhere."""
        return sent(torch.randn(shape, generator=generator), self.device)

    def _sample(
        self,
        sampler: FlowEulerSampler | None,
        params: Mapping[str, Any],
        flow_model: Any,
        noise: Any,
        cond: Mapping[str, torch.Tensor],
        stage: str,
        monitor: Monitor | None,
        check: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a sampler, its flow model on the pipeline's device; the condition is repeated to the batch.

        Without `check` nobody waits for the device, and whether the result is finite is left to the caller.
        """
        if sampler is None:
            raise InvalidArgumentError(f"this pipeline has no sampler for the {stage} stage")
        conds: dict[str, Any] = {
            name: c.to(self.device) for name, c in repeat_cond(cond, noise.shape[0]).items()
        }
        with self._in_use(flow_model) as flow:
            result = sampler.sample(
                flow,
                noise,
                **conds,
                **params,
                **extra,
                verbose=False,
                tqdm_desc=stage,
                monitor=monitor,
                check=check,
            )
        return result.samples

    def _decoded_attributes(self, decoder: Any, slat: SparseTensor, **guide: Any) -> SparseTensor:
        """Run the texture decoder and map its −1..1 to 0..1 (not clamped)."""
        with self._in_use(decoder) as model:
            decoded: SparseTensor = model(slat.to(self.device), **guide) * 0.5 + 0.5
        require_finite(decoded, "texture decoder")
        return decoded


def merged(
    sampler: FlowEulerSampler | None,
    defaults: Mapping[str, Any],
    overrides: Mapping[str, Any] | None,
    name: str,
) -> dict[str, Any]:
    """Defaults with the caller's overrides, key by key. Raises `InvalidArgumentError` for unknown keys."""
    overrides = dict(overrides or {})
    known: Collection[str] = sampler.parameters if sampler is not None else ()
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise InvalidArgumentError(
            f"{name}_sampler_params has no {', '.join(unknown)}; it takes {', '.join(sorted(known))}"
        )
    return {**defaults, **overrides}
