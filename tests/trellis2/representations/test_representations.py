"""Meshes and voxels: what they hold, how they move, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trellis2.errors import InvalidArgumentError
from trellis2.representations import (
    PBR_ATTR_LAYOUT,
    AlphaMode,
    Mesh,
    MeshWithPbrMaterial,
    MeshWithVoxel,
    PbrMaterial,
    Texture,
    Voxel,
)


def grid_mesh(n: int, hole: tuple[int, int] | None = None) -> Mesh:
    """A flat n x n square grid of side 1, two faces a cell, with one cell left out."""
    side = torch.linspace(-0.5, 0.5, n + 1)
    x, y = torch.meshgrid(side, side, indexing="ij")
    vertices = torch.stack([x, y, torch.zeros_like(x)], dim=-1).reshape(-1, 3)
    faces = []
    for i in range(n):
        for j in range(n):
            if (i, j) == hole:
                continue
            a, b, c, d = (
                k + j for k in (i * (n + 1), (i + 1) * (n + 1), (i + 1) * (n + 1) + 1, i * (n + 1) + 1)
            )
            faces += [[a, b, c], [a, c, d]]
    return Mesh(vertices.double(), torch.tensor(faces))


def cube_voxels() -> tuple[torch.Tensor, torch.Tensor]:
    """All voxels of a 4³ grid with attributes linear in their position."""
    coords = torch.cartesian_prod(*[torch.arange(4)] * 3)
    centres = (coords + 0.5) / 4
    return coords, torch.cat([centres, 1 - centres], dim=1)


def asset() -> MeshWithVoxel:
    coords, attrs = cube_voxels()
    mesh = grid_mesh(2)
    return MeshWithVoxel(
        mesh.vertices,
        mesh.faces,
        [-0.5] * 3,
        0.25,
        coords,
        attrs,
        torch.Size([1, 6, 4, 4, 4]),
        PBR_ATTR_LAYOUT,
    )


def test_mesh_keeps_float32_and_int32() -> None:
    mesh = grid_mesh(2)
    assert (mesh.vertices.dtype, mesh.faces.dtype) == (torch.float32, torch.int32)
    assert mesh.device.type == "cpu"
    moved = mesh.to("cpu")
    moved.fill_holes(max_hole_perimeter=10.0)
    assert (
        len(moved.vertices) == len(mesh.vertices) + 1
    )  # the border counts as a hole; the original is left alone


@pytest.mark.parametrize(
    ("vertices", "faces", "attrs"),
    [
        (torch.zeros(3, 2), torch.zeros(1, 3), None),
        (torch.zeros(3, 3), torch.zeros(1, 4), None),
        (torch.zeros(3, 3), torch.zeros(1, 3), torch.zeros(2, 1)),
    ],
)
def test_mesh_refuses_shapes(vertices: Any, faces: Any, attrs: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        Mesh(vertices, faces, attrs)


def test_fill_holes_appends_a_fan() -> None:
    mesh = grid_mesh(40, hole=(20, 20))  # a hole of 4/40 in a border of 4
    mesh.vertex_attrs = mesh.vertices[:, :2].clone()
    before = mesh.vertices.clone(), mesh.faces.clone()
    mesh.fill_holes(max_hole_perimeter=0.09)
    assert len(mesh.vertices) == len(before[0])
    mesh.fill_holes(max_hole_perimeter=0.2)
    assert len(mesh.vertices) == len(before[0]) + 1
    assert len(mesh.faces) == len(before[1]) + 4
    assert torch.equal(mesh.faces[: len(before[1])], before[1])
    torch.testing.assert_close(mesh.vertex_attrs[-1], mesh.vertices[-1, :2])


def test_fill_holes_leaves_an_empty_mesh() -> None:
    mesh = Mesh(torch.zeros(3, 3), torch.zeros(0, 3))
    mesh.fill_holes()
    assert mesh.faces.shape == (0, 3)


def test_simplify_reaches_its_target_and_no_less() -> None:
    mesh = grid_mesh(30)
    faces = mesh.faces
    mesh.simplify(target=10_000)
    assert mesh.faces is faces
    mesh.simplify(target=200)
    assert 2 <= len(mesh.faces) <= 202
    with pytest.raises(InvalidArgumentError, match="at least 1"):
        mesh.simplify(target=0)
    with pytest.raises(InvalidArgumentError, match="thresh"):
        mesh.simplify(target=10, options={"thresh": 1e-8})


def test_remove_faces_keeps_the_masked_ones() -> None:
    mesh = grid_mesh(2)
    mesh.vertex_attrs = mesh.vertices[:, :1].clone()
    keep = torch.zeros(8, dtype=torch.bool)
    keep[3] = True
    corners = mesh.vertices[mesh.faces[3].long()]
    mesh.remove_faces(keep)
    assert mesh.vertices.shape == (3, 3)
    torch.testing.assert_close(mesh.vertices[mesh.faces[0].long()], corners)
    torch.testing.assert_close(mesh.vertex_attrs, mesh.vertices[:, :1])
    with pytest.raises(InvalidArgumentError, match="face_mask"):
        mesh.remove_faces(keep)


def test_voxel_positions_are_centres() -> None:
    voxel = Voxel([-0.5, -0.5, -0.5], 0.25, torch.tensor([[0, 1, 3]]), torch.zeros(1, 6), PBR_ATTR_LAYOUT)
    torch.testing.assert_close(voxel.position, torch.tensor([[-0.375, -0.125, 0.375]]))
    assert {k: v.shape[1] for k, v in voxel.split_attrs().items()} == {
        "base_color": 3,
        "metallic": 1,
        "roughness": 1,
        "alpha": 1,
    }
    assert isinstance(voxel.to("cpu"), Voxel)


@pytest.mark.parametrize(
    "change",
    [{"voxel_size": 0}, {"coords": torch.zeros(2, 4)}, {"attrs": torch.zeros(3, 6)}, {"origin": [0, 0]}],
)
def test_voxel_refuses(change: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {
        "origin": [0, 0, 0],
        "voxel_size": 1.0,
        "coords": torch.zeros(2, 3),
        "attrs": torch.zeros(2, 6),
    }
    with pytest.raises(InvalidArgumentError):
        Voxel(**{**arguments, **change})


@pytest.mark.parametrize("suffix", [".npz", ".ply", ".vxz"])
def test_voxels_survive_files(tmp_path: Path, suffix: str) -> None:
    coords, _ = cube_voxels()
    attrs = torch.randint(0, 255, (64, 6), dtype=torch.uint8)
    voxel = Voxel([-0.5] * 3, 0.25, coords, attrs, PBR_ATTR_LAYOUT)
    voxel.save(tmp_path / f"v{suffix}")
    back = Voxel.load(tmp_path / f"v{suffix}")
    assert back.layout == voxel.layout
    assert back.voxel_size == 0.25
    order = [tuple(c) for c in back.coords.tolist()]
    rows = {tuple(c): a for c, a in zip(coords.tolist(), attrs, strict=True)}
    assert torch.equal(back.attrs, torch.stack([rows[c] for c in order]))
    with pytest.raises(InvalidArgumentError, match="layout"):
        Voxel([0.0] * 3, 1.0, coords, attrs).save(tmp_path / "x.npz")


def test_attributes_are_read_between_voxels() -> None:
    mesh = asset()
    points = torch.tensor([[[-0.1, 0.2, 0.05], [0.0, 0.0, 0.0]]])
    found = mesh.query_attrs(points)
    assert found.shape == (2, 6)
    torch.testing.assert_close(found[:, :3], points[0] + 0.5)
    torch.testing.assert_close(mesh.query_attrs(torch.tensor([[3.0, 3.0, 3.0]])), torch.zeros(1, 6))
    assert mesh.query_vertex_attrs().shape == (len(mesh.vertices), 6)


def test_mesh_with_voxel_is_both() -> None:
    mesh = asset()
    assert isinstance(mesh, Mesh)
    assert isinstance(mesh, Voxel)
    moved = mesh.to("cpu")
    assert moved.voxel_shape == torch.Size([1, 6, 4, 4, 4])
    assert moved.origin.dtype == torch.float32
    coords = mesh.coords
    mesh.simplify(target=2)
    assert mesh.coords is coords
    with pytest.raises(InvalidArgumentError, match="voxel_shape"):
        MeshWithVoxel(mesh.vertices, mesh.faces, [0.0] * 3, 1.0, mesh.coords, mesh.attrs, [1, 3, 4, 4, 4])


def test_pbr_mesh_moves_and_refuses() -> None:
    texture = Texture(torch.rand(4, 4, 3))
    material = PbrMaterial(base_color_texture=texture, alpha_mode=AlphaMode.MASK)
    base = grid_mesh(2)
    mesh = MeshWithPbrMaterial(base.vertices, base.faces, torch.zeros(8), torch.rand(8, 3, 2), [material])
    moved = mesh.to("cpu")
    assert moved.materials[0].base_color_texture is not None
    assert torch.equal(moved.materials[0].base_color_texture.image, texture.image)
    keep = torch.arange(8) < 3
    corners = mesh.uv_coords[:3]
    mesh.remove_faces(keep)
    assert torch.equal(mesh.uv_coords, corners)
    with pytest.raises(InvalidArgumentError, match="before texturing"):
        mesh.simplify(target=1)
    with pytest.raises(InvalidArgumentError, match="before texturing"):
        mesh.fill_holes()
    with pytest.raises(InvalidArgumentError, match="1 materials"):
        MeshWithPbrMaterial(base.vertices, base.faces, torch.ones(8), torch.rand(8, 3, 2), [material])
    with pytest.raises(InvalidArgumentError, match="H, W, C"):
        Texture(torch.rand(4, 4))
