"""Pictures of kinds that the service does not take become PNG here, with the colours that they show."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trellis2_modal.client.inputs.pictures import read_picture
from trellis2_modal.protocol.errors import InvalidImageError


def sent(picture: object) -> np.ndarray:
    """The pixels that reach the service."""
    data = read_picture(picture)
    assert data.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(data)))


def test_sixteen_bit_grey_keeps_its_levels(tmp_path: Path) -> None:
    grey = np.repeat(np.array([[100, 235]], np.uint16) * 257, 16, axis=0)
    image = Image.fromarray(grey)
    image.save(tmp_path / "grey.tif")
    for source in (image, tmp_path / "grey.tif"):
        np.testing.assert_array_equal(sent(source)[0, :, 0], [100, 235])


def test_premultiplied_alpha_is_kept() -> None:
    image = Image.new("RGBA", (8, 8), (200, 60, 40, 128)).convert("RGBa")
    pixel = sent(image)[4, 4]
    assert pixel[3] == 128
    assert np.abs(pixel[:3].astype(int) - [200, 60, 40]).max() <= 2


def test_lab_and_cmyk_are_sent_as_rgb() -> None:
    grey = Image.new("LAB", (8, 8), (137, 128, 128))
    assert np.ptp(sent(grey)[4, 4, :3].astype(int)) <= 2
    assert sent(Image.new("CMYK", (8, 8), (0, 255, 255, 0)))[4, 4].tolist() == [255, 0, 0]


def test_what_cannot_be_read_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pi_heif", None)
    heic = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + b"\0" * 64
    with pytest.raises(InvalidImageError, match="pip install pi-heif"):
        read_picture(heic)
    with pytest.raises(InvalidImageError, match="PNG, JPEG"):
        read_picture(b"no picture at all")
    tiff = io.BytesIO()
    Image.new("RGB", (64, 64)).save(tiff, "TIFF")
    with pytest.raises(InvalidImageError):
        read_picture(tiff.getvalue()[:200])
