"""Pure functions between the stages: voxels from occupancy, cascade coordinates, normalisation, batching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from ..errors import CheckpointError, EmptyStructureError, InvalidArgumentError
from ..sparse import SparseTensor

CASCADE_STEP = 128  # by how much the final resolution falls when there are too many tokens
CASCADE_FLOOR = 1024
PLAIN_MATERIAL = (0.7, 0.7, 0.7, 0.0, 0.6, 1.0)
"""Base colour, metallic, roughness and alpha of a surface without a texture."""
LATENT_STRIDE = 16  # voxels of the final grid along one side of a latent token


def occupied_coords(logits: torch.Tensor, resolution: int, some: bool = False) -> torch.Tensor:
    """Cells with a positive logit in `[B, 1, R, R, R]`, pooled down to `resolution` (any child counts).

    int32 `[N, 4]` (batch, x, y, z) in row-major order. Raises `EmptyStructureError` when a sample has none;
    with `some` only when all have none.
    """
    occupied = logits > 0
    size = logits.shape[-1]
    if resolution != size:
        if size % resolution:
            raise InvalidArgumentError(
                f"sparse-structure resolution {resolution} does not divide the decoder's {size}"
            )
        occupied = F.max_pool3d(occupied.float(), size // resolution) > 0.5
    coords = torch.argwhere(occupied)[:, [0, 2, 3, 4]].int()
    counts = torch.bincount(coords[:, 0].long(), minlength=logits.shape[0])
    if bool((counts == 0).all() if some else (counts == 0).any()):
        empty = int((counts == 0).sum())
        raise EmptyStructureError(
            f"{empty} of {logits.shape[0]} sparse structures came out without a voxel; "
            "try another seed, or an image in which the subject fills more of the frame"
        )
    return coords


def unique_coords(coords: torch.Tensor) -> torch.Tensor:
    """Distinct rows (batch, x, y, z), sorted; int32 `[N, 4]`. Coordinates must not be negative."""
    if not len(coords):
        return coords.int()
    size = int(coords[:, 1:].max()) + 1
    b, x, y, z = coords.long().unbind(1)
    key = torch.unique(((b * size + x) * size + y) * size + z)
    parts = [key // size**3, key // size**2 % size, key // size % size, key % size]
    return torch.stack(parts, dim=1).int()


def quantized(
    voxels: torch.Tensor, lr_resolution: int, resolution: int, shrink: bool = False
) -> torch.Tensor:
    """Cells `[T, 3]` int32 of the final latent's grid that voxels `[T, 3]` of the first pass lie in.

    `shrink` is how the pixel-aligned flows were trained: their outermost tokens lie on the cube's faces.
    """
    cells = resolution // LATENT_STRIDE
    places = (voxels + 0.5) / lr_resolution
    return (places * (cells - 1)).round().int() if shrink else (places * cells).int()


def world_from_camera_frame(points: torch.Tensor, half_turn: bool = False) -> torch.Tensor:
    """Points `[N, 3]` of a pixel-aligned latent (y up, the camera on +z) in our world (Z up, it on -y).

    `half_turn`: turned about the vertical, as the published program exports them.
    """
    x, y, z = points.unbind(1)
    return torch.stack([-x, z, y] if half_turn else [x, -z, y], dim=1)


def cascade_coords(
    hr_coords: torch.Tensor, lr_resolution: int, resolution: int, max_num_tokens: int, shrink: bool = False
) -> tuple[torch.Tensor, int]:
    """Tokens of the second pass, from voxels `[T, 4]` of the first one, and the final resolution.

    While there are `max_num_tokens` or more (all samples together) and the resolution is above 1024 it falls
    by 128.
    """
    if max_num_tokens < 1:
        raise InvalidArgumentError(f"max_num_tokens must be at least 1, got {max_num_tokens}")
    if not len(hr_coords):
        raise EmptyStructureError("the first shape pass predicts no voxels; try another seed")
    while True:
        cells = quantized(hr_coords[:, 1:], lr_resolution, resolution, shrink)
        coords = unique_coords(torch.cat([hr_coords[:, :1].int(), cells], dim=1))
        if len(coords) < max_num_tokens or resolution <= CASCADE_FLOOR:
            return coords, resolution
        resolution -= CASCADE_STEP


def plain_voxels(vertices: torch.Tensor, resolution: int) -> SparseTensor:
    """`PLAIN_MATERIAL` in the cells, of `resolution`³ in the unit cube, that hold vertices `[V, 3]`."""
    cells = ((vertices + 0.5) * resolution).floor().clamp(0, resolution - 1).int()
    coords = unique_coords(F.pad(cells, (1, 0)))
    material = torch.tensor(PLAIN_MATERIAL, device=vertices.device)
    return SparseTensor(material.expand(len(coords), -1).contiguous(), coords)


def to_device_pinned(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on a device; to CUDA by way of pinned memory, which waits for none of its work."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


class Normalization:
    """Per-channel statistics of a latent: the flows work on normalised latents, the decoders on raw ones."""

    def __init__(self, statistics: Mapping[str, Sequence[float]]) -> None:
        mean, std = statistics.get("mean"), statistics.get("std")
        if not mean or not std or len(mean) != len(std):
            raise CheckpointError(
                "latent statistics need mean and std of one length, "
                f"got {len(mean or ())} and {len(std or ())}"
            )
        self.mean = torch.tensor([list(mean)], dtype=torch.float32)
        self.std = torch.tensor([list(std)], dtype=torch.float32)

    def apply(self, slat: SparseTensor) -> SparseTensor:
        """(x − mean) / std."""
        self._check(slat)
        return (slat - to_device_pinned(self.mean, slat.device)) / to_device_pinned(self.std, slat.device)

    def undo(self, slat: SparseTensor) -> SparseTensor:
        """x·std + mean."""
        self._check(slat)
        return slat * to_device_pinned(self.std, slat.device) + to_device_pinned(self.mean, slat.device)

    def _check(self, slat: SparseTensor) -> None:
        if slat.feats.shape[1] != self.mean.shape[1]:
            raise InvalidArgumentError(
                f"the latent has {slat.feats.shape[1]} channels, its statistics {self.mean.shape[1]}"
            )
