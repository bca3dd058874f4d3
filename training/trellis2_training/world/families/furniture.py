"""Table, chair, stool, sofa, lamp, shelf, crate, gift: things of a room. Units: about 2 high."""

from __future__ import annotations

import numpy as np

from ..builder import Material, ObjectBuilder
from ..materials import Rng, anything, chance, decorated, metal, paint, uniform, white, wood
from ..table import Kind


def _stuff(rng: Rng) -> Material:
    return [wood, wood, paint, metal][int(rng.integers(4))](rng)


def _legs(b: ObjectBuilder, rng: Rng, m: Material, x: float, y: float, height: float, top: float) -> None:
    thick = uniform(rng, 0.06, 0.11)
    spread = uniform(rng, 0, 8) if chance(rng, 0.4) else 0.0
    middle = (x - thick, y - thick, top - height / 2)
    if chance(rng, 0.5):
        b.add(
            Kind.BOX, (thick, thick, height / 2, 0.02), m, at=middle, mirror="xy", turn=(spread, -spread, 0)
        )
    else:
        b.add(
            Kind.CONE,
            (thick * 0.7, thick, height / 2, 0.02),
            m,
            at=middle,
            mirror="xy",
            turn=(spread, -spread, 0),
        )


def table(rng: Rng) -> np.ndarray:
    """A rectangular or round top on four legs or one column."""
    x, y, h = uniform(rng, 0.8, 1.4), uniform(rng, 0.55, 1.0), uniform(rng, 0.6, 1.3)
    thick = uniform(rng, 0.05, 0.1)
    top, legs = decorated(rng, _stuff(rng), 0.2), _stuff(rng)
    b = ObjectBuilder()
    if chance(rng, 0.6):
        b.add(Kind.BOX, (x, y, thick, 0.03), top)
        _legs(b, rng, legs if chance(rng, 0.5) else top, x * 0.93, y * 0.93, h, -thick * 0.5)
        if chance(rng, 0.4):
            b.add(Kind.BOX, (x * 0.85, y * 0.85, 0.1, 0.02), legs, at=(0, 0, -thick - 0.08))
    else:
        b.add(Kind.CONE, (y, y, thick, 0.03), top)
        if chance(rng, 0.5):
            b.add(Kind.CONE, (0.12, 0.1, h / 2, 0.02), legs, at=(0, 0, -h / 2))
            b.add(Kind.CONE, (y * 0.6, y * 0.5, 0.06, 0.03), legs, at=(0, 0, -h))
        else:
            count = int(rng.integers(3, 5))
            b.add(
                Kind.CONE,
                (0.06, 0.08, h / 2, 0.02),
                legs,
                at=(y * 0.75, 0, -h / 2),
                turn=(0, -8, 0),
                radial=count,
            )
    return b.finish()


def chair(rng: Rng) -> np.ndarray:
    """Seat, four legs and a back at +y, so that it faces -y."""
    x, y, h = uniform(rng, 0.5, 0.65), uniform(rng, 0.45, 0.6), uniform(rng, 0.7, 1.0)
    frame = _stuff(rng)
    seat = frame if chance(rng, 0.4) else decorated(rng, paint(rng), 0.2)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, y, uniform(rng, 0.05, 0.12), 0.04), seat)
    _legs(b, rng, frame, x, y, h, 0.0)
    back, lean = uniform(rng, 0.5, 0.75), uniform(rng, 0, 10)
    if chance(rng, 0.5):
        b.add(Kind.BOX, (x, 0.06, back, 0.04), seat, at=(0, y - 0.06, back), turn=(-lean, 0, 0))
    else:
        b.add(Kind.BOX, (0.07, 0.06, back, 0.02), frame, at=(x - 0.07, y - 0.06, back), mirror="x")
        for i in range(int(rng.integers(1, 4))):
            b.add(Kind.BOX, (x, 0.05, 0.1, 0.02), seat, at=(0, y - 0.06, back * (1.85 - 0.5 * i)))
    if chance(rng, 0.3):
        b.add(Kind.BOX, (0.06, y * 0.95, 0.05, 0.02), frame, at=(x - 0.04, 0, 0.42), mirror="x")
        b.add(Kind.BOX, (0.06, 0.06, 0.22, 0.02), frame, at=(x - 0.04, -y * 0.8, 0.2), mirror="x")
    return b.finish()


def stool(rng: Rng) -> np.ndarray:
    """A round seat on three to five slanted legs with a ring."""
    r, h = uniform(rng, 0.45, 0.65), uniform(rng, 0.8, 1.5)
    frame = _stuff(rng)
    seat = decorated(rng, _stuff(rng), 0.3)
    count = int(rng.integers(3, 6))
    b = ObjectBuilder()
    b.add(Kind.CONE, (r * uniform(rng, 0.85, 1.0), r, uniform(rng, 0.07, 0.14), 0.05), seat)
    tilt = uniform(rng, 3, 12)
    b.add(
        Kind.CONE,
        (0.06, 0.075, h / 2, 0.02),
        frame,
        at=(r * 0.72, 0, -h / 2),
        turn=(0, -tilt, 0),
        radial=count,
    )
    if chance(rng, 0.7):
        b.add(
            Kind.TORUS,
            (r * 0.72 + 0.15 * h * np.tan(np.radians(tilt)), 0.05, np.pi),
            frame,
            at=(0, 0, -h * 0.65),
        )
    return b.finish()


def sofa(rng: Rng) -> np.ndarray:
    """One to three cushions between arms, facing -y."""
    x, y = uniform(rng, 0.7, 1.5), uniform(rng, 0.5, 0.65)
    cloth = decorated(rng, paint(rng), 0.2)
    cushion = cloth if chance(rng, 0.5) else paint(rng)
    soft = uniform(rng, 0.06, 0.14)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, y, 0.22, 0.06), cloth)
    back = uniform(rng, 0.4, 0.6)
    b.add(Kind.BOX, (x, 0.17, back, soft), cloth, at=(0, y - 0.1, back - 0.1), turn=(-6, 0, 0))
    arm = uniform(rng, 0.28, 0.42)
    b.add(Kind.BOX, (0.16, y, arm, soft), cloth, at=(x, 0, arm - 0.2), mirror="x")
    if x > 1.05:
        b.add(
            Kind.BOX,
            (x / 2 - 0.09, y - 0.12, 0.13, soft * 0.8),
            cushion,
            at=(x / 2 - 0.07, -0.12, 0.3),
            mirror="x",
        )
    else:
        b.add(Kind.BOX, (x - 0.17, y - 0.12, 0.13, soft * 0.8), cushion, at=(0, -0.12, 0.3))
    return b.add(
        Kind.CONE, (0.06, 0.08, 0.1, 0.02), wood(rng), at=(x - 0.05, y - 0.15, -0.3), mirror="xy"
    ).finish()


def lamp(rng: Rng) -> np.ndarray:
    """A foot, a stem and a shade."""
    h, foot = uniform(rng, 0.5, 1.1), uniform(rng, 0.35, 0.55)
    stand = anything(rng)
    b = ObjectBuilder()
    if chance(rng, 0.5):
        b.add(
            Kind.CONE,
            (foot, foot * uniform(rng, 0.6, 1.0), uniform(rng, 0.06, 0.12), 0.03),
            stand,
            at=(0, 0, -h),
        )
        b.add(Kind.CONE, (0.07, 0.06, h, 0.02), stand, blend=0.08)
    else:
        b.add(Kind.REVOLVE, (foot * 0.6, foot * 1.6, foot * 0.2, 0.08, h, 0), decorated(rng, stand, 0.3))
    wide, narrow, tall = uniform(rng, 0.6, 0.95), uniform(rng, 0.25, 0.55), uniform(rng, 0.3, 0.5)
    shade = decorated(rng, white(rng) if chance(rng, 0.4) else paint(rng), 0.3)
    b.add(Kind.CONE, (wide, narrow, tall, 0.03), shade, at=(0, 0, h + tall * 0.6))
    if chance(rng, 0.4):
        b.add(Kind.ELLIPSOID, (0.09, 0.09, 0.09), stand, at=(0, 0, h + tall * 1.65))
    return b.finish()


def shelf(rng: Rng) -> np.ndarray:
    """An open bookcase with boards, a back wall and some books."""
    x, y, z = uniform(rng, 0.5, 0.9), uniform(rng, 0.22, 0.35), uniform(rng, 0.8, 1.2)
    m, board = _stuff(rng), uniform(rng, 0.045, 0.07)
    b = ObjectBuilder()
    b.add(Kind.BOX, (board, y, z, 0.01), m, at=(x, 0, 0), mirror="x")
    b.add(Kind.BOX, (x, 0.035, z, 0.01), m if chance(rng, 0.5) else paint(rng), at=(0, y - 0.03, 0))
    count = int(rng.integers(2, 5))
    for i in range(count + 1):
        b.add(Kind.BOX, (x, y, board, 0.01), m, at=(0, 0, z - board - i * 2 * (z - board) / count))
    for i in range(count):
        if chance(rng, 0.7):
            half = (z - board) / count
            tall = half * uniform(rng, 0.5, 0.75)
            wide = x * uniform(rng, 0.2, 0.7)
            low = z - (i + 1) * 2 * half + tall
            b.add(
                Kind.BOX,
                (wide, y * 0.75, tall, 0.02),
                decorated(rng, paint(rng), 0.6),
                at=(uniform(rng, wide - x, x - wide), 0, low),
            )
    return b.finish()


def crate(rng: Rng) -> np.ndarray:
    """A box with a raised frame, or a present with a ribbon and a bow."""
    x, y, z = uniform(rng, 0.7, 1.1), uniform(rng, 0.7, 1.1), uniform(rng, 0.55, 1.1)
    b = ObjectBuilder()
    if chance(rng, 0.5):
        plank, frame = wood(rng), wood(rng) if chance(rng, 0.6) else metal(rng)
        w, out = uniform(rng, 0.09, 0.15), 0.05
        b.add(Kind.BOX, (x, y, z, 0.01), plank)
        b.add(Kind.BOX, (w, w, z + out, 0.015), frame, at=(x + out - w, y + out - w, 0), mirror="xy")
        for side in (-1, 1):
            b.add(
                Kind.BOX, (x + out, w, w, 0.015), frame, at=(0, y + out - w, side * (z + out - w)), mirror="y"
            )
            b.add(
                Kind.BOX, (w, y + out, w, 0.015), frame, at=(x + out - w, 0, side * (z + out - w)), mirror="x"
            )
        return b.finish()
    wrap, ribbon, w = decorated(rng, paint(rng), 0.5), paint(rng), uniform(rng, 0.1, 0.2)
    b.add(Kind.BOX, (x, y, z, 0.03), wrap)
    if chance(rng, 0.6):
        b.add(Kind.BOX, (x * 1.06, y * 1.06, 0.18, 0.03), wrap, at=(0, 0, z * 0.9))
    b.add(Kind.BOX, (x * 1.08, w, z * 1.12, 0.02), ribbon, at=(0, 0, z * 0.05))
    b.add(Kind.BOX, (w, y * 1.08, z * 1.12, 0.02), ribbon, at=(0, 0, z * 0.05))
    bow = uniform(rng, 0.16, 0.26)
    return b.add(
        Kind.TORUS,
        (bow, 0.08, np.pi),
        ribbon,
        at=(bow * 0.9, 0, z * 1.2 + bow * 0.6),
        turn=(90, -25, 0),
        mirror="x",
    ).finish()
