"""What a matte says: whether transparency is one, how many subjects it shows, what a person should know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

Subjects: TypeAlias = Literal["auto", "largest", "all"]

SUBJECT_ALPHA = 0.8 * 255  # pixels above this belong to the subject when its box is measured
LEAST_CLEAR = 0.005  # share of the picture that a matte leaves clear
CORNERS = 0.15  # a picture that reaches all four sides and is clear in less than this is only trimmed
ANOTHER_SUBJECT = 0.15  # of the largest one's area: smaller parts are no subject of their own
DARK = 12  # of 255: a subject whose brightest parts are below is lost on black
FAINT = 0.9  # of opaque: the most that a faint matte has anywhere

_SIDE = 256  # pixels of the small matte in which parts are looked for
_GAP = 2  # parts that near in the small matte are one


@dataclass(frozen=True)
class Notice:
    """Something a person should know of a picture; `code` is stable, `message` says what to do."""

    code: str
    message: str


OnNotice: TypeAlias = Callable[[Notice], None]

BUSY_BACKGROUND = Notice(
    "busy_background",
    "the background is not plain, so parts of it may be left or parts of the object missing",
)


def ignore(notice: Notice) -> None:
    """For callers that want no notices."""


def has_matte(image: Image.Image) -> bool:
    """Whether the picture's transparency cuts a subject out.

    A few clear pixels, an even veil or rounded corners do not: the background would be modelled with it.
    """
    if image.mode != "RGBA":
        return False
    alpha = np.asarray(image.getchannel("A"))
    top = int(alpha.max())
    clear = alpha <= top // 2
    share = float(clear.mean()) if top else 1.0
    if share < LEAST_CLEAR:
        return False
    sides = (clear[0], clear[-1], clear[:, 0], clear[:, -1])
    return share >= CORNERS or any(side.mean() > 0.4 for side in sides)


def strengthened(image: Image.Image, notice: OnNotice = ignore) -> Image.Image:
    """A matte that is nowhere opaque, scaled until it is; other RGBA pictures as they are.

    Glass, and lines that grew thin when the picture was scaled down, would else be no subject at all.
    """
    alpha = np.asarray(image.getchannel("A"))
    top = int(alpha.max())
    if not 0 < top <= SUBJECT_ALPHA:
        return image
    if top < FAINT * SUBJECT_ALPHA:
        share = top / 255
        notice(
            Notice(
                "faint_subject",
                f"nothing in the picture is opaque (at most {share:.0%}); its transparency was strengthened",
            )
        )
    image = image.copy()
    image.putalpha(Image.fromarray(np.rint(alpha * (255.0 / top)).astype(np.uint8)))
    return image


def choose_subjects(image: Image.Image, subjects: Subjects, notice: OnNotice = ignore) -> Image.Image:
    """An RGBA picture with all its subjects, or only the largest near the middle."""
    from scipy import ndimage

    alpha = image.getchannel("A")
    scale = min(1.0, _SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = np.asarray(alpha.resize(size, Image.Resampling.BOX), dtype=np.float32)
    solid = small > 0.4 * max(float(small.max()), 1.0)
    near = np.ones((3, 3), dtype=bool)
    labels, count = ndimage.label(ndimage.binary_dilation(solid, near, iterations=_GAP), near)
    if count < 2:
        return image
    areas = np.bincount(labels[solid], minlength=count + 1).astype(float)
    areas[0] = 0
    parts = np.nonzero(areas >= ANOTHER_SUBJECT * areas.max())[0]
    if len(parts) < 2:
        return image
    if subjects != "largest":
        notice(
            Notice(
                "several_subjects",
                f"{len(parts)} objects stand out and all were kept, as one; keep only the largest, or crop"
                " the picture to one",
            )
        )
        return image
    middle = np.array(solid.shape) / 2
    centres = np.array(ndimage.center_of_mass(solid, labels, parts))
    weight = areas[parts] * np.exp(-(np.linalg.norm((centres - middle) / middle, axis=1) ** 2))
    dropped = np.isin(labels, np.delete(parts, int(weight.argmax())))
    mask = Image.fromarray(dropped.astype(np.uint8) * 255).resize(image.size, Image.Resampling.NEAREST)
    kept = image.copy()
    kept.putalpha(Image.fromarray(np.where(np.asarray(mask) > 0, 0, np.asarray(alpha)).astype(np.uint8)))
    notice(
        Notice(
            "several_subjects",
            f"{len(parts)} objects stand out and only the largest was kept; keep all, or crop the picture to "
            "another one",
        )
    )
    return kept


def notice_darkness(image: Image.Image, notice: OnNotice = ignore) -> None:
    """Tell of a subject (RGBA) that is lost on the black on which the model sees it."""
    pixels = np.asarray(image)
    solid = pixels[..., :3][pixels[..., 3] > 127]
    if solid.size and float(np.percentile(solid.max(axis=1), 95)) < DARK:
        notice(
            Notice(
                "dark_subject",
                "the subject is almost black, and the model sees it on black: use a brighter picture of it",
            )
        )
