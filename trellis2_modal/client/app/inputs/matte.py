"""A look at a matte: how good it seems, in words."""

from __future__ import annotations

import io

SMALL, FULL, SOFT, DARK = 0.06, 0.97, 0.35, 12


def judge(png: bytes) -> tuple[str, bool]:
    """A hint about a cropped matte (PNG with transparency), and whether it is a warning."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGBA"))
    alpha = pixels[..., 3] / 255.0  # [H, W]
    brightness = pixels[..., :3].max(axis=2)[alpha > 0.5]
    solid = float((alpha > 0.5).mean())
    if solid < SMALL:
        return (
            "Hardly anything was found. Use a picture of one object that stands out from what is behind it.",
            True,
        )
    if solid > FULL:
        return "The background may still be there. A plain background, or a cut-out PNG, works best.", True
    edge = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    if float((edge > 0.5).mean()) > 0.5:
        return (
            "The object seems to be cut off at the border. A picture that shows all of it works best.",
            True,
        )
    if np.percentile(brightness, 95) < DARK:
        return (
            "The object is almost black, and the model sees it on black. A brighter picture works best.",
            True,
        )
    seen = alpha > 0.05
    if float((alpha[seen] < 0.7).mean()) > SOFT:
        return "The outline is blurry. A sharper picture on a plain background works best.", True
    return "This is what the model will see.", False
