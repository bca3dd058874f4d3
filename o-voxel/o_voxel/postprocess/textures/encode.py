"""The maps of a material as bytes of picture files, each with the loss that its kind of data bears.

Colour may lose what nobody sees; directions and metalness may not lose their edges. A lossy codec gets the
lowest quality at which the decoded picture keeps the bound of its map, everywhere in it; where no quality
does, the map is stored without loss. Halved chroma blurs directions and channels into one another, so JPEG is
4:4:4, and its quantisation is as fine in chroma as in luma: the usual tables suit eyes, and spend a quarter
more bytes on the same error.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np

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
_LARGE = (
    2048 * 2048
)  # texels beyond which a lossless WebP takes the fastest way: an eighth of the time, 1.4 times the bytes
_NORMAL_STEP = 4  # levels a lossless WebP of normals may move by half of: 1.3 degrees, a third smaller


@dataclass(frozen=True)
class MapKind:
    """What an encoder may do to a map: `error` of two pictures [H, W, 3 or 4] float, at most `bound`.

    `of_blocks`: an error that is the worst block's, of all blocks.
    """

    error: Callable[[np.ndarray, np.ndarray], float]
    bound: float
    of_blocks: Callable[[np.ndarray, np.ndarray], list[float]] | None = None


def colour_error(truth: np.ndarray, shown: np.ndarray) -> float:
    """-PSNR in dB of the colour of all texels that are not clear."""
    squared = (truth[..., :3] - shown[..., :3]) ** 2
    if truth.shape[2] == 4:
        squared = squared[truth[..., 3] > 0]
    mean = float(squared.mean()) if squared.size else 0.0
    return float(10 * np.log10(max(mean, 1e-9) / 255**2))


def normal_error(truth: np.ndarray, shown: np.ndarray) -> float:
    """Degrees: the worst block's 95th percentile."""
    return max(_normal_errors(truth, shown))


def _normal_errors(truth: np.ndarray, shown: np.ndarray) -> list[float]:
    a, b = (pixels / 127.5 - 1 for pixels in (truth, shown))
    across, length, other = (np.einsum("...k,...k", *pair) for pair in ((a, b), (a, a), (b, b)))
    cosine = across / np.sqrt(length * other).clip(1e-6)
    least = [np.partition(block, block.size // 20, axis=None)[block.size // 20] for block in _blocks(cosine)]
    degrees: list[float] = np.degrees(np.arccos(np.clip(least, -1, 1))).tolist()
    return degrees


def channel_error(truth: np.ndarray, shown: np.ndarray) -> float:
    """Of 255: the worst block's and channel's mean."""
    return max(_channel_errors(truth, shown))


def _channel_errors(truth: np.ndarray, shown: np.ndarray) -> list[float]:
    return [float(block.mean(axis=(0, 1)).max()) for block in _blocks(np.abs(truth - shown))]


def _blocks(values: np.ndarray) -> list[np.ndarray]:
    rows, columns = (range(0, side, _BLOCK) for side in values.shape[:2])
    return [values[y : y + _BLOCK, x : x + _BLOCK] for y in rows for x in columns]


MAP_KINDS = {
    "base_color": MapKind(colour_error, -COLOUR_PSNR),
    "metallic_roughness": MapKind(channel_error, CHANNEL_ERROR, _channel_errors),
    "normal": MapKind(normal_error, NORMAL_ERROR, _normal_errors),
}


def encode_map(name: str, image: np.ndarray, texture_format: str) -> tuple[str, bytes]:
    """(format, bytes) of the map `name` of MAP_KINDS, uint8 [H, W, 3 or 4].

    JPEG has no alpha: such a picture becomes PNG.
    """
    if texture_format == "png" or (texture_format == "jpeg" and image.shape[2] == 4):
        return "png", encode_png(image)
    kind = MAP_KINDS[name]
    if texture_format == "jpeg":
        step, _ = _coarsest_within(kind, image, _jpeg, _JPEG_STEPS)
        return ("png", encode_png(image)) if step is None else ("jpeg", _small_jpeg(image, step))
    _, lossy = _coarsest_within(kind, image, _webp, _WEBP_QUALITIES)
    stored = image
    if name == "normal":
        stored = (np.rint((image - 128.0) / _NORMAL_STEP) * _NORMAL_STEP + 128).clip(0, 255).astype(np.uint8)
    return "webp", lossy or _webp(stored, None)


def encode_png(image: np.ndarray) -> bytes:
    """uint8 [H, W], [H, W, 3] or [H, W, 4] as the bytes of a PNG file."""
    # Runs only: baked textures hold few other repetitions, and looking for them takes four times as long.
    return _saved(image, "PNG", compress_level=6, compress_type=zlib.Z_RLE)


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


def _webp(image: np.ndarray, quality: int | None) -> bytes:
    if quality is None:
        large = image.shape[0] * image.shape[1] > _LARGE
        return _saved(image, "WEBP", lossless=True, quality=0 if large else 40, method=0 if large else 2)
    return _saved(image, "WEBP", quality=quality, method=4, use_sharp_yuv=True)


def _coarsest_within(
    kind: MapKind, image: np.ndarray, save: Callable[[np.ndarray, int], bytes], choices: range
) -> tuple[int | None, bytes]:
    """The first of `choices`, from coarse to fine, that keeps the bound, and its bytes; None where none does.

    A sheet of some of the blocks says which choice to try on the whole picture: evenly spread blocks at
    first, then those that came out worst.
    """
    truth = image.astype(np.float32)
    found: tuple[int | None, bytes] = (None, b"")
    low, high = 0, len(choices)  # all before `low` miss the bound, `high` keeps it
    count = len(_blocks(image))
    spread = np.linspace(0, count - 1, _SHEET**2, dtype=int)
    sheet = image if count <= 4 * _SHEET**2 else _sheet(image, spread)
    apart = 0.0  # by how much the picture's error exceeds the sheet's
    tried = 0
    while low < high:
        guess = (low + high) // 2  # where the sheet has misled
        if tried < 3:
            guess = min(low + _first_within(kind, sheet, save, choices[low:high], apart), high - 1)
        tried += 1
        data = save(image, choices[guess])
        shown = decoded(data, image.shape[2])
        errors = kind.of_blocks(truth, shown) if kind.of_blocks else [kind.error(truth, shown)]
        if max(errors) <= kind.bound:
            found, high = (choices[guess], data), guess
            if kind.of_blocks or sheet is image or tried > 1:
                break  # coarser ones miss the bound on the sheet, and so, but for `apart`, on the picture
        else:
            low = guess + 1
        if sheet is image:
            continue
        if kind.of_blocks:
            sheet = _sheet(image, np.argsort(errors)[-(_SHEET**2) :])
        else:
            as_shown = decoded(save(sheet, choices[guess]), image.shape[2])
            apart = errors[0] - kind.error(sheet.astype(np.float32), as_shown)
    return found


def _first_within(
    kind: MapKind,
    image: np.ndarray,
    save: Callable[[np.ndarray, int], bytes],
    choices: range,
    apart: float = 0.0,
) -> int:
    """Index of the first of `choices` that keeps the bound with `apart` to spare, by bisection; their number
    where none does."""
    truth = image.astype(np.float32)

    def keeps(choice: int) -> bool:
        return kind.error(truth, decoded(save(image, choice), image.shape[2])) + apart <= kind.bound

    return bisect_left(choices, True, key=keeps)


def _sheet(image: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """A square picture of `_SHEET` times `_SHEET` blocks of a picture, by their numbers in `_blocks`."""
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
    from PIL import Image

    with Image.open(BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGBA" if channels == 4 else "RGB"), dtype=np.float32)


def _saved(image: np.ndarray, kind: str, **options: object) -> bytes:
    from PIL import Image

    target = BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(target, kind, **options)
    return target.getvalue()
