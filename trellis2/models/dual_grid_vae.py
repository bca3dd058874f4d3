"""The shape codec: the sparse U-Net VAE with a flexible dual grid as input and output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from ..errors import InvalidArgumentError
from ..sparse import SparseTensor
from .sparse_unet_vae import SparseUnetVaeDecoder, SparseUnetVaeEncoder

if TYPE_CHECKING:
    from ..representations import Mesh


class FlexiDualGridVaeEncoder(SparseUnetVaeEncoder):
    """A flexible dual grid to a shape latent."""

    def __init__(
        self,
        model_channels: Sequence[int],
        latent_channels: int,
        num_blocks: Sequence[int],
        block_type: Sequence[str],
        down_block_type: Sequence[str],
        block_args: Sequence[dict[str, Any]],
        use_fp16: bool = False,
    ) -> None:
        super().__init__(
            6, model_channels, latent_channels, num_blocks, block_type, down_block_type, block_args, use_fp16
        )

    def forward(  # type: ignore[override]
        self,
        vertices: SparseTensor,
        intersected: SparseTensor,
        sample_posterior: bool = False,
        return_raw: bool = False,
    ) -> SparseTensor | tuple[SparseTensor, torch.Tensor, torch.Tensor]:
        """`vertices [T, 3]`: dual vertices inside their voxels, 0..1; `intersected [T, 3]` bool on the same
        voxels.
        """
        flags = intersected.feats.to(vertices.dtype)
        x = vertices.replace(torch.cat([vertices.feats - 0.5, flags - 0.5], dim=1))
        return self.encode(x, sample_posterior, return_raw)


class FlexiDualGridVaeDecoder(SparseUnetVaeDecoder):
    """A shape latent to a mesh an item, through seven channels a voxel: vertex, edge flags, split weight."""

    def __init__(
        self,
        resolution: int,
        model_channels: Sequence[int],
        latent_channels: int,
        num_blocks: Sequence[int],
        block_type: Sequence[str],
        up_block_type: Sequence[str],
        block_args: Sequence[dict[str, Any]],
        voxel_margin: float = 0.5,
        use_fp16: bool = False,
        pred_subdiv: bool = True,
    ) -> None:
        super().__init__(
            7,
            model_channels,
            latent_channels,
            num_blocks,
            block_type,
            up_block_type,
            block_args,
            use_fp16=use_fp16,
            pred_subdiv=pred_subdiv,
        )
        self.resolution = resolution
        self.voxel_margin = voxel_margin

    def dual_grid(self, h: SparseTensor) -> tuple[SparseTensor, SparseTensor, SparseTensor]:
        """Dual vertices `[T, 3]` (voxel units from the low corner), edge logits `[T, 3]`, split weights `[T,
        1]`.
        """
        m = self.voxel_margin
        vertices = h.replace((1 + 2 * m) * torch.sigmoid(h.feats[:, 0:3]) - m)
        return vertices, h.replace(h.feats[:, 3:6]), h.replace(F.softplus(h.feats[:, 6:7]))

    def meshes(
        self,
        vertices: SparseTensor,
        intersected: SparseTensor,
        quad_lerp: SparseTensor,
        train: bool = False,
        resolution: int | None = None,
    ) -> list[Mesh]:
        """A mesh an item in the box [-0.5, 0.5]^3; differentiable, with a mid vertex a quad, when `train`."""
        from o_voxel.convert import flexible_dual_grid_to_mesh

        from ..representations import Mesh

        return [
            Mesh(
                *flexible_dual_grid_to_mesh(
                    vertices.coords[rows, 1:],
                    vertices.feats[rows],
                    intersected.feats[rows],
                    quad_lerp.feats[rows],
                    aabb=[[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]],
                    grid_size=resolution or self.resolution,
                    train=train,
                )
            )
            for rows in vertices.layout
        ]

    def forward(  # type: ignore[override]
        self,
        x: SparseTensor,
        gt_intersected: SparseTensor | None = None,
        return_subs: bool = False,
        resolution: int | None = None,
    ) -> Any:
        """Meshes, or `(meshes, subs)` with `return_subs`; `resolution` voxels along the unit cube (None: as
        the checkpoint says).

        Training returns `(meshes, vertices, intersected_logits, subs_gt, subs)`; its meshes are built from
        the true flags `gt_intersected`, and left out (an empty list) where none are given.
        """
        self._check(x, None, return_subs)
        h, truths, predictions = self.decode(x)
        vertices, logits, quad_lerp = self.dual_grid(h)
        if self.training:
            if gt_intersected is None:
                return [], vertices, logits, truths, predictions
            if gt_intersected.feats.shape != logits.feats.shape:
                raise InvalidArgumentError(
                    f"gt_intersected has shape {list(gt_intersected.feats.shape)}, the decoded voxels need "
                    f"{list(logits.feats.shape)}; decode a latent that remembers its encoder's voxels"
                )
            meshes = self.meshes(vertices, gt_intersected, quad_lerp, True, resolution)
            return meshes, vertices, logits, truths, predictions
        flags = logits.replace(logits.feats > 0)
        meshes = self.meshes(vertices, flags, quad_lerp, resolution=resolution)
        return (meshes, predictions) if return_subs else meshes
