"""The structure's stages on top of its autoencoder: the encoder alone, the pixel-aligned flow, and the
decoder for what the flow makes.

A cell of the structure's latent is an eighth of the cube: it reads the picture at several points. No voxel is
known yet, so that the crop's window comes from the camera head, which learns here, with the true camera and
window and its own by turns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trellis2.conditioning.pixel_map import cell_geometry, cell_reading
from trellis2.nn.tokens import PixelTokens

from .. import world
from ..checkpoint import load_weights
from ..config import MiniConfig
from ..cuda_graphs import replayed
from ..data.batches import TableBank
from ..data.voxelize import occupancy
from ..loop import Recipe
from ..losses import dice, flow_pair, logit_normal
from ..runtime import Runtime
from .autoencoders import SparseStructureVae
from .conditioning import Conditioning, compile_blocks
from .pictures import MapHead, Views, camera_terms, framings, map_terms, see, start_map

_OWN = 0.5  # of the pictures are trained with what the camera head says
_DROPPED = 0.1  # of the conditions
_MOST_NOISE = 0.9  # of the way to pure noise, from which a flow can only tell the mean


class StructureEncoder(SparseStructureVae):
    """The structure's encoder alone, for a decoder that stays as it is: packages lack the encoder."""

    name = "ss_encoder"
    recipe = Recipe(lr=4e-4, ema=0.99)

    def __init__(
        self, config: MiniConfig, bank: TableBank, runtime: Runtime, decoder: nn.Module, batch: int = 16
    ) -> None:
        super().__init__(config, bank, runtime, batch, decoder)
        self.networks = {"ss_enc": self.encoder, "ss_heads": self.heads}


class AlignedStructure(nn.Module):
    """Map, its head and the flow as one module, for a recording of a step."""

    def __init__(self, pixel_map: nn.Module, head: nn.Module, flow: nn.Module) -> None:
        super().__init__()
        self.pixel_map, self.head, self.flow = pixel_map, head, flow

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        tokens: Tensor,
        pixels: Tensor,
        places: Tensor,
        geometry: Tensor,
        keep: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Velocity, and what the head reads of the map. `places`, `geometry`: see `cell_geometry`; `keep`
        `[B, 1, 1]` is 0 where the condition is dropped.
        """
        maps = self.pixel_map(pixels, tokens)
        features = cell_reading(maps, places, geometry) * keep
        return self.flow(x_t, 1000 * t, PixelTokens(tokens * keep, features)), self.head(maps)


class AlignedStructureFlow:
    """The sparse-structure flow with the map that it reads and the camera head, on a frozen encoder.

    A picture costs more than a step on it: pictures are kept and drawn from again and again, while a new
    batch joins them, or takes the place of the oldest, every few steps.
    """

    name = "ss_flow"
    recipe = Conditioning.recipe

    def __init__(
        self,
        config: MiniConfig,
        bank: TableBank,
        runtime: Runtime,
        latents: Tensor,
        encoder: nn.Module,
        batch: int = 128,
        most: int = 24_576,
        every: int = 6,
        first: int = 16,
        folder: Path | None = None,
    ) -> None:
        self.runtime, self.bank, self.latents, self.encoder = runtime, bank, latents, encoder
        self.batch, self.most, self.every = batch, max(most // batch, 1) * batch, every
        self.first = first  # batches of pictures to begin with
        self.size, self.cells = config.encoder.image_size, config.ss_grid
        self.flow, self.camera_head = config.build("ss_flow"), config.build("camera_head")
        self.map = config.build("structure_map")
        start_map(self.map, encoder)
        self.head = MapHead(config.pixel_map.structure)
        self.networks: dict[str, nn.Module] = {
            "ss_flow": self.flow,
            "structure_map": self.map,
            "structure_head": self.head,
            "camera_head": self.camera_head,
        }
        if folder is not None:
            _start_from_the_other_map(self.map, config, folder)
        self._step: nn.Module | None = None  # map, head and flow as called, from the first batch on
        self.rows = torch.empty(0, dtype=torch.int64)
        self.seen: Views | None = None  # rows from `len(self.rows)` on hold nothing yet
        self.oldest = self.steps = 0
        if runtime.device.type == "cuda":
            compile_blocks(self.flow)

    def losses(self, progress: float) -> dict[str, Tensor]:
        if self.steps % self.every == 0:
            self._see()
        while len(self.rows) < min(self.first * self.batch, self.most):
            self._see()
        self.steps += 1
        assert self.seen is not None
        chosen = torch.randint(len(self.rows), (self.batch,), generator=self.bank.generator)
        chosen = chosen.to(self.rows.device)
        views = self.seen[chosen]
        x0 = self.latents[self.rows[chosen]].to(self.runtime.device).float()
        places, geometry, normalised = _placed(self.camera_head, views, _OWN, self.cells)
        t = logit_normal(len(x0), 1.0, 1.0, x0.device)
        x_t, target = flow_pair(x0, torch.randn_like(x0), t.view(-1, 1, 1, 1, 1))
        keep = (torch.rand(len(x0), 1, 1, device=x0.device) >= _DROPPED).float()
        pixels = views.pictures.float() / 255
        inputs = (x_t, t, views.tokens.float(), pixels, places, geometry, keep)
        if self._step is None:
            (self._step,) = replayed([AlignedStructure(self.map, self.head, self.flow)], [inputs])
        velocity, predicted = self._step(*inputs)
        return {
            "flow": (velocity.float() - target).square().mean(),
            **map_terms(predicted, views.maps.float() / 255),
            **camera_terms(normalised, views),
        }

    def _see(self) -> None:
        """One batch of new pictures."""
        rows, tables = self.bank.draw(self.batch)
        tables = world.patterned(tables, self.bank.generator)
        views = see(self.bank, tables, self.encoder, self.size, self.runtime)
        if self.seen is None:
            room = (v.new_empty((self.most, *v.shape[1:])) for v in vars(views).values())
            self.seen, self.rows = Views(*room), rows[:0]
        if len(self.rows) < self.most:
            self.rows = torch.cat([self.rows, rows])
        else:
            self.rows[self.oldest : self.oldest + self.batch] = rows
        self.seen[slice(self.oldest, self.oldest + self.batch)] = views
        self.oldest = (self.oldest + self.batch) % self.most


class StructureDecoder:
    """The structure's decoder on latents as its flow makes them of partly noised ones, given a picture."""

    name = "ss_decoder"
    recipe = Recipe(lr=1e-4, warmup=20, ema=0.99)

    def __init__(
        self,
        config: MiniConfig,
        bank: TableBank,
        runtime: Runtime,
        latents: Tensor,
        encoder: nn.Module,
        frozen: dict[str, Any],
        batch: int = 24,
    ) -> None:
        """`frozen`: "ss_flow", "structure_map" and "camera_head"."""
        self.runtime, self.bank, self.latents, self.encoder = runtime, bank, latents, encoder
        self.frozen, self.batch = frozen, batch
        self.size, self.cells = config.encoder.image_size, config.ss_grid
        self.decoder = config.build("ss_dec").to(memory_format=torch.channels_last_3d)
        self.networks: dict[str, nn.Module] = {"ss_dec": self.decoder}

    def losses(self, progress: float) -> dict[str, Tensor]:
        rows, tables = self.bank.draw(self.batch)
        with torch.no_grad():
            truth = occupancy(tables)
            made = self._made(rows, world.patterned(tables, self.bank.generator))
        logits = self.decoder(made).float()
        predicted, actual = logits > 0, truth > 0
        return {
            "dice": dice(logits, truth),
            "bce": F.binary_cross_entropy_with_logits(logits, truth, pos_weight=truth.new_tensor(2.0)),
            "_iou": (predicted & actual).sum() / (predicted | actual).sum().clamp(min=1),
        }

    def _made(self, rows: Tensor, tables: Tensor) -> Tensor:
        views = see(self.bank, tables, self.encoder, self.size, self.runtime)
        places, geometry, _ = _placed(self.frozen["camera_head"], views, 1.0, self.cells)
        tokens = views.tokens.float()
        maps = self.frozen["structure_map"](views.pictures.float() / 255, tokens)
        x0 = self.latents[rows].to(self.runtime.device).float()
        t = _MOST_NOISE * torch.rand(len(x0), device=x0.device)
        times = t.view(-1, 1, 1, 1, 1)
        x_t, _ = flow_pair(x0, torch.randn_like(x0), times)
        seen = PixelTokens(tokens, cell_reading(maps, places, geometry))
        velocity: Tensor = self.frozen["ss_flow"](x_t, 1000 * t, seen)
        return x_t - times * velocity.float()


def _placed(head: Any, views: Views, own: float, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `cell_geometry`, in the cameras and windows of `framings`, and what the head says of them."""
    camera, window, normalised = framings(head, views, own)
    with torch.autocast(views.tokens.device.type, enabled=False):
        places, geometry = cell_geometry(cells, camera, window)
    return places, geometry, normalised


def _start_from_the_other_map(own: Any, config: MiniConfig, folder: Path) -> None:
    """All but the last layer of the map that the other flows read, where there is one."""
    other = config.build("pixel_map")
    if load_weights(folder, "pixel_map", other):
        learnt = {k: v for k, v in other.state_dict().items() if not k.startswith("out.")}
        own.load_state_dict(learnt, strict=False)


@torch.no_grad()
def structure_latents(bank: TableBank, encoder: nn.Module, batch: int = 64) -> Tensor:
    """Sparse-structure latents (means) of the whole bank `[N, C, g, g, g]` float16 on the bank's device."""
    encoder = encoder.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    parts = []
    for tables in bank.tables.split(batch):
        with torch.autocast(tables.device.type, torch.bfloat16, enabled=tables.is_cuda):
            parts.append(encoder(occupancy(tables)).half())
    return torch.cat(parts)
