"""Flexible dual grid to mesh: a vertex a voxel, a quad a crossed lattice edge, then triangles."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..sampling import VoxelGrid
from .frame import Box, Triple, grid_frame

# The four voxels around the edge along x, y, z that voxel (0, 0, 0) owns, in winding order.
QUAD_OFFSETS = (
    ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0)),
    ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)),
    ((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)),
)


def flexible_dual_grid_to_mesh(
    coords: Tensor,
    dual_vertices: Tensor,
    intersected_flag: Tensor,
    split_weight: Tensor | None,
    aabb: Box,
    voxel_size: Triple | None = None,
    grid_size: Triple | None = None,
    train: bool = False,
) -> tuple[Tensor, Tensor]:
    """Turn voxels with dual vertices and edge flags into triangles.

    A quad with a voxel missing is dropped. Quads of one axis all wind the same way, whatever the side.

    Args:
        coords: voxels, integer `[N, 3]`, unique.
        dual_vertices: offset of each voxel's vertex from its lower corner, in voxels, `[N, 3]`.
        intersected_flag: whether the surface crosses the x, y, z edges that meet at the voxel's upper corner,
            bool `[N, 3]`.
        split_weight: positive, `[N, 1]` or `[N]`; of a quad's diagonals the one with the larger product of
            weights is used (a tie takes 1-3). None splits every quad along 0-2.
        aabb: the grid's box, two corners in world units.
        voxel_size: world size of a voxel; it wins over `grid_size` when both are given.
        grid_size: voxels along each axis.
        train: add a vertex inside each quad (weighted mean of the diagonals' midpoints) and four triangles
            around it; differentiable with respect to `dual_vertices` and `split_weight`.
    Returns:
        vertices `[N, 3]` in input order, unreferenced ones kept (train: `[N + L, 3]`, one more a quad), and
        faces `[F, 3]` int32 (train: int64).
    Raises:
        ArgumentError: shapes that disagree, coordinates outside the grid or listed twice, or train without
            weights.
    """
    frame = grid_frame(voxel_size, grid_size, aabb, device=coords.device, voxel_size_wins=True)
    count = len(coords)
    for name, tensor in (("dual_vertices", dual_vertices), ("intersected_flag", intersected_flag)):
        if tensor.shape != (count, 3):
            raise ArgumentError(f"{name} must be [{count}, 3] as coords are; got {tuple(tensor.shape)}")
    if split_weight is not None and split_weight.numel() != count:
        raise ArgumentError(f"split_weight has {split_weight.numel()} entries for {count} voxels")
    if train and split_weight is None:
        raise ArgumentError("train=True needs split_weight")

    vertices = (coords + dual_vertices) * frame.voxel_size + frame.origin  # [N, 3]
    quads = dual_grid_quads(VoxelGrid(coords, frame.grid_size), intersected_flag)
    if not train:
        return vertices, _split_quads(quads, split_weight).int()

    assert split_weight is not None
    weight = split_weight.reshape(-1)[quads]  # [L, 4]
    w02, w13 = (weight[:, 0] * weight[:, 2])[:, None], (weight[:, 1] * weight[:, 3])[:, None]
    corner = vertices[quads]  # [L, 4, 3]
    mid02, mid13 = (corner[:, 0] + corner[:, 2]) / 2, (corner[:, 1] + corner[:, 3]) / 2
    middle = (w02 * mid02 + w13 * mid13) / (w02 + w13)
    middle_id = count + torch.arange(len(quads), device=coords.device)
    fan = torch.stack((quads, quads.roll(-1, dims=1), middle_id[:, None].expand(-1, 4)), dim=2)  # [L, 4, 3]
    return torch.cat((vertices, middle)), fan.reshape(-1, 3)


def dual_grid_quads(grid: VoxelGrid, intersected_flag: Tensor) -> Tensor:
    """Complete quads of the flagged edges as rows of `grid`, int64 `[L, 4]`; ordered by voxel, then axis."""
    voxel, axis = intersected_flag.bool().nonzero(as_tuple=True)  # row-major: voxel outer, axis inner
    offsets = torch.tensor(QUAD_OFFSETS, device=grid.device)  # [3, 4, 3]
    rows = grid.find(grid.coords.long()[voxel][:, None] + offsets[axis])  # [L, 4]
    return rows[(rows >= 0).all(dim=1)]


def _split_quads(quads: Tensor, split_weight: Tensor | None) -> Tensor:
    """Two triangles a quad, consecutive, `[2L, 3]`."""
    along02 = quads[:, [0, 1, 2, 0, 2, 3]]
    if split_weight is not None:
        weight = split_weight.detach().reshape(-1)[quads]
        use02 = weight[:, 0] * weight[:, 2] > weight[:, 1] * weight[:, 3]
        along02 = torch.where(use02[:, None], along02, quads[:, [0, 1, 3, 3, 1, 2]])
    return along02.reshape(-1, 3)
