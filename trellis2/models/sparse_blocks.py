"""The blocks of the sparse U-Net VAE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import InvalidArgumentError
from ..nn.layers import LayerNorm32, Linear
from ..sparse import SparseConv3d, SparseSpatial2Channel, SparseTensor
from ..sparse.resample import Expansion

# Rows that go through a voxel-wise MLP at once when no gradient is needed: its hidden layer is four times as
# wide.
_MLP_ROWS = {"cpu": 1 << 13, "cuda": 1 << 19}


def _in_pieces(call: Callable[[torch.Tensor], torch.Tensor], feats: torch.Tensor) -> torch.Tensor:
    rows = _MLP_ROWS.get(feats.device.type, 1 << 16)
    if torch.is_grad_enabled() or feats.shape[0] <= rows:
        return call(feats)
    return torch.cat([call(piece) for piece in feats.split(rows)])


def _checkpointed(use: bool, module: nn.Module, call: Callable[..., Any], *inputs: Any) -> Any:
    if use and module.training and torch.is_grad_enabled():
        return checkpoint(call, *inputs, use_reentrant=False)
    return call(*inputs)


class SparseConvNeXtBlock3d(nn.Module):
    """Convolution, norm and a four times wider SiLU MLP, added to the input."""

    def __init__(self, channels: int, mlp_ratio: float = 4.0, use_checkpoint: bool = False) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.norm = LayerNorm32(channels, eps=1e-6)
        self.conv = SparseConv3d(channels, channels)
        hidden = int(channels * mlp_ratio)
        self.mlp = nn.Sequential(Linear(channels, hidden), nn.SiLU(), Linear(hidden, channels))

    def _forward(self, x: SparseTensor) -> SparseTensor:
        h = self.conv(x).feats
        return x.replace(x.feats + _in_pieces(lambda piece: self.mlp(self.norm(piece)), h))

    def forward(self, x: SparseTensor) -> SparseTensor:
        out: SparseTensor = _checkpointed(self.use_checkpoint, self, self._forward, x)
        return out


class _SparseResBlock(nn.Module):
    """What the up and the down block share: their layers."""

    def __init__(self, channels: int, out_channels: int, conv1_channels: int, use_checkpoint: bool) -> None:
        super().__init__()
        self.channels = channels
        self.out_channels = out_channels
        self.use_checkpoint = use_checkpoint
        self.norm1 = LayerNorm32(channels, eps=1e-6)
        self.norm2 = LayerNorm32(out_channels, elementwise_affine=False, eps=1e-6)
        self.conv1 = SparseConv3d(channels, conv1_channels)
        self.conv2 = SparseConv3d(out_channels, out_channels)
        if not self.conv2.weight.is_meta:
            nn.init.zeros_(self.conv2.weight)
            nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]


class SparseResBlockC2S3d(_SparseResBlock):
    """Doubles the resolution; predicts which children exist unless told, or the tensor remembers them."""

    def __init__(
        self, channels: int, out_channels: int, use_checkpoint: bool = False, pred_subdiv: bool = True
    ) -> None:
        if channels % 8 or out_channels % (channels // 8):
            raise InvalidArgumentError(
                f"an up block from {channels} to {out_channels} channels: the first must be a multiple of 8, "
                "the second a multiple of an eighth of it"
            )
        super().__init__(channels, out_channels, 8 * out_channels, use_checkpoint)
        self.pred_subdiv = pred_subdiv
        if pred_subdiv:
            self.to_subdiv = Linear(channels, 8)

    def _forward(self, x: SparseTensor, subdiv: SparseTensor | None) -> Any:
        logits = x.replace(self.to_subdiv(x.feats)) if self.pred_subdiv else subdiv
        expansion = Expansion.following(x, logits)
        h = self.conv1(x.replace(self.norm1(x.feats, silu=True)))
        h = expansion.apply(h.feats)
        h = self.conv2(h.replace(self.norm2(h.feats, silu=True)))
        skip = expansion.apply(x.feats).feats
        repeats = self.out_channels // skip.shape[1]
        out = h.replace(h.feats + skip.repeat_interleave(repeats, dim=1))
        return (out, logits) if self.pred_subdiv else out

    def forward(self, x: SparseTensor, subdiv: SparseTensor | None = None) -> Any:
        """The finer tensor, with the subdivision logits on the coarse voxels when predicting."""
        return _checkpointed(self.use_checkpoint, self, self._forward, x, subdiv)


class SparseResBlockS2C3d(_SparseResBlock):
    """Halves the resolution."""

    def __init__(self, channels: int, out_channels: int, use_checkpoint: bool = False) -> None:
        if out_channels % 8 or (8 * channels) % out_channels:
            raise InvalidArgumentError(
                f"a down block from {channels} to {out_channels} channels: the second must be a multiple of "
                "8 and divide eight times the first"
            )
        super().__init__(channels, out_channels, out_channels // 8, use_checkpoint)
        self.downsample = SparseSpatial2Channel()

    def _forward(self, x: SparseTensor) -> SparseTensor:
        h = self.downsample(self.conv1(x.replace(self.norm1(x.feats, silu=True))))
        skip = self.downsample(x).feats
        h = self.conv2(h.replace(self.norm2(h.feats, silu=True)))
        return h.replace(h.feats + skip.unflatten(1, (self.out_channels, -1)).mean(-1))

    def forward(self, x: SparseTensor) -> SparseTensor:
        out: SparseTensor = _checkpointed(self.use_checkpoint, self, self._forward, x)
        return out


BLOCKS: dict[str, type[nn.Module]] = {
    block.__name__: block for block in (SparseConvNeXtBlock3d, SparseResBlockC2S3d, SparseResBlockS2C3d)
}


def block_class(name: str) -> type[nn.Module]:
    """The block that a config names. Raises InvalidArgumentError for one that no published model uses."""
    if name not in BLOCKS:
        raise InvalidArgumentError(f"block type {name!r} is not one of {', '.join(BLOCKS)}")
    return BLOCKS[name]
