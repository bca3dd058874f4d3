"""The large products of a flow in bfloat16 and in 8 bits (`quality="fast"`): alone, as a pass, and what the
rounding of 8 bits does to velocities and to whole runs of random full-size weights.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from trellis2.models import RecordedFlow
from trellis2.nn import fp8
from trellis2.nn.elementwise import linear_gelu
from trellis2.nn.fp8 import Fp8Linear, quantize_rows, scaled_product
from trellis2.nn.layers import Linear
from trellis2.sparse import SparseTensor

from .networks import flow_flops, network
from .sampling import SHAPE, denoised
from .session import Session, SkippedError, device_ms, environment
from .voxels import TOKENS, pyramid, surface_cells

# Channels in and out.
LAYERS = {"qkv": (1536, 4608), "out": (1536, 1536), "MLP up": (1536, 8192), "MLP down": (8192, 1536)}
COUNTS = (2890, 4096, 12044)
DRAWS = 2  # of noise, in a comparison


@torch.no_grad()
def run(bench: Session) -> None:
    for tokens in COUNTS:
        for name, (wide, out) in LAYERS.items():
            bench.attempt(f"product {name} {tokens}", partial(_product, bench, name, tokens, wide, out))
    model = network("shape flow")
    recorded = RecordedFlow(model)
    before = torch.cuda.memory_allocated()
    if not recorded.fast().fp8:
        raise SkippedError("this device multiplies no 8-bit floats")
    bench.add("8-bit weights kept beside a flow's", (torch.cuda.memory_allocated() - before) / 1e9, "GB")
    for size, context in ((512, 1029), (1024, 4101)):
        x = pyramid(size).latent(32, TOKENS[size])
        bench.attempt(f"8-bit pass {size}", partial(_pass, bench, recorded, x, context))
    cells = surface_cells(64)[:4096]
    x = SparseTensor(
        torch.randn(len(cells), 32, device="cuda"),
        torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1),
        1,
    )
    bench.attempt("8-bit pass 4096", partial(_pass, bench, recorded, x, 1029))
    small = pyramid(512).latent(32, TOKENS[512])
    bench.attempt("8-bit agreement", partial(_agreement, bench, recorded, small))


def _product(bench: Session, name: str, tokens: int, wide: int, out: int) -> None:
    gelu = name == "MLP down"
    plain = Linear(wide, out, device="cuda", dtype=torch.bfloat16)
    quantised = Fp8Linear(plain)
    x = torch.randn(tokens, wide, device="cuda", dtype=torch.bfloat16)
    flops = 2.0 * tokens * wide * out
    call = partial(linear_gelu, plain, x) if name == "MLP up" else partial(plain, x)
    bf16 = device_ms(call, 20)
    values, scales = quantize_rows(x, gelu)
    rows = device_ms(lambda: quantize_rows(x, gelu), 20)
    found = {}
    for fast in (True, False):
        fp8.FAST_ACCUMULATION = fast
        try:
            found[fast] = device_ms(
                lambda: scaled_product(
                    values, scales, quantised.weight, quantised.scales, plain.bias, x.dtype
                ),
                20,
            )
        finally:
            fp8.FAST_ACCUMULATION = True
    seen = F.gelu(x.float(), approximate="tanh") if gelu else x.float()
    exact = F.linear(seen, plain.weight.float(), plain.bias.float())
    apart = float((quantised(x, gelu).float() - exact).norm() / exact.norm())
    note = (
        f"bfloat16 {bf16:.3f} ms; every sum in float32 {found[False]:.3f} ms; quantised in {rows:.3f} ms"
        f"{' with GELU' if gelu else ''}; relative L2 {apart:.3f}; {bench.share(found[True], flops)}"
    )
    bench.add(f"8-bit {name}, {tokens} tokens", found[True], "ms", None, note)


def _pass(bench: Session, recorded: RecordedFlow, x: SparseTensor, length: int) -> None:
    t = torch.full((1,), 500.0, device="cuda")
    image = torch.randn(1, length, 1024, device="cuda")
    ms, velocities = {}, {}
    tokens = len(x.feats)
    for name, flow in (("bfloat16", recorded), ("8-bit", recorded.fast())):
        context = flow.prepare_cond(image)
        velocities[name] = flow(x, t, context).feats
        ms[name] = device_ms(lambda flow=flow, context=context: flow(x, t, context))  # type: ignore[misc]
        del context
    apart = float((velocities["8-bit"] - velocities["bfloat16"]).norm() / velocities["bfloat16"].norm())
    rate = bench.share(ms["8-bit"], flow_flops(recorded.flow, tokens, length))
    note = f"bfloat16 {ms['bfloat16']:.2f} ms; velocities' relative L2 {apart:.3f}; {rate}"
    bench.add(f"8-bit pass, {tokens} tokens x {length}", ms["8-bit"], "ms", None, note)


class _EightBit:
    """A flow whose every pass is of 8-bit products, at all steps of an exact run."""

    def __init__(self, flow: RecordedFlow) -> None:
        self._flow = flow.fast()
        self.prepare_cond = self._flow.prepare_cond

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._flow(*args, **options)


def _agreement(bench: Session, recorded: RecordedFlow, noise: SparseTensor) -> None:
    """Relative L2 of whole runs from float32's: bfloat16, 8 bits at every step, `fast` with and without."""
    image = torch.randn(1, 1029, 1024, device="cuda")
    exact = RecordedFlow(copy.deepcopy(recorded.flow).convert_to(torch.float32))
    found: dict[str, list[torch.Tensor]] = defaultdict(list)
    for draw in range(DRAWS):
        torch.manual_seed(draw)
        start = noise.replace(torch.randn_like(noise.feats))
        found["float32"].append(denoised(exact, start, image, SHAPE))
        found["bfloat16"].append(denoised(recorded, start, image, SHAPE))
        found["8 bits"].append(denoised(_EightBit(recorded), start, image, SHAPE))
        found["fast"].append(denoised(recorded, start, image, SHAPE, quality="fast"))
        with environment(PRODUCT_BACKEND="torch"):
            found["fast in bfloat16"].append(denoised(recorded, start, image, SHAPE, quality="fast"))
    runs = {name: torch.cat(results).flatten().float() for name, results in found.items()}
    for name in ("bfloat16", "8 bits", "fast", "fast in bfloat16"):
        apart = float((runs[name] - runs["float32"]).norm() / runs["float32"].norm())
        bench.add(f"sampling shape, {name} from float32: relative L2", apart, "", None, f"{DRAWS} runs")
