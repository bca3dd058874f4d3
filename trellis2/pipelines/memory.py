"""How many tokens fit: the cascade lowers its resolution before the device runs out of memory."""

from __future__ import annotations

from collections.abc import Callable

import torch

MemoryProbe = Callable[[torch.device], int | None]

TOKEN_BYTES = 400_000
"""Of a token in the largest stage, decoding: 235 kB measured on an H100 (2.1 GB at 3,012 tokens, 4.3 GB at
12,376), the rest is room for the mesh and for objects whose tokens have more voxels than that one's."""

LOADED_BYTES = 1_000_000_000
"""Beside the tokens with all weights on the device: image tokens' keys and values, workspaces."""

STAGED_BYTES = 3_500_000_000
"""The same in low-VRAM mode, where the largest flow (2.6 GB in bfloat16) is still to be brought in."""


def fitting_tokens(max_num_tokens: int, free: int | None, low_vram: bool) -> int:
    """The token limit asked for, or the lower one that `free` bytes allow (None: no limit), at least 1."""
    if free is None:
        return max_num_tokens
    beside = STAGED_BYTES if low_vram else LOADED_BYTES
    return min(max_num_tokens, max(1, (free - beside) // TOKEN_BYTES))
