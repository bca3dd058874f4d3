"""Small meshes for conversion tests, in the cube of side 1 around the origin."""

from __future__ import annotations

import numpy as np
import torch

UNIT_BOX = [[-0.5] * 3, [0.5] * 3]


def sphere(rings: int = 12, radius: float = 0.37) -> tuple[torch.Tensor, torch.Tensor]:
    """A closed sphere of latitudes and longitudes, slightly turned so that no vertex lies on the lattice."""
    theta = np.linspace(0, np.pi, rings + 1)[1:-1]
    phi = np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    ring = np.stack(
        [
            np.outer(np.sin(theta), np.cos(phi)),
            np.outer(np.sin(theta), np.sin(phi)),
            np.outer(np.cos(theta), np.ones_like(phi)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    vertices = np.concatenate([ring, [[0, 0, 1]], [[0, 0, -1]]])
    count, top, bottom = 2 * rings, len(ring), len(ring) + 1
    faces = []
    for j in range(count):
        k = (j + 1) % count
        faces += [[top, j, k], [bottom, (rings - 2) * count + k, (rings - 2) * count + j]]
        for i in range(rings - 2):
            a, b, c, d = i * count + j, i * count + k, (i + 1) * count + j, (i + 1) * count + k
            faces += [[a, c, d], [a, d, b]]
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return torch.from_numpy((vertices * radius) @ turn.T).float(), torch.tensor(faces)


def quad(side: float = 0.6, z: float = 0.01) -> tuple[torch.Tensor, torch.Tensor]:
    """A square of two triangles, its corners in the order of `QUAD_UV`."""
    h = side / 2
    vertices = torch.tensor([[-h, -h, z], [h, -h, z], [h, h, z], [-h, h, z]])
    return vertices, torch.tensor([[0, 1, 2], [0, 2, 3]])


QUAD_UV = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
