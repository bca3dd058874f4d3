"""Background removal with BiRefNet and its relatives (such as RMBG-2.0), through transformers.

These repositories bring their own model code, which transformers runs. It runs that of `TRUSTED`
repositories; that of any other, and of a folder, only with `TRELLIS2_TRUST_CODE=1`: a downloaded
pipeline.json must not be able to name code that then runs. Pin `revision` for a service.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..errors import CheckpointError
from .hub import without_post_init, without_progress_bars
from .image_batch import image_batch, normalize_imagenet

INPUT_SIZE = 1024
TRUSTED = frozenset({"briaai/RMBG-2.0", "ZhengPeng7/BiRefNet"})
TRUST_VARIABLE = "TRELLIS2_TRUST_CODE"


def check_trust(model_name: str) -> None:
    """Raises `CheckpointError` unless the code of this repository or folder may run."""
    here = Path(model_name).exists()  # transformers prefers a folder to the repository of the same name
    if (here or model_name not in TRUSTED) and os.environ.get(TRUST_VARIABLE) != "1":
        raise CheckpointError(
            f"the background remover {model_name!r} brings Python code of its own, which was not run; if you "
            f"trust it, set {TRUST_VARIABLE}=1 (serve and app: --trust-code), else name one of "
            f"{', '.join(sorted(TRUSTED))} (rembg_model=...)"
        )


class BiRefNet:
    """RGB picture in, the same picture with the predicted matte as RGBA out."""

    def __init__(self, model_name: str, revision: str | None = None) -> None:
        check_trust(model_name)
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
