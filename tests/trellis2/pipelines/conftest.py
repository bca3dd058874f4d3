"""A pipeline loaded from the tiny checkpoint, and a picture for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trellis2.pipelines import Trellis2ImageTo3DPipeline


@pytest.fixture(scope="session")
def pipeline(checkpoint: Path) -> Trellis2ImageTo3DPipeline:
    return Trellis2ImageTo3DPipeline.from_pretrained(checkpoint)


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """A shaded disc with its own matte."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    inside = x * x + y * y < 0.64
    shade = np.clip(160 + 80 * x - 60 * y, 0, 255)
    pixels = np.stack([shade, shade * 0.6, 255 - shade, inside * 255], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))
