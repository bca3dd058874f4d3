"""House, tower, lighthouse, castle, windmill, church: fronts (doors) towards -y. Units: about 2 high."""

from __future__ import annotations

import numpy as np

from ..builder import Material, ObjectBuilder
from ..materials import Rng, anything, chance, dark, decorated, glass, paint, stone, uniform, white, wood
from ..table import Kind, Op, Pattern


def _wall(rng: Rng) -> Material:
    return [white, paint, stone, wood][int(rng.integers(4))](rng)


def house(rng: Rng) -> np.ndarray:
    """Walls, a gable or pyramid roof, a door, windows, a chimney sometimes."""
    x, y, z = uniform(rng, 0.7, 1.1), uniform(rng, 0.6, 1.0), uniform(rng, 0.45, 0.8)
    roof, over = uniform(rng, 0.3, 0.6), uniform(rng, 1.08, 1.25)
    wall, tiles = _wall(rng), decorated(rng, anything(rng), 0.2)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, y, z, 0.01), wall)
    shape = (0.0, 1.0) if chance(rng, 0.45) else ((1.0, 0.0) if chance(rng, 0.6) else (0.0, 0.0))
    b.add(Kind.FRUSTUM, (x * over, y * over, roof, *shape, 0.02), tiles, at=(0, 0, z + roof - 0.03))
    if chance(rng, 0.6):
        side = -1 if chance(rng, 0.5) else 1
        b.add(Kind.BOX, (0.11, 0.11, roof, 0.01), stone(rng), at=(side * x * 0.5, y * 0.3, z + roof * 1.3))
    door = z * uniform(rng, 0.5, 0.65)
    shift = 0.0 if chance(rng, 0.6) else x * uniform(rng, -0.4, 0.4)
    b.add(Kind.BOX, (x * uniform(rng, 0.16, 0.22), 0.05, door, 0.01), anything(rng), at=(shift, -y, door - z))
    pane, frame = glass(rng), white(rng) if chance(rng, 0.6) else paint(rng)
    w = x * uniform(rng, 0.13, 0.18)
    if abs(shift) < 0.05 * x:
        b.add(Kind.BOX, (w * 1.3, 0.04, w * 1.3, 0.01), frame, at=(x * 0.6, -y, z * 0.25), mirror="x")
        b.add(Kind.BOX, (w, 0.06, w, 0.01), pane, at=(x * 0.6, -y, z * 0.25), mirror="x")
    b.add(Kind.BOX, (0.05, w, w, 0.01), pane, at=(x, y * 0.45, z * 0.25), mirror="xy")
    if chance(rng, 0.3):
        b.add(Kind.BOX, (x * 1.2, y * 1.2, 0.06, 0.02), stone(rng), at=(0, 0, -z))
    return b.finish()


def tower(rng: Rng) -> np.ndarray:
    """A tall round or square keep with battlements or a pointed roof."""
    r, h, wall = uniform(rng, 0.35, 0.55), uniform(rng, 0.9, 1.3), _wall(rng)
    round_plan = chance(rng, 0.6)
    b = ObjectBuilder()
    if round_plan:
        b.add(Kind.CONE, (r * uniform(rng, 1.0, 1.2), r, h, 0.02), wall)
        b.add(Kind.CONE, (r * 1.25, r * 1.25, 0.14, 0.02), wall, at=(0, 0, h))
    else:
        b.add(Kind.BOX, (r, r, h, 0.01), wall)
        b.add(Kind.BOX, (r * 1.25, r * 1.25, 0.14, 0.02), wall, at=(0, 0, h))
    if chance(rng, 0.5):
        tall, tiles = uniform(rng, 0.3, 0.6), anything(rng)
        if round_plan:
            b.add(Kind.CONE, (r * 1.35, 0.02, tall, 0.01), tiles, at=(0, 0, h + tall))
        else:
            b.add(Kind.FRUSTUM, (r * 1.35, r * 1.35, tall, 0, 0, 0.01), tiles, at=(0, 0, h + tall))
        if chance(rng, 0.4):
            b.add(Kind.BOX, (0.2, 0.03, 0.11, 0.01), paint(rng), at=(0.2, 0, h + tall * 2 + 0.2))
            b.add(Kind.CONE, (0.035, 0.035, 0.3, 0.01), dark(rng), at=(0, 0, h + tall * 2 + 0.05))
    else:
        b.add(Kind.CONE, (r * 0.95, r * 0.95, 0.1, 0), wall, at=(0, 0, h + 0.15), op=Op.SUBTRACT)
        count = int(rng.integers(5, 8)) if round_plan else 4
        b.add(
            Kind.BOX,
            (0.11, 0.13, 0.13, 0.01),
            wall,
            at=(r * 1.13 * (1 if round_plan else 1.0), 0, h + 0.25),
            radial=count,
        )
        if not round_plan:
            b.add(Kind.BOX, (0.15, 0.15, 0.13, 0.01), wall, at=(r * 1.1, r * 1.1, h + 0.25), mirror="xy")
    b.add(Kind.BOX, (r * 0.35, 0.08, 0.28, 0.03), wood(rng), at=(0, -r * 1.05, 0.28 - h))
    pane = glass(rng) if chance(rng, 0.5) else dark(rng)
    for z in (0.1, 0.55):
        b.add(Kind.BOX, (0.08, 0.08, 0.14, 0.03), pane, at=(0, -r, z * h))
    return b.finish()


def lighthouse(rng: Rng) -> np.ndarray:
    """A banded tapering tower with a lantern room."""
    r, h = uniform(rng, 0.4, 0.55), uniform(rng, 0.9, 1.3)
    bands = white(rng).with_pattern(paint(rng), Pattern.RINGS, uniform(rng, 0.7, 1.6), rng.random())
    top = r * uniform(rng, 0.55, 0.75)
    b = ObjectBuilder()
    b.add(Kind.CONE, (r, top, h, 0.02), bands)
    b.add(
        Kind.CONE,
        (top * 1.5, top * 1.5, 0.06, 0.02),
        dark(rng) if chance(rng, 0.5) else paint(rng),
        at=(0, 0, h),
    )
    b.add(Kind.CONE, (top * 0.8, top * 0.8, 0.2, 0.02), glass(rng), at=(0, 0, h + 0.2))
    b.add(Kind.CONE, (top * 1.15, 0.03, 0.15, 0.02), paint(rng), at=(0, 0, h + 0.5))
    if chance(rng, 0.6):
        b.add(Kind.ELLIPSOID, (r * 1.7, r * 1.7, 0.25), stone(rng), at=(0, 0, -h), bump=(0.02, 9))
    return b.add(Kind.BOX, (r * 0.3, 0.06, 0.2, 0.03), anything(rng), at=(0, -r * 0.95, 0.2 - h)).finish()


def castle(rng: Rng) -> np.ndarray:
    """Four corner towers, walls between them, a gate towards -y."""
    x, h, r = uniform(rng, 0.8, 1.0), uniform(rng, 0.35, 0.5), uniform(rng, 0.2, 0.3)
    wall, roof = stone(rng) if chance(rng, 0.7) else paint(rng), paint(rng)
    tall = h * uniform(rng, 1.3, 1.8)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, x, h, 0.01), wall)
    b.add(Kind.BOX, (x - 0.14, x - 0.14, h, 0.01), wall, at=(0, 0, h * 0.7), op=Op.SUBTRACT)
    b.add(Kind.CONE, (r, r, tall, 0.02), wall, at=(x, x, tall - h), mirror="xy")
    if chance(rng, 0.7):
        cone = uniform(rng, 0.2, 0.4)
        b.add(
            Kind.CONE, (r * 1.25, 0.02, cone, 0.01), roof, at=(x, x, 2 * tall - h + cone * 0.9), mirror="xy"
        )
    keep = x * uniform(rng, 0.35, 0.5)
    if chance(rng, 0.7):
        up = tall * uniform(rng, 1.0, 1.4)
        b.add(Kind.BOX, (keep, keep, up, 0.01), wall, at=(0, 0, up - h))
        b.add(Kind.FRUSTUM, (keep * 1.15, keep * 1.15, 0.3, 0, 0, 0.01), roof, at=(0, 0, 2 * up - h + 0.28))
    b.add(Kind.BOX, (0.24, 0.08, h * 0.65, 0.05), wood(rng), at=(0, -x, -h * 0.35))
    return b.finish()


def windmill(rng: Rng) -> np.ndarray:
    """A tapering mill with four sails towards -y."""
    r, h = uniform(rng, 0.5, 0.65), uniform(rng, 0.8, 1.1)
    top = r * uniform(rng, 0.55, 0.75)
    wall = _wall(rng)
    b = ObjectBuilder()
    b.add(Kind.CONE, (r, top, h, 0.02), wall)
    b.add(Kind.ELLIPSOID, (top * 1.1, top * 1.1, top * uniform(rng, 0.7, 1.1)), paint(rng), at=(0, 0, h))
    sail, front, length = (
        decorated(rng, wood(rng) if chance(rng, 0.5) else white(rng), 0.3),
        -top * 1.3,
        uniform(rng, 0.55, 0.8),
    )
    start = uniform(rng, 0, 90)
    b.add(Kind.CONE, (0.09, 0.09, 0.25, 0.02), wood(rng), at=(0, front + 0.1, h), turn=(90, 0, 0))
    for i in range(4):
        a = np.radians(start + 90 * i)
        at = (length * np.cos(a), front, h + length * np.sin(a))
        b.add(Kind.BOX, (length * 0.95, 0.04, 0.15, 0.01), sail, at=at, turn=(0, -np.degrees(a), 0))
    b.add(Kind.BOX, (r * 0.25, 0.08, 0.25, 0.02), wood(rng), at=(0, -r * 0.93, 0.25 - h))
    return b.finish()


def church(rng: Rng) -> np.ndarray:
    """A nave with a gable roof along y and a steeple in front."""
    x, y, z = uniform(rng, 0.45, 0.6), uniform(rng, 0.7, 1.0), uniform(rng, 0.4, 0.6)
    wall, roof = _wall(rng), anything(rng)
    r = x * uniform(rng, 0.45, 0.6)
    tall, cap, spire = z * uniform(rng, 1.6, 2.2), uniform(rng, 0.25, 0.4), uniform(rng, 0.3, 0.6)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, y, z, 0.01), wall)
    b.add(Kind.FRUSTUM, (x * 1.12, y * 1.05, cap, 0, 1, 0.01), roof, at=(0, 0, z + cap - 0.03))
    b.add(Kind.BOX, (r, r, tall, 0.01), wall, at=(0, -y, tall - z))
    b.add(
        Kind.FRUSTUM, (r * 1.15, r * 1.15, spire, 0, 0, 0.01), roof, at=(0, -y, 2 * tall - z + spire - 0.03)
    )
    b.add(Kind.BOX, (r * 0.45, 0.06, z * 0.5, 0.05), wood(rng), at=(0, -y - r, -z * 0.5))
    b.add(Kind.BOX, (0.05, 0.1, z * 0.45, 0.05), glass(rng), at=(x, y * 0.4, 0.05), mirror="xy")
    return b.add(
        Kind.PRISM,
        (12, r * 0.4, 0.06, r * 0.386, 0.01),
        glass(rng),
        at=(0, -y - r, tall - z + tall * 0.5),
        turn=(90, 0, 0),
    ).finish()
