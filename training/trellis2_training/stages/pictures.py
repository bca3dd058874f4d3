"""Pictures of objects with all that is known of them, kept on the device, and what flows read in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trellis2.conditioning.pixel_map import CameraHead, PixelMap, framing, framing_targets
from trellis2.conditioning.structure_refiner import CUBE_DIAGONAL
from trellis2.conditioning.upright import UprightCamera, Window

from .. import world
from ..config import MiniConfig
from ..data import render as rd
from ..data.batches import TableBank, as_photographed, view_batch
from ..runtime import Runtime
from .latents import LatentSet

_MAPS = 10  # base colour 3, metallic, roughness, normal 3, nearness, mask
_JITTER = (6.0, 4.0, 5.0)  # most spread of yaw, pitch and field of view, in degrees
_WINDOW_JITTER = 0.04  # the same of the window, in half sides of it
_QUARTER = math.pi / 2


@dataclass
class Views:
    """Pictures; on a device, pictures and maps as bytes."""

    tokens: Tensor  # [B, L, C] float16
    pictures: Tensor  # [B, 3, S, S] uint8
    maps: Tensor  # [B, 10, S/2, S/2] uint8
    angles: Tensor  # [B, 3] yaw, pitch, field of view in radians
    windows: Tensor  # [B, 3] centre and half size of the crop, in units of the frame
    symmetric: Tensor  # [B] bool: no picture tells the yaw

    def camera(self) -> UprightCamera:
        return UprightCamera(*self.angles.unbind(1))

    def window(self) -> Window:
        return self.windows[:, :2], self.windows[:, 2]

    def __getitem__(self, rows: Tensor | slice) -> Self:
        return type(self)(*(values[rows] for values in vars(self).values()))

    def __setitem__(self, rows: Tensor | slice, other: Views) -> None:
        for name, values in vars(self).items():
            values[rows] = getattr(other, name)

    @staticmethod
    def joined(parts: list[Views]) -> Views:
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return Views(*(torch.cat(column) for column in columns))


@torch.no_grad()
def see(bank: TableBank, tables: Tensor, encoder: nn.Module, size: int, runtime: Runtime) -> Views:
    """One random view of each object, as photographed."""
    with torch.autocast(runtime.device.type, enabled=False):
        view, picture = view_batch(bank, tables, size)
        pixels = (as_photographed(picture, bank.generator) * 255).round()
        symmetric = world.is_symmetric(tables)
    with runtime.autocast():
        tokens = encoder(pixels / 255).half()
    camera = rd.upright_camera(view)
    # In the camera's frame: what a picture tells of an object that may stand any way.
    away = -view.forward
    normal = torch.einsum("bij,bjhw->bihw", torch.stack([view.right, view.up, away], 1), picture.normal)
    nearness = torch.einsum("bj,bjhw->bhw", away, picture.position)[:, None] / CUBE_DIAGONAL
    maps = [picture.attributes[:, :5], normal * 0.5 + 0.5, nearness + 0.5, picture.mask]
    small = F.avg_pool2d(torch.cat(maps, 1) * picture.mask, 2)
    small = torch.cat([small[:, :-1] / small[:, -1:].clamp(min=1e-3), small[:, -1:]], 1).clamp(0, 1)
    angles = torch.stack([camera.yaw, camera.pitch, camera.fov], 1)
    windows = torch.cat([view.centre, view.half[:, None]], 1)
    return Views(tokens, pixels.byte(), (small * 255).round().byte(), angles, windows, symmetric)


class Pictures:
    """A few pictures of every object of a latent set; now and then some of them give way to new ones."""

    def __init__(
        self,
        config: MiniConfig,
        latents: LatentSet,
        encoder: nn.Module,
        runtime: Runtime,
        views: int,
        batch: int,
        seed: int,
    ) -> None:
        self.runtime, self.encoder, self.views = runtime, encoder, views
        self.size, self.objects = config.encoder.image_size, len(latents)
        self.source = TableBank(latents.tables, runtime.device, seed * 811 + 17 + runtime.rank)
        everyone = torch.arange(self.objects).repeat(views)  # view v of object i is row v * N + i
        self.seen = Views.joined([self._see(rows) for rows in everyone.split(batch)])
        self.fresh = min(batch, len(everyone))

    def _see(self, objects: Tensor) -> Views:
        tables = self.source.tables[objects.to(self.runtime.device)]
        return see(self.source, tables, self.encoder, self.size, self.runtime)

    def renew(self, generator: torch.Generator) -> None:
        """One batch of new pictures."""
        rows = torch.randperm(self.objects * self.views, generator=generator)[: self.fresh]
        self.seen[rows.to(self.runtime.device)] = self._see(rows % self.objects)

    def of(self, objects: Tensor, generator: torch.Generator) -> Views:
        """A random picture of each of `objects [B]`."""
        view = torch.randint(self.views, (len(objects),), generator=generator).to(objects.device)
        return self.seen[view * self.objects + objects]


class MapHead(nn.Module):
    """Materials, normals, nearness, mask `[B, 10, 2P, 2P]` from a pixel map `[B, C, P, P]`; only used in
    training.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(2 * width, 128)
        self.out = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.GELU(), nn.Conv2d(hidden, 4 * _MAPS, 1))

    def forward(self, maps: Tensor) -> Tensor:
        return F.pixel_shuffle(self.out(maps), 2)


def map_terms(predicted: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Mean errors where the object is, and of where it is, for maps `[B, 10, P, P]` of values in 0..1."""
    predicted, mask = predicted.float(), truth[:, -1:]
    gap = (predicted[:, :-1] - truth[:, :-1]).abs() * mask / mask.sum().clamp(min=1)
    base, material, normal, nearness = (part.sum() / part.shape[1] for part in gap.split((3, 2, 3, 1), 1))
    return {
        "base_color": base,
        "material": 0.3 * material,
        "normal": 0.5 * normal,
        "nearness": 2 * nearness,
        "mask": 0.1 * F.binary_cross_entropy_with_logits(predicted[:, -1:], mask),
    }


def start_map(pixel_map: PixelMap, encoder: Any) -> None:
    """Begin with a copy of the encoder's stem."""
    for i, layer in enumerate(pixel_map.stem):
        for mine, its in zip(layer.parameters(), encoder.stem[3 * i : 3 * i + 3].parameters(), strict=True):
            mine.data.copy_(its)


def camera_terms(normalised: Tensor, views: Views) -> dict[str, Tensor]:
    """Errors of what the camera head says `[B, 6]`. Where no picture tells the yaw any quarter turn of it is
    as good: what looks alike from four sides keeps its edges where they are.
    """
    targets = framing_targets(views.camera(), views.window())
    gap = (normalised - targets).abs()
    quarter = _QUARTER / (math.pi / 3)  # as `framing_targets` counts yaw
    turned = (normalised[:, :1] - targets[:, :1] - quarter * normalised.new_tensor([-1.0, 0, 1])).abs()
    yaw = torch.where(views.symmetric, turned.amin(1), gap[:, 0])
    gap = torch.cat([yaw[:, None], gap[:, 1:]], 1)
    told = (~views.symmetric).float()
    return {
        "camera": 0.5 * gap[:, :3].mean(),
        "window": 3 * gap[:, 3:].mean(),  # a wrong window costs the structure most
        "_yaw_degrees": (60 * yaw.detach() * told).sum() / told.sum().clamp(min=1),
        "_window_error": 0.2 * gap[:, 3:].detach().mean(),
    }


def jittered(camera: UprightCamera) -> UprightCamera:
    """Cameras off by up to what the camera head may be: some hardly, some a lot."""
    spread = camera.yaw.new_tensor([math.radians(j) for j in _JITTER])
    noise = torch.randn(len(camera.yaw), 3, device=camera.yaw.device)
    off = noise * spread * torch.rand(len(noise), 1, device=noise.device)
    return camera.moved(*off.unbind(1))


def framings(head: CameraHead, views: Views, own: float) -> tuple[UprightCamera, Window, Tensor]:
    """Cameras and windows to train with, and what the head says: of a share `own` of the pictures the head's,
    of the others the true ones, moved a little.
    """
    normalised = head.normalised(views.tokens.float()).float()
    with torch.no_grad():
        camera, window = framing(normalised)
        true, (centre, half) = jittered(views.camera()), views.window()
        noise = torch.randn(len(half), 3, device=half.device) * torch.rand(len(half), 1, device=half.device)
        off = _WINDOW_JITTER * noise * half[:, None]
        centre, half = centre + off[:, :2], half + off[:, 2]
        mine = torch.rand(len(half), device=half.device) < own
        chosen = [
            torch.where(mine, a, b) for a, b in zip(vars(camera).values(), vars(true).values(), strict=True)
        ]
        where = torch.where(mine[:, None], window[0], centre), torch.where(mine, window[1], half)
    return UprightCamera(*chosen), where, normalised
