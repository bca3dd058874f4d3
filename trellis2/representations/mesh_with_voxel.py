"""The pipeline's output: a mesh, and the voxels that colour it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import InvalidArgumentError
from .mesh import Mesh
from .voxel import Voxel

if TYPE_CHECKING:
    from o_voxel.sampling import VoxelGrid


class MeshWithVoxel(Mesh, Voxel):
    """A mesh whose surface attributes are read from a sparse voxel grid around it.

    coords `[N, 3]` and attrs `[N, C]` (nominally 0..1, not clamped) are as in `Voxel`; voxel_shape is `[1, C,
    X, Y, Z]`. Filling holes and simplifying move vertices; the voxels never change.
    """

    def __init__(
        self,
        vertices: torch.Tensor,
        faces: torch.Tensor,
        origin: Sequence[float] | torch.Tensor,
        voxel_size: float,
        coords: torch.Tensor,
        attrs: torch.Tensor,
        voxel_shape: torch.Size | Sequence[int],
        layout: Mapping[str, slice] | None = None,
    ) -> None:
        Mesh.__init__(self, vertices, faces)
        place = torch.as_tensor(origin, dtype=torch.float32, device=self.vertices.device)
        self._set_voxels(place, float(voxel_size), coords, attrs.float(), layout)
        if len(voxel_shape) != 5 or voxel_shape[1] != attrs.shape[1]:
            raise InvalidArgumentError(
                f"voxel_shape must be [1, {attrs.shape[1]}, X, Y, Z], got {list(voxel_shape)}"
            )
        self.voxel_shape = torch.Size(voxel_shape)
        self._grid: VoxelGrid | None = None

    def query_attrs(self, xyz: torch.Tensor) -> torch.Tensor:
        """Attributes at world positions `[..., 3]`, as `[L, C]`: trilinear over present voxels, else 0."""
        from o_voxel.sampling import sample_trilinear

        points = (xyz.reshape(-1, 3) - self.origin) / self.voxel_size
        return sample_trilinear(self.voxel_grid, self.attrs, points)

    def query_vertex_attrs(self) -> torch.Tensor:
        """Attributes `[V, C]` at the vertices."""
        return self.query_attrs(self.vertices)

    @property
    def voxel_grid(self) -> VoxelGrid:
        """The lookup structure over coords, built at the first use."""
        from o_voxel.sampling import VoxelGrid

        if self._grid is None:
            self._grid = VoxelGrid(self.coords, tuple(self.voxel_shape[2:]))
        return self._grid

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MeshWithVoxel:
        """A new mesh with voxels on `device`."""
        moved = Mesh.to(self, device, non_blocking)
        if moved.device != self.device:
            moved._grid = None  # it holds tensors of the old device
        return moved
