"""The Triton attention against the formula, on CUDA or interpreted, and its code for every GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.trellis2.interpreter import interpret_triton
from trellis2.errors import BackendError
from trellis2.nn.attention import attention
from trellis2.nn.tokens import TokenLayout

from .test_attention import formula

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
SHARED_KB = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}  # of a block, at most


def error(out: torch.Tensor, accurate: torch.Tensor) -> float:
    return float((out.double().cpu() - accurate.double()).norm() / accurate.double().norm())


def bounds(lengths: list[int], device: str) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("queries", "keys"), [([150], [150]), ([70, 1, 33], [1, 130, 64]), ([64, 64], [32, 16])]
)
@pytest.mark.parametrize("dim", [64, 128])
def test_packed_attention_equals_the_formula(
    device: str, queries: list[int], keys: list[int], dim: int
) -> None:
    module: Any = interpret_triton("trellis2.nn.attention_triton", device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float16
    torch.manual_seed(0)
    projected = torch.randn(sum(queries), 3, 2, dim).to(dtype)  # as the block has them: parts of one product
    q, k, v = (
        projected.unbind(1)
        if queries == keys
        else (projected[:, 0], *torch.randn(2, sum(keys), 2, dim).to(dtype))
    )
    out = module.packed_attention(
        *(x.to(device) for x in (q, k, v)),
        bounds(queries, device),
        bounds(keys, device),
        200,  # a bucket's length, say
        module.Tiling(64, 32, 4, 2) if device == "cpu" else None,
    )
    parts = zip(q.split(queries), k.split(keys), v.split(keys), strict=True)
    expected = torch.cat([formula(*(x.double() for x in part)) for part in parts])
    assert error(out, expected) < (8e-3 if dtype == torch.bfloat16 else 1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("programs", [1, 2, 5, 13, 40])
@pytest.mark.parametrize(
    ("queries", "keys"), [([150], [150]), ([70, 1, 33], [1, 130, 64]), ([64, 64], [32, 16]), ([40], [7])]
)
def test_divided_tiles_equal_the_formula(
    device: str, queries: list[int], keys: list[int], programs: int
) -> None:
    """Shares of many tiles, of parts of one tile, and empty ones."""
    module: Any = interpret_triton("trellis2.nn.attention_balanced_triton", device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float16
    torch.manual_seed(0)
    q, (k, v) = torch.randn(sum(queries), 2, 64).to(dtype), torch.randn(2, sum(keys), 2, 64).to(dtype)
    out = module.balanced_attention(
        *(x.to(device) for x in (q, k, v)),
        bounds(queries, device),
        bounds(keys, device),
        module.Tiling(64, 16, 4, 2) if device == "cpu" else module.Tiling(64, 64, 4, 2),
        programs,
    )
    parts = zip(q.split(queries), k.split(keys), v.split(keys), strict=True)
    expected = torch.cat([formula(*(x.double() for x in part)) for part in parts])
    assert error(out, expected) < (8e-3 if dtype == torch.bfloat16 else 1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["cudnn_padded", "triton", "triton_balanced"])
@pytest.mark.parametrize(
    ("queries", "keys"), [([700], None), ([513], [1029]), ([300, 300], None), ([300, 300], [1029, 1])]
)
def test_every_backend_equals_the_formula(
    backend: str, queries: list[int], keys: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As blocks call it, at lengths that share a bucket with others."""
    monkeypatch.setenv("ATTN_BACKEND", backend)
    layout = TokenLayout.of(queries, "cuda")
    context = layout if keys is None else TokenLayout.of(keys, "cuda")
    torch.manual_seed(0)
    q, k, v = torch.randn(sum(queries), 3, 4, 128, device="cuda").bfloat16().unbind(1)
    if keys is not None:
        k, v = torch.randn(2, sum(keys), 4, 128, device="cuda").bfloat16()
    try:
        with torch.no_grad():
            out = attention(q, k, v, layout, context)
    except BackendError as refused:
        pytest.skip(str(refused))
    parts = zip(q.split(queries), k.split(context.lengths), v.split(context.lengths), strict=True)
    expected = torch.cat([formula(*(x.double().cpu() for x in part)) for part in parts])
    assert error(out, expected) < 8e-3


COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton
from trellis2.nn import attention_balanced_triton as b
from trellis2.nn import attention_triton as a

pointers = {n: "*bf16" for n in ("q", "k", "v", "out")}
bounds = {n: "*i32" for n in ("query_bounds", "key_bounds")}
strides = {n: "i32" for n in ("q_stride", "k_stride", "v_stride", "out_stride")} | {"scale": "fp32"}
sums, counts = {n: "*fp32" for n in ("partial", "stats")}, {n: "i32" for n in ("sequences", "heads")}
plain = a._attention_kernel, a.tiling, pointers | bounds | strides, (0, 1, 2, 3, 6, 7, 8, 9)
balanced = (
    b._balanced_kernel,
    a.tiling,
    pointers | sums | bounds | counts | strides,
    (0, 1, 2, 3, 4, 5, 10, 11, 12, 13),
)
for capability in map(int, sys.argv[1:]):
    for dim, (kernel, tiling, signature, multiples) in (
        (d, k) for d in (64, 128) for k in (plain, balanced)
    ):
        how = tiling((capability // 10, capability % 10), dim)
        constants = {"DIM": dim, "BLOCK_QUERIES": how.queries, "BLOCK_KEYS": how.keys}
        aligned = {(i,): [["tt.divisibility", 16]] for i in multiples}
        source = ASTSource(kernel, signature | {n: "constexpr" for n in constants}, constants, aligned)
        options = {"num_warps": how.warps, "num_stages": how.stages}
        made = triton.compile(source, GPUTarget("cuda", capability, 32), options)
        found = [n for n in ("tcgen05.mma", "wgmma", "mma.sync") if n in made.asm["ptx"]]
        print(capability, len(made.asm["cubin"]), made.metadata.shared, found[0] if found else "none")
"""


def test_it_compiles_for_every_gpu() -> None:
    """In a process of its own: one that interprets kernels cannot compile them."""
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, *map(str, SHARED_KB)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 4 * len(SHARED_KB)
    for capability, size, shared, instruction in rows:
        assert int(size) > 0
        assert int(shared) <= 1024 * SHARED_KB[int(capability)]
        expected = {9: "wgmma", 10: "tcgen05.mma"}.get(int(capability) // 10, "mma.sync")
        assert instruction == expected, f"tensor cores are used on sm_{capability}"
