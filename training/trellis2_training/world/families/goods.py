"""Shoe, hat, backpack, guitar, key, padlock, heart, star, phone, laptop, helicopter, balloon: things that are
worn, carried or drawn as icons.
"""

from __future__ import annotations

import numpy as np

from ..builder import Material, ObjectBuilder
from ..materials import Rng, anything, chance, dark, decorated, glass, hsv, metal, paint, uniform, white, wood
from ..table import Kind, Op, Pattern
from .parts import ball, eyes, strut


def _striped(rng: Rng, m: Material, share: float = 0.5) -> Material:
    if not chance(rng, share):
        return m
    kind = [Pattern.STRIPES, Pattern.DOTS, Pattern.CHECKER, Pattern.RINGS][int(rng.integers(4))]
    return m.with_pattern(paint(rng), kind, uniform(rng, 1.4, 3.0), rng.random())


def shoe(rng: Rng) -> np.ndarray:
    """A trainer or a boot, toe towards -x."""
    upper, sole, lace = (
        _striped(rng, paint(rng), 0.3),
        white(rng) if chance(rng, 0.6) else dark(rng),
        white(rng),
    )
    boot, w = chance(rng, 0.4), uniform(rng, 0.28, 0.34)
    tall = uniform(rng, 0.7, 0.9) if boot else uniform(rng, 0.32, 0.42)
    b = ObjectBuilder()
    ball(b, upper, (0.75, w, 0.32), (-0.15, 0, 0.1))
    b.add(Kind.CONE, (w * 1.12, w * 1.0, tall * 0.6, 0.06), upper, at=(0.42, 0, tall * 0.5), blend=0.15)
    b.add(Kind.BOX, (1.5, 1.5, 0.3, 0), sole, at=(0, 0, -0.28), op=Op.SUBTRACT)
    b.add(Kind.CONE, (w * 0.72, w * 0.78, 0.25, 0.02), dark(rng), at=(0.42, 0, tall * 1.1), op=Op.SUBTRACT)
    b.trim(2, 0, 3)
    ball(b, sole, (0.8, w * 1.1, 0.12), (-0.12, 0, 0.02))
    b.add(Kind.BOX, (0.45, w * 0.98, 0.1, 0.08), sole, at=(0.35, 0, -0.0))
    if chance(rng, 0.5):
        ball(b, sole, (0.28, w * 0.88, 0.2), (-0.66, 0, 0.12))
    for i in range(3):
        x = -0.28 + 0.17 * i
        b.add(Kind.BOX, (0.035, w * 0.5, 0.03, 0.02), lace, at=(x, 0, 0.41 + 0.05 * i), turn=(0, -18, 0))
    if chance(rng, 0.6):
        stripe = paint(rng)
        b.add(Kind.BOX, (0.05, w * 1.04, 0.16, 0.02), stripe, at=(0.02, 0, 0.2), turn=(0, 25, 0))
        b.add(Kind.BOX, (0.05, w * 1.06, 0.16, 0.02), stripe, at=(0.18, 0, 0.22), turn=(0, 25, 0))
    return b.finish()


def hat(rng: Rng) -> np.ndarray:
    """Top hat, cap, party hat, straw hat or a wizard's."""
    cloth, band, style = _striped(rng, paint(rng), 0.3), paint(rng), int(rng.integers(5))
    b = ObjectBuilder()
    if style == 0:
        tall = uniform(rng, 0.45, 0.8)
        b.add(Kind.CONE, (0.95, 0.95, 0.06, 0.03), cloth)
        b.add(Kind.CONE, (0.55, uniform(rng, 0.55, 0.7), tall, 0.03), cloth, at=(0, 0, tall))
        b.add(Kind.CONE, (0.575, 0.585, 0.12, 0.01), band, at=(0, 0, 0.2))
    elif style == 1:
        ball(b, cloth, (0.7, 0.75, 0.6))
        b.add(Kind.BOX, (1, 1, 0.4, 0), cloth, at=(0, 0, -0.4), op=Op.SUBTRACT).trim(2, 0, 1)
        ball(b, band, (0.55, 0.55, 0.07), (0, -0.72, 0.04), turn=(8, 0, 0))
        ball(b, band, 0.09, (0, 0, 0.6))
        if chance(rng, 0.5):
            b.add(Kind.CONE, (0.22, 0.22, 0.06, 0.02), white(rng), at=(0, -0.64, 0.32), turn=(68, 0, 0))
    elif style == 2:
        kinds = [Pattern.STRIPES, Pattern.DOTS, Pattern.RINGS]
        cloth = cloth.with_pattern(band, kinds[int(rng.integers(3))], uniform(rng, 1.6, 3), rng.random())
        b.add(Kind.CONE, (0.55, 0.03, 0.85, 0.02), cloth)
        ball(b, band, 0.16, (0, 0, 0.88))
        for i in range(5 if chance(rng, 0.5) else 0):
            a = i * 2 * np.pi / 5
            ball(b, paint(rng), 0.1, (0.53 * np.cos(a), 0.53 * np.sin(a), -0.82))
    elif style == 3:
        ball(b, cloth, (0.55, 0.55, uniform(rng, 0.4, 0.6)), (0, 0, 0.05))
        b.add(Kind.BOX, (1, 1, 0.5, 0), cloth, at=(0, 0, -0.5), op=Op.SUBTRACT).trim(2, 0, 1)
        b.add(Kind.CONE, (1.0, 0.97, 0.06, 0.04), cloth)
        b.add(Kind.CONE, (0.56, 0.54, 0.09, 0.02), band, at=(0, 0, 0.13))
        b.add(Kind.TORUS, (0.14, 0.06, np.pi), band, at=(0.15, -0.56, 0.14), turn=(90, 25, 0), mirror="x")
    else:
        b.add(Kind.CONE, (0.95, 0.9, 0.05, 0.03), cloth)
        strut(b, cloth, (0, 0, 0.05), (0.05, 0, 0.7), 0.5, 0.24, blend=0.08)
        strut(b, cloth, (0.05, 0, 0.7), (0.35, 0, 1.2), 0.24, 0.07, blend=0.05)
        b.add(Kind.CONE, (0.57, 0.5, 0.11, 0.02), band, at=(0, 0, 0.15))
        b.add(Kind.BOX, (0.14, 0.04, 0.12, 0.01), metal(rng), at=(0, -0.56, 0.16))
    return b.finish()


def backpack(rng: Rng) -> np.ndarray:
    """A bag with a flap or a pocket towards -y, straps behind."""
    cloth, pocket, strap = _striped(rng, paint(rng), 0.4), paint(rng), dark(rng)
    x, y, z = uniform(rng, 0.48, 0.6), uniform(rng, 0.25, 0.34), uniform(rng, 0.6, 0.75)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, y, z, 0.2), cloth)
    b.add(Kind.BOX, (x * 0.75, 0.15, z * 0.36, 0.1), pocket, at=(0, -y - 0.05, -z * 0.42))
    b.add(Kind.BOX, (x * 0.6, 0.03, 0.03, 0.01), metal(rng), at=(0, -y - 0.2, -z * 0.25))
    if chance(rng, 0.6):
        b.add(Kind.BOX, (x * 0.96, 0.08, z * 0.34, 0.06), pocket, at=(0, -y - 0.02, z * 0.5))
        b.add(Kind.BOX, (0.07, 0.05, 0.14, 0.02), strap, at=(x * 0.45, -y - 0.1, z * 0.18), mirror="x")
    else:
        b.add(Kind.CONE, (0.19, 0.19, 0.04, 0.02), white(rng), at=(0, -y - 0.02, z * 0.45), turn=(90, 0, 0))
    b.add(Kind.TORUS, (0.15, 0.05, np.pi), strap, at=(0, 0.05, z + 0.06), turn=(90, 0, 0))
    b.add(Kind.BOX, (0.15, 0.16, z * 0.35, 0.1), pocket, at=(x + 0.02, 0, -z * 0.45), mirror="x")
    b.add(
        Kind.TORUS,
        (z * 0.7, 0.065, np.pi / 2),
        strap,
        at=(x * 0.5, y * 0.7, 0),
        turn=(0, 90, 180),
        mirror="x",
    )
    return b.finish()


def guitar(rng: Rng) -> np.ndarray:
    """Upright, strings towards -y: acoustic or electric."""
    body, neck = wood(rng) if chance(rng, 0.6) else paint(rng), wood(rng)
    low, high, half = uniform(rng, 0.42, 0.5), uniform(rng, 0.3, 0.38), uniform(rng, 0.09, 0.16)
    waist, long = low + high * 0.75, uniform(rng, 0.9, 1.15)
    b = ObjectBuilder()
    b.add(Kind.CONE, (low, low, half, 0.03), body, turn=(90, 0, 0))
    b.add(Kind.CONE, (high, high, half, 0.03), body, at=(0, 0, waist * 0.8), turn=(90, 0, 0), blend=0.12)
    if chance(rng, 0.4):
        strut(b, body, (0.1, 0, waist * 0.8), (0.33, 0, waist * 1.35), 0.12, 0.09, "x", blend=0.03)
        b.add(Kind.BOX, (0.24, 0.03, 0.3, 0.02), white(rng), at=(0.05, -half, waist * 0.4))
        for z in (0.15, 0.45):
            b.add(Kind.BOX, (0.16, 0.04, 0.06, 0.02), dark(rng), at=(0, -half - 0.02, waist * z))
    else:
        b.add(Kind.CONE, (0.19, 0.19, 0.05, 0), wood(rng), at=(0, -half, waist * 0.5), turn=(90, 0, 0))
        b.add(Kind.CONE, (0.16, 0.16, 0.08, 0), dark(rng), at=(0, -half, waist * 0.5), turn=(90, 0, 0))
    b.add(Kind.BOX, (0.2, 0.05, 0.05, 0.01), dark(rng), at=(0, -half - 0.01, -low * 0.35))
    top = waist + long
    b.add(
        Kind.BOX, (0.085, 0.06, (top - waist * 0.55) / 2, 0.02), neck, at=(0, -half, (top + waist * 0.55) / 2)
    )
    b.add(
        Kind.FRUSTUM, (0.1, 0.05, 0.2, 1.3, 1, 0.02), neck, at=(0, -half + 0.03, top + 0.15), turn=(-8, 0, 0)
    )
    for i in range(3):
        ball(b, metal(rng), (0.065, 0.045, 0.045), (0.16, -half + 0.03, top + 0.05 + 0.1 * i), "x")
    b.add(Kind.BOX, (0.055, 0.025, (top - 0.2) / 2, 0.005), white(rng), at=(0, -half - 0.06, (top - 0.2) / 2))
    return b.finish()


def key(rng: Rng) -> np.ndarray:
    """A ring or a clover with a shaft and teeth, upright."""
    m = metal(rng) if chance(rng, 0.75) else paint(rng)
    r, tube, long = uniform(rng, 0.28, 0.38), uniform(rng, 0.08, 0.12), uniform(rng, 0.8, 1.1)
    b = ObjectBuilder()
    if chance(rng, 0.55):
        b.add(Kind.TORUS, (r, tube, np.pi), m, turn=(90, 0, 0))
    else:
        for x, z in ((r * 0.75, 0), (-r * 0.75, 0), (0, r * 0.8)):
            b.add(Kind.TORUS, (r * 0.5, tube * 0.8, np.pi), m, at=(x, 0, z), turn=(90, 0, 0))
        strut(b, m, (0, 0, r * 0.2), (0, 0, -r), 0.085)
    b.add(Kind.CONE, (0.075, 0.085, long / 2, 0.02), m, at=(0, 0, -r - long / 2 + 0.03))
    b.add(Kind.CONE, (0.13, 0.13, 0.05, 0.02), m, at=(0, 0, -r - 0.1))
    side = 1 if chance(rng, 0.5) else -1
    for i in range(int(rng.integers(2, 4))):
        tooth = uniform(rng, 0.12, 0.22)
        b.add(Kind.BOX, (tooth, 0.05, 0.06, 0.01), m, at=(side * tooth, 0, -r - long + 0.08 + 0.2 * i))
    if chance(rng, 0.35):
        ball(b, paint(rng), (r * 0.6, 0.09, r * 0.6))
    return b.finish()


def padlock(rng: Rng) -> np.ndarray:
    """A body with a keyhole towards -y and a shackle, open now and then."""
    body, steel = metal(rng) if chance(rng, 0.5) else paint(rng), metal(rng)
    x, y, z = uniform(rng, 0.5, 0.65), uniform(rng, 0.2, 0.3), uniform(rng, 0.4, 0.55)
    r, tube, lift = x * uniform(rng, 0.55, 0.68), uniform(rng, 0.08, 0.12), uniform(rng, 0.15, 0.35)
    b = ObjectBuilder()
    round_body = chance(rng, 0.3)
    if round_body:
        b.add(Kind.CONE, (z * 1.2, z * 1.2, y, 0.08), body, turn=(90, 0, 0))
    else:
        b.add(Kind.BOX, (x, y, z, uniform(rng, 0.05, 0.16)), body)
    b.add(Kind.TORUS, (r, tube, np.pi / 2), steel, at=(0, 0, z + lift), turn=(90, 0, 0))
    if chance(rng, 0.3):
        strut(b, steel, (-r, 0, z - 0.1), (-r, 0, z + lift), tube)
    else:
        strut(b, steel, (r, 0, z - 0.2), (r, 0, z + lift), tube, mirror="x")
    plate = dark(rng) if chance(rng, 0.6) else white(rng)
    b.add(Kind.CONE, (0.13, 0.13, 0.05, 0.01), plate, at=(0, -y - 0.01, 0.08), turn=(90, 0, 0))
    b.add(Kind.FRUSTUM, (0.11, 0.055, 0.15, 0.45, 1, 0.01), plate, at=(0, -y, -0.1))
    if not round_body and chance(rng, 0.5):
        b.add(Kind.BOX, (x * 1.02, y * 1.03, 0.07, 0.03), steel, at=(0, 0, -z * 0.75))
    return b.finish()


def heart(rng: Rng) -> np.ndarray:
    """A thick heart that looks towards -y, with eyes, an arrow or a foot now and then."""
    m = Material(hsv(uniform(rng, -0.08, 0.03), 0.85, 0.9), 0.0, uniform(rng, 0.1, 0.7))
    m = m if chance(rng, 0.5) else _striped(rng, paint(rng), 0.5)
    half, r = uniform(rng, 0.2, 0.36), 0.44
    b = ObjectBuilder()
    lobe, drop = (r * 0.72, 0.0, 0.22), -0.78
    ball(b, m, (r * 1.02, half, r * 1.02), lobe, "x")
    strut(b, m, (lobe[0] * 0.85, 0, 0.16), (0, 0, drop), half * 0.95, 0.1, "x", blend=0.25)
    ball(b, m, (0.52, half * 0.98, 0.4), (0, 0, -0.08), blend=0.2)
    style = rng.random()
    if style < 0.35:
        eyes(b, rng, (0.24, -half * 0.92, 0.12), uniform(rng, 0.1, 0.14))
        ball(b, dark(rng), (0.12, 0.05, 0.05), (0, -half * 0.98, -0.12))
    elif style < 0.55:
        shaft = wood(rng)
        strut(b, shaft, (-1.0, 0.1, -0.25), (1.0, -0.1, 0.35), 0.05)
        b.add(Kind.CONE, (0.15, 0.01, 0.14, 0.01), metal(rng), at=(1.05, -0.1, 0.37), turn=(0, 73, -6))
    elif style < 0.75:
        b.add(Kind.CONE, (0.4, 0.32, 0.08, 0.03), anything(rng), at=(0, 0, drop - 0.12))
    return b.finish()


def star(rng: Rng) -> np.ndarray:
    """A star that looks towards -y: with a face, on a stick, or plain."""
    gold = Material(hsv(uniform(rng, 0.1, 0.16), 0.85, 0.95), 0.9 if chance(rng, 0.4) else 0.0, 0.35)
    m = gold if chance(rng, 0.5) else _striped(rng, anything(rng), 0.4)
    points, half = int(rng.integers(4, 8)), uniform(rng, 0.16, 0.3)
    inner = uniform(rng, 0.45, 0.6)
    turn = (90, -90, 0)  # a point upwards
    b = ObjectBuilder()
    b.add(Kind.PRISM, (points, 1.0, half * 0.7, inner, 0.08), m, turn=turn)
    ball(b, m, (inner * 0.95, half, inner * 0.95), blend=0.1)
    style = rng.random()
    if style < 0.45:
        eyes(b, rng, (0.2, -half * 0.95, 0.1), uniform(rng, 0.1, 0.14))
        ball(b, dark(rng), (0.13, 0.05, 0.05), (0, -half * 0.97, -0.14))
        ball(b, Material((0.95, 0.5, 0.5)), (0.07, 0.04, 0.05), (0.3, -half * 0.85, -0.06), "x")
    elif style < 0.7:
        strut(b, paint(rng), (0, 0, -0.5), (0, 0, -2.0), 0.075)
    elif style < 0.85:
        b.add(Kind.CONE, (0.45, 0.38, 0.12, 0.03), anything(rng), at=(0, 0, -0.95))
    return b.finish()


def phone(rng: Rng) -> np.ndarray:
    """A smartphone with icons, upright or leaning, or an old one with a receiver."""
    b = ObjectBuilder()
    if chance(rng, 0.7):
        x, z, lean = uniform(rng, 0.42, 0.55), uniform(rng, 0.85, 1.0), uniform(rng, 0, 25)
        turn = (-lean, 0, 0)
        s, c = np.sin(np.radians(lean)), np.cos(np.radians(lean))
        case, screen = (
            dark(rng) if chance(rng, 0.4) else paint(rng),
            glass(rng) if chance(rng, 0.5) else paint(rng),
        )
        b.add(Kind.BOX, (x, 0.06, z, 0.055), case, turn=turn)
        b.add(Kind.BOX, (x * 0.88, 0.07, z * 0.88, 0.03), screen, turn=turn)
        b.add(Kind.BOX, (x * 0.25, 0.075, 0.04, 0.02), case, at=(0, z * 0.8 * s, z * 0.8 * c), turn=turn)
        size = x * 0.19
        for row in range(int(rng.integers(1, 4))):
            for column in (-1, 0, 1):
                up = z * (0.5 - 0.38 * row)
                at = (column * x * 0.56, up * s, up * c)
                b.add(Kind.BOX, (size, 0.085, size, 0.05), paint(rng), at=at, turn=turn)
        return b.finish()
    case, ivory = paint(rng), white(rng)
    b.add(Kind.FRUSTUM, (0.7, 0.55, 0.35, 0.55, 0.5, 0.06), case)
    b.add(Kind.CONE, (0.3, 0.3, 0.05, 0.02), ivory, at=(0, -0.42, 0.05), turn=(52, 0, 0))
    b.add(Kind.CONE, (0.12, 0.12, 0.07, 0.02), case, at=(0, -0.44, 0.06), turn=(52, 0, 0))
    strut(b, case, (0.3, 0, 0.3), (0.3, 0, 0.5), 0.09, mirror="x")
    strut(b, case, (-0.6, 0, 0.62), (0.6, 0, 0.62), 0.1)
    b.add(Kind.CONE, (0.22, 0.15, 0.13, 0.04), case, at=(0.62, 0, 0.52), mirror="x")
    return b.finish()


def laptop(rng: Rng) -> np.ndarray:
    """Open, screen towards -y."""
    shell, keys = (
        metal(rng) if chance(rng, 0.6) else paint(rng),
        dark(rng) if chance(rng, 0.6) else white(rng),
    )
    x, y, lean = uniform(rng, 0.75, 0.95), uniform(rng, 0.5, 0.62), uniform(rng, 5, 35)
    s, c = np.sin(np.radians(lean)), np.cos(np.radians(lean))
    turn = (-lean, 0, 0)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, y, 0.05, 0.03), shell)
    rows = keys.with_pattern(shell, Pattern.CHECKER, uniform(rng, 3, 5)) if chance(rng, 0.5) else keys
    b.add(Kind.BOX, (x * 0.85, y * 0.42, 0.02, 0.01), rows, at=(0, y * 0.2, 0.05))
    b.add(Kind.BOX, (x * 0.28, y * 0.22, 0.015, 0.01), paint(rng), at=(0, -y * 0.6, 0.05))
    b.add(Kind.BOX, (x, 0.04, y, 0.03), shell, at=(0, y + y * s, y * c), turn=turn)
    screen = decorated(rng, glass(rng) if chance(rng, 0.6) else paint(rng), 0.4)
    b.add(Kind.BOX, (x * 0.92, 0.045, y * 0.88, 0.02), screen, at=(0, y + y * s - 0.01, y * c), turn=turn)
    if chance(rng, 0.6):
        sun = paint(rng)
        up = y * uniform(rng, 0.8, 1.3)
        b.add(
            Kind.CONE,
            (0.2, 0.2, 0.03, 0.01),
            sun,
            at=(uniform(rng, -0.4, 0.4), y + up * s - 0.045, up * c),
            turn=(90 - lean, 0, 0),
        )
        b.add(
            Kind.BOX,
            (x * 0.7, 0.025, 0.06, 0.01),
            paint(rng),
            at=(0, y + y * 0.4 * s - 0.045, y * 0.4 * c),
            turn=turn,
        )
    return b.finish()


def helicopter(rng: Rng) -> np.ndarray:
    """Nose towards -y: a cabin with a window, a tail, two rotors, skids."""
    body, trim, blade = (
        _striped(rng, paint(rng), 0.25),
        paint(rng),
        dark(rng) if chance(rng, 0.5) else metal(rng),
    )
    w, long, tall = uniform(rng, 0.36, 0.46), uniform(rng, 0.55, 0.7), uniform(rng, 0.38, 0.48)
    b = ObjectBuilder()
    ball(b, body, (w, long, tall))
    ball(b, glass(rng), (w * 0.9, long * 0.6, tall * 0.72), (0, -long * 0.46, tall * 0.15))
    strut(b, body, (0, long * 0.6, tall * 0.3), (0, long + 0.75, tall * 0.55), 0.17, 0.07)
    b.add(Kind.FRUSTUM, (0.045, 0.16, 0.22, 1, 0.6, 0.02), trim, at=(0, long + 0.72, tall * 0.55 + 0.2))
    b.add(
        Kind.BOX,
        (0.025, 0.27, 0.045, 0.01),
        blade,
        at=(0.09, long + 0.74, tall * 0.6),
        turn=(uniform(rng, 0, 90), 0, 0),
    )
    b.add(Kind.CONE, (0.07, 0.06, 0.14, 0.02), metal(rng), at=(0, 0, tall + 0.08))
    length, count = uniform(rng, 0.8, 1.0), int(rng.integers(2, 5))
    if count == 2:
        turn = (0, 0, uniform(rng, 0, 180))
        b.add(Kind.BOX, (length, 0.075, 0.028, 0.01), blade, at=(0, 0, tall + 0.2), turn=turn)
    else:
        b.add(Kind.BOX, (length / 2, 0.075, 0.028, 0.01), blade, at=(length / 2, 0, tall + 0.2), radial=count)
    skid = metal(rng)
    strut(
        b, skid, (w * 0.85, -long * 0.85, -tall - 0.2), (w * 0.85, long * 0.6, -tall - 0.2), 0.045, mirror="x"
    )
    for y in (-long * 0.4, long * 0.25):
        strut(b, skid, (w * 0.4, y, -tall * 0.75), (w * 0.85, y, -tall - 0.2), 0.04, mirror="x")
    if chance(rng, 0.5):
        b.add(Kind.BOX, (w * 1.01, 0.16, 0.12, 0.03), white(rng), at=(0, long * 0.2, 0.05))
    return b.finish()


def balloon(rng: Rng) -> np.ndarray:
    """A hot-air balloon with a basket, or a toy balloon on a string."""
    cloth, second = paint(rng), paint(rng)
    kind = [Pattern.SECTORS, Pattern.RINGS, Pattern.STRIPES, Pattern.PLAIN][int(rng.integers(4))]
    frequency = float(rng.integers(4, 8)) if kind is Pattern.SECTORS else uniform(rng, 0.9, 2.0)
    cloth = cloth.with_pattern(second, kind, frequency, rng.random())
    r = uniform(rng, 0.7, 0.8)
    b = ObjectBuilder()
    ball(b, cloth, (r, r, r * uniform(rng, 1.0, 1.12)))
    if chance(rng, 0.65):
        b.add(Kind.CONE, (0.22, r * 0.9, 0.32, 0.02), cloth, at=(0, 0, -r * 0.82), blend=0.1)
        low, rope = -r - uniform(rng, 0.4, 0.6), wood(rng)
        strut(b, rope, (0.17, 0, low), (0.24, 0, -r * 1.05), 0.035, radial=4)
        b.add(Kind.BOX, (0.19, 0.19, 0.16, 0.03), decorated(rng, wood(rng), 0.5), at=(0, 0, low - 0.1))
        b.add(Kind.BOX, (0.22, 0.22, 0.035, 0.02), wood(rng), at=(0, 0, low + 0.05))
    else:
        b.add(Kind.CONE, (0.14, 0.02, 0.09, 0.02), cloth, at=(0, 0, -r * 1.12))
        swing = uniform(rng, -0.15, 0.15)
        strut(b, white(rng), (0, 0, -r * 1.15), (swing, 0, -r - 0.65), 0.034)
        strut(b, white(rng), (swing, 0, -r - 0.65), (-swing, 0, -r - 1.15), 0.034)
    return b.finish()
