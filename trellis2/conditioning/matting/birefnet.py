"""Background removal with BiRefNet and its relatives (such as RMBG-2.0), through transformers.

These repositories bring their own model code, which transformers runs: see `trusted_code` for whose.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from ...errors import CheckpointError
from ..encoders.image_batch import image_batch, normalize_imagenet
from ..hub import without_post_init, without_progress_bars
from ..trusted_code import tell_how_to_pin, trusted_revision

INPUT_SIZE = 1024


class BiRefNet:
    """RGB picture in, the same picture with the predicted matte as RGBA out."""

    def __init__(self, model_name: str, revision: str | None = None) -> None:
        revision = trusted_revision(model_name, revision)
        from transformers import AutoModelForImageSegmentation

        try:
            with without_progress_bars(), without_post_init():
                model = AutoModelForImageSegmentation.from_pretrained(
                    model_name, revision=revision, trust_remote_code=True
                )
        except Exception as error:  # code of the repository runs here: it can fail in any way
            raise CheckpointError(
                f"the background remover {model_name!r} cannot be loaded ({type(error).__name__}: {error}); "
                "accept its licence "
                "on the hub and log in, install what it asks for, or name another copy (rembg_model=...)"
            ) from error
        commit = getattr(getattr(model, "config", None), "_commit_hash", None)
        tell_how_to_pin(model_name, revision, commit)
        self.model_name = model_name
        self.model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> Image.Image:
        """The picture with its matte; the matte is predicted at 1024x1024 and brought back to size."""
        image = image.convert("RGB")
        first = next(self.model.parameters())
        square = image.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BILINEAR)
        batch = normalize_imagenet(image_batch([square], INPUT_SIZE)).to(first.device, first.dtype)
        logits = self.model(batch)[-1]
        matte = logits.sigmoid()[0].squeeze().float().cpu().numpy()  # [1024, 1024]
        alpha = Image.fromarray((matte * 255).astype(np.uint8)).resize(image.size)
        image.putalpha(alpha)
        return image

    def to(self, device: torch.device | str) -> BiRefNet:
        self.model.to(device)
        return self

    def cuda(self) -> BiRefNet:
        return self.to("cuda")

    def cpu(self) -> BiRefNet:
        return self.to("cpu")
