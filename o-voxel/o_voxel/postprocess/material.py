"""The metallic-roughness material: which transparency it needs, and its pictures as bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError
from .textures.encode import TEXTURE_FORMATS, encode_map
from .translucency import OPAQUE_FROM

ALPHA_MODES = ("auto", "opaque", "mask", "blend")
_TRANSLUCENT = OPAQUE_FROM * 255  # below this alpha a texel counts
_CLEAR = 0.05 * 255
_NEARLY_CLEAR = 0.25 * 255
_RELEVANT_SHARE = 0.01  # of the surface
_CUTOUT_SHARE = 0.6  # of the texels that count, that are nearly clear: a cut-out and its soft rim, not glass


@dataclass(frozen=True)
class Material:
    """Pictures are uint8, row 0 at v = 0 (glTF's top).

    `base_color` [T, T, 4] sRGB and alpha; `orm` [T, T, 3] = (occlusion, roughness, metallic), as glTF packs
    them, occlusion 0 and unread where not `occluded`;
    `normal` [T, T, 3] tangent space or None; `alpha_mode` is glTF's OPAQUE, MASK (cut-off 0.5) or BLEND.
    """

    base_color: np.ndarray
    orm: np.ndarray
    normal: np.ndarray | None
    alpha_mode: str
    double_sided: bool
    occluded: bool = False

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Width and height of each picture."""
        return {name: (image.shape[1], image.shape[0]) for name, image in self.pictures().items()}

    def pictures(self) -> dict[str, np.ndarray]:
        found = {"base_color": self.base_color, "metallic_roughness": self.orm}
        return found if self.normal is None else found | {"normal": self.normal}

    def encoded(self, texture_format: str) -> dict[str, tuple[str, bytes]]:
        """(format, bytes) of each picture, as `encode` bounds their loss. Alpha that the material uses is
        never dropped: jpeg then becomes png."""
        check_texture_format(texture_format)
        pictures = self.pictures() | {"base_color": self.visible_base_color}
        # The encoders release the interpreter's lock.
        with ThreadPoolExecutor(len(pictures)) as pool:
            found = pool.map(lambda name: encode_map(name, pictures[name], texture_format), pictures)
            return dict(zip(pictures, found, strict=True))

    @property
    def visible_base_color(self) -> np.ndarray:
        """[T, T, 3], or [T, T, 4] where alpha shows: glTF ignores an opaque material's, others may not."""
        opaque = self.alpha_mode == "OPAQUE" or bool((self.base_color[..., 3] == 255).all())
        return self.base_color[..., :3] if opaque else self.base_color


def check_texture_format(texture_format: str) -> None:
    if texture_format not in TEXTURE_FORMATS:
        hint = "; convert a png with gltf-transform" if texture_format == "ktx2" else ""
        raise ArgumentError(f"texture_format {texture_format!r}: one of {', '.join(TEXTURE_FORMATS)}{hint}")


def choose_alpha_mode(alpha_mode: str, alpha: np.ndarray) -> tuple[str, str | None]:
    """glTF's mode for a request and the baked alpha [N] uint8 of the surface, and a note when it needs one.

    `auto`: OPAQUE when under 1 % of the surface has alpha < 0.95; MASK when most of what lies below is nearly
    clear (the rest is the rim of the cut); else BLEND. A surface that is clear everywhere would be invisible,
    so it stays OPAQUE.
    """
    if alpha_mode not in ALPHA_MODES:
        raise ArgumentError(f"alpha_mode {alpha_mode!r}: one of {', '.join(ALPHA_MODES)}")
    if alpha_mode != "auto":
        return alpha_mode.upper(), None
    if not alpha.size or bool((alpha < _CLEAR).all()):
        note = "every voxel is transparent; drawn opaque, as it would be invisible" if alpha.size else None
        return "OPAQUE", note
    counted = alpha[alpha < _TRANSLUCENT]
    if counted.size < _RELEVANT_SHARE * alpha.size:
        return "OPAQUE", None
    return ("MASK" if (counted < _NEARLY_CLEAR).mean() > _CUTOUT_SHARE else "BLEND"), None
