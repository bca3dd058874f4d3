"""Attribute voxels: same voxels as the dual grid, values from every kind of material, bad meshes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from o_voxel.convert import mesh_to_flexible_dual_grid, textured_mesh_to_volumetric_attr
from o_voxel.convert.textures import Texture, square_power_of_two
from o_voxel.errors import ArgumentError, MeshError
from PIL import Image

from .shapes import QUAD_UV, UNIT_BOX, quad, sphere

trimesh = pytest.importorskip("trimesh")


def quad_mesh(material: Any, side: float = 0.6) -> trimesh.Trimesh:
    vertices, faces = quad(side)
    visual = trimesh.visual.TextureVisuals(uv=np.array(QUAD_UV), material=material)
    return trimesh.Trimesh(vertices.numpy(), faces.numpy(), visual=visual, process=False)


def halves(left: int, right: int, bands: int = 3, side: int = 16) -> Image.Image:
    pixels = np.full((side, side, bands), left, np.uint8)
    pixels[:, side // 2 :] = right
    return Image.fromarray(pixels)


def attributes(
    mesh: Any, resolution: int = 16, **options: Any
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return textured_mesh_to_volumetric_attr(mesh, grid_size=resolution, aabb=UNIT_BOX, **options)


def test_voxels_are_those_of_the_dual_grid_in_the_same_order() -> None:
    vertices, faces = sphere()
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    coords, attrs = attributes(mesh, 20)
    grid, _, _ = mesh_to_flexible_dual_grid(vertices, faces, grid_size=20, aabb=UNIT_BOX)
    assert torch.equal(coords, grid)
    assert {n: tuple(a.shape) for n, a in attrs.items()} == {
        "base_color": (len(coords), 3),
        "metallic": (len(coords), 1),
        "roughness": (len(coords), 1),
        "emissive": (len(coords), 3),
        "alpha": (len(coords), 1),
        "normal": (len(coords), 3),
    }
    assert all(a.dtype == torch.uint8 for a in attrs.values())


def test_colour_stays_on_its_side() -> None:
    coords, attrs = attributes(
        quad_mesh(trimesh.visual.material.PBRMaterial(baseColorTexture=halves(10, 250)))
    )
    inside = (coords > 3).all(dim=1) & (coords < 12).all(
        dim=1
    )  # beyond the sheet's edge coordinates wrap around
    left, right = inside & (coords[:, 0] < 7), inside & (coords[:, 0] > 8)
    assert attrs["base_color"][left].unique().tolist() == [10]
    assert attrs["base_color"][right].unique().tolist() == [250]
    assert attrs["alpha"].unique().tolist() == [255]
    assert attrs["emissive"].unique().tolist() == [0]
    assert attrs["normal"].unique(dim=0).tolist() == [[127, 127, 255]]


def test_factors_and_channels() -> None:
    rough = np.zeros((8, 8, 3), np.uint8)
    rough[..., 1], rough[..., 2] = 200, 100
    material = trimesh.visual.material.PBRMaterial(
        metallicRoughnessTexture=Image.fromarray(rough),
        metallicFactor=0.5,
        roughnessFactor=0.25,
        baseColorFactor=np.array([255, 51, 0, 128], np.uint8),
        emissiveFactor=[0.2, 0.4, 0.6],
        alphaMode="BLEND",
    )
    _, attrs = attributes(quad_mesh(material))
    for name, value in {
        "base_color": [255, 51, 0],
        "metallic": [50],
        "roughness": [50],
        "emissive": [51, 102, 153],
        "alpha": [128],
    }.items():
        difference = attrs[name].int() - torch.tensor(value)
        assert int(difference.abs().max()) <= 1, name


def test_mask_is_decided_per_sample() -> None:
    image = Image.merge("RGBA", [*halves(100, 100).split(), halves(40, 220).split()[0]])
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=image, alphaMode="MASK", alphaCutoff=0.5)
    coords, attrs = attributes(quad_mesh(material))
    inside = (coords[:, 0] > 3) & (coords[:, 0] < 12)
    assert attrs["alpha"][inside & (coords[:, 0] < 7)].unique().tolist() == [0]
    assert attrs["alpha"][inside & (coords[:, 0] > 8)].unique().tolist() == [255]


def test_a_fine_texture_is_averaged_by_its_mips() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 200
    mesh = quad_mesh(trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(stripes)))
    _, attrs = attributes(mesh)
    assert set(attrs["base_color"].unique().tolist()) <= {99, 100}
    _, sharp = attributes(mesh, mip_level_offset=-20.0)
    assert len(sharp["base_color"].unique()) >= len(attrs["base_color"].unique())


def test_vertex_colours_and_plain_materials_are_converted() -> None:
    vertices, faces = quad()
    painted = trimesh.Trimesh(
        vertices.numpy(),
        faces.numpy(),
        vertex_colors=np.full((4, 4), [10, 20, 30, 255], np.uint8),
        process=False,
    )
    _, attrs = attributes(painted)
    assert attrs["base_color"].unique(dim=0).tolist() == [[10, 20, 30]]
    assert attrs["metallic"].unique().tolist() == [0]
    plain = quad_mesh(trimesh.visual.material.SimpleMaterial(image=halves(60, 60)))
    assert attributes(plain)[1]["base_color"].unique().tolist() == [60]


def test_scene_transforms_and_paths(tmp_path: Path) -> None:
    mesh = quad_mesh(trimesh.visual.material.PBRMaterial(baseColorTexture=halves(10, 250)), side=0.3)
    scene = trimesh.Scene()
    lift = np.eye(4)
    lift[2, 3] = 0.25
    scene.add_geometry(mesh)
    scene.add_geometry(mesh, transform=lift)
    coords, attrs = attributes(scene)
    assert set(coords[:, 2].tolist()) == {8, 12}
    path = tmp_path / "quads.glb"
    scene.export(path)
    again, loaded = attributes(path)
    assert torch.equal(again, coords)
    for name, value in attrs.items():
        assert int((loaded[name].int() - value.int()).abs().max()) <= 1


def test_box_left_out() -> None:
    mesh = quad_mesh(trimesh.visual.material.PBRMaterial())
    coords, _ = textured_mesh_to_volumetric_attr(mesh, voxel_size=0.1)
    assert int(coords.min()) >= 0
    assert len(textured_mesh_to_volumetric_attr(mesh, grid_size=8)[0]) > 0


def test_odd_textures_are_resized() -> None:
    image = np.full((5, 300, 3), 77, np.uint8)
    assert square_power_of_two(image).shape == (256, 256, 3)
    mesh = quad_mesh(trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(image)))
    assert attributes(mesh)[1]["base_color"].unique().tolist() == [77]
    with pytest.raises(ArgumentError, match="square"):
        Texture(image)


def test_texture_coordinates_that_are_not_finite() -> None:
    mesh = quad_mesh(trimesh.visual.material.PBRMaterial(baseColorTexture=halves(10, 250)))
    mesh.visual.uv[0] = [np.nan, np.inf]
    _, attrs = attributes(mesh)
    assert set(attrs["alpha"].unique().tolist()) == {255}


def test_bad_meshes() -> None:
    with pytest.raises(MeshError):
        attributes(trimesh.Trimesh())
    with pytest.raises(MeshError):
        attributes(trimesh.Scene())
    broken = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, np.nan, 0]], [[0, 1, 2]], process=False)
    with pytest.raises(MeshError, match="not finite"):
        attributes(broken)
