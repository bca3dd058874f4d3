"""The data set of the two structured-latent flows: latents at full resolution and image tokens, kept in
memory.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import world
from ..checkpoint import need_network, save_statistics, statistics_path
from ..config import MiniConfig
from ..data.batches import TableBank, collate
from ..data.voxelize import voxelize
from ..runtime import Runtime


@dataclass(frozen=True)
class Part:
    """One of `of` shares of a set, which processes make side by side."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}of{self.of}"

    @classmethod
    def parse(cls, text: str) -> Part:
        """The way back from `str`."""
        number, of = map(int, text.split("of"))
        return cls(number, of)


WHOLE = Part(0, 1)


@dataclass
class LatentSet:
    """Objects one after another; object i owns rows `offsets[i] : offsets[i + 1]`."""

    coords: Tensor  # [T, 3] int16
    shape: Tensor  # [T, C] float16, the encoder's means
    texture: Tensor  # [T, C] float16
    offsets: Tensor  # [N + 1] int64
    tables: Tensor  # [N, K, ROW] float32, as coloured when encoded

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def statistics(self) -> dict[str, Tensor]:
        """Per-channel mean and spread of both latents, float32."""
        numbers: dict[str, Tensor] = {}
        for name in ("shape", "texture"):
            feats = getattr(self, name).float()
            numbers |= {
                f"{name}_mean": feats.mean(0).cpu(),
                f"{name}_std": feats.std(0).clamp(min=1e-3).cpu(),
            }
        return numbers


def encode_objects(
    config: MiniConfig,
    bank: TableBank,
    folder: Path,
    runtime: Runtime,
    seconds: float,
    most: int,
    part: Part = WHOLE,
) -> LatentSet:
    """Encode this part of the bank's first `most` objects, in order, until time is up (at least one)."""
    shape_encoder = need_network(folder, config, "shape_enc", runtime.device)
    texture_encoder = need_network(folder, config, "tex_enc", runtime.device)
    started = time.perf_counter()
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    kept = []
    tables = world.patterned(bank.recoloured(bank.tables[:most]), bank.generator)
    with torch.no_grad():
        for i in range(part.number, len(tables), part.of):
            if parts and time.perf_counter() - started > seconds:
                break
            voxels = collate([voxelize(tables[i], config.resolution)])
            with runtime.autocast():
                shape = shape_encoder(voxels.vertices, voxels.intersected)
                texture = texture_encoder(voxels.attributes)
            parts.append((shape.coords[:, 1:].short(), shape.feats.half(), texture.feats.half()))
            kept.append(i)
    sizes = torch.tensor([0] + [len(p[0]) for p in parts])
    coords, shapes, textures = (torch.cat(column) for column in zip(*parts, strict=True))
    return LatentSet(coords, shapes, textures, sizes.cumsum(0), tables[kept])


def standardised(feats: Tensor, name: str, statistics: dict[str, Tensor]) -> Tensor:
    """Latents `[T, C]` ("shape" or "texture") of mean 0 and spread 1, float32."""
    mean, std = (statistics[f"{name}_{part}"].to(feats.device) for part in ("mean", "std"))
    return (feats.float() - mean) / std


def restored(feats: Tensor, name: str, statistics: dict[str, Tensor]) -> Tensor:
    """The way back from `standardised`."""
    mean, std = (statistics[f"{name}_{part}"].to(feats.device) for part in ("mean", "std"))
    return feats * std + mean


def save_part(latents: LatentSet, folder: Path, part: Part) -> None:
    """Write one part, for `gather`."""
    torch.save({k: v.cpu() for k, v in vars(latents).items()}, folder / f"latents.{part}.pt")


def gather(folder: Path, keep_statistics: bool = False) -> None:
    """Join all parts into the set for the flow stages, and write the statistics for export.

    With `keep_statistics` those that are there stay: flows that go on were trained with them.
    """
    paths = sorted(folder.glob("latents.*of*.pt"))
    if not paths:
        return
    parts = [LatentSet(**torch.load(p, map_location="cpu", weights_only=True)) for p in paths]
    sizes = torch.cat([p.offsets.diff() for p in parts])
    columns = {k: torch.cat([getattr(p, k) for p in parts]) for k in ("coords", "shape", "texture", "tables")}
    latents = LatentSet(offsets=F.pad(sizes.cumsum(0), (1, 0)), **columns)
    torch.save(vars(latents), folder / "latents.partial")
    (folder / "latents.partial").replace(folder / "latents.pt")
    if not (keep_statistics and statistics_path(folder).exists()):
        save_statistics(folder, latents.statistics())
    for path in paths:
        path.unlink()


def load_latents(folder: Path, device: torch.device) -> LatentSet:
    """The set, on a device."""
    values: dict[str, Any] = torch.load(folder / "latents.pt", map_location="cpu", weights_only=True)
    return LatentSet(**{k: v if k == "offsets" else v.to(device) for k, v in values.items()})
