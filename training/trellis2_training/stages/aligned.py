"""The texture flow's training, pixel-aligned: each voxel reads the picture where the camera shows it.

In training the camera is the true one, moved by what the camera head may be wrong about; the crop's window is
found from the voxels, as in the pipeline. The pixel map and the camera head learn along with the flow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trellis2.conditioning.pixel_map import camera_targets, voxel_features
from trellis2.conditioning.upright import UprightCamera
from trellis2.nn.tokens import PixelTokens
from trellis2.pipelines.latents import LATENT_STRIDE

from ..config import MiniConfig
from ..data import render as rd
from ..data.batches import TableBank, as_photographed, view_batch
from ..runtime import Runtime
from .latents import LatentSet
from .slat_flows import StructuredLatentFlow

_MAPS = 9  # base colour 3, metallic, roughness, normal 3, mask
_JITTER = (6.0, 4.0, 5.0)  # most spread of yaw, pitch and field of view, in degrees
_DROPPED = 0.1  # of the conditions


@dataclass
class Views:
    """Pictures with all that is known of them; on a device, pictures and maps as bytes."""

    tokens: Tensor  # [B, L, C] float16
    pictures: Tensor  # [B, 3, S, S] uint8
    maps: Tensor  # [B, 9, S/2, S/2] uint8
    angles: Tensor  # [B, 3] yaw, pitch, field of view in radians

    def camera(self) -> UprightCamera:
        return UprightCamera(*self.angles.unbind(1))

    def __getitem__(self, rows: Tensor) -> Views:
        return Views(*(values[rows] for values in vars(self).values()))

    def __setitem__(self, rows: Tensor, other: Views) -> None:
        for name, values in vars(self).items():
            values[rows] = getattr(other, name)


@torch.no_grad()
def see(bank: TableBank, tables: Tensor, encoder: nn.Module, size: int, runtime: Runtime) -> Views:
    """One random view of each object, as photographed."""
    with torch.autocast(runtime.device.type, enabled=False):
        view, picture = view_batch(bank, tables, size)
        pixels = (as_photographed(picture, bank.generator) * 255).round()
    with runtime.autocast():
        tokens = encoder(pixels / 255).half()
    camera = rd.upright_camera(view)
    maps = [picture.attributes[:, :5], picture.normal * 0.5 + 0.5, picture.mask]
    small = F.avg_pool2d(torch.cat(maps, 1) * picture.mask, 2)
    small = torch.cat([small[:, :-1] / small[:, -1:].clamp(min=1e-3), small[:, -1:]], 1).clamp(0, 1)
    angles = torch.stack([camera.yaw, camera.pitch, camera.fov], 1)
    return Views(tokens, pixels.byte(), (small * 255).round().byte(), angles)


class PixelHead(nn.Module):
    """Materials, normals, mask `[B, 9, 2P, 2P]` from the pixel map `[B, C, P, P]`; only used in training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, 4 * _MAPS, 1)
        )

    def forward(self, maps: Tensor) -> Tensor:
        return F.pixel_shuffle(self.out(maps), 2)


def map_terms(predicted: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Mean errors where the object is, and of where it is, for maps `[B, 9, P, P]` of values in 0..1."""
    predicted, mask = predicted.float(), truth[:, -1:]
    gap = (predicted[:, :-1] - truth[:, :-1]).abs() * mask / mask.sum().clamp(min=1)
    base, material, normal = (part.sum() / part.shape[1] for part in gap.split((3, 2, 3), 1))
    return {
        "base_color": base,
        "material": 0.3 * material,
        "normal": 0.5 * normal,
        "mask": 0.1 * F.binary_cross_entropy_with_logits(predicted[:, -1:], mask),
    }


class AlignedTextureFlow(StructuredLatentFlow):
    """The texture flow with the pixel map that it reads and the camera head that it will need.

    Every object has a few pictures at a time; every few steps some of them give way to new ones.
    """

    name = "tex_flow"

    def __init__(
        self,
        config: MiniConfig,
        latents: LatentSet,
        statistics: dict[str, Tensor],
        encoder: nn.Module,
        runtime: Runtime,
        views: int = 4,
        budget: int = 48_000,
        seed: int = 0,
        every: int = 4,
        batch: int = 64,
    ) -> None:
        super().__init__(config, latents, statistics, runtime, True, budget, seed)
        self.encoder, self.every, self.views, self.steps = encoder, every, views, 0
        self.size, self.grid = config.encoder.image_size, config.resolution // LATENT_STRIDE
        self.source = TableBank(latents.tables, runtime.device, seed * 811 + 17 + runtime.rank)
        self.pixel_map: Any = config.build("pixel_map")
        stem: Any = encoder.stem
        for i, layer in enumerate(self.pixel_map.stem):
            for mine, its in zip(layer.parameters(), stem[3 * i : 3 * i + 3].parameters(), strict=True):
                mine.data.copy_(its)
        self.camera_head: Any = config.build("camera_head")
        self.pixel_head = PixelHead(config.pixel_map.out)
        self.networks |= {
            "pixel_map": self.pixel_map,
            "camera_head": self.camera_head,
            "pixel_head": self.pixel_head,
        }
        # Pictures come in as many batch sizes as there are shelves: trying kernels for each costs too much.
        torch.backends.cudnn.benchmark = False
        everyone = torch.arange(len(latents)).repeat(views)  # view v of object i is row v * N + i
        made = [self._see(rows) for rows in everyone.split(batch)]
        self.seen = Views(
            *(torch.cat(column) for column in zip(*(vars(m).values() for m in made), strict=True))
        )
        self.fresh = min(batch, len(everyone))

    def _see(self, objects: Tensor) -> Views:
        tables = self.source.tables[objects.to(self.runtime.device)]
        return see(self.source, tables, self.encoder, self.size, self.runtime)

    def losses(self, progress: float) -> dict[str, Tensor]:
        self.steps += 1
        if self.steps % self.every == 0:
            rows = torch.randperm(len(self.latents) * self.views, generator=self.generator)[: self.fresh]
            self.seen[rows.to(self.runtime.device)] = self._see(rows % len(self.latents))
        return super().losses(progress)

    def condition(self, chosen: Tensor, coords: Tensor) -> tuple[Any, dict[str, Tensor]]:
        view = torch.randint(self.views, (len(chosen),), generator=self.generator).to(chosen.device)
        views = self.seen[view * len(self.latents) + chosen]
        tokens, truth, camera = views.tokens.float(), views.maps.float() / 255, views.camera()
        maps = self.pixel_map(views.pictures.float() / 255, tokens)
        angles, targets = self.camera_head.normalised(tokens).float(), camera_targets(camera)
        features = voxel_features(maps, coords, self.grid, jittered(camera))
        keep = (torch.rand(len(chosen), 1, 1, device=chosen.device) >= _DROPPED).float()
        condition = PixelTokens(tokens * keep, (features * keep).flatten(0, 1))
        gap = (angles - targets).abs()
        terms = {"camera": 0.5 * gap.mean(), "_yaw_degrees": 60 * gap[:, 0].detach().mean()}
        return condition, {**map_terms(self.pixel_head(maps), truth), **terms}


def jittered(camera: UprightCamera) -> UprightCamera:
    """Cameras off by up to what the camera head may be: some hardly, some a lot."""
    spread = camera.yaw.new_tensor([math.radians(j) for j in _JITTER])
    noise = torch.randn(len(camera.yaw), 3, device=camera.yaw.device)
    off = noise * spread * torch.rand(len(noise), 1, device=noise.device)
    return camera.moved(*off.unbind(1))
