from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis2 import backends
from trellis2.errors import BackendError, InvalidArgumentError
from trellis2.sparse import SparseConv3d, SparseTensor, conv_torch, neighbor_table
from trellis2.sparse.conv_torch import submanifold_conv

from .voxels import random_voxels


def dense_twin(x: SparseTensor, conv: SparseConv3d) -> torch.Tensor:
    """Scatter to a volume, convolve densely, gather."""
    weight = conv.weight.to(x.dtype).permute(0, 4, 1, 2, 3)
    out = F.conv3d(x.dense([8, 8, 8]), weight, conv.bias, padding=1)
    b, i, j, k = x.coords.long().unbind(1)
    return out[b, :, i, j, k]


@settings(max_examples=15, deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    channels=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    seed=st.integers(0, 100),
)
def test_equals_dense_cross_correlation(counts: list[int], channels: tuple[int, int], seed: int) -> None:
    x = random_voxels(counts, channels[0], size=8, seed=seed)
    conv = SparseConv3d(*channels)
    torch.testing.assert_close(conv(x).feats, dense_twin(x, conv), rtol=1e-5, atol=1e-5)


def test_gradients_equal_the_dense_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_torch, "_CPU_BLOCK_BYTES", 1)  # several blocks
    x = random_voxels([300, 250], 3, size=8)
    conv = SparseConv3d(3, 5)
    grads = []
    for run in (lambda: conv(x).feats, lambda: dense_twin(x, conv)):
        conv.zero_grad()
        x.feats.grad = None
        x.feats.requires_grad_()
        run().square().sum().backward()
        grads.append([p.grad.clone() for p in (x.feats, conv.weight, conv.bias)])  # type: ignore[union-attr]
    for ours, dense in zip(*grads, strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-4, atol=1e-3)


def test_gradcheck() -> None:
    x = random_voxels([12], 2, size=3)
    table = neighbor_table(x.coords)
    weight = torch.randn(3, 3, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    feats = x.feats.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda f, w, b: submanifold_conv(f, table, w, b), (feats, weight, bias))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_16_bit_rounds_once(dtype: torch.dtype, tolerance: float) -> None:
    x = random_voxels([100], 16).type(dtype)
    conv = SparseConv3d(16, 8).to(dtype)
    out = conv(x).feats
    assert out.dtype == dtype
    table = neighbor_table(x.coords)
    assert conv.bias is not None
    accurate = submanifold_conv(x.feats.double(), table, conv.weight.double(), conv.bias.double())
    assert (out.double() - accurate).norm() / accurate.norm() < tolerance


def test_autocast_computes_in_its_dtype_and_trains_float32_weights() -> None:
    x = random_voxels([50], 4)
    conv = SparseConv3d(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = conv(x)
    assert out.dtype == torch.bfloat16
    out.feats.float().sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.dtype == torch.float32


def test_wrong_channels_and_kernels_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"4 channels.*3"):
        SparseConv3d(4, 4)(random_voxels([5], 3))
    with pytest.raises(InvalidArgumentError, match="kernel_size=5"):
        SparseConv3d(4, 4, kernel_size=5)


@pytest.mark.parametrize(("forced", "package"), [("flex_gemm", "flex_gemm"), ("triton", "triton")])
def test_a_forced_backend_that_cannot_run_names_its_package(
    forced: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSE_CONV_BACKEND", forced)
    with pytest.raises(BackendError, match=package):
        SparseConv3d(4, 4)(random_voxels([5], 4))
    monkeypatch.setenv("SPARSE_CONV_BACKEND", "nonsense")
    with pytest.raises(BackendError, match="flex_gemm, triton, torch"):
        SparseConv3d(4, 4)(random_voxels([5], 4))


@pytest.mark.parametrize(
    ("channels", "milliseconds", "gathered"),
    [  # measured on an H100, levels of one decoder: implicit product, gather and product
        ((1024, 1024), 1.522, 1.11),
        ((1024, 4096), 7.375, 3.69),
        ((512, 512), 1.343, 1.72),
        ((512, 2048), 5.388, 4.15),
        ((256, 256), 1.147, 4.32),
        ((256, 1024), 4.155, 6.52),
        ((128, 128), 1.156, 14.7),
        ((128, 512), 3.978, 16.2),
        ((64, 64), 1.562, 54.2),
    ],
)
def test_the_faster_convolution_is_chosen_by_width(
    channels: tuple[int, int], milliseconds: float, gathered: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_fault", lambda backend, *_: None)  # everything is installed
    monkeypatch.delenv("SPARSE_CONV_BACKEND", raising=False)
    capability = [9, 0]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: tuple(capability))
    cuda = torch.device("cuda")
    chosen = backends.sparse_conv_backend(cuda, torch.float16, False, channels)
    assert chosen.backend == ("torch" if gathered < milliseconds else "triton")
    # Not measured: float32, training, other generations. Asked for by name: no choice to make.
    assert backends.sparse_conv_backend(cuda, torch.float32, False, channels).backend == "triton"
    assert backends.sparse_conv_backend(cuda, torch.float16, True, channels).backend == "triton"
    monkeypatch.setenv("SPARSE_CONV_BACKEND", "triton")
    assert backends.sparse_conv_backend(cuda, torch.float16, False, channels).backend == "triton"
    monkeypatch.setenv("SPARSE_CONV_BACKEND", "auto")
    capability[0] = 8
    assert backends.sparse_conv_backend(cuda, torch.float16, False, channels).backend == "triton"


def test_backends_describe_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTN_BACKEND", raising=False)
    monkeypatch.setenv("SPARSE_CONV_BACKEND", "torch")
    attention, conv, elementwise, products = backends.describe("cpu")
    assert (attention.backend, conv.backend, elementwise.backend) == ("sdpa", "torch", "torch")
    assert products.backend == "torch"
    assert "CUDA" in attention.reason
    assert "SPARSE_CONV_BACKEND" in conv.reason
    monkeypatch.setenv("ATTN_BACKEND", "flash_attn")
    attention, *_ = backends.describe("cpu")
    assert attention.backend == "unavailable"
    assert "flash-attn" in attention.reason


def test_tables_built_in_inference_serve_training() -> None:
    conv = SparseConv3d(4, 4)
    with torch.inference_mode():
        x = random_voxels([5], 4)
        conv(x)
    conv(x.replace(torch.randn(5, 4))).feats.sum().backward()
    assert conv.weight.grad is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_cuda_equals_cpu(dtype: torch.dtype) -> None:
    x = random_voxels([150, 90], 16, size=8)
    conv = SparseConv3d(16, 24)
    expected = conv(x).feats
    out = conv.to("cuda", dtype)(x.to("cuda", dtype)).feats
    torch.testing.assert_close(out.float().cpu(), expected, rtol=1e-2, atol=1e-2)
