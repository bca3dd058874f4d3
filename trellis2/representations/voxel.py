"""Voxels with named attributes, saved and loaded in o-voxel's file formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import torch

from ..errors import InvalidArgumentError

VoxelT = TypeVar("VoxelT", bound="Voxel")

# What the texture decoder's channels mean, in its order.
PBR_ATTR_LAYOUT: Mapping[str, slice] = MappingProxyType(
    {
        "base_color": slice(0, 3),
        "metallic": slice(3, 4),
        "roughness": slice(4, 5),
        "alpha": slice(5, 6),
    }
)


class Voxel:
    """A sparse grid of cubes, each with a row of attributes.

    origin: 3 numbers, the world position of the grid's low corner. voxel_size: edge of a cube in world units.
    coords: `[N, 3]` x, y, z, kept as int32. attrs: `[N, C]`. layout: names of the attribute columns.
    """

    def __init__(
        self,
        origin: Sequence[float] | torch.Tensor,
        voxel_size: float,
        coords: torch.Tensor,
        attrs: torch.Tensor,
        layout: Mapping[str, slice] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        device = coords.device if device is None else torch.device(device)
        self._set_voxels(
            torch.as_tensor(origin, dtype=torch.float32, device=device),
            float(voxel_size),
            coords.to(device),
            attrs.to(device),
            layout,
        )

    def _set_voxels(
        self,
        origin: torch.Tensor,
        voxel_size: float,
        coords: torch.Tensor,
        attrs: torch.Tensor,
        layout: Mapping[str, slice] | None,
    ) -> None:
        if origin.shape != (3,):
            raise InvalidArgumentError(f"origin needs 3 numbers, got {list(origin.shape)}")
        if not voxel_size > 0:
            raise InvalidArgumentError(f"voxel_size must be above 0, got {voxel_size}")
        if coords.ndim != 2 or coords.shape[1] != 3:
            raise InvalidArgumentError(
                f"coords must be [N, 3] without a batch column, got {list(coords.shape)}"
            )
        if attrs.ndim != 2 or attrs.shape[0] != coords.shape[0]:
            raise InvalidArgumentError(
                f"attrs must be [{coords.shape[0]}, C] like coords, got {list(attrs.shape)}"
            )
        self.origin = origin
        self.voxel_size = voxel_size
        self.coords = coords.int()
        self.attrs = attrs
        self.layout = dict(layout or {})

    @property
    def position(self) -> torch.Tensor:
        """World positions of the voxel centres `[N, 3]`: (coords + 0.5)·voxel_size + origin."""
        return (self.coords + 0.5) * self.voxel_size + self.origin

    def split_attrs(self) -> dict[str, torch.Tensor]:
        """The attribute columns by name, as views."""
        return {name: self.attrs[:, columns] for name, columns in self.layout.items()}

    def save(self, path: str | Path) -> None:
        """Write coordinates and attributes, not the placement, to .npz, .ply or .vxz, by suffix.

        .vxz holds 8-bit attributes only. Raises `InvalidArgumentError` without a layout,
        `o_voxel.errors.FormatError`.
        """
        from o_voxel import io

        if not self.layout:
            raise InvalidArgumentError(
                "a voxel grid needs a layout to be saved: attributes are stored by name"
            )
        io.write(str(path), self.coords.cpu(), {k: v.cpu() for k, v in self.split_attrs().items()})

    @classmethod
    def load(
        cls,
        path: str | Path,
        origin: Sequence[float] = (-0.5, -0.5, -0.5),
        voxel_size: float | None = None,
        device: torch.device | str = "cpu",
    ) -> Voxel:
        """Read voxels; attributes are joined in file order and the layout follows from their widths.

        The files hold no placement: by default the grid is the unit cube, with the power of two that holds
        all voxels.
        """
        from o_voxel import io

        coords, named = io.read(str(path))
        layout, parts, start = {}, [], 0
        for name, values in named.items():
            values = values[:, None] if values.ndim == 1 else values
            layout[name] = slice(start, start + values.shape[1])
            parts.append(values)
            start += values.shape[1]
        if voxel_size is None:
            extent = int(coords.max()) + 1 if coords.numel() else 1
            voxel_size = 1.0 / (1 << max(extent - 1, 0).bit_length())
        return Voxel(origin, voxel_size, coords, torch.cat(parts, dim=1), layout, device)

    def to(self: VoxelT, device: torch.device | str, non_blocking: bool = False) -> VoxelT:
        """New voxels of the same kind on `device`."""
        moved = object.__new__(type(self))
        for name, value in self.__dict__.items():
            tensor = isinstance(value, torch.Tensor)
            moved.__dict__[name] = value.to(device, non_blocking=non_blocking) if tensor else value
        return moved

    def cuda(self: VoxelT) -> VoxelT:
        """New voxels on the current CUDA device."""
        return self.to("cuda")

    def cpu(self: VoxelT) -> VoxelT:
        """New voxels in host memory."""
        return self.to("cpu")
