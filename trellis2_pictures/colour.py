"""From the colour space that a picture names to sRGB: ICC profiles, code points of PNG, AVIF and HEIC, PNG's
gAMA and cHRM, Adobe's EXIF tag.

A profile that is corrupt, or of another kind of colours than the pixels, is left out of account, as browsers
do. Of several descriptions the first in PNG's order counts: cICP, ICC, sRGB, gAMA with cHRM (PNG 3, 4.3).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageCms

Matrix = np.ndarray
Curve = Callable[[np.ndarray], np.ndarray]

SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3_PRIMARIES = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
BT2020_PRIMARIES = (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
ADOBE_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
"""x and y of white, red, green and blue, in the order of PNG's cHRM."""
ADOBE_GAMMA = 2.19921875

_CICP_PRIMARIES = {1: SRGB_PRIMARIES, 9: BT2020_PRIMARIES, 12: P3_PRIMARIES}
_SDR_WHITE = 203.0  # cd/m2 of diffuse white in HDR pictures (ITU-R BT.2408)
_PROFILE_MODES = {
    "RGB": ("RGB", "RGBA", "RGBX"),
    "GRAY": ("L", "LA"),
    "CMYK": ("CMYK",),
    "Lab": ("LAB",),
}
_SAME_GAMMA = 0.05  # gAMA this near 1/2.2 stands for sRGB's own curve
_STRIP = 1 << 19  # pixels converted at a time
_STEPS = 4096  # of the table that applies sRGB's curve


def convert_to_srgb(image: Image.Image) -> Image.Image:
    """8-bit `image` of any mode as RGB, or RGBA where it has transparency, in sRGB."""
    transparent = image.has_transparency_data
    info = image.info
    if "cicp" in info and (how := _from_cicp(*info["cicp"])) is not None:
        return _transformed(_plain(image, transparent), *how)
    if profile := info.get("icc_profile"):
        converted = _through_profile(image, profile, transparent)
        if converted is not None:
            return converted
    plain = _plain(image, transparent)
    if info.get("srgb") is not None or image.mode in ("CMYK", "LAB"):
        return plain
    if (how := _from_png(info) or _from_exif(image)) is not None:
        return _transformed(plain, *how)
    return plain


def _plain(image: Image.Image, transparent: bool) -> Image.Image:
    mode = "RGBA" if transparent else "RGB"
    if image.mode == mode:
        return image
    if image.mode == "La":  # Pillow goes to RGBA by way of LA only
        image = image.convert("LA")
    return image.convert(mode)


def _through_profile(image: Image.Image, data: bytes, transparent: bool) -> Image.Image | None:
    """The picture by its ICC profile; None where that cannot be used."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        if image.mode in ("RGBa", "La", "P", "PA") or (image.mode == "RGB" and transparent):
            image = _plain(image, transparent)
        if image.mode not in _PROFILE_MODES.get(space, ()):
            return None
        alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
        colours = image.convert({"RGB": "RGB", "GRAY": "L"}[space]) if space in ("RGB", "GRAY") else image
        converted = ImageCms.profileToProfile(
            colours,
            profile,
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    # LittleCMS refuses profiles for many reasons; Pillow wraps some of them, and raises others as they come.
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError):
        return None
    if converted is None:
        return None
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


# --- descriptions in numbers -------------------------------------------------------------------------------


def _from_cicp(primaries: int, transfer: int) -> tuple[Curve, Matrix] | None:
    if primaries not in _CICP_PRIMARIES or transfer not in _TRANSFERS:
        return None
    if (primaries, transfer) == (1, 13):
        return None
    return _TRANSFERS[transfer], matrix_to_srgb(_CICP_PRIMARIES[primaries])


def _from_png(info: Mapping[Any, object]) -> tuple[Curve, Matrix] | None:
    gamma, primaries = info.get("gamma"), info.get("chromaticity")
    usual = not isinstance(gamma, float) or abs(gamma * 2.2 - 1) <= _SAME_GAMMA or not 0.1 <= gamma <= 4
    curve = srgb_to_linear if usual else power(1 / float(gamma))  # type: ignore[arg-type]
    matrix = np.eye(3)
    if isinstance(primaries, tuple) and len(primaries) == 8 and isinstance(gamma, float):
        try:
            matrix = matrix_to_srgb(primaries)
        except (np.linalg.LinAlgError, ZeroDivisionError):
            return None
    if usual and np.abs(matrix - np.eye(3)).max() < 0.01:
        return None
    return curve, matrix


def _from_exif(image: Image.Image) -> tuple[Curve, Matrix] | None:
    """Cameras mark Adobe RGB by EXIF's interoperability index R03, often without a profile."""
    try:
        index = image.getexif().get_ifd(0xA005).get(1) if "exif" in image.info else None
    except Exception:  # EXIF is parsed from a stranger's bytes, and is only a hint here
        return None
    if index is None or not str(index).startswith("R03"):
        return None
    return power(ADOBE_GAMMA), matrix_to_srgb(ADOBE_PRIMARIES)


def power(exponent: float) -> Curve:
    return lambda values: np.asarray(values) ** exponent


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


def _bt709_to_linear(values: np.ndarray) -> np.ndarray:
    return np.where(values < 0.081, values / 4.5, ((values + 0.099) / 1.099) ** (1 / 0.45))


def _pq_to_linear(values: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084; diffuse white is 1, what is brighter is cut off."""
    v = values ** (1 / 78.84375)
    light = np.maximum(v - 0.8359375, 0) / (18.8515625 - 18.6875 * v)
    return light ** (1 / 0.1593017578125) * 10_000 / _SDR_WHITE


def _hlg_to_linear(values: np.ndarray) -> np.ndarray:
    """ARIB STD-B67, scene light; 75 % signal, the diffuse white of BT.2408, is 1."""
    scene = np.where(
        values <= 0.5, values**2 / 3, (np.exp((values - 0.55991073) / 0.17883277) + 0.28466892) / 12
    )
    return scene / 0.26496256


_TRANSFERS: dict[int, Curve] = {
    1: _bt709_to_linear,
    4: power(2.2),
    5: power(2.8),
    6: _bt709_to_linear,
    8: power(1.0),
    13: srgb_to_linear,
    14: _bt709_to_linear,
    15: _bt709_to_linear,
    16: _pq_to_linear,
    18: _hlg_to_linear,
}
"""Code points of H.273 to the curve from signal to linear light."""


def matrix_to_srgb(primaries: tuple[float, ...]) -> Matrix:
    """[3, 3] from linear RGB of `primaries` to linear sRGB, whites onto one another (Bradford)."""
    theirs, white = _to_xyz(primaries)
    ours, our_white = _to_xyz(SRGB_PRIMARIES)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    scale = (bradford @ our_white) / (bradford @ white)
    adapt = np.linalg.inv(bradford) @ (scale[:, None] * bradford)
    return np.linalg.inv(ours) @ adapt @ theirs


def _to_xyz(primaries: tuple[float, ...]) -> tuple[Matrix, np.ndarray]:
    xy = np.reshape(primaries, (4, 2)).astype(float)
    if not (xy[:, 1] > 0).all():
        raise np.linalg.LinAlgError("a chromaticity on the line of no light")
    points = np.concatenate([xy, 1 - xy.sum(axis=1, keepdims=True)], axis=1) / xy[:, 1:]  # Y = 1
    white, columns = points[0], points[1:].T
    return columns * np.linalg.solve(columns, white), white


def _transformed(image: Image.Image, curve: Curve, matrix: Matrix) -> Image.Image:
    """RGB or RGBA pixels through `curve`, `matrix` and sRGB's own curve; alpha stays."""
    pixels = np.asarray(image)
    linear = curve(np.arange(256) / 255.0)
    # Dark tones are steep in sRGB's curve: the table is over the square root of light.
    encode = np.rint(linear_to_srgb(np.linspace(0, 1, _STEPS) ** 2) * 255).astype(np.uint8)
    result = pixels.copy()
    rows = max(1, _STRIP // max(1, image.width))
    for start in range(0, image.height, rows):
        strip = linear[pixels[start : start + rows, :, :3]] @ matrix.T
        place = np.rint(np.sqrt(strip.clip(0, 1)) * (_STEPS - 1)).astype(np.int32)
        result[start : start + rows, :, :3] = encode[place]
    return Image.fromarray(result)
