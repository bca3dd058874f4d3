"""Refines the structure that a flow made, by what each of its cells sees of the picture.

The structure's flow works on a latent of few cells, too coarse to place a thin leg. `StructureRefiner` is a
U-Net over the cells of the structure: it reads the decoder's logits and the latent, and for every cell the
picture around its projection, whether the subject covers it there, and how far before or behind the seen
surface it lies. It draws nothing at random. `trellis2_training.stages.refiner` trains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..models.sparse_structure_vae import DownsampleBlock3d, ResBlock3d, pixel_shuffle_3d
from ..nn.layers import ChannelLayerNorm32, Conv3d
from ..nn.rope import grid_coords
from .encoders.image_batch import normalize_imagenet
from .encoders.small_encoder import VitBlock
from .small_networks import load_small, save_small
from .upright import (
    GEOMETRY_CHANNELS,
    UprightCamera,
    Window,
    behind_first,
    project_upright,
    sample_crop,
    voxel_geometry,
    voxel_points,
    window_places,
)

CUBE_DIAGONAL = 1.74
"""The nearness of a point, from 0 to 1, is its distance towards the camera from the cube's middle plane, over
this, plus a half."""
_FINE = 4  # what is told of each half cell: logit, cover, and the place along the ray, by two measures
_LARGEST = 8.0  # logits beyond say no more


@dataclass(frozen=True)
class StructureRefinerConfig:
    """Shapes: channels of the maps, tokens and latents that come in; channels from fine to coarse inside."""

    maps: int = 160
    tokens: int = 192
    latent: int = 16
    grid: int = 32
    features: int = 26  # of the picture, at a cell: 72 channels with what else it is told, a multiple of 8
    widths: tuple[int, ...] = (48, 96, 192)
    heads: int = 6
    blocks: int = 2


@dataclass(frozen=True)
class Observation:
    """What is known of a batch of pictures.

    `pictures [B, 3, S, S]` in 0..1, on black; their `tokens [B, L, C]` and feature maps `[B, M, S/4, S/4]`;
    the cameras that took them, and what their crops show of the cameras' frames.
    """

    pictures: torch.Tensor
    tokens: torch.Tensor
    maps: torch.Tensor
    camera: UprightCamera
    window: Window

    def repeated(self, samples: int) -> Observation:
        """One picture's for `samples` structures, which may have a camera each."""

        def each(x: torch.Tensor) -> torch.Tensor:
            return x if len(x) == samples else x.expand(samples, *x.shape[1:])

        camera = UprightCamera(*(each(angle) for angle in vars(self.camera).values()))
        window = each(self.window[0]), each(self.window[1])
        return Observation(each(self.pictures), each(self.tokens), each(self.maps), camera, window)


class _PictureReader(nn.Module):
    """Pictures with their maps to features `[B, F, S/4, S/4]`, and `[B, 2, S/2, S/2]`: the logit that the
    subject covers a pixel, and its nearness.
    """

    def __init__(self, config: StructureRefinerConfig) -> None:
        super().__init__()
        middle = 2 * config.widths[0]
        self.first = nn.Conv2d(config.maps + 3 * 16, middle, 3, padding=1)
        self.second = nn.Sequential(nn.GELU(), nn.Conv2d(middle, middle, 3, padding=1), nn.GELU())
        self.features = nn.Conv2d(middle, config.features, 1)
        self.sheet = nn.Conv2d(middle, 4 * 2, 1)

    def forward(self, pictures: torch.Tensor, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = F.pixel_unshuffle(normalize_imagenet(pictures), 4)
        x = self.first(torch.cat([maps, pixels.to(maps.dtype)], 1))
        x = x + self.second(x)
        return self.features(x), F.pixel_shuffle(self.sheet(x), 2)


class _Mirrored(nn.Module):
    """Joins volumes with their mirror images along x and y: what is hidden often looks like what is seen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.join = Conv3d(3 * width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.join(torch.cat([x, x.flip(2), x.flip(3)], 1))
        return out


class _Upsample(nn.Module):
    """Twice as fine, and joined with the volume `skip` of that size."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.up, self.join = Conv3d(width, 8 * out, 1), Conv3d(2 * out, out, 1)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.join(torch.cat([pixel_shuffle_3d(self.up(x), 2), skip], 1))
        return out


class StructureRefiner(nn.Module):
    """Structures as they were made, and pictures, to better structures."""

    def __init__(self, config: StructureRefinerConfig) -> None:
        super().__init__()
        self.config = c = config
        fine, middle, coarse = c.widths
        self.reader = _PictureReader(c)
        self.first = Conv3d(8 * _FINE + c.features + GEOMETRY_CHANNELS + 4, fine, 3, padding=1)
        self.down_fine = nn.Sequential(ResBlock3d(fine), _Mirrored(fine))
        self.to_middle = DownsampleBlock3d(fine, middle)
        self.down_middle = nn.Sequential(ResBlock3d(middle), _Mirrored(middle))
        self.to_coarse = DownsampleBlock3d(middle, coarse)
        self.latent, self.tokens = Conv3d(c.latent, coarse, 1), nn.Linear(c.tokens, coarse)
        self.place = nn.Parameter(torch.randn((c.grid // 4) ** 3, coarse) * 0.02)
        self.whole = nn.Sequential(*(VitBlock(coarse, c.heads) for _ in range(c.blocks)))
        self.up_middle, self.of_middle = _Upsample(coarse, middle), ResBlock3d(middle)
        self.up_fine = _Upsample(middle, fine)
        self.of_fine = nn.Sequential(ResBlock3d(fine), ResBlock3d(fine))
        self.norm, self.out = ChannelLayerNorm32(fine), Conv3d(fine, 1, 3, padding=1)
        self.gain = nn.Parameter(torch.full((1,), 0.2))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(
        self, logits: torch.Tensor, latent: torch.Tensor, seen: Observation
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `[B, 1, R, R, R]` of occupied cells from the decoder's `[B, 1, 2R, 2R, 2R]` and the latent
        `[B, C, R/4, R/4, R/4]`; also what `_PictureReader` says of the pictures, for training.
        """
        features, sheet = self.reader(seen.pictures, seen.maps)
        with torch.autocast(logits.device.type, enabled=False):
            # What the sheet says is learnt from pictures alone.
            cells = self._cells(logits.float(), features.float(), sheet.detach().float(), seen)
        fine = self.down_fine(self.first(cells.contiguous(memory_format=torch.channels_last_3d)))
        middle = self.down_middle(self.to_middle(fine))
        coarse = self.to_coarse(middle) + self.latent(latent.to(cells.dtype))
        x = self.up_middle(self._around(coarse, seen.tokens), middle)
        x = self.up_fine(self.of_middle(x), fine)
        change = self.out(self.norm(self.of_fine(x), silu=True))
        made = F.max_pool3d(logits.float(), 2).clamp(-_LARGEST, _LARGEST)
        return self.gain * made + change.float(), sheet

    def _around(self, volume: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Every coarse cell after it has seen the others and the picture's tokens."""
        cells = volume.flatten(2).transpose(1, 2) + self.place
        x = torch.cat([cells, self.tokens(tokens).to(cells.dtype)], 1)
        out = self.whole(x)[:, : cells.shape[1]].transpose(1, 2).unflatten(2, volume.shape[2:])
        return out.contiguous(memory_format=torch.channels_last_3d)

    def _cells(
        self, logits: torch.Tensor, features: torch.Tensor, sheet: torch.Tensor, seen: Observation
    ) -> torch.Tensor:
        """What each cell is told `[B, K, R, R, R]`."""
        side, batch = self.config.grid, len(logits)
        coords = grid_coords(side, logits.device).expand(batch, -1, -1)
        places, geometry = voxel_geometry(coords, side, seen.camera, seen.window)
        depth = project_upright(voxel_points(coords, side), seen.camera)[1]
        occupied = F.max_pool3d(logits, 2).flatten(1) > 0
        behind = (behind_first(places, depth, occupied) * side).clamp(-_LARGEST, _LARGEST)
        hidden = torch.cat([behind / _LARGEST, torch.exp(-behind.abs())], -1)
        rows = torch.cat([sample_crop(features, places), geometry, hidden], -1)
        volume = rows.transpose(1, 2).unflatten(2, (side, side, side))
        fine = self._half_cells(logits, sheet, seen)
        return torch.cat([volume, fine], 1)

    def _half_cells(self, logits: torch.Tensor, sheet: torch.Tensor, seen: Observation) -> torch.Tensor:
        """What each half cell is told, as channels of its cell `[B, 8 * 4, R, R, R]`."""
        side, batch = 2 * self.config.grid, len(logits)
        coords = grid_coords(side, logits.device).expand(batch, -1, -1)
        plane, depth = project_upright(voxel_points(coords, side), seen.camera)
        told = torch.cat([sheet[:, :1].sigmoid(), sheet[:, 1:]], 1)
        read = sample_crop(told, window_places(plane, seen.window))
        away = seen.camera.axes()[0].norm(dim=-1)[:, None] - depth
        before = (away - (read[..., 1] - 0.5) * CUBE_DIAGONAL) * self.config.grid  # in cells, of the surface
        rows = torch.stack([read[..., 0], torch.tanh(before / 4), torch.exp(-before.square() / 2)], 1)
        volume = rows.unflatten(2, (side, side, side))
        return _by_cell(torch.cat([logits.clamp(-_LARGEST, _LARGEST) / 4, volume], 1))


def as_many_cells(refined: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Refined logits `[B, 1, R, R, R]`, each item's moved until as many cells are positive as the decoder's
    `[B, 1, 2R, 2R, 2R]` occupy: where a camera misleads, all refined logits sink, but their order holds.
    """
    counts = (F.max_pool3d(logits, 2) > 0).flatten(1).sum(1)
    ranked = refined.flatten(1).sort(descending=True).values
    first_empty = ranked.gather(1, counts.clamp(max=ranked.shape[1] - 1)[:, None])
    return refined - first_empty[:, :, None, None, None]


def _by_cell(fine: torch.Tensor) -> torch.Tensor:
    """`[B, C, 2R, 2R, 2R]` to `[B, 8 C, R, R, R]`."""
    x = fine.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # [B, C, R, 2, R, 2, R, 2]
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def load_structure_refiner(stem: Path) -> StructureRefiner:
    """The network stored at `<stem>.json` and `<stem>.safetensors`. Raises `CheckpointError`."""
    refiner = load_small(stem, "structure refiner", StructureRefiner, StructureRefinerConfig)
    return refiner.float().eval().requires_grad_(False)


def save_structure_refiner(refiner: StructureRefiner, stem: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write `<stem>.json` and `<stem>.safetensors` with the weights in `dtype`."""
    save_small(refiner, stem, "StructureRefiner", refiner.config, dtype)
