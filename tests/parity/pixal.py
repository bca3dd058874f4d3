"""Checks of the pixel-aligned conditioning: cameras, projection, sampled features, NAF, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from trellis2.conditioning.camera import (
    Camera,
    filling_distance,
    front_camera,
    in_main_frame,
    project,
    token_points,
)
from trellis2.conditioning.image_batch import normalize_tokens, view_tensor
from trellis2.conditioning.naf import NAF, upsample_at
from trellis2.conditioning.pixel_features import (
    PixelView,
    make_view,
    sample_map,
    split_tokens,
    token_features,
)
from trellis2.conditioning.preprocess import PIXEL_ALIGNED_MARGIN, preprocess_image
from trellis2.nn.rope import grid_coords

from .check import Comparison, check, exact, relative_l2
from .models import Golden, no_grad

TOLERANCE = 2e-5


def camera_of(row: np.ndarray) -> tuple[Camera, float, float, int]:
    """Camera, mesh scale, picture side, grid of a row [fov, distance, mesh scale, S, R]."""
    fov, distance, scale, size, grid = row[:5].tolist()
    return front_camera(fov, distance), scale, size, int(grid)


def upsampler(g: Golden) -> NAF:
    model = NAF(g.config["dim"], g.config["heads"])
    model.load_state_dict(g.weights())
    return model


@check("pixal/camera_distance.npz")
def camera_distance(path: Path) -> list[Comparison]:
    g = Golden(path)
    ours = [
        [filling_distance(fov, scale, extra, size), front_camera(fov).focal(size)]
        for fov, scale, extra, size in g.array("in/rows").tolist()
    ]
    return [relative_l2("out/distance_focal", np.array(ours), g.array("out/distance_focal"), TOLERANCE)]


@check("pixal/projection.npz")
@no_grad
def projection(path: Path) -> list[Comparison]:
    g = Golden(path)
    results: list[Comparison] = []
    for name in [f"cam{i}" for i in range(5)] + [f"pose{i}" for i in range(4)]:
        camera, scale, size, grid = camera_of(g.array(f"in/{name}"))
        if f"in/{name}.c2w" in g.arrays:
            camera = Camera(g.tensor(f"in/{name}.c2w"), camera.fov)
        points = token_points(grid_coords(grid), grid, scale)
        pixels, depths = project(points, camera, size)
        inside = ((pixels >= 0) & (pixels < size)).all(1) & (depths > 0)
        results += g.compare(f"out/{name}.pixel", pixels, TOLERANCE)
        results += g.compare(f"out/{name}.depth", depths, TOLERANCE)
        results += [exact(f"out/{name}.valid", inside.numpy(), g.array(f"out/{name}.valid"))]
        if f"out/{name}.world" in g.arrays:
            results += g.compare(f"out/{name}.world", points, TOLERANCE)
    return results


@check("pixal/sampling.npz")
@no_grad
def sampling(path: Path) -> list[Comparison]:
    g = Golden(path)
    return [
        comparison
        for i in range(4)
        for comparison in g.compare(
            f"out/y{i}",
            sample_map(
                g.tensor(f"in/map{i}").permute(1, 2, 0), g.tensor(f"in/pixel{i}"), int(g.array(f"in/S{i}")[0])
            ),
            TOLERANCE,
        )
    ]


@check("pixal/proj_grid.npz")
@no_grad
def proj_grid(path: Path) -> list[Comparison]:
    g = Golden(path)
    results: list[Comparison] = []
    for i in range(5):
        camera, scale, size, grid = camera_of(g.array(f"in/cam{i}"))
        low, high = g.tensor(f"in/lr{i}"), g.tensor(f"in/hr{i}").permute(1, 2, 0)

        def features(patches: torch.Tensor, coords: torch.Tensor) -> torch.Tensor:
            view = PixelView(camera, int(size), patches, {})  # noqa: B023
            return token_features([view], coords, grid, (), scale)  # noqa: B023

        dense, rows = grid_coords(grid), g.tensor(f"in/coords{i}")[:, 1:]
        results += g.compare(f"out/lr{i}", features(low, dense), TOLERANCE)
        results += g.compare(f"out/hr{i}", features(high, dense), TOLERANCE)
        both = torch.cat([features(low, rows), features(high, rows)], dim=1)
        results += g.compare(f"out/sparse{i}", both, TOLERANCE)
    return results


@check("pixal/naf.npz")
@no_grad
def naf(path: Path) -> list[Comparison]:
    g = Golden(path)
    model = upsampler(g)
    results: list[Comparison] = []
    for i in range(5):
        side, values = int(g.array(f"in/T{i}")[0]), g.tensor(f"in/features{i}").permute(1, 2, 0)
        guide = model.guide(model.encode(g.tensor(f"in/image{i}"), side), side, values.shape[0])
        queries = guide.queries.flatten(1).T.unflatten(1, (side, side))
        results += g.compare(f"out/guide{i}", queries[:, ::5, ::5], TOLERANCE)
        pixels = torch.arange(side * side)[:, None]
        out = upsample_at(guide, values, pixels, torch.ones_like(pixels, dtype=torch.float32))
        results += g.compare(f"out/y{i}", out.T.unflatten(1, (side, side)), TOLERANCE)
    return results


@check("pixal/conditioning.npz")
@no_grad
def conditioning(path: Path) -> list[Comparison]:
    g = Golden(path)
    model = upsampler(g)
    results: list[Comparison] = []
    for i in range(3):
        row = g.array(f"in/cam{i}")
        camera, scale, _, grid = camera_of(row)
        sides = [int(row[5])] if row[5] else []
        tokens, patches = split_tokens(normalize_tokens(g.tensor(f"in/hidden{i}")))
        view = make_view(camera, patches, g.tensor(f"in/image{i}"), sides, model)
        results += g.compare(f"out/global{i}", tokens, TOLERANCE)
        features = token_features([view], grid_coords(grid), grid, sides, scale)
        results += g.compare(f"out/proj{i}", features, TOLERANCE)
    return results


@check("pixal/multiview.npz")
@no_grad
def multiview(path: Path) -> list[Comparison]:
    g = Golden(path)
    model = upsampler(g)
    results: list[Comparison] = []
    for i in range(4):
        size, grid, side = g.array(f"in/meta{i}").tolist()
        sides = [side] if side else []
        fovs, scale = g.array(f"in/fov{i}").tolist(), float(g.array(f"in/scale{i}")[0])
        posed = [Camera(m, f) for m, f in zip(g.tensor(f"in/c2w{i}"), fovs, strict=True)]
        cameras = in_main_frame(posed)
        results += g.compare(f"out/distance{i}", torch.tensor([c.distance for c in posed]), TOLERANCE)
        results += g.compare(f"out/calc{i}", torch.stack([c.camera_to_world for c in cameras]), TOLERANCE)
        split = [split_tokens(normalize_tokens(hidden)) for hidden in g.tensor(f"in/hidden{i}")]
        blank: Any = [torch.zeros(3, size, size)] * len(cameras)
        pictures = g.tensor(f"in/images{i}") if side else blank
        views = [
            make_view(camera, patches, picture, sides, model)
            for camera, (_, patches), picture in zip(cameras, split, pictures, strict=True)
        ]
        results += g.compare(
            f"out/global{i}", torch.stack([tokens for tokens, _ in split]).mean(0), TOLERANCE
        )
        features = token_features(views, grid_coords(grid), grid, sides, scale)
        results += g.compare(f"out/proj{i}", features, TOLERANCE)
    return results


@check("pixal/preprocess.npz")
def preprocess(path: Path) -> list[Comparison]:
    g = Golden(path)
    return [
        exact(
            f"out/rgb{i}",
            np.asarray(
                preprocess_image(Image.fromarray(g.array(f"in/rgba{i}")), margin=PIXEL_ALIGNED_MARGIN)
            ),
            g.array(f"out/rgb{i}"),
        )
        for i in range(3)
    ]


@check("pixal/view_tensor.npz")
def posed_picture(path: Path) -> list[Comparison]:
    g = Golden(path)
    picture = Image.fromarray(g.array("in/rgba"))
    return [
        c for size in (32, 80) for c in g.compare(f"out/view{size}", view_tensor(picture, size), TOLERANCE)
    ]
