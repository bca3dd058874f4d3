"""Bicycle, scooter, glasses, fence, ladder, bare tree, basket, birdcage, hanger, tripod, deck chair:
thin parts.
"""

from __future__ import annotations

import numpy as np

from ..builder import ObjectBuilder
from ..materials import (
    Rng,
    anything,
    chance,
    dark,
    decorated,
    glass,
    leaf,
    metal,
    paint,
    uniform,
    white,
    wood,
)
from ..table import Kind, Op
from .parts import ball, strut


def bicycle(rng: Rng) -> np.ndarray:
    """Seen from its side, front wheel towards -x."""
    r, base = uniform(rng, 0.42, 0.52), uniform(rng, 0.55, 0.65)
    tyre, rim, frame = dark(rng), metal(rng), paint(rng)
    tube = uniform(rng, 0.045, 0.06)
    b = ObjectBuilder()
    b.add(Kind.TORUS, (r, 0.06, np.pi), tyre, at=(base, 0, 0), turn=(90, 0, 0), mirror="x")
    for angle in (30, 90, 150):
        half = (r, 0.022, 0.022, 0.01)
        b.add(Kind.BOX, half, rim, at=(base, 0, 0), turn=(0, angle, 0), mirror="x")
    ball(b, rim, (0.08, 0.07, 0.08), (base, 0, 0), "x")
    pedal, seat, head = (0.02, 0, -0.05), (0.22, 0, r * 1.25), (-base + 0.2, 0, r * 1.25)
    strut(b, frame, pedal, seat, tube)
    strut(b, frame, pedal, head, tube)
    strut(b, frame, seat, head, tube)
    strut(b, frame, pedal, (base, 0, 0), tube * 0.9)
    strut(b, frame, seat, (base, 0, 0), tube * 0.9)
    strut(b, frame, (-base, 0, 0), (head[0] + 0.07, 0, r * 1.85), tube)
    strut(b, metal(rng), (head[0] + 0.07, 0, r * 1.85), (head[0] + 0.1, 0.36, r * 1.9), 0.045, mirror="y")
    ball(b, dark(rng), (0.2, 0.11, 0.06), (seat[0] + 0.06, 0, seat[2] + 0.14))
    strut(b, metal(rng), seat, (seat[0] + 0.05, 0, seat[2] + 0.12), 0.045)
    b.add(Kind.CONE, (0.13, 0.13, 0.05, 0.01), metal(rng), at=pedal, turn=(90, 0, 0))
    b.add(Kind.BOX, (0.05, 0.22, 0.04, 0.01), dark(rng), at=(pedal[0] - 0.08, 0, pedal[2] - 0.14))
    return b.finish()


def scooter(rng: Rng) -> np.ndarray:
    """A push scooter, front towards -x."""
    r, half, tall = uniform(rng, 0.14, 0.22), uniform(rng, 0.5, 0.7), uniform(rng, 0.9, 1.2)
    frame, deck = paint(rng) if chance(rng, 0.6) else metal(rng), decorated(rng, paint(rng), 0.4)
    b = ObjectBuilder()
    b.add(Kind.BOX, (half, 0.15, 0.05, 0.03), deck, at=(0, 0, r * 1.1))
    tyre = dark(rng) if chance(rng, 0.6) else paint(rng)
    b.add(Kind.CONE, (r, r, 0.07, 0.03), tyre, at=(half + r, 0, 0), turn=(90, 0, 0), mirror="x")
    b.add(
        Kind.CONE,
        (r * 0.5, r * 0.5, 0.085, 0.01),
        metal(rng),
        at=(half + r, 0, 0),
        turn=(90, 0, 0),
        mirror="x",
    )
    strut(b, frame, (half - 0.1, 0, r * 1.1), (half + r, 0.11, 0), 0.05, mirror="xy")
    strut(b, frame, (-half, 0, r * 1.1), (-half - r * 0.6, 0, r * 2.2), 0.06)
    top = (-half - r * 0.3, 0, tall)
    strut(b, frame, (-half - r, 0, r * 1.3), top, 0.055)
    strut(b, metal(rng), top, (top[0] + 0.03, 0.34, tall + 0.02), 0.045, mirror="y")
    strut(
        b, dark(rng), (top[0] + 0.02, 0.2, tall + 0.01), (top[0] + 0.03, 0.38, tall + 0.02), 0.065, mirror="y"
    )
    b.add(Kind.TORUS, (r * 1.25, 0.05, 0.9), frame, at=(half + r, 0, 0), turn=(90, 0, 0))
    return b.finish()


def glasses(rng: Rng) -> np.ndarray:
    """Round or square lenses towards -y, temples behind."""
    frame = [metal, paint, dark][int(rng.integers(3))](rng)
    r, gap, tube = uniform(rng, 0.34, 0.46), uniform(rng, 0.07, 0.13), uniform(rng, 0.045, 0.075)
    x, long = r + gap, uniform(rng, 0.7, 1.0)
    lens = glass(rng) if chance(rng, 0.5) else [dark, paint, white][int(rng.integers(3))](rng)
    b = ObjectBuilder()
    if chance(rng, 0.55):
        b.add(Kind.TORUS, (r, tube, np.pi), frame, at=(x, 0, 0), turn=(90, 0, 0), mirror="x")
        b.add(Kind.CONE, (r, r, 0.03, 0), lens, at=(x, 0, 0), turn=(90, 0, 0), mirror="x")
    else:
        high = r * uniform(rng, 0.65, 0.9)
        b.add(Kind.BOX, (r + tube, 0.06, high + tube, 0.03), frame, at=(x, 0, 0), mirror="x")
        b.add(Kind.BOX, (r - tube, 0.075, high - tube, 0.02), lens, at=(x, 0, 0), mirror="x")
    lift = r * 0.25
    strut(b, frame, (0, -0.02, lift + 0.04), (gap + 0.04, 0, lift), tube)
    strut(b, frame, (0, -0.02, lift + 0.04), (-gap - 0.04, 0, lift), tube)
    side = x + r + tube
    strut(b, frame, (side - 0.06, 0, lift), (side, long, lift), tube, mirror="x")
    strut(b, frame, (side, long, lift), (side - 0.05, long + 0.25, lift - 0.25), tube * 1.15, mirror="x")
    return b.finish()


def fence(rng: Rng) -> np.ndarray:
    """Pickets between two rails."""
    stuff = white(rng) if chance(rng, 0.4) else (wood(rng) if chance(rng, 0.6) else paint(rng))
    rail = stuff if chance(rng, 0.6) else wood(rng)
    count, tall = int(rng.integers(2, 5)), uniform(rng, 0.5, 0.8)
    step, pointed = uniform(rng, 0.3, 0.42), chance(rng, 0.6)
    wide = step * uniform(rng, 0.24, 0.38)
    b = ObjectBuilder()
    reach = step * (count - 0.5) + wide
    for z in (-tall * 0.45, tall * 0.45):
        b.add(Kind.BOX, (reach + 0.1, 0.05, 0.07, 0.01), rail, at=(0, 0.08, z))
    for i in range(count):
        x = step * (i + 0.5)
        b.add(Kind.BOX, (wide, 0.045, tall, 0.01), stuff, at=(x, 0, 0), mirror="x")
        if pointed:
            b.add(
                Kind.FRUSTUM,
                (wide, 0.045, wide * 0.7, 0.02, 1, 0.01),
                stuff,
                at=(x, 0, tall + wide * 0.6),
                mirror="x",
            )
        elif chance(rng, 0.5):
            ball(b, rail, wide * 1.2, (x, 0, tall + wide * 0.5), "x")
    return b.finish()


def ladder(rng: Rng) -> np.ndarray:
    """Leaning back, or a step ladder on four legs."""
    stuff = [wood, metal, paint][int(rng.integers(3))](rng)
    rung = stuff if chance(rng, 0.5) else anything(rng)
    w, tall, count = uniform(rng, 0.28, 0.42), uniform(rng, 0.9, 1.2), int(rng.integers(4, 8))
    thick, steps = uniform(rng, 0.045, 0.07), chance(rng, 0.5)
    lean = uniform(rng, 0.25, 0.45) if steps else uniform(rng, 0.0, 0.4)
    flare = uniform(rng, 1.0, 1.35)
    b = ObjectBuilder()
    strut(b, stuff, (w * flare, -lean, -tall), (w, 0, tall), thick, mirror="x")
    for i in range(count):
        s = (i + 0.7) / (count + 0.3)
        at = (0, -lean * (1 - s), -tall + 2 * tall * s)
        half = w * (flare + (1 - flare) * s)
        if steps:
            b.add(Kind.BOX, (half, 0.11, 0.035, 0.01), rung, at=at)
        else:
            b.add(Kind.CONE, (0.05, 0.05, half, 0.01), rung, at=at, turn=(0, 90, 0))
    if steps:
        strut(b, stuff, (w * flare, lean * 1.2, -tall), (w, 0.06, tall), thick, mirror="x")
        b.add(Kind.BOX, (w * 1.15, 0.16, 0.05, 0.02), paint(rng), at=(0, 0, tall))
        b.add(Kind.BOX, (w * flare * 0.95, 0.03, 0.035, 0.01), stuff, at=(0, lean * 0.8, -tall * 0.4))
    return b.finish()


def bare_tree(rng: Rng) -> np.ndarray:
    """A trunk with branches and twigs, a few leaves or fruits left."""
    bark, tall = wood(rng) if chance(rng, 0.8) else white(rng), uniform(rng, 0.6, 0.9)
    thick = uniform(rng, 0.12, 0.18)
    b = ObjectBuilder()
    strut(b, bark, (0, 0, 0), (uniform(rng, -0.1, 0.1), 0, tall), thick * 1.3, thick * 0.8)
    angle, tips = rng.random() * 2 * np.pi, []
    for _ in range(int(rng.integers(3, 6))):
        angle += uniform(rng, 1.2, 2.2)
        out, up, z = uniform(rng, 0.4, 0.7), uniform(rng, 0.3, 0.7), tall * uniform(rng, 0.6, 1.0)
        end = np.array([out * np.cos(angle), out * np.sin(angle), z + up])
        strut(b, bark, (0, 0, z), end, thick * 0.65, thick * 0.4, blend=0.04)
        tips.append(end)
    for end in tips:
        twig = uniform(rng, -0.6, 0.6)
        way = np.array(
            [
                end[0] * np.cos(twig) - end[1] * np.sin(twig),
                end[0] * np.sin(twig) + end[1] * np.cos(twig),
                0.5,
            ]
        )
        strut(b, bark, end * 0.98, end + 0.5 * way, thick * 0.4, 0.035)
    if chance(rng, 0.5):
        fruit = leaf(rng) if chance(rng, 0.6) else paint(rng)
        for end in tips[:3]:
            ball(b, fruit, uniform(rng, 0.1, 0.22), end + np.array([0.0, 0.0, 0.06]))
    b.add(Kind.CONE, (thick * 2.2, thick * 1.2, 0.08, 0.03), bark, blend=0.06)
    return b.finish(frontless=True)


def basket(rng: Rng) -> np.ndarray:
    """Woven rings or a checkered wall with an arched handle, full now and then."""
    cane, r, tall = wood(rng), uniform(rng, 0.6, 0.75), uniform(rng, 0.3, 0.45)
    low = r * uniform(rng, 0.7, 0.95)
    b = ObjectBuilder()
    count, handle = int(rng.integers(3, 6)), chance(rng, 0.8)
    wall = decorated(rng, cane, 0.7)
    b.add(Kind.CONE, (low, r, tall, 0.02), wall)
    b.add(Kind.CONE, (low * 0.9, r * 0.92, tall, 0.0), cane, at=(0, 0, 0.08), op=Op.SUBTRACT)
    for i in range(count):
        s = i / (count - 1)
        b.add(Kind.TORUS, (low + (r - low) * s, 0.065, np.pi), cane, at=(0, 0, -tall + 2 * tall * s))
    if handle:
        b.add(Kind.TORUS, (r, 0.055, np.pi / 2), cane, at=(0, 0, tall), turn=(90, 0, 0))
    if chance(rng, 0.5):
        for _ in range(int(rng.integers(3, 6))):
            a, away, size = rng.random() * 6.28, uniform(rng, 0.1, 0.4), uniform(rng, 0.2, 0.28)
            ball(b, paint(rng), size, (away * np.cos(a), away * np.sin(a), tall * 0.75))
    return b.finish()


def birdcage(rng: Rng) -> np.ndarray:
    """Bars between a floor and a dome with a ring, a bird inside now and then."""
    wire = metal(rng) if chance(rng, 0.6) else paint(rng)
    r, tall, bars = uniform(rng, 0.5, 0.62), uniform(rng, 0.4, 0.65), int(rng.integers(8, 14))
    b = ObjectBuilder()
    b.add(Kind.CONE, (r * 1.05, r * 1.05, 0.07, 0.03), anything(rng), at=(0, 0, -tall))
    strut(b, wire, (r, 0, -tall), (r, 0, tall), 0.032, radial=bars)
    top = tall + r * uniform(rng, 0.6, 0.9)
    strut(b, wire, (r, 0, tall), (r * 0.6, 0, tall + (top - tall) * 0.75), 0.032, radial=bars)
    strut(b, wire, (r * 0.6, 0, tall + (top - tall) * 0.75), (0.05, 0, top), 0.032, radial=bars)
    for z in (-tall * 0.05, tall):
        b.add(Kind.TORUS, (r, 0.04, np.pi), wire, at=(0, 0, z))
    b.add(Kind.TORUS, (0.11, 0.04, np.pi), wire, at=(0, 0, top + 0.12), turn=(90, 0, 0))
    if chance(rng, 0.5):
        feather = paint(rng)
        b.add(Kind.CONE, (0.04, 0.04, r * 0.95, 0.01), wood(rng), at=(0, 0, -0.25), turn=(0, 90, 0))
        ball(b, feather, (0.16, 0.22, 0.2), (0, 0, -0.02))
        ball(b, feather, 0.13, (0, -0.12, 0.22))
        b.add(Kind.CONE, (0.05, 0.01, 0.06, 0.01), paint(rng), at=(0, -0.28, 0.22), turn=(90, 0, 0))
    return b.finish()


def hanger(rng: Rng) -> np.ndarray:
    """A coat hanger along x, with a shirt now and then."""
    stuff = [wood, metal, paint][int(rng.integers(3))](rng)
    w, drop, thick = uniform(rng, 0.75, 0.95), uniform(rng, 0.25, 0.4), uniform(rng, 0.045, 0.075)
    b = ObjectBuilder()
    strut(b, stuff, (0, 0, 0), (w, 0, -drop), thick * 1.2, thick, mirror="x")
    b.add(Kind.CONE, (thick * 0.9, thick * 0.9, w, 0.01), stuff, at=(0, 0, -drop), turn=(0, 90, 0))
    hook, wire = uniform(rng, 0.12, 0.18), metal(rng)
    strut(b, wire, (0, 0, 0), (0, 0, 0.22), 0.042)
    b.add(Kind.TORUS, (hook, 0.042, 2.2), wire, at=(0, 0, 0.22 + hook), turn=(90, -40, 0))
    if chance(rng, 0.45):
        cloth = decorated(rng, paint(rng), 0.7)
        b.add(Kind.FRUSTUM, (w * 0.62, 0.13, 0.55, 1.05, 0.8, 0.06), cloth, at=(0, 0, -drop * 0.6 - 0.5))
        strut(b, cloth, (w * 0.55, 0, -drop * 0.7), (w * 1.0, 0, -drop - 0.4), 0.15, 0.14, "x")
        ball(b, white(rng), (0.16, 0.13, 0.07), (0, 0, -0.06))
    return b.finish()


def tripod(rng: Rng) -> np.ndarray:
    """A camera, a telescope or a lamp on three legs."""
    leg, tall, out = (
        metal(rng) if chance(rng, 0.5) else anything(rng),
        uniform(rng, 0.8, 1.1),
        uniform(rng, 0.4, 0.6),
    )
    thick = uniform(rng, 0.045, 0.07)
    b = ObjectBuilder()
    strut(b, leg, (0.05, 0, 0), (out, 0, -tall), thick * 1.1, thick * 0.8, radial=3)
    b.add(Kind.CONE, (0.12, 0.12, 0.1, 0.02), dark(rng))
    strut(b, leg, (0, 0, 0), (0, 0, 0.25), thick)
    body, style = paint(rng), rng.random()
    if style < 0.4:
        up = uniform(rng, 0, 25)
        turn = (90 - up, 0, 0)
        b.add(Kind.CONE, (0.14, 0.19, 0.5, 0.02), decorated(rng, body, 0.3), at=(0, 0, 0.38), turn=turn)
        c, s = np.cos(np.radians(up)), np.sin(np.radians(up))
        b.add(Kind.CONE, (0.22, 0.22, 0.07, 0.02), metal(rng), at=(0, -0.52 * c, 0.38 + 0.52 * s), turn=turn)
        b.add(Kind.CONE, (0.09, 0.1, 0.14, 0.01), dark(rng), at=(0, 0.6 * c, 0.38 - 0.6 * s), turn=turn)
    elif style < 0.75:
        b.add(Kind.BOX, (0.34, 0.2, 0.24, 0.04), body, at=(0, 0, 0.45))
        b.add(Kind.CONE, (0.18, 0.16, 0.16, 0.02), dark(rng), at=(0, -0.3, 0.45), turn=(90, 0, 0))
        ball(b, glass(rng), (0.12, 0.05, 0.12), (0, -0.46, 0.45))
        b.add(Kind.BOX, (0.12, 0.12, 0.06, 0.02), dark(rng), at=(0, 0, 0.72))
    else:
        b.add(Kind.CONE, (0.42, 0.3, 0.3, 0.03), decorated(rng, body, 0.4), at=(0, 0, 0.5))
    return b.finish()


def deck_chair(rng: Rng) -> np.ndarray:
    """A chair or bench of slats on a frame of bars, facing -y."""
    frame, slat = wood(rng) if chance(rng, 0.6) else metal(rng), wood(rng) if chance(rng, 0.5) else paint(rng)
    w, seat, back = uniform(rng, 0.4, 0.85), uniform(rng, 0.45, 0.6), uniform(rng, 0.5, 0.9)
    lean, thick = uniform(rng, 8, 30), uniform(rng, 0.045, 0.065)
    s, c = np.sin(np.radians(lean)), np.cos(np.radians(lean))
    b = ObjectBuilder()
    strut(b, frame, (w, -seat, 0), (w, -seat * 0.9, -0.55), thick, mirror="x")
    strut(b, frame, (w, seat * 0.6, 0), (w, seat, -0.55), thick, mirror="x")
    strut(b, frame, (w, -seat, 0), (w, seat * 0.7, -0.04), thick, mirror="x")
    strut(b, frame, (w, seat * 0.6, -0.04), (w, seat * 0.6 + back * s, back * c), thick, mirror="x")
    for i in range(4):
        y = -seat + (i + 0.4) * seat * 0.42
        b.add(Kind.BOX, (w, seat * 0.15, 0.035, 0.015), slat, at=(0, y, 0.05))
    for i in range(int(rng.integers(3, 5))):
        up = back * (0.28 + 0.22 * i)
        b.add(
            Kind.BOX,
            (w, 0.035, back * 0.075, 0.015),
            slat,
            at=(0, seat * 0.6 + up * s - 0.04, up * c),
            turn=(-lean, 0, 0),
        )
    if chance(rng, 0.6):
        strut(b, frame, (w, -seat * 0.95, 0), (w, -seat * 0.95, 0.32), thick, mirror="x")
        b.add(Kind.BOX, (0.07, seat * 0.85, 0.035, 0.015), slat, at=(w, -seat * 0.15, 0.34), mirror="x")
    return b.finish()
