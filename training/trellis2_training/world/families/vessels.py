"""Mug, bottle, vase, bowl, teapot, trophy, barrel, bucket: things turned on a wheel. Units: about 2 high."""

from __future__ import annotations

import numpy as np

from ..builder import ObjectBuilder
from ..materials import Rng, anything, chance, decorated, metal, paint, uniform, white, wood
from ..table import Kind, Op


def mug(rng: Rng) -> np.ndarray:
    """A hollow cylinder with a handle on +x."""
    body = decorated(rng, anything(rng) if chance(rng, 0.8) else white(rng))
    top, height = uniform(rng, 0.6, 1.0), uniform(rng, 0.7, 1.2)
    bottom, wall = top * uniform(rng, 0.65, 1.05), uniform(rng, 0.07, 0.13)
    ring = height * uniform(rng, 0.4, 0.62)
    b = ObjectBuilder()
    b.add(Kind.CONE, (bottom, top, height, uniform(rng, 0.02, 0.1)), body)
    handle = paint(rng) if chance(rng, 0.3) else body
    reach = (top + bottom) / 2
    b.add(
        Kind.TORUS,
        (ring, uniform(rng, 0.07, 0.14), np.pi),
        handle,
        at=(reach, 0, 0),
        turn=(90, 0, 0),
        blend=0.05,
    )
    inside = paint(rng) if chance(rng, 0.4) else body
    return b.add(
        Kind.CONE, (bottom - wall, top - wall, height, 0.05), inside, at=(0, 0, 2 * wall), op=Op.SUBTRACT
    ).finish()


def bottle(rng: Rng) -> np.ndarray:
    """A body, a neck and a cap, with a label band sometimes."""
    r, h = uniform(rng, 0.4, 0.75), uniform(rng, 0.7, 1.2)
    neck, length = r * uniform(rng, 0.25, 0.5), uniform(rng, 0.2, 0.5)
    body = decorated(rng, paint(rng), 0.3)
    shoulder = uniform(rng, 0.15, 0.5)
    b = ObjectBuilder()
    b.add(Kind.CONE, (r, r * uniform(rng, 0.85, 1.0), h, uniform(rng, 0.03, 0.15)), body)
    b.add(Kind.CONE, (r * 0.93, neck, shoulder, 0.02), body, at=(0, 0, h + shoulder * 0.7), blend=0.2)
    b.add(
        Kind.CONE, (neck, neck, length, 0.02), body, at=(0, 0, h + 1.5 * shoulder + length * 0.8), blend=0.1
    )
    top = h + 1.5 * shoulder + 1.8 * length
    b.add(Kind.CONE, (neck * 1.25, neck * 1.2, uniform(rng, 0.1, 0.2), 0.03), anything(rng), at=(0, 0, top))
    if chance(rng, 0.6):
        band = decorated(rng, paint(rng), 0.3)
        b.add(
            Kind.CONE,
            (r * 1.02, r * 1.02, h * uniform(rng, 0.25, 0.6), 0.01),
            band,
            at=(0, 0, uniform(rng, -0.3, 0.2) * h),
        )
    return b.finish()


def vase(rng: Rng) -> np.ndarray:
    """A revolved Bezier profile, open at the top."""
    radii = (uniform(rng, 0.3, 0.7), uniform(rng, 0.3, 1.5), uniform(rng, 0.0, 1.1), uniform(rng, 0.25, 0.75))
    h = uniform(rng, 0.7, 1.3)
    b = ObjectBuilder()
    b.add(Kind.REVOLVE, (*radii, h, uniform(rng, 0.06, 0.1)), decorated(rng, anything(rng), 0.5))
    if chance(rng, 0.4):
        b.add(Kind.TORUS, (radii[3] - 0.03, uniform(rng, 0.05, 0.1), np.pi), at=(0, 0, h))
    if chance(rng, 0.35):
        ring = uniform(rng, 0.2, 0.35)
        reach = (radii[0] + 3 * radii[1] + 3 * radii[2] + radii[3]) / 8
        spot = (reach + ring * 0.5, 0, uniform(rng, -0.1, 0.3) * h)
        b.add(Kind.TORUS, (ring, 0.07, np.pi), at=spot, turn=(90, 0, 0), mirror="x", blend=0.05)
        inner = [r - 0.09 for r in radii]
        b.add(Kind.REVOLVE, (*inner, h, 0), at=(0, 0, 0.15), op=Op.SUBTRACT)
    return b.finish()


def bowl(rng: Rng) -> np.ndarray:
    """A wide hollow dish on a foot, sometimes with fruit in it."""
    rim, h = uniform(rng, 0.9, 1.3), uniform(rng, 0.25, 0.6)
    foot = rim * uniform(rng, 0.3, 0.5)
    b = ObjectBuilder()
    b.add(Kind.REVOLVE, (foot, rim, rim, rim, h, uniform(rng, 0.07, 0.12)), decorated(rng, anything(rng)))
    b.add(Kind.CONE, (foot, foot * 0.9, 0.1, 0.02), at=(0, 0, -h))
    if chance(rng, 0.5):
        fruit, size = paint(rng), rim * uniform(rng, 0.28, 0.36)
        count = int(rng.integers(3, 6))
        b.add(Kind.ELLIPSOID, (size, size, size), fruit, at=(rim * 0.45, 0, h * 0.6), radial=count)
        b.add(Kind.ELLIPSOID, (size, size, size), paint(rng), at=(0, 0, h * 0.7))
    return b.finish()


def teapot(rng: Rng) -> np.ndarray:
    """A round body, spout on -x, handle on +x, a lid with a knob."""
    body = decorated(rng, anything(rng), 0.35)
    r, h = uniform(rng, 0.75, 1.0), uniform(rng, 0.55, 0.9)
    b = ObjectBuilder()
    b.add(Kind.ELLIPSOID, (r, r, h), body)
    b.add(Kind.CONE, (r * 0.6, r * 0.5, 0.1, 0.03), at=(0, 0, -h * 0.92), blend=0.05)
    tilt = uniform(rng, 35, 60)
    b.add(
        Kind.CAPSULE,
        (uniform(rng, 0.2, 0.28), uniform(rng, 0.1, 0.14), r * 1.05),
        at=(-r * 0.6, 0, -h * 0.2),
        turn=(0, -tilt, 0),
        blend=0.1,
    )
    ring = h * uniform(rng, 0.5, 0.65)
    handle = body if chance(rng, 0.6) else wood(rng)
    b.add(
        Kind.TORUS,
        (ring, uniform(rng, 0.07, 0.11), np.pi),
        handle,
        at=(r * 0.95, 0, 0.05),
        turn=(90, 0, 0),
        blend=0.05,
    )
    lid = body if chance(rng, 0.6) else anything(rng)
    b.add(Kind.ELLIPSOID, (r * 0.55, r * 0.55, 0.2), lid, at=(0, 0, h * 0.85))
    knob = uniform(rng, 0.1, 0.17)
    return b.add(Kind.ELLIPSOID, (knob, knob, knob), lid, at=(0, 0, h * 0.85 + 0.2 + knob * 0.6)).finish()


def trophy(rng: Rng) -> np.ndarray:
    """A metal cup with two handles on a base block."""
    gold, r, h = metal(rng), uniform(rng, 0.5, 0.75), uniform(rng, 0.5, 0.75)
    b = ObjectBuilder()
    ring = h * uniform(rng, 0.4, 0.55)
    b.add(
        Kind.TORUS,
        (ring, uniform(rng, 0.06, 0.09), np.pi),
        gold,
        at=(r * 0.85, 0, h * 0.2),
        turn=(90, 0, 0),
        mirror="x",
    )
    b.add(Kind.REVOLVE, (0.12, r * 0.9, r, r, h, 0), gold)
    b.add(Kind.REVOLVE, (0.05, r * 0.8, r * 0.9, r - 0.08, h, 0), at=(0, 0, 0.15), op=Op.SUBTRACT)
    stem = uniform(rng, 0.15, 0.35)
    b.add(Kind.CONE, (0.14, 0.1, stem, 0.02), gold, at=(0, 0, -h - stem * 0.8), blend=0.1)
    base, half = uniform(rng, 0.3, 0.5), uniform(rng, 0.12, 0.3)
    block = [wood, paint, metal][int(rng.integers(3))](rng)
    low = -h - 1.7 * stem - half
    if chance(rng, 0.5):
        return b.add(Kind.BOX, (base, base, half, 0.03), block, at=(0, 0, low)).finish()
    return b.add(Kind.CONE, (base * 1.15, base, half, 0.03), block, at=(0, 0, low)).finish()


def barrel(rng: Rng) -> np.ndarray:
    """Bulging staves between two or four hoops."""
    r, h, belly = uniform(rng, 0.55, 0.75), uniform(rng, 0.8, 1.1), uniform(rng, 1.1, 1.35)
    body = wood(rng) if chance(rng, 0.7) else paint(rng)
    b = ObjectBuilder()
    b.add(Kind.REVOLVE, (r, r * belly, r * belly, r, h, 0), body)
    b.add(Kind.CONE, (r * 0.88, r * 0.88, 0.08, 0.0), body, at=(0, 0, h), op=Op.SUBTRACT)
    hoop = metal(rng) if chance(rng, 0.7) else paint(rng)
    for z in [0.8, 0.35] if chance(rng, 0.5) else [0.6]:
        s = 0.5 + 0.5 * z
        at = r * ((1 - s) ** 3 + s**3 + 3 * belly * s * (1 - s))
        for sign in (-1, 1):
            b.add(Kind.CONE, (at * 1.04, at * 1.04, 0.07, 0.02), hoop, at=(0, 0, sign * z * h))
    return b.finish()


def bucket(rng: Rng) -> np.ndarray:
    """A conical pail with a bow handle."""
    top, h = uniform(rng, 0.7, 0.95), uniform(rng, 0.6, 0.95)
    bottom, wall = top * uniform(rng, 0.65, 0.85), 0.08
    body = decorated(rng, paint(rng) if chance(rng, 0.6) else metal(rng), 0.3)
    b = ObjectBuilder()
    b.add(Kind.CONE, (bottom, top, h, 0.03), body)
    b.add(Kind.TORUS, (top, 0.07, np.pi), body if chance(rng, 0.5) else paint(rng), at=(0, 0, h - 0.04))
    b.add(Kind.CONE, (bottom - wall, top - wall, h, 0.02), body, at=(0, 0, 2 * wall), op=Op.SUBTRACT)
    bow = metal(rng)
    return b.add(
        Kind.TORUS, (top, 0.055, np.pi / 2), bow, at=(0, 0, h - 0.05), turn=(90 + uniform(rng, -40, 40), 0, 0)
    ).finish()
