"""Colour spaces, depths and modes against colours worked out by hand or by LittleCMS itself."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from trellis2_pictures import UnreadablePictureError, open_picture, read_picture, to_srgb
from trellis2_pictures.cicp import coding_points
from trellis2_pictures.colour import (
    ADOBE_PRIMARIES,
    BT2020_PRIMARIES,
    P3_PRIMARIES,
    SRGB_PRIMARIES,
    linear_to_srgb,
    matrix_to_srgb,
    srgb_to_linear,
)

COLOURS = np.array(
    [[200, 60, 40], [40, 160, 70], [30, 60, 180], [128, 128, 128], [250, 240, 220], [90, 70, 60]], np.uint8
)
"""The sRGB colours that every picture below shows, in stripes of 8 pixels."""


def stripes(colours: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.repeat(colours, 8, axis=0)[None], (16, 8 * len(colours), colours.shape[1]))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def error(image: Image.Image, colours: np.ndarray = COLOURS) -> float:
    shown = np.asarray(image.convert("RGB"), dtype=float)[8, 4::8]
    return float(np.abs(shown - colours).max())


def profile(primaries: tuple[float, ...], gamma: float) -> bytes:
    """An ICC 2.1 display profile, made by hand: matrix and one power curve."""
    xyz = D50_FROM_SRGB @ matrix_to_srgb(primaries)

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz_tag(values: Any) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(fixed(v) for v in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"text\0\0\0\0none\0\0\0\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 78
    description += b"\0" * (-len(description) % 4)
    tags = {
        b"desc": description,
        b"cprt": text,
        b"wtpt": xyz_tag((0.9642, 1.0, 0.8249)),
        b"rXYZ": xyz_tag(xyz[:, 0]),
        b"gXYZ": xyz_tag(xyz[:, 1]),
        b"bXYZ": xyz_tag(xyz[:, 2]),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + b"".join(fixed(v) for v in (0.9642, 1.0, 0.8249))
    return head.ljust(128, b"\0") + table + body


# sRGB's columns adapted to D50, as in sRGB IEC61966-2.1
D50_FROM_SRGB = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)


def in_space(primaries: tuple[float, ...], gamma: float) -> np.ndarray:
    """COLOURS as that space's 8-bit numbers."""
    linear = srgb_to_linear(COLOURS / 255.0) @ np.linalg.inv(matrix_to_srgb(primaries)).T
    return np.rint(linear.clip(0, 1) ** (1 / gamma) * 255).astype(np.uint8)


SPACES = {
    "display P3": (P3_PRIMARIES, 2.2),
    "adobe": (ADOBE_PRIMARIES, 2.2),
    "wide": (BT2020_PRIMARIES, 2.2),
    "linear": (SRGB_PRIMARIES, 1.0),
}
KINDS = {
    "PNG": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", SPACES)
def test_embedded_profiles(space: str, kind: str) -> None:
    image = Image.fromarray(stripes(in_space(*SPACES[space])))
    data = encoded(image, kind, icc_profile=profile(*SPACES[space]), **KINDS[kind])
    shown = read_picture(data)
    assert error(shown) <= 6
    assert error(Image.open(io.BytesIO(data))) > 8  # what it was before
    assert error(to_srgb(shown)) <= 6  # once is enough


@pytest.mark.parametrize("space", SPACES)
def test_avif(space: str) -> None:
    """Against the pixels that the file holds: 8 bits of YCbCr are too few for wide and linear spaces."""
    primaries, gamma = SPACES[space]
    image = Image.fromarray(stripes(in_space(primaries, gamma)))
    data = encoded(image, "AVIF", quality=100, subsampling="4:4:4", icc_profile=profile(primaries, gamma))
    held = np.asarray(Image.open(io.BytesIO(data)))[8, 4::8] / 255.0
    shown = linear_to_srgb((held**gamma @ matrix_to_srgb(primaries).T).clip(0, 1)) * 255
    assert error(read_picture(data), shown) <= 6


def test_code_points_of_avif() -> None:
    linear = srgb_to_linear(COLOURS / 255.0)
    p3 = linear_to_srgb((linear @ np.linalg.inv(matrix_to_srgb(P3_PRIMARIES)).T).clip(0, 1))
    image = Image.fromarray(stripes(np.rint(p3 * 255).astype(np.uint8)))
    plain = encoded(image, "AVIF", quality=100, subsampling="4:4:4")
    assert plain.count(b"colrnclx") == 1
    assert error(read_picture(plain)) > 8
    place = plain.index(b"colrnclx") + 8
    data = plain[:place] + struct.pack(">HH", 12, 13) + plain[place + 4 :]
    assert error(read_picture(data)) <= 6
    for cut in range(place - 60, place + 4):
        assert coding_points(data[:cut]) is None
    assert coding_points(data) == (12, 13)


def test_profiles_of_transparent_premultiplied_and_palette_pictures() -> None:
    colours = stripes(in_space(*SPACES["adobe"]))
    profiled = {"icc_profile": profile(*SPACES["adobe"])}
    alpha = np.full((*colours.shape[:2], 1), 200, np.uint8)
    rgba = Image.fromarray(np.concatenate([colours, alpha], axis=2))
    for kind in ("PNG", "WEBP"):
        shown = read_picture(encoded(rgba, kind, **profiled, **KINDS[kind]))
        assert shown.mode == "RGBA"
        assert error(shown) <= 6
        assert np.asarray(shown)[..., 3].min() == np.asarray(shown)[..., 3].max() == 200
    premultiplied = rgba.convert("RGBa")
    premultiplied.info |= profiled
    assert to_srgb(premultiplied).mode == "RGBA"
    assert error(to_srgb(premultiplied)) <= 6
    palette = Image.fromarray(colours).quantize(16, dither=Image.Dither.NONE)
    assert error(read_picture(encoded(palette, "PNG", **profiled))) <= 6


def test_cmyk_and_lab() -> None:
    lab = ImageCms.profileToProfile(
        Image.fromarray(stripes(COLOURS)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    lab.info.pop("icc_profile", None)
    assert error(to_srgb(lab)) <= 6
    assert error(read_picture(encoded(lab, "TIFF"))) <= 6
    cmyk = Image.fromarray(stripes(COLOURS)).convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        assert error(read_picture(encoded(cmyk, kind, **({"quality": 100} if kind == "JPEG" else {})))) <= 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_levels(kind: str) -> None:
    grey = np.repeat(np.array([[100, 235]], np.uint16) * 257, 16, axis=0)
    np.testing.assert_array_equal(
        np.asarray(read_picture(encoded(Image.fromarray(grey), kind)))[0, :, 0], [100, 235]
    )


def test_float_keeps_its_levels() -> None:
    grey = np.repeat(np.array([[100, 235]], np.float32) / 255, 16, axis=0)
    shown = np.asarray(read_picture(encoded(Image.fromarray(grey), "TIFF")))
    np.testing.assert_array_equal(shown[0, :, 1], [100, 235])


def with_chunks(image: Image.Image, *chunks: tuple[bytes, bytes]) -> bytes:
    """The picture as PNG, with chunks after its header."""
    data = encoded(image, "PNG")
    extra = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return data[:33] + extra + data[33:]


def gama(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


def chrm(primaries: tuple[float, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in primaries))


def test_png_gamma_and_primaries() -> None:
    linear = Image.fromarray(stripes(in_space(*SPACES["linear"])))
    assert error(read_picture(with_chunks(linear, gama(1.0)))) <= 6
    adobe = Image.fromarray(stripes(in_space(ADOBE_PRIMARIES, 2.2)))
    assert error(read_picture(with_chunks(adobe, gama(1 / 2.2), chrm(ADOBE_PRIMARIES)))) <= 6
    plain = Image.fromarray(stripes(COLOURS))
    assert error(read_picture(with_chunks(plain, gama(0.45455)))) == 0
    assert error(read_picture(with_chunks(plain, (b"sRGB", b"\0"), gama(1.0)))) == 0


def test_png_code_points_win() -> None:
    p3 = linear_to_srgb(srgb_to_linear(COLOURS / 255.0) @ np.linalg.inv(matrix_to_srgb(P3_PRIMARIES)).T)
    image = Image.fromarray(stripes(np.rint(p3 * 255).astype(np.uint8)))
    assert error(read_picture(with_chunks(image, (b"cICP", bytes([12, 13, 0, 1])), gama(1.0)))) <= 6
    plain = Image.fromarray(stripes(COLOURS))
    assert error(read_picture(with_chunks(plain, (b"cICP", bytes([1, 13, 0, 1]))))) == 0
    assert error(read_picture(with_chunks(plain, (b"cICP", b"\x0c")))) == 0  # too short: left alone


def test_cameras_mark_adobe_rgb_in_exif() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    image = Image.fromarray(stripes(in_space(ADOBE_PRIMARIES, 2.2)))
    assert error(read_picture(encoded(image, "JPEG", exif=exif, **KINDS["JPEG"]))) <= 6


def test_unusable_profiles_change_nothing() -> None:
    image = Image.fromarray(stripes(COLOURS))
    good = profile(*SPACES["adobe"])
    grey = bytearray(good)
    grey[16:20] = b"GRAY"
    huge = bytearray(good)
    huge[128:132] = b"\xff\xff\xff\xff"
    for broken in (b"", b"none", good[:200], bytes(grey), bytes(huge), b"\0" * 500):
        assert error(read_picture(encoded(image, "PNG", icc_profile=broken))) == 0
    assert read_picture(encoded(image.convert("L"), "PNG", icc_profile=good)).mode == "RGB"


def test_the_callers_picture_is_left_alone() -> None:
    image = Image.fromarray(stripes(COLOURS))
    image.info["icc_profile"] = profile(*SPACES["adobe"])
    before = image.tobytes()
    to_srgb(image)
    assert "icc_profile" in image.info
    assert image.tobytes() == before


def test_heic_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    data = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + b"\0" * 64
    with pytest.raises(UnreadablePictureError, match="pip install pi-heif"):
        open_picture(data)


def test_multi_picture_files_give_their_first() -> None:
    first, second = (Image.fromarray(stripes(COLOURS[::step])) for step in (1, -1))
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=100)
    assert error(read_picture(data)) <= 30  # 4:2:0
    assert np.asarray(read_picture(data))[8, 4, 0] > 180
