"""Conversion: a mesh of 400 k faces to a dual grid at 512 and back, sampling, voxel files."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable

import torch
from o_voxel.convert import flexible_dual_grid_to_mesh, mesh_to_flexible_dual_grid
from o_voxel.io import read_vxz, write_vxz
from o_voxel.sampling import VoxelGrid, sample_trilinear

from .record import Record, median_seconds, peak_memory_gb

RESOLUTION = 512
UNIT_BOX = [[-0.5] * 3, [0.5] * 3]


def bumpy_sphere(faces: int = 400_000) -> tuple[torch.Tensor, torch.Tensor]:
    """A sphere with ripples, about `faces` triangles of about a voxel and a half."""
    rows = round(math.sqrt(faces / 2))
    u = torch.linspace(0, 2 * math.pi, rows + 1)[:-1]
    v = torch.linspace(1e-3, math.pi - 1e-3, rows + 1)
    around, down = torch.meshgrid(u, v, indexing="ij")
    radius = 0.4 + 0.03 * torch.sin(9 * around) * torch.sin(7 * down)
    xyz = (down.sin() * around.cos(), down.sin() * around.sin(), down.cos())
    vertices = (torch.stack(xyz, dim=-1) * radius[..., None]).view(-1, 3)
    i, j = torch.arange(rows)[:, None], torch.arange(rows)[None]
    a, b = i * (rows + 1) + j, (i + 1) % rows * (rows + 1) + j
    quads = torch.stack((a, b, b + 1, a, b + 1, a + 1), dim=-1)
    return vertices, quads.view(-1, 3)


def run() -> list[Record]:
    vertices, faces = bumpy_sphere()

    def to_grid() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return mesh_to_flexible_dual_grid(
            vertices,
            faces,
            grid_size=RESOLUTION,
            aabb=UNIT_BOX,
            boundary_weight=0.2,
            regularization_weight=0.01,
        )

    coords, dual, flags = to_grid()
    note = f"{len(faces)} faces, {len(coords)} voxels"
    records = [Record("mesh to dual grid 512", median_seconds(to_grid, warmup=0), "s", 10.0, note)]
    records.append(
        Record("mesh to dual grid 512, processor", _processor_seconds(to_grid), "s", None, "all threads")
    )
    local = dual * RESOLUTION - coords
    records.append(
        Record(
            "dual grid 512 to mesh",
            median_seconds(
                lambda: flexible_dual_grid_to_mesh(coords, local, flags, None, UNIT_BOX, grid_size=RESOLUTION)
            ),
            "s",
            None,
            note,
        )
    )
    grid = VoxelGrid(coords, (RESOLUTION,) * 3)
    attrs = torch.rand((len(coords), 6))
    points = (coords + torch.rand((len(coords), 3)))[torch.arange(1_000_000) % len(coords)]
    seconds = median_seconds(lambda: sample_trilinear(grid, attrs, points))
    records.append(Record("trilinear samples, 1 M of 6 channels", seconds, "s", 0.6, "points in voxel order"))
    shuffled = points[torch.randperm(len(points))]
    seconds = median_seconds(lambda: sample_trilinear(grid, attrs, shuffled))
    records.append(Record("the same, points in random order", seconds, "s", 0.6, ""))

    color = {"base_color": (coords % 256).to(torch.uint8)}
    for compression, level in (("zstd", 3), ("lzma", 9)):
        handle = io.BytesIO()
        start = time.perf_counter()
        write_vxz(handle, coords, color, compression=compression, compression_level=level)
        records.append(
            Record(f"vxz write, {compression} {level}", time.perf_counter() - start, "s", None, note)
        )
        handle.seek(0)
        start = time.perf_counter()
        read_vxz(handle)
        records.append(
            Record(f"vxz read, {compression} {level}", time.perf_counter() - start, "s", None, note)
        )
    records.append(Record("peak memory", peak_memory_gb(), "GB", None, "all of the above"))
    return records


def _processor_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start
