"""Colours and patterns on true held-out shapes, before and after a change of the texture flow.

The shape's latents and voxels are the truth's, so that nothing but the texture is measured. Every second
object is patterned. Correlation is Pearson's over the visible voxels' colours less the object's mean colour:
1 when every stripe lies where it should, 0 when the object came out plain. Of a body of revolution nobody can
tell the yaw: what came out turned is as good, so that colours are also compared with the picture where the
camera head sees it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trellis2.conditioning.colors.visible_colors import painted, seen_colors
from trellis2.conditioning.encoders.image_batch import image_batch
from trellis2.conditioning.pixel_map import load_pixel_source, voxel_features
from trellis2.conditioning.preprocess import preprocess_image
from trellis2.conditioning.upright import UprightCamera, sample_crop, voxel_geometry
from trellis2.models import from_pretrained
from trellis2.nn.tokens import PixelTokens
from trellis2.pipelines.conditioner import Condition
from trellis2.pipelines.latents import LATENT_STRIDE
from trellis2.pipelines.stages import LatentStage, SamplingRun, sample, stages_from_config
from trellis2.pipelines.upright_conditioner import matte_of
from trellis2.sparse import SparseTensor

from .. import world
from ..checkpoint import need_network, weights_path
from ..config import MiniConfig
from ..data import render as rd
from ..data.batches import collate
from ..data.voxelize import VoxelObject, voxelize
from ..export import SHIPPED
from ..runtime import start
from . import evaluate as ev
from .exported import LEAST_SPREAD

log = logging.getLogger(__name__)

# What makes the latents: the flow before, the flow now by three conditions, the encoder (the bound of all).
_VIEW_CELLS = 256  # of a crop's side in which the first surface is looked for
BEFORE, NO_FEATURES, TRUE_CAMERA, OWN_CAMERA = "before", "no_features", "true_camera", "own_camera"
ENCODED = "encoded"
# The flow now, with the picture's base colours where its camera sees.
PAINTED_TRUE, PAINTED_OWN = "painted_true", "painted_own"
WAYS = (BEFORE, NO_FEATURES, TRUE_CAMERA, OWN_CAMERA, PAINTED_TRUE, PAINTED_OWN, ENCODED)


@dataclass(frozen=True)
class Case:
    """A held-out object: its truth, its picture as the networks see it, and what is visible in it."""

    truth: VoxelObject
    view: rd.View
    picture: rd.Picture
    pixels: Tensor  # [1, 3, S, S]
    visible: Tensor  # rows of the truth's voxels


def held_out_case(number: int, config: MiniConfig, device: torch.device) -> Case:
    """Held-out object `number`, with patterns where it is odd."""
    table = ev.held_out_table(number).to(device)
    truth = voxelize(table, config.resolution)
    view, picture = ev.held_out_picture(table, world.HELD_OUT_SEED + number)
    cropped = preprocess_image(ev.to_rgba(picture))
    pixels = image_batch([cropped], config.encoder.image_size).to(device)
    seen = picture.mask[0, 0] > 0.99
    return Case(truth, view, picture, pixels, visible_rows(truth, picture.position[0][:, seen].T))


def visible_rows(truth: VoxelObject, points: Tensor) -> Tensor:
    """Rows of the voxels in which surface points `[P, 3]` lie; points in no voxel are left out."""
    side = truth.resolution

    def keys(coords: Tensor) -> Tensor:
        x, y, z = coords.long().clamp(0, side - 1).unbind(1)
        return (x * side + y) * side + z

    order = keys(truth.coords).sort()
    wanted = torch.unique(keys(((points + 0.5) * side).floor()))
    places = torch.searchsorted(order.values, wanted).clamp(max=len(order.values) - 1)
    return order.indices[places[order.values[places] == wanted]]


def rows_in_view(case: Case, camera: UprightCamera) -> tuple[Tensor, Tensor]:
    """Rows of voxels that a camera sees where the picture shows the object, and the base colours `[V, 3]`
    that the picture has there; the crop is tight around the object, as the voxels say and as the mask does.
    """
    places, geometry = voxel_geometry(case.truth.coords[None], case.truth.resolution, camera)
    mask, size = case.picture.mask[0, 0] > 0.5, case.picture.mask.shape[-1]
    y, x = mask.nonzero().unbind(1)
    low, high = torch.stack([x.min(), y.min()]), torch.stack([x.max(), y.max()]) + 1
    in_frame = ((low + high) / 2 + places * ((high - low).max() / 2)) / size * 2 - 1
    read = sample_crop(torch.cat([case.picture.attributes[:, :3], case.picture.mask], 1), in_frame)[0]
    cells = ((places[0] + 1) / 2 * _VIEW_CELLS).long().clamp(0, _VIEW_CELLS - 1)
    cell, depth = cells[:, 1] * _VIEW_CELLS + cells[:, 0], geometry[0, :, 5]
    first = torch.full((_VIEW_CELLS**2,), 9.0, device=depth.device).scatter_reduce(0, cell, depth, "amin")
    seen = (depth - first[cell] < 0.01) & (read[:, 3] > 0.99)
    return seen.nonzero()[:, 0], read[seen, :3]


def colour_scores(made: Tensor, truth: Tensor) -> dict[str, float]:
    """Mean absolute error of colours `[V, 3]`, and the correlation where the truth's colours differ."""
    scores = {"mae": float((made - truth).abs().mean())}
    a, b = made - made.mean(0), truth - truth.mean(0)
    if float(b.square().mean().sqrt()) >= LEAST_SPREAD:
        scores["correlation"] = float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-9))
    return scores


@torch.no_grad()
def measure_texture(
    before: Path,
    folder: Path,
    config: MiniConfig,
    device_name: str,
    objects: int,
    out: Path,
    seconds: float = float("inf"),
    sheet: Path | None = None,
) -> dict[str, Any]:
    """Measure the folder's texture flow and that of the package `before`, each with its own condition."""
    runtime = start(device_name, 0)
    device, began = runtime.device, time.perf_counter()
    names = ("encoder", "shape_enc", "tex_enc", "tex_dec", "tex_flow", "pixel_map", "camera_head")
    parts = {name: need_network(folder, config, name, device) for name in names}
    if weights_path(folder, "base_color").exists():
        parts["base_color"] = need_network(folder, config, "base_color", device)
    parts[BEFORE] = from_pretrained(before / "ckpts" / SHIPPED["tex_flow"], device=device).float().eval()
    args = json.loads((before / "pipeline.json").read_text(encoding="utf-8"))["args"]
    if "pixel_source" in args:
        parts["before_source"] = load_pixel_source(before / args["pixel_source"]).to(device)
    stages = stages_from_config(args)
    rows: list[dict[str, Any]] = []
    tiles: list[np.ndarray] = []
    for number in range(objects):
        if rows and time.perf_counter() - began > seconds:
            break
        case = held_out_case(number, config, device)
        scores, colours = _measure(case, parts, stages)
        rows.append({"number": number, "patterned": number % 2 == 1, **scores})
        log.info("%s", json.dumps(rows[-1]))
        if sheet is not None and number % 2 and len(tiles) < 24:
            tiles.append(_tile(case, [colours[k] for k in (BEFORE, OWN_CAMERA, PAINTED_OWN) if k in colours]))
    summary = summarise(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"summary": summary, "objects": rows}, indent=1) + "\n", encoding="utf-8")
    if sheet is not None and tiles:
        ev._write_sheet(tiles, sheet, 2)
    log.info("texture on %d true held-out shapes\n%s", len(rows), table(summary))
    return summary


def _measure(
    case: Case, parts: dict[str, Any], stages: dict[str, LatentStage]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    voxels = collate([case.truth])
    shape = parts["shape_enc"](voxels.vertices, voxels.intersected)
    latent = parts["tex_enc"](voxels.attributes)
    normal = stages["shape_slat"].normalization
    assert normal is not None
    concat = latent.replace(normal.apply(shape).feats)
    tokens = parts["encoder"](case.pixels).float()
    true, own = rd.upright_camera(case.view), parts["camera_head"](tokens)[0]
    coords = latent.coords[None, :, 1:]

    def aligned(pixel_map: Any, camera: UprightCamera) -> PixelTokens:
        grid, maps = case.truth.resolution // LATENT_STRIDE, pixel_map(case.pixels, tokens)
        return PixelTokens(tokens, voxel_features(maps, coords, grid, camera)[0])

    flow, old = parts["tex_flow"], parts.get("before_source")
    conditions = {
        BEFORE: (parts[BEFORE], tokens if old is None else aligned(old.map, old.camera(tokens)[0])),
        NO_FEATURES: (flow, PixelTokens(tokens, None)),
        TRUE_CAMERA: (flow, aligned(parts["pixel_map"], true)),
        OWN_CAMERA: (flow, aligned(parts["pixel_map"], own)),
    }
    truth = case.truth.attributes[:, :3]
    scores: dict[str, Any] = {
        f"{name}_degrees": float(torch.rad2deg((getattr(own, name) - getattr(true, name)).abs()))
        for name in ("yaw", "pitch", "fov")
    }
    made = {ENCODED: latent}
    for name, (network, condition) in conditions.items():
        noise = torch.randn(latent.feats.shape, generator=torch.Generator().manual_seed(0))
        start_from = latent.replace(noise.to(latent.device))
        made[name] = _sampled(stages["tex_slat"], network, start_from, condition, concat)
    colours = {
        name: (parts["tex_dec"](z).feats[:, :3].float() * 0.5 + 0.5).clamp(0, 1) for name, z in made.items()
    }
    if "base_color" in parts:
        base, matte = parts["base_color"](case.pixels, tokens).clamp(0, 1), matte_of(case.pixels)
        for name, camera, plain in ((PAINTED_TRUE, true, TRUE_CAMERA), (PAINTED_OWN, own, OWN_CAMERA)):
            sight = seen_colors(case.truth.coords, case.truth.resolution, base, matte, camera)
            colours[name] = painted(colours[plain], sight)
    rows, pictured = rows_in_view(case, own)
    for name in colours:
        scores[name] = colour_scores(colours[name][case.visible], truth[case.visible])
        in_view = colour_scores(colours[name][rows], pictured)
        scores[name] |= {f"view_{k}": v for k, v in in_view.items()}
    return scores, colours


def _sampled(
    stage: LatentStage, flow: Any, noise: SparseTensor, condition: Any, concat: SparseTensor
) -> SparseTensor:
    null = condition.null() if isinstance(condition, PixelTokens) else torch.zeros_like(condition)
    made: SparseTensor = sample(
        stage, flow, noise, Condition(condition, null), SamplingRun(), concat_cond=concat
    )
    return made


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means by what made the latents, over all objects and over the patterned ones, and of the camera."""
    patterned = [r for r in rows if r["patterned"]]

    def mean(some: list[dict[str, Any]], read: Callable[[dict[str, Any]], float | None]) -> float | None:
        values = [v for v in map(read, some) if v is not None]
        return round(float(np.mean(values)), 4) if values else None

    ways: dict[str, Any] = {}
    for way in WAYS:
        if way not in rows[0]:
            continue
        ways[way] = {
            "mae": mean(rows, lambda r, w=way: r[w]["mae"]),  # type: ignore[misc]
            "mae_patterned": mean(patterned, lambda r, w=way: r[w]["mae"]),  # type: ignore[misc]
            "correlation": mean(rows, lambda r, w=way: r[w].get("correlation")),  # type: ignore[misc]
            "correlation_patterned": mean(patterned, lambda r, w=way: r[w].get("correlation")),  # type: ignore[misc]
            "view_patterned": mean(patterned, lambda r, w=way: r[w].get("view_correlation")),  # type: ignore[misc]
        }
    camera = {k: mean(rows, lambda r, k=k: r[f"{k}_degrees"]) for k in ("yaw", "pitch", "fov")}  # type: ignore[misc]
    return {"objects": len(rows), "camera_degrees": camera, **ways}


def table(summary: dict[str, Any]) -> str:
    """The summary as lines to print."""
    columns = ("mae", "mae_patterned", "correlation", "correlation_patterned", "view_patterned")
    lines = ["".join(f"{c:>24}" for c in ("", *columns))]
    for way in (w for w in WAYS if w in summary):
        values = (summary[way][c] for c in columns)
        lines.append("".join([f"{way:>24}", *(f"{'-' if v is None else v:>24}" for v in values)]))
    return "\n".join([*lines, f"camera head, mean error in degrees: {summary['camera_degrees']}"])


def _tile(case: Case, made: list[Tensor], size: int = 160) -> np.ndarray:
    """The picture, the colours made by each way, and the true ones, in the picture's view."""
    small = torch.nn.functional.interpolate(case.picture.rgb, (size, size), mode="area")[0].permute(1, 2, 0)
    places = (case.truth.coords.float() + 0.5) / case.truth.resolution - 0.5
    colours = [*made, case.truth.attributes[:, :3].clamp(0, 1)]
    drawn = [ev.splat(case.view, places, c, size) for c in colours]
    return (torch.cat([small.cpu(), *drawn], 1).clamp(0, 1) * 255).byte().numpy()
