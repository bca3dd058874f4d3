"""Measures a pipeline folder on held-out objects: autoencoders, image to 3D, colours. One seed an object."""

from __future__ import annotations

import json
import logging
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trellis2.errors import EmptyStructureError
from trellis2.pipelines.upright_conditioner import UprightConditioner

from .. import world
from ..config import SHIPPED
from ..data import render as rd
from ..data.batches import collate
from ..data.voxelize import VoxelObject, voxelize
from . import measures as ms
from .exported import DOMINANT_SHARE, exported_scores

log = logging.getLogger(__name__)

RESOLUTION = 512
_POINTS = 50_000
_AUTOENCODER_POINTS = 200_000
_PICTURE = 512


def held_out_table(i: int, patterned: bool = True, all_families: bool = False) -> Tensor:
    """The table of the `i`-th held-out object, with patterns on every second one."""
    number = (world.HELD_OUT_ALL if all_families else world.HELD_OUT_SEED) + i
    table = torch.from_numpy(world.object_table(number))[None]
    if patterned and i % 2:
        kinds = world.ALL_PATTERNS if all_families else world.FIRST_PATTERNS
        table = world.patterned(table, torch.Generator().manual_seed(i), share=1.0, kinds=kinds)
    return table[0]


def held_out_picture(table: Tensor, number: int, size: int = _PICTURE) -> tuple[rd.View, rd.Picture]:
    """The picture of a held-out object that evaluation uses: view and light depend on its number alone."""
    generator = torch.Generator().manual_seed(number)
    view = rd.random_views(1, generator, table.device)
    lights = rd.random_lights(view, generator)
    return view, rd.render(table[None], view, lights, size, supersample=2)


def to_rgba(picture: rd.Picture) -> Image.Image:
    """The picture with its mask as alpha, colours not premultiplied."""
    rgb = picture.rgb[0] / picture.mask[0].clamp(min=1e-3)
    pixels = torch.cat([rgb.clamp(0, 1), picture.mask[0]]).permute(1, 2, 0)
    return Image.fromarray((pixels * 255).round().byte().cpu().numpy())


def true_mesh(truth: VoxelObject) -> tuple[Tensor, Tensor]:
    """The mesh of a voxel object."""
    from o_voxel.convert import flexible_dual_grid_to_mesh

    vertices, faces = flexible_dual_grid_to_mesh(
        truth.coords, truth.vertices, truth.intersected, None, aabb=ms.AABB, grid_size=truth.resolution
    )
    return vertices, faces


@torch.no_grad()
def autoencoder_scores(
    parts: dict[str, Any], truth: VoxelObject, target: Tensor, generator: torch.Generator
) -> dict[str, float]:
    """F-score at 1/256 of the shape autoencoder decoding freely, base colour error of the texture
    autoencoder.
    """
    voxels = collate([truth])
    latent = parts["shape_enc"](voxels.vertices, voxels.intersected)
    latent.clear_spatial_cache()
    mesh = parts["shape_dec"](latent, resolution=truth.resolution)[0]
    made = ms.surface_points(mesh.vertices, mesh.faces, len(target), generator)
    decoded = parts["tex_dec"](parts["tex_enc"](voxels.attributes))
    gap = (decoded.feats[:, :3] - voxels.attributes.feats[:, :3]).abs().mean() / 2
    return {"ae_f_1_256": ms.f_scores(target, made, (1 / 256,))[0], "ae_base_color_mae": float(gap)}


def asset_scores(
    asset: Any, picture: rd.Picture, target: Tensor, generator: torch.Generator
) -> dict[str, float]:
    """Scores of one generated asset against the true surface points and the visible colours."""
    made = ms.surface_points(asset.vertices, asset.faces, len(target), generator)
    turned = [ms.f_scores(target, points, (0.02, 0.05)) for points in ms.quarter_turns(made)]
    best = [max(column) for column in zip(*turned, strict=True)]
    seen = picture.mask[0, 0] > 0.99
    points = picture.position[0][:, seen].T.cpu()
    colours = picture.attributes[0, :3][:, seen].T.cpu()
    keep = torch.randperm(len(points), generator=generator)[:8000]
    places = ((asset.coords.float() + 0.5) * asset.voxel_size + asset.origin).cpu()
    _, rows = ms.nearest(places, points[keep])
    colour = asset.attrs[:, :3].clamp(0, 1).cpu()[torch.from_numpy(rows)]
    share = ms.dominant_share(asset.vertices, asset.faces)
    return {
        "f_002": turned[0][0],
        "f_005": turned[0][1],
        "f_002_any_turn": best[0],
        "f_005_any_turn": best[1],
        "visible_base_color_mae": float((colour - colours[keep]).abs().mean()),
        "one_piece": float(share >= ms.DOMINANT_SHARE and len(asset.faces) > 0),
        "vertices": float(len(asset.vertices)),
    }


FAILED = {"f_002": 0.0, "f_005": 0.0, "f_002_any_turn": 0.0, "f_005_any_turn": 0.0, "one_piece": 0.0}
FAILED_EXPORT = {
    "export_f_002": 0.0,
    "export_f_005": 0.0,
    "silhouette_iou": 0.0,
    "closed": 0.0,
    "one_body": 0.0,
}


@dataclass(frozen=True)
class Plan:
    """What every process of an evaluation shares; `deadline` is a `time.time`, `tiles` how many to draw."""

    weights: Path
    device: str
    autoencoders: bool = True
    structure_guidance: float | None = None
    resolution: int = RESOLUTION
    deadline: float | None = None
    tiles: int = 0
    processes: int = 1
    exported: bool = False  # measure the exported asset, too
    patterned: bool = False  # put patterns on every second object
    all_families: bool = False  # held-out objects of all families and patterns, else of the first 51 and 7


def evaluate_package(plan: Plan, objects: int, out: Path, sheet: Path | None = None) -> dict[str, Any]:
    """Measure, write `out` (JSON) and a table beside it (`.md`); returns the summary.

    `plan.weights` is a pipeline folder with the two encoders among its checkpoints. The objects are shared
    out over `plan.processes` processes; the figures do not depend on their number.
    """
    numbers = list(range(objects))
    if plan.processes == 1:
        results = _score_objects(plan, numbers)
    else:
        shares = [numbers[i :: plan.processes] for i in range(plan.processes)]
        with ProcessPoolExecutor(plan.processes, mp_context=get_context("spawn")) as pool:
            work = pool.map(_score_objects, [plan] * len(shares), shares, range(len(shares)))
            results = [r for part in work for r in part]
    results.sort(key=lambda result: result[0]["number"])
    rows = [row for row, _ in results]
    summary = summarise(rows)
    chosen = _device(plan.device)
    summary["device"] = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "cpu"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"summary": summary, "objects": rows}, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(card_table(summary), encoding="utf-8")
    tiles = [tile for _, tile in results if tile is not None]
    if sheet is not None and tiles:
        _write_sheet(tiles, sheet)
    log.info("summary %s", json.dumps(summary))
    return summary


def read_view(pipeline: Any, rgba: Image.Image, device: torch.device) -> rd.View | None:
    """The camera, of the whole frame, that the pipeline reads from a picture; None where it reads none."""
    conditioner = pipeline.prepare(rgba).conditioner
    if not isinstance(conditioner, UprightConditioner):
        return None
    read = conditioner.camera
    return rd.camera(read.yaw, read.pitch, read.fov, device)


def as_seen(read: rd.View | None, view: rd.View) -> rd.View:
    """`view`, from the yaw that the pipeline has `read`, if it has: of an object whose yaw no picture tells,
    any is right, and it must look like the picture from there.
    """
    if read is None:
        return view
    true, own = rd.upright_camera(view), rd.upright_camera(read)
    return rd.camera(own.yaw, true.pitch, true.fov, view.half.device)


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _score_objects(
    plan: Plan, numbers: list[int], process: int = 0
) -> list[tuple[dict[str, Any], np.ndarray | None]]:
    """Rows and tiles of some held-out objects; in a process of its own when there are several. Processes
    take the GPUs in turn.
    """
    from trellis2.models import from_pretrained
    from trellis2.pipelines import Trellis2ImageTo3DPipeline

    if plan.processes > 1:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        torch.set_num_threads(max((os.cpu_count() or 1) // plan.processes, 1))
    chosen = _device(plan.device)
    if chosen.type == "cuda" and chosen.index is None:
        chosen = torch.device("cuda", process % torch.cuda.device_count())
        torch.cuda.set_device(chosen)
    pipeline = Trellis2ImageTo3DPipeline.from_pretrained(plan.weights, device=chosen, skip=("rembg_model",))
    overrides = {} if plan.structure_guidance is None else {"guidance_strength": plan.structure_guidance}
    parts: dict[str, Any] = {}
    if plan.autoencoders:
        names = ("shape_enc", "shape_dec", "tex_enc", "tex_dec")
        parts = {n: from_pretrained(plan.weights / "ckpts" / SHIPPED[n], device=chosen) for n in names}
    results: list[tuple[dict[str, Any], np.ndarray | None]] = []
    for i in numbers:
        if results and plan.deadline is not None and time.time() > plan.deadline:
            break
        number = (world.HELD_OUT_ALL if plan.all_families else world.HELD_OUT_SEED) + i
        table = held_out_table(i, plan.patterned, plan.all_families).to(chosen)
        generator = torch.Generator().manual_seed(number)
        truth = voxelize(table, plan.resolution)
        target = ms.surface_points(*true_mesh(truth), _AUTOENCODER_POINTS, generator)
        row: dict[str, Any] = {"number": number, "family": world.family_of(number)}
        tile = None
        if parts:
            row |= autoencoder_scores(parts, truth, target, generator)
        view, picture = held_out_picture(table, number)
        read = read_view(pipeline, to_rgba(picture), chosen)
        seen = as_seen(read, view) if bool(world.is_symmetric(table[None])) else view
        began = time.perf_counter()
        try:
            asset = pipeline.run(
                to_rgba(picture), seed=i, sparse_structure_sampler_params=overrides, pipeline_type="512"
            )[0]
            row |= {"seconds": time.perf_counter() - began}
            row |= asset_scores(asset, picture, target[:_POINTS], generator)
            if plan.exported:
                row |= exported_scores(asset, seen, picture, target[:_POINTS], generator, read)
                if plan.patterned and i % 2 and "correlation" in row:
                    row |= {f"{k}_patterned": row[k] for k in ("correlation", "read_correlation") if k in row}
            if i < plan.tiles:
                tile = _tile(picture, view, asset)
        except EmptyStructureError:
            row |= FAILED | (FAILED_EXPORT if plan.exported else {})
        results.append((row, tile))
        log.info("%s", json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}))
    return results


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over all objects that have a figure, and the mean F-score of each family."""
    names = sorted({k for r in rows for k, v in r.items() if isinstance(v, float)})
    means: dict[str, Any] = {n: float(np.mean([r[n] for r in rows if n in r])) for n in names}
    families = sorted({r["family"] for r in rows})
    by_family = {
        f: round(float(np.mean([r["f_002"] for r in rows if r["family"] == f])), 3) for f in families
    }
    return {"objects": len(rows), **means, "f_002_by_family": by_family}


TARGETS = {
    "ae_f_1_256": ("shape autoencoder at 512, F-score at 1/256", ">= 0.95"),
    "ae_base_color_mae": ("texture autoencoder, base colour, mean absolute error", "<= 0.03"),
    "f_002": ("image to 3D, F-score at 0.02", ">= 0.70"),
    "f_005": ("image to 3D, F-score at 0.05", ">= 0.90"),
    "f_002_any_turn": ("the same at 0.02, best of four quarter turns", ""),
    "f_005_any_turn": ("the same at 0.05, best of four quarter turns", ""),
    "visible_base_color_mae": ("base colour of visible points, mean absolute error", "<= 0.10"),
    "one_piece": (f"not empty, largest component at least {ms.DOMINANT_SHARE:.0%} of the area", ">= 0.95"),
    "export_f_002": ("exported for the web, F-score at 0.02", ">= 0.80"),
    "export_f_005": ("the same at 0.05", ">= 0.95"),
    "silhouette_iou": ("silhouette in the input camera, IoU", ">= 0.92"),
    "seen_base_color_mae": ("base colour picture in the input camera, mean absolute error", "<= 0.065"),
    "correlation": ("base colour picture, correlation (objects of several colours)", ""),
    "correlation_patterned": ("the same, patterned objects", ">= 0.85"),
    "ssim": ("SSIM (objects of several colours)", ""),
    "read_seen_base_color_mae": ("seen by the camera that the weights read: base colours, error", ""),
    "read_correlation": ("correlation of these (objects of several colours)", ""),
    "read_correlation_patterned": ("the same, patterned objects", ""),
    "read_ssim": ("SSIM of these", ""),
    "closed": ("exported mesh without open edges", ">= 0.98"),
    "one_body": (f"its largest component at least {DOMINANT_SHARE:.0%} of the area", ">= 0.98"),
}


def card_table(summary: dict[str, Any]) -> str:
    """The results as a Markdown table for the model card."""
    lines = [
        f"{summary['objects']} held-out objects, one seed each.",
        "",
        "| figure | target | measured |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {text} | {target} | {summary[k]:.3f} |" for k, (text, target) in TARGETS.items() if k in summary
    ]
    return "\n".join(lines) + "\n"


def _tile(picture: rd.Picture, view: rd.View, asset: Any, size: int = 192) -> np.ndarray:
    small = torch.nn.functional.interpolate(picture.rgb, (size, size), mode="area")[0].permute(1, 2, 0).cpu()
    places = (asset.coords.float() + 0.5) * asset.voxel_size + asset.origin
    views = [view, rd.camera(torch.tensor([0.6]), torch.tensor([0.35]), torch.tensor([0.6]), places.device)]
    drawn = [splat(v, places, asset.attrs[:, :3].clamp(0, 1), size) for v in views]
    return (torch.cat([small, *drawn], 1).clamp(0, 1) * 255).byte().numpy()


def splat(view: rd.View, places: Tensor, colours: Tensor, size: int) -> Tensor:
    """The nearest point of each pixel, lit by the slope of their depth: a quick look `[S, S, 3]` without a
    rasteriser.
    """
    away = places - view.position[0]
    depth = away @ view.forward[0]
    x = (away @ view.right[0]) / depth / view.tangent[0]
    y = (away @ view.up[0]) / depth / view.tangent[0]
    column, row = (((x + 1) / 2 * size).long(), ((1 - y) / 2 * size).long())
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    cell = (row * size + column)[inside]
    nearest = torch.full((size * size,), torch.inf, device=places.device)
    nearest = nearest.scatter_reduce(0, cell, depth[inside], "amin")
    front = depth[inside] == nearest[cell]  # of several writes to one pixel any may win
    image = torch.zeros(size * size, 4, device=places.device)
    image[cell[front]] = torch.cat([colours, depth[:, None]], 1)[inside][front]
    image = image.view(size, size, 4)
    slope = image[..., 3] - image[..., 3].roll((1, 1), (0, 1))
    light = (0.85 - slope * size * 0.1).clamp(0.4, 1.0)
    return (image[..., :3] * light[..., None]).cpu()


def _write_sheet(tiles: list[np.ndarray], path: Path, columns: int = 4) -> None:
    blank = np.zeros_like(tiles[0])
    tiles = tiles + [blank] * (-len(tiles) % columns)
    lines = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    Image.fromarray(np.concatenate(lines)).save(path)
