"""The maps of a material as bytes of picture files, each with the loss that its kind of data bears.

Colour may lose what nobody sees; directions and metalness may not lose their edges. A lossy codec gets the
lowest quality at which the decoded picture keeps the bound of its map, everywhere in it; where no quality
does, the map is stored without loss, or, where WebP fails on a large one, as JPEG. Halved chroma blurs
directions and channels into one another, so JPEG is 4:4:4, and its quantisation is as fine in chroma as in
luma: the usual tables suit eyes, and spend a quarter more bytes on the same error.
"""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedRandom, BytesIO
from typing import TypeVar

import numpy as np

from ...kernels import on_cpu_threads
from .png import encode_png

T = TypeVar("T")

TEXTURE_FORMATS = ("png", "jpeg", "webp")
MIME_TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
SUFFIXES = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}

COLOUR_PSNR = 40.0
"""dB of the colour after encoding, over the whole picture."""
NORMAL_ERROR = 3.0
"""Degrees that 95 % of the texels of every block keep within after encoding."""
CHANNEL_ERROR = 4.5
"""Of 255: mean error of occlusion, roughness and metalness in every block after encoding."""

_BLOCK = 64  # texels a side: a bound over the whole picture would let one detailed corner go
_SHEET = 8  # blocks a side of the sheet that stands for a large picture
_WEBP_QUALITIES = range(60, 99)
_JPEG_STEPS = range(64, 0, -1)
_FINEST, _SLOPE = 8, 16
"""JPEG's quantisation step of a block's mean, at most, and what each frequency above it may add: blocks must
not show on smooth shading."""
_LARGE = 2048 * 2048
"""Texels beyond which WebP takes faster ways: without loss an eighth of the time for 1.4 times the bytes,
with loss a third of the time for 0.97 to 1.08 times the bytes; and JPEG where it has to be without loss."""
_NORMAL_STEP = 4  # levels a lossless WebP of normals may move by half of: 1.3 degrees, a third smaller


@dataclass(frozen=True)
class MapKind:
    """What an encoder may do to a map: `error` of two pictures [H, W, 3 or 4], at most `bound`.

    `of_blocks`: an error that is the worst block's, of all blocks. `hopeless`: by how much the sheet's error
    may exceed the bound at the best quality before no whole picture is tried.
    """

    error: Callable[[np.ndarray, np.ndarray], float]
    bound: float
    hopeless: float
    of_blocks: Callable[[np.ndarray, np.ndarray], list[float]] | None = None


def colour_error(truth: np.ndarray, shown: np.ndarray) -> float:
    """-PSNR in dB of the colour of all texels that are not clear."""

    def squares(rows: slice) -> tuple[float, int]:
        squared = np.square(np.subtract(truth[rows, :, :3], shown[rows, :, :3], dtype=np.float32))
        if truth.shape[2] == 4:
            squared = squared[truth[rows, :, 3] > 0]
        return float(squared.sum(dtype=np.float64)), squared.size

    total, count = np.sum(_by_rows(squares, len(truth)), axis=0)
    return float(10 * np.log10(max(total / max(count, 1), 1e-9) / 255**2))


def normal_error(truth: np.ndarray, shown: np.ndarray) -> float:
    """Degrees: the worst block's 95th percentile."""
    return max(_normal_errors(truth, shown))


def _normal_errors(truth: np.ndarray, shown: np.ndarray) -> list[float]:
    def degrees(rows: slice) -> list[float]:
        a, b = (pixels[rows] / np.float32(127.5) - 1 for pixels in (truth, shown))
        across, length, other = (np.einsum("...k,...k", *pair) for pair in ((a, b), (a, a), (b, b)))
        cosine = across / np.sqrt(length * other).clip(1e-6)
        blocks = [cosine[:, x : x + _BLOCK] for x in range(0, cosine.shape[1], _BLOCK)]
        least = [np.partition(block, block.size // 20, axis=None)[block.size // 20] for block in blocks]
        found: list[float] = np.degrees(np.arccos(np.clip(least, -1, 1))).tolist()
        return found

    return [error for row in _by_rows(degrees, len(truth)) for error in row]


def channel_error(truth: np.ndarray, shown: np.ndarray) -> float:
    """Of 255: the worst block's and channel's mean."""
    return max(_channel_errors(truth, shown))


def _channel_errors(truth: np.ndarray, shown: np.ndarray) -> list[float]:
    starts = np.arange(0, truth.shape[1], _BLOCK)
    widths = np.diff(starts, append=truth.shape[1])[:, None]

    def means(rows: slice) -> list[float]:
        apart = np.abs(np.subtract(truth[rows], shown[rows], dtype=np.float32))
        sums = np.add.reduceat(apart.sum(axis=0, dtype=np.float64), starts, axis=0)
        found: list[float] = (sums / (widths * len(apart))).max(axis=1).tolist()
        return found

    return [error for row in _by_rows(means, len(truth)) for error in row]


def _by_rows(work: Callable[[slice], T], height: int) -> list[T]:
    """What `work` gives for the rows of each row of blocks, on all cores: numpy releases the interpreter's
    lock, and a row of blocks stays in a core's cache."""
    found: dict[int, T] = {}

    def run(row: int) -> None:
        found[row] = work(slice(row * _BLOCK, min((row + 1) * _BLOCK, height)))

    on_cpu_threads(run, -(-height // _BLOCK))
    return [found[row] for row in range(len(found))]


MAP_KINDS = {
    "base_color": MapKind(colour_error, -COLOUR_PSNR, 1.0),
    "metallic_roughness": MapKind(channel_error, CHANNEL_ERROR, 0.5, _channel_errors),
    "normal": MapKind(normal_error, NORMAL_ERROR, 0.3, _normal_errors),
}


def encode_map(name: str, image: np.ndarray, texture_format: str) -> tuple[str, bytes]:
    """(format, bytes) of the map `name` of MAP_KINDS, uint8 [H, W, 3 or 4].

    JPEG has no alpha: such a picture becomes PNG. A large one that WebP keeps within the bound without loss
    only becomes JPEG where that keeps it: a tenth of the bytes in half the time.
    """
    if texture_format == "png" or (texture_format == "jpeg" and image.shape[2] == 4):
        return "png", encode_png(image)
    image = np.ascontiguousarray(image)  # colour without alpha is a view of both
    kind = MAP_KINDS[name]
    if texture_format == "jpeg":
        return _lossy_jpeg(kind, image) or ("png", encode_png(image))
    if (lossy := _lossy_webp(kind, image)) is not None:
        return lossy
    if _is_large(image) and image.shape[2] == 3 and (other := _lossy_jpeg(kind, image)) is not None:
        return other
    stored = image
    if name == "normal":
        stored = (np.rint((image - 128.0) / _NORMAL_STEP) * _NORMAL_STEP + 128).clip(0, 255).astype(np.uint8)
    return "webp", _webp(stored, None)


def _lossy_jpeg(kind: MapKind, image: np.ndarray) -> tuple[str, bytes] | None:
    step = _coarsest_within(kind, image, _jpeg_pixels, _JPEG_STEPS)
    return None if step is None else ("jpeg", _small_jpeg(image, step))


def _lossy_webp(kind: MapKind, image: np.ndarray) -> tuple[str, bytes] | None:
    whole: dict[int, bytes] = {}

    def pixels(picture: np.ndarray, quality: int) -> np.ndarray:
        data = _webp(picture, quality)
        if picture is image:
            whole[quality] = data
        return _pixels(data, picture.shape[2])

    quality = _coarsest_within(kind, image, pixels, _WEBP_QUALITIES)
    return None if quality is None else ("webp", whole[quality])


def _jpeg_pixels(image: np.ndarray, step: int) -> np.ndarray:
    """What a JPEG shows: its blocks of eight rows are coded apart, so strips of them can be, on all cores."""
    shown = np.empty_like(image)

    def code(rows: slice) -> None:
        shown[rows] = _pixels(_jpeg(image[rows], step), image.shape[2])

    _by_rows(code, len(image))
    return shown


def _jpeg(image: np.ndarray, step: int, **options: object) -> bytes:
    """All channels quantised by `step`, low frequencies finer."""
    tables = [[min(step, _FINEST + _SLOPE * (row + column)) for row in range(8) for column in range(8)]]
    return _saved(image, "JPEG", qtables=tables, subsampling=0, **options)


def _small_jpeg(image: np.ndarray, step: int) -> bytes:
    """The same pixels in fewer bytes, in five times the time."""
    try:
        return _jpeg(image, step, optimize=True, progressive=True)
    except OSError:  # Pillow gives an optimised file a byte a pixel, and noise needs more
        return _jpeg(image, step)


def _is_large(image: np.ndarray) -> bool:
    return image.shape[0] * image.shape[1] > _LARGE


def _webp(image: np.ndarray, quality: int | None) -> bytes:
    large = _is_large(image)
    if quality is None:
        return _saved(image, "WEBP", lossless=True, quality=0 if large else 40, method=0 if large else 2)
    return _saved(image, "WEBP", quality=quality, method=2 if large else 4, use_sharp_yuv=True)


Shown = Callable[[np.ndarray, int], np.ndarray]
"""What an encoder makes of a picture at a choice of its quality."""


def _coarsest_within(kind: MapKind, image: np.ndarray, shown: Shown, choices: range) -> int | None:
    """The first of `choices`, from coarse to fine, that keeps the bound; None where none does.

    A sheet of some of the blocks says which choice to try on the whole picture: evenly spread blocks at
    first, then those that came out worst.
    """
    found: int | None = None
    low, high = 0, len(choices)  # all before `low` miss the bound, `high` keeps it
    count = _blocks(image)
    spread = np.linspace(0, count - 1, _SHEET**2, dtype=int)
    sheet = image if count <= 4 * _SHEET**2 else _sheet(image, spread)
    if sheet is not image:
        best = kind.error(sheet, shown(sheet, choices[-1]))
        if best > kind.bound + kind.hopeless:
            return None
    apart = 0.0  # by how much the picture's error exceeds the sheet's
    tried = 0
    while low < high:
        guess = (low + high) // 2  # where the sheet has misled
        if tried < 3:
            ahead = _first_within(kind, sheet, shown, choices[low:high], apart)
            if found is not None and low + ahead == high:
                break  # none that is coarser keeps the bound on the sheet, corrected by the picture
            guess = min(low + ahead, high - 1)
        tried += 1
        pixels = shown(image, choices[guess])
        errors = kind.of_blocks(image, pixels) if kind.of_blocks else [kind.error(image, pixels)]
        if max(errors) <= kind.bound:
            found, high = choices[guess], guess
            if kind.of_blocks or sheet is image or tried > 1:
                break  # coarser ones miss the bound on the sheet, and so, but for `apart`, on the picture
        else:
            low = guess + 1
        if sheet is image:
            continue
        if kind.of_blocks:
            sheet = _sheet(image, np.argsort(errors)[-(_SHEET**2) :])
        else:
            apart = errors[0] - kind.error(sheet, shown(sheet, choices[guess]))
    return found


def _first_within(kind: MapKind, image: np.ndarray, shown: Shown, choices: range, apart: float = 0.0) -> int:
    """Index of the first of `choices` that keeps the bound with `apart` to spare, by bisection; their number
    where none does."""

    def keeps(choice: int) -> bool:
        return kind.error(image, shown(image, choice)) + apart <= kind.bound

    return bisect_left(choices, True, key=keeps)


def _blocks(image: np.ndarray) -> int:
    return -(-image.shape[0] // _BLOCK) * -(-image.shape[1] // _BLOCK)


def _sheet(image: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """A square picture of `_SHEET` times `_SHEET` blocks of a picture, by their numbers, row by row."""
    columns = -(-image.shape[1] // _BLOCK)
    corners = [
        [min(at * _BLOCK, side - _BLOCK) for at, side in zip(divmod(n, columns), image.shape, strict=False)]
        for n in chosen.tolist()
    ]
    blocks = np.stack([image[y : y + _BLOCK, x : x + _BLOCK] for y, x in corners])
    grid = blocks.reshape(_SHEET, _SHEET, _BLOCK, _BLOCK, -1).swapaxes(1, 2)
    return grid.reshape(_SHEET * _BLOCK, _SHEET * _BLOCK, -1)


def decoded(data: bytes, channels: int = 3) -> np.ndarray:
    """Pixels [H, W, channels] float32 of an encoded picture."""
    return _pixels(data, channels).astype(np.float32)


def _pixels(data: bytes, channels: int) -> np.ndarray:
    """Pixels [H, W, channels] uint8 of an encoded picture."""
    from PIL import Image

    with Image.open(BytesIO(data)) as picture:
        if channels == 4:
            return np.asarray(picture.convert("RGBA"))
        pixels = np.empty((picture.height, picture.width, 3), np.uint8)
        with _unnamed_file() as target:
            (picture if picture.mode == "RGB" else picture.convert("RGB")).save(target, "PPM")
            target.seek(-pixels.nbytes, os.SEEK_END)  # after the header
            target.readinto(pixels.data)
        return pixels


def _saved(image: np.ndarray, kind: str, **options: object) -> bytes:
    from PIL import Image

    with _unnamed_file() as target:
        Image.fromarray(np.ascontiguousarray(image)).save(target, kind, **options)
        target.seek(0)
        return target.read()


def _unnamed_file() -> BufferedRandom:
    """In memory where the system has such files. Pillow lets other threads run while it writes to a file, and
    none while it makes bytes: four pictures of 4096 one after the other, whatever the number of cores.
    """
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("picture"), "w+b")
    return tempfile.TemporaryFile()
