"""Bodies that decoders give: crossing, nested, open, on thin legs, and with voxels or faces missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from o_voxel.mesh.quality import mesh_quality
from o_voxel.postprocess import GlbAsset, to_glb
from torch import Tensor

from benchmarks.meshes import damaged, normals_against

from .objects import decoded

SETTINGS = {"decimation_target": 4000, "texture_size": 128, "lods": 2}
RESOLUTION = 64


def round_body(centre: tuple[float, float, float], radius: float) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(4, radius).apply_translation(centre)


def without(body: trimesh.Trimesh, gone: np.ndarray) -> trimesh.Trimesh:
    return trimesh.Trimesh(body.vertices, body.faces[~gone], process=True)


def plate_on_posts() -> trimesh.Trimesh:
    posts = [
        trimesh.creation.cylinder(0.02, 0.6).apply_translation((x, y, -0.3))
        for x in (-0.35, 0.35)
        for y in (-0.35, 0.35)
    ]
    return trimesh.util.concatenate([trimesh.creation.box((0.8, 0.8, 0.03)), *posts])


def double_shell() -> trimesh.Trimesh:
    inner = round_body((0, 0, 0), 0.36)
    inner.invert()
    return trimesh.util.concatenate([round_body((0, 0, 0), 0.4), inner])


whole = round_body((0, 0, 0), 0.4)
BODIES: dict[str, Callable[[], trimesh.Trimesh]] = {
    "crossing balls": lambda: trimesh.util.concatenate(
        [round_body((0, 0, -0.12), 0.28), round_body((0, 0, 0.18), 0.22)]
    ),
    "box and ball": lambda: trimesh.util.concatenate(
        [trimesh.creation.box((0.5,) * 3), round_body((0.2,) * 3, 0.22)]
    ),
    "open bowl": lambda: without(whole, whole.triangles_center[:, 2] > 0.15),
    "hole below": lambda: without(whole, whole.triangles_center[:, 2] < -0.33),
    "double shell": double_shell,
    "plate on posts": plate_on_posts,
}


def arguments(body: trimesh.Trimesh) -> dict[str, Any]:
    mesh = torch.tensor(body.vertices, dtype=torch.float32), torch.tensor(body.faces, dtype=torch.int32)
    return decoded(mesh, RESOLUTION)


def assert_sound(asset: GlbAsset) -> None:
    """Every level is a solid within its budget that shows its front and shades as its faces lie.

    The sides of a wall of one voxel cross here and there where the whole body has 1,000 faces.
    """
    for level, budget, backs in zip((asset, *asset.lower), (4000, 1000), (0.005, 0.04), strict=True):
        mesh = torch.from_numpy(level.vertices), torch.from_numpy(level.faces)
        found = mesh_quality(*mesh, views=12, picture=256)
        assert found.solid
        assert found.faces <= budget
        assert found.back_pixels <= backs
        assert found.zero_area_faces == 0
        assert normals_against(level) == 0
        assert level.report.charts <= 400


@pytest.mark.parametrize("name", BODIES)
def test_every_body_comes_back_sound(name: str) -> None:
    asset = to_glb(**arguments(BODIES[name]()), **SETTINGS)
    assert_sound(asset)
    assert asset.report.components == (2 if name == "double shell" else 1)  # closed as it is, so left so
    assert asset.report.inside_out == 0.0


@pytest.mark.parametrize("missing", ["faces", "voxels"])
@pytest.mark.parametrize("name", ["crossing balls", "hole below", "plate on posts"])
def test_a_twentieth_missing_leaves_it_sound(name: str, missing: str) -> None:
    given = arguments(BODIES[name]())
    _, positional, size = damaged(("", tuple(given.values())[:-1], 1 / RESOLUTION), 0.05, missing == "voxels")
    asset = to_glb(*positional, voxel_size=size, **SETTINGS)
    assert_sound(asset)
    lost = 1 - volume(asset) / volume(to_glb(**given, **SETTINGS))
    assert abs(lost) < 0.05


def volume(asset: GlbAsset) -> float:
    assert asset.report.volume is not None
    return asset.report.volume


def bilinear(texture: np.ndarray, uvs: np.ndarray) -> np.ndarray:
    """Colours [N, 3] of a texture [S, S, 3] at uvs [N, 2], as a viewer reads them."""
    picture = torch.from_numpy(np.ascontiguousarray(texture)).permute(2, 0, 1)[None].double()
    places = torch.from_numpy(uvs).double()[None, None] * 2 - 1
    return torch.nn.functional.grid_sample(picture, places, align_corners=False)[0, :, 0].T.numpy()


def seam_uvs(asset: GlbAsset) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates [E, 2] of the middle of each edge that lies at two places of the atlas."""
    _, place = np.unique(asset.vertices, axis=0, return_inverse=True)
    edges = asset.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges = np.where((place[edges[:, 0]] > place[edges[:, 1]])[:, None], edges[:, ::-1], edges)
    order = np.lexsort(place[edges].T)
    first, second = edges[order][::2], edges[order][1::2]
    assert np.array_equal(place[first], place[second]), "closed: every edge twice"
    a, b = asset.uvs[first].mean(axis=1), asset.uvs[second].mean(axis=1)
    seam = np.abs(a - b).max(axis=1) > 1e-6
    return a[seam], b[seam]


def test_colours_agree_on_both_sides_of_a_seam(ball: dict[str, Any]) -> None:
    """Also where a viewer reads smaller copies of the texture, far away."""
    asset = to_glb(**ball, decimation_target=1500, texture_size=1024)
    first, second = seam_uvs(asset)
    assert len(first) > 50
    texture: Tensor = torch.from_numpy(asset.material.base_color[..., :3].copy()).permute(2, 0, 1).double()
    for level in range(3):
        smaller = torch.nn.functional.avg_pool2d(texture, 2**level).permute(1, 2, 0).numpy()
        apart = np.abs(bilinear(smaller, first) - bilinear(smaller, second)).max(axis=1)
        assert apart.mean() <= 3.0, level
