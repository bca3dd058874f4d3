"""Gutters, transparency, tangents: the pieces of the material."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.postprocess import GlbAsset, to_glb
from o_voxel.postprocess.material import choose_alpha_mode
from o_voxel.postprocess.textures.gutters import (
    fill,
    nearest_by_flooding,
    nearest_by_transform,
    nearest_covered,
)
from o_voxel.postprocess.textures.tangents import to_tangent_space, vertex_tangents

from benchmarks.glb import surface_points

from .objects import box, decoded
from .test_game import document


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31), st.floats(0.01, 0.9))
def test_nearest_texel_by_brute_force(height: int, width: int, seed: int, density: float) -> None:
    mask = torch.rand((height, width), generator=torch.Generator().manual_seed(seed)) < density
    mask[seed % height, seed % width] = True
    place = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=2)
    covered = place[mask]  # [C, 2]
    best = (place.reshape(-1, 1, 2) - covered).square().sum(dim=2).amin(dim=1).reshape(height, width)
    for method in (nearest_by_transform, nearest_by_flooding):
        found = method(mask)
        assert mask.reshape(-1)[found.reshape(-1)].all()
        offset = torch.stack([found // width, found % width], dim=2) - place
        distance = offset.square().sum(dim=2)
        if method is nearest_by_transform:
            assert torch.equal(distance, best)
        else:  # flooding may settle for a slightly farther one
            assert (distance == best).float().mean() > 0.97
            assert (distance.sqrt() <= best.sqrt() + 1.5).all()


def test_gutters_leave_covered_texels_alone() -> None:
    mask = torch.zeros((8, 8), dtype=torch.bool)
    mask[2:4, 2:4] = True
    texture = torch.arange(8 * 8 * 2, dtype=torch.uint8).reshape(8, 8, 2)
    filled = fill(texture, nearest_covered(mask))
    assert torch.equal(filled[mask], texture[mask])
    assert torch.equal(filled[7, 7], texture[3, 3])
    nothing = fill(texture, nearest_covered(torch.zeros_like(mask)))
    assert torch.equal(nothing, texture)


@pytest.mark.parametrize(
    ("alpha", "mode"),
    [
        ([255] * 1000, "OPAQUE"),
        ([255] * 995 + [100] * 5, "OPAQUE"),
        ([255] * 900 + [100] * 100, "BLEND"),
        ([255] * 900 + [0] * 100, "MASK"),
        ([255] * 900 + [0] * 70 + [150] * 30, "MASK"),  # a cut's blurred rim
        ([100] * 1000, "BLEND"),
        ([0] * 1000, "OPAQUE"),
        ([], "OPAQUE"),
    ],
)
def test_automatic_transparency(alpha: list[int], mode: str) -> None:
    assert choose_alpha_mode("auto", np.array(alpha, dtype=np.uint8))[0] == mode


def test_a_forced_mode_is_kept() -> None:
    assert choose_alpha_mode("blend", np.full(10, 255, dtype=np.uint8)) == ("BLEND", None)


def test_tangents_of_a_picture_on_the_wall() -> None:
    """Seen from the front, u runs right and v runs down: tangent right, bitangent up, as glTF has it."""
    vertices = torch.tensor([[0.0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]])
    uvs = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    faces = torch.tensor([[0, 2, 1], [1, 2, 3]])
    normals = torch.tensor([[0.0, 0, 1]]).expand(4, 3)
    tangents = vertex_tangents(vertices, faces, uvs, normals)
    torch.testing.assert_close(tangents[:, :3], torch.tensor([[1.0, 0, 0]]).expand(4, 3))
    bitangent = tangents[:, 3:] * torch.linalg.cross(normals, tangents[:, :3])
    torch.testing.assert_close(bitangent, torch.tensor([[0.0, 1, 0]]).expand(4, 3))
    up = torch.nn.functional.normalize(torch.tensor([[0.0, 0.5, 1.0]]), dim=1)
    local = to_tangent_space(up, normals[:1], tangents[:1])
    assert local[0, 1] > 0.4  # green


def test_normal_map_restores_the_dense_normals(asset: GlbAsset) -> None:
    """Decoded as a shader does, the map gives the ball's true normals better than the faces' own."""
    face, weights = surface_points((asset.vertices, asset.faces), 3000)
    corners = asset.faces[face]

    def blend(values: np.ndarray) -> np.ndarray:
        return (values[corners] * weights[:, :, None]).sum(axis=1)

    assert asset.material.normal is not None
    assert asset.tangents is not None
    points, uv = blend(asset.vertices), blend(asset.uvs)
    size = asset.material.normal.shape[0]
    column, row = np.clip((uv * size).astype(int), 0, size - 1).T
    local = asset.material.normal[row, column] / 127.5 - 1.0
    normal = blend(asset.normals)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    tangent = blend(asset.tangents)
    bitangent = np.sign(tangent[:, 3:]) * np.cross(normal, tangent[:, :3])
    shaded = local[:, :1] * tangent[:, :3] + local[:, 1:2] * bitangent + local[:, 2:] * normal
    shaded /= np.linalg.norm(shaded, axis=1, keepdims=True)
    true = points / np.linalg.norm(points, axis=1, keepdims=True)
    cross = np.cross(
        asset.vertices[corners[:, 1]] - asset.vertices[corners[:, 0]],
        asset.vertices[corners[:, 2]] - asset.vertices[corners[:, 0]],
    )
    flat = cross / np.linalg.norm(cross, axis=1, keepdims=True)

    def degrees(normals: np.ndarray) -> float:
        return float(np.degrees(np.arccos(np.clip((normals * true).sum(axis=1), -1, 1))).mean())

    assert degrees(shaded) < 0.5 * degrees(flat)
    assert degrees(shaded) < 1.5


def test_occlusion_is_baked_where_asked() -> None:
    plate, tower = box((-0.4, -0.4, -0.2), (0.4, 0.4, -0.1)), box((-0.1, -0.1, -0.15), (0.1, 0.1, 0.35))
    shape = torch.cat([plate[0], tower[0]]), torch.cat([plate[1], tower[1] + len(plate[0])])
    asset = to_glb(**decoded(shape, 48), decimation_target=3000, texture_size=256, occlusion=True)
    assert asset.material.occluded
    x, y, z = asset.vertices.T
    beside = np.maximum(np.abs(x), np.abs(z))
    row, column = (np.clip((asset.uvs[:, i] * 256).astype(int), 0, 255) for i in (1, 0))
    shade = asset.material.orm[row, column, 0] / 255
    floor = (asset.normals[:, 1] > 0.95) & (np.abs(y + 0.1) < 0.02)
    near, far = floor & (beside < 0.16), floor & (beside > 0.36)
    assert near.any()
    assert far.any()
    assert shade[near].mean() < 0.82
    assert shade[far].min() > 0.9
    assert shade[(asset.normals[:, 1] > 0.95) & (y > 0.33)].mean() > 0.98
    (material,) = document(asset.export())["materials"]
    packed = material["pbrMetallicRoughness"]["metallicRoughnessTexture"]
    assert material["occlusionTexture"] == packed
