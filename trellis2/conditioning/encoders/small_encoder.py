"""The small image encoder of the bundled weights: a convolutional stem and a small vision transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from ..small_networks import load_small, save_small
from .image_batch import image_batch, normalize_imagenet, normalize_tokens


@dataclass(frozen=True)
class SmallVitConfig:
    """Shape of the network; the stem halves the picture four times, so patches are 16 pixels."""

    image_size: int = 256
    width: int = 192
    blocks: int = 6
    heads: int = 6
    stem: tuple[int, int, int] = (32, 64, 128)

    @property
    def patches(self) -> int:
        """Patches along one side."""
        return self.image_size // 16


class VitBlock(nn.Module):
    """Self-attention and an MLP on tokens `[B, L, C]`, each after a norm and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


class SmallVit(nn.Module):
    """Pictures `[B, 3, S, S]` in 0..1 to tokens `[B, 1 + (S/16)^2, C]`: a summary token, then patches row by
    row.
    """

    def __init__(self, config: SmallVitConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        widths = (3, *config.stem, config.width)
        for i, (a, b) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(a, b, 3, stride=2, padding=1))
            if i < len(widths) - 2:
                layers += [nn.GroupNorm(8, b), nn.GELU()]
        self.stem = nn.Sequential(*layers)
        self.summary = nn.Parameter(torch.zeros(config.width))
        self.position = nn.Parameter(torch.randn(config.patches**2, config.width) * 0.02)
        self.blocks = nn.ModuleList(VitBlock(config.width, config.heads) for _ in range(config.blocks))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.stem(normalize_imagenet(images)).flatten(2).transpose(1, 2) + self.position
        tokens = torch.cat([self.summary.expand(len(patches), 1, -1).to(patches.dtype), patches], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return normalize_tokens(tokens.float())


class SmallImageEncoder:
    """Image tokens float32 `[B, 257, 192]`, with the interface of the DINO encoders.

    `model_name` is the stem of `<stem>.json` and `<stem>.safetensors`. The network has one picture size of
    its own;
    whatever `image_size` asks for, pictures are resized to that. Raises `CheckpointError` for missing or
    damaged files.
    """

    def __init__(self, model_name: str, image_size: int = 256) -> None:
        self.model_name = model_name
        self.image_size = image_size
        self.model = load_small_vit(Path(model_name)).float().eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(
        self, image: torch.Tensor | Sequence[Image.Image], image_size: int | None = None
    ) -> torch.Tensor:
        """Tokens `[B, L, C]` of pictures, or of a tensor `[B, 3, H, W]` in 0..1."""
        size = self.model.config.image_size
        batch = image_batch(image, size).to(self.device)
        if batch.shape[-2:] != (size, size):
            batch = F.interpolate(batch, (size, size), mode="bilinear", antialias=True, align_corners=False)
        tokens: torch.Tensor = self.model(batch)
        return tokens

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> SmallImageEncoder:
        self.model.to(device)
        return self

    def cuda(self) -> SmallImageEncoder:
        return self.to("cuda")

    def cpu(self) -> SmallImageEncoder:
        return self.to("cpu")


def load_small_vit(stem: Path) -> SmallVit:
    """The network stored at `<stem>.json` and `<stem>.safetensors`. Raises `CheckpointError`."""
    return load_small(stem, "small image encoder", SmallVit, SmallVitConfig)


def save_small_vit(model: SmallVit, stem: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write `<stem>.json` and `<stem>.safetensors` with the weights in `dtype`."""
    save_small(model, stem, "SmallImageEncoder", model.config, dtype)
