"""What `to_glb` is given, checked and brought to one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..convert.frame import Box, GridFrame, Triple, grid_frame
from ..errors import ArgumentError, MeshError
from ..mesh.validation import check_mesh
from ..sampling import VoxelGrid

CHANNELS = {"base_color": 3, "metallic": 1, "roughness": 1, "alpha": 1}
MAX_TEXTURE = 8192


@dataclass(frozen=True)
class Source:
    """A decoded asset: the mesh (z up), and attributes [N, 6] in the order of CHANNELS at the voxels of
    `grid`."""

    vertices: Tensor
    faces: Tensor
    attributes: Tensor
    grid: VoxelGrid
    frame: GridFrame

    @property
    def voxel(self) -> float:
        """The longest side of a voxel."""
        return float(self.frame.voxel_size.max())

    @property
    def translucent(self) -> bool:
        """Whether a relevant share of voxels lets light through, so that what lies behind must stay."""
        return bool((self.attributes[:, 5] < 0.95).float().mean() > 0.01)


def check_source(
    vertices: Any,
    faces: Any,
    attr_volume: Any,
    coords: Any,
    attr_layout: Mapping[str, slice],
    aabb: Box,
    voxel_size: Triple | None,
    grid_size: Triple | None,
) -> Source:
    """Everything as tensors on the vertices' device; numpy arrays are welcome. Raises MeshError,
    ArgumentError."""
    points, triangles = check_mesh(torch.as_tensor(vertices), torch.as_tensor(faces))
    triangles = _proper_faces(points, triangles)
    device = points.device
    if aabb is None:
        raise ArgumentError("aabb is needed: two corners, such as [[-0.5] * 3, [0.5] * 3]")
    frame = grid_frame(voxel_size, grid_size, aabb, device=device, voxel_size_wins=True)
    volume = torch.as_tensor(attr_volume).detach().to(device)
    volume = volume.float() / 255 if volume.dtype == torch.uint8 else volume.float()
    voxels = torch.as_tensor(coords).to(device)
    if volume.ndim != 2 or voxels.ndim != 2 or len(volume) != len(voxels):
        raise ArgumentError(
            f"attr_volume [L, C] and coords [L, 3] must have equally many rows: "
            f"{tuple(volume.shape)} and {tuple(voxels.shape)}"
        )
    if not len(voxels):
        raise ArgumentError("there are no voxels to take colours from: attr_volume and coords are empty")
    reach = float(points.abs().max())
    span = float((frame.aabb[1] - frame.aabb[0]).max())
    if reach > 1e6 * span:
        raise MeshError(
            f"vertices reach {reach:.3g}, a million times the box of {span:.3g}: scale the mesh first"
        )
    return Source(
        points, triangles, _channels(volume, attr_layout), VoxelGrid(voxels, frame.grid_size), frame
    )


def _proper_faces(points: Tensor, faces: Tensor) -> Tensor:
    """Drop faces that name a vertex twice; what remains must have an extent."""
    proper = faces[(faces != faces.roll(1, dims=1)).all(dim=1)]
    if not len(proper):
        raise MeshError(f"all {len(faces)} faces are degenerate: each names a vertex twice")
    corners = points[proper.reshape(-1).long()]
    if not bool((corners.amax(dim=0) > corners.amin(dim=0)).any()):
        raise MeshError(f"all {len(proper)} faces are degenerate: their vertices lie at one point")
    return proper


def _channels(volume: Tensor, layout: Mapping[str, slice]) -> Tensor:
    columns = []
    for name, width in CHANNELS.items():
        if name not in layout:
            raise ArgumentError(f"attr_layout lacks {name!r}; it has {sorted(layout)}")
        found = volume[:, layout[name]]
        if found.ndim != 2 or found.shape[1] != width:
            raise ArgumentError(
                f"attr_layout[{name!r}] = {layout[name]} selects {tuple(found.shape)[1:]} of "
                f"{volume.shape[1]} columns, but {name} has {width}"
            )
        columns.append(found)
    attributes = torch.cat(columns, dim=1)
    if not bool(torch.isfinite(attributes).all()):
        raise ArgumentError(
            f"{int((~torch.isfinite(attributes)).sum())} attribute values are NaN or infinite"
        )
    return attributes


def check_budget(decimation_target: int, texture_size: int) -> None:
    if not 4 <= decimation_target <= 2**31 - 1:
        raise ArgumentError(f"decimation_target must be at least 4 faces, got {decimation_target}")
    if not 16 <= texture_size <= MAX_TEXTURE:
        raise ArgumentError(f"texture_size must lie between 16 and {MAX_TEXTURE}, got {texture_size}")
