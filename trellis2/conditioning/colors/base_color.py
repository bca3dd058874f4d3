"""The base colours that a picture shows: the picture with its light taken out.

What a network says is a gain and an offset for every pixel, not a colour: the picture's own detail stays as
sharp as it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from ..encoders.image_batch import normalize_imagenet
from ..small_networks import Residual, convolution

_MOST_GAIN = 2.0  # of the logarithm: what is seven times darker than its colour tells too little of it


class BaseColorNet(nn.Module):
    """Pictures `[B, 3, S, S]` in 0..1, on black, and their image tokens `[B, 1 + (S/16)^2, C]` to base
    colours `[B, 3, S, S]`, nominally in 0..1; outside the object they mean nothing.

    A U-Net (Ronneberger, Fischer and Brox, 2015) of five levels with `widths` channels, which reads the
    tokens at the coarsest: they know light and materials of the whole picture.
    """

    def __init__(self, widths: Sequence[int], tokens: int) -> None:
        super().__init__()
        if len(widths) != 5:
            raise ValueError(f"tokens lie at a sixteenth of the picture: five widths, not {len(widths)}")
        self.first = nn.Sequential(*convolution(3, widths[0]))
        self.down = nn.ModuleList(
            nn.Sequential(*convolution(a, b, 2), Residual(b)) for a, b in pairwise(widths)
        )
        self.tokens = nn.Conv2d(tokens, widths[-1], 1)
        self.middle = Residual(widths[-1])
        narrow = list(pairwise(reversed(widths)))
        self.join = nn.ModuleList(nn.Conv2d(a + b, b, 1) for a, b in narrow)
        self.up = nn.ModuleList(Residual(b) for _, b in narrow)
        self.out = nn.Conv2d(widths[0], 6, 3, 1, 1)
        for parameter in self.out.parameters():  # at first the picture itself
            nn.init.zeros_(parameter)

    def forward(self, pictures: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        x = self.first(normalize_imagenet(pictures))
        fine = []
        for down in self.down:
            fine.append(x)
            x = down(x)
        x = self.middle(x + self.tokens(tokens[:, 1:].transpose(1, 2).unflatten(2, x.shape[2:])))
        for join, up, skipped in zip(self.join, self.up, reversed(fine), strict=True):
            x = F.interpolate(x, skipped.shape[2:], mode="bilinear", align_corners=False)
            x = up(join(torch.cat([x, skipped], 1)))
        gain, offset = self.out(F.gelu(x)).float().chunk(2, 1)
        colours: torch.Tensor = pictures * (_MOST_GAIN * torch.tanh(gain)).exp() + offset
        return colours
