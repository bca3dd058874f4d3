"""DINOv3 image tokens, through transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import nn

from ...errors import CheckpointError
from ..hub import without_progress_bars
from .image_batch import image_batch, normalize_imagenet, normalize_tokens


class DinoV3FeatureExtractor:
    """Tokens before DINOv3's final norm: CLS, registers, then patches row by row.

    `model_name` is a hub id or a local folder. At `image_size` S and patches of 16 the result is float32
    `[B, 1 + 4 + (S/16)², 1024]` (ViT-L/16). Raises `CheckpointError` when the weights cannot be had.
    """

    def __init__(self, model_name: str, image_size: int = 512, revision: str | None = None) -> None:
        from transformers import AutoModel

        try:
            with without_progress_bars():
                model = AutoModel.from_pretrained(model_name, revision=revision)
        except Exception as error:  # absent, gated, damaged, or of a version that transformers does not read
            raise CheckpointError(
                f"the image encoder {model_name!r} cannot be loaded ({type(error).__name__}: {error}); "
                "accept its licence on the hub "
                "and log in, or name an ungated copy or a local folder (image_cond_model=...)"
            ) from error
        self.model_name = model_name
        self.image_size = image_size
        self.model = without_final_norm(model).float().eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(
        self, image: torch.Tensor | Sequence[Image.Image], image_size: int | None = None
    ) -> torch.Tensor:
        """Tokens `[B, L, C]` of pictures, or of a tensor `[B, 3, H, W]` in 0..1 (used without resizing)."""
        batch = image_batch(image, image_size or self.image_size).to(self.device)
        tokens = self.model(pixel_values=normalize_imagenet(batch)).last_hidden_state
        return normalize_tokens(tokens)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> DinoV3FeatureExtractor:
        self.model.to(device)
        return self

    def cuda(self) -> DinoV3FeatureExtractor:
        return self.to("cuda")

    def cpu(self) -> DinoV3FeatureExtractor:
        return self.to("cpu")


def without_final_norm(model: nn.Module) -> nn.Module:
    """The model with its last norm replaced by identity: `last_hidden_state` is then the last layer's output.

    This holds for transformers 4 (layers in `model.layer`) and 5 (in `model.model.layer`) alike.
    """
    if not isinstance(getattr(model, "norm", None), nn.Module):
        raise CheckpointError(f"{type(model).__name__} has no final norm: it is not a DINOv3 ViT")
    model.norm = nn.Identity()
    return model
