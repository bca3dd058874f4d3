"""`python -m benchmarks.pixel_aligned [cpu|cuda]`: what pixel-aligned conditioning costs, at full width.

NAF at 512 with the features of 20,000 tokens, their memory, and on CUDA a pass of the structure flow (random
weights, bfloat16) beside the plain one with 1,029 image tokens.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from trellis2.conditioning.camera import front_camera
from trellis2.conditioning.naf import NAF
from trellis2.conditioning.pixel_features import make_view, token_features
from trellis2.models import SparseStructureFlowModel
from trellis2.nn.tokens import PixelTokens

from .gpu.networks import CONFIGS

TOKENS = 20_000
STRUCTURE: dict[str, Any] = CONFIGS["structure flow"]["args"]


def seconds(call: Callable[[], Any], device: torch.device, repeats: int) -> tuple[float, float]:
    """Wall-clock and processor seconds of the fastest of some calls."""

    def once() -> tuple[float, float]:
        wall, processor = time.perf_counter(), time.process_time()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - wall, time.process_time() - processor

    return min(once() for _ in range(repeats))


@torch.no_grad()
def naf(device: torch.device) -> None:
    torch.manual_seed(0)
    upsampler = NAF().to(device).eval()
    picture, patches = torch.rand(3, 512, 512, device=device), torch.randn(32, 32, 1024, device=device)
    coords = torch.randint(32, (TOKENS, 3), device=device)
    repeats = 5 if device.type == "cuda" else 1

    def view() -> Any:
        return make_view(front_camera(), patches, picture, [512], upsampler)

    guide, guide_cpu = seconds(view, device, repeats)
    made = view()

    def features() -> torch.Tensor:
        return token_features([made], 1, coords, 32, [512], dtype=torch.bfloat16)

    read, read_cpu = seconds(features, device, repeats)
    size = features().nbytes / 2**20
    print(f"NAF at 512: guide {guide:.3f} s ({guide_cpu:.1f} s of processor)")
    print(f"features of {TOKENS} tokens: {read:.3f} s ({read_cpu:.1f} s of processor), {size:.1f} MiB")
    print(f"both {guide + read:.3f} s ({guide_cpu + read_cpu:.1f} s of processor)")


@torch.no_grad()
def passes(device: torch.device) -> None:
    x, t = torch.randn(1, 8, 16, 16, 16, device=device), torch.full((1,), 700.0, device=device)
    plain_cond = torch.randn(1, 1029, 1024, device=device)
    cond = PixelTokens(torch.randn(1, 5, 1024, device=device), torch.randn(1, 4096, 1024, device=device))
    for name, seen, extra in (
        ("plain", plain_cond, {}),
        ("pixel-aligned", cond, {"image_attn_mode": "proj"}),
    ):
        with torch.device(device):
            flow = SparseStructureFlowModel(**STRUCTURE, **extra).eval()
        took = pass_seconds(flow, x, t, seen)
        print(f"structure pass, {name}: {1000 * took:.2f} ms")


def pass_seconds(flow: SparseStructureFlowModel, x: torch.Tensor, t: torch.Tensor, seen: Any) -> float:
    context = flow.prepare_cond(seen)
    for _ in range(3):
        flow(x, t, context)
    return seconds(lambda: flow(x, t, context), x.device, 20)[0]


def main() -> None:
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
    if device.type == "cuda":
        print(torch.cuda.get_device_name(), torch.__version__)
        for _ in range(2):
            naf(device)  # the first warms up
        passes(device)
    else:
        print(f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}")
        naf(device)


if __name__ == "__main__":
    main()
