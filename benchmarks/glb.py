"""to_glb on the shared object: seconds, memory, charts, file size, and what survives the round trip.

The functions that measure an asset against the truth serve the tests too.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from .record import Record, peak_memory_gb

BOX = [[-0.5] * 3, [0.5] * 3]
LAYOUT = {"base_color": slice(0, 3), "metallic": slice(3, 4), "roughness": slice(4, 5), "alpha": slice(5, 6)}

Surface = tuple[np.ndarray, np.ndarray]
"""Vertices [V, 3] and faces [F, 3]."""


def surface_points(surface: Surface, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Face [count] and barycentric weights [count, 3] of points spread evenly over a surface."""
    random = np.random.default_rng(seed)
    corners = surface[0][surface[1]].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    face = random.choice(len(area), count, p=area / area.sum())
    a, b = np.sqrt(random.random(count)), random.random(count)
    return face, np.stack([1 - a, a * (1 - b), a * b], axis=1)


def symmetric_chamfer(first: Surface, second: Surface, count: int = 20_000) -> float:
    """Mean of both mean distances, each from `count` points of one surface to the other's nearest."""
    from o_voxel.mesh.spatial.bvh import TriangleBVH

    total = 0.0
    for (vertices, faces), (other_vertices, other_faces) in ((first, second), (second, first)):
        face, weights = surface_points((vertices, faces), count)
        points = (vertices[faces[face]] * weights[:, :, None]).sum(axis=1)
        tree = TriangleBVH(torch.from_numpy(other_vertices).float(), torch.from_numpy(other_faces))
        total += float(tree.closest(torch.from_numpy(points).float()).distance.mean())
    return total / 2


def baked_colours(asset: Any, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Points [count, 3] on a GlbAsset in the decoder's frame (z up), and the colour [count, 3] shown there.

    The colour is the texture's, bilinear, as a viewer reads it.
    """
    face, weights = surface_points((asset.vertices, asset.faces), count)
    corners = asset.faces[face]
    points = (asset.vertices[corners] * weights[:, :, None]).sum(axis=1)
    image = torch.from_numpy(asset.material.base_color[..., :3].copy()).permute(2, 0, 1)[None].float() / 255
    uv = torch.from_numpy((asset.uvs[corners] * weights[:, :, None]).sum(axis=1)).float()
    shown = torch.nn.functional.grid_sample(image, uv[None, None] * 2 - 1, align_corners=False)[0, :, 0].T
    return z_up(points), shown.numpy()


def z_up(points: np.ndarray) -> np.ndarray:
    """glTF's frame to the decoder's."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)


def psnr(shown: np.ndarray, true: np.ndarray) -> float:
    """Peak signal to noise ratio in dB of colours in [0, 1]."""
    return float(-10 * np.log10(np.mean((shown - true) ** 2)))


def run() -> list[Record]:
    """Every figure of DESIGN section 10 that to_glb answers for."""
    from o_voxel.postprocess import to_glb

    from .objects import benchmark_object

    warm = benchmark_object(64)
    to_glb(**arguments(warm), decimation_target=2_000, texture_size=128, normal_map=True)
    to_glb(**arguments(warm), decimation_target=2_000, texture_size=128, remesh=True)

    dense = arguments(benchmark_object(512))
    size = f"{len(dense['vertices']):,} vertices, {len(dense['faces']):,} faces"
    records = []
    for remesh, limit in ((False, 8.0), (True, 20.0)):
        start, worked = time.perf_counter(), time.process_time()
        asset = to_glb(**dense, decimation_target=20_000, texture_size=1024, remesh=remesh)
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
        how = "with" if remesh else "without"
        steps = ", ".join(f"{name} {value:.1f}" for name, value in asset.report.seconds.items())
        note = f"{size} to {asset.report.faces:,} faces; {worked:.1f} s processor time; {steps}"
        records += [
            Record(f"to_glb to 20 k faces, 1024 texture, {how} remeshing", seconds, "s", limit, note),
            Record(f"boundary edges, {how} remeshing", asset.report.boundary_edges, "", 0, "closed input"),
            Record(f"charts, {how} remeshing", asset.report.charts, "", 500),
            Record(f"atlas use, {how} remeshing", asset.report.atlas_use, ""),
        ]
        if not remesh:
            webp = len(asset.export(texture_format="webp"))
            records.append(Record("GLB with webp", webp / 1e6, "MB", 2.0))
    records.append(Record("peak memory of to_glb", peak_memory_gb(), "GB", 2.5, "object included"))
    return records + _unwrap_times(dense) + _frayed() + _round_trip()


def arguments(found: dict[str, Any]) -> dict[str, Any]:
    """A benchmark object as arguments of to_glb."""
    return {
        "vertices": found["vertices"],
        "faces": found["faces"],
        "attr_volume": found["attrs"],
        "coords": found["coords"],
        "attr_layout": LAYOUT,
        "aabb": BOX,
        "grid_size": found["resolution"],
    }


def _unwrap_times(dense: dict[str, Any]) -> list[Record]:
    from o_voxel.mesh.charts.unwrap import unwrap
    from o_voxel.mesh.simplification.simplify import simplify

    records = []
    mesh = (dense["vertices"], dense["faces"])
    for target in (500_000, 100_000, 20_000):
        mesh = simplify(*mesh, target)
        start = time.perf_counter()
        found = unwrap(*mesh)
        seconds = time.perf_counter() - start
        note = f"{found.num_charts} charts, {found.utilisation:.0%} of the atlas"
        records.append(Record(f"unwrap {target // 1000} k faces", seconds, "s", None, note))
    return records


def _frayed() -> list[Record]:
    """Weights that are still rough decode to thousands of open pieces."""
    from o_voxel.mesh.simplification.simplify import simplify

    from .objects import benchmark_object

    made = benchmark_object(256)
    faces = made["faces"]
    faces = faces[torch.rand(len(faces), generator=torch.Generator().manual_seed(0)) > 0.3]
    start = time.perf_counter()
    fewer = simplify(made["vertices"], faces, 50_000)[1]
    seconds = time.perf_counter() - start
    note = f"{len(faces):,} faces, three tenths lost at random, to {len(fewer):,}"
    return [Record("simplify a frayed mesh", seconds, "s", 2.0, note)]


def _round_trip(resolution: int = 256) -> list[Record]:
    from o_voxel.convert import flexible_dual_grid_to_mesh, mesh_to_flexible_dual_grid
    from o_voxel.postprocess import to_glb

    from .objects import attributes_at, benchmark_object

    truth = benchmark_object(384)
    coords, dual, flags = mesh_to_flexible_dual_grid(
        truth["vertices"], truth["faces"], grid_size=resolution, aabb=BOX
    )
    local = dual * resolution - coords
    vertices, faces = flexible_dual_grid_to_mesh(coords, local, flags, None, BOX, grid_size=resolution)
    decoded = {
        "vertices": vertices,
        "faces": faces,
        "coords": coords,
        "attrs": attributes_at((coords.float() + 0.5) / resolution - 0.5),
        "resolution": resolution,
    }
    asset = to_glb(**arguments(decoded), decimation_target=50_000, texture_size=1024)
    before = (truth["vertices"].numpy(), truth["faces"].numpy())
    chamfer = symmetric_chamfer(before, (z_up(asset.vertices), asset.faces), 100_000)
    points, shown = baked_colours(asset, 100_000)
    true = attributes_at(torch.from_numpy(points).float())[:, :3].numpy()
    note = f"mesh to dual grid {resolution} to mesh to to_glb 50 k faces, 1024"
    return [
        Record("round trip: symmetric Chamfer", chamfer * resolution, "voxels", 0.5, note),
        Record("round trip: texture PSNR", psnr(shown, true), "dB", 30.0, note, at_least=True),
        Record("round trip: boundary edges", asset.report.boundary_edges, "", 0, note),
    ]
