"""From a picture to what the flow models are conditioned on: loading, matting, cropping, encoding.

May import Pillow, numpy, `trellis2.errors`; torch, transformers, OpenCV and torch.hub are imported when first
used. Start reading at `images.py` (what may come in) and `preprocess.py`; `registry.py` finds encoders and
background removers by the names that pipeline configs use.
"""

from __future__ import annotations

from .images import load_image
from .preprocess import preprocess_image
from .registry import build_background_remover, build_image_encoder

__all__ = ["build_background_remover", "build_image_encoder", "load_image", "preprocess_image"]
