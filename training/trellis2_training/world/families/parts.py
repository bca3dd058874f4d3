"""Parts that many families share: struts between two points, balls, eyes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..builder import Material, ObjectBuilder
from ..materials import Rng, dark, uniform, white
from ..table import Kind

Point = Sequence[float] | np.ndarray


def strut(
    b: ObjectBuilder,
    m: Material,
    start: Point,
    end: Point,
    radius: float,
    to: float | None = None,
    mirror: str = "",
    radial: int = 0,
    blend: float = 0.0,
) -> None:
    """A round bar from `start` to `end`, its radius changing to `to`."""
    way = np.subtract(end, start)
    length = float(np.linalg.norm(way))
    turn = (0.0, np.degrees(np.arccos(way[2] / length)), np.degrees(np.arctan2(way[1], way[0])))
    sizes = (radius, radius if to is None else to, length)
    at = [float(x) for x in start]
    b.add(Kind.CAPSULE, sizes, m, at=at, turn=turn, mirror=mirror, radial=radial, blend=blend)


def ball(
    b: ObjectBuilder,
    m: Material | None,
    radii: Point | float,
    at: Point = (0.0, 0.0, 0.0),
    mirror: str = "",
    turn: Sequence[float] = (0.0, 0.0, 0.0),
    blend: float = 0.0,
) -> None:
    """An ellipsoid; a single number is the radius of a ball."""
    sizes = [float(r) for r in np.broadcast_to(radii, 3)]
    place = [float(x) for x in at]
    b.add(Kind.ELLIPSOID, sizes, m, at=place, mirror=mirror, turn=turn, blend=blend)


def eyes(b: ObjectBuilder, rng: Rng, at: Point, size: float) -> None:
    """Two eyes that look towards -y, the right one at `at`: white with pupils, or dark and glossy, with a
    glint now and then. Two rows at most.
    """
    x, y, z = at
    style = rng.random()
    iris = dark(rng)
    if style < 0.6:
        ball(b, white(rng), (size, size * 0.7, size * 1.1), at, "x")
        pupil = size * uniform(rng, 0.5, 0.68)
        ball(b, iris, (pupil, pupil * 0.6, pupil * 1.1), (x * 0.97, y - size * 0.48, z), "x")
        return
    ball(b, iris, (size * 0.75, size * 0.6, size * 0.85), at, "x")
    if style < 0.85:
        ball(b, white(rng), size * 0.26, (x + size * 0.2, y - size * 0.48, z + size * 0.3), "x")
