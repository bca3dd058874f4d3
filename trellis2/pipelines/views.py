"""One or several pictures of an object, and where each was taken from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from PIL import Image

from trellis2_pictures.cameras import DIRECTIONS, MAX_VIEWS

from ..conditioning.camera import (
    DEFAULT_FOV,
    VIEW_FOV,
    VIEW_MARGIN,
    Camera,
    camera_from_matrix,
    check_cameras,
    front_camera,
    in_main_frame,
    named_camera,
)
from ..conditioning.encoders.image_batch import image_batch, view_tensor
from ..conditioning.preprocess import framed_together
from ..errors import InvalidArgumentError, InvalidCameraError, InvalidImageError

CameraSpec: TypeAlias = str | Sequence[Sequence[float]] | torch.Tensor
"""A direction by name ("front", "left", "back", "right": the object's own side that is seen), or a
camera-to-world matrix."""


@dataclass(frozen=True)
class View:
    """A picture as networks see it, RGB on black or RGBA, and its camera (None: nobody asks for one)."""

    picture: Image.Image
    camera: Camera | None = None
    side: str | None = None  # of the object, by name, where one was said

    def tensor(self, size: int) -> torch.Tensor:
        """`[3, size, size]` in 0..1."""
        if self.picture.mode == "RGBA":
            return view_tensor(self.picture, size)
        return image_batch([self.picture], size)[0]


def check_count(count: int) -> None:
    """Raise `InvalidCameraError` for more pictures than are taken."""
    if not 1 <= count <= MAX_VIEWS:
        raise InvalidCameraError(f"{count} views: at least 1 and at most {MAX_VIEWS} are taken")


def single_view(cropped: Image.Image, fov_degrees: float | None) -> View:
    """A cropped picture from the front; its camera's distance follows from the field of view."""
    camera = front_camera(DEFAULT_FOV if fov_degrees is None else math.radians(fov_degrees))
    check_cameras([camera])
    return View(cropped, camera)


def several_views(
    matted: Sequence[Image.Image],
    cameras: Sequence[CameraSpec] | None,
    fov_degrees: float | None = None,
) -> list[View]:
    """Matted pictures (RGBA) with their cameras, moved into the frame of the main view, which comes first.

    With directions by name the pictures are cropped to one scale, and "front" is the main view where there is
    one; with matrices they are taken as they are, and the first is. Raises `InvalidCameraError`,
    `InvalidImageError`.
    """
    count = len(matted)
    check_count(count)
    if cameras is None or len(cameras) != count:
        given = "none" if cameras is None else str(len(cameras))
        raise InvalidCameraError(
            f"{count} views need {count} cameras, {given} given: say for each {', '.join(DIRECTIONS)} "
            "(the object's own side that is seen), or give camera-to-world matrices"
        )
    names = [camera for camera in cameras if isinstance(camera, str)]
    if len(names) == count:
        return _named_views(matted, names, fov_degrees)
    if names:
        raise InvalidCameraError(
            "give directions by name for all views, or matrices for all, not some of each"
        )
    fov = DEFAULT_FOV if fov_degrees is None else math.radians(fov_degrees)
    posed = [camera_from_matrix(c, fov) for c in cameras if not isinstance(c, str)]
    sizes = {picture.size for picture in matted}
    if len(sizes) > 1 or any(w != h for w, h in sizes):
        shown = ", ".join(f"{w}x{h}" for w, h in sorted(sizes))
        raise InvalidImageError(
            f"views with camera matrices must be square and of one size, these are {shown}: a matrix "
            "describes the frame as it is"
        )
    check_cameras(posed)
    return [View(p, c) for p, c in zip(matted, in_main_frame(posed), strict=True)]


def _named_views(
    matted: Sequence[Image.Image], names: Sequence[str], fov_degrees: float | None
) -> list[View]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidCameraError(f"two views are both from {twice[0]}; give each direction once, or matrices")
    fov = VIEW_FOV if fov_degrees is None else math.radians(fov_degrees)
    cameras = [named_camera(name, fov) for name in names]
    check_cameras(cameras)
    views = list(zip(framed_together(matted, VIEW_MARGIN), cameras, names, strict=True))
    views.sort(key=lambda view: view[2] != "front")  # stable: the others stay in their order
    moved = in_main_frame([camera for _, camera, _ in views])
    return [View(picture, camera) for (picture, *_), camera in zip(views, moved, strict=True)]


def plain_views(pictures: Sequence[Image.Image], sides: Sequence[CameraSpec] | None) -> list[View]:
    """Cropped pictures with the sides that they show, where these are said; the front comes first."""
    if sides is None:
        return [View(picture) for picture in pictures]
    views = [View(picture, side=str(side)) for picture, side in zip(pictures, sides, strict=True)]
    return sorted(views, key=lambda view: view.side != "front")  # stable: the others stay in their order


def check_plain(count: int, cameras: Sequence[CameraSpec] | None, fov_degrees: object) -> None:
    """Raise `InvalidArgumentError` for cameras that weights without cameras of their own cannot use,
    `InvalidCameraError` for sides that are none, or not one a picture.
    """
    check_count(count)
    if fov_degrees is not None or any(not isinstance(camera, str) for camera in cameras or ()):
        raise InvalidArgumentError(
            "these weights know no cameras: leave out fov and camera matrices, or load pixel-aligned weights"
        )
    for name in cameras or ():
        named_camera(str(name))  # a misspelt one is refused here too
    if cameras is not None and len(cameras) != count:
        raise InvalidCameraError(
            f"{count} views and {len(cameras)} cameras: say which side each view shows, or leave cameras out"
        )


def view_warning(
    count: int, trained_for: range, pixel_aligned: bool, upright: bool = False, sides: bool = False
) -> str | None:
    """What to tell people whose number of pictures the weights were not trained for. `upright`: flows are
    pixel-aligned in the object's own frame, where `sides` says that all pictures name theirs.
    """
    if count in trained_for:
        return None
    if upright:
        return (
            f"the shape follows the first picture; each part takes its detail from whichever of the {count}"
            " pictures shows it best, an approximation"
            if sides
            else f"{count} pictures are used one after another, an approximation: say which side of the"
            " object each shows (front, left, back, right), and each part is read from the best of them"
        )
    if not pixel_aligned:
        return f"{count} pictures are used one after another, an approximation: these weights know one view"
    if count > 1:
        return f"these weights were trained on one view; with {count} the multi-view weights do better"
    return "these weights were trained on several views; from one the single-view weights do better"
