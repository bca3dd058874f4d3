"""Mushroom, tree, pine, cactus, flower pot, snowman, cake, ice cream, duck, fish: things that grow or are
eaten.
"""

from __future__ import annotations

import numpy as np

from ..builder import ObjectBuilder
from ..materials import Rng, anything, chance, dark, decorated, leaf, paint, stone, uniform, white, wood
from ..table import Kind, Op, Pattern


def mushroom(rng: Rng) -> np.ndarray:
    """A stem under a domed cap, with dots sometimes."""
    h, stem, cap = uniform(rng, 0.4, 0.9), uniform(rng, 0.15, 0.35), uniform(rng, 0.6, 1.0)
    dome = cap * uniform(rng, 0.5, 1.1)
    pale, colour = white(rng), paint(rng)
    b = ObjectBuilder()
    b.add(Kind.ELLIPSOID, (cap, cap, dome), decorated(rng, colour, 0.2), at=(0, 0, h))
    b.add(Kind.BOX, (cap * 1.2, cap * 1.2, dome, 0.0), pale, at=(0, 0, h - dome), op=Op.SUBTRACT, blend=0.05)
    b.add(Kind.CONE, (stem * uniform(rng, 1.0, 1.5), stem, h, 0.05), pale, blend=0.06)
    if chance(rng, 0.6):
        dots, count = white(rng), int(rng.integers(4, 8))
        for lift in (25, 60):
            c, s = np.cos(np.radians(lift)), np.sin(np.radians(lift))
            size = cap * uniform(rng, 0.1, 0.17)
            b.add(
                Kind.ELLIPSOID,
                (size, size, size),
                dots,
                at=(cap * c * 0.96, 0, h + dome * s * 0.96),
                radial=count if lift < 50 else 4,
            )
    return b.finish()


def tree(rng: Rng) -> np.ndarray:
    """A trunk and one to five round crowns."""
    h, r, crown = uniform(rng, 0.4, 0.9), uniform(rng, 0.09, 0.18), uniform(rng, 0.5, 0.85)
    green = leaf(rng)
    b = ObjectBuilder()
    b.add(Kind.CONE, (r * 1.4, r, h, 0.03), wood(rng))
    bump = (uniform(rng, 0.0, 0.025), uniform(rng, 9, 13))
    tall = crown * uniform(rng, 0.75, 1.3)
    b.add(Kind.ELLIPSOID, (crown, crown, tall), green, at=(0, 0, h + tall * 0.7), bump=bump)
    for _ in range(int(rng.integers(0, 5))):
        angle, size = rng.random() * 2 * np.pi, crown * uniform(rng, 0.4, 0.65)
        at = (crown * 0.75 * np.cos(angle), crown * 0.75 * np.sin(angle), h + tall * uniform(rng, 0.3, 1.1))
        b.add(Kind.ELLIPSOID, (size, size, size), green, at=at, blend=0.08, bump=bump)
    return b.finish(frontless=True)


def pine(rng: Rng) -> np.ndarray:
    """A trunk and two to four cones, one above the other."""
    r, layers, green = uniform(rng, 0.5, 0.8), int(rng.integers(2, 5)), leaf(rng)
    snow = white(rng).with_pattern(green, Pattern.BLEND, 1.2) if chance(rng, 0.2) else green
    b = ObjectBuilder()
    b.add(Kind.CONE, (0.15, 0.12, 0.35, 0.02), wood(rng))
    z = 0.2
    for i in range(layers):
        size = r * (1 - 0.7 * i / layers)
        half = size * uniform(rng, 0.55, 0.8)
        b.add(Kind.CONE, (size, 0.02, half, 0.02), snow if i == layers - 1 else green, at=(0, 0, z + half))
        z += half * 1.1
    if chance(rng, 0.25):
        b.add(
            Kind.PRISM, (5, 0.2, 0.06, 0.09, 0.02), paint(rng), at=(0, 0, z + half + 0.1), turn=(90, -18, 0)
        )
    return b.finish()


def cactus(rng: Rng) -> np.ndarray:
    """A column with one or two arms in a pot."""
    green, r, h = leaf(rng), uniform(rng, 0.2, 0.32), uniform(rng, 0.8, 1.3)
    b = ObjectBuilder()
    b.add(Kind.CAPSULE, (r, r * uniform(rng, 0.8, 1.0), h), green)
    for side in (-1, 1):
        if chance(rng, 0.75):
            z, out, up = h * uniform(rng, 0.35, 0.65), r + uniform(rng, 0.2, 0.35), uniform(rng, 0.25, 0.5)
            arm = r * uniform(rng, 0.5, 0.65)
            b.add(Kind.CAPSULE, (arm, arm, out), green, at=(0, 0, z), turn=(0, 90 * side, 0), blend=0.05)
            b.add(Kind.CAPSULE, (arm, arm * 0.9, up), green, at=(side * out, 0, z), blend=0.05)
    pot = r * uniform(rng, 1.5, 2.0)
    clay = decorated(rng, anything(rng), 0.3)
    b.add(Kind.CONE, (pot * 0.7, pot, 0.35, 0.03), clay, at=(0, 0, -0.2))
    b.add(Kind.CONE, (pot * 1.12, pot * 1.12, 0.08, 0.02), clay, at=(0, 0, 0.1))
    if chance(rng, 0.4):
        b.add(Kind.ELLIPSOID, (0.12, 0.12, 0.1), paint(rng), at=(0, 0, h + r))
    return b.finish()


def flower(rng: Rng) -> np.ndarray:
    """A stem with leaves and a ring of petals that looks towards -y, in a pot or on a mound."""
    h, petal, count = uniform(rng, 0.7, 1.1), uniform(rng, 0.25, 0.4), int(rng.integers(5, 9))
    green = leaf(rng)
    b = ObjectBuilder()
    b.add(Kind.CONE, (0.07, 0.06, h, 0.02), green)
    b.add(Kind.ELLIPSOID, (0.3, 0.12, 0.06), green, at=(0.28, 0, -h * 0.1), turn=(0, -30, 0), mirror="x")
    heart = petal * uniform(rng, 0.45, 0.7)
    colour = paint(rng)
    # Petals around y: eight single ones at most, since the radial repetition is about z only.
    for i in range(count):
        a = 2 * np.pi * i / count
        at = (petal * 1.1 * np.cos(a), 0.0, h + petal * 1.1 * np.sin(a))
        b.add(Kind.ELLIPSOID, (petal, petal * 0.25, petal * 0.55), colour, at=at, turn=(0, -np.degrees(a), 0))
    b.add(Kind.ELLIPSOID, (heart, heart * 0.6, heart), paint(rng), at=(0, -0.05, h))
    pot = uniform(rng, 0.4, 0.6)
    return b.add(
        Kind.CONE, (pot * 0.7, pot, 0.35, 0.03), decorated(rng, anything(rng), 0.3), at=(0, 0, -h)
    ).finish()


def snowman(rng: Rng) -> np.ndarray:
    """Two or three balls, a nose towards -y, arms, and a hat."""
    snow, r = white(rng), uniform(rng, 0.55, 0.75)
    b = ObjectBuilder()
    b.add(Kind.ELLIPSOID, (r, r, r * 0.95), snow)
    z, middle = 0.0, r
    if chance(rng, 0.7):
        z, middle = r * 1.25, r * uniform(rng, 0.68, 0.8)
        b.add(Kind.ELLIPSOID, (middle, middle, middle), snow, at=(0, 0, z))
    head = middle * uniform(rng, 0.65, 0.8)
    top = z + (middle + head) * 0.85
    b.add(Kind.ELLIPSOID, (head, head, head), snow, at=(0, 0, top))
    b.add(Kind.CONE, (0.1, 0.015, 0.2, 0.01), paint(rng), at=(0, -head - 0.1, top), turn=(90, 0, 0))
    coal = dark(rng)
    eye = (head * 0.35, -head * 0.87, top + head * 0.3)
    b.add(Kind.ELLIPSOID, (0.06, 0.06, 0.06), coal, at=eye, mirror="x")
    for i in range(3):
        b.add(
            Kind.ELLIPSOID,
            (0.06, 0.06, 0.06),
            coal,
            at=(0, -middle * (0.99 - 0.03 * i), z + middle * (0.3 - 0.25 * i)),
        )
    b.add(
        Kind.CAPSULE,
        (0.05, 0.04, 0.7),
        wood(rng),
        at=(middle * 0.8, 0, z + 0.1),
        turn=(0, uniform(rng, 50, 75), 0),
        mirror="x",
    )
    hat, tall = anything(rng), uniform(rng, 0.15, 0.3)
    b.add(Kind.CONE, (head * 1.05, head * 1.05, 0.05, 0.02), hat, at=(0, 0, top + head * 0.75))
    b.add(
        Kind.CONE,
        (head * 0.7, head * uniform(rng, 0.5, 0.75), tall, 0.03),
        hat,
        at=(0, 0, top + head * 0.75 + tall),
    )
    if chance(rng, 0.5):
        b.add(
            Kind.TORUS,
            (head * 0.75, 0.1, np.pi),
            decorated(rng, paint(rng), 0.5),
            at=(0, 0, top - head * 0.75),
        )
    return b.finish()


def cake(rng: Rng) -> np.ndarray:
    """One to three round tiers with icing, candles or a cherry."""
    r, z = uniform(rng, 0.8, 1.1), 0.0
    b = ObjectBuilder()
    b.add(Kind.CONE, (r * 1.2, r * 1.25, 0.05, 0.02), white(rng) if chance(rng, 0.5) else anything(rng))
    for _ in range(int(rng.integers(1, 4))):
        h = uniform(rng, 0.2, 0.38)
        b.add(Kind.CONE, (r, r, h, 0.05), decorated(rng, paint(rng), 0.5), at=(0, 0, z + h))
        b.add(Kind.TORUS, (r * 0.95, uniform(rng, 0.06, 0.1), np.pi), paint(rng), at=(0, 0, z + 2 * h))
        z, last = z + 2 * h, r
        r *= uniform(rng, 0.6, 0.75)
    if chance(rng, 0.6):
        count, colour = int(rng.integers(3, 8)), decorated(rng, paint(rng), 0.5)
        b.add(Kind.CONE, (0.05, 0.05, 0.18, 0.01), colour, at=(last * 0.6, 0, z + 0.15), radial=count)
    else:
        b.add(Kind.ELLIPSOID, (0.15, 0.15, 0.15), paint(rng), at=(0, 0, z + 0.12))
    return b.finish()


def ice_cream(rng: Rng) -> np.ndarray:
    """A cone with one to three scoops."""
    r, h = uniform(rng, 0.4, 0.55), uniform(rng, 0.7, 1.0)
    waffle = wood(rng)
    b = ObjectBuilder()
    b.add(Kind.CONE, (0.05, r, h, 0.03), waffle.with_pattern(wood(rng), Pattern.CHECKER, uniform(rng, 2, 4)))
    z, size = h, r * uniform(rng, 1.05, 1.25)
    for _ in range(int(rng.integers(1, 4))):
        flavour = paint(rng)
        b.add(Kind.ELLIPSOID, (size, size, size * 0.9), flavour, at=(0, 0, z + size * 0.35), bump=(0.012, 12))
        z += size * 1.05
        size *= uniform(rng, 0.8, 0.95)
    if chance(rng, 0.5):
        b.add(Kind.ELLIPSOID, (0.13, 0.13, 0.13), paint(rng), at=(0, 0, z + 0.15))
    return b.finish()


def duck(rng: Rng) -> np.ndarray:
    """A bath duck that looks towards -y."""
    body, beak = paint(rng), paint(rng)
    x, y, z = uniform(rng, 0.55, 0.75), uniform(rng, 0.75, 1.0), uniform(rng, 0.45, 0.65)
    head = uniform(rng, 0.38, 0.5)
    front, up = -y * 0.6, z * 0.7 + head * 0.7
    b = ObjectBuilder()
    b.add(Kind.ELLIPSOID, (x, y, z), body)
    b.add(Kind.CAPSULE, (0.25, 0.1, 0.35), body, at=(0, y * 0.7, z * 0.3), turn=(-45, 0, 0), blend=0.2)
    b.add(
        Kind.ELLIPSOID,
        (head, head, head),
        body if chance(rng, 0.7) else paint(rng),
        at=(0, front, up),
        blend=0.1,
    )
    b.add(Kind.ELLIPSOID, (0.2, 0.28, 0.09), beak, at=(0, front - head, up - 0.05))
    b.add(
        Kind.ELLIPSOID,
        (0.07, 0.07, 0.09),
        dark(rng),
        at=(head * 0.45, front - head * 0.8, up + head * 0.3),
        mirror="x",
    )
    wing = body if chance(rng, 0.5) else paint(rng)
    return b.add(
        Kind.ELLIPSOID, (0.12, y * 0.5, z * 0.5), wing, at=(x * 0.95, 0.1, 0.1), turn=(15, 0, 0), mirror="x"
    ).finish()


def rock(rng: Rng) -> np.ndarray:
    """A few bumpy stones grown together, with moss sometimes."""
    grey = stone(rng)
    b = ObjectBuilder()
    for i in range(int(rng.integers(2, 6))):
        size = uniform(rng, 0.4, 0.9)
        shape = (size, size * uniform(rng, 0.7, 1.2), size * uniform(rng, 0.5, 1.1))
        at = (
            (0, 0, 0)
            if i == 0
            else (uniform(rng, -0.7, 0.7), uniform(rng, -0.7, 0.7), uniform(rng, -0.2, 0.3))
        )
        m = grey if chance(rng, 0.75) else (leaf(rng) if chance(rng, 0.5) else stone(rng))
        kind = Kind.ELLIPSOID if chance(rng, 0.6) else Kind.BOX
        extra = (*shape, size * 0.3) if kind is Kind.BOX else shape
        turn = (uniform(rng, -30, 30), uniform(rng, -30, 30), uniform(rng, 0, 90))
        b.add(kind, extra, m, at=at, turn=turn, blend=0.1, bump=(0.02, uniform(rng, 7, 12)))
    return b.finish(frontless=True)
