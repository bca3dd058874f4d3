"""`to_glb` end to end: budgets, frame, colours, steps, cancelling."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from o_voxel.postprocess import STEPS, GlbAsset, to_glb

from benchmarks.glb import baked_colours, psnr

from .objects import attributes, box, colours, decoded, sphere


def test_reference_signature_and_defaults() -> None:
    parameters = inspect.signature(to_glb).parameters
    assert list(parameters)[:8] == [
        "vertices",
        "faces",
        "attr_volume",
        "coords",
        "attr_layout",
        "aabb",
        "voxel_size",
        "grid_size",
    ]
    defaults = {name: p.default for name, p in parameters.items()}
    assert defaults["decimation_target"] == 1_000_000
    assert defaults["texture_size"] == 2048
    assert (defaults["remesh"], defaults["remesh_band"], defaults["remesh_project"]) == ("auto", 1, 0.9)


def test_meets_the_budget_and_stays_closed(asset: GlbAsset) -> None:
    report = asset.report
    assert 0.9 * 1500 <= report.faces <= 1.01 * 1500
    assert report.boundary_edges == 0
    assert report.watertight
    assert report.components == 1
    assert 2 <= report.charts <= 40
    assert 0.4 < report.atlas_use < 1


def test_faces_point_outwards_in_the_gltf_frame(asset: GlbAsset) -> None:
    corners = asset.vertices[asset.faces].astype(float)
    volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.03)
    assert (np.einsum("ij,ij->i", asset.normals, asset.vertices) > 0).all()


def test_texture_shows_the_true_colours(asset: GlbAsset) -> None:
    points, shown = baked_colours(asset)
    true = colours(torch.from_numpy(points).float()).numpy()
    assert psnr(shown, true) > 30


def test_metallic_and_roughness_channels(asset: GlbAsset) -> None:
    orm = asset.material.orm
    assert (orm[..., 0] == 0).all()
    assert (orm[..., 1] == 191).all()  # int(0.75 * 255), truncated; the gutters hold the same
    assert (orm[..., 2] == 63).all()


def test_up_is_up() -> None:
    """The decoder's +z is glTF's +y, and its +y is -z."""
    tall = to_glb(**decoded(box((-0.1, -0.2, -0.4), (0.1, 0.2, 0.4)), 32), texture_size=64)
    low, high = np.array(tall.report.bounding_box)
    np.testing.assert_allclose(high - low, [0.2, 0.8, 0.4], atol=0.02)


def test_steps_are_announced_and_timed(ball: dict[str, Any]) -> None:
    seen: list[tuple[str, int, int]] = []
    result = to_glb(**ball, decimation_target=500, texture_size=64, progress=lambda *step: seen.append(step))
    assert seen == [(name, k, len(STEPS)) for k, name in enumerate(STEPS)]
    assert tuple(result.report.seconds) == STEPS
    assert all(seconds >= 0 for seconds in result.report.seconds.values())


def test_progress_cancels_by_raising(ball: dict[str, Any]) -> None:
    class StopError(Exception):
        pass

    def stop_at_unwrap(name: str, index: int, count: int) -> None:
        if name == "unwrap":
            raise StopError

    with pytest.raises(StopError):
        to_glb(**ball, decimation_target=500, texture_size=64, progress=stop_at_unwrap)


def test_numpy_input_gives_the_same(ball: dict[str, Any]) -> None:
    arrays = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in ball.items()}
    first = to_glb(**ball, decimation_target=500, texture_size=64)
    second = to_glb(**arrays, decimation_target=500, texture_size=64)
    np.testing.assert_array_equal(first.vertices, second.vertices)
    np.testing.assert_array_equal(first.material.base_color, second.material.base_color)


def test_remesh_gives_one_closed_skin(ball: dict[str, Any]) -> None:
    skin = to_glb(**ball, decimation_target=3000, texture_size=64, remesh=True, remesh_project=0.0)
    assert skin.report.components == 1  # the inner wall is gone
    assert skin.report.boundary_edges == 0
    assert not skin.report.double_sided
    radius = np.linalg.norm(skin.vertices, axis=1)
    assert radius.mean() == pytest.approx(0.4 + 1 / 48, abs=0.3 / 48)  # a voxel outside


def test_remesh_keeps_inner_walls_of_glass() -> None:
    glass = decoded(sphere(), 48, lambda points: attributes(points, alpha=0.4))
    shell = to_glb(**glass, decimation_target=4000, texture_size=64, remesh=True, remesh_project=0.0)
    assert shell.report.components == 2
    assert shell.report.alpha_mode == "BLEND"


def test_the_outer_shell_has_no_void() -> None:
    """A ball inside a ball: the printer gets the outer one only, solid."""
    outer, inner = sphere(0.4, 32), sphere(0.2, 24)
    nested = (torch.cat([outer[0], inner[0]]), torch.cat([outer[1], inner[1] + len(outer[0])]))
    part = to_glb(
        **decoded(nested, 48),
        decimation_target=300_000,
        texture_size=1024,
        remesh=True,
        remesh_project=0.0,
        outer_shell=True,
    )
    assert part.report.components == 1
    assert part.report.watertight
    corners = part.vertices[part.faces].astype(float)
    volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume > 4 / 3 * np.pi * 0.4**3


def test_thin_plate_keeps_its_two_colours() -> None:
    """Red above, blue below, two voxels apart: simplification must not let one side take the other's
    colour."""
    resolution = 64
    half = 0.9 / resolution

    def two_sided(points: torch.Tensor) -> torch.Tensor:
        result = torch.zeros((len(points), 6))
        result[:, 5] = 1.0
        result[:, 0] = (points[:, 2] > 0).float()
        result[:, 2] = (points[:, 2] <= 0).float()
        return result

    plate = decoded(box((-0.4, -0.4, -half), (0.4, 0.4, half)), resolution, two_sided)
    asset = to_glb(**plate, decimation_target=200, texture_size=256)
    points, shown = baked_colours(asset)
    flat = np.abs(points[:, :2]).max(axis=1) < 0.35
    above = points[:, 2] > 0
    assert (shown[flat & above][:, 0] > shown[flat & above][:, 2]).mean() > 0.99
    assert (shown[flat & ~above][:, 2] > shown[flat & ~above][:, 0]).mean() > 0.99


@pytest.mark.parametrize("options", [{}, {"remesh": True}, {"outer_shell": True, "flat_base": True}])
@pytest.mark.parametrize("missing", [0.0, 0.03])
def test_what_it_is_given_stays_as_it_is(
    ball: dict[str, Any], missing: float, options: dict[str, Any]
) -> None:
    """A service exports the same arrays several times."""
    given = {name: value.clone() if torch.is_tensor(value) else value for name, value in ball.items()}
    stays = torch.rand(len(ball["faces"]), generator=torch.Generator().manual_seed(0)) >= missing
    given["faces"] = ball["faces"][stays]
    to_glb(**given, decimation_target=800, texture_size=64, **options)
    for name, value in (ball | {"faces": ball["faces"][stays]}).items():
        if torch.is_tensor(value):
            assert torch.equal(given[name], value), name
