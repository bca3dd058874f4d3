"""What differs between the families of weights that one pipeline class runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..conditioning.preprocess import PIXEL_ALIGNED_MARGIN


@dataclass(frozen=True)
class Family:
    """How a family of weights was trained, as far as the pipeline must know."""

    margin: float = 1.0  # side of the crop in sides of the subject's box
    shrinks_cascade: bool = False  # how the fine pass's tokens are placed, see `latents.quantized`
    camera_frame: bool = False  # latents have y up and the camera on +z; else they are in the world's frame
    views: range = range(1, 2)  # numbers of pictures that the weights were trained for
    pipeline_types: tuple[str, ...] | None = None  # that there are weights for; None: all

    @property
    def pixel_aligned(self) -> bool:
        """Whether tokens see the features that they project to, so that cameras mean something."""
        return self.camera_frame


_CASCADES = ("1024_cascade", "1536_cascade")
FAMILIES: Mapping[str, Family] = {
    "Trellis2ImageTo3DPipeline": Family(),
    "Pixal3DImageTo3DPipeline": Family(PIXEL_ALIGNED_MARGIN, True, True, range(1, 2), _CASCADES),
    "Pixal3DMVImageTo3DPipeline": Family(PIXEL_ALIGNED_MARGIN, True, True, range(2, 9), _CASCADES),
}
"""By the class name in a pipeline's config."""
