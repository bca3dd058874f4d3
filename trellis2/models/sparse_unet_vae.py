"""The sparse U-Net VAE: a texture codec as it is, and the trunk of the shape codec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgumentError
from ..nn.elementwise import layer_norm
from ..nn.layers import Linear
from ..sparse import SparseTensor
from ..sparse.resample import true_subdivision
from .base import Model
from .sparse_blocks import block_class


def _levels(
    widths: Sequence[int],
    counts: Sequence[int],
    block_types: Sequence[str],
    change_types: Sequence[str],
    block_args: Sequence[dict[str, Any]],
    change_args: dict[str, Any],
) -> nn.ModuleList:
    """A list of blocks a level, each level but the last closed by the block that changes the resolution."""
    last = len(widths) - 1
    for name, have, want in (
        ("num_blocks", len(counts), last + 1),
        ("block_type", len(block_types), last + 1),
        ("block_args", len(block_args), last + 1),
        ("up/down_block_type", len(change_types), last),
    ):
        if have != want:
            raise InvalidArgumentError(
                f"{name} has {have} entries, but model_channels has {last + 1} levels: need {want}"
            )
    levels = nn.ModuleList()
    for i, width in enumerate(widths):
        level: list[nn.Module] = [
            block_class(block_types[i])(width, **block_args[i]) for _ in range(counts[i])
        ]
        if i < last:
            shared = {k: v for k, v in block_args[i].items() if k == "use_checkpoint"}
            level.append(block_class(change_types[i])(width, widths[i + 1], **shared, **change_args))
        levels.append(nn.ModuleList(level))
    return levels


def _initialize_linears(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.is_meta:
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


class _SparseUnet(Model):
    blocks: nn.ModuleList

    @property
    def torso(self) -> list[nn.Module]:
        return [self.blocks]


class SparseUnetVaeEncoder(_SparseUnet):
    """Voxels with `in_channels` features to a latent on a grid 2^(levels-1) times coarser."""

    def __init__(
        self,
        in_channels: int,
        model_channels: Sequence[int],
        latent_channels: int,
        num_blocks: Sequence[int],
        block_type: Sequence[str],
        down_block_type: Sequence[str],
        block_args: Sequence[dict[str, Any]],
        use_fp16: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.latent_channels = latent_channels
        self.input_layer = Linear(in_channels, model_channels[0])
        self.to_latent = Linear(model_channels[-1], 2 * latent_channels)
        self.blocks = _levels(model_channels, num_blocks, block_type, down_block_type, block_args, {})
        _initialize_linears(self)
        self.convert_to(torch.float16 if use_fp16 else torch.float32)

    def forward(
        self, x: SparseTensor, sample_posterior: bool = False, return_raw: bool = False
    ) -> SparseTensor | tuple[SparseTensor, torch.Tensor, torch.Tensor]:
        """The latent's mean (or a sample) on the coarse voxels, which remember the fine ones.

        `(z, mean, logvar)` with `return_raw`, the last two `[N, latent]`.
        """
        return self.encode(x, sample_posterior, return_raw)

    def encode(
        self, x: SparseTensor, sample_posterior: bool, return_raw: bool
    ) -> SparseTensor | tuple[SparseTensor, torch.Tensor, torch.Tensor]:
        """The mean (or a sample of the posterior) at the coarsest level; `(z, mean, logvar)` with
        `return_raw`.
        """
        h = x.replace(self.input_layer(x.feats).to(self.dtype))
        for level in self.blocks:
            for block in level:  # type: ignore[attr-defined]
                h = block(h)
        mean, logvar = self.to_latent(layer_norm(h.feats.to(x.dtype))).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean) if sample_posterior else mean
        return (h.replace(z), mean, logvar) if return_raw else h.replace(z)


class SparseUnetVaeDecoder(_SparseUnet):
    """A latent to `out_channels` features on a grid 2^(levels-1) times finer.

    Which finer voxels exist is remembered by the latent, predicted (`pred_subdiv`), or given as guides.
    """

    def __init__(
        self,
        out_channels: int,
        model_channels: Sequence[int],
        latent_channels: int,
        num_blocks: Sequence[int],
        block_type: Sequence[str],
        up_block_type: Sequence[str],
        block_args: Sequence[dict[str, Any]],
        use_fp16: bool = False,
        pred_subdiv: bool = True,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.latent_channels = latent_channels
        self.pred_subdiv = pred_subdiv
        self.output_layer = Linear(model_channels[-1], out_channels)
        self.from_latent = Linear(latent_channels, model_channels[0])
        change_args = {"pred_subdiv": pred_subdiv}
        self.blocks = _levels(model_channels, num_blocks, block_type, up_block_type, block_args, change_args)
        _initialize_linears(self)
        self.convert_to(torch.float16 if use_fp16 else torch.float32)

    def _run_levels(
        self, x: SparseTensor, levels: int, guide_subs: Sequence[SparseTensor] | None = None
    ) -> tuple[SparseTensor, list[torch.Tensor | None], list[SparseTensor]]:
        """Features after the first `levels` levels, with true and predicted subdivisions of each up block."""
        h = x.replace(self.from_latent(x.feats).to(self.dtype))
        truths: list[torch.Tensor | None] = []
        predictions: list[SparseTensor] = []
        last = len(self.blocks) - 1
        for i, level in enumerate(list(self.blocks)[:levels]):
            *same, change = [*level, None] if i == last else [*level]  # type: ignore[misc]
            for block in same:
                h = block(h)
            if change is None:
                continue
            truths.append(true_subdivision(h) if self.training else None)
            if self.pred_subdiv:
                h, logits = change(h)
                predictions.append(logits)
            else:
                h = change(h, None if guide_subs is None else guide_subs[i])
        return h, truths, predictions

    def _check(self, x: SparseTensor, guide_subs: Sequence[SparseTensor] | None, return_subs: bool) -> None:
        if x.feats.shape[1] != self.latent_channels:
            raise InvalidArgumentError(
                f"the latent has {x.feats.shape[1]} channels, this decoder takes {self.latent_channels}"
            )
        if guide_subs is not None and self.pred_subdiv:
            raise InvalidArgumentError(
                "guide_subs given to a decoder that predicts its subdivisions; leave them out"
            )
        if guide_subs is not None and len(guide_subs) != len(self.blocks) - 1:
            raise InvalidArgumentError(f"{len(guide_subs)} guide_subs for {len(self.blocks) - 1} up blocks")
        if return_subs and not self.pred_subdiv:
            raise InvalidArgumentError("return_subs asked of a decoder that predicts no subdivisions")

    def decode(
        self, x: SparseTensor, guide_subs: Sequence[SparseTensor] | None = None
    ) -> tuple[SparseTensor, list[torch.Tensor | None], list[SparseTensor]]:
        """The output features with the true (training only) and predicted subdivisions, coarse to fine."""
        h, truths, predictions = self._run_levels(x, len(self.blocks), guide_subs)
        return h.replace(self.output_layer(layer_norm(h.feats.to(x.dtype)))), truths, predictions

    def forward(
        self, x: SparseTensor, guide_subs: Sequence[SparseTensor] | None = None, return_subs: bool = False
    ) -> Any:
        """The decoded tensor; `(h, subs)` with `return_subs`; `(h, subs_gt, subs)` when training with
        prediction.

        `subs` are logits on the coarse voxels of each up block, `subs_gt` the boolean truth that the encoder
        left.
        """
        self._check(x, guide_subs, return_subs)
        h, truths, predictions = self.decode(x, guide_subs)
        if self.training and self.pred_subdiv:
            return h, truths, predictions
        return (h, predictions) if return_subs else h

    @torch.no_grad()
    def upsample(self, x: SparseTensor, upsample_times: int) -> torch.Tensor:
        """Coordinates `[T', 4]` after the first `upsample_times` up blocks, by predicted subdivision."""
        self._check(x, None, True)
        if not 1 <= upsample_times < len(self.blocks):
            raise InvalidArgumentError(
                f"upsample_times is {upsample_times}, this decoder has {len(self.blocks) - 1} up blocks"
            )
        return self._run_levels(x, upsample_times)[0].coords
