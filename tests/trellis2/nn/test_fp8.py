"""8-bit products: the portable twin against float32, the kernel against the twin, and whole flows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.trellis2.interpreter import interpret_triton
from tests.trellis2.models.test_cuda import network
from tests.trellis2.sparse.voxels import random_voxels
from trellis2.models import RecordedFlow, recorded_flow
from trellis2.models.recorded_flow import ROOM_BESIDE_FP8
from trellis2.nn.elementwise import Modulation, norm
from trellis2.nn.fp8 import Fp8Linear, quantize_rows
from trellis2.nn.layers import Linear
from trellis2.nn.precision import FP8, LARGEST, QuantizedRows
from trellis2.nn.tokens import TokenLayout
from trellis2.samplers import FlowEulerGuidanceIntervalSampler
from trellis2.samplers.acceleration import Passes

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
WIDE = {"model_channels": 192, "num_heads": 3, "num_blocks": 2}
PARAMETERS = {"steps": 12, "guidance_strength": 5.0, "guidance_rescale": 0.5, "guidance_interval": (0.4, 1.0)}


def error(out: torch.Tensor, expected: torch.Tensor) -> float:
    out, expected = out.double().cpu(), expected.double().cpu()
    return float((out - expected).norm() / expected.norm())


def tokens(rows: int, channels: int) -> torch.Tensor:
    """Rows of very different sizes, one of them zero."""
    torch.manual_seed(0)
    x = torch.randn(rows, channels) * torch.logspace(-3, 2, rows)[:, None]
    x[rows // 2] = 0
    return x


@pytest.mark.parametrize("gelu", [False, True])
def test_rows_are_quantised_to_3_bits_of_mantissa(gelu: bool) -> None:
    x = tokens(40, 96)
    values, scales = quantize_rows(x, gelu)
    expected = F.gelu(x, approximate="tanh") if gelu else x
    assert values.dtype == FP8
    assert values.float().abs().amax() == LARGEST, "a row's largest value takes the whole range"
    undone = values.float() * scales
    largest = expected.abs().amax(1, keepdim=True)
    assert ((undone - expected).abs() <= expected.abs() / 16 + largest * 2**-18).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(("rows", "channels"), [(1, 16), (33, 192), (5, 4096)])
def test_the_kernel_equals_the_twin(device: str, gelu: bool, rows: int, channels: int) -> None:
    module: Any = interpret_triton("trellis2.nn.fp8_triton", device)
    x = tokens(rows, channels).to(torch.bfloat16 if device == "cuda" else torch.float16)
    values, scales = module.quantize_rows(x.to(device), gelu)
    expected, expected_scales = quantize_rows(x, gelu)
    torch.testing.assert_close(scales.cpu(), expected_scales, rtol=1e-5, atol=0)
    made, wanted = values.float().cpu(), expected.float()
    if device == "cpu":  # the interpreter drops the carry of a mantissa into the exponent
        made = torch.where(2 * made == wanted, wanted, made)
    # Values next to the middle of two may fall to either side.
    apart = (made - wanted).abs()
    assert (apart <= wanted.abs() / 7 + 2**-4).all()
    assert (apart > 0).float().mean() < 0.01


@pytest.mark.parametrize("device", DEVICES)
def test_a_nan_stays_one(device: str) -> None:
    """The check of a result would not see it else; Triton's interpreter has no NaN of 8 bits."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x = torch.randn(3, 192, dtype=torch.bfloat16, device=device)
    x[1, 5] = x[2] = float("nan")
    values, scales = quantize_rows(x)
    undone = values.float() * scales
    assert undone[0].isfinite().all()
    assert undone[1, 5].isnan()
    assert undone[2].isnan().all()
    layout = TokenLayout.of([3], device)
    made = norm(x, Modulation(*torch.zeros(2, 1, 192).to(x)), layout, 1e-6, quantize=True)
    undone = made.values.float() * made.scales if isinstance(made, QuantizedRows) else made
    assert undone.isnan().any(1).tolist() == [False, True, True]


@torch.no_grad()
def test_a_product_is_near_and_few_rows_are_exact() -> None:
    torch.manual_seed(0)
    plain = Linear(256, 128)
    layer, x = Fp8Linear(plain), tokens(200, 256)
    assert 0.01 < error(layer(x), plain(x)) < 0.05
    assert 0.01 < error(layer(x, gelu=True), plain(F.gelu(x, approximate="tanh"))) < 0.05
    few = x[:100]
    assert torch.equal(layer(few), plain(few))


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRODUCT_BACKEND", "fp8_emulated")


def test_without_a_card_for_it_fast_is_the_same_network() -> None:
    recorded = RecordedFlow(network("SLatFlowModel", **WIDE))
    with torch.no_grad():
        assert recorded.fast() is recorded


@pytest.mark.usefixtures("emulated")
@torch.no_grad()
def test_fast_is_near_and_leaves_exact_as_it_was() -> None:
    recorded = RecordedFlow(network("SLatFlowModel", **WIDE))
    x, t, cond = random_voxels([300], 8, size=8), torch.full((1,), 700.0), torch.randn(1, 37, 20)
    before = recorded(x, t, recorded.prepare_cond(cond)).feats
    fast = recorded.fast()
    assert fast is not recorded
    assert fast.fp8
    assert not recorded.fp8
    quantised = fast(x, t, fast.prepare_cond(cond)).feats
    assert 1e-3 < error(quantised, before) < 0.05
    assert torch.equal(recorded(x, t, recorded.prepare_cond(cond)).feats, before)
    ours = {p.data_ptr() for p in recorded.flow.parameters()}
    assert {p.data_ptr() for p in fast.flow.parameters()} == ours, "weights are shared"


@pytest.mark.usefixtures("emulated")
@torch.no_grad()
def test_a_card_without_room_for_a_second_copy_stays_in_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = RecordedFlow(network("SLatFlowModel", **WIDE))
    copies = sum(p.numel() for p in recorded.flow.blocks.parameters())
    for free, room in ((copies + ROOM_BESIDE_FP8 - 1, False), (copies + ROOM_BESIDE_FP8, True)):
        monkeypatch.setattr(recorded_flow, "free_memory", lambda _, free=free: free)
        assert recorded.fast().fp8 == room
    monkeypatch.setattr(recorded_flow, "free_memory", lambda _: 0)
    assert recorded.fast().fp8, "it is there already"
    assert RecordedFlow(recorded.flow, low_memory=True).fast().fp8, "which takes the place of the weights"


@pytest.mark.usefixtures("emulated")
@torch.no_grad()
def test_weights_are_quantised_once_and_again_when_they_change() -> None:
    recorded = RecordedFlow(network("SLatFlowModel", **WIDE))
    first = recorded.fast()
    assert recorded.fast() is first
    recorded.flow.blocks[0].mlp.mlp[0].weight.mul_(2)  # type: ignore[index,union-attr]
    second = recorded.fast()
    assert second is not first
    recorded.flow.to(torch.float64).to(torch.float32)  # moved
    assert recorded.fast() is not second


@pytest.mark.usefixtures("emulated")
@torch.no_grad()
def test_with_little_memory_the_replaced_weights_leave() -> None:
    recorded = RecordedFlow(network("SLatFlowModel", **WIDE), low_memory=True)
    x, t, cond = random_voxels([300], 8, size=8), torch.full((1,), 700.0), torch.randn(1, 37, 20)
    expected = RecordedFlow(recorded.flow).fast()
    fast = recorded.fast()
    assert recorded.fast() is fast
    held = {p.data_ptr() for p in fast.flow.parameters()}
    layer = recorded.flow.blocks[0].mlp.mlp[0]  # type: ignore[index,union-attr]
    assert layer.weight.data_ptr() not in held
    assert layer.bias.data_ptr() in held
    out = fast(x, t, fast.prepare_cond(cond)).feats
    assert torch.equal(out, expected(x, t, expected.prepare_cond(cond)).feats)


@pytest.mark.usefixtures("emulated")
@torch.no_grad()
def test_widths_that_8_bit_products_do_not_take_stay_as_they_are() -> None:
    """725 channels in the middle of a block; torch multiplies multiples of 16 alone."""
    recorded = RecordedFlow(network("SLatFlowModel", **WIDE | {"model_channels": 144, "mlp_ratio": 5.04}))
    x, t, cond = random_voxels([300], 8, size=8), torch.full((1,), 700.0), torch.randn(1, 37, 20)
    fast = recorded.fast()
    layers = [m for m in fast.flow.blocks.modules() if isinstance(m, Fp8Linear)]
    assert {tuple(m.weight.shape) for m in layers} == {(432, 144), (144, 144)}
    assert fast(x, t, fast.prepare_cond(cond)).feats.isfinite().all()


@pytest.mark.usefixtures("emulated")
def test_with_gradients_nothing_is_quantised() -> None:
    recorded = RecordedFlow(network("SLatFlowModel", **WIDE))
    assert recorded.fast() is recorded


@pytest.mark.parametrize(
    ("quality", "counted"), [("exact", Passes(12, 9, 0, 0)), ("fast", Passes(8, 6, 4, 14))]
)
@pytest.mark.usefixtures("emulated")
@torch.no_grad()
def test_a_run_counts_its_8_bit_passes(quality: str, counted: Passes) -> None:
    recorded = RecordedFlow(network("SLatFlowModel", **WIDE))
    noise, cond = random_voxels([200], 4, size=8), torch.randn(1, 9, 20)
    seen: list[Passes] = []
    sampler = FlowEulerGuidanceIntervalSampler(1e-5)
    options: dict[str, Any] = {**PARAMETERS, "guidance_interval": (0.6, 1.0), "rescale_t": 3.0}
    options["concat_cond"] = noise
    sampler.denoise(
        recorded, noise, cond, neg_cond=torch.zeros_like(cond), **options, quality=quality, passes=seen.append
    )
    assert seen == [counted]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_on_cuda_it_equals_the_emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded, on a card that multiplies 8 bits; replays equal the direct call, exact runs are untouched."""
    model = network("SLatFlowModel", torch.bfloat16, **WIDE).cuda()
    recorded = RecordedFlow(model)
    fast = recorded.fast()
    if not fast.fp8:
        pytest.skip("this device multiplies no 8-bit floats")
    x, t = random_voxels([300], 8, size=8).cuda(), torch.full((1,), 700.0, device="cuda")
    cond = torch.randn(1, 37, 20, device="cuda")
    exact = recorded(x, t, recorded.prepare_cond(cond)).feats
    context = fast.prepare_cond(cond)
    first = fast(x, t, context).feats
    for _ in range(3):
        assert torch.equal(fast(x, t, context).feats, first)
    assert torch.equal(first, fast.flow(x, t, cond).feats)
    assert 1e-3 < error(first, exact) < 0.05
    assert torch.equal(recorded(x, t, recorded.prepare_cond(cond)).feats, exact)
    monkeypatch.setenv("PRODUCT_BACKEND", "fp8_emulated")
    assert error(first, fast.flow(x, t, cond).feats) < 2e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_on_cuda_the_replaced_weights_wait_on_the_cpu() -> None:
    model = network("SLatFlowModel", torch.bfloat16, **WIDE).cuda()
    recorded = RecordedFlow(model, low_memory=True)
    x, t = random_voxels([300], 8, size=8).cuda(), torch.full((1,), 700.0, device="cuda")
    cond = torch.randn(1, 37, 20, device="cuda")
    exact = recorded(x, t, recorded.prepare_cond(cond)).feats
    before = torch.cuda.memory_allocated()
    fast = recorded.fast()
    if not fast.fp8:
        pytest.skip("this device multiplies no 8-bit floats")
    assert torch.cuda.memory_allocated() < before
    assert model.blocks[0].mlp.mlp[0].weight.device.type == "cpu"
    for seen in (cond, torch.zeros(1, 1, 20, device="cuda")):
        assert fast(x, t, fast.prepare_cond(seen)).feats.isfinite().all()
    model.cuda()  # as the pipeline does before each stage
    assert torch.equal(recorded(x, t, recorded.prepare_cond(cond)).feats, exact)
