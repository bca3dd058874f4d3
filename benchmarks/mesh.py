"""Mesh operations on the shared object at 512: 0.75 M vertices, 1.5 M faces."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from o_voxel.mesh import (
    TriangleBVH,
    fill_holes,
    remesh_narrow_band,
    remove_duplicate_faces,
    repair_non_manifold_edges,
    simplify,
    unify_orientations,
)

from .objects import benchmark_object
from .record import Record, peak_memory_gb

Result = TypeVar("Result")
QUERIES = 1_000_000


def timed(call: Callable[[], Result]) -> tuple[Result, float, float]:
    """Result, wall seconds and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def warm_up() -> None:
    """Compile the kernels, which happens once on a machine."""
    small = benchmark_object(32)
    mesh = small["vertices"], small["faces"]
    remesh_narrow_band(*mesh, (0, 0, 0), 1.2, 32, only_outer=True)
    fill_holes(*simplify(*mesh, 1000))


def run() -> list[Record]:
    warm_up()
    made = benchmark_object()
    vertices, faces = made["vertices"], made["faces"]
    records = []

    def measure(name: str, call: Callable[[], Result], target: float | None = None) -> Result:
        result, wall, cpu = timed(call)
        records.append(Record(name, wall, "s", target, f"{cpu:.2f} s processor time"))
        return result

    torn = faces[torch.rand(len(faces), generator=torch.Generator().manual_seed(0)) > 2e-4]
    filled = measure("fill holes", lambda: fill_holes(vertices, torn))
    tree = measure("triangle tree, build", lambda: TriangleBVH(vertices, faces), 2.6)
    queries = near_surface(vertices)
    measure("closest point, 1 M near-surface queries", lambda: tree.closest(queries), 1.5)
    for budget in (1_000_000, 20_000, 2_000):
        target = 4.0 if budget == 20_000 else None
        small = measure(f"simplify to {budget:,} faces", partial(simplify, *filled, budget), target)
        records.append(Record(f"faces reached of {budget:,}", len(small[1]), "faces", 1.01 * budget))
    measure("remove duplicate faces", lambda: remove_duplicate_faces(*filled))
    measure("cut non-manifold edges", lambda: repair_non_manifold_edges(*filled))
    measure("unify orientations", lambda: unify_orientations(*filled))
    for resolution in (256, 512):
        for outer in (True, False):
            name = f"remesh at {resolution}, {'outer layer' if outer else 'double shell'}"
            call = remesh_call(vertices, faces, resolution, tree, outer)
            shell = measure(name, call, 15.0 if resolution == 512 and outer else None)
            records.append(Record(f"{name}: faces", len(shell[1]), "faces"))
    records.append(Record("peak memory", peak_memory_gb(), "GB", 2.5))
    return records


def remesh_call(
    vertices: torch.Tensor, faces: torch.Tensor, resolution: int, tree: TriangleBVH, outer: bool
) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    scale = (resolution + 3) / resolution
    return lambda: remesh_narrow_band(
        vertices, faces, (0, 0, 0), scale, resolution, bvh=tree, only_outer=outer
    )


def near_surface(vertices: torch.Tensor) -> torch.Tensor:
    """Points [QUERIES, 3] about half a voxel from the surface, in the order of the mesh."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, len(vertices), (QUERIES,), generator=generator).sort().values
    return vertices[rows] + torch.randn(QUERIES, 3, generator=generator) * 5e-4
