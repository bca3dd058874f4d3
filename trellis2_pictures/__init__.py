"""Pictures as people have them, to 8-bit sRGB: the one place that knows colour profiles and depths.

Imports Pillow and numpy only, so that the client (no torch) and the model (no service) can share it, and
neither of them. Start reading in `reading`; `colour` converts, `cicp` finds the PNG chunk that Pillow leaves;
`cameras` checks what is said of where a picture was taken from.
"""

from __future__ import annotations

from .reading import UnreadablePictureError, open_picture, read_picture, to_srgb

__all__ = ["UnreadablePictureError", "open_picture", "read_picture", "to_srgb"]
