"""The Triton attention against the formula, on CUDA or interpreted, and its code for every GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.trellis2.interpreter import interpret_triton

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


COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton
from trellis2.nn import attention_triton as a

signature = {n: "*bf16" for n in ("q", "k", "v", "out")} | {n: "*i32" for n in ("query_bounds", "key_bounds")}
signature |= {n: "i32" for n in ("q_stride", "k_stride", "v_stride", "out_stride")} | {"scale": "fp32"}
aligned = {(i,): [["tt.divisibility", 16]] for i in (0, 1, 2, 3, 6, 7, 8, 9)}
for capability in map(int, sys.argv[1:]):
    for dim in (64, 128):
        how = a.tiling((capability // 10, capability % 10), dim)
        constants = {"DIM": dim, "BLOCK_QUERIES": how.queries, "BLOCK_KEYS": how.keys}
        source = ASTSource(
            a._attention_kernel, signature | {n: "constexpr" for n in constants}, constants, aligned
        )
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
    assert len(rows) == 2 * len(SHARED_KB)
    for capability, size, shared, instruction in rows:
        assert int(size) > 0
        assert int(shared) <= 1024 * SHARED_KB[int(capability)]
        expected = {9: "wgmma", 10: "tcgen05.mma"}.get(int(capability) // 10, "mma.sync")
        assert instruction == expected, f"tensor cores are used on sm_{capability}"
