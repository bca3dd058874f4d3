"""The texturing pipeline: a mesh and a picture to a textured mesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trellis2 import pipelines
from trellis2.conditioning.matting.matte import Notice
from trellis2.errors import InvalidArgumentError, UnsupportedPipelineError
from trellis2.pipelines import Trellis2TexturingPipeline
from trellis2.pipelines.bake import bake_texture
from trellis2.representations import PBR_ATTR_LAYOUT

trimesh = pytest.importorskip("trimesh")


@pytest.fixture(scope="module")
def texturing(checkpoint: Path) -> Trellis2TexturingPipeline:
    loaded = pipelines.from_pretrained(str(checkpoint), config_file="texturing_pipeline.json")
    assert isinstance(loaded, Trellis2TexturingPipeline)
    return loaded


def test_mesh_comes_back_textured(texturing: Trellis2TexturingPipeline, picture: Image.Image) -> None:
    mesh = trimesh.creation.icosphere(subdivisions=1, radius=3.0)
    mesh.apply_translation([5, 0, 0])
    out = texturing.run(mesh, picture, resolution=512, texture_size=64)
    assert len(out.faces) == len(mesh.faces)
    np.testing.assert_allclose(out.bounds, [[-0.5] * 3, [0.5] * 3], atol=1e-3)
    # Y up in, Y up out: the same shape in the same orientation
    centred = (mesh.vertices - [5, 0, 0]) / 6
    distance = np.linalg.norm(out.vertices[:, None] - centred[None], axis=-1).min(axis=1)
    assert distance.max() < 1e-3
    material = out.visual.material
    assert material.baseColorTexture.size == (64, 64)
    assert material.baseColorTexture.mode == "RGBA"
    assert np.asarray(material.metallicRoughnessTexture)[..., 0].max() == 0
    again = texturing.run(mesh, picture, resolution=512, texture_size=64)
    np.testing.assert_array_equal(
        np.asarray(material.baseColorTexture), np.asarray(again.visual.material.baseColorTexture)
    )


@pytest.mark.parametrize("count", [1, 2])
def test_several_pictures_are_told_to_be_an_approximation(
    texturing: Trellis2TexturingPipeline, picture: Image.Image, count: int
) -> None:
    box, told = trimesh.creation.box(), list[Notice]()
    voxels = texturing.paint(
        0.4 * box.vertices, box.faces, [picture] * count, resolution=512, notice=told.append
    )
    assert len(voxels.coords)
    assert ["approximation" in notice.message for notice in told if notice.code == "views"] == [True] * (
        count - 1
    )


def test_baked_colours_are_those_of_the_surface() -> None:
    """Voxels whose colour is their position: every texel must show where it lies."""
    resolution = 32
    coords = torch.cartesian_prod(*[torch.arange(resolution)] * 3)
    place = (coords + 0.5) / resolution
    attrs = torch.cat([place, torch.full((len(place), 3), 0.5)], dim=1)
    box = trimesh.creation.box(extents=[0.8, 0.8, 0.8])
    out = bake_texture(box, coords, attrs, PBR_ATTR_LAYOUT, resolution, 128)
    texture = np.asarray(out.visual.material.baseColorTexture).astype(float) / 255
    uv = out.visual.uv
    centroid_uv = uv[out.faces].mean(axis=1)
    columns = (centroid_uv[:, 0] * 128).astype(int)
    rows = ((1 - centroid_uv[:, 1]) * 128).astype(int)
    x, y, z = out.vertices[out.faces].mean(axis=1).T  # Y up
    expected = np.stack([x, -z, y], axis=1) + 0.5
    np.testing.assert_allclose(texture[rows, columns, :3], expected, atol=0.03)


def test_own_uvs_are_used() -> None:
    square = trimesh.Trimesh(
        [[0, 0, 0], [0.4, 0, 0], [0.4, 0.4, 0], [0, 0.4, 0]], [[0, 1, 2], [0, 2, 3]], process=False
    )
    square.visual = trimesh.visual.TextureVisuals(uv=[[0, 0], [1, 0], [1, 1], [0, 1]])
    coords = torch.tensor([[4, 4, 4]])
    out = bake_texture(square, coords, torch.ones(1, 6), PBR_ATTR_LAYOUT, 8, 16)
    np.testing.assert_allclose(out.visual.uv, square.visual.uv)


def test_bad_meshes_are_refused(texturing: Trellis2TexturingPipeline) -> None:
    with pytest.raises(InvalidArgumentError, match="single point"):
        texturing.preprocess_mesh(trimesh.Trimesh([[1, 1, 1]] * 3, [[0, 1, 2]], process=False))
    with pytest.raises(InvalidArgumentError, match="0 faces"):
        texturing.preprocess_mesh(trimesh.Trimesh([[1, 1, 1]] * 3, process=False))


def test_missing_flow_is_named(checkpoint: Path, picture: Image.Image) -> None:
    small = Trellis2TexturingPipeline.from_pretrained(checkpoint, skip=("tex_slat_flow_model_1024",))
    with pytest.raises(UnsupportedPipelineError, match="tex_slat_flow_model_1024"):
        small.run(trimesh.creation.box(), picture, resolution=1024)
