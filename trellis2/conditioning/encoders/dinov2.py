"""DINOv2 image tokens, through torch.hub."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from ...errors import CheckpointError
from ..trusted_code import trusted_revision
from .image_batch import image_batch, normalize_imagenet, normalize_tokens

HUB_REPO = "facebookresearch/dinov2"
INPUT_SIZE = 518


class DinoV2FeatureExtractor:
    """Tokens before DINOv2's final norm. No released weights use it; configs of the first TRELLIS name it.

    Pictures are always brought to 518x518, whatever `image_size` asks for.
    """

    def __init__(self, model_name: str, image_size: int = INPUT_SIZE) -> None:
        commit = trusted_revision(HUB_REPO)
        repository = f"{HUB_REPO}:{commit}" if commit else HUB_REPO
        try:
            model = torch.hub.load(repository, model_name, pretrained=True, trust_repo=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"DINOv2 {model_name!r} cannot be loaded from {HUB_REPO} ({error})"
            ) from error
        self.model_name = model_name
        self.image_size = image_size
        self.model = model.float().eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(
        self, image: torch.Tensor | Sequence[Image.Image], image_size: int | None = None
    ) -> torch.Tensor:
        """Tokens `[B, L, C]` of pictures, or of a tensor `[B, 3, H, W]` in 0..1 (used without resizing)."""
        batch = image_batch(image, INPUT_SIZE).to(self.device)
        return normalize_tokens(self.model(normalize_imagenet(batch), is_training=True)["x_prenorm"])

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> DinoV2FeatureExtractor:
        self.model.to(device)
        return self

    def cuda(self) -> DinoV2FeatureExtractor:
        return self.to("cuda")

    def cpu(self) -> DinoV2FeatureExtractor:
        return self.to("cpu")
