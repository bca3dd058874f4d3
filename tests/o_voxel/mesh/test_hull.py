"""The collision hull of bodies whose hull is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from o_voxel.errors import MeshError
from o_voxel.mesh.hull import CORNERS, convex_hull
from o_voxel.mesh.quality import mesh_quality

from .shapes import cube, join, sphere


def test_a_cube_and_what_lies_in_it() -> None:
    body = join(cube(), (sphere(12, 0.3)))
    vertices, faces = convex_hull(body[0].numpy())
    found = mesh_quality(torch.from_numpy(vertices), torch.from_numpy(faces), look=False)
    assert found.solid
    assert (found.vertices, found.faces) == (8, 12)
    assert found.volume == pytest.approx(1.0)


def test_a_round_body_keeps_to_few_corners() -> None:
    vertices, faces = convex_hull(sphere(48, 0.5)[0].numpy())
    assert len(vertices) <= CORNERS
    volume = mesh_quality(torch.from_numpy(vertices), torch.from_numpy(faces), look=False).volume
    assert 0.9 < volume / (4 / 3 * np.pi * 0.125) < 1.0


def test_a_flat_mesh_has_none() -> None:
    with pytest.raises(MeshError, match="flat"):
        convex_hull(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=np.float32))
