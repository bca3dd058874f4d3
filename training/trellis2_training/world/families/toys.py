"""Teddy, smiley, ball, die, book, pencil, headphones, suitcase, gamepad, spinning top, flying saucer,
monster: toys and things of a child's room.
"""

from __future__ import annotations

import numpy as np

from ..builder import Material, ObjectBuilder
from ..materials import Rng, anything, chance, dark, decorated, glass, hsv, metal, paint, uniform, white, wood
from ..table import Kind, Pattern
from .parts import ball, eyes, strut


def teddy(rng: Rng) -> np.ndarray:
    """A toy bear with large eyes, sitting or standing."""
    fur = wood(rng) if chance(rng, 0.6) else paint(rng)
    pale = Material(hsv(uniform(rng, 0.06, 0.13), 0.3, 0.95)) if chance(rng, 0.6) else paint(rng)
    w, head = uniform(rng, 0.42, 0.55), uniform(rng, 0.45, 0.56)
    up, sits = w * 0.85 + head * 0.75, chance(rng, 0.6)
    b = ObjectBuilder()
    ball(b, fur, (w, w * 0.85, w * 1.05))
    ball(b, pale, (w * 0.68, w * 0.45, w * 0.75), (0, -w * 0.5, 0))
    ball(b, fur, (head, head * 0.88, head * 0.92), (0, -0.03, up))
    ball(b, fur, (head * 0.36, head * 0.2, head * 0.36), (head * 0.74, 0, up + head * 0.7), "x")
    ball(b, pale, (head * 0.22, head * 0.1, head * 0.22), (head * 0.74, -head * 0.15, up + head * 0.7), "x")
    face = -0.03 - head * 0.8
    ball(b, pale, (head * 0.4, head * 0.3, head * 0.3), (0, face, up - head * 0.25))
    ball(b, dark(rng), (head * 0.15, head * 0.12, head * 0.11), (0, face - head * 0.28, up - head * 0.1))
    eyes(b, rng, (head * 0.38, face + 0.04, up + head * 0.2), head * uniform(rng, 0.14, 0.22))
    raised = uniform(rng, -0.5, 0.5)
    strut(b, fur, (w * 0.75, -0.05, w * 0.55), (w * 1.3, -w * 0.45, w * raised), 0.17, 0.15, "x", blend=0.04)
    if sits:
        strut(b, fur, (w * 0.5, -w * 0.4, -w * 0.75), (w * 0.85, -w * 1.3, -w * 0.8), 0.2, 0.19, "x")
        ball(b, pale, (0.15, 0.06, 0.16), (w * 0.88, -w * 1.3 - 0.17, -w * 0.8), "x")
    else:
        strut(b, fur, (w * 0.5, 0, -w * 0.7), (w * 0.55, 0, -w * 1.6), 0.2, 0.2, "x")
        ball(b, fur, (0.22, 0.3, 0.13), (w * 0.55, -0.1, -w * 1.68), "x")
    if chance(rng, 0.4):
        ball(b, paint(rng), (0.2, 0.1, 0.13), (0.17, -w * 0.75, up - head * 0.95), "x", (0, -15, 0))
    return b.finish()


def smiley(rng: Rng) -> np.ndarray:
    """A round or square face: eyes, a mouth, cheeks, a tongue or a hat."""
    yellow = Material(hsv(uniform(rng, 0.11, 0.15), 0.85, 1.0), 0.0, uniform(rng, 0.2, 0.7))
    skin = yellow if chance(rng, 0.5) else paint(rng)
    b = ObjectBuilder()
    if chance(rng, 0.7):
        ball(b, skin, 0.8)
        front = -0.72
    else:
        b.add(Kind.BOX, (0.75, 0.65, 0.75, 0.2), skin)
        front = -0.66
    if chance(rng, 0.6):
        eyes(b, rng, (0.27, front, 0.2), uniform(rng, 0.14, 0.2))
    else:
        ball(b, dark(rng), (0.09, 0.07, uniform(rng, 0.1, 0.18)), (0.25, front, 0.2), "x")
    mood, mouth = rng.random(), dark(rng) if chance(rng, 0.7) else paint(rng)
    if mood < 0.55:
        width = uniform(rng, 0.8, 1.2)
        b.add(Kind.TORUS, (0.34, 0.05, width), mouth, at=(0, front - 0.02, 0.1), turn=(-90, 0, 0))
    elif mood < 0.8:
        ball(b, mouth, (uniform(rng, 0.12, 0.3), 0.08, uniform(rng, 0.1, 0.2)), (0, front - 0.0, -0.25))
        ball(b, Material((0.9, 0.35, 0.4)), (0.1, 0.08, 0.07), (0, front - 0.04, -0.33))
    else:
        strut(b, mouth, (-0.25, front - 0.02, -0.25), (0.25, front - 0.02, -0.25), 0.05)
    if chance(rng, 0.5):
        ball(b, Material((0.97, 0.5, 0.45)), (0.11, 0.06, 0.08), (0.45, front + 0.12, -0.05), "x")
    if chance(rng, 0.3):
        hat = paint(rng)
        b.add(Kind.CONE, (0.7, 0.7, 0.05, 0.02), hat, at=(0, 0, 0.68))
        b.add(Kind.CONE, (0.45, 0.4, 0.28, 0.03), hat, at=(0, 0, 0.95))
    return b.finish()


def football(rng: Rng) -> np.ndarray:
    """A ball: bands, dots, checks, sectors, or seams of another colour."""
    kinds = [Pattern.SECTORS, Pattern.CHECKER, Pattern.DOTS, Pattern.RINGS, Pattern.STRIPES]
    kind = kinds[int(rng.integers(5))]
    frequency = float(rng.integers(3, 7)) if kind is Pattern.SECTORS else uniform(rng, 0.8, 2.0)
    m = paint(rng) if chance(rng, 0.5) else white(rng)
    other = dark(rng) if chance(rng, 0.4) else paint(rng)
    style, b = rng.random(), ObjectBuilder()
    turn = (uniform(rng, -40, 40), uniform(rng, -40, 40), uniform(rng, 0, 90))
    size = (0.8, 0.8, 0.8) if chance(rng, 0.8) else (1.0, 0.6, 0.6)
    if style < 0.6:
        b.add(Kind.ELLIPSOID, size, m.with_pattern(other, kind, frequency, rng.random()), turn=turn)
        return b.finish(frontless=True)
    b.add(Kind.ELLIPSOID, size, m, turn=turn)
    for lift in (90.0, 26.6, -26.6, -90.0):
        s, c = np.sin(np.radians(lift)), np.cos(np.radians(lift))
        spot = (0.25, 0.25, 0.25)
        at = (size[0] * 0.62 * c, 0, size[2] * 0.62 * s)
        b.add(Kind.ELLIPSOID, spot, other, at=at, radial=0 if abs(lift) == 90 else 5)
    return b.finish(frontless=True)


def die(rng: Rng) -> np.ndarray:
    """A cube with spots on three faces, or with letters' bars like a toy block."""
    m, spot, r = paint(rng), white(rng) if chance(rng, 0.6) else dark(rng), uniform(rng, 0.09, 0.13)
    b = ObjectBuilder()
    b.add(Kind.BOX, (0.7, 0.7, 0.7, uniform(rng, 0.04, 0.2)), m)
    d = 0.36
    if chance(rng, 0.6):
        ball(b, spot, (r, r, 0.06), (d, d, 0.69), "xy")
        if chance(rng, 0.5):
            ball(b, spot, (r, r, 0.06), (0, 0, 0.69))
        ball(b, spot, (r, 0.06, r), (-d, -0.69, d))
        ball(b, spot, (r, 0.06, r), (0, -0.69, 0))
        ball(b, spot, (r, 0.06, r), (d, -0.69, -d))
        ball(b, spot, (0.06, r, r), (0.69, -d, d), "x")
        ball(b, spot, (0.06, r, r), (0.69, d, -d), "x")
        return b.finish()
    for turn in ((0, 0, 0), (0, 0, 90), (0, 0, -90)):
        c, s = np.cos(np.radians(turn[2])), np.sin(np.radians(turn[2]))
        letter = paint(rng)
        frame = [
            (-0.25, 0.0, 0.08, 0.42),
            (0.0, 0.34, 0.3, 0.08),
            (0.0, -0.02, 0.3, 0.08),
            (0.25, 0.0, 0.08, 0.42),
        ]
        for i in rng.permutation(4)[:3]:
            x, z, hx, hz = frame[int(i)]
            b.add(
                Kind.BOX, (hx, 0.04, hz, 0.01), letter, at=(x * c + 0.69 * s, x * s - 0.69 * c, z), turn=turn
            )
    return b.finish()


def book(rng: Rng) -> np.ndarray:
    """A closed book standing or lying, or a stack of them."""
    b, count = ObjectBuilder(), int(rng.integers(1, 4))
    stands = count == 1 and chance(rng, 0.6)
    z = 0.0
    for _ in range(count):
        x, y, half = uniform(rng, 0.5, 0.65), uniform(rng, 0.65, 0.85), uniform(rng, 0.1, 0.2)
        cover, yaw = decorated(rng, paint(rng), 0.2), uniform(rng, -25, 25)
        tilt = 90 if stands else 0
        base = z + half

        def placed(
            p: tuple[float, float, float], base: float = base, tilt: int = tilt, yaw: float = yaw
        ) -> list[float]:
            q = np.array([p[0], -p[2], p[1]]) if tilt else np.array(p)
            c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
            return [float(x) for x in (q[0] * c - q[1] * s, q[0] * s + q[1] * c, q[2] + base)]

        turn = (tilt, 0, yaw)
        b.add(Kind.BOX, (x * 0.95, y * 0.94, half * 0.8, 0.0), white(rng), at=placed((0.04, 0, 0)), turn=turn)
        for side in (-1, 1):
            b.add(Kind.BOX, (x, y, 0.04, 0.01), cover, at=placed((0, 0, side * half)), turn=turn)
        b.add(Kind.BOX, (0.05, y, half, 0.03), cover, at=placed((-x, 0, 0)), turn=turn)
        b.add(
            Kind.BOX,
            (x * 0.6, y * 0.16, 0.03, 0.01),
            paint(rng),
            at=placed((0, y * 0.4, half + 0.02)),
            turn=turn,
        )
        z += 2 * half + 0.08
    return b.finish()


def pencil(rng: Rng) -> np.ndarray:
    """A pencil or a crayon, upright or leaning, with a rubber."""
    coat = decorated(rng, paint(rng), 0.4)
    r, long, lean = uniform(rng, 0.13, 0.22), uniform(rng, 0.7, 0.95), uniform(rng, -40, 40)
    s, c = np.sin(np.radians(lean)), np.cos(np.radians(lean))
    turn, b = (0, lean, 0), ObjectBuilder()

    def along(t: float) -> tuple[float, float, float]:
        return (float(t * s), 0.0, float(t * c))

    b.add(Kind.PRISM, (6, r, long * 0.75, r * 0.866, 0.02), coat, turn=turn)
    b.add(Kind.CONE, (0.05, r * 0.92, r * 1.2, 0.0), wood(rng), at=along(-long * 0.75 - r * 1.2), turn=turn)
    tip = dark(rng) if chance(rng, 0.6) else coat
    b.add(Kind.CONE, (0.015, r * 0.4, r * 0.5, 0.01), tip, at=along(-long * 0.75 - r * 2.1), turn=turn)
    b.add(Kind.CONE, (r, r, 0.08, 0.01), metal(rng), at=along(long * 0.75 + 0.06), turn=turn)
    rubber = Material(hsv(uniform(rng, 0.93, 1.02), 0.5, 0.9))
    b.add(Kind.CONE, (r * 0.93, r * 0.93, 0.13, 0.05), rubber, at=along(long * 0.75 + 0.2), turn=turn)
    return b.finish()


def headphones(rng: Rng) -> np.ndarray:
    """Two cups on an arch, worn facing -y."""
    band, cup = paint(rng), anything(rng)
    r, tube, ear = uniform(rng, 0.55, 0.65), uniform(rng, 0.05, 0.09), uniform(rng, 0.26, 0.36)
    b = ObjectBuilder()
    b.add(Kind.TORUS, (r, tube, 1.7), band, turn=(90, 0, 0))
    b.add(Kind.TORUS, (r, tube * 1.7, 0.7), dark(rng), turn=(90, 0, 0))
    b.add(Kind.CONE, (ear, ear * 0.9, 0.1, 0.04), cup, at=(r + 0.04, 0, -0.25), turn=(0, 90, 0), mirror="x")
    b.add(
        Kind.TORUS, (ear * 0.75, 0.11, np.pi), dark(rng), at=(r - 0.1, 0, -0.25), turn=(0, 90, 0), mirror="x"
    )
    b.add(
        Kind.CONE,
        (ear * 0.5, ear * 0.5, 0.05, 0.02),
        band,
        at=(r + 0.13, 0, -0.25),
        turn=(0, 90, 0),
        mirror="x",
    )
    if chance(rng, 0.35):
        strut(b, dark(rng), (r, -0.05, -0.35), (r - 0.1, -0.5, -0.5), 0.04)
        ball(b, dark(rng), 0.09, (r - 0.1, -0.5, -0.5))
    return b.finish()


def suitcase(rng: Rng) -> np.ndarray:
    """A case with bands, corners and a handle, on wheels now and then; broad side towards -y."""
    shell = decorated(rng, paint(rng) if chance(rng, 0.7) else wood(rng), 0.2)
    band = wood(rng) if chance(rng, 0.5) else metal(rng)
    rolls = chance(rng, 0.5)
    x, z = (
        (uniform(rng, 0.45, 0.55), uniform(rng, 0.65, 0.8))
        if rolls
        else (uniform(rng, 0.75, 0.9), uniform(rng, 0.5, 0.6))
    )
    y = uniform(rng, 0.2, 0.3)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, y, z, 0.09), shell)
    if rolls:
        for i in range(3):
            b.add(Kind.BOX, (0.035, y * 1.05, z * 0.85, 0.02), shell, at=((i - 1) * x * 0.5, 0, 0))
        strut(b, metal(rng), (x * 0.4, y * 0.6, z * 0.5), (x * 0.4, y * 0.6, z + 0.45), 0.04, mirror="x")
        strut(b, dark(rng), (-x * 0.45, y * 0.6, z + 0.45), (x * 0.45, y * 0.6, z + 0.45), 0.065)
        b.add(
            Kind.CONE,
            (0.1, 0.1, 0.06, 0.02),
            dark(rng),
            at=(x * 0.75, y * 0.6, -z - 0.06),
            turn=(0, 90, 0),
            mirror="xy",
        )
    else:
        b.add(Kind.BOX, (0.07, y * 1.06, z * 1.03, 0.02), band, at=(x * 0.55, 0, 0), mirror="x")
        b.add(Kind.TORUS, (0.2, 0.05, np.pi / 2), band, at=(0, 0, z), turn=(90, 0, 0))
        b.add(Kind.BOX, (0.08, 0.05, 0.07, 0.01), metal(rng), at=(x * 0.3, -y, z * 0.4), mirror="x")
        b.add(Kind.ELLIPSOID, (0.14, 0.1, 0.14), band, at=(x - 0.06, y - 0.04, z - 0.06), mirror="xy")
    if chance(rng, 0.6):
        b.add(
            Kind.CONE,
            (0.15, 0.15, 0.03, 0.01),
            paint(rng),
            at=(-x * 0.2, -y - 0.0, -z * 0.3),
            turn=(90, 0, 0),
        )
        b.add(Kind.BOX, (0.16, 0.035, 0.1, 0.01), paint(rng), at=(x * 0.25, -y, -z * 0.55), turn=(0, 20, 0))
    return b.finish()


def gamepad(rng: Rng) -> np.ndarray:
    """A controller held upright, buttons towards -y."""
    shell, pad = paint(rng) if chance(rng, 0.6) else dark(rng), dark(rng) if chance(rng, 0.5) else white(rng)
    x, half = uniform(rng, 0.5, 0.6), uniform(rng, 0.15, 0.2)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, half, 0.33, 0.14), shell)
    strut(b, shell, (x * 0.95, 0, 0.05), (x * 1.25, 0, -0.5), 0.3, 0.17, "x", blend=0.1)
    b.add(Kind.BOX, (0.17, half * 1.1, 0.055, 0.01), pad, at=(-x * 0.85, -0.1, 0.05))
    b.add(Kind.BOX, (0.055, half * 1.1, 0.17, 0.01), pad, at=(-x * 0.85, -0.1, 0.05))
    for dx, dz in ((0.13, 0), (-0.13, 0), (0, 0.13), (0, -0.13)):
        ball(b, paint(rng), (0.065, 0.09, 0.065), (x * 0.85 + dx, -half - 0.1, 0.05 + dz))
    b.add(
        Kind.CONE, (0.13, 0.1, 0.09, 0.03), pad, at=(x * 0.4, -half - 0.06, -0.2), turn=(90, 0, 0), mirror="x"
    )
    b.add(Kind.BOX, (0.12, half * 1.05, 0.035, 0.01), metal(rng), at=(0, -0.02, 0.12))
    b.add(Kind.BOX, (0.2, half * 0.8, 0.07, 0.04), pad, at=(x * 0.8, 0.03, 0.36), mirror="x")
    if chance(rng, 0.3):
        strut(b, dark(rng), (0, 0, 0.3), (0.1, 0, 0.75), 0.04)
    return b.finish()


def spinning_top(rng: Rng) -> np.ndarray:
    """Bands of colour around an axis that leans a little."""
    kind = [Pattern.RINGS, Pattern.SECTORS, Pattern.CHECKER][int(rng.integers(3))]
    frequency = float(rng.integers(4, 9)) if kind is Pattern.SECTORS else uniform(rng, 1.5, 3)
    m = paint(rng).with_pattern(paint(rng), kind, frequency, rng.random())
    r, tall, lean = uniform(rng, 0.6, 0.8), uniform(rng, 0.35, 0.5), uniform(rng, -18, 18)
    s, c = np.sin(np.radians(lean)), np.cos(np.radians(lean))
    turn, b = (0, lean, 0), ObjectBuilder()
    b.add(Kind.CONE, (0.08, r, tall, 0.02), m, at=(-tall * s, 0, -tall * c), turn=turn)
    b.add(Kind.ELLIPSOID, (r, r, tall * 0.55), m if chance(rng, 0.5) else paint(rng), turn=turn)
    knob, high = wood(rng), uniform(rng, 0.5, 0.75)
    strut(b, knob, (0, 0, 0), (high * s, 0, high * c), 0.08, 0.07)
    ball(b, knob, 0.14, (high * s, 0, high * c))
    return b.finish()


def flying_saucer(rng: Rng) -> np.ndarray:
    """A disc with a dome and lights, a visitor or a beam now and then."""
    hull, light = metal(rng) if chance(rng, 0.7) else paint(rng), paint(rng)
    r, high, count = uniform(rng, 0.85, 1.0), uniform(rng, 0.22, 0.34), int(rng.integers(6, 11))
    b = ObjectBuilder()
    ball(b, hull, (r, r, high))
    b.add(Kind.TORUS, (r * 0.95, 0.07, np.pi), paint(rng) if chance(rng, 0.5) else hull)
    ball(
        b,
        glass(rng) if chance(rng, 0.6) else paint(rng),
        (r * 0.45, r * 0.45, r * uniform(rng, 0.4, 0.55)),
        (0, 0, high * 0.6),
    )
    lamp = r * 0.72
    b.add(Kind.ELLIPSOID, (0.09, 0.09, 0.09), light, at=(lamp, 0, high * 0.66), radial=count)
    b.add(Kind.CONE, (r * 0.3, r * 0.5, 0.1, 0.03), hull, at=(0, 0, -high))
    if chance(rng, 0.5):
        strut(b, metal(rng), (r * 0.5, 0, -high * 0.7), (r * 0.65, 0, -high - 0.35), 0.05, radial=3)
        b.add(Kind.ELLIPSOID, (0.11, 0.11, 0.05), dark(rng), at=(r * 0.65, 0, -high - 0.38), radial=3)
    if chance(rng, 0.4):
        skin = Material(hsv(uniform(rng, 0.22, 0.4), 0.7, 0.85))
        ball(b, skin, (0.24, 0.22, 0.28), (0, -r * 0.15, high + r * 0.42))
        eyes(b, rng, (0.1, -r * 0.15 - 0.19, high + r * 0.45), 0.1)
    return b.finish()


def monster(rng: Rng) -> np.ndarray:
    """A furry blob: one to three eyes, horns, teeth, arms, spots or stripes."""
    skin = paint(rng)
    if chance(rng, 0.6):
        kind = [Pattern.DOTS, Pattern.STRIPES, Pattern.WAVES][int(rng.integers(3))]
        skin = skin.with_pattern(paint(rng), kind, uniform(rng, 1.3, 2.6), rng.random())
    w, tall = uniform(rng, 0.5, 0.7), uniform(rng, 0.55, 0.85)
    b = ObjectBuilder()
    bump = (0.012, uniform(rng, 10, 14)) if chance(rng, 0.4) else (0.0, 1.0)
    b.add(Kind.ELLIPSOID, (w, w * 0.85, tall), skin, bump=bump)
    front, up = -w * 0.8, tall * 0.28
    if chance(rng, 0.45):
        size = w * uniform(rng, 0.3, 0.42)
        ball(b, white(rng), (size, size * 0.7, size), (0, front, up))
        iris = paint(rng)
        ball(b, iris, (size * 0.6, size * 0.4, size * 0.6), (0, front - size * 0.45, up))
        ball(b, dark(rng), (size * 0.35, size * 0.3, size * 0.35), (0, front - size * 0.65, up))
    else:
        eyes(b, rng, (w * 0.36, front + 0.02, up), w * uniform(rng, 0.22, 0.32))
    mouth = w * uniform(rng, 0.3, 0.55)
    ball(b, dark(rng), (mouth, 0.1, 0.12), (0, front - 0.02, -tall * 0.2))
    b.add(
        Kind.BOX,
        (0.06, 0.05, 0.07, 0.01),
        white(rng),
        at=(mouth * 0.4, front - 0.1, -tall * 0.14),
        mirror="x",
    )
    horn = white(rng) if chance(rng, 0.5) else paint(rng)
    if chance(rng, 0.7):
        strut(b, horn, (w * 0.5, 0, tall * 0.75), (w * 0.8, 0, tall * 1.25), 0.13, 0.03, "x")
    else:
        strut(b, skin, (w * 0.2, 0, tall * 0.9), (w * 0.35, -0.05, tall * 1.3), 0.05, mirror="x")
        ball(b, horn, 0.1, (w * 0.35, -0.05, tall * 1.3), "x")
    swing = uniform(rng, -0.5, 0.5)
    strut(b, skin, (w * 0.85, 0, 0.05), (w * 1.35, -0.15, swing), 0.12, 0.1, "x")
    ball(b, skin, (0.2, 0.28, 0.14), (w * 0.5, -0.1, -tall * 0.97), "x")
    return b.finish()
