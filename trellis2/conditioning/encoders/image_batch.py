"""What every image encoder does before and after its network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from ...errors import InvalidImageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def image_batch(images: torch.Tensor | Sequence[Image.Image], size: int) -> torch.Tensor:
    """Pictures as float32 `[B, 3, size, size]` in 0..1; a tensor `[B, 3, H, W]` in 0..1 is used as it is."""
    if isinstance(images, torch.Tensor):
        if images.ndim != 4 or images.shape[1] != 3:
            raise InvalidImageError(f"image tensors must be [B, 3, H, W], got {list(images.shape)}")
        return images.float()
    if not images:
        raise InvalidImageError("an image encoder needs at least one image, got an empty list")
    resized = [image.resize((size, size), Image.Resampling.LANCZOS).convert("RGB") for image in images]
    pixels = np.stack([np.asarray(image) for image in resized]).astype(np.float32) / 255
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()  # [B, 3, S, S]


def view_tensor(image: Image.Image, size: int) -> torch.Tensor:
    """A posed view (RGBA) on black, float32 `[3, size, size]` in 0..1: resized, then times its matte."""
    pixels = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)).astype(np.float32) / 255
    return torch.from_numpy(pixels[:, :, :3] * pixels[:, :, 3:]).permute(2, 0, 1).contiguous()


def normalize_imagenet(batch: torch.Tensor) -> torch.Tensor:
    """Subtract ImageNet's mean colour and divide by its spread."""
    mean, std = _statistics(batch.device)
    return (batch - mean) / std


@lru_cache(maxsize=16)
def _statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Kept on the device: a CUDA graph cannot record copies to it."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(x, device=device) for x in (IMAGENET_MEAN, IMAGENET_STD))
        return mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)


def normalize_tokens(tokens: torch.Tensor) -> torch.Tensor:
    """Layer norm over channels without parameters (eps 1e-5)."""
    return torch.nn.functional.layer_norm(tokens, tokens.shape[-1:])
