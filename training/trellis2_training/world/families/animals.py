"""Cat, dog, rabbit, pig, elephant, turtle, fish, bird, penguin, frog, ladybird, octopus, bee: animals with
eyes. They look towards -y, the fish towards -x.
"""

from __future__ import annotations

import numpy as np

from ..builder import Material, ObjectBuilder
from ..materials import Rng, chance, dark, decorated, hsv, leaf, paint, uniform, white, wood
from ..table import Kind, Op, Pattern
from .parts import ball, eyes, strut


def _fur(rng: Rng) -> Material:
    plain = [wood, paint, white, paint][int(rng.integers(4))](rng)
    if chance(rng, 0.25):
        kind = [Pattern.WAVES, Pattern.RINGS, Pattern.STRIPES][int(rng.integers(3))]
        return plain.with_pattern(paint(rng), kind, uniform(rng, 1.2, 2.5), rng.random())
    return plain


def _pink(rng: Rng) -> Material:
    return Material(hsv(uniform(rng, 0.93, 1.03), uniform(rng, 0.3, 0.6), uniform(rng, 0.8, 1.0)))


def cat(rng: Rng) -> np.ndarray:
    """Sitting, with pointed ears and a tail."""
    fur, pale, pink = _fur(rng), white(rng) if chance(rng, 0.6) else _fur(rng), _pink(rng)
    w, head = uniform(rng, 0.4, 0.52), uniform(rng, 0.4, 0.52)
    tall = uniform(rng, 0.55, 0.7)
    up = tall + head * 0.55
    b = ObjectBuilder()
    ball(b, fur, (w, w * 0.9, tall))
    ball(b, pale, (w * 0.6, w * 0.5, tall * 0.7), (0, -w * 0.5, -0.02))
    ball(b, fur, (head, head * 0.85, head * 0.85), (0, -0.05, up))
    ear, tip = head * uniform(rng, 0.3, 0.38), head * uniform(rng, 0.55, 0.75)
    place = (head * 0.6, -0.03, up + head * 0.85)
    b.add(Kind.CONE, (ear, 0.03, tip / 2, 0.02), fur, at=place, turn=(0, 18, 0), mirror="x")
    b.add(
        Kind.CONE,
        (ear * 0.6, 0.02, tip * 0.36, 0.01),
        pink,
        at=(place[0], place[1] - ear * 0.5, place[2] - 0.03),
        turn=(6, 18, 0),
        mirror="x",
    )
    face = -0.05 - head * 0.75
    ball(b, pale, (head * 0.2, head * 0.15, head * 0.15), (head * 0.14, face - 0.02, up - head * 0.3), "x")
    ball(b, pink, (0.055, 0.05, 0.045), (0, face - head * 0.12, up - head * 0.16))
    eyes(b, rng, (head * 0.38, face + 0.03, up + head * 0.12), head * uniform(rng, 0.16, 0.23))
    strut(b, fur, (w * 0.4, -w * 0.65, 0), (w * 0.42, -w * 0.85, -tall * 0.85), 0.12, 0.13, "x")
    ball(b, fur, (w * 0.45, w * 0.65, tall * 0.35), (w * 0.72, -0.05, -tall * 0.65), "x")
    side = -1 if chance(rng, 0.5) else 1
    strut(b, fur, (0, w * 0.6, -tall * 0.75), (side * w * 1.3, w * 0.7, -tall * 0.5), 0.1, 0.09)
    strut(b, fur, (side * w * 1.3, w * 0.7, -tall * 0.5), (side * w * 1.7, w * 0.6, 0.2), 0.09, 0.08)
    return b.finish()


def dog(rng: Rng) -> np.ndarray:
    """Standing, with hanging ears, a snout and a collar."""
    fur, patch = _fur(rng), _fur(rng)
    long, w, leg = uniform(rng, 0.45, 0.8), uniform(rng, 0.3, 0.4), uniform(rng, 0.3, 0.6)
    head = uniform(rng, 0.34, 0.44)
    up, front = w + head * 0.55, -long * 0.75 - head * 0.3
    b = ObjectBuilder()
    strut(b, fur, (0, long * 0.6, 0), (0, -long * 0.6, 0.03), w, w * 1.05)
    strut(b, fur, (0, -long * 0.6, w * 0.3), (0, front, up), w * 0.65, w * 0.6, blend=0.08)
    ball(b, fur, (head, head * 0.95, head * 0.9), (0, front, up))
    pale = white(rng) if chance(rng, 0.5) else patch
    ball(b, pale, (head * 0.48, head * 0.55, head * 0.38), (0, front - head * 0.85, up - head * 0.25))
    ball(b, dark(rng), (0.1, 0.08, 0.075), (0, front - head * 1.38, up - head * 0.1))
    eyes(b, rng, (head * 0.38, front - head * 0.82, up + head * 0.25), head * uniform(rng, 0.15, 0.2))
    drop = head * uniform(rng, 0.4, 0.65)
    ball(b, patch, (head * 0.16, head * 0.32, drop), (head * 0.98, front + 0.02, up - 0.02), "x", (0, -14, 0))
    thick = uniform(rng, 0.11, 0.15)
    for y in (-long * 0.65, long * 0.65):
        strut(b, fur, (w * 0.6, y, -w * 0.4), (w * 0.65, y, -w - leg), thick * 1.15, thick, "x")
        ball(b, pale, (thick * 1.2, thick * 1.5, thick), (w * 0.65, y - 0.06, -w - leg), "x")
    strut(b, fur, (0, long * 0.6 + w * 0.7, w * 0.4), (0, long + w, w + 0.4), 0.1, 0.06)
    if chance(rng, 0.6):
        b.add(
            Kind.TORUS,
            (w * 0.66, 0.07, np.pi),
            paint(rng),
            at=(0, front * 0.85, up * 0.6),
            turn=(35, 0, 0),
        )
    return b.finish()


def rabbit(rng: Rng) -> np.ndarray:
    """Sitting, with long ears, a tail and teeth."""
    fur, pink = _fur(rng), _pink(rng)
    belly, head = uniform(rng, 0.45, 0.6), uniform(rng, 0.36, 0.46)
    up, long = belly * 0.8 + head * 0.7, uniform(rng, 0.4, 0.6)
    lean = uniform(rng, 4, 20)
    b = ObjectBuilder()
    ball(b, fur, (belly * 0.9, belly * 0.95, belly))
    ball(b, white(rng), (belly * 0.6, belly * 0.5, belly * 0.7), (0, -belly * 0.52, 0))
    ball(b, fur, (head, head * 0.9, head * 0.9), (0, -0.08, up))
    s, c = np.sin(np.radians(lean)), np.cos(np.radians(lean))
    reach = head * 0.7 + long
    ear = (head * 0.35 + reach * s, 0.0, up + reach * c)
    ball(b, fur, (0.15, 0.09, long), ear, "x", (0, lean, 0))
    ball(b, pink, (0.085, 0.06, long * 0.75), (ear[0], -0.055, ear[2]), "x", (0, lean, 0))
    face = -0.08 - head * 0.8
    ball(b, white(rng), (head * 0.24, head * 0.18, head * 0.2), (head * 0.17, face, up - head * 0.3), "x")
    ball(b, pink, (0.065, 0.05, 0.05), (0, face - head * 0.14, up - head * 0.12))
    b.add(Kind.BOX, (0.07, 0.03, 0.08, 0.01), white(rng), at=(0, face - head * 0.08, up - head * 0.55))
    eyes(b, rng, (head * 0.45, face + 0.06, up + head * 0.15), head * uniform(rng, 0.16, 0.24))
    ball(b, fur, (0.17, 0.34, 0.13), (belly * 0.55, -belly * 0.75, -belly * 0.85), "x")
    strut(b, fur, (belly * 0.5, -belly * 0.6, belly * 0.3), (belly * 0.3, -belly * 1.1, 0), 0.12, 0.1, "x")
    ball(b, white(rng), 0.2, (0, belly * 1.0, -belly * 0.5))
    if chance(rng, 0.3):
        strut(b, paint(rng), (0.05, -belly * 1.2, 0.05), (0.25, -belly * 1.1, 0.5), 0.05, 0.13)
    return b.finish()


def pig(rng: Rng) -> np.ndarray:
    """Round, with a flat snout and a curly tail."""
    skin = _pink(rng) if chance(rng, 0.7) else _fur(rng)
    snout = skin.with_pattern(skin, Pattern.PLAIN, 1.0) if chance(rng, 0.3) else _pink(rng)
    w, long, head = uniform(rng, 0.5, 0.65), uniform(rng, 0.6, 0.85), uniform(rng, 0.4, 0.5)
    front = -long * 0.85
    b = ObjectBuilder()
    ball(b, skin, (w, long, w * 0.92))
    ball(b, skin, (head, head * 0.85, head), (0, front, 0.18), blend=0.05)
    face = front - head * 0.8
    b.add(Kind.CONE, (head * 0.45, head * 0.42, 0.12, 0.05), snout, at=(0, face - 0.08, 0.1), turn=(90, 0, 0))
    ball(b, dark(rng), (0.05, 0.03, 0.075), (head * 0.17, face - 0.2, 0.1), "x")
    eyes(b, rng, (head * 0.42, face + 0.1, 0.18 + head * 0.42), head * uniform(rng, 0.15, 0.2))
    ball(
        b,
        snout,
        (head * 0.3, 0.07, head * 0.36),
        (head * 0.7, front - 0.05, 0.18 + head * 0.85),
        "x",
        (20, 30, 0),
    )
    leg = uniform(rng, 0.2, 0.4)
    for y in (-long * 0.5, long * 0.5):
        b.add(Kind.CONE, (0.13, 0.16, leg, 0.03), skin, at=(w * 0.52, y, -w * 0.7 - leg * 0.6), mirror="x")
        b.add(
            Kind.CONE,
            (0.14, 0.135, 0.06, 0.02),
            dark(rng),
            at=(w * 0.52, y, -w * 0.7 - leg * 1.55),
            mirror="x",
        )
    b.add(Kind.TORUS, (0.14, 0.055, 2.5), skin, at=(0, long * 1.02, 0.2), turn=(0, 70, 0))
    if chance(rng, 0.25):
        b.add(Kind.BOX, (0.2, 0.05, 0.04, 0), dark(rng), at=(0, 0.05, w * 0.92))
    return b.finish()


def elephant(rng: Rng) -> np.ndarray:
    """Large ears, a trunk, tusks and columns for legs."""
    grey = Material(hsv(rng.random(), uniform(rng, 0.05, 0.3), uniform(rng, 0.4, 0.75)), 0.0, 0.8)
    hide = grey if chance(rng, 0.6) else _fur(rng)
    w, long, head = uniform(rng, 0.5, 0.6), uniform(rng, 0.6, 0.75), uniform(rng, 0.4, 0.48)
    front, up = -long - head * 0.3, 0.35
    b = ObjectBuilder()
    ball(b, hide, (w, long, w))
    ball(b, hide, (head, head * 0.95, head * 1.05), (0, front, up), blend=0.06)
    ear = uniform(rng, 0.36, 0.5)
    ball(b, hide, (ear, 0.11, ear * 1.15), (head * 0.8 + ear * 0.6, front + 0.2, up), "x", (0, 0, 20))
    ball(
        b,
        _pink(rng),
        (ear * 0.7, 0.085, ear * 0.85),
        (head * 0.8 + ear * 0.6, front + 0.14, up),
        "x",
        (0, 0, 20),
    )
    nose, down, out = front - head * 0.75, up - uniform(rng, 0.65, 0.8), uniform(rng, 0.1, 0.35)
    strut(b, hide, (0, nose, up - 0.1), (0, nose - 0.2, down), 0.18, 0.13, blend=0.05)
    strut(
        b,
        hide,
        (0, nose - 0.2, down),
        (0, nose - 0.25 - out, down - 0.05 + out * 0.6),
        0.13,
        0.09,
        blend=0.03,
    )
    if chance(rng, 0.7):
        strut(b, white(rng), (0.22, nose + 0.05, up - 0.28), (0.28, nose - 0.4, up - 0.42), 0.08, 0.03, "x")
    eyes(b, rng, (head * 0.52, front - head * 0.75, up + head * 0.25), head * uniform(rng, 0.13, 0.18))
    leg = uniform(rng, 0.3, 0.45)
    for y in (-long * 0.6, long * 0.55):
        b.add(Kind.CONE, (0.2, 0.22, leg, 0.04), hide, at=(w * 0.55, y, -w * 0.6 - leg * 0.6), mirror="x")
        b.add(
            Kind.CONE,
            (0.22, 0.2, 0.06, 0.02),
            white(rng),
            at=(w * 0.55, y, -w * 0.6 - leg * 1.55),
            mirror="x",
        )
    strut(b, hide, (0, long * 0.95, 0.1), (0, long * 1.2, -0.35), 0.06, 0.045)
    if chance(rng, 0.3):
        ball(b, decorated(rng, paint(rng), 0.8), (w * 1.04, long * 0.5, w * 0.6), (0, 0, w * 0.45))
    return b.finish()


def turtle(rng: Rng) -> np.ndarray:
    """A domed shell on four legs."""
    skin = leaf(rng) if chance(rng, 0.7) else paint(rng)
    shell = paint(rng) if chance(rng, 0.5) else leaf(rng)
    if chance(rng, 0.7):
        kind = [Pattern.CHECKER, Pattern.DOTS, Pattern.SECTORS, Pattern.WAVES][int(rng.integers(4))]
        frequency = 7.0 if kind is Pattern.SECTORS else uniform(rng, 1.4, 2.6)
        shell = shell.with_pattern(paint(rng), kind, frequency, rng.random())
    x, y, dome = uniform(rng, 0.65, 0.8), uniform(rng, 0.75, 0.95), uniform(rng, 0.45, 0.65)
    b = ObjectBuilder()
    ball(b, shell, (x, y, dome))
    b.add(Kind.BOX, (1.5, 1.5, dome, 0), shell, at=(0, 0, -dome - 0.02), op=Op.SUBTRACT).trim(2, 0, 1)
    ball(b, white(rng) if chance(rng, 0.4) else paint(rng), (x * 1.06, y * 1.05, 0.13), (0, 0, -0.04))
    head = uniform(rng, 0.24, 0.33)
    front, up = -y - head * 0.8, uniform(rng, 0.1, 0.3)
    strut(b, skin, (0, -y * 0.8, 0), (0, front, up), head * 0.6, head * 0.7)
    ball(b, skin, (head, head * 1.05, head * 0.9), (0, front, up))
    eyes(b, rng, (head * 0.5, front - head * 0.7, up + head * 0.3), head * uniform(rng, 0.2, 0.3))
    ball(b, dark(rng), (head * 0.35, 0.04, 0.025), (0, front - head * 0.97, up - head * 0.3))
    strut(b, skin, (x * 0.7, -y * 0.55, -0.08), (x * 1.15, -y * 0.9, -0.25), 0.17, 0.14, "x")
    strut(b, skin, (x * 0.7, y * 0.55, -0.08), (x * 1.05, y * 0.9, -0.27), 0.15, 0.12, "x")
    strut(b, skin, (0, y * 0.9, -0.05), (0, y * 1.25, -0.12), 0.1, 0.03)
    return b.finish()


def fish(rng: Rng) -> np.ndarray:
    """Seen from its side, head towards -x, with fins, a tail and an eye on each side."""
    long, tall, thick = uniform(rng, 0.7, 0.95), uniform(rng, 0.4, 0.65), uniform(rng, 0.2, 0.32)
    scales, fin = paint(rng), paint(rng)
    if chance(rng, 0.6):
        kind = [Pattern.STRIPES, Pattern.DOTS, Pattern.WAVES][int(rng.integers(3))]
        scales = scales.with_pattern(paint(rng), kind, uniform(rng, 1.4, 3.0), rng.random())
    b = ObjectBuilder()
    ball(b, scales, (long, thick, tall))
    tail = uniform(rng, 0.35, 0.5)
    ball(b, fin, (0.17, 0.06, tail), (long * 1.08, 0, tail * 0.55), turn=(0, 35, 0), blend=0.03)
    ball(b, fin, (0.17, 0.06, tail), (long * 1.08, 0, -tail * 0.55), turn=(0, -35, 0), blend=0.03)
    ball(b, fin, (long * 0.42, 0.06, 0.24), (0.08, 0, tall * 0.95), turn=(0, 8, 0))
    ball(b, fin, (long * 0.2, 0.05, 0.2), (0.15, 0, -tall * 0.95), turn=(0, -30, 0))
    ball(b, fin, (0.2, 0.05, 0.12), (-long * 0.1, thick * 0.98, -tall * 0.2), "y", (0, -20, -25))
    eye, x = uniform(rng, 0.1, 0.15), -long * 0.58
    side = thick * np.sqrt(max(1 - 0.58**2 - 0.04, 0.05))
    ball(b, white(rng), (eye, eye * 0.6, eye), (x, side, tall * 0.2), "y")
    ball(b, dark(rng), (eye * 0.6, eye * 0.4, eye * 0.6), (x - 0.02, side + eye * 0.38, tall * 0.2), "y")
    lips = fin if chance(rng, 0.5) else _pink(rng)
    b.add(Kind.TORUS, (0.12, 0.055, np.pi), lips, at=(-long * 0.97, 0, -0.04), turn=(0, 90, 0))
    return b.finish()


def bird(rng: Rng) -> np.ndarray:
    """A round one on thin legs, or a chick."""
    feather, wing = _fur(rng), _fur(rng)
    r, head = uniform(rng, 0.5, 0.65), uniform(rng, 0.32, 0.42)
    up, front = r * 0.75 + head * 0.5, -r * 0.3
    beak = Material(hsv(uniform(rng, 0.03, 0.15), 0.85, uniform(rng, 0.8, 1.0)))
    b = ObjectBuilder()
    ball(b, feather, (r * 0.9, r * 1.1, r * 0.9))
    ball(b, white(rng) if chance(rng, 0.4) else wing, (r * 0.65, r * 0.7, r * 0.65), (0, -r * 0.5, -r * 0.12))
    ball(b, feather, head, (0, front, up), blend=0.08)
    length = uniform(rng, 0.1, 0.22)
    tip = (0, front - head * 0.9 - length * 0.7, up - 0.02)
    b.add(Kind.CONE, (head * 0.34, 0.03, length, 0.02), beak, at=tip, turn=(90, 0, 0))
    eyes(b, rng, (head * 0.5, front - head * 0.75, up + head * 0.25), head * uniform(rng, 0.2, 0.3))
    ball(b, wing, (0.1, r * 0.75, r * 0.42), (r * 0.88, r * 0.2, 0.05), "x", (-20, 8, 0))
    ball(b, wing, (r * 0.35, r * 0.5, 0.08), (0, r * 1.3, 0.12), turn=(25, 0, 0))
    leg = uniform(rng, 0.15, 0.4)
    strut(b, beak, (r * 0.35, 0, -r * 0.7), (r * 0.38, -0.03, -r - leg), 0.055, mirror="x")
    ball(b, beak, (0.14, 0.22, 0.06), (r * 0.38, -0.13, -r - leg), "x")
    if chance(rng, 0.4):
        ball(b, wing, (0.06, 0.08, 0.2), (0, front, up + head * 1.05), turn=(-20, 0, 0))
    return b.finish()


def penguin(rng: Rng) -> np.ndarray:
    """Upright, dark with a pale belly."""
    coat = dark(rng) if chance(rng, 0.6) else paint(rng)
    pale, beak = white(rng), Material(hsv(uniform(rng, 0.05, 0.14), 0.9, 0.95))
    w, tall, head = uniform(rng, 0.45, 0.6), uniform(rng, 0.7, 0.9), uniform(rng, 0.34, 0.46)
    up = tall * 0.75 + head * 0.5
    b = ObjectBuilder()
    ball(b, coat, (w, w * 0.85, tall))
    ball(b, pale, (w * 0.78, w * 0.6, tall * 0.82), (0, -w * 0.36, -0.06))
    ball(b, coat, head, (0, 0, up), blend=0.06)
    ball(b, pale, (head * 0.42, head * 0.4, head * 0.55), (head * 0.33, -head * 0.62, up - head * 0.05), "x")
    b.add(Kind.CONE, (0.12, 0.025, 0.16, 0.02), beak, at=(0, -head - 0.08, up - head * 0.15), turn=(90, 0, 0))
    eyes(b, rng, (head * 0.38, -head * 0.93, up + head * 0.15), head * uniform(rng, 0.17, 0.24))
    swing = uniform(rng, 10, 50)
    s, c = np.sin(np.radians(swing)), np.cos(np.radians(swing))
    ball(b, coat, (0.1, 0.2, 0.42), (w * 0.85 + 0.35 * s, 0, 0.35 - 0.3 * c), "x", (0, -swing, 0))
    ball(b, beak, (0.22, 0.32, 0.09), (w * 0.45, -w * 0.4, -tall * 0.96), "x")
    if chance(rng, 0.4):
        scarf = decorated(rng, paint(rng), 0.5)
        b.add(Kind.TORUS, (head * 0.85, 0.1, np.pi), scarf, at=(0, 0, up - head * 0.8))
        ball(b, scarf, (0.1, 0.06, 0.28), (0.15, -head * 0.95, up - head * 1.3))
    return b.finish()


def frog(rng: Rng) -> np.ndarray:
    """Squatting, eyes on top, a wide mouth."""
    skin, pale = leaf(rng) if chance(rng, 0.75) else paint(rng), white(rng)
    w, tall = uniform(rng, 0.6, 0.75), uniform(rng, 0.42, 0.55)
    b = ObjectBuilder()
    ball(b, skin, (w, w * 0.95, tall))
    ball(b, pale, (w * 0.75, w * 0.6, tall * 0.8), (0, -w * 0.42, -0.08))
    ball(b, skin, (w * 0.82, w * 0.68, tall * 0.62), (0, -w * 0.45, tall * 0.55))
    ball(b, dark(rng), (w * 0.55, 0.06, 0.03), (0, -w * 1.08, tall * 0.42))
    bump = w * uniform(rng, 0.24, 0.32)
    ball(b, skin, bump, (w * 0.45, -w * 0.55, tall * 1.08), "x")
    eyes(b, rng, (w * 0.45, -w * 0.55 - bump * 0.75, tall * 1.12), bump * 0.72)
    ball(b, skin, (0.2, 0.45, 0.26), (w * 0.9, 0.12, -tall * 0.5), "x", (20, 0, 15))
    ball(b, skin, (0.2, 0.3, 0.07), (w * 0.95, -w * 0.45, -tall * 0.95), "x", (0, 0, 25))
    strut(b, skin, (w * 0.5, -w * 0.65, 0), (w * 0.42, -w * 0.95, -tall * 0.9), 0.11, 0.1, "x")
    ball(b, skin, (0.17, 0.2, 0.06), (w * 0.42, -w * 1.05, -tall * 0.95), "x")
    if chance(rng, 0.25):
        b.add(
            Kind.PRISM,
            (5, 0.25, 0.1, 0.16, 0.02),
            Material((0.9, 0.7, 0.1), 0.9, 0.3),
            at=(0, -w * 0.4, tall * 1.25),
        )
    return b.finish()


def ladybird(rng: Rng) -> np.ndarray:
    """A dotted dome with a dark head, feelers and six legs."""
    black = dark(rng)
    wing = (
        Material(hsv(uniform(rng, -0.04, 0.12), 0.9, uniform(rng, 0.6, 1.0)))
        if chance(rng, 0.6)
        else paint(rng)
    )
    wing = wing.with_pattern(black, Pattern.DOTS, uniform(rng, 1.4, 2.4), rng.random())
    x, y, dome = uniform(rng, 0.65, 0.75), uniform(rng, 0.75, 0.9), uniform(rng, 0.55, 0.7)
    b = ObjectBuilder()
    ball(b, wing, (x, y, dome))
    b.add(Kind.BOX, (1.5, 1.5, dome, 0), black, at=(0, 0, -dome), op=Op.SUBTRACT)
    ball(b, black, (x * 0.95, y * 0.95, 0.12))
    b.add(Kind.BOX, (0.03, y, dome * 1.02, 0.02), black, at=(0, 0, 0), op=Op.SUBTRACT)
    ball(b, black, (x * 0.93, y * 0.93, dome * 0.92))
    b.add(Kind.BOX, (1.5, 1.5, dome, 0), black, at=(0, 0, -dome - 0.1), op=Op.SUBTRACT)
    b.trim(2, -0.12, 1)
    head = uniform(rng, 0.3, 0.38)
    front = -y - head * 0.2
    ball(b, black, (head, head * 0.85, head * 0.85), (0, front, 0.15))
    size = head * uniform(rng, 0.22, 0.3)
    ball(b, white(rng), size, (head * 0.5, front - head * 0.62, 0.15 + head * 0.3), "x")
    ball(b, black, size * 0.62, (head * 0.5, front - head * 0.62 - size * 0.55, 0.15 + head * 0.3), "x")
    strut(b, black, (0.1, front, 0.3), (0.28, front - 0.25, 0.65), 0.045, mirror="x")
    ball(b, black, 0.075, (0.28, front - 0.25, 0.65), "x")
    for place in (-0.5, 0.05, 0.6):
        strut(b, black, (x * 0.6, y * place, 0), (x * 1.15, y * place * 1.2, -0.2), 0.07, 0.055, "x")
    return b.finish()


def octopus(rng: Rng) -> np.ndarray:
    """A large head on eight arms."""
    skin = paint(rng) if chance(rng, 0.6) else _fur(rng)
    r, tall, count = uniform(rng, 0.5, 0.6), uniform(rng, 0.55, 0.75), int(rng.integers(6, 10))
    out = uniform(rng, 0.25, 0.45)
    b = ObjectBuilder()
    ball(b, skin, (r, r * 0.95, tall), (0, 0, 0.35))
    strut(b, skin, (r * 0.5, 0, -0.1), (r + out, 0, -0.5), 0.17, 0.11, radial=count, blend=0.06)
    strut(b, skin, (r + out, 0, -0.5), (r + out * 1.9, 0, -0.3), 0.11, 0.06, radial=count, blend=0.02)
    eyes(b, rng, (r * 0.42, -r * 0.85, 0.35), r * uniform(rng, 0.17, 0.26))
    ball(b, dark(rng), (r * 0.22, 0.06, 0.04), (0, -r * 0.93, 0.06))
    if chance(rng, 0.5):
        ball(b, _pink(rng), (0.09, 0.05, 0.06), (r * 0.6, -r * 0.74, 0.1), "x")
    if chance(rng, 0.3):
        hat = paint(rng)
        b.add(Kind.CONE, (r * 0.9, r * 0.9, 0.05, 0.02), hat, at=(0, 0, 0.3 + tall * 0.9))
        b.add(Kind.CONE, (r * 0.55, r * 0.5, 0.22, 0.03), hat, at=(0, 0, 0.5 + tall * 0.9))
    return b.finish()


def bee(rng: Rng) -> np.ndarray:
    """Striped, with two pairs of wings and feelers."""
    black = dark(rng)
    body = Material(hsv(uniform(rng, 0.1, 0.16), 0.85, 0.95)) if chance(rng, 0.7) else paint(rng)
    body = body.with_pattern(black, Pattern.RINGS, uniform(rng, 1.4, 2.4), rng.random())
    w, long, head = uniform(rng, 0.42, 0.55), uniform(rng, 0.6, 0.75), uniform(rng, 0.34, 0.42)
    b = ObjectBuilder()
    b.add(Kind.ELLIPSOID, (w, w, long), body, turn=(90, 0, 0))
    front = -long * 0.75 - head * 0.5
    ball(
        b, body.with_pattern(body, Pattern.PLAIN, 1.0) if chance(rng, 0.5) else black, head, (0, front, 0.08)
    )
    eyes(b, rng, (head * 0.45, front - head * 0.78, 0.15), head * uniform(rng, 0.2, 0.28))
    wing = white(rng) if chance(rng, 0.6) else paint(rng)
    ball(b, wing, (0.48, 0.25, 0.085), (0.5, -0.15, w + 0.25), "x", (0, -35, -10))
    ball(b, wing, (0.34, 0.2, 0.075), (0.42, 0.25, w + 0.12), "x", (0, -30, 25))
    strut(b, black, (0.1, front - 0.1, head), (0.22, front - 0.3, head + 0.3), 0.04, mirror="x")
    ball(b, black, 0.075, (0.22, front - 0.3, head + 0.3), "x")
    b.add(Kind.CONE, (0.09, 0.015, 0.12, 0.01), black, at=(0, long + 0.06, 0), turn=(-90, 0, 0))
    for y in (-0.3, 0.05, 0.35):
        strut(b, black, (w * 0.4, y, -w * 0.7), (w * 0.6, y - 0.05, -w - 0.2), 0.05, mirror="x")
    return b.finish()
