"""Small meshes with known properties, and slow, obvious checks of meshes."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import torch

Mesh = tuple[torch.Tensor, torch.Tensor]


def mesh(points: list[list[float]], faces: list[list[int]]) -> Mesh:
    return torch.tensor(points, dtype=torch.float32), torch.tensor(faces, dtype=torch.int32)


def tetrahedron() -> Mesh:
    return mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def cube(size: float = 1.0) -> Mesh:
    """Closed, outward, centred at 0."""
    points = [[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = [f for a, b, c, d in quads for f in ([a, b, c], [a, c, d])]
    return (torch.tensor(points, dtype=torch.float32) - 0.5) * size, torch.tensor(faces, dtype=torch.int32)


def sphere(rings: int = 24, radius: float = 0.4) -> Mesh:
    """Closed, outward, with one vertex at each pole."""
    around = 2 * rings
    theta = torch.arange(1, rings) * (math.pi / rings)
    phi = torch.arange(around) * (2 * math.pi / around)
    t, p = (x.reshape(-1) for x in torch.meshgrid(theta, phi, indexing="ij"))
    points = torch.stack([t.sin() * p.cos(), t.sin() * p.sin(), t.cos()], dim=1)
    points = torch.cat([torch.tensor([[0.0, 0.0, 1.0]]), points, torch.tensor([[0.0, 0.0, -1.0]])]) * radius
    faces = []
    for j in range(around):
        k = (j + 1) % around
        faces.append([0, 1 + j, 1 + k])
        for i in range(rings - 2):
            a, b = 1 + i * around + j, 1 + i * around + k
            faces += [[a, a + around, b + around], [a, b + around, b]]
        last = 1 + (rings - 2) * around
        faces.append([len(points) - 1, last + k, last + j])
    return points, torch.tensor(faces, dtype=torch.int32)


def sheet(cells: int = 8, size: float = 1.0) -> Mesh:
    """A flat open square in the xy plane, normals +z."""
    axis = torch.linspace(-size / 2, size / 2, cells + 1)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack([x, y, torch.zeros_like(x)], dim=-1).reshape(-1, 3)
    i, j = (k.reshape(-1) for k in torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij"))
    a = i * (cells + 1) + j
    b, c, d = a + cells + 1, a + cells + 2, a + 1
    faces = torch.cat([torch.stack([a, b, c], dim=1), torch.stack([a, c, d], dim=1)])
    return points, faces.int()


def mobius(segments: int = 24) -> Mesh:
    points, faces = [], []
    for s in range(segments):
        angle = 2 * math.pi * s / segments
        for side in (-0.2, 0.2):
            r = 1 + side * math.cos(angle / 2)
            points.append([r * math.cos(angle), r * math.sin(angle), side * math.sin(angle / 2)])
    for s in range(segments):
        a, b = 2 * s, 2 * s + 1
        c, d = (1, 0) if s == segments - 1 else (a + 2, b + 2)
        faces += [[a, c, b], [b, c, d]]
    return mesh(points, faces)


def klein_bottle(around: int = 60, across: int = 24) -> Mesh:
    """The figure-eight immersion, which crosses itself in a circle: closed and one-sided."""
    u = torch.arange(around)[:, None] * (2 * math.pi / around)
    v = torch.arange(across)[None] * (2 * math.pi / across)
    eight, height = v.sin(), (2 * v).sin()
    radius = 0.3 + 0.15 * ((u / 2).cos() * eight - (u / 2).sin() * height)
    z = 0.15 * ((u / 2).sin() * eight + (u / 2).cos() * height)
    points = torch.stack([radius * u.cos(), radius * u.sin(), z], dim=2).reshape(-1, 3)
    i, j = torch.meshgrid(torch.arange(around), torch.arange(across), indexing="ij")

    def vertex(i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        j = torch.where(i == around, -j, j)  # sin and sin 2 both change sign after a turn
        return (i % around) * across + j % across

    a, b, c, d = vertex(i, j), vertex(i + 1, j), vertex(i, j + 1), vertex(i + 1, j + 1)
    faces = torch.cat([torch.stack([a, b, c], 2), torch.stack([c, b, d], 2)]).reshape(-1, 3)
    return points, faces.int()


def bow_tie() -> Mesh:
    """Two tetrahedra that touch at vertex 0 only."""
    points, faces = tetrahedron()
    other = torch.where(faces == 0, 0, faces + 3)[:, [0, 2, 1]]
    return torch.cat([points, -points[1:]]), torch.cat([faces, other])


def fan(blades: int = 3) -> Mesh:
    """Triangles around one shared edge 0-1."""
    points = [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    for k in range(blades):
        angle = 2 * math.pi * k / blades
        points.append([math.cos(angle), math.sin(angle), 0.5])
    return mesh(points, [[0, 1, 2 + k] for k in range(blades)])


def join(*parts: Mesh) -> Mesh:
    points, faces, offset = [], [], 0
    for p, f in parts:
        points.append(p)
        faces.append(f + offset)
        offset += len(p)
    return torch.cat(points), torch.cat(faces)


def on(device: torch.device, value: Mesh) -> Mesh:
    return value[0].to(device), value[1].to(device)


def edge_counts(faces: torch.Tensor) -> Counter[tuple[int, int]]:
    """Multiplicity of every undirected edge, the slow way."""
    counts: Counter[tuple[int, int]] = Counter()
    for a, b, c in faces.tolist():
        for u, v in ((a, b), (b, c), (c, a)):
            if u != v:
                counts[(min(u, v), max(u, v))] += 1
    return counts


def is_closed(faces: torch.Tensor) -> bool:
    return all(n % 2 == 0 for n in edge_counts(faces).values())


def is_oriented(faces: torch.Tensor) -> bool:
    """Every directed edge is met by as many opposite ones."""
    counts: Counter[tuple[int, int]] = Counter()
    for a, b, c in faces.tolist():
        for u, v in ((a, b), (b, c), (c, a)):
            counts[(u, v)] += 1
            counts[(v, u)] -= 1
    return not any(counts.values())


def volume(points: torch.Tensor, faces: torch.Tensor) -> float:
    a, b, c = points.double()[faces.long()].unbind(dim=1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def triangle_soup(generator: np.random.Generator, vertices: int, faces: int) -> Mesh:
    """Random corners: degenerate, duplicate and non-manifold faces included."""
    points = generator.uniform(-0.5, 0.5, (vertices, 3)).astype(np.float32)
    corners = generator.integers(0, vertices, (faces, 3)).astype(np.int32)
    return torch.from_numpy(points), torch.from_numpy(corners)


def brute_closest(points: torch.Tensor, mesh_points: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Distance [Q] to the nearest triangle: nearest of the plane's foot (when inside) and the three edges."""
    p = points.double()[:, None]  # [Q, 1, 3]
    a, b, c = (x[None] for x in mesh_points.double()[faces.long()].unbind(dim=1))
    best = torch.full((points.shape[0], faces.shape[0]), math.inf, dtype=torch.float64)
    for u, v in ((a, b), (b, c), (c, a)):
        d = v - u
        t = ((p - u) * d).sum(-1) / (d * d).sum(-1).clamp_min(1e-300)
        best = torch.minimum(best, (u + t.clamp(0, 1)[..., None] * d - p).norm(dim=-1))
    n = torch.linalg.cross(b - a, c - a)
    length = n.norm(dim=-1)
    height = ((p - a) * n).sum(-1) / length.clamp_min(1e-300)
    foot = p - height[..., None] * n / length.clamp_min(1e-300)[..., None]
    inside = length.expand_as(best) > 0
    for u, v in ((a, b), (b, c), (c, a)):
        inside = inside & ((torch.linalg.cross((v - u).expand_as(foot), foot - u) * n).sum(-1) >= 0)
    best = torch.where(inside, torch.minimum(best, height.abs()), best)
    return best.min(dim=1).values
