"""The flow transformer: one network for the sparse structure, the shape latent and the texture latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import InvalidArgumentError
from ..nn.attention import attention_kernels
from ..nn.block import ModulatedTransformerCrossBlock, modulations
from ..nn.elementwise import layer_norm
from ..nn.layers import Linear
from ..nn.precision import as_dtype, autocasting
from ..nn.rope import grid_coords, rope_phases, sincos_positions
from ..nn.timestep import TimestepEmbedder
from ..nn.tokens import PixelTokens, TokenLayout
from ..sparse import SparseTensor
from .base import Model
from .context import ContextCache
from .flow_config import FlowConfig, initialize_weights

Context = torch.Tensor | Sequence[torch.Tensor] | PixelTokens
ALL = slice(None)
SHORT_CONTEXT = 2048  # image tokens whose keys and values are always stored


class Tokens(NamedTuple):
    """A latent as the transformer takes it."""

    features: torch.Tensor  # [T, in_channels]
    layout: TokenLayout
    phases: torch.Tensor | None  # [T, D/2] complex: rotations of queries and keys
    positions: torch.Tensor | None  # [T, C]: added to the tokens; configs have the one or the other


class Hidden(NamedTuple):
    """What passes from block to block."""

    h: torch.Tensor  # [T, C]
    mod: torch.Tensor  # [B, 6C] where blocks share the modulation, else [B, C]
    vectors: torch.Tensor | None  # [blocks, B, 6C]: each block's modulation, where they are made together
    phases: torch.Tensor | None


class FlowTransformer(Model):
    """Velocity of a batch of latents, given a time and image tokens: input float32, blocks in `dtype`, output
    float32. Subclasses say how a latent becomes tokens, and tokens a latent.
    """

    def __init__(self, **arguments: Any) -> None:
        """Takes the fields of `FlowConfig`; others are refused by name."""
        super().__init__()
        self.config = c = FlowConfig.from_arguments(arguments)
        width = c.model_channels
        self.t_embedder = TimestepEmbedder(width)
        if c.share_mod:
            self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(width, 6 * width))
        self.input_layer = Linear(c.in_channels, width)
        self.blocks: nn.ModuleList = nn.ModuleList(
            ModulatedTransformerCrossBlock(
                width,
                c.cond_channels,
                num_heads=c.heads,
                mlp_ratio=c.mlp_ratio,
                qk_rms_norm=c.qk_rms_norm,
                qk_rms_norm_cross=c.qk_rms_norm_cross,
                share_mod=c.share_mod,
                feature_channels=c.feature_channels,
            )
            for _ in range(c.num_blocks)
        )
        self.out_layer = Linear(width, c.out_channels)
        initialize_weights(self)
        self.convert_to(as_dtype(c.dtype))
        self.reset_buffers(self.device)

    @property
    def torso(self) -> list[nn.Module]:
        return [self.blocks]

    @property
    def resolution(self) -> int:
        return self.config.resolution

    @property
    def in_channels(self) -> int:
        return self.config.in_channels

    def stored_dtypes(self) -> dict[str, torch.dtype]:
        """As published: pixel-aligned flows are stored in float32 whatever their `dtype`."""
        if self.config.feature_channels is not None:
            return {name: torch.float32 for name, _ in self.named_parameters()}
        return super().stored_dtypes()

    def to_tokens(self, x: Any, concat_cond: Any = None) -> Tokens:
        """The tokens of a latent, `concat_cond` (the same voxels in the same order) after its channels."""
        raise NotImplementedError

    def to_latent(self, velocity: torch.Tensor, like: Any) -> Any:
        """Token rows `[T, out_channels]` as a latent like `like`."""
        raise NotImplementedError

    def prepare_cond(self, cond: Context, store: bool = True) -> ContextCache:
        """Keys and values of all blocks for image tokens `[B, L, C_ctx]` or a list of `[L_b, C_ctx]`.

        A pixel-aligned flow takes `PixelTokens` and only these. Without `store` long contexts stay tokens,
        which each block projects anew at every step.
        """
        expected, features = self.config.cond_channels, None
        aligned = self.config.feature_channels is not None
        if isinstance(cond, PixelTokens):
            if not aligned:
                raise InvalidArgumentError("this flow is not pixel-aligned: it takes image tokens alone")
            features = self._features(cond.rows)
            cond = cond.tokens
        elif aligned:
            raise InvalidArgumentError(
                "this flow is pixel-aligned: it takes PixelTokens, which hold features of its own tokens"
            )
        if isinstance(cond, torch.Tensor):
            if cond.ndim != 3:
                raise InvalidArgumentError(f"cond must be [B, L, {expected}], got {list(cond.shape)}")
            lengths, tokens = [cond.shape[1]] * cond.shape[0], cond.flatten(0, 1)
        else:
            lengths, tokens = [len(c) for c in cond], torch.cat(list(cond))
        if tokens.shape[1] != expected:
            raise InvalidArgumentError(
                f"image tokens have {tokens.shape[1]} channels, this model was built for {expected}"
            )
        tokens, single = self._to_torso(tokens), features is None and max(lengths) == 1
        if not store and len(tokens) > SHORT_CONTEXT:
            return ContextCache(TokenLayout.of(lengths, tokens.device), (), features, tokens.contiguous())
        blocks = tuple(block.cross_attn.key_value(tokens, single) for block in self.blocks)  # type: ignore
        return ContextCache(TokenLayout.of(lengths, tokens.device), blocks, features)

    def _features(self, rows: torch.Tensor | None) -> torch.Tensor | None:
        """A pixel-aligned flow's features as its blocks take them."""
        expected = self.config.feature_channels
        if rows is not None and rows.shape[1:] != (expected,):
            raise InvalidArgumentError(
                f"token features have shape {list(rows.shape)}, this model was built for [T, {expected}]"
            )
        return None if rows is None else self._to_torso(rows)

    def forward(self, x: Any, t: torch.Tensor, cond: Context | ContextCache, concat_cond: Any = None) -> Any:
        """Velocity of a latent `x` at times `t [B]` (1000 times the sampler's) under image tokens.

        `cond` from `prepare_cond` saves making its keys and values anew at every step.
        """
        tokens = self.to_tokens(x, concat_cond)
        context = cond if isinstance(cond, ContextCache) else self.prepare_cond(cond)
        check_batch(tokens.layout, t, context)
        hidden = self.embed(tokens.features, t, tokens.phases, tokens.positions)
        hidden = self.run_blocks(hidden, tokens.layout, context)
        return self.to_latent(self.output(hidden), x)

    def embed(
        self,
        features: torch.Tensor,
        t: torch.Tensor,
        phases: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> Hidden:
        """What the first block takes."""
        h = self._to_torso(self.input_layer(features))
        if positions is not None:
            h = h + self._to_torso(positions)
        mod = self.t_embedder(t)
        if self.config.share_mod:
            mod = self.adaLN_modulation(mod)
        mod = self._to_torso(mod)
        together = self.config.share_mod and not torch.is_grad_enabled()
        return Hidden(h, mod, modulations(self.blocks, mod) if together else None, phases)  # type: ignore

    def run_blocks(
        self, hidden: Hidden, layout: TokenLayout, context: ContextCache, which: slice = ALL
    ) -> Hidden:
        """Through all blocks, or some of them in a row."""
        h, mod, vectors, phases = hidden
        recompute = self.config.use_checkpoint and self.training and torch.is_grad_enabled()
        with attention_kernels(h, layout):
            for i in range(self.config.num_blocks)[which]:
                own, block = None if vectors is None else vectors[i], self.blocks[i]
                stored = context.blocks
                key_value = stored[i] if stored else block.cross_attn.key_value(context.tokens)  # type: ignore
                inputs = (h, layout, mod, key_value, context.layout, phases, own, context.features)
                h = checkpoint(block, *inputs, use_reentrant=False) if recompute else block(*inputs)
        return hidden._replace(h=h)

    def output(self, hidden: Hidden) -> torch.Tensor:
        """Token rows `[T, out_channels]` in float32."""
        velocity: torch.Tensor = self.out_layer(layer_norm(hidden.h.float()))
        return velocity

    def _to_torso(self, x: torch.Tensor) -> torch.Tensor:
        return x if autocasting(x) else x.to(self.dtype)


def check_batch(layout: TokenLayout, t: torch.Tensor, context: ContextCache) -> None:
    """Raise `InvalidArgumentError` unless there are a time and a context for each item."""
    batch = layout.batch_size
    if t.shape != (batch,):
        raise InvalidArgumentError(f"t has shape {list(t.shape)}, expected [{batch}], a time an item")
    if context.layout.batch_size != batch:
        raise InvalidArgumentError(
            f"cond holds {context.layout.batch_size} items, x {batch}; repeat the cond"
        )
    rows, tokens = context.features, sum(layout.lengths)
    if rows is not None and len(rows) != tokens:
        raise InvalidArgumentError(
            f"there are features of {len(rows)} tokens, x has {tokens}; give one a token"
        )


class SparseStructureFlowModel(FlowTransformer):
    """The flow of the sparse-structure latent `[B, C, R, R, R]`: each cell is a token, z fastest."""

    def reset_buffers(self, device: torch.device) -> None:
        coords = grid_coords(self.resolution, device)
        if self.config.pe_mode == "rope":
            self.register_buffer("rope_phases", rope_phases(coords, self.config.head_dim))
        else:
            self.register_buffer("pos_emb", sincos_positions(coords, self.config.model_channels))

    def to_tokens(self, x: torch.Tensor, concat_cond: None = None) -> Tokens:
        """Dense latents [B, C, R, R, R] as one row a cell; raises `InvalidArgumentError` for other shapes."""
        r = self.resolution
        if x.shape[1:] != (self.in_channels, r, r, r):
            raise InvalidArgumentError(
                f"x has shape {list(x.shape)}, expected [B, {self.in_channels}, {r}, {r}, {r}]"
            )
        batch, rope = x.shape[0], self.config.pe_mode == "rope"
        table: torch.Tensor = self.rope_phases if rope else self.pos_emb  # type: ignore[assignment]
        table = table if batch == 1 else table.repeat(batch, 1)
        layout = TokenLayout.of([r**3] * batch, x.device, recurring=True)
        features = x.flatten(2).transpose(1, 2).flatten(0, 1)
        return Tokens(features, layout, table if rope else None, None if rope else table)

    def to_latent(self, velocity: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        r, batch = self.resolution, like.shape[0]
        return velocity.unflatten(0, (batch, -1)).transpose(1, 2).unflatten(2, (r, r, r)).contiguous()


class SLatFlowModel(FlowTransformer):
    """The flow of a structured latent: every occupied voxel is a token."""

    def to_tokens(self, x: SparseTensor, concat_cond: SparseTensor | None = None) -> Tokens:
        """One row a voxel, with the features of `concat_cond` behind its own; what depends on coordinates
        alone is kept with the tensor. Raises `InvalidArgumentError` where channels or voxels do not fit.
        """
        feats, c = x.feats, self.config
        if concat_cond is not None:
            if concat_cond.feats.shape[0] != feats.shape[0]:
                raise InvalidArgumentError(
                    f"concat_cond has {concat_cond.feats.shape[0]} voxels, x {feats.shape[0]}; give the same"
                )
            feats = torch.cat([feats, concat_cond.feats.to(feats.dtype)], dim=1)
        if feats.shape[1] != c.in_channels:
            raise InvalidArgumentError(
                f"x and concat_cond have {feats.shape[1]} channels, this model takes {c.in_channels}"
            )
        layout = x.cached("token_layout", lambda: TokenLayout.of(x.lengths, x.device))
        phases = positions = None
        if c.pe_mode == "rope":
            name = f"rope {c.head_dim} {c.rope_freq} {c.position_scale}"
            phases = x.cached(name, lambda: rope_phases(self._places(x), c.head_dim, c.rope_freq))
        else:
            name = f"sincos {c.model_channels} {c.position_scale}"
            positions = x.cached(name, lambda: sincos_positions(self._places(x), c.model_channels))
        return Tokens(feats, layout, phases, positions)

    def _places(self, x: SparseTensor) -> torch.Tensor:
        """The voxels' places `[T, 3]` in cells of the grid that the flow learnt."""
        coords, scale = x.coords[:, 1:], self.config.position_scale
        return coords if scale == 1 else (coords.float() + 0.5) * scale - 0.5

    def to_latent(self, velocity: torch.Tensor, like: SparseTensor) -> SparseTensor:
        return like.replace(velocity)
