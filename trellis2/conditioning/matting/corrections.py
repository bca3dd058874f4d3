"""A cut-out corrected by hand: a box around the subject, strokes that keep or remove, another attempt.

A stroke takes the even part along that it marks; under the stroke itself the paint alone counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from . import grabcut
from .grabcut import Floats, Mask

ATTEMPTS = 4
"""Ways to begin: from the first cut-out, from all that is inside, from the middle, from colours alone."""

LEAST_IN_BOX = 0.1  # of a box: a first cut-out that covers less of it is of something else
EDGE = 4.0  # Lab units from pixel to pixel, slightly blurred: less is shading
BRUSHED = 0.25  # of a stroke: parts that it covers with less are not meant
SPECK = 5e-4  # of the picture
INSET = 0.04  # of the shorter side: how far a subject keeps from the edges where no box says so


@dataclass(frozen=True)
class Corrections:
    """What a person says of a cut-out.

    `box` is left, top, right and bottom of the subject in fractions of the picture. `trimap` is a grey
    picture of the same shape: white is subject, black is background, mid-grey says nothing. `attempt` 1 goes
    on from the first cut-out, 2 to `ATTEMPTS` begin otherwise.
    """

    box: tuple[float, float, float, float] | None = None
    trimap: Image.Image | None = None
    attempt: int = 1

    def __bool__(self) -> bool:
        return self.box is not None or self.trimap is not None or self.attempt > 1


def corrected(
    image: Image.Image, first: Callable[[], Image.Image], corrections: Corrections, own: bool = False
) -> Image.Image:
    """An RGB picture with its corrected matte, as RGBA.

    `first` makes the cut-out (RGBA) that attempt 1 goes on from; `own` says that it is the picture's own
    transparency, which is only cleared outside the box and painted over, not cut anew.
    """
    pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    keep, remove = strokes(corrections.trimap, (width, height))
    start = np.asarray(first().getchannel("A")) / 255 if corrections.attempt == 1 else None
    if own and start is not None:
        alpha = np.where(box_mask(corrections.box, height, width), start, 0.0)
    else:
        alpha = grabcut.soften(pixels, _silhouette(pixels, start, keep, remove, corrections))
    alpha = (alpha * (1 - keep) + keep) * (1 - remove)
    cut = image.convert("RGB")
    cut.putalpha(Image.fromarray(np.rint(alpha * 255).astype(np.uint8)))
    return cut


def strokes(trimap: Image.Image | None, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """How much each pixel `[H, W]` is kept and removed by hand, 0..1."""
    if trimap is None:
        nothing = np.zeros((size[1], size[0]), dtype=np.float32)
        return nothing, nothing
    grey = trimap.convert("L").resize(size, Image.Resampling.BILINEAR)
    said = (np.asarray(grey, dtype=np.float32) - 128) / 127
    return np.clip(said, 0, 1), np.clip(-said, 0, 1)


def box_mask(box: tuple[float, float, float, float] | None, height: int, width: int) -> Mask:
    """The pixels in a box; all without one."""
    if box is None:
        return np.ones((height, width), dtype=bool)
    inside = np.zeros((height, width), dtype=bool)
    left, top, right, bottom = (
        round(edge * side) for edge, side in zip(box, (width, height) * 2, strict=True)
    )
    inside[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return inside


def _silhouette(
    pixels: npt.NDArray[np.uint8],
    start: npt.NDArray[np.floating] | None,
    keep: Floats,
    remove: Floats,
    corrections: Corrections,
) -> Mask:
    """The subject `[H, W]`, found at working size."""
    import cv2

    height, width = pixels.shape[:2]
    working = grabcut.working_picture(pixels)
    rows, columns = working.shape[:2]

    def small(share: npt.NDArray[np.floating]) -> Floats:
        resized = cv2.resize(share.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        return np.asarray(resized, dtype=np.float32)

    kept, removed = small(keep) > 0.3, small(remove) > 0.3
    begun = None if start is None else small(start) > 0.5
    if begun is not None and corrections.box is None:
        mask = _spread(working, begun, kept, removed)
    else:
        mask = _cut(working, begun, kept, removed, corrections)
    return cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5


def _spread(pixels: npt.NDArray[np.uint8], start: Mask, kept: Mask, removed: Mask) -> Mask:
    """A mask after strokes, each of which means all of the even part that it marks; the rest stays."""
    background = grabcut.background_distance(pixels)[0] < grabcut.FAR
    mask = start & ~_marked(pixels, removed, start)
    mask |= _marked(pixels, kept, ~start & ~background)  # the background hangs together: only paint keeps it
    specks = mask & ~_large(mask) & ~_touched(mask, kept)
    return mask & ~specks & ~removed | kept


def _marked(pixels: npt.NDArray[np.uint8], painted: Mask, within: Mask) -> Mask:
    """The even parts, without an edge in them, that strokes mark; what a brush only brushes is not meant."""
    import cv2

    marked = np.zeros(within.shape, dtype=bool)
    if not painted.any():
        return marked
    lab = cv2.cvtColor(cv2.blur(pixels, (3, 3)).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    steps = [np.abs(np.diff(lab, axis=axis)).max(axis=2) for axis in (0, 1)]
    even = np.ones(within.shape, dtype=bool)
    even[1:] &= steps[0] < EDGE
    even[:, 1:] &= steps[1] < EDGE
    _, parts = cv2.connectedComponents((even & within).astype(np.uint8), connectivity=4)
    count, each = cv2.connectedComponents(painted.astype(np.uint8), connectivity=8)
    for stroke in range(1, count):
        areas = np.bincount(parts[each == stroke])
        found = np.nonzero(areas[1:] >= BRUSHED * areas.sum())[0] + 1
        marked |= np.isin(parts, found)
    edges = cv2.dilate(marked.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool) & ~even
    return marked | (edges & within)


def _large(mask: Mask) -> Mask:
    """The parts of a mask that are no specks."""
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= SPECK * mask.size
    large[0] = False
    found: Mask = large[labels]
    return found


def _cut(
    pixels: npt.NDArray[np.uint8], start: Mask | None, kept: Mask, removed: Mask, corrections: Corrections
) -> Mask:
    """GrabCut from a box or another beginning, held to the strokes."""
    import cv2

    inside = box_mask(corrections.box, *pixels.shape[:2])
    seed = _begin(pixels, start, inside, corrections)
    seed[~inside | removed] = cv2.GC_BGD
    seed[kept] = cv2.GC_FGD
    labels = grabcut.grabcut(pixels, seed) if _can_be_cut(seed) else seed
    subject = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return grabcut.fill_small_holes(grabcut.main_components(subject) | _touched(subject, kept)) & ~removed


def _begin(
    pixels: npt.NDArray[np.uint8], start: Mask | None, inside: Mask, corrections: Corrections
) -> npt.NDArray[np.uint8]:
    """What is probably subject, by the attempt."""
    import cv2

    height, width = inside.shape
    if start is not None and (start & inside).sum() >= LEAST_IN_BOX * inside.sum() * bool(corrections.box):
        probable = start & inside
    elif corrections.attempt <= 2:
        probable = inside & (_inset(height, width) if corrections.box is None else True)
    elif corrections.attempt == 3:
        probable = _ellipse(inside)
    else:
        distance, _ = grabcut.background_distance(pixels)
        probable = inside & (distance > grabcut.FAR)
    seed = np.where(probable, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    if corrections.box is None and start is None:
        seed[grabcut.border_frame(height, width)] = cv2.GC_BGD
    return seed


def _can_be_cut(seed: npt.NDArray[np.uint8]) -> bool:
    """GrabCut learns two sets of colours: it needs some pixels of each."""
    import cv2

    subject = (seed == cv2.GC_FGD) | (seed == cv2.GC_PR_FGD)
    return bool(subject.any() and not subject.all())


def _inset(height: int, width: int) -> Mask:
    rim = max(1, round(min(height, width) * INSET))
    inner = np.zeros((height, width), dtype=bool)
    inner[rim : height - rim, rim : width - rim] = True
    return inner


def _ellipse(inside: Mask) -> Mask:
    """The ellipse that fills four fifths of the box."""
    rows, columns = np.nonzero(inside)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    y, x = np.mgrid[: inside.shape[0], : inside.shape[1]]
    u = (2 * x + 1 - left - right) / max(1, right - left)
    v = (2 * y + 1 - top - bottom) / max(1, bottom - top)
    round_: Mask = u * u + v * v < 0.64
    return round_


def _touched(mask: Mask, strokes: Mask) -> Mask:
    """The parts of a mask that a stroke reaches, however small."""
    import cv2

    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    found = np.unique(labels[strokes & mask])
    touched: Mask = np.isin(labels, found[found > 0])
    return touched
