"""Kernels of Triton are compiled once, whatever the number of tokens or voxels.

Triton compiles an integer argument apart where it is 1 and where 16 divides it, unless told not to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

COUNTS = (1, 96, 97, 4096)

LAUNCHES = """
import json, sys
import torch
from triton.runtime.jit import JITFunction
from trellis2.nn import attention_balanced_triton, attention_triton, elementwise_triton, fp8_triton
from trellis2.sparse import conv_triton, neighbor_table, neighbors_triton
from trellis2.sparse.conv_plan import conv_plan

variants = {}

def record(self, *args, grid, warmup, **options):
    given = dict(zip(self.arg_names, args)) | options
    key = [type(given).__name__]
    for parameter in self.params:
        value = given.pop(parameter.name)
        if isinstance(value, torch.Tensor):
            key.append([str(value.dtype), value.data_ptr() % 16 == 0])
        elif parameter.is_constexpr:
            key.append(value)
        elif isinstance(value, int) and not parameter.do_not_specialize:
            key.append(1 if value == 1 else value % 16 == 0)
    key.append(given)
    variants.setdefault(self.fn.__name__, set()).add(json.dumps(key, default=str))

JITFunction.run = record
for count in map(int, sys.argv[1:]):
    x, gate = torch.zeros(count, 64), torch.zeros(1, 3 * 64)
    items = torch.zeros(count, dtype=torch.int64)
    elementwise_triton.residual_norm(x, x, *gate.chunk(3, 1), items=items)
    elementwise_triton.residual_norm(x, x, *gate.chunk(3, 1), length=count, silu=True)
    elementwise_triton.norm_rotate_(torch.zeros(count, 3, 2, 32), 2, [torch.zeros(2, 32)] * 2, None)
    q = torch.zeros(count, 2, 32)
    bounds = torch.tensor([0, count], dtype=torch.int32)
    tiling = attention_triton.Tiling(64, 32, 4, 2)
    attention_triton.packed_attention(q, q, q, bounds, bounds, count, tiling)
    attention_balanced_triton.balanced_attention(q, q, q, bounds, bounds, tiling, 4)
    fp8_triton.quantize_rows(x)
    line = torch.arange(count, dtype=torch.int32)
    table = neighbor_table(torch.stack([line * 0, line, line * 0, line * 0], 1))
    neighbors_triton.children_table(table, 8 * line.long(), line.repeat(9))
    plan = conv_plan(table)
    conv_triton.correlate(x, plan, torch.zeros(32, 27, 64), torch.zeros(32))
    conv_triton.weight_gradient(x, torch.zeros(count, 32), plan)
print(json.dumps({name: len(found) for name, found in variants.items()}))
"""


def test_no_count_of_tokens_or_voxels_is_compiled_apart() -> None:
    """In a process of its own: one that interprets kernels does not launch them."""
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHES, *map(str, COUNTS)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "_residual_norm_kernel": 2,  # with `items` and with `length`
        "_norm_rotate_kernel": 1,
        "_attention_kernel": 1,
        "_balanced_kernel": 1,
        "_combine_kernel": 1,
        "_quantize_kernel": 1,
        "_children_kernel": 1,
        "_correlate_kernel": 1,
        "_weight_gradient_kernel": 1,
    }
