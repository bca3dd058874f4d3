"""Background removal with the small network of the bundled weights, whose matte seeds GrabCut.

The network is a U-Net (Ronneberger, Fischer and Brox, 2015) with attention where it is coarsest, for what
only the whole picture tells: which of all things is the subject. It sees the picture at a size of its own;
where it is not sure, GrabCut decides by the colours of what it is sure of, at a finer size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from ..encoders.image_batch import image_batch, normalize_imagenet
from ..small_networks import load_small, save_small
from .grabcut import Floats, GrabCutMatting, Mask, fill_small_holes, grabcut, soften, working_picture

SURE = (0.01, 0.99)  # mattes below and above are sure: GrabCut does not touch them
UNSURE = (0.1, 0.9)  # mattes between are not sure at all
DOUBT = 0.7  # unsure pixels in areas of the subject: with more the network knows no such picture
GUESS = 0.35  # with more a cut is a guess


@dataclass(frozen=True)
class SmallMattingConfig:
    """Shape of the network: side of the picture that it sees, and channels from fine to coarse."""

    image_size: int = 256
    widths: tuple[int, ...] = (16, 32, 64, 96, 128)
    heads: int = 4


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()
    )


class SmallMattingNet(nn.Module):
    """Pictures `[B, 3, S, S]` in 0..1 to logits of the matte `[B, 1, S, S]`."""

    def __init__(self, config: SmallMattingConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.first = _convolution(3, widths[0])
        self.down = nn.ModuleList(_convolution(a, b, 2) for a, b in pairwise(widths))
        self.each = nn.ModuleList(_convolution(b, b) for b in widths[1:])
        self.whole = nn.TransformerEncoderLayer(
            widths[-1], config.heads, 2 * widths[-1], 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.place = nn.Parameter(torch.zeros(widths[-1], *(config.image_size >> (len(widths) - 1),) * 2))
        narrow = list(pairwise(reversed(widths)))
        self.join = nn.ModuleList(nn.Conv2d(a + b, b, 1) for a, b in narrow)
        self.up = nn.ModuleList(_convolution(b, b) for _, b in narrow)
        self.out = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(normalize_imagenet(images))
        fine = []
        for down, each in zip(self.down, self.each, strict=True):
            fine.append(x)
            x = down(x)
            x = x + each(x)
        tokens = self.whole((x + self.place).flatten(2).transpose(1, 2))
        x = x + tokens.transpose(1, 2).unflatten(2, x.shape[2:])
        for join, up, skipped in zip(self.join, self.up, reversed(fine), strict=True):
            x = F.interpolate(x, skipped.shape[2:], mode="bilinear", align_corners=False)
            x = join(torch.cat([x, skipped], 1))
            x = x + up(x)
        logits: torch.Tensor = self.out(x)
        return logits


class SmallMatting:
    """RGB picture in, the same picture with a matte as RGBA out. Needs OpenCV; runs on the CPU, too.

    Where the network is at a loss, as in most photos of what its world lacks, GrabCut cuts without it.

    `model_name` is the stem of `<stem>.json` and `<stem>.safetensors`. Raises `CheckpointError` for missing
    or damaged files.
    """

    subjects = "largest"
    """What is kept of several subjects unless told otherwise: simple mattes often find clutter, too."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name
        self.model = load_small_matting(Path(model_name)).float().eval().requires_grad_(False)
        self.without_network = GrabCutMatting()

    def __call__(self, image: Image.Image) -> Image.Image:
        """The picture with its matte."""
        image = image.convert("RGB")
        pixels, matte = np.asarray(image), self.coarse(image)
        if doubt(matte) > DOUBT:
            return self.without_network(image)
        alpha = soften(pixels, silhouette(pixels, matte))
        image.putalpha(Image.fromarray(np.rint(alpha * 255).astype(np.uint8)))
        return image

    @torch.no_grad()
    def coarse(self, image: Image.Image) -> Floats:
        """The matte `[S, S]` at the network's own size."""
        size = self.model.config.image_size
        device = next(self.model.parameters()).device
        matte = self.model(image_batch([image.convert("RGB")], size).to(device)).sigmoid()[0, 0]
        return np.asarray(matte.float().cpu().numpy(), dtype=np.float32)

    def certain(self, image: Image.Image) -> bool:
        """Whether network or GrabCut, whichever cuts, is sure of what it does; else a cut is a guess."""
        doubtful = doubt(self.coarse(image))
        return doubtful <= GUESS or (doubtful > DOUBT and self.without_network.certain(image))

    def to(self, device: torch.device | str) -> SmallMatting:
        self.model.to(device)
        return self

    def cuda(self) -> SmallMatting:
        return self.to("cuda")

    def cpu(self) -> SmallMatting:
        return self.to("cpu")


def doubt(matte: Floats) -> float:
    """Pixels that a matte is not sure of, in areas of what it takes for the subject; infinite for nothing."""
    unsure, found = ((matte > UNSURE[0]) & (matte < UNSURE[1])).sum(), (matte > 0.5).sum()
    return float(unsure / found) if found else math.inf


def silhouette(pixels: npt.NDArray[np.uint8], matte: Floats) -> Mask:
    """The subject `[H, W]` of a picture `[H, W, 3]` whose small matte is known: GrabCut at working size."""
    import cv2

    height, width = pixels.shape[:2]
    small = working_picture(pixels)
    likely = cv2.resize(matte, small.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    mask = likely > 0.5
    seed = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    seed[likely < SURE[0]], seed[likely > SURE[1]] = cv2.GC_BGD, cv2.GC_FGD
    if mask.any() and not mask.all():  # GrabCut learns two sets of colours: it needs some pixels of each
        labels = grabcut(small, seed)
        mask = fill_small_holes((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))
    return cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5


def load_small_matting(stem: Path) -> SmallMattingNet:
    """The network stored at `<stem>.json` and `<stem>.safetensors`. Raises `CheckpointError`."""
    return load_small(stem, "matting network", SmallMattingNet, SmallMattingConfig)


def save_small_matting(model: SmallMattingNet, stem: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write `<stem>.json` and `<stem>.safetensors` with the weights in `dtype`."""
    save_small(model, stem, "SmallMatting", model.config, dtype)
