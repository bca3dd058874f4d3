"""Rocket, car, truck, boat, train, plane: noses towards -y (a rocket stands up). Units: about 2 long."""

from __future__ import annotations

import numpy as np

from ..builder import ObjectBuilder
from ..materials import Rng, anything, chance, dark, decorated, glass, metal, paint, uniform, white, wood
from ..table import Kind, Op


def _wheels(b: ObjectBuilder, rng: Rng, x: float, y: float, z: float, r: float) -> None:
    tyre, hub, wide = dark(rng), metal(rng) if chance(rng, 0.6) else paint(rng), uniform(rng, 0.09, 0.15)
    b.add(Kind.CONE, (r, r, wide, 0.05), tyre, at=(x, y, z), turn=(0, 90, 0), mirror="xy")
    b.add(Kind.CONE, (r * 0.55, r * 0.55, wide + 0.03, 0.02), hub, at=(x, y, z), turn=(0, 90, 0), mirror="xy")


def rocket(rng: Rng) -> np.ndarray:
    """A spindle with fins, a window towards -y and a nozzle."""
    r, h = uniform(rng, 0.3, 0.5), uniform(rng, 0.8, 1.2)
    hull = decorated(rng, white(rng) if chance(rng, 0.5) else anything(rng), 0.3)
    trim = paint(rng)
    b = ObjectBuilder()
    b.add(Kind.REVOLVE, (r * 0.7, r * 1.3, r * 1.25, r * 0.6, h, 0), hull)
    nose = uniform(rng, 0.25, 0.5)
    b.add(
        Kind.CONE, (r * 0.6, 0.03, nose, 0.02), trim if chance(rng, 0.7) else hull, at=(0, 0, h + nose * 0.95)
    )
    count, span = int(rng.integers(3, 5)), uniform(rng, 0.3, 0.5)
    tall = uniform(rng, 0.3, 0.5)
    b.add(
        Kind.FRUSTUM,
        (span, 0.05, tall, uniform(rng, 0.2, 0.5), 1, 0.02),
        trim,
        at=(r * 0.95, 0, -h * 0.85),
        radial=count,
    )
    b.add(
        Kind.CONE,
        (r * 0.7, r * 0.4, 0.12, 0.02),
        metal(rng) if chance(rng, 0.6) else dark(rng),
        at=(0, 0, -h - 0.08),
    )
    port = r * uniform(rng, 0.35, 0.5)
    b.add(
        Kind.CONE,
        (port * 1.3, port * 1.3, 0.1, 0.02),
        metal(rng),
        at=(0, -r * 0.95, h * 0.2),
        turn=(90, 0, 0),
    )
    b.add(Kind.CONE, (port, port, 0.13, 0.02), glass(rng), at=(0, -r * 0.95, h * 0.2), turn=(90, 0, 0))
    return b.finish()


def car(rng: Rng) -> np.ndarray:
    """Body, cabin with windows, wheels, lights."""
    x, y, z = uniform(rng, 0.45, 0.58), uniform(rng, 0.95, 1.25), uniform(rng, 0.18, 0.27)
    body = paint(rng) if chance(rng, 0.85) else metal(rng)
    soft = uniform(rng, 0.04, 0.15)
    cabin, shift = uniform(rng, 0.2, 0.3), uniform(rng, 0.0, 0.3)
    length = y * uniform(rng, 0.45, 0.7)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, y, z, soft), body)
    b.add(
        Kind.FRUSTUM,
        (x * 0.92, length, cabin, 0.8, uniform(rng, 0.55, 0.85), 0.06),
        glass(rng),
        at=(0, shift, z + cabin * 0.8),
    )
    roof = body if chance(rng, 0.7) else paint(rng)
    b.add(Kind.BOX, (x * 0.77, length * 0.72, 0.055, 0.03), roof, at=(0, shift, z + cabin * 1.75))
    r = uniform(rng, 0.2, 0.3)
    _wheels(b, rng, x * 0.95, y * 0.62, -z * 0.9, r)
    b.add(Kind.ELLIPSOID, (0.1, 0.06, 0.08), white(rng), at=(x * 0.65, -y, z * 0.25), mirror="x")
    b.add(Kind.BOX, (0.11, 0.05, 0.06, 0.02), paint(rng), at=(x * 0.65, y, z * 0.25), mirror="x")
    if chance(rng, 0.5):
        b.add(
            Kind.BOX,
            (x * 0.95, 0.08, 0.07, 0.03),
            dark(rng) if chance(rng, 0.5) else metal(rng),
            at=(0, y, -z * 0.6),
            mirror="y",
        )
    if chance(rng, 0.2):
        b.add(
            Kind.BOX,
            (x * 0.35, 0.1, 0.07, 0.02),
            decorated(rng, paint(rng), 0.5),
            at=(0, shift, z + cabin * 1.75 + 0.1),
        )
    return b.finish()


def truck(rng: Rng) -> np.ndarray:
    """A cab and a box, bed or tank on six wheels."""
    x, bed = uniform(rng, 0.42, 0.55), uniform(rng, 0.65, 1.0)
    cab, load = paint(rng), decorated(rng, anything(rng), 0.3)
    tall, high = uniform(rng, 0.32, 0.45), uniform(rng, 0.3, 0.55)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x * 0.85, bed + 0.35, 0.07, 0.02), dark(rng), at=(0, 0, 0))
    front = -bed - 0.1
    b.add(Kind.BOX, (x, 0.35, tall, 0.07), cab, at=(0, front, tall))
    b.add(Kind.BOX, (x * 0.85, 0.06, tall * 0.32, 0.02), glass(rng), at=(0, front - 0.33, tall * 1.4))
    b.add(Kind.BOX, (x * 1.02, 0.18, tall * 0.3, 0.02), glass(rng), at=(0, front, tall * 1.4))
    style, back = rng.random(), 0.38
    if style < 0.5:
        b.add(Kind.BOX, (x, bed - 0.07, high, 0.03), load, at=(0, back, high))
    elif style < 0.75:
        b.add(Kind.BOX, (x, bed - 0.07, high * 0.6, 0.02), load, at=(0, back, high * 0.6))
        b.add(
            Kind.BOX,
            (x - 0.08, bed - 0.15, high * 0.6, 0.02),
            load,
            at=(0, back, high * 0.6 + 0.15),
            op=Op.SUBTRACT,
        )
    else:
        b.add(
            Kind.CONE,
            (high * 0.9, high * 0.9, bed - 0.1, 0.08),
            load,
            at=(0, back, high * 0.95),
            turn=(90, 0, 0),
        )
    r, tyre = uniform(rng, 0.17, 0.23), dark(rng)
    hub = metal(rng)
    for y in (front, back + bed * 0.25, back + bed * 0.65):
        b.add(Kind.CONE, (r, r, 0.11, 0.04), tyre, at=(x * 0.92, y, -0.08), turn=(0, 90, 0), mirror="x")
        b.add(
            Kind.CONE,
            (r * 0.5, r * 0.5, 0.14, 0.02),
            hub,
            at=(x * 0.92, y, -0.08),
            turn=(0, 90, 0),
            mirror="x",
        )
    b.add(
        Kind.ELLIPSOID, (0.08, 0.05, 0.07), white(rng), at=(x * 0.65, front - 0.35, tall * 0.45), mirror="x"
    )
    return b.finish()


def boat(rng: Rng) -> np.ndarray:
    """A hull with a cabin, or a mast and sail, bow towards -y."""
    x, y, z = uniform(rng, 0.4, 0.55), uniform(rng, 0.95, 1.2), uniform(rng, 0.22, 0.32)
    hull = paint(rng) if chance(rng, 0.7) else wood(rng)
    deck = wood(rng)
    b = ObjectBuilder()
    b.add(Kind.ELLIPSOID, (x, y, z * 2), hull)
    b.add(Kind.BOX, (2, 2, z * 2, 0), deck, at=(0, 0, z * 2), op=Op.SUBTRACT)
    b.add(Kind.ELLIPSOID, (x * 0.85, y * 0.88, z), deck, at=(0, 0, z * 0.25), op=Op.SUBTRACT)
    if chance(rng, 0.5):
        mast = uniform(rng, 0.8, 1.1)
        b.add(Kind.CONE, (0.06, 0.045, mast, 0.01), wood(rng), at=(0, -0.1, mast - z * 1.2))
        sail = decorated(rng, white(rng) if chance(rng, 0.5) else paint(rng), 0.3)
        b.add(
            Kind.FRUSTUM, (0.04, y * 0.38, mast * 0.72, 1, 0.05, 0.01), sail, at=(0, y * 0.36, mast * 1.1 - z)
        )
        b.add(
            Kind.FRUSTUM,
            (0.04, y * 0.25, mast * 0.55, 1, 0.05, 0.01),
            sail,
            at=(0, -y * 0.45, mast * 0.95 - z),
        )
    else:
        wall, h = white(rng) if chance(rng, 0.6) else paint(rng), uniform(rng, 0.22, 0.35)
        b.add(Kind.BOX, (x * 0.55, y * 0.4, h, 0.04), wall, at=(0, y * 0.1, h - z))
        b.add(Kind.BOX, (x * 0.58, y * 0.33, h * 0.25, 0.02), glass(rng), at=(0, y * 0.1, h * 1.3 - z))
        b.add(Kind.BOX, (x * 0.65, y * 0.47, 0.05, 0.03), paint(rng), at=(0, y * 0.1, 2 * h - z))
        b.add(
            Kind.CONE,
            (0.12, 0.11, 0.22, 0.02),
            decorated(rng, paint(rng), 0.5),
            at=(0, y * 0.25, 2 * h - z + 0.2),
        )
    return b.finish()


def train(rng: Rng) -> np.ndarray:
    """A steam engine: boiler, cab, chimney, wheels."""
    x, y, r = uniform(rng, 0.4, 0.5), uniform(rng, 0.8, 1.05), uniform(rng, 0.28, 0.38)
    body, trim = paint(rng), metal(rng) if chance(rng, 0.6) else paint(rng)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, y, 0.1, 0.02), trim if chance(rng, 0.5) else dark(rng))
    b.add(Kind.CONE, (r, r, y * 0.65, 0.04), body, at=(0, -y * 0.25, r + 0.05), turn=(90, 0, 0))
    b.add(Kind.CONE, (r * 0.8, r * 0.8, 0.06, 0.02), trim, at=(0, -y * 0.92, r + 0.05), turn=(90, 0, 0))
    cab = uniform(rng, 0.4, 0.55)
    b.add(Kind.BOX, (x, y * 0.3, cab, 0.02), body if chance(rng, 0.5) else paint(rng), at=(0, y * 0.65, cab))
    b.add(Kind.BOX, (x * 1.03, y * 0.16, cab * 0.28, 0.02), glass(rng), at=(0, y * 0.65, cab * 1.35))
    b.add(Kind.BOX, (x * 1.15, y * 0.38, 0.06, 0.03), trim, at=(0, y * 0.65, 2 * cab))
    top = 2 * r + 0.05
    b.add(
        Kind.CONE,
        (0.09, uniform(rng, 0.1, 0.2), 0.2, 0.02),
        dark(rng) if chance(rng, 0.5) else trim,
        at=(0, -y * 0.65, top + 0.15),
    )
    b.add(Kind.ELLIPSOID, (0.13, 0.13, 0.14), trim, at=(0, -y * 0.15, top))
    wheel, hub = paint(rng), metal(rng)
    for spot, size in ((-0.65, 0.2), (-0.1, 0.2), (0.55, 0.28)):
        b.add(
            Kind.CONE,
            (size, size, 0.07, 0.02),
            wheel,
            at=(x, y * spot, size - 0.33),
            turn=(0, 90, 0),
            mirror="x",
        )
        b.add(
            Kind.CONE,
            (size * 0.4, size * 0.4, 0.1, 0.02),
            hub,
            at=(x, y * spot, size - 0.33),
            turn=(0, 90, 0),
            mirror="x",
        )
    return b.finish()


def plane(rng: Rng) -> np.ndarray:
    """Fuselage, wings, tail, a propeller or jets; nose towards -y."""
    r, y = uniform(rng, 0.17, 0.26), uniform(rng, 0.85, 1.1)
    body, wing = decorated(rng, white(rng) if chance(rng, 0.4) else paint(rng), 0.2), paint(rng)
    span = uniform(rng, 0.8, 1.15)
    b = ObjectBuilder()
    b.add(Kind.ELLIPSOID, (r, y, r), body)
    sweep = uniform(rng, 0, 25)
    b.add(
        Kind.BOX,
        (span / 2, uniform(rng, 0.16, 0.26), 0.045, 0.04),
        wing,
        at=(span / 2, -0.05 + span * sweep / 110, 0),
        turn=(0, 0, sweep),
        mirror="x",
    )
    b.add(
        Kind.BOX,
        (span * 0.2, 0.12, 0.04, 0.03),
        wing,
        at=(span * 0.19, y * 0.85, 0.05),
        turn=(0, 0, sweep),
        mirror="x",
    )
    b.add(Kind.FRUSTUM, (0.04, 0.17, 0.22, 1, 0.5, 0.02), wing, at=(0, y * 0.85, 0.24))
    b.add(Kind.ELLIPSOID, (r * 0.65, y * 0.25, r * 0.6), glass(rng), at=(0, -y * 0.4, r * 0.7))
    if chance(rng, 0.5):
        b.add(Kind.ELLIPSOID, (0.09, 0.13, 0.09), metal(rng), at=(0, -y, 0))
        b.add(
            Kind.BOX,
            (uniform(rng, 0.3, 0.42), 0.035, 0.06, 0.03),
            dark(rng),
            at=(0, -y, 0),
            turn=(0, uniform(rng, 0, 180), 0),
        )
    else:
        b.add(
            Kind.CAPSULE,
            (0.1, 0.08, 0.3),
            metal(rng),
            at=(span * 0.4, 0.1, -0.12),
            turn=(90, 0, 0),
            mirror="x",
        )
    return b.finish()
