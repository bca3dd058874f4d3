from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trellis2.errors import InvalidArgumentError
from trellis2.nn.layers import ChannelLayerNorm32, Conv3d, GroupNorm32, LayerNorm32, Linear, MultiHeadRMSNorm
from trellis2.nn.precision import as_dtype
from trellis2.nn.rope import apply_rope, grid_coords, rope_phases, sincos_positions
from trellis2.nn.timestep import timestep_frequencies


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_compute_in_float32_and_cast_back(dtype: torch.dtype) -> None:
    x = (torch.randn(6, 32) * 100).to(dtype)
    out = LayerNorm32(32, eps=1e-6)(x)
    assert out.dtype == dtype
    assert torch.equal(out, F.layer_norm(x.float(), (32,), eps=1e-6).to(dtype))
    volume = x.view(6, 32, 1, 1, 1)
    assert torch.equal(ChannelLayerNorm32(32)(volume).flatten(1), LayerNorm32(32)(x))
    assert GroupNorm32(32, 32)(volume).dtype == dtype


def test_norms_stay_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert LayerNorm32(8)(torch.randn(2, 8, dtype=torch.bfloat16)).dtype == torch.float32


def test_rms_norm_floors_the_norm_and_not_the_mean_square() -> None:
    norm = MultiHeadRMSNorm(4, 2)
    x = torch.zeros(1, 2, 4)
    x[0, 0, 0] = 1e-9
    torch.testing.assert_close(norm(x)[0, 0], torch.tensor([2.0, 0, 0, 0]))
    assert torch.equal(norm(x)[0, 1], torch.zeros(4))
    assert norm(x.half()).dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_layers_on_cpu_round_once(dtype: torch.dtype) -> None:
    x = torch.randn(5, 64).to(dtype)
    linear = Linear(64, 16).to(dtype)
    wide = F.linear(x.double(), linear.weight.double(), linear.bias.double())
    out = linear(x)
    assert out.dtype == dtype
    # One rounding: within one unit in the last place of the exact result.
    torch.testing.assert_close(out.double(), wide, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
    conv = Conv3d(4, 4, 3, padding=1).to(dtype)
    assert conv(torch.randn(1, 4, 3, 3, 3).to(dtype)).dtype == dtype


def test_rope_pads_with_identity_and_pairs_neighbouring_channels() -> None:
    phases = rope_phases(torch.tensor([[3, 1, 2]]), head_dim=16)  # 2 frequencies an axis, 2 idle pairs
    expected = torch.tensor([3, 0.03, 1, 0.01, 2, 0.02, 0, 0])
    torch.testing.assert_close(phases.angle()[0, 1:], expected[1:], rtol=1e-5, atol=1e-6)
    x = torch.randn(1, 1, 16)
    turned = apply_rope(x, phases)
    assert torch.equal(turned[..., 12:], x[..., 12:])
    c, s = phases[0, 2].real, phases[0, 2].imag
    torch.testing.assert_close(turned[0, 0, 4], x[0, 0, 4] * c - x[0, 0, 5] * s)
    torch.testing.assert_close(turned[0, 0, 5], x[0, 0, 4] * s + x[0, 0, 5] * c)


def test_rope_angles_depend_on_relative_positions_only() -> None:
    q, k = torch.randn(2, 1, 1, 24)

    def score(at: list[int], to: list[int]) -> torch.Tensor:
        turned = [apply_rope(v, rope_phases(torch.tensor([p]), 24)) for v, p in ((q, at), (k, to))]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(
        score([1, 2, 3], [4, 4, 4]), score([11, 22, 3], [14, 24, 4]), rtol=1e-4, atol=1e-4
    )


def test_grid_tokens_run_fastest_along_z() -> None:
    coords = grid_coords(3)
    assert coords[(1 * 3 + 2) * 3 + 0].tolist() == [1, 2, 0]


def test_absolute_positions_fill_the_width() -> None:
    table = sincos_positions(torch.tensor([[1, 0, 2]]), 20)[0]  # 3 frequencies an axis, 2 idle channels
    frequencies = torch.tensor([1, 10000 ** (-1 / 3), 10000 ** (-2 / 3)])
    torch.testing.assert_close(table[:6], torch.cat([frequencies.sin(), frequencies.cos()]))
    torch.testing.assert_close(table[12:18], torch.cat([(2 * frequencies).sin(), (2 * frequencies).cos()]))
    assert table[18:].tolist() == [0, 0]


def test_timestep_cosines_come_first() -> None:
    table = timestep_frequencies(torch.tensor([0.0, 500.0]))
    assert table.shape == (2, 256)
    assert table[0, :128].eq(1).all()
    assert table[0, 128:].eq(0).all()


def test_dtype_names() -> None:
    assert as_dtype("bf16") == as_dtype("bfloat16") == as_dtype(torch.bfloat16) == torch.bfloat16
    with pytest.raises(InvalidArgumentError, match="int4"):
        as_dtype("int4")
