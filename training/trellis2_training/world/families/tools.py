"""Hammer, screwdriver, dumbbell, camera, drum, gear, television, umbrella, sword, clock: small things."""

from __future__ import annotations

import numpy as np

from ..builder import ObjectBuilder
from ..materials import Rng, anything, chance, dark, decorated, glass, metal, paint, uniform, white, wood
from ..table import Kind, Op


def hammer(rng: Rng) -> np.ndarray:
    """An upright handle with the head along x, face towards -x."""
    h, r, head = uniform(rng, 0.8, 1.1), uniform(rng, 0.08, 0.13), uniform(rng, 0.35, 0.55)
    thick = uniform(rng, 0.14, 0.22)
    steel = metal(rng) if chance(rng, 0.75) else paint(rng)
    b = ObjectBuilder()
    b.add(Kind.CONE, (r * uniform(rng, 1.0, 1.4), r, h, 0.05), wood(rng) if chance(rng, 0.6) else paint(rng))
    if chance(rng, 0.5):
        b.add(Kind.BOX, (head, thick, thick, 0.03), steel, at=(0, 0, h))
    else:
        b.add(Kind.CONE, (thick, thick, head * 0.55, 0.03), steel, at=(-head * 0.5, 0, h), turn=(0, 90, 0))
        b.add(
            Kind.FRUSTUM,
            (thick, thick, head * 0.5, 0.9, 0.15, 0.02),
            steel,
            at=(head * 0.45, 0, h),
            turn=(0, 90, 0),
        )
    if chance(rng, 0.4):
        b.add(Kind.CONE, (r * 1.5, r * 1.5, h * 0.35, 0.05), dark(rng), at=(0, 0, -h * 0.62))
    return b.finish()


def screwdriver(rng: Rng) -> np.ndarray:
    """An upright tool, handle at the top."""
    r, h, shaft = uniform(rng, 0.2, 0.3), uniform(rng, 0.45, 0.65), uniform(rng, 0.5, 0.8)
    grip = decorated(rng, paint(rng), 0.5)
    b = ObjectBuilder()
    b.add(Kind.REVOLVE, (r * 0.8, r * 1.2, r * 0.8, r, h, 0), grip)
    b.add(Kind.ELLIPSOID, (r, r, r * 0.7), grip, at=(0, 0, h))
    b.add(Kind.CONE, (r * 0.5, r * 0.75, 0.1, 0.02), anything(rng), at=(0, 0, -h - 0.05))
    b.add(Kind.CONE, (0.07, 0.07, shaft, 0.01), metal(rng), at=(0, 0, -h - shaft))
    tip = -h - 2 * shaft
    return b.add(Kind.FRUSTUM, (0.12, 0.035, 0.13, 0.6, 1.7, 0.0), at=(0, 0, tip)).finish()


def dumbbell(rng: Rng) -> np.ndarray:
    """A bar along x with discs, balls or hexagons."""
    x, r = uniform(rng, 0.6, 0.9), uniform(rng, 0.3, 0.5)
    load = dark(rng) if chance(rng, 0.5) else anything(rng)
    b = ObjectBuilder()
    b.add(Kind.CONE, (0.1, 0.1, x, 0.02), metal(rng), turn=(0, 90, 0))
    style = rng.random()
    if style < 0.4:
        for i in range(int(rng.integers(1, 4))):
            size = r * (1 - 0.2 * i)
            b.add(
                Kind.CONE,
                (size, size, 0.11, 0.03),
                load if i % 2 == 0 else paint(rng),
                at=(x - 0.1 + 0.2 * i, 0, 0),
                turn=(0, 90, 0),
                mirror="x",
            )
    elif style < 0.7:
        b.add(Kind.ELLIPSOID, (r, r, r), load, at=(x, 0, 0), mirror="x")
    else:
        b.add(
            Kind.PRISM,
            (6, r, uniform(rng, 0.2, 0.35), r * np.cos(np.pi / 6), 0.04),
            load,
            at=(x, 0, 0),
            turn=(0, 90, 0),
            mirror="x",
        )
    return b.finish()


def camera(rng: Rng) -> np.ndarray:
    """A box with a lens towards -y."""
    x, y, z = uniform(rng, 0.75, 1.0), uniform(rng, 0.25, 0.4), uniform(rng, 0.45, 0.65)
    body, trim = dark(rng) if chance(rng, 0.4) else paint(rng), metal(rng) if chance(rng, 0.5) else paint(rng)
    r, length, shift = z * uniform(rng, 0.55, 0.8), uniform(rng, 0.15, 0.4), uniform(rng, -0.2, 0.2)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, y, z, uniform(rng, 0.03, 0.12)), body)
    b.add(Kind.BOX, (x * 1.01, y * 1.01, z * 0.22, 0.02), trim, at=(0, 0, z * 0.72))
    b.add(
        Kind.CONE,
        (r, r * 0.9, length, 0.03),
        dark(rng) if chance(rng, 0.6) else trim,
        at=(shift, -y - length * 0.8, -0.05),
        turn=(90, 0, 0),
    )
    front = -y - 1.8 * length
    b.add(Kind.CONE, (r * 0.68, r * 0.68, 0.08, 0), at=(shift, front, -0.05), turn=(90, 0, 0), op=Op.SUBTRACT)
    b.add(Kind.ELLIPSOID, (r * 0.66, 0.1, r * 0.66), glass(rng), at=(shift, front + 0.1, -0.05))
    b.add(Kind.CONE, (0.11, 0.11, 0.09, 0.02), metal(rng), at=(x * 0.65, 0, z + 0.06))
    b.add(Kind.FRUSTUM, (0.28, y * 0.8, 0.13, 0.7, 0.8, 0.03), body, at=(shift, 0, z + 0.1))
    return b.add(Kind.BOX, (0.12, 0.04, 0.08, 0.02), white(rng), at=(-x * 0.7, -y, z * 0.7)).finish()


def drum(rng: Rng) -> np.ndarray:
    """A shell between two hoops, with two skins."""
    r, h = uniform(rng, 0.7, 1.0), uniform(rng, 0.35, 0.9)
    hoop = metal(rng) if chance(rng, 0.5) else paint(rng)
    b = ObjectBuilder()
    b.add(Kind.CONE, (r, r, h, 0.02), decorated(rng, paint(rng), 0.6))
    b.add(Kind.CONE, (r * 0.97, r * 0.97, h + 0.03, 0.02), white(rng))
    for side in (-1, 1):
        b.add(Kind.TORUS, (r * 1.0, uniform(rng, 0.06, 0.1), np.pi), hoop, at=(0, 0, side * h))
    b.add(
        Kind.CONE,
        (0.045, 0.045, h * 0.9, 0.01),
        metal(rng),
        at=(r * 1.04, 0, 0),
        radial=int(rng.integers(5, 11)),
    )
    if chance(rng, 0.5):
        b.add(
            Kind.CAPSULE,
            (0.05, 0.05, r * 1.5),
            wood(rng),
            at=(-r * 0.7, -0.1, h + 0.1),
            turn=(uniform(rng, -15, 15), 88, uniform(rng, -20, 20)),
        )
    return b.finish()


def gear(rng: Rng) -> np.ndarray:
    """A toothed wheel standing upright, axis along y."""
    teeth, r, half = int(rng.integers(6, 14)), uniform(rng, 0.8, 1.0), uniform(rng, 0.12, 0.3)
    steel = metal(rng) if chance(rng, 0.6) else paint(rng)
    b = ObjectBuilder()
    b.add(Kind.PRISM, (teeth, r, half, r * uniform(rng, 0.68, 0.82), 0.02), steel, turn=(90, 0, 0))
    if chance(rng, 0.5):
        b.add(
            Kind.CONE,
            (r * 0.62, r * 0.62, half * 0.45, 0),
            at=(0, -half * 0.8, 0),
            turn=(90, 0, 0),
            op=Op.SUBTRACT,
            mirror="y",
        )
    hub = r * uniform(rng, 0.25, 0.4)
    b.add(Kind.CONE, (hub, hub, half * 1.25, 0.02), anything(rng), turn=(90, 0, 0))
    return b.add(Kind.CONE, (hub * 0.55, hub * 0.55, half * 1.5, 0), turn=(90, 0, 0), op=Op.SUBTRACT).finish()


def television(rng: Rng) -> np.ndarray:
    """A screen towards -y: old set, flat panel or monitor."""
    x, z = uniform(rng, 0.8, 1.1), uniform(rng, 0.5, 0.8)
    deep = uniform(rng, 0.08, 0.14) if chance(rng, 0.5) else uniform(rng, 0.35, 0.6)
    body = dark(rng) if chance(rng, 0.4) else anything(rng)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, deep, z, 0.05), body)
    shift = 0.0 if deep < 0.2 else x * 0.12
    b.add(
        Kind.BOX,
        (x * (0.92 if deep < 0.2 else 0.76), 0.05, z * 0.86, 0.03),
        decorated(rng, glass(rng), 0.3),
        at=(-shift, -deep, 0),
    )
    if deep > 0.2:
        for i in range(2):
            b.add(
                Kind.CONE,
                (0.09, 0.08, 0.06, 0.02),
                metal(rng),
                at=(x * 0.8, -deep - 0.03, z * (0.45 - 0.45 * i)),
                turn=(90, 0, 0),
            )
        b.add(
            Kind.CAPSULE,
            (0.05, 0.04, 0.6),
            metal(rng),
            at=(0.05, 0, z),
            turn=(0, uniform(rng, 20, 45), 0),
            mirror="x",
        )
        b.add(Kind.CONE, (0.06, 0.09, 0.14, 0.02), at=(x * 0.75, deep * 0.6, -z - 0.1), mirror="xy")
    else:
        stand = metal(rng) if chance(rng, 0.5) else body
        b.add(Kind.BOX, (0.12, 0.07, 0.2, 0.02), stand, at=(0, 0, -z - 0.12))
        b.add(Kind.BOX, (x * uniform(rng, 0.35, 0.6), 0.28, 0.045, 0.02), stand, at=(0, 0, -z - 0.3))
    return b.finish()


def umbrella(rng: Rng) -> np.ndarray:
    """An open umbrella with a hooked handle, or a garden parasol."""
    r, dome, h = uniform(rng, 0.85, 1.1), uniform(rng, 0.35, 0.6), uniform(rng, 0.8, 1.1)
    cloth = decorated(rng, paint(rng), 0.6)
    b = ObjectBuilder()
    b.add(Kind.ELLIPSOID, (r, r, dome), cloth, at=(0, 0, h * 0.6))
    b.add(Kind.ELLIPSOID, (r * 0.94, r * 0.94, dome * 0.88), cloth, at=(0, 0, h * 0.6 - 0.02), op=Op.SUBTRACT)
    b.add(Kind.BOX, (r * 1.2, r * 1.2, dome, 0), cloth, at=(0, 0, h * 0.6 - dome), op=Op.SUBTRACT)
    pole = metal(rng) if chance(rng, 0.5) else wood(rng)
    top = h * 0.6 + dome
    b.add(Kind.CONE, (0.055, 0.055, (top + h) / 2 + 0.04, 0.01), pole, at=(0, 0, (top - h) / 2 + 0.05))
    if chance(rng, 0.6):
        b.add(Kind.TORUS, (0.16, 0.065, np.pi / 2), anything(rng), at=(0.16, 0, -h), turn=(-90, 0, 0))
    else:
        b.add(Kind.CONE, (0.4, 0.3, 0.1, 0.03), anything(rng), at=(0, 0, -h))
    return b.finish()


def sword(rng: Rng) -> np.ndarray:
    """An upright blade, guard along x, grip and pommel below."""
    h, w = uniform(rng, 0.7, 1.0), uniform(rng, 0.09, 0.17)
    b = ObjectBuilder()
    b.add(Kind.FRUSTUM, (w, 0.045, h, uniform(rng, 0.6, 1.0), 1, 0.02), metal(rng), at=(0, 0, h))
    b.add(Kind.FRUSTUM, (w * 0.9, 0.045, 0.14, 0.05, 0.6, 0.01), at=(0, 0, 2 * h + 0.12))
    guard = metal(rng) if chance(rng, 0.7) else paint(rng)
    b.add(Kind.BOX, (uniform(rng, 0.28, 0.45), 0.09, 0.07, 0.04), guard)
    grip = uniform(rng, 0.16, 0.26)
    b.add(
        Kind.CONE,
        (0.075, 0.085, grip, 0.02),
        decorated(rng, wood(rng) if chance(rng, 0.5) else dark(rng), 0.5),
        at=(0, 0, -grip - 0.03),
    )
    return b.add(Kind.ELLIPSOID, (0.12, 0.12, 0.12), guard, at=(0, 0, -2 * grip - 0.1)).finish()


def clock(rng: Rng) -> np.ndarray:
    """An alarm clock or a wall clock that looks towards -y."""
    r, half = uniform(rng, 0.75, 0.95), uniform(rng, 0.18, 0.35)
    case, dial = anything(rng), white(rng) if chance(rng, 0.6) else paint(rng)
    b = ObjectBuilder()
    square = chance(rng, 0.25)
    if square:
        b.add(Kind.BOX, (r, half, r, 0.08), case)
    else:
        b.add(Kind.CONE, (r, r, half, 0.06), case, turn=(90, 0, 0))
    b.add(Kind.CONE, (r * 0.86, r * 0.86, 0.06, 0.02), dial, at=(0, -half, 0), turn=(90, 0, 0))
    hand, front = dark(rng), -half - 0.06
    for length, angle in ((0.35, rng.random() * 360), (0.6, rng.random() * 360)):
        a = np.radians(angle)
        at = (r * length / 2 * np.cos(a), front, r * length / 2 * np.sin(a))
        b.add(Kind.BOX, (r * length / 2, 0.035, 0.05, 0.01), hand, at=at, turn=(0, -angle, 0))
    b.add(Kind.CONE, (0.08, 0.08, 0.06, 0.02), metal(rng), at=(0, front, 0), turn=(90, 0, 0))
    if chance(rng, 0.6):
        bell = metal(rng)
        if not square:
            b.add(Kind.ELLIPSOID, (0.27, 0.27, 0.22), bell, at=(r * 0.6, 0, r * 0.85), mirror="x")
        b.add(Kind.CAPSULE, (0.08, 0.06, 0.3), bell, at=(r * 0.5, 0, -r * 0.8), turn=(0, 145, 0), mirror="x")
    return b.finish()
