"""Face order against a simulated cache, and vertices in the order of their first use."""

from __future__ import annotations

import torch
from o_voxel.mesh.vertex_cache import CACHE, cache_order, fetch_order

from .shapes import join, sheet, sphere, tetrahedron


def misses(faces: torch.Tensor, size: int = CACHE) -> float:
    """Vertices shaded per face by a first-in first-out cache."""
    cache: list[int] = []
    count = 0
    for vertex in faces.reshape(-1).tolist():
        if vertex not in cache:
            count += 1
            cache.append(vertex)
            del cache[:-size]
    return count / len(faces)


def test_a_shuffled_mesh_is_shaded_about_once() -> None:
    vertices, faces = sphere(24)
    shuffled = faces[torch.randperm(len(faces), generator=torch.Generator().manual_seed(1))]
    order = cache_order(shuffled, len(vertices))
    assert torch.equal(order.sort().values, torch.arange(len(faces)))
    assert misses(shuffled) > 2.0
    assert misses(shuffled[order]) < 0.8  # 0.5 is the least there can be


def test_parts_and_vertices_that_no_face_uses() -> None:
    vertices, faces = join(
        tetrahedron(), (torch.zeros((5, 3)), torch.zeros((0, 3), dtype=torch.int32)), sheet(2)
    )
    order = cache_order(faces, len(vertices))
    assert torch.equal(order.sort().values, torch.arange(len(faces)))
    used, renumbered = fetch_order(faces[order], len(vertices))
    assert len(used) == len(vertices) - 5
    assert torch.equal(vertices[used][renumbered.long()], vertices[faces[order].long()])
    seen = renumbered.reshape(-1).tolist()
    assert list(dict.fromkeys(seen)) == sorted(set(seen)), "numbered by first use"


def test_no_faces() -> None:
    assert len(cache_order(torch.zeros((0, 3), dtype=torch.int32), 3)) == 0
