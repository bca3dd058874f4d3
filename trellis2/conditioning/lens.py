"""The field of view of a picture, estimated by MoGe-2 (Wang et al., 2025; MIT) where that is installed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import BackendError, InvalidImageError

MODEL = "Ruicheng/moge-2-vitl"
MISSING = (
    "the field of view is estimated by MoGe-2, which is not installed where the model runs: pip install "
    "git+https://github.com/microsoft/MoGe.git there, or give fov"
)


class LensEstimator:
    """MoGe-2 as far as it is needed: a picture in, its horizontal field of view out.

    Raises `BackendError` where the package `moge` is missing. Weights are downloaded at the first use.
    """

    def __init__(self, model_name: str = MODEL) -> None:
        try:
            from moge.model.v2 import MoGeModel
        except ImportError as error:
            raise BackendError(MISSING) from error
        self.model: Any = MoGeModel.from_pretrained(model_name).eval()

    @torch.no_grad()
    def __call__(self, picture: Image.Image, device: torch.device | str = "cpu") -> float:
        """Degrees, of an RGB picture cropped as the flows see it. Raises `InvalidImageError`."""
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
        image = torch.from_numpy(pixels).permute(2, 0, 1).to(device)  # [3, H, W] in 0..1
        focal = float(self.model.to(device).infer(image)["intrinsics"][0, 0])  # in widths of the picture
        if not 0 < focal < math.inf:
            raise InvalidImageError(
                "the field of view of this picture cannot be estimated; give fov, in degrees"
            )
        return math.degrees(2 * math.atan(1 / (2 * focal)))
