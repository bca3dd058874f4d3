"""Apple, burger, cupcake, pineapple, cheese, doughnut, pumpkin, carrot, melon, egg cup: things to eat."""

from __future__ import annotations

import numpy as np

from ..builder import Material, ObjectBuilder
from ..materials import Rng, anything, chance, dark, decorated, hsv, leaf, paint, uniform, white, wood
from ..table import Kind, Op, Pattern
from .parts import ball, strut


def _tone(rng: Rng, low: float, high: float, s: float = 0.8, v: float = 0.9, rough: float = 0.5) -> Material:
    """A colour between two hues."""
    colour = hsv(uniform(rng, low, high), s * uniform(rng, 0.85, 1.1), v * uniform(rng, 0.8, 1.1))
    return Material(colour, 0.0, rough * uniform(rng, 0.6, 1.4))


def apple(rng: Rng) -> np.ndarray:
    """Apple, pear or cherry-like fruit with a stem and a leaf, a bite taken now and then."""
    skin = _tone(rng, -0.05, 0.35, 0.85, 0.85, 0.3) if chance(rng, 0.75) else paint(rng)
    if chance(rng, 0.4):
        skin = skin.with_pattern(_tone(rng, -0.03, 0.3), Pattern.BLEND, uniform(rng, 0.5, 1.0))
    r, tall = uniform(rng, 0.7, 0.85), uniform(rng, 0.62, 0.78)
    b = ObjectBuilder()
    ball(b, skin, (r, r, tall))
    top = tall
    if chance(rng, 0.35):
        top = tall + r * 0.75
        ball(b, skin, (r * 0.55, r * 0.55, r * 0.75), (0, 0, tall * 0.75), blend=0.25)
    else:
        b.add(Kind.TORUS, (r * 0.42, r * 0.4, np.pi), skin, at=(0, 0, tall * 0.55), blend=0.1)
        top = tall * 0.55 + r * 0.2
    if chance(rng, 0.3):
        flesh = Material((0.97, 0.93, 0.75), 0.0, 0.6)
        side = uniform(rng, -25, 25)
        c, s = np.cos(np.radians(side)), np.sin(np.radians(side))
        b.add(Kind.ELLIPSOID, (r * 0.45,) * 3, flesh, at=(r * 1.1 * c, -r * 0.3 + r * s, 0.1), op=Op.SUBTRACT)
    strut(b, wood(rng), (0, 0, top - 0.1), (uniform(rng, -0.12, 0.12), 0, top + 0.32), 0.05, 0.06)
    if chance(rng, 0.75):
        ball(b, leaf(rng), (0.26, 0.12, 0.05), (0.25, 0, top + 0.25), turn=(10, -25, 0))
    return b.finish()


def burger(rng: Rng) -> np.ndarray:
    """Two halves of a bun, meat, cheese, salad, tomato, seeds."""
    bun, r = _tone(rng, 0.06, 0.1, 0.7, 0.8), uniform(rng, 0.75, 0.9)
    dome = r * uniform(rng, 0.5, 0.75)
    b = ObjectBuilder()
    ball(b, bun, (r, r, dome), (0, 0, 0.1))
    b.add(Kind.BOX, (1.2, 1.2, 0.5, 0), bun, at=(0, 0, -0.4), op=Op.SUBTRACT).trim(2, 0.1, 2)
    z = 0.1
    for _ in range(int(rng.integers(1, 3))):
        layers = [
            (_tone(rng, 0.03, 0.07, 0.6, 0.35, 0.9), 0.12, 1.02, "round"),
            (_tone(rng, 0.11, 0.14, 0.9, 0.98), 0.035, 0.98, "square"),
            (_tone(rng, 0.24, 0.36, 0.8, 0.75, 0.8), 0.05, 1.1, "leaf"),
            (_tone(rng, -0.02, 0.02, 0.85, 0.85), 0.055, 0.98, "round"),
        ]
        for i in rng.permutation(4)[: int(rng.integers(2, 5))]:
            stuff, half, size, shape = layers[int(i)]
            z -= half
            if shape == "square":
                turn = (0, 0, uniform(rng, 20, 70))
                b.add(Kind.BOX, (r * 0.92, r * 0.92, half, 0.02), stuff, at=(0, 0, z), turn=turn)
            elif shape == "leaf":
                wave = (14, r * size, half, r * size * 0.92, 0.02)
                b.add(Kind.PRISM, wave, stuff, at=(0, 0, z))
            else:
                b.add(Kind.CONE, (r * size, r * size, half, half * 0.9), stuff, at=(0, 0, z))
            z -= half * 0.9
    b.add(Kind.CONE, (r * 0.9, r, 0.15, 0.1), bun, at=(0, 0, z - 0.13))
    if chance(rng, 0.7):
        seed = Material((0.97, 0.92, 0.75), 0.0, 0.6)
        for lift, count in ((35, 7), (65, 4)):
            c, s = np.cos(np.radians(lift)), np.sin(np.radians(lift))
            at = (r * c, 0, 0.1 + dome * s)
            b.add(Kind.ELLIPSOID, (0.05, 0.075, 0.05), seed, at=at, radial=count, turn=(0, 0, 30))
    return b.finish()


def cupcake(rng: Rng) -> np.ndarray:
    """A fluted cup, swirls of cream, a cherry."""
    paper, cream = decorated(rng, paint(rng), 0.2), paint(rng) if chance(rng, 0.6) else white(rng)
    if chance(rng, 0.5):
        paper = paper.with_pattern(white(rng), Pattern.SECTORS, float(rng.integers(6, 12)), rng.random())
    r, tall = uniform(rng, 0.55, 0.7), uniform(rng, 0.35, 0.5)
    b = ObjectBuilder()
    b.add(Kind.CONE, (r * 0.72, r, tall, 0.03), paper)
    z, size = tall, r * 1.08
    for _ in range(int(rng.integers(2, 5))):
        high = size * 0.36
        b.add(Kind.TORUS, (size * 0.6, high, np.pi), cream, at=(0, 0, z + high * 0.5), blend=0.04)
        ball(b, cream, (size * 0.7, size * 0.7, high), (0, 0, z + high * 0.6))
        z, size = z + high * 1.25, size * 0.7
    if chance(rng, 0.75):
        ball(b, _tone(rng, -0.05, 0.02, 0.9, 0.85, 0.2), 0.17, (0, 0, z + 0.12))
        if chance(rng, 0.5):
            strut(b, leaf(rng), (0, 0, z + 0.2), (0.12, 0, z + 0.5), 0.035)
    else:
        b.add(Kind.CONE, (0.05, 0.05, 0.22, 0.01), decorated(rng, paint(rng), 0.9), at=(0, 0, z + 0.15))
        ball(b, _tone(rng, 0.07, 0.12), (0.05, 0.05, 0.09), (0, 0, z + 0.42))
    return b.finish()


def pineapple(rng: Rng) -> np.ndarray:
    """A checkered barrel with a crown of leaves."""
    rind = _tone(rng, 0.08, 0.15, 0.85, 0.85) if chance(rng, 0.8) else paint(rng)
    rind = rind.with_pattern(_tone(rng, 0.05, 0.1, 0.85, 0.55), Pattern.CHECKER, uniform(rng, 1.8, 3.0))
    r, tall = uniform(rng, 0.5, 0.62), uniform(rng, 0.7, 0.9)
    green, bump = leaf(rng), (uniform(rng, 0.006, 0.014), uniform(rng, 14, 18))
    b = ObjectBuilder()
    b.add(Kind.ELLIPSOID, (r, r, tall), rind, bump=bump)
    count = int(rng.integers(5, 8))
    for out, up in ((0.5, 0.35), (0.32, 0.6), (0.14, 0.8)):
        size = uniform(rng, 0.9, 1.1)
        end = (out * size, 0.0, tall + up * size)
        strut(b, green, (0.05, 0, tall * 0.9), end, 0.12, 0.025, radial=count)
        count = max(count - 1, 3)
    return b.finish()


def cheese(rng: Rng) -> np.ndarray:
    """A wedge or a wheel with holes."""
    stuff = _tone(rng, 0.1, 0.15, 0.75, 0.95) if chance(rng, 0.8) else paint(rng)
    rind = stuff if chance(rng, 0.4) else _tone(rng, -0.02, 0.12, 0.8, 0.8)
    half, b = uniform(rng, 0.25, 0.42), ObjectBuilder()
    if chance(rng, 0.75):
        turn, wide, long = (90, 0, uniform(rng, -60, 60)), uniform(rng, 0.4, 0.65), uniform(rng, 0.7, 0.9)
        b.add(Kind.FRUSTUM, (wide, half, long, 0.02, 1, 0.02), stuff, turn=turn)
        back = (-long * np.sin(np.radians(turn[2])), long * np.cos(np.radians(turn[2])), 0)
        b.add(Kind.BOX, (wide * 1.01, half * 1.02, 0.06, 0.02), rind, at=back, turn=turn)
    else:
        b.add(Kind.CONE, (0.9, 0.9, half, 0.05), rind)
        b.add(Kind.CONE, (0.82, 0.82, half * 1.03, 0.02), stuff)
    for _ in range(int(rng.integers(6, 11))):
        size, (x, y, z) = uniform(rng, 0.09, 0.2), rng.uniform(-1, 1, 3)
        b.add(Kind.ELLIPSOID, (size,) * 3, stuff, at=(x * 0.6, y * 0.7, z * half), op=Op.SUBTRACT)
    return b.finish()


def doughnut(rng: Rng) -> np.ndarray:
    """Lying or leaning on its edge, iced, with sprinkles or bites."""
    dough, icing = _tone(rng, 0.06, 0.1, 0.65, 0.8), paint(rng)
    ring, tube = 0.6, uniform(rng, 0.26, 0.36)
    tilt = 0.0 if chance(rng, 0.5) else uniform(rng, 40, 90)
    turn = (tilt, 0, 0)
    if chance(rng, 0.35):
        icing = icing.with_pattern(white(rng), Pattern.STRIPES, uniform(rng, 2.5, 4), rng.random())

    def placed(x: float, y: float, z: float) -> tuple[float, float, float]:
        c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
        return (x, float(y * c - z * s), float(y * s + z * c))

    b = ObjectBuilder()
    b.add(Kind.TORUS, (ring, tube, np.pi), dough, turn=turn)
    b.add(Kind.TORUS, (ring, tube * 0.92, np.pi), icing, at=placed(0, 0, tube * 0.16), turn=turn, blend=0.01)
    if chance(rng, 0.7):
        for _ in range(12):
            a, away = rng.random() * 2 * np.pi, ring + uniform(rng, -0.6, 0.6) * tube
            lift = tube * 0.16 + np.sqrt(max((tube * 0.92) ** 2 - (away - ring) ** 2, 0.0))
            at = placed(away * np.cos(a), away * np.sin(a), lift)
            b.add(Kind.ELLIPSOID, (0.09, 0.04, 0.04), paint(rng), at=at, turn=(tilt, 0, uniform(rng, 0, 180)))
    return b.finish()


def pumpkin(rng: Rng) -> np.ndarray:
    """Ribbed, with a stem, or with a cut face."""
    rind = _tone(rng, 0.04, 0.1, 0.9, 0.9) if chance(rng, 0.8) else paint(rng)
    r, tall, count = uniform(rng, 0.55, 0.65), uniform(rng, 0.55, 0.75), int(rng.integers(6, 10))
    b = ObjectBuilder()
    b.add(Kind.ELLIPSOID, (0.36, 0.3, tall), rind, at=(r - 0.12, 0, 0), radial=count, blend=0.04)
    ball(b, rind, (r, r, tall * 0.85), blend=0.04)
    if chance(rng, 0.6):
        glow = dark(rng) if chance(rng, 0.5) else _tone(rng, 0.12, 0.16, 0.8, 1.0)
        size, out = uniform(rng, 0.14, 0.19), r + 0.12
        three = (3, size, 0.16, size * 0.5, 0.01)
        b.add(Kind.PRISM, three, glow, at=(0.26, -out + 0.08, tall * 0.28), turn=(90, 30, 0), mirror="x")
        b.add(Kind.PRISM, (3, 0.08, 0.14, 0.04, 0.01), glow, at=(0, -out, 0.02), turn=(90, 30, 0))
        b.add(Kind.BOX, (0.34, 0.2, 0.07, 0.02), glow, at=(0, -out + 0.14, -tall * 0.33))
        b.add(Kind.BOX, (0.05, 0.2, 0.05, 0.01), rind, at=(0.13, -out + 0.12, -tall * 0.28), mirror="x")
    strut(b, leaf(rng), (0, 0, tall * 0.7), (uniform(rng, -0.15, 0.15), 0, tall + 0.25), 0.12, 0.08)
    if chance(rng, 0.4):
        ball(b, leaf(rng), (0.3, 0.2, 0.05), (0.3, 0, tall * 0.98), turn=(0, 20, 0))
    return b.finish()


def carrot(rng: Rng) -> np.ndarray:
    """A root, point down or lying, with green tufts."""
    root = _tone(rng, 0.04, 0.09, 0.9, 0.95) if chance(rng, 0.75) else paint(rng)
    if chance(rng, 0.4):
        root = root.with_pattern(_tone(rng, 0.03, 0.07, 0.9, 0.75), Pattern.RINGS, uniform(rng, 2, 4))
    r, long, lean = uniform(rng, 0.24, 0.36), uniform(rng, 0.6, 0.9), uniform(rng, -35, 35)
    s, c = np.sin(np.radians(lean)), np.cos(np.radians(lean))
    green, b = leaf(rng), ObjectBuilder()
    strut(b, root, (0, 0, 0), (-2 * long * s, 0, -2 * long * c), r, 0.05)
    for x, y, tall in ((0, 0, 0.65), (0.22, 0, 0.5), (-0.22, 0.05, 0.5), (0.02, -0.2, 0.45)):
        tip = ((tall + r) * s + x * c, y, (tall + r) * c - x * s)
        strut(b, green, (0, 0, r * 0.6), tip, 0.06, 0.09)
        ball(b, green, (0.12, 0.1, 0.14), tip)
    return b.finish()


def melon(rng: Rng) -> np.ndarray:
    """A slice of water melon with seeds, point up or down."""
    flesh = _tone(rng, -0.04, 0.02, 0.75, 0.95) if chance(rng, 0.7) else paint(rng)
    rind, r, half = leaf(rng), uniform(rng, 0.8, 1.0), uniform(rng, 0.14, 0.3)
    up = chance(rng, 0.4)
    b = ObjectBuilder()
    b.add(Kind.CONE, (r, r, half, 0.03), rind, turn=(90, 0, 0))
    b.add(Kind.CONE, (r * 0.9, r * 0.9, half * 1.02, 0.02), white(rng), turn=(90, 0, 0))
    b.add(Kind.CONE, (r * 0.84, r * 0.84, half * 1.05, 0.02), flesh, turn=(90, 0, 0))
    sign = -1 if up else 1
    b.add(Kind.BOX, (1.2, 1.2, 1.0, 0), flesh, at=(0, 0, sign * 1.0), op=Op.SUBTRACT)
    b.trim(2, *((0, r) if up else (-r, 0)))
    seed = dark(rng)
    for x, z in ((0.18, 0.25), (0.48, 0.3), (0.3, 0.55), (0.0, 0.55), (0.6, 0.12)):
        size = (0.04, half * 1.12, 0.06)
        b.add(Kind.ELLIPSOID, size, seed, at=(x * r, 0, -sign * z * r), mirror="x" if x else "")
    return b.finish()


def egg(rng: Rng) -> np.ndarray:
    """An egg with a pattern in a cup, or a bare one."""
    shell = white(rng) if chance(rng, 0.3) else paint(rng)
    if chance(rng, 0.75):
        kinds = [Pattern.RINGS, Pattern.DOTS, Pattern.STRIPES, Pattern.SECTORS, Pattern.CHECKER]
        kind = kinds[int(rng.integers(5))]
        frequency = 6.0 if kind is Pattern.SECTORS else uniform(rng, 1.5, 3.0)
        shell = shell.with_pattern(paint(rng), kind, frequency, rng.random())
    r, tall = uniform(rng, 0.55, 0.65), uniform(rng, 0.25, 0.4)
    b = ObjectBuilder()
    b.add(Kind.CAPSULE, (r, r * 0.68, tall), shell)
    if chance(rng, 0.55):
        cup = decorated(rng, anything(rng), 0.3)
        b.add(Kind.CONE, (r * 0.55, r * 1.02, 0.25, 0.04), cup, at=(0, 0, -r * 0.5))
        b.add(Kind.CONE, (0.3, 0.16, 0.2, 0.02), cup, at=(0, 0, -r * 0.5 - 0.4))
        b.add(Kind.CONE, (r * 0.75, r * 0.65, 0.05, 0.02), cup, at=(0, 0, -r * 0.5 - 0.58))
    return b.finish()
