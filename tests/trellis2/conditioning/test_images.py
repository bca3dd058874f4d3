"""Pictures as people have them, and pictures that are none."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trellis2.conditioning import images, load_image
from trellis2.errors import InvalidImageError


def ramp(height: int = 24, width: int = 32) -> np.ndarray:
    """uint8 `[H, W, 3]`: red grows to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), x * 0 + 90], axis=-1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


RGB = Image.fromarray(ramp())
SIXTEEN = Image.fromarray(ramp()[..., 0].astype(np.uint16) * 257)
TRANSPARENT = Image.fromarray(np.dstack([ramp(), ramp()[..., 0]]))
CUT_OUT = Image.fromarray(np.dstack([ramp(), np.where(ramp()[..., 0] > 127, 255, 0).astype(np.uint8)]))

SOURCES: dict[str, tuple[Callable[[], bytes], str]] = {
    "rgb png": (lambda: encoded(RGB, "PNG"), "RGB"),
    "jpeg": (lambda: encoded(RGB, "JPEG", quality=95), "RGB"),
    "webp": (lambda: encoded(RGB, "WEBP", lossless=True), "RGB"),
    "rgba png": (lambda: encoded(TRANSPARENT, "PNG"), "RGBA"),
    "rgba webp": (lambda: encoded(TRANSPARENT, "WEBP", lossless=True), "RGBA"),
    "grey": (lambda: encoded(RGB.convert("L"), "PNG"), "RGB"),
    "grey with alpha": (lambda: encoded(TRANSPARENT.convert("LA"), "PNG"), "RGBA"),
    "one bit": (lambda: encoded(RGB.convert("1"), "PNG"), "RGB"),
    "palette": (lambda: encoded(RGB.convert("P"), "PNG"), "RGB"),
    "transparent palette": (lambda: encoded(RGB.convert("P"), "PNG", transparency=0), "RGBA"),
    "transparent gif": (lambda: encoded(CUT_OUT, "GIF"), "RGBA"),
    "16-bit png": (lambda: encoded(SIXTEEN, "PNG"), "RGB"),
    "16-bit tiff": (lambda: encoded(SIXTEEN, "TIFF"), "RGB"),
    "float tiff": (lambda: encoded(Image.fromarray(ramp()[..., 0] / np.float32(255)), "TIFF"), "RGB"),
    "cmyk jpeg": (lambda: encoded(RGB.convert("CMYK"), "JPEG", quality=95), "RGB"),
    "bmp": (lambda: encoded(RGB, "BMP"), "RGB"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_common_kinds_become_rgb_or_rgba(name: str) -> None:
    make, mode = SOURCES[name]
    image = load_image(make())
    assert image.mode == mode
    assert image.size == (32, 24)
    red = np.asarray(image)[..., 0].astype(float)
    if name != "one bit":
        assert red[:, -4:].mean() > red[:, :4].mean() + 50  # the ramp survives, whatever the depth


def test_sixteen_bits_use_the_full_range() -> None:
    grey = np.asarray(load_image(encoded(SIXTEEN, "PNG")))[..., 0]
    np.testing.assert_array_equal(grey, ramp()[..., 0])


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held with its right side down
    image = load_image(encoded(RGB, "JPEG", quality=95, exif=exif.tobytes()))
    assert image.size == (24, 32)
    red = np.asarray(image)[..., 0].astype(float)
    assert red[-4:].mean() > red[:4].mean() + 150


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    for source in (data, rewound(data)):
        pixel = np.asarray(load_image(source).convert("RGB"))[8, 8].astype(int)
        assert pixel[0] > 200
        assert pixel[2] < 60


def rewound(data: bytes) -> Image.Image:
    """An open animation left standing on its second frame."""
    image = Image.open(io.BytesIO(data))
    image.seek(1)
    return image


def test_paths_files_and_pil_images_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(RGB, "PNG"))
    for source in (path, str(path), path.read_bytes(), RGB, io.BytesIO(path.read_bytes())):
        np.testing.assert_array_equal(np.asarray(load_image(source)), ramp())
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "missing.png")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        encoded(RGB, "PNG")[:60],
        encoded(RGB, "JPEG")[:300],
        encoded(RGB, "PNG")[:33] + b"x" * 99,
    ],
)
def test_garbage_is_a_typed_error(data: bytes) -> None:
    with pytest.raises(InvalidImageError):
        load_image(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(0, 255), st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF"]))
def test_damaged_files_load_or_raise_the_typed_error(position: int, value: int, kind: str) -> None:
    data = bytearray(encoded(RGB, kind))
    data[position % len(data)] = value
    with contextlib.suppress(InvalidImageError):
        assert load_image(bytes(data)).mode in ("RGB", "RGBA")


def test_size_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidImageError, match="1x1"):
        load_image(encoded(Image.new("RGB", (1, 1)), "PNG"))
    monkeypatch.setattr(images, "MAX_PIXELS", 500)
    with pytest.raises(InvalidImageError, match="768 pixels"):
        load_image(encoded(RGB, "PNG"))


def test_bombs_are_refused_before_decoding() -> None:
    header = bytearray(encoded(Image.new("1", (8, 8)), "BMP"))
    header[18:26] = (60000).to_bytes(4, "little") * 2
    with pytest.raises(InvalidImageError):
        load_image(bytes(header))
