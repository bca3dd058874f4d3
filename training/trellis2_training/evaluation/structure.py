"""How well the voxels of the structure are found, by settings of its sampler."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from trellis2.pipelines import Trellis2ImageTo3DPipeline
from trellis2.pipelines.stages import SamplingRun

from .. import world
from ..data.voxelize import occupancy
from ..runtime import start
from ..stages.refiner import cell_iou
from . import evaluate as ev

log = logging.getLogger(__name__)

_FIRST = 5_000  # of the held-out objects: those that evaluation measures do not choose its settings
_GRID = 32
GUIDANCES = (1.0, 1.5, 2.0, 3.0)
BIASES = (-1.0, -0.5, 0.0, 0.5, 1.0)  # added to the logits of the package's decoder


@torch.no_grad()
def measure_structure(
    package: Path, objects: int, device_name: str, out: Path, seconds: float = float("inf")
) -> dict[str, Any]:
    """Mean intersection over union of occupied cells by guidance strength and by what logits gain.

    A refiner has learnt what the flow makes at the package's own guidance: it is measured there alone, and
    `unrefined` tells what the decoder's logits find.
    """
    device, began = start(device_name, 0).device, time.perf_counter()
    pipeline = Trellis2ImageTo3DPipeline.from_pretrained(package, device=device, skip=("rembg_model",))
    decoder = pipeline._model("sparse_structure_decoder")
    guidances: tuple[float, ...] = GUIDANCES
    if pipeline.structure_refiner is not None:
        guidances = (pipeline.sampler_settings()["sparse_structure"]["guidance_strength"],)
    scores: dict[tuple[float, float], list[float]] = {(g, b): [] for g in guidances for b in BIASES}
    unrefined: list[float] = []
    done = 0
    for i in range(objects):
        if done and time.perf_counter() - began > seconds:
            break
        number = world.HELD_OUT_SEED + _FIRST + i
        table = torch.from_numpy(world.object_table(number)).to(device)
        truth = F.max_pool3d(occupancy(table[None]), 64 // _GRID) > 0
        _, picture = ev.held_out_picture(table, number)
        conditioner = pipeline.prepare(ev.to_rgba(picture)).conditioner
        for guidance in guidances:
            settings = {"sparse_structure": {"guidance_strength": guidance}}
            run = SamplingRun(torch.Generator().manual_seed(i), settings)
            latent = pipeline.sample_structure_latent(conditioner, run=run)
            with pipeline._in_use(decoder) as network:
                decoded = network(latent).float()
            refined = pipeline._refined(decoded, latent, conditioner, _GRID)
            before, logits = (F.max_pool3d(x, x.shape[-1] // _GRID) for x in (decoded, refined))
            unrefined.append(float(cell_iou(before, truth)))
            for bias in BIASES:
                scores[guidance, bias].append(float(cell_iou(logits + bias, truth)))
        done += 1
    means = {f"guidance {g:g}, bias {b:+g}": sum(v) / len(v) for (g, b), v in scores.items()}
    best = max(scores, key=lambda key: sum(scores[key]))
    summary = {"objects": done, "iou": means, "guidance": best[0], "bias": best[1]}
    if pipeline.structure_refiner is not None:
        summary["unrefined"] = sum(unrefined) / len(unrefined)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    log.info("structure of %d objects\n%s", done, "\n".join(f"{k}: {v:.4f}" for k, v in means.items()))
    log.info("best: guidance %g, bias %+g", *best)
    return summary
