"""The structure refiner, on structures as the frozen flow samples them.

Sampling costs many passes: structures are kept with their pictures and drawn again, while new ones take the
place of the oldest. The flow and the refiner look from the same camera, as they will in the package: the
head's own for most pictures, otherwise the true one, moved a little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trellis2.conditioning.pixel_map import cell_geometry, cell_reading
from trellis2.conditioning.structure_refiner import Observation
from trellis2.conditioning.upright import UprightCamera, Window
from trellis2.nn.tokens import PixelTokens
from trellis2.samplers.euler import build_sampler

from .. import world
from ..config import MiniConfig
from ..data.batches import TableBank
from ..data.voxelize import occupancy
from ..export import OCCUPANCY_BIAS, STRUCTURE_SAMPLER
from ..loop import Recipe
from ..runtime import Runtime
from .pictures import Views, framings, see

FROZEN = ("ss_flow", "ss_dec", "structure_map", "pixel_map", "camera_head")
"""Networks that the stage reads, beside the image encoder."""
_OWN = 0.7  # of the pictures are seen from where the camera head says, as all are in the package
_OUTLINE = 32  # rays along a side of the crop
_SAMPLES = 48  # along a ray through the cube
_NEARNESS, _MASK = 8, 9  # channels of `Views.maps`


@dataclass
class Structures(Views):
    """Pictures with the structures that the flow made of them, and the true ones."""

    feature_maps: Tensor  # [B, M, S/4, S/4] float16
    seen_from: Tensor  # [B, 3] yaw, pitch, field of view by which flow and refiner go
    seen_in: Tensor  # [B, 3] centre and half size of the crop, by the same
    latents: Tensor  # [B, C, g, g, g] float16
    logits: Tensor  # [B, 1, 8g, 8g, 8g] float16
    truth: Tensor  # [B, 1, 4g, 4g, 4g] bool

    def observation(self) -> Observation:
        """What the refiner sees."""
        camera = UprightCamera(*self.seen_from.unbind(1))
        window = self.seen_in[:, :2], self.seen_in[:, 2]
        pictures = self.pictures.float() / 255
        return Observation(pictures, self.tokens.float(), self.feature_maps.float(), camera, window)


class Refiner:
    """The structure refiner's stage."""

    name = "ss_refiner"
    recipe = Recipe(lr=8e-4, weight_decay=0.01, betas=(0.9, 0.98), ema=0.998, warmup=100)

    def __init__(
        self,
        config: MiniConfig,
        bank: TableBank,
        runtime: Runtime,
        encoder: nn.Module,
        frozen: dict[str, Any],
        batch: int = 32,
        fresh: int = 128,
        first: int = 24,
        every: int = 24,
        most: int = 8192,
    ) -> None:
        """`frozen`: those of `FROZEN`. `fresh` structures are made at once: `first` times to begin with, then
        every so many steps; at `most` so many are kept.
        """
        self.runtime, self.bank, self.encoder, self.frozen = runtime, bank, encoder, frozen
        self.batch, self.fresh, self.first, self.every = batch, fresh, first, every
        self.most = max(most // fresh, 1) * fresh
        self.size, self.cells = config.encoder.image_size, config.ss_grid
        self.latent_shape = (config.ss_latent, *(config.ss_grid,) * 3)
        frozen["ss_dec"].out_layer[-1].bias.data.add_(OCCUPANCY_BIAS)  # as the package has it
        self.refiner = config.build("structure_refiner")
        for layer in self.refiner.modules():
            if isinstance(layer, nn.Conv3d):
                layer.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.networks: dict[str, nn.Module] = {"structure_refiner": self.refiner}
        self.kept: Structures | None = None
        self.count = self.next = self.steps = 0

    def losses(self, progress: float) -> dict[str, Tensor]:
        if self.steps % self.every == 0:
            self._make()
        while self.count < min(self.first * self.fresh, self.most):
            self._make()
        self.steps += 1
        assert self.kept is not None
        rows = torch.randint(self.count, (self.batch,), generator=self.bank.generator)
        made = self.kept[rows.to(self.kept.truth.device)]
        logits, sheet = self.refiner(made.logits.float(), made.latents.float(), made.observation())
        with torch.autocast(logits.device.type, enabled=False):
            return refiner_terms(logits.float(), sheet.float(), made)

    def _make(self) -> None:
        tables = self.bank.draw(self.fresh)[1]
        made = self.structures(world.patterned(tables, self.bank.generator))
        if self.kept is None:
            self.kept = Structures(*(v.new_empty((self.most, *v.shape[1:])) for v in vars(made).values()))
        self.kept[slice(self.next, self.next + self.fresh)] = made
        self.next = (self.next + self.fresh) % self.most
        self.count = min(self.count + self.fresh, self.most)

    @torch.no_grad()
    def structures(self, tables: Tensor, own: float = _OWN) -> Structures:
        """What flow and decoder make of a picture each of objects `[B, K, ROW]`."""
        views = see(self.bank, tables, self.encoder, self.size, self.runtime)
        tokens, pictures = views.tokens.float(), views.pictures.float() / 255
        camera, window, _ = framings(self.frozen["camera_head"], views, own)
        with torch.autocast(tokens.device.type, enabled=False):
            truth = F.max_pool3d(occupancy(tables, 8 * self.cells), 2) > 0
            places, geometry = cell_geometry(self.cells, camera, window)
        with self.runtime.autocast():
            maps = [self.frozen[name](pictures, tokens) for name in ("pixel_map", "structure_map")]
            latents = self._sampled(PixelTokens(tokens, cell_reading(maps[1], places, geometry)))
            logits = torch.cat([self.frozen["ss_dec"](part) for part in latents.split(32)])
        return Structures(
            **vars(views),
            feature_maps=torch.cat(maps, 1).half(),
            seen_from=torch.stack(list(vars(camera).values()), 1),
            seen_in=torch.cat([window[0], window[1][:, None]], 1),
            latents=latents.half(),
            logits=logits.half(),
            truth=truth,
        )

    def _sampled(self, seen: PixelTokens) -> Tensor:
        """Latents `[B, C, g, g, g]` as the package samples them."""
        averaged, features = STRUCTURE_SAMPLER["averaged_samples"], seen.features
        assert isinstance(seen.tokens, Tensor)
        assert features is not None
        condition = PixelTokens(*(x.repeat_interleave(averaged, 0) for x in (seen.tokens, features)))
        noise = torch.randn((len(condition.tokens), *self.latent_shape), device=features.device)
        sampler = build_sampler(STRUCTURE_SAMPLER["name"], STRUCTURE_SAMPLER["args"])
        made: Any = sampler.denoise(
            self.frozen["ss_flow"], noise, condition, neg_cond=condition.null(), **STRUCTURE_SAMPLER["params"]
        )
        latents: Tensor = made.unflatten(0, (-1, averaged)).mean(1)
        return latents


def refiner_terms(logits: Tensor, sheet: Tensor, made: Structures) -> dict[str, Tensor]:
    """Errors of refined logits `[B, 1, R, R, R]` and of what the refiner reads of the pictures."""
    truth = made.truth.float()
    cross = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=truth.new_tensor(2.0))
    p, axes = logits.sigmoid(), (1, 2, 3, 4)
    both, either = (p * truth).sum(axes), (p + truth - p * truth).sum(axes)
    maps = made.maps.float() / 255
    mask = maps[:, _MASK, None]
    off = (sheet[:, 1:] - maps[:, _NEARNESS, None]).abs() * mask
    before = F.max_pool3d(made.logits.float(), 2)
    return {
        "jaccard": (1 - both / either.clamp(min=1)).mean(),
        "bce": 5 * cross,
        "outline": 0.1 * outline_error(p, mask, made.camera(), made.window()),
        "mask": 0.2 * F.binary_cross_entropy_with_logits(sheet[:, :1], mask),
        "nearness": 2 * off.sum() / mask.sum().clamp(min=1),
        "_iou": cell_iou(logits, made.truth).mean(),
        "_iou_before": cell_iou(before, made.truth).mean(),
    }


def cell_iou(logits: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union `[B]` of cells with positive logits and true ones (bool), `[B, 1, R, R, R]`."""
    made, axes = logits > 0, (1, 2, 3, 4)
    return (made & truth).sum(axes) / (made | truth).sum(axes).clamp(min=1)


def outline_error(occupied: Tensor, mask: Tensor, camera: UprightCamera, window: Window) -> Tensor:
    """Cross-entropy of the likeliest cell along rays through cells that are `occupied [B, 1, R, R, R]` with a
    probability, against masks `[B, 1, P, P]`: where a crop's pixels are whole, and where they are a cell's
    width away from any.
    """
    points = ray_points(camera, window, _OUTLINE, _SAMPLES)  # [B, O, O, S, 3]
    # Volumes have x slowest, so that the last axis of a sample's place is z first.
    values = F.grid_sample(occupied, 2 * points.flip(-1), align_corners=False)
    along = values.amax(-1)[:, 0].clamp(1e-4, 1 - 1e-4)
    inside = -F.max_pool2d(-mask, mask.shape[-1] // _OUTLINE)[:, 0] > 0.95
    outside = F.max_pool2d(F.max_pool2d(mask, mask.shape[-1] // _OUTLINE), 5, 1, 2)[:, 0] < 0.05
    error = -(along.log() * inside + (1 - along).log() * outside)
    return error.sum() / (inside | outside).sum().clamp(min=1)


def ray_points(camera: UprightCamera, window: Window, side: int, samples: int) -> Tensor:
    """World positions `[B, side, side, samples, 3]` along rays through the pixels of crops, top row first,
    through all of the cube.
    """
    position, right, up, away = camera.axes()
    axis = (torch.arange(side, device=away.device) + 0.5) / side * 2 - 1
    centre, half = window
    across, above = (centre[:, i, None] + half[:, None] * s * axis for i, s in ((0, 1), (1, -1)))
    scale = camera.tangent[:, None, None, None]
    sideways = across[:, None, :, None] * right[:, None, None] + above[:, :, None, None] * up[:, None, None]
    direction = sideways * scale - away[:, None, None]  # one unit deep
    middle = position.norm(dim=-1)[:, None]
    reach = torch.linspace(-0.87, 0.87, samples, device=away.device)
    depth = (middle + reach)[:, None, None, :, None]
    return position[:, None, None, None] + depth * direction[:, :, :, None]
