"""The fused kernels against the torch formulas: on CUDA, or in Triton's interpreter where there is none."""

from __future__ import annotations

import pytest
import torch

from tests.trellis2.interpreter import interpret_triton
from trellis2 import backends
from trellis2.errors import BackendError
from trellis2.nn import elementwise
from trellis2.nn.elementwise import Affine, Modulation
from trellis2.nn.fp8 import quantize_rows
from trellis2.nn.tokens import TokenLayout

KERNELS = "trellis2.nn.elementwise_triton"
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
# In 16 bits a value next to a rounding boundary may fall to the other side of it.
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-3, torch.float16: 1e-4}


def limit_of(device: str, dtype: torch.dtype) -> float:
    """Triton's interpreter cuts bfloat16 off where the hardware rounds."""
    return 1e-2 if device == "cpu" and dtype == torch.bfloat16 else TOLERANCE[dtype]


def error(out: torch.Tensor, expected: torch.Tensor) -> float:
    assert out.dtype == expected.dtype
    assert out.shape == expected.shape
    out, expected = out.double().cpu(), expected.double().cpu()
    return float((out - expected).norm() / expected.norm())


def vectors(items: int, channels: int, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, ...]:
    """Gate, shift and scale as the block has them: slices of one wide row an item."""
    return torch.randn(items, 6 * channels).to(device, dtype).chunk(6, dim=-1)[:3]


def rows_of(layout: TokenLayout) -> dict[str, object]:
    return {"length": layout.lengths[0]} if layout.uniform else {"items": layout.items}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("lengths", [[7, 7, 7], [5, 11, 1]])
@pytest.mark.parametrize("channels", [48, 1536])
def test_residual_and_norm_in_one_pass(
    device: str, dtype: torch.dtype, lengths: list[int], channels: int
) -> None:
    kernels = interpret_triton(KERNELS, device)
    torch.manual_seed(0)
    layout = TokenLayout.of(lengths, device)
    x, branch = torch.randn(2, sum(lengths), channels).to(device, dtype)
    gate, shift, scale = vectors(len(lengths), channels, dtype, device)
    weight, bias = torch.randn(2, channels).to(device)
    limit = limit_of(device, dtype)
    with torch.enable_grad():  # the formulas, not the kernels
        added = elementwise.gated_add(x, branch, gate, layout)
        modulated = elementwise.norm(added, Modulation(shift, scale), layout, 1e-6)
        affine = elementwise.norm(x, Affine(weight, bias), layout, 1e-6)
        per_item = elementwise.gated_add(x, branch[: len(lengths)], None, layout)
        activated = elementwise.layer_norm(x, eps=1e-6, silu=True)
    total, out = kernels.residual_norm(x, branch, gate, shift, scale, **rows_of(layout))
    assert error(total, added) < limit
    assert error(out, modulated) < limit
    assert error(kernels.residual_norm(x, weight=weight, bias=bias)[1], affine) < limit
    assert error(kernels.residual_norm(x, silu=True)[1], activated) < limit
    constant, _ = kernels.residual_norm(
        x, branch[: len(lengths)], branch_per_item=True, norm=False, **rows_of(layout)
    )
    assert error(constant, per_item) < limit


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [48, 1536])
def test_a_norm_can_leave_8_bits(device: str, channels: int) -> None:
    kernels = interpret_triton(KERNELS, device)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float16
    x, branch = torch.randn(2, 13, channels).to(device, dtype)
    gate, shift, scale = vectors(1, channels, dtype, device)
    total, out = kernels.residual_norm(x, branch, gate, shift, scale, length=13)
    again, quantized = kernels.residual_norm(x, branch, gate, shift, scale, length=13, quantize=True)
    assert torch.equal(total, again)
    values, scales = quantize_rows(out.cpu())
    torch.testing.assert_close(quantized.scales.cpu(), scales, rtol=1e-5, atol=0)
    made, wanted = quantized.values.float().cpu(), values.float()
    if device == "cpu":  # the interpreter drops the carry of a mantissa into the exponent
        made = torch.where(2 * made == wanted, wanted, made)
    assert ((made - wanted).abs() <= wanted.abs() / 7 + 2**-4).all()
    assert (made != wanted).float().mean() < 0.01


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("heads", "dim"), [(3, 16), (12, 128)])
@pytest.mark.parametrize("parts", [3, 1])
@pytest.mark.parametrize("rotated", [True, False])
def test_head_norm_and_rotation_in_one_pass(
    device: str, dtype: torch.dtype, heads: int, dim: int, parts: int, rotated: bool
) -> None:
    kernels = interpret_triton(KERNELS, device)
    torch.manual_seed(0)
    projected = torch.randn(9, parts, heads, dim).to(device, dtype)
    projected[2, 0, 1] = 0  # the floor under the norm
    gammas = [torch.randn(heads, dim).to(device) for _ in range(min(parts, 2))]
    phases = torch.polar(torch.ones(9, dim // 2), torch.randn(9, dim // 2)).to(device) if rotated else None
    with torch.enable_grad():
        expected = torch.stack(elementwise.norm_rotate(projected, gammas, phases), dim=1)
        turned = torch.stack(elementwise.norm_rotate(projected, [None] * len(gammas), phases), dim=1)
    out = kernels.norm_rotate_(projected.clone(), len(gammas), gammas, phases)
    assert error(out, expected) < limit_of(device, dtype)
    assert torch.equal(out[:, len(gammas) :], projected[:, len(gammas) :])
    if rotated:
        assert error(kernels.norm_rotate_(projected, len(gammas), [], phases), turned) < limit_of(
            device, dtype
        )


@pytest.mark.parametrize("device", DEVICES)
def test_no_tokens_are_no_work(device: str) -> None:
    kernels = interpret_triton(KERNELS, device)
    empty = torch.empty(0, 8, device=device)
    assert kernels.residual_norm(empty, empty)[1].shape == (0, 8)
    assert kernels.norm_rotate_(torch.empty(0, 3, 2, 16, device=device), 2, [], None).shape[0] == 0


def test_vectors_of_another_layout_are_refused() -> None:
    kernels = interpret_triton(KERNELS, "cuda" if torch.cuda.is_available() else "cpu")
    x = torch.zeros(4, 8)
    with pytest.raises(ValueError, match="rows of one layout"):
        kernels.residual_norm(x, shift=torch.zeros(1, 8), scale=torch.zeros(1, 16)[:, ::2], length=4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gelu_in_the_epilogue_is_the_tanh_form(dtype: torch.dtype) -> None:
    linear = torch.nn.Linear(64, 256, device="cuda", dtype=dtype)
    x = 2 * torch.randn(300, 64, device="cuda", dtype=dtype)
    accurate = torch.nn.functional.gelu(linear.double()(x.double()), approximate="tanh")
    with torch.no_grad():
        out = elementwise.linear_gelu(linear.to(dtype), x)
    assert float((out.double() - accurate.detach()).norm() / accurate.detach().norm()) < 5e-3


def test_triton_that_cannot_run_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a C compiler Triton imports and then fails at the first kernel."""
    monkeypatch.setattr(backends, "_import_fault", lambda _: None)
    monkeypatch.setattr(backends, "_triton_fault", lambda device: f"package triton fails on {device}")
    choice = backends.elementwise_backend(torch.device("cuda"), torch.bfloat16)
    assert (choice.backend, choice.reason) == ("torch", "package triton fails on cuda")
    monkeypatch.setenv("ELEMENTWISE_BACKEND", "triton")
    with pytest.raises(BackendError, match="triton fails on cuda"):
        backends.elementwise_backend(torch.device("cuda"), torch.bfloat16)
