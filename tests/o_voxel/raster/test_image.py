"""The picture rasteriser against brute force, analytic shapes and its own promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.errors import ArgumentError, BackendError, MeshError
from o_voxel.raster import interpolate, peel, rasterize

from tests.o_voxel.raster.brute_force import cover, to_clip

TRIANGLE = torch.tensor([[-0.5, -0.5, 0.0, 1.0], [0.5, -0.5, 0.0, 1.0], [0.0, 0.7, 0.5, 1.0]])
ONE_FACE = torch.tensor([[0, 1, 2]])


@given(seed=st.integers(0, 2**31), height=st.integers(1, 9), width=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_small_triangles_agree_with_brute_force(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    # a coarse grid makes shared points, edges through pixel centres and degenerate faces likely
    screen = np.stack(
        [
            rng.integers(-2, 2 * width + 2, 12) * 128.0,
            rng.integers(-2, 2 * height + 2, 12) * 128.0,
            rng.integers(-3, 4, 12) / 4,
        ],
        1,
    )
    faces = rng.integers(0, 12, (6, 3))
    clip = to_clip(screen, height, width, rng.choice([0.5, 1.0, 2.0], 12))
    got = rasterize(torch.from_numpy(clip), torch.from_numpy(faces), (height, width))
    face_id, depth = cover(screen, faces, height, width)
    assert np.array_equal(got.face_id.numpy() >= 0, face_id >= 0)
    covered = face_id >= 0
    assert np.allclose(got.depth.numpy()[covered], depth[covered], atol=1e-6)
    # where two faces lie within rounding of each other either may win
    differs = covered & (got.face_id.numpy() != face_id)
    for y, x in np.argwhere(differs):
        alone = cover(screen, faces[[got.face_id[y, x]]], height, width)[1]
        assert abs(alone[y, x] - depth[y, x]) < 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_shared_edges_cover_each_pixel_exactly_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, size = 12, 64
    grid = np.stack(np.meshgrid(np.linspace(-1.2, 1.2, n), np.linspace(-1.2, 1.2, n)), -1)
    grid[1:-1, 1:-1] += rng.uniform(-0.09, 0.09, (n - 2, n - 2, 2))
    if seed == 0:  # vertices and edges exactly on pixel centres
        grid = (np.round(grid * size / 2 - 0.5) + 0.5) * 2 / size
    index = np.arange(n * n).reshape(n, n)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    flip = rng.random(len(faces)) < 0.5  # winding must not matter
    faces[flip] = faces[flip][:, ::-1]
    w = rng.uniform(1, 3, n * n)
    clip = np.concatenate([grid.reshape(-1, 2), np.zeros((n * n, 1)), np.ones((n * n, 1))], 1) * w[:, None]
    positions = torch.from_numpy(clip).float()
    count = torch.zeros((size, size), dtype=torch.int64)
    for face in torch.from_numpy(faces):
        count += rasterize(positions, face[None], (size, size)).mask
    assert torch.equal(count, torch.ones_like(count))


def test_interpolation_is_perspective_correct() -> None:
    # a plane that recedes: world x = clip x, u varies linearly in space and not on the screen
    positions = torch.tensor([[-1.0, -1, 0, 1], [1, -1, 0, 1], [4, 4, 0, 4], [-4, 4, 0, 4]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    fragments = rasterize(positions, faces, (33, 33))
    w = interpolate(positions[:, 3:].contiguous(), faces, fragments)[..., 0]
    y = (torch.arange(33) + 0.5) / 33 * 2 - 1
    expected = 1 / (1 + (y + 1) / 2 * (1 / 4 - 1))  # 1/w is affine on the screen
    assert fragments.mask.all()
    assert torch.allclose(w, expected[:, None].expand(33, 33), rtol=1e-5)


def test_rows_run_from_minus_one_and_both_sides_are_drawn() -> None:
    top = torch.tensor([[-1.0, -1, 0, 1], [1, -1, 0, 1], [0, 0, 0, 1]])
    for faces in (ONE_FACE, ONE_FACE.flip(1)):
        mask = rasterize(top, faces, (8, 8)).mask
        assert mask[0, 1:-1].all()
        assert not mask[4:].any()


def test_nearest_wins_and_ties_go_to_the_lower_face() -> None:
    near = TRIANGLE - torch.tensor([0, 0, 0.25, 0])
    positions = torch.cat([TRIANGLE, near, TRIANGLE])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    assert set(rasterize(positions, faces, (16, 16)).face_id.unique().tolist()) == {-1, 1}
    assert set(rasterize(positions, faces[[0, 2]], (16, 16)).face_id.unique().tolist()) == {-1, 0}


def test_peeling_gives_all_layers_in_order_and_then_stops() -> None:
    rng = torch.Generator().manual_seed(3)
    depths = torch.rand(7, generator=rng)
    depths[4] = depths[2]  # two faces at the same depth are two layers
    positions = torch.cat(
        [TRIANGLE * torch.tensor([1, 1, 0, 1]) + torch.tensor([0, 0, z, 0]) for z in depths]
    )
    faces = torch.arange(21).reshape(7, 3)
    layers = list(peel(positions, faces, (16, 16), 20))
    assert len(layers) == 7
    order = sorted(range(7), key=lambda i: (float(depths[i]), i))
    assert [int(layer.face_id[6, 8]) for layer in layers] == order
    assert len(list(peel(positions, faces, (16, 16), 3))) == 3


def test_faces_across_the_near_plane_are_cut_at_it() -> None:
    # a floor under the eye, from behind the camera to far ahead; near 0.5, far 50
    near, far = 0.5, 50.0
    corners = torch.tensor(
        [[-30.0, 1, -5], [30, 1, -5], [30, 1, 40], [-30, 1, 40]]
    )  # x right, y down, z ahead
    z = corners[:, 2]
    clip = torch.stack(
        [corners[:, 0], corners[:, 1], (far + near) / (far - near) * z - 2 * far * near / (far - near), z], 1
    )
    fragments = rasterize(clip, torch.tensor([[0, 1, 2], [0, 2, 3]]), (64, 64))
    rows = (torch.arange(64) + 0.5) / 64 * 2 - 1
    z_floor = 1 / rows  # the ray of row y meets the floor y = 1 at depth 1/y
    expected = (rows > 0) & (z_floor > near) & (z_floor < 40)
    assert torch.equal(fragments.mask.all(1), expected)
    assert torch.equal(fragments.mask.any(1), expected)
    w = interpolate(z[:, None].contiguous(), torch.tensor([[0, 1, 2], [0, 2, 3]]), fragments)[..., 0]
    assert torch.allclose(w[expected], z_floor[expected][:, None].expand(-1, 64), rtol=1e-4)


def test_a_face_wholly_behind_or_beyond_is_not_drawn() -> None:
    behind = TRIANGLE * torch.tensor([1, 1, 1, -1.0])
    beyond = TRIANGLE + torch.tensor([0, 0, 5.0, 0])
    for positions in (behind, beyond):
        assert not rasterize(positions, ONE_FACE, (8, 8)).mask.any()


def test_many_faces_are_the_same_on_one_thread_and_on_several() -> None:
    rng = torch.Generator().manual_seed(0)
    centre = torch.rand((20000, 1, 3), generator=rng) * 2 - 1
    corners = centre + (torch.rand((20000, 3, 3), generator=rng) - 0.5) * 0.1
    positions = torch.cat([corners.reshape(-1, 3), torch.ones(60000, 1)], 1)
    faces = torch.arange(60000).reshape(-1, 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = rasterize(positions, faces, (64, 64))
        torch.set_num_threads(3)
        three = rasterize(positions, faces, (64, 64))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one.face_id, three.face_id)
    assert torch.equal(one.barycentric, three.barycentric)


def test_empty_and_unusable_input() -> None:
    nothing = rasterize(torch.zeros((0, 4)), torch.zeros((0, 3), dtype=torch.int64), (4, 5))
    assert nothing.face_id.shape == (4, 5)
    assert not nothing.mask.any()
    broken = TRIANGLE.clone()
    broken[0, 0] = float("nan")
    assert not rasterize(broken, ONE_FACE, (8, 8)).mask.any()
    with pytest.raises(MeshError, match=r"0\.\.7.*3 vertices"):
        rasterize(TRIANGLE, torch.tensor([[0, 1, 7]]), (8, 8))
    with pytest.raises(MeshError, match="V, 4"):
        rasterize(TRIANGLE[:, :3], ONE_FACE, (8, 8))
    with pytest.raises(MeshError, match="integers"):
        rasterize(TRIANGLE, ONE_FACE.float(), (8, 8))
    with pytest.raises(ArgumentError, match="0x8"):
        rasterize(TRIANGLE, ONE_FACE, (0, 8))
    with pytest.raises(ArgumentError, match="at least 1"):
        next(peel(TRIANGLE, ONE_FACE, (8, 8), 0))


def test_a_forced_backend_that_cannot_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASTER_BACKEND", "nvdiffrast")
    with pytest.raises(BackendError, match="nvdiffrast"):
        rasterize(TRIANGLE, ONE_FACE, (8, 8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASTER_BACKEND", "portable")
    rng = torch.Generator().manual_seed(0)
    positions = torch.cat([torch.rand((300, 3), generator=rng) * 2 - 1, torch.ones(300, 1)], 1)
    faces = torch.arange(300).reshape(-1, 3)
    cpu = rasterize(positions, faces, (128, 128))
    cuda = rasterize(positions.cuda(), faces.cuda(), (128, 128))
    assert torch.equal(cpu.face_id, cuda.face_id.cpu())
    assert torch.allclose(cpu.barycentric, cuda.barycentric.cpu(), atol=1e-6)
