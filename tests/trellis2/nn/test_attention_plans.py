"""Attention over padded lengths, by torch's flash kernel for the CPU, which tells its lse as cuDNN does."""

from __future__ import annotations

import threading

import pytest
import torch

from tests.trellis2.nn.test_attention import DIM, HEADS, formula
from trellis2.nn import attention as attention_module
from trellis2.nn import attention_plans
from trellis2.nn.attention import attention, attention_kernels
from trellis2.nn.attention_plans import (
    Plans,
    bucket,
    buckets,
    cudnn_with_lse,
    padded_attention,
    plan_buckets,
)
from trellis2.nn.tokens import TokenLayout


class Kernel:
    """torch's flash kernel for the CPU; `seen` has the lengths of each call."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.append((q.shape[2], k.shape[2]))
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
        return out, lse


@pytest.mark.parametrize(("queries", "keys"), [(70, 70), (130, 64), (5, 1000)])
def test_padding_to_buckets_is_exact(queries: int, keys: int) -> None:
    torch.manual_seed(0)
    kernel = Kernel()
    q = torch.randn(2, queries, HEADS, DIM)
    k, v = torch.randn(2, 2, keys, HEADS, DIM)
    out = padded_attention(q, k, v, kernel)
    assert kernel.seen == [(bucket(queries), bucket(keys))]
    for i in range(2):
        torch.testing.assert_close(out[i], formula(q[i], k[i], v[i]), rtol=1e-5, atol=1e-5)


def test_buckets_are_few_and_near() -> None:
    lengths = range(2048, 65536, 7)
    found = {bucket(n) for n in lengths}
    assert len(found) <= 5 * 16 + 1
    assert all(n <= bucket(n) <= 1.07 * n and bucket(bucket(n)) == bucket(n) for n in lengths)
    assert sorted(found) == buckets(2048, 65530)


def test_what_was_asked_for_is_planned_in_every_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_plans, "SHORTEST", 65)
    monkeypatch.setattr(attention_plans, "LONGEST", 256)
    plans, kernel = Plans(), Kernel()
    q, context = torch.zeros(1, 100, HEADS, DIM), torch.zeros(1, 70, HEADS, DIM)
    assert not plans.has(q, q)
    assert not plans.has(q, context)
    assert plans.make(kernel) == 6
    lengths = (128, 192, 256)
    assert sorted(kernel.seen) == sorted([(n, n) for n in lengths] + [(n, 128) for n in lengths])
    assert plans.has(q, q)
    assert plans.has(q, context)
    assert plans.has(q[:, :65], q[:, :65])
    assert not plans.has(q[:, :64], q[:, :64]), "shorter than what is planned"
    assert not plans.has(torch.cat([q, q]), context), "another batch"
    assert plans.make(kernel) == 3, "only what is new is planned again"


def test_each_thread_has_its_own_plans() -> None:
    plans, q = Plans(), torch.zeros(1, 2048, HEADS, DIM)
    plans.has(q, q)
    plans.make(Kernel())
    seen = []
    thread = threading.Thread(target=lambda: seen.append(plans.has(q, q)))
    thread.start()
    thread.join()
    assert plans.has(q, q)
    assert seen == [False]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_planned_lengths_take_cudnn_and_equal_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_plans, "LONGEST", 1280)
    monkeypatch.setenv("ATTN_BACKEND", "cudnn_planned")
    layout = TokenLayout.of([1100], "cuda")
    q, k, v = torch.randn(3, 1100, HEADS, 64, device="cuda").bfloat16()
    with torch.no_grad(), attention_kernels(q, layout):
        before = attention(q, k, v, layout, layout)
        assert plan_buckets() > 0
        calls = []
        monkeypatch.setattr(
            attention_module, "cudnn_with_lse", lambda *a: calls.append(a) or cudnn_with_lse(*a)
        )
        after = attention(q, k, v, layout, layout)
    assert len(calls) == 1
    expected = formula(*(x.float().cpu() for x in (q, k, v)))
    for out in (before, after):
        torch.testing.assert_close(out.float().cpu(), expected, rtol=2e-2, atol=2e-2)
