"""What encoding costs each kind of map, on the hardest detail: ridges and stripes a few texels wide."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from o_voxel import kernels
from o_voxel.postprocess.textures import encode
from o_voxel.postprocess.textures.encode import (
    CHANNEL_ERROR,
    COLOUR_PSNR,
    NORMAL_ERROR,
    colour_error,
    decoded,
    encode_map,
    normal_error,
)
from o_voxel.postprocess.textures.png import encode_png
from PIL import Image

rows, columns = np.mgrid[:256, :256]
FORMATS = ["png", "jpeg", "webp"]


def ridges() -> np.ndarray:
    """A normal map [256, 256, 3] that turns by 60 degrees every three texels, in one corner only."""
    x = np.where((columns // 3) % 2 == 0, 0.5, -0.5) * ((rows < 64) & (columns < 64))
    normal = np.stack([x, np.zeros_like(x), np.sqrt(1 - x**2)], axis=-1)
    return (normal * 127.5 + 128).clip(0, 255).astype(np.uint8)


def stripes() -> np.ndarray:
    """Occlusion, roughness, metalness [256, 256, 3]: metal and plastic every four texels, in a corner."""
    metal = ((columns // 4) % 2 == 0) & (rows < 64) & (columns < 64)
    return np.stack([np.full_like(rows, 255), np.where(metal, 40, 220), metal * 255], axis=-1).astype(
        np.uint8
    )


def checks() -> np.ndarray:
    """Colour [256, 256, 3] with red and cyan checks of two texels and a smooth rest."""
    red = ((rows // 2 + columns // 2) % 2 == 0)[..., None]
    smooth = np.stack([rows, columns, 255 - rows], axis=-1)
    return np.where(rows[..., None] < 128, np.where(red, [200, 30, 30], [30, 200, 200]), smooth).astype(
        np.uint8
    )


def read(encoded: tuple[str, bytes], channels: int = 3) -> np.ndarray:
    return decoded(encoded[1], channels)


@pytest.mark.parametrize("texture_format", FORMATS)
def test_normals_keep_their_ridges(texture_format: str) -> None:
    shown = read(encode_map("normal", ridges(), texture_format))
    truth = ridges().astype(np.float32)
    assert normal_error(truth[:64, :64], shown[:64, :64]) <= NORMAL_ERROR
    a, b = (pixels[:64, :64] / 127.5 - 1 for pixels in (truth, shown))
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert np.percentile(np.degrees(np.arccos(cosine.clip(-1, 1))), 95) <= 3.0


@pytest.mark.parametrize("texture_format", FORMATS)
def test_metal_stays_in_its_stripes(texture_format: str) -> None:
    shown = read(encode_map("metallic_roughness", stripes(), texture_format))
    error = np.abs(shown - stripes())[:64, :64].mean(axis=(0, 1))
    assert (error <= CHANNEL_ERROR).all()
    assert (error < 5).all()


@pytest.mark.parametrize("texture_format", FORMATS)
def test_colour_keeps_40_db(texture_format: str) -> None:
    shown = read(encode_map("base_color", checks(), texture_format))
    assert 10 * np.log10(255**2 / max(((shown - checks()) ** 2).mean(), 1e-9)) >= COLOUR_PSNR


def test_jpeg_spends_its_bytes_where_the_error_is() -> None:
    """Pillow's usual tables need a fifth more bytes for the same error on charts of smooth colour."""
    x, y = columns / 40.0, rows / 40.0
    waves = np.stack([np.sin(x + y), np.sin(y + 1), np.sin(x - y + 2)], axis=-1)
    chart = ((rows // 37 + columns // 53) % 3)[..., None]
    picture = (127.5 + 120 * np.sin(chart + 1.0) * waves).astype(np.uint8)

    def usual(quality: int) -> bytes:
        target = BytesIO()
        options = {"subsampling": 0, "optimize": True, "progressive": True}
        Image.fromarray(picture).save(target, "JPEG", quality=quality, **options)
        return target.getvalue()

    kind, data = encode_map("base_color", picture, "jpeg")
    error = colour_error(picture.astype(np.float32), decoded(data))
    same = next(
        found
        for quality in range(60, 100)
        if colour_error(picture.astype(np.float32), decoded(found := usual(quality))) <= error
    )
    assert kind == "jpeg"
    assert len(data) < 0.85 * len(same)


def test_blocks_do_not_show_on_smooth_maps() -> None:
    """Where the bound of a map would let whole blocks drift, their means stay within half a step of eight."""
    roughness = np.repeat((columns / 4 + 60).astype(np.uint8)[..., None], 3, axis=2)
    for name in ("metallic_roughness", "normal"):
        shown = read(encode_map(name, roughness, "jpeg"))
        drift = (shown - roughness).reshape(32, 8, 32, 8, 3).mean(axis=(1, 3))
        assert np.abs(drift).max() <= 1.5


def test_smooth_maps_are_small() -> None:
    """The bound decides the size: a flat normal map costs a hundredth of a detailed one."""
    flat = np.full((256, 256, 3), (128, 128, 255), np.uint8)
    for texture_format in ("jpeg", "webp"):
        assert len(encode_map("normal", flat, texture_format)[1]) < 3000


@pytest.mark.parametrize("texture_format", FORMATS)
def test_alpha_is_kept_exactly(texture_format: str) -> None:
    alpha = np.where(rows[..., None] < 100, 90, 255).astype(np.uint8)
    image = np.concatenate([checks(), alpha], axis=-1)
    kind, data = encode_map("base_color", image, texture_format)
    assert kind != "jpeg"
    np.testing.assert_array_equal(decoded(data, 4)[..., 3], alpha[..., 0])


@pytest.mark.parametrize("size", [1, 7, 65])
def test_any_size(size: int) -> None:
    image = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    for name in ("base_color", "metallic_roughness", "normal"):
        for texture_format in FORMATS:
            assert read(encode_map(name, image, texture_format)).shape == (size, size, 3)


def test_noise_needs_more_than_a_byte_a_pixel() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3)).astype(np.uint8)
    kind, data = encode_map("base_color", noise, "jpeg")
    assert kind == "jpeg"
    assert decoded(data).shape == noise.shape


@pytest.mark.parametrize("name", list(encode.MAP_KINDS))
def test_the_choice_for_a_large_picture_is_that_of_trying_all_of_it(name: str) -> None:
    """Smooth but for one corner, which the evenly spread blocks miss."""
    side = 17 * 64
    image = np.empty((side, side, 3), np.float32)
    image[..., 0] = np.linspace(100, 160, side)
    image[..., 1] = image[..., 0].T
    image[..., 2] = 200
    image[70:120, 70:120] += np.random.default_rng(0).normal(0, 12, (50, 50, 3))
    image = image.clip(0, 255).astype(np.uint8)
    kind, choices = encode.MAP_KINDS[name], encode._JPEG_STEPS
    whole = []

    def jpeg(picture: np.ndarray, step: int) -> np.ndarray:
        whole.extend([step] if len(picture) == side else [])
        return encode._jpeg_pixels(picture, step)

    step = encode._coarsest_within(kind, image, jpeg, choices)
    assert step is not None
    assert len(whole) <= 3
    assert step == choices[encode._first_within(kind, image, encode._jpeg_pixels, choices)]
    assert kind.error(image, encode.decoded(encode._small_jpeg(image, step))) <= kind.bound


def speckles(side: int) -> np.ndarray:
    """Colour [side, side, 3] that no lossy WebP keeps within 40 dB, since it halves chroma."""
    red = np.random.default_rng(0).integers(0, 2, (side, side, 1)).astype(bool)
    return np.where(red, [200, 30, 30], [30, 200, 200]).astype(np.uint8)


@pytest.mark.parametrize("name", list(encode.MAP_KINDS))
def test_a_hopeless_picture_is_not_encoded_with_loss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    qualities = []

    def webp(image: np.ndarray, quality: int | None) -> bytes:
        qualities.extend([quality] if len(image) > 1000 else [])
        return lossy_or_not(image, quality)

    lossy_or_not = encode._webp
    monkeypatch.setattr(encode, "_webp", webp)
    picture = speckles(17 * 64)
    kind, data = encode_map(name, picture, "webp")
    assert (kind, qualities) == ("webp", [None])
    if name != "normal":  # whose levels a lossless file rounds
        np.testing.assert_array_equal(decoded(data), picture)


@pytest.mark.parametrize("shape", [(1, 1), (128, 3), (129, 40), (300, 200)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_in_strips_is_the_picture(
    shape: tuple[int, int], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, channels)).astype(np.uint8)
    rising = np.cumsum(noise // 64, axis=0, dtype=np.uint8)
    picture = rising[..., 0] if channels == 1 else rising
    files = []
    for threads in (1, 8):
        monkeypatch.setattr(kernels, "cpu_threads", lambda threads=threads: threads)
        files.append(encode_png(picture))
    with Image.open(BytesIO(files[0])) as opened:
        opened.verify()  # checksums
    with Image.open(BytesIO(files[0])) as opened:
        assert opened.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        np.testing.assert_array_equal(np.asarray(opened), picture)
    assert files[0] == files[1]
    whole = BytesIO()
    Image.fromarray(picture).save(whole, "PNG", compress_level=6, compress_type=3)
    assert len(files[0]) < 1.02 * len(whole.getvalue()) + 100


@pytest.mark.parametrize("height", [1, 64, 150])
def test_a_jpeg_in_strips_shows_what_the_whole_file_shows(height: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (height, 90, 3)).astype(np.uint8)
    np.testing.assert_array_equal(encode._jpeg_pixels(picture, 20), decoded(encode._small_jpeg(picture, 20)))


def test_a_large_map_that_webp_cannot_hold_is_a_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "_LARGE", 100)
    for name, picture in (("base_color", checks()), ("metallic_roughness", stripes()), ("normal", ridges())):
        kind, data = encode_map(name, picture, "webp")
        assert kind == "jpeg"
        assert encode.MAP_KINDS[name].error(picture, decoded(data)) <= encode.MAP_KINDS[name].bound
        assert len(data) == len(encode_map(name, picture, "jpeg")[1])
    clear = np.concatenate([checks(), np.full((256, 256, 1), 9, np.uint8)], axis=2)
    assert encode_map("base_color", clear, "webp")[0] == "webp"


@pytest.mark.parametrize("memory", [True, False])
def test_pillow_writes_to_a_file_so_that_other_threads_run(
    monkeypatch: pytest.MonkeyPatch, memory: bool
) -> None:
    """Into bytes it holds the interpreter's lock for as long as a whole picture takes."""
    if not memory:
        monkeypatch.delattr("os.memfd_create", raising=False)
    targets: list[int] = []
    save = Image.Image.save

    def watched(self: Image.Image, target: Any, *args: Any, **options: Any) -> None:
        targets.append(target.fileno())
        save(self, target, *args, **options)

    monkeypatch.setattr(Image.Image, "save", watched)
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    _, data = encode.encode_map("base_color", image, "jpeg")
    written = len(targets)
    shown = encode._pixels(data, 3)
    assert len(targets) == written + 1 > 2
    with Image.open(BytesIO(data)) as picture:
        assert np.array_equal(shown, np.asarray(picture))
