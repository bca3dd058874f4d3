"""The arguments of a flow transformer, and the random weights that training starts from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import InvalidArgumentError
from ..nn.precision import as_dtype

if TYPE_CHECKING:
    from .flow import FlowTransformer


@dataclass(frozen=True)
class FlowConfig:
    """A flow transformer as checkpoints describe it."""

    resolution: int  # cells along a dense latent's side; without effect on a structured latent
    in_channels: int
    model_channels: int
    cond_channels: int
    out_channels: int
    num_blocks: int
    num_heads: int | None = None  # None: as many as `num_head_channels` makes
    num_head_channels: int = 64
    mlp_ratio: float = 4.0
    pe_mode: str = "ape"  # or "rope"
    rope_freq: tuple[float, float] = (1.0, 10000.0)
    position_scale: float = 1.0  # of a structured latent's: 0.5 on a grid twice as fine as the learnt one
    dtype: str | torch.dtype = "float32"  # of the blocks
    use_checkpoint: bool = False  # recompute activations in training
    share_mod: bool = False  # one modulation for all blocks, each adding its own vector
    initialization: str = "vanilla"  # or "scaled"
    qk_rms_norm: bool = False
    qk_rms_norm_cross: bool = False
    image_attn_mode: str = "cross"  # or "proj": pixel-aligned, each token also sees a feature of its own
    proj_in_channels: int | None = None  # of these features; None: as many as `cond_channels`

    def __post_init__(self) -> None:
        if self.pe_mode not in ("ape", "rope"):
            raise InvalidArgumentError(f"pe_mode {self.pe_mode!r} is neither 'ape' nor 'rope'")
        if self.initialization not in ("vanilla", "scaled"):
            raise InvalidArgumentError(
                f"initialization {self.initialization!r} is neither 'vanilla' nor 'scaled'"
            )
        if self.image_attn_mode not in ("cross", "proj"):
            raise InvalidArgumentError(
                f"image_attn_mode {self.image_attn_mode!r} is neither 'cross' nor 'proj'"
            )
        as_dtype(self.dtype)
        object.__setattr__(self, "rope_freq", tuple(float(f) for f in self.rope_freq))

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> FlowConfig:
        """From a checkpoint's `args`. Raises `InvalidArgumentError` for unknown and for missing names."""
        known = {field.name: field for field in fields(cls)}
        unknown = [name for name in arguments if name not in known]
        if unknown:
            raise InvalidArgumentError(
                f"a flow transformer has no argument {', '.join(unknown)}; it takes {', '.join(known)}"
            )
        missing = [n for n, field in known.items() if field.default is MISSING and n not in arguments]
        if missing:
            raise InvalidArgumentError(f"a flow transformer needs {', '.join(missing)}")
        return cls(**arguments)

    @property
    def feature_channels(self) -> int | None:
        """Of each token's own feature; None for flows that are not pixel-aligned."""
        return (self.proj_in_channels or self.cond_channels) if self.image_attn_mode == "proj" else None

    @property
    def heads(self) -> int:
        return self.num_heads or self.model_channels // self.num_head_channels

    @property
    def head_dim(self) -> int:
        return self.model_channels // self.heads


def initialize_weights(flow: FlowTransformer) -> None:
    """Random weights for training from scratch; nothing on the meta device."""
    if flow.out_layer.weight.is_meta:
        return
    config = flow.config
    c, scaled = config.model_channels, config.initialization == "scaled"
    for name, layer in flow.named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        nn.init.zeros_(layer.bias)
        if name.startswith("t_embedder."):
            nn.init.normal_(layer.weight, std=0.02)
        elif not scaled:
            nn.init.xavier_uniform_(layer.weight)
        elif layer is flow.input_layer:
            nn.init.normal_(layer.weight, std=1 / math.sqrt(config.in_channels))
        elif name.endswith((".to_out", ".mlp.2")):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(5 * config.num_blocks * c))
        else:
            nn.init.normal_(layer.weight, std=math.sqrt(2 / (5 * c)))
    modulated = [flow] if config.share_mod else flow.blocks
    zeroed: list[nn.Linear] = [flow.out_layer, *(m.adaLN_modulation[1] for m in modulated)]  # type: ignore
    for linear in zeroed:
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
