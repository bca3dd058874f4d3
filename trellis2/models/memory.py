"""How much of a device's memory is left."""

from __future__ import annotations

import torch


def free_memory(device: torch.device) -> int | None:
    """Bytes that torch may still use on a CUDA device, its own idle blocks included; None elsewhere."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
