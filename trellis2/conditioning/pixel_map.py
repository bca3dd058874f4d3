"""What the bundled weights read of a picture beside its tokens: a fine feature map, and its camera.

`PixelMap` joins image tokens with the detail of a convolutional stem, in the place of an upsampler such as
NAF; `CameraHead` reads yaw, pitch, field of view and the crop's window from the tokens. They are small, and
trained with the flows that read them (`trellis2_training.stages.aligned`, `structure`). `PixelSource` holds
them, and the network of base colours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..nn.rope import grid_coords
from .colors.base_color import BaseColorNet
from .encoders.image_batch import normalize_imagenet
from .encoders.small_encoder import SmallVitConfig, VitBlock
from .small_networks import Residual, convolution, load_small, save_small
from .upright import GEOMETRY_CHANNELS, UprightCamera, Window, cell_places, sample_crop, voxel_geometry

# Middle and half of the range of yaw, pitch and field of view, in radians; of the window's centre (right, up)
# and half size, in units of the frame.
_CENTRE = (0.0, 0.436, 0.611, 0.0, 0.0, 0.45)
_SPREAD = (1.0472, 0.436, 0.262, 0.2, 0.2, 0.2)
_CELL_POINTS = 2  # along each side of a structure cell: where it reads the map


@dataclass(frozen=True)
class PixelMapConfig:
    """Shapes: of the pictures and tokens that come in, and the channels of the map (`out`) and inside.

    `structure` are the channels of a second map, which the structure's flow reads; 0: there is none.
    `camera` is the number of the camera head's attention blocks.
    `base_color` are the widths of the network that takes the light out of the picture; none: there is none.
    """

    image_size: int = 256
    tokens: int = 192
    stem: tuple[int, int, int] = (32, 64, 128)
    middle: int = 96
    out: int = 128
    structure: int = 0
    camera: int = 0
    base_color: tuple[int, ...] = ()

    @classmethod
    def beside(
        cls,
        encoder: SmallVitConfig,
        middle: int = 96,
        out: int = 128,
        structure: int = 0,
        camera: int = 0,
        base_color: tuple[int, ...] = (),
    ) -> PixelMapConfig:
        """For the pictures and tokens of an image encoder."""
        c = encoder
        return cls(c.image_size, c.width, c.stem, middle, out, structure, camera, base_color)

    @property
    def features(self) -> int:
        """Channels of what a voxel reads: the map's and the geometry's."""
        return self.out + GEOMETRY_CHANNELS

    @property
    def cell_features(self) -> int:
        """Channels of what a cell of the structure's latent reads: at several points, and the geometry's."""
        return _CELL_POINTS**3 * self.structure + GEOMETRY_CHANNELS

    def of_structure(self) -> PixelMapConfig:
        """Of the second map."""
        return replace(self, out=self.structure, structure=0, base_color=())


class PixelMap(nn.Module):
    """Pictures `[B, 3, S, S]` in 0..1 and their tokens `[B, 1 + (S/16)^2, C]` to maps `[B, out, S/4, S/4]`.

    Levels at S/16 (tokens), S/8 and S/4 (stem) are joined from coarse to fine; the finest also sees the
    pixels themselves.
    """

    def __init__(self, config: PixelMapConfig) -> None:
        super().__init__()
        self.config = c = config
        a, b, d = c.stem
        self.stem = nn.ModuleList(nn.Sequential(*convolution(i, o, 2)) for i, o in ((3, a), (a, b), (b, d)))
        self.tokens = nn.Conv2d(c.tokens, c.middle, 1)
        self.eighth = nn.Conv2d(d, c.middle, 1)
        self.quarter = nn.Conv2d(b + 4 * a + 3 * 16, c.middle, 1)
        self.coarse, self.fine = Residual(c.middle), nn.Sequential(Residual(c.middle), Residual(c.middle))
        self.out = nn.Conv2d(c.middle, c.out, 1)

    def forward(self, pictures: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        pixels = normalize_imagenet(pictures)
        levels = [pixels]
        for layer in self.stem:
            levels.append(layer(levels[-1]))
        side = self.config.image_size // 16
        x = self.tokens(tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side)))
        x = self.coarse(F.interpolate(x, scale_factor=2) + self.eighth(levels[3]))
        detail = [levels[2], F.pixel_unshuffle(levels[1], 2), F.pixel_unshuffle(pixels, 4)]
        x = F.interpolate(x, scale_factor=2) + self.quarter(torch.cat([d.to(x.dtype) for d in detail], 1))
        out: torch.Tensor = self.out(F.gelu(self.fine(x)))
        return out


class CameraHead(nn.Module):
    """Image tokens `[B, L, C]` to the camera that took the picture, and the window of its frame that the
    crop shows. `blocks` of self-attention come first; fresh ones hand the tokens on as they are.
    """

    def __init__(self, width: int, blocks: int = 0) -> None:
        super().__init__()
        made = [VitBlock(width, width // 32) for _ in range(blocks)]
        self.blocks = nn.Sequential(*made)
        for block in made:
            for parameter in (*block.out.parameters(), *block.mlp[-1].parameters()):
                nn.init.zeros_(parameter)
        self.each = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width + 4))
        self.out = nn.Sequential(nn.Linear(5 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, 6))

    def normalised(self, tokens: torch.Tensor) -> torch.Tensor:
        """Yaw, pitch, field of view, the window's centre and half size `[B, 6]`, each about -1..1 over its
        range in training.
        """
        tokens = self.blocks(tokens)
        made = self.each(tokens)
        values, scores = made[..., :-4], made[..., -4:].softmax(1)  # four attentions over the tokens
        pooled = torch.cat([(scores.transpose(1, 2) @ values).flatten(1), tokens[:, 0].to(values.dtype)], 1)
        out: torch.Tensor = self.out(pooled)
        return out

    def forward(self, tokens: torch.Tensor) -> tuple[UprightCamera, Window]:
        return framing(self.normalised(tokens).float())


def framing(normalised: torch.Tensor) -> tuple[UprightCamera, Window]:
    """Camera and window of what `CameraHead.normalised` says."""
    # Beyond what was seen in training is a guess gone wrong, not a camera.
    n = normalised.clamp(-1.2, 1.2)
    numbers = n * n.new_tensor(_SPREAD) + n.new_tensor(_CENTRE)
    yaw, pitch, fov, right, up, half = numbers.unbind(1)
    return UprightCamera(yaw, pitch, fov), (torch.stack([right, up], 1), half)


def framing_targets(camera: UprightCamera, window: Window) -> torch.Tensor:
    """What `CameraHead.normalised` should say of cameras and windows: `[B, 6]`."""
    numbers = torch.stack([camera.yaw, camera.pitch, camera.fov, *window[0].unbind(1), window[1]], 1)
    return (numbers - numbers.new_tensor(_CENTRE)) / numbers.new_tensor(_SPREAD)


def voxel_features(
    maps: torch.Tensor, coords: torch.Tensor, resolution: int, camera: UprightCamera
) -> torch.Tensor:
    """What voxels `coords [B, L, 3]` of a `resolution`^3 grid see in maps `[B, C, H, W]`: `[B, L, C + 10]`,
    the last of them their geometry.
    """
    places, geometry = voxel_geometry(coords, resolution, camera)
    read = sample_crop(maps.float(), places)
    return torch.cat([read, geometry], -1)


def cell_geometry(cells: int, camera: UprightCamera, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the points of cells of a `cells`^3 grid, x slowest, lie in crops that show `window`,
    `[B, cells^3, 8, 2]`, and what the camera tells of the cells, `[B, cells^3, GEOMETRY_CHANNELS]`.
    """
    coords = grid_coords(cells, camera.yaw.device).expand(len(camera.yaw), -1, -1)
    geometry = voxel_geometry(coords, cells, camera, window)[1]
    return cell_places(cells, _CELL_POINTS, camera, window), geometry


def cell_reading(maps: torch.Tensor, places: torch.Tensor, geometry: torch.Tensor) -> torch.Tensor:
    """What cells see in maps `[B, C, H, W]`: `[B, cells^3, 8 C + 10]`, the last of them their geometry."""
    read = sample_crop(maps.float(), places.flatten(1, 2)).unflatten(1, places.shape[1:3])
    return torch.cat([read.flatten(2), geometry], -1)


class PixelSource(nn.Module):
    """The networks, as a package holds them; `structure` is the second map and `base_color` the network of
    base colours, if there are any.
    """

    def __init__(self, config: PixelMapConfig) -> None:
        super().__init__()
        self.config = config
        self.map, self.camera = PixelMap(config), CameraHead(config.tokens, config.camera)
        self.structure = PixelMap(config.of_structure()) if config.structure else None
        self.base_color = BaseColorNet(config.base_color, config.tokens) if config.base_color else None


def load_pixel_source(stem: Path) -> PixelSource:
    """The networks stored at `<stem>.json` and `<stem>.safetensors`. Raises `CheckpointError`."""
    source = load_small(stem, "pixel map", PixelSource, PixelMapConfig)
    return source.float().eval().requires_grad_(False)


def save_pixel_source(source: PixelSource, stem: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write `<stem>.json` and `<stem>.safetensors` with the weights in `dtype`."""
    save_small(source, stem, "PixelSource", source.config, dtype)
