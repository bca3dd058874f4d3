"""Features read in pictures: what several views and chunks do to them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trellis2.conditioning import naf as naf_module
from trellis2.conditioning import pixel_features
from trellis2.conditioning.camera import front_camera, named_camera
from trellis2.conditioning.naf import NAF, group_norm_by_channels, load_naf, upsample_at
from trellis2.conditioning.pixel_features import make_view, sample_map, split_tokens, token_features
from trellis2.errors import CheckpointError, InvalidArgumentError
from trellis2.nn.rope import grid_coords


@pytest.fixture
def upsampler() -> NAF:
    torch.manual_seed(3)
    return NAF(dim=32, heads=4).eval().requires_grad_(False)


def test_chunks_change_nothing(upsampler: NAF, monkeypatch: pytest.MonkeyPatch) -> None:
    views = [
        make_view(named_camera(name), torch.randn(9, 9, 8), torch.rand(3, 36, 36), [36], upsampler)
        for name in ("front", "left")
    ]
    coords = grid_coords(5)
    whole = token_features(views, len(views), coords, 5, [36])
    monkeypatch.setattr(pixel_features, "TOKENS_AT_ONCE", 7)
    monkeypatch.setattr(naf_module, "SCORES_AT_ONCE", 1)
    torch.testing.assert_close(token_features(views, len(views), coords, 5, [36]), whole)


def test_views_are_averaged(upsampler: NAF) -> None:
    a, b = (
        make_view(named_camera(name), torch.randn(9, 9, 8), torch.rand(3, 36, 36), [36], upsampler)
        for name in ("front", "back")
    )
    coords = grid_coords(4)
    mean = (token_features([a], 1, coords, 4, [36]) + token_features([b], 1, coords, 4, [36])) / 2
    torch.testing.assert_close(token_features([a, b], 2, coords, 4, [36]), mean)


def test_the_torsos_dtype_is_rounded_to_once() -> None:
    view = make_view(front_camera(), torch.randn(8, 8, 4), torch.zeros(3, 32, 32))
    coords = grid_coords(4)
    exact = token_features([view], 1, coords, 4)
    assert torch.equal(token_features([view], 1, coords, 4, dtype=torch.bfloat16), exact.bfloat16())


def test_points_at_the_camera_itself_read_something_finite() -> None:
    pixels = torch.tensor([[float("nan"), float("inf")], [float("-inf"), 0.0]])
    assert torch.isfinite(sample_map(torch.randn(4, 4, 2), pixels, 16)).all()


def test_a_single_patch_spreads_only_to_the_windows_that_hold_it(upsampler: NAF) -> None:
    values = torch.zeros(12, 12, 4)
    values[0, 0] = 1.0
    guide = upsampler.guide(upsampler.encode(torch.rand(3, 24, 24), 24), 24, 12)
    pixels = torch.arange(24 * 24)[:, None]
    reached = upsample_at(guide, values, pixels, torch.ones(24 * 24, 1))[:, 0].view(24, 24) > 0
    inside = torch.zeros(24, 24, dtype=torch.bool)
    inside[:10, :10] = True  # cells 0 to 4 have the corner's window, two pixels a cell
    assert torch.equal(reached, inside)


@pytest.mark.parametrize(("patches", "side"), [(8, 32), (9, 32)])
def test_too_few_patches_or_a_grid_that_they_do_not_divide(upsampler: NAF, patches: int, side: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"got {patches} and {side}"):
        upsampler.guide(upsampler.encode(torch.rand(3, 32, 32), 32), side, patches)


def test_an_upsampled_map_needs_the_upsampler() -> None:
    with pytest.raises(InvalidArgumentError, match="NAF"):
        make_view(front_camera(), torch.zeros(9, 9, 4), torch.zeros(3, 36, 36), [36])


def test_tokens_must_be_globals_and_a_square() -> None:
    tokens, patches = split_tokens(torch.arange(5.0 + 9)[:, None])
    assert tokens.shape == (5, 1)
    assert patches[1, 2, 0] == 5 + 5
    with pytest.raises(InvalidArgumentError, match="13 image tokens"):
        split_tokens(torch.zeros(13, 4))


def test_naf_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = NAF()
    assert len(model.state_dict()) == 37
    assert sum(p.numel() for p in model.parameters()) == 662_528
    save_file(model.state_dict(), tmp_path / "naf.safetensors")
    torch.save(model.state_dict(), tmp_path / "naf.pth")
    for name in ("naf.safetensors", "naf.pth"):
        loaded = load_naf(tmp_path / name)
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "text.pth").write_text("no pickle")
    for name in ("other.safetensors", "text.pth", "absent.pth"):
        with pytest.raises(CheckpointError, match="no usable NAF"):
            load_naf(tmp_path / name)


def test_group_norm_by_channels_is_group_norm() -> None:
    torch.manual_seed(0)
    norm = torch.nn.GroupNorm(4, 16)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 16, 9, 7) * torch.rand(2, 16, 1, 1) + 5 * torch.randn(2, 16, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(group_norm_by_channels(norm, x), norm(x), rtol=1e-5, atol=1e-5)
