"""Hard edges are cut for shading, curved surfaces are not."""

from __future__ import annotations

import math

import torch
from o_voxel.mesh.creases import shading_normals, split_creases
from o_voxel.mesh.normals import face_normals, vertex_normals
from o_voxel.mesh.repair.orientation import unify_orientations

from tests.o_voxel.mesh.shapes import mobius
from tests.o_voxel.postprocess.objects import box, sphere


def normals_at_corners(mesh: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """[F, 3, 3]: the shading normal at each corner of each face."""
    source, faces = split_creases(*mesh)
    assert torch.equal(source[faces.long()], mesh[1].long())
    return vertex_normals(mesh[0][source], faces)[faces.long()]


def test_a_box_shades_flat() -> None:
    mesh = box((-0.4, -0.4, -0.1), (0.4, 0.4, 0.1))
    assert len(split_creases(*mesh)[0]) == 24
    flat = face_normals(*mesh)[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(normals_at_corners(mesh), flat, atol=1e-6, rtol=0)


def test_a_ball_stays_whole() -> None:
    mesh = sphere(rings=12)
    source, faces = split_creases(*mesh)
    assert len(source) == len(mesh[0])
    assert torch.equal(source[faces.long()], mesh[1].long())


def test_a_cone_is_sharp_at_its_rim_only() -> None:
    around = torch.arange(24) * (2 * math.pi / 24)
    rim = torch.stack([around.cos(), around.sin(), torch.zeros(24)], dim=1)
    vertices = torch.cat([rim, torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])])
    k = torch.arange(24)
    following = (k + 1) % 24
    side = torch.stack([k, following, torch.full((24,), 24)], dim=1)
    base = torch.stack([following, k, torch.full((24,), 25)], dim=1)
    mesh = vertices, torch.cat([side, base]).int()
    corners = normals_at_corners(mesh)
    assert (corners[24:, :, 2] + 1).abs().max() < 1e-6  # the base is flat to its rim
    rim_normal = corners[:24, :2]
    expected = torch.stack([around.cos(), around.sin(), torch.ones(24)], dim=1) / math.sqrt(2)
    assert ((rim_normal[:, 0] * expected).sum(dim=1) > 0.999).all()


def test_no_corner_normal_lies_behind_its_face() -> None:
    """A tall pyramid bent over at a fan of gentle steps: the mean of its faces is behind some of them."""
    turn = torch.linspace(0, 1.6 * math.pi, 9)
    rim = torch.stack([turn.cos(), turn.sin(), torch.zeros(9)], dim=1)
    vertices = torch.cat([torch.tensor([[0.0, 0.0, 2.0]]), rim])
    faces = torch.tensor([[0, k, k + 1] for k in range(1, 9)], dtype=torch.int32)
    vertices[0] = torch.tensor([0.9, 0.0, 2.0])
    source, shading, normals = shading_normals(vertices, faces)
    assert torch.equal(source[shading.long()], faces.long())
    cosine = (normals[shading.long()] * face_normals(vertices, faces)[:, None]).sum(dim=2)
    assert float(cosine.min()) >= 0.05
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(len(normals)))
    whole, joined = split_creases(vertices, faces)
    smooth = vertex_normals(vertices[whole], joined)[joined.long()]
    assert float((smooth * face_normals(vertices, faces)[:, None]).sum(dim=2).min()) < 0.05


def test_faces_wound_against_each_other_share_no_normal() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 3, 2]], dtype=torch.int32)
    assert len(split_creases(vertices, faces)[0]) == 6
    assert len(split_creases(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]))[0]) == 4


def test_the_seam_of_a_one_sided_band_is_a_crease() -> None:
    points, faces = unify_orientations(*mobius(120))
    source, shading = split_creases(points, faces)
    normals = vertex_normals(points[source], shading)
    corner = normals[shading.long()]  # [F, 3, 3]
    cosine = (corner * face_normals(points, faces)[:, None]).sum(dim=2)
    assert float(cosine.min()) > 0.42  # 65 degrees
