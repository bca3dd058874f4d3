"""The flow transformer: one network for the sparse structure, the shape latent and the texture latent."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

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
from ..nn.step_graph import Pieces, in_one_go
from ..nn.timestep import TimestepEmbedder
from ..nn.tokens import TokenLayout
from ..sparse import SparseTensor
from .base import Model
from .context import ContextCache, KeptContexts

Context = torch.Tensor | Sequence[torch.Tensor]

PIECE = 5  # blocks: a recorded pass is cut after every so many


class FlowTransformer(Model):
    """Velocity of a batch of token sequences, given a time and image tokens.

    Everything that the dense and the sparse model share: input fp32, blocks in `dtype`, output fp32.
    """

    def __init__(
        self,
        resolution: int,
        in_channels: int,
        model_channels: int,
        cond_channels: int,
        out_channels: int,
        num_blocks: int,
        num_heads: int | None = None,
        num_head_channels: int = 64,
        mlp_ratio: float = 4,
        pe_mode: str = "ape",
        rope_freq: tuple[float, float] = (1.0, 10000.0),
        dtype: str | torch.dtype = "float32",
        use_checkpoint: bool = False,
        share_mod: bool = False,
        initialization: str = "vanilla",
        qk_rms_norm: bool = False,
        qk_rms_norm_cross: bool = False,
    ) -> None:
        super().__init__()
        if pe_mode not in ("ape", "rope"):
            raise InvalidArgumentError(f"pe_mode {pe_mode!r} is neither 'ape' nor 'rope'")
        if initialization not in ("vanilla", "scaled"):
            raise InvalidArgumentError(f"initialization {initialization!r} is neither 'vanilla' nor 'scaled'")
        self.resolution = resolution
        self.in_channels = in_channels
        self.model_channels = model_channels
        self.cond_channels = cond_channels
        self.out_channels = out_channels
        self.num_blocks = num_blocks
        self.num_heads = num_heads or model_channels // num_head_channels
        self.pe_mode = pe_mode
        self.rope_freq = (float(rope_freq[0]), float(rope_freq[1]))
        self.use_checkpoint = use_checkpoint
        self.share_mod = share_mod
        self.cuda_graphs = True  # whether repeated steps may be replayed; see `StepGraphs`

        self.t_embedder = TimestepEmbedder(model_channels)
        if share_mod:
            self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(model_channels, 6 * model_channels))
        self.input_layer = Linear(in_channels, model_channels)
        self.blocks = nn.ModuleList(
            ModulatedTransformerCrossBlock(
                model_channels,
                cond_channels,
                num_heads=self.num_heads,
                mlp_ratio=mlp_ratio,
                qk_rms_norm=qk_rms_norm,
                qk_rms_norm_cross=qk_rms_norm_cross,
                share_mod=share_mod,
            )
            for _ in range(num_blocks)
        )
        self.out_layer = Linear(model_channels, out_channels)
        self.initialize_weights(initialization)
        self.convert_to(as_dtype(dtype))

    @property
    def torso(self) -> list[nn.Module]:
        return [self.blocks]

    @property
    def head_dim(self) -> int:
        return self.model_channels // self.num_heads

    def initialize_weights(self, initialization: str) -> None:
        """Random weights for training from scratch; nothing on the meta device."""
        if self.out_layer.weight.is_meta:
            return
        c = self.model_channels
        modulated = [self] if self.share_mod else self._blocks
        scaled = initialization == "scaled"
        for name, layer in self.named_modules():
            if not isinstance(layer, nn.Linear):
                continue
            nn.init.zeros_(layer.bias)
            if name.startswith("t_embedder."):
                nn.init.normal_(layer.weight, std=0.02)
            elif not scaled:
                nn.init.xavier_uniform_(layer.weight)
            elif layer is self.input_layer:
                nn.init.normal_(layer.weight, std=1 / math.sqrt(self.in_channels))
            elif name.endswith((".to_out", ".mlp.2")):
                nn.init.normal_(layer.weight, std=1 / math.sqrt(5 * self.num_blocks * c))
            else:
                nn.init.normal_(layer.weight, std=math.sqrt(2 / (5 * c)))
        zeroed: list[nn.Linear] = [self.out_layer, *(m.adaLN_modulation[1] for m in modulated)]  # type: ignore
        for linear in zeroed:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    @property
    def _blocks(self) -> list[ModulatedTransformerCrossBlock]:
        return list(self.blocks)  # type: ignore[arg-type]

    def prepare_cond(self, cond: Context) -> ContextCache:
        """Keys and values of all blocks for image tokens `[B, L, C_ctx]` or a list of `[L_b, C_ctx]`."""
        if isinstance(cond, torch.Tensor):
            if cond.ndim != 3:
                raise InvalidArgumentError(
                    f"cond must be [B, L, {self.cond_channels}], got {list(cond.shape)}"
                )
            lengths, tokens = [cond.shape[1]] * cond.shape[0], cond.flatten(0, 1)
        else:
            lengths, tokens = [len(c) for c in cond], torch.cat(list(cond))
        if tokens.shape[1] != self.cond_channels:
            raise InvalidArgumentError(
                f"image tokens have {tokens.shape[1]} channels, this model was built for {self.cond_channels}"
            )
        tokens = self._to_torso(tokens)
        single = max(lengths) == 1
        blocks = tuple(block.cross_attn.key_value(tokens, single) for block in self._blocks)
        return ContextCache(TokenLayout.of(lengths, tokens.device), blocks)

    def _to_torso(self, x: torch.Tensor) -> torch.Tensor:
        return x if autocasting(x) else x.to(self.dtype)

    def velocity(
        self,
        tokens: torch.Tensor,
        layout: TokenLayout,
        t: torch.Tensor,
        cond: Context | ContextCache,
        phases: torch.Tensor | None,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens `[T, in_channels]`, times `[B]`, context, rotary phases `[T, D/2]` (or absolute positions
        `[T, C]`).

        Returns `[T, out_channels]` in the dtype of the tokens.
        """
        if t.shape != (layout.batch_size,):
            raise InvalidArgumentError(
                f"t has shape {list(t.shape)}, expected [{layout.batch_size}], a time an item"
            )
        context = cond if isinstance(cond, ContextCache) else self.prepare_cond(cond)
        if context.layout.batch_size != layout.batch_size:
            raise InvalidArgumentError(
                f"cond holds {context.layout.batch_size} items, x {layout.batch_size}; repeat the cond"
            )

        def step(tokens: torch.Tensor, t: torch.Tensor, blocks: int | None = None) -> Pieces:
            return self._velocity(tokens, t, layout, context, phases, positions, blocks)

        # Only a caller who made the context has more steps to make with it.
        graphs = context.graphs if context is cond and self.cuda_graphs and not self.training else None
        if graphs is None or not graphs.serve(tokens):
            return in_one_go(step(tokens, t))
        constants = [x for x in (phases, positions) if x is not None]

        def key() -> tuple[Any, ...]:
            return layout.lengths, *(x.data_ptr() for x in (*constants, *self.parameters()))

        return graphs.run(step, (tokens, t), key, constants, warm_up=partial(step, blocks=1))

    def _velocity(
        self,
        tokens: torch.Tensor,
        t: torch.Tensor,
        layout: TokenLayout,
        context: ContextCache,
        phases: torch.Tensor | None,
        positions: torch.Tensor | None,
        blocks: int | None = None,
    ) -> Pieces:
        """The pass itself, through the first `blocks` of its blocks (None: all)."""
        h = self._to_torso(self.input_layer(tokens))
        mod = self.t_embedder(t)
        if self.share_mod:
            mod = self.adaLN_modulation(mod)
        mod = self._to_torso(mod)
        if positions is not None:
            h = h + self._to_torso(positions)
        together = self.share_mod and not torch.is_grad_enabled()
        vectors = modulations(self._blocks, mod) if together else [None] * self.num_blocks
        several = list(zip(self.blocks, context.blocks, vectors, strict=True))[:blocks]
        for start in range(0, len(several), PIECE):
            if start:
                yield
            with attention_kernels(h):
                for block, key_value, own in several[start : start + PIECE]:
                    inputs = (h, layout, mod, key_value, context.layout, phases, own)
                    if self.use_checkpoint and self.training and torch.is_grad_enabled():
                        h = checkpoint(block, *inputs, use_reentrant=False)
                    else:
                        h = block(*inputs)
        out: torch.Tensor = self.out_layer(layer_norm(h.to(tokens.dtype)))
        return out


class SparseStructureFlowModel(FlowTransformer):
    """The flow of the sparse-structure latent: every cell of a dense `R^3` grid is a token."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Arguments of `FlowTransformer`; others, which some configs carry, are ignored."""
        known = inspect.signature(FlowTransformer).parameters
        super().__init__(*args, **{name: value for name, value in kwargs.items() if name in known})
        self.reset_buffers(self.device)
        self._kept = KeptContexts()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """As in `nn.Module`, for `to` and its like; recordings of weights that have moved are of no use."""
        before = self.out_layer.weight.data_ptr()
        result = super()._apply(fn, recurse)
        if self.out_layer.weight.data_ptr() != before:
            self._kept.clear()
        return result

    def prepare_cond(self, cond: Context) -> ContextCache:
        made = super().prepare_cond(cond)
        recorded = made.layout.device.type == "cuda" and self.cuda_graphs and not self.training
        return self._kept.lend(made) if recorded and not torch.is_grad_enabled() else made

    def reset_buffers(self, device: torch.device) -> None:
        coords = grid_coords(self.resolution, device)
        if self.pe_mode == "rope":
            self.register_buffer("rope_phases", rope_phases(coords, self.head_dim))
        else:
            self.register_buffer("pos_emb", sincos_positions(coords, self.model_channels))

    def _table(self, batch: int, cond: Context | ContextCache) -> torch.Tensor:
        """Every token's phases or positions, made once a sampling run."""
        table: torch.Tensor = self.rope_phases if self.pe_mode == "rope" else self.pos_emb  # type: ignore
        if batch == 1:
            return table
        if not isinstance(cond, ContextCache):
            return table.repeat(batch, 1)
        if batch not in cond.tables:
            cond.tables[batch] = table.repeat(batch, 1)
        return cond.tables[batch]

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, cond: Context | ContextCache, **_ignored: Any
    ) -> torch.Tensor:
        """Velocity `[B, out, R, R, R]` for `x [B, in, R, R, R]`, `t [B]` (1000 times the time), tokens."""
        r = self.resolution
        if x.shape[1:] != (self.in_channels, r, r, r):
            raise InvalidArgumentError(
                f"x has shape {list(x.shape)}, expected [B, {self.in_channels}, {r}, {r}, {r}]"
            )
        batch = x.shape[0]
        tokens = x.flatten(2).transpose(1, 2).flatten(0, 1)
        layout = TokenLayout.of([r**3] * batch, x.device)
        rope = self.pe_mode == "rope"
        table = self._table(batch, cond)
        v = self.velocity(tokens, layout, t, cond, table if rope else None, None if rope else table)
        return v.unflatten(0, (batch, -1)).transpose(1, 2).unflatten(2, (r, r, r)).contiguous()


class SLatFlowModel(FlowTransformer):
    """The flow of a structured latent: every occupied voxel is a token. `resolution` has no effect on the
    numbers.
    """

    def forward(
        self,
        x: SparseTensor,
        t: torch.Tensor,
        cond: Context | ContextCache,
        concat_cond: SparseTensor | None = None,
        **_ignored: Any,
    ) -> SparseTensor:
        """Velocity on x's voxels; `concat_cond` (the same voxels in the same order) is appended after x's
        channels.
        """
        feats = x.feats
        if concat_cond is not None:
            if concat_cond.feats.shape[0] != feats.shape[0]:
                raise InvalidArgumentError(
                    f"concat_cond has {concat_cond.feats.shape[0]} voxels, x {feats.shape[0]}; give the same"
                )
            feats = torch.cat([feats, concat_cond.feats.to(feats.dtype)], dim=1)
        if feats.shape[1] != self.in_channels:
            raise InvalidArgumentError(
                f"x and concat_cond have {feats.shape[1]} channels, this model takes {self.in_channels}"
            )
        layout = x.cached("token_layout", lambda: TokenLayout.of(x.lengths, x.device))
        phases = positions = None
        if self.pe_mode == "rope":
            name = f"rope {self.head_dim} {self.rope_freq}"
            phases = x.cached(name, lambda: rope_phases(x.coords[:, 1:], self.head_dim, self.rope_freq))
        else:
            name = f"sincos {self.model_channels}"
            positions = x.cached(name, lambda: sincos_positions(x.coords[:, 1:], self.model_channels))
        return x.replace(self.velocity(feats, layout, t, cond, phases, positions))
