"""Rasterising into texture space: texel centres, conservative borders, overlaps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.errors import ArgumentError, MeshError
from o_voxel.raster import interpolate, rasterize_uv

ONE_FACE = torch.tensor([[0, 1, 2]])


def touched_by_clipping(triangle: torch.Tensor, size: int) -> torch.Tensor:
    """[size, size] bool: texel squares that meet the triangle, by clipping it to each square."""
    result = torch.zeros((size, size), dtype=torch.bool)
    for row in range(size):
        for column in range(size):
            polygon = [tuple(p) for p in (triangle * size).double().tolist()]
            for axis, bound, sign in ((0, column, 1), (0, column + 1, -1), (1, row, 1), (1, row + 1, -1)):
                polygon = clip(polygon, axis, bound, sign)
            result[row, column] = bool(polygon)
    return result


def clip(polygon: list[tuple[float, float]], axis: int, bound: float, sign: int) -> list[tuple[float, float]]:
    """Sutherland-Hodgman against one side; the border counts as inside."""
    out = []
    for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        dp, dq = sign * (p[axis] - bound), sign * (q[axis] - bound)
        if dp >= 0:
            out.append(p)
        if dp * dq < 0:
            t = dp / (dp - dq)
            out.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
    return out


@given(seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_conservative_adds_exactly_the_touched_texels(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    triangle = torch.rand((3, 2), generator=generator)
    exact = rasterize_uv(triangle, ONE_FACE, (9, 9), conservative=False)
    both = rasterize_uv(triangle, ONE_FACE, (9, 9))
    assert torch.equal(both.mask, touched_by_clipping(triangle, 9) | exact.mask)
    assert torch.equal(both.face_id[exact.mask], exact.face_id[exact.mask])
    assert (both.depth[exact.mask] == 0).all()
    added = both.mask & ~exact.mask
    # clamped to the triangle: weights in 0..1, and the point lies as far from the centre as depth says
    first, second = both.barycentric[..., 0], both.barycentric[..., 1]
    assert (first >= 0).all()
    assert (second >= 0).all()
    assert (first + second <= 1 + 1e-6).all()
    uv = interpolate(triangle, ONE_FACE, both) * 9
    centre = torch.stack(torch.meshgrid(torch.arange(9) + 0.5, torch.arange(9) + 0.5, indexing="xy"), -1)
    distance = (uv - centre).norm(dim=-1)
    assert torch.allclose(distance[added], both.depth[added], atol=1e-4)
    assert (distance[exact.mask] < 0.02).all()  # within the snapping of 1/256 texel


def test_texel_centres_and_row_zero_at_v_zero() -> None:
    uvs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.25], [0.0, 0.25]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    fragments = rasterize_uv(uvs, faces, (8, 16), conservative=False)
    assert fragments.mask[:2].all()
    assert not fragments.mask[2:].any()
    uv = interpolate(uvs, faces, fragments)
    assert torch.allclose(uv[0, :, 0], (torch.arange(16) + 0.5) / 16, atol=1e-6)
    assert torch.allclose(uv[:2, 0, 1], (torch.arange(2) + 0.5) / 8, atol=1e-6)


def test_overlaps_go_to_the_lowest_face_and_borders_to_the_nearest() -> None:
    triangle = torch.tensor([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9]])
    twice = rasterize_uv(torch.cat([triangle, triangle]), torch.tensor([[3, 4, 5], [0, 1, 2]]), (16, 16))
    assert set(twice.face_id.unique().tolist()) == {-1, 0}
    # two slivers inside one column of texels, neither covering its centres (x = 0.5): the nearer is taken
    slivers = torch.tensor([[0.02, 0.1], [0.05, 0.1], [0.02, 0.9], [0.15, 0.1], [0.2, 0.1], [0.2, 0.9]])
    near = rasterize_uv(slivers, torch.arange(6).reshape(2, 3), (4, 4))
    assert near.face_id[1, 0] == 1
    assert not rasterize_uv(slivers, torch.arange(6).reshape(2, 3), (4, 4), conservative=False).mask[1, 0]


def test_a_chart_without_area_still_reaches_its_texels() -> None:
    line = torch.tensor([[0.1, 0.3], [0.9, 0.3], [0.5, 0.3]])
    assert rasterize_uv(line, ONE_FACE, (8, 8)).mask[2].sum() == 8
    assert not rasterize_uv(line, ONE_FACE, (8, 8), conservative=False).mask.any()


def test_unusable_input() -> None:
    uvs = torch.tensor([[0.1, 0.1], [0.9, 0.1], [float("nan"), 0.9]])
    assert not rasterize_uv(uvs, ONE_FACE, (8, 8)).mask.any()
    assert not rasterize_uv(torch.zeros((0, 2)), torch.zeros((0, 3), dtype=torch.int64), (8, 8)).mask.any()
    with pytest.raises(MeshError, match="V, 2"):
        rasterize_uv(torch.zeros((3, 3)), ONE_FACE, (8, 8))
    with pytest.raises(MeshError, match=r"2.*2 vertices"):
        rasterize_uv(torch.zeros((2, 2)), ONE_FACE, (8, 8))
    with pytest.raises(ArgumentError, match="8x0"):
        rasterize_uv(uvs, ONE_FACE, (8, 0))
