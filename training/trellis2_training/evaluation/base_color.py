"""The base colour network on held-out pictures, beside the pictures as they are; every other is patterned."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trellis2.conditioning.encoders.image_batch import image_batch
from trellis2.conditioning.preprocess import composite_on_black, subject_square

from .. import world
from ..checkpoint import need_network
from ..config import MiniConfig
from ..runtime import start
from . import evaluate as ev
from .exported import picture_scores

log = logging.getLogger(__name__)

PICTURE, NETWORK = "picture", "network"
_INSIDE = 0.95  # of the mask


def held_out_pair(number: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Held-out picture `number` as the networks see it, its true base colours, both `[1, 3, S, S]`, and where
    the object is, `[S, S]`; with a pattern where the number is odd.
    """
    table = ev.held_out_table(number).to(device)
    _, picture = ev.held_out_picture(table, world.HELD_OUT_SEED + number)
    colours = picture.attributes[:, :3].clamp(0, 1) * picture.mask
    lit, true = (ev.to_rgba(p) for p in (picture, replace(picture, rgb=colours)))
    square = subject_square(lit)
    pixels, truth = (image_batch([composite_on_black(x.crop(square))], size) for x in (lit, true))
    alpha = lit.crop(square).getchannel("A").resize((size, size), Image.Resampling.LANCZOS)
    return pixels.to(device), truth, torch.from_numpy(np.array(alpha)) > 255 * _INSIDE


@torch.no_grad()
def measure_base_color(
    folder: Path, config: MiniConfig, device_name: str, objects: int, out: Path, sheet: Path | None = None
) -> dict[str, Any]:
    """Scores of the picture itself and of what the working folder's network makes of it, written to `out`."""
    device = start(device_name, 0).device
    network, encoder = (need_network(folder, config, n, device) for n in ("base_color", "encoder"))
    rows: list[dict[str, Any]] = []
    tiles: list[np.ndarray] = []
    for number in range(objects):
        pixels, truth, mask = held_out_pair(number, config.encoder.image_size, device)
        colours = network(pixels, encoder(pixels)).clamp(0, 1)
        made = {PICTURE: pixels[0].cpu(), NETWORK: colours[0].cpu()}
        scores = {name: picture_scores(x, mask, truth[0], mask) for name, x in made.items()}
        rows.append({"number": number, **scores})
        if number % 2 and sheet is not None:
            tile = torch.cat([*made.values(), truth[0]], 2) * mask.repeat(1, 3)
            tiles.append((tile.permute(1, 2, 0) * 255).byte().numpy()[::2, ::2])
    summary = {
        f"{group} {name}": {
            figure: round(float(np.mean([r[name][figure] for r in some if figure in r[name]])), 4)
            for figure in ("seen_base_color_mae", "correlation", "ssim")
            if any(figure in r[name] for r in some)
        }
        for group, some in (("all", rows), ("patterned", rows[1::2]))
        for name in (PICTURE, NETWORK)
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"summary": summary, "objects": rows}, indent=1) + "\n", encoding="utf-8")
    if sheet is not None and tiles:
        ev._write_sheet(tiles, sheet)
    for name, figures in summary.items():
        log.info("%s: %s", name, figures)
    return summary
