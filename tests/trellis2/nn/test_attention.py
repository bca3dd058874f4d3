from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trellis2 import backends
from trellis2.errors import BackendError, InvalidArgumentError
from trellis2.nn.attention import TokenLayout, attention, attention_kernels, bucket, padded_attention
from trellis2.nn.block import ModulatedTransformerCrossBlock

HEADS, DIM = 2, 8


def formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(D)) v for one sequence, `[L, H, D]`."""
    weights = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("hqk,khd->qhd", weights.softmax(-1), v)


@pytest.mark.parametrize(
    ("query_lengths", "key_lengths"), [([5, 5], [3, 3]), ([5, 2, 7], [3, 4, 1]), ([6], [6]), ([4, 4], [2, 5])]
)
def test_each_sequence_sees_only_its_own_context(query_lengths: list[int], key_lengths: list[int]) -> None:
    torch.manual_seed(0)
    q = torch.randn(sum(query_lengths), HEADS, DIM)
    k, v = torch.randn(2, sum(key_lengths), HEADS, DIM)
    out = attention(q, k, v, TokenLayout.of(query_lengths, "cpu"), TokenLayout.of(key_lengths, "cpu"))
    expected = torch.cat(
        [
            formula(*parts)
            for parts in zip(q.split(query_lengths), k.split(key_lengths), v.split(key_lengths), strict=True)
        ]
    )
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_batches_that_differ_are_refused() -> None:
    x = torch.zeros(4, HEADS, DIM)
    with pytest.raises(InvalidArgumentError, match="2 sequences attend to 1"):
        attention(x, x, x, TokenLayout.of([2, 2], "cpu"), TokenLayout.of([4], "cpu"))


def test_forcing_flash_attention_on_a_cpu_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTN_BACKEND", "flash_attn")
    x = torch.zeros(4, HEADS, DIM)
    layout = TokenLayout.of([4], "cpu")
    with pytest.raises(BackendError, match="flash-attn"):
        attention(x, x, x, layout, layout)


@pytest.mark.parametrize("share_mod", [True, False])
def test_a_ragged_batch_equals_its_items_alone(share_mod: bool) -> None:
    torch.manual_seed(0)
    channels, lengths, contexts = HEADS * DIM, [5, 9, 1], [4, 2, 6]
    block = ModulatedTransformerCrossBlock(
        channels, 6, HEADS, qk_rms_norm=True, qk_rms_norm_cross=True, share_mod=share_mod
    )
    x, context = torch.randn(15, channels), torch.randn(12, 6)
    mod = torch.randn(3, 6 * channels if share_mod else channels)
    phases = torch.polar(torch.ones(15, DIM // 2), torch.randn(15, DIM // 2))
    with torch.no_grad():
        together = block(
            x,
            TokenLayout.of(lengths, "cpu"),
            mod,
            block.cross_attn.key_value(context),
            TokenLayout.of(contexts, "cpu"),
            phases,
        )
        alone = [
            block(
                one,
                TokenLayout.of([len(one)], "cpu"),
                mod[i : i + 1],
                block.cross_attn.key_value(ctx),
                TokenLayout.of([len(ctx)], "cpu"),
                phase,
            )
            for i, (one, ctx, phase) in enumerate(
                zip(x.split(lengths), context.split(contexts), phases.split(lengths), strict=True)
            )
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_sdpa_is_used_with_torch_defaults() -> None:
    q, k, v = torch.randn(3, 6, HEADS, DIM)
    layout = TokenLayout.of([6], "cpu")
    reference = F.scaled_dot_product_attention(*(t.transpose(0, 1)[None] for t in (q, k, v)))
    torch.testing.assert_close(attention(q, k, v, layout, layout), reference[0].transpose(0, 1))


@pytest.mark.parametrize(("queries", "keys"), [(70, 70), (130, 64), (5, 1000)])
def test_padding_to_buckets_is_exact(queries: int, keys: int) -> None:
    """Through torch's flash kernel for the CPU, which tells its lse as cuDNN does."""
    torch.manual_seed(0)
    q = torch.randn(queries, HEADS, DIM)
    k, v = torch.randn(2, keys, HEADS, DIM)
    seen = []

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.extend((q.shape[2], k.shape[2]))
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
        return out, lse

    out = padded_attention(q, k, v, kernel)
    assert seen == [bucket(queries), bucket(keys)]
    torch.testing.assert_close(out, formula(q, k, v), rtol=1e-5, atol=1e-5)


def test_buckets_are_few_and_near() -> None:
    lengths = range(2048, 65536, 7)
    buckets = {bucket(n) for n in lengths}
    assert len(buckets) <= 5 * 16 + 1
    assert all(n <= bucket(n) <= 1.07 * n and bucket(bucket(n)) == bucket(n) for n in lengths)


@pytest.mark.parametrize(
    ("capability", "recurring", "short", "long"),
    [
        ((8, 0), "sdpa", "sdpa", "sdpa"),
        ((8, 9), "sdpa", "sdpa", "sdpa"),
        ((9, 0), "cudnn", "sdpa", "cudnn"),
        ((10, 0), "cudnn", "sdpa", "cudnn"),
        ((12, 0), "sdpa", "sdpa", "sdpa"),
    ],
)
def test_the_kernel_is_chosen_by_capability_and_length(
    capability: tuple[int, int], recurring: str, short: str, long: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    monkeypatch.setattr(backends, "_import_fault", lambda backend: f"no {backend}")

    def chosen(tokens: int, recurring: bool = False, grad: bool = False) -> str:
        cuda = torch.device("cuda")
        return backends.attention_backend(cuda, torch.bfloat16, grad, tokens, recurring).backend

    backends._cudnn_fault.cache_clear()
    assert [chosen(4096, True), chosen(2890), chosen(12044)] == [recurring, short, long]
    assert chosen(12044, grad=True) == "sdpa", "training has too many lengths to plan for"
    backends._cudnn_fault.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("lengths", [[11, 29], [1500]])
@pytest.mark.parametrize("backend", ["auto", "sdpa", "triton", "cudnn", "cudnn_padded"])
def test_cuda_equals_cpu(backend: str, lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTN_BACKEND", backend)
    q, k, v = torch.randn(3, sum(lengths), HEADS, 64)
    monkeypatch.setattr(backends, "LONG_TOKENS", 1000)
    layout = TokenLayout.of(lengths, "cuda")
    here = [x.cuda().bfloat16() for x in (q, k, v)]
    with torch.no_grad(), attention_kernels(here[0], layout):
        out = attention(*here, layout, layout)
    parts = zip(*(x.split(lengths) for x in (q, k, v)), strict=True)
    expected = torch.cat([formula(*part) for part in parts])
    torch.testing.assert_close(out.float().cpu(), expected, rtol=2e-2, atol=2e-2)
