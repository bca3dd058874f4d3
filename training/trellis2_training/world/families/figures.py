"""Robot, doll, bear, chess pieces: things with a face or a rank; faces look towards -y."""

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
    metal,
    paint,
    skin,
    stone,
    uniform,
    white,
    wood,
)
from ..table import Kind, Op


def robot(rng: Rng) -> np.ndarray:
    """Boxes for head and body, round limbs, an antenna, eyes."""
    shell = metal(rng) if chance(rng, 0.6) else paint(rng)
    trim = paint(rng)
    x, y, z = uniform(rng, 0.4, 0.6), uniform(rng, 0.28, 0.42), uniform(rng, 0.4, 0.6)
    head, hz = x * uniform(rng, 0.6, 0.95), uniform(rng, 0.25, 0.38)
    up = z + hz + 0.12
    soft = uniform(rng, 0.03, 0.12)
    b = ObjectBuilder()
    b.add(Kind.BOX, (x, y, z, soft), shell)
    b.add(Kind.CONE, (0.12, 0.12, 0.15, 0.02), dark(rng), at=(0, 0, z + 0.05))
    if chance(rng, 0.7):
        b.add(Kind.BOX, (head, y * 0.9, hz, soft), shell if chance(rng, 0.6) else trim, at=(0, 0, up))
    else:
        b.add(Kind.CONE, (head, head * 0.9, hz, 0.1), shell, at=(0, 0, up))
        y = max(y, head / 0.9)
    eye, light = head * uniform(rng, 0.18, 0.28), glass(rng) if chance(rng, 0.5) else paint(rng)
    b.add(Kind.ELLIPSOID, (eye, 0.08, eye), light, at=(head * 0.42, -y * 0.9, up + hz * 0.2), mirror="x")
    b.add(Kind.BOX, (head * 0.5, 0.05, 0.05, 0.02), dark(rng), at=(0, -y * 0.9, up - hz * 0.5))
    b.add(
        Kind.BOX,
        (x * 0.6, 0.06, z * 0.35, 0.02),
        decorated(rng, trim, 0.4),
        at=(0, -y if y < 0.42 else -0.4, z * 0.2),
    )
    arm = uniform(rng, 0.1, 0.14)
    swing = uniform(rng, 3, 35)
    b.add(
        Kind.CAPSULE,
        (arm * 1.2, arm, z * 1.3),
        trim if chance(rng, 0.5) else shell,
        at=(x + arm * 0.8, 0, z * 0.7),
        turn=(0, 180 - swing, 0),
        mirror="x",
    )
    leg = uniform(rng, 0.25, 0.5)
    b.add(
        Kind.CONE,
        (0.13, 0.13, leg, 0.03),
        dark(rng) if chance(rng, 0.5) else shell,
        at=(x * 0.5, 0, -z - leg * 0.9),
        mirror="x",
    )
    b.add(Kind.BOX, (0.2, 0.27, 0.1, 0.05), trim, at=(x * 0.5, -0.06, -z - leg * 1.9), mirror="x")
    if chance(rng, 0.6):
        b.add(Kind.CONE, (0.04, 0.04, 0.15, 0.01), metal(rng), at=(0, 0, up + hz + 0.1))
        b.add(Kind.ELLIPSOID, (0.09, 0.09, 0.09), paint(rng), at=(0, 0, up + hz + 0.28))
    return b.finish()


def doll(rng: Rng) -> np.ndarray:
    """A toy person: round head with hair or hat, trunk, arms, legs or a dress."""
    flesh, shirt, hair = (
        skin(rng),
        decorated(rng, paint(rng), 0.35),
        paint(rng) if chance(rng, 0.5) else dark(rng),
    )
    head, trunk = uniform(rng, 0.32, 0.45), uniform(rng, 0.3, 0.42)
    wide = uniform(rng, 0.26, 0.36)
    b = ObjectBuilder()
    low = -trunk
    if chance(rng, 0.4):
        b.add(Kind.CONE, (wide * 1.9, wide * 0.7, trunk * 1.5, 0.05), shirt, at=(0, 0, -trunk * 0.5))
        low = -trunk * 1.9
    else:
        b.add(Kind.BOX, (wide, wide * 0.7, trunk, 0.12), shirt)
    up = trunk + head * 0.85
    b.add(Kind.ELLIPSOID, (head, head * 0.95, head), flesh, at=(0, 0, up))
    b.add(Kind.ELLIPSOID, (head * 1.07, head * 0.95, head * 0.9), hair, at=(0, head * 0.2, up + head * 0.3))
    b.add(
        Kind.ELLIPSOID,
        (head * 0.13, 0.05, head * 0.15),
        dark(rng),
        at=(head * 0.38, -head * 0.85, up - 0.02),
        mirror="x",
    )
    if chance(rng, 0.4):
        hat = paint(rng)
        b.add(Kind.CONE, (head * 1.5, head * 1.5, 0.05, 0.02), hat, at=(0, 0, up + head * 0.75))
        b.add(Kind.CONE, (head * 0.85, head * 0.75, head * 0.35, 0.04), hat, at=(0, 0, up + head * 1.05))
    arm, swing = uniform(rng, 0.09, 0.12), uniform(rng, 10, 80)
    b.add(
        Kind.CAPSULE, (arm, arm, 0.5), shirt, at=(wide, 0, trunk * 0.7), turn=(0, 180 - swing, 0), mirror="x"
    )
    c, s = np.cos(np.radians(swing)), np.sin(np.radians(swing))
    b.add(
        Kind.ELLIPSOID, (arm * 1.15,) * 3, flesh, at=(wide + 0.58 * s, 0, trunk * 0.7 - 0.58 * c), mirror="x"
    )
    leg = uniform(rng, 0.25, 0.4)
    b.add(Kind.CONE, (0.12, 0.13, leg, 0.04), paint(rng), at=(wide * 0.5, 0, low - leg * 0.8), mirror="x")
    return b.add(
        Kind.ELLIPSOID, (0.15, 0.22, 0.1), dark(rng), at=(wide * 0.5, -0.08, low - leg * 1.75), mirror="x"
    ).finish()


def bear(rng: Rng) -> np.ndarray:
    """A sitting toy bear, cat or rabbit."""
    fur = wood(rng) if chance(rng, 0.5) else paint(rng)
    pale = white(rng) if chance(rng, 0.5) else paint(rng)
    belly, head = uniform(rng, 0.5, 0.65), uniform(rng, 0.4, 0.52)
    up = belly * 0.8 + head * 0.75
    b = ObjectBuilder()
    b.add(Kind.ELLIPSOID, (belly * 0.9, belly * 0.8, belly), fur)
    b.add(Kind.ELLIPSOID, (belly * 0.6, belly * 0.4, belly * 0.65), pale, at=(0, -belly * 0.5, -0.02))
    b.add(Kind.ELLIPSOID, (head, head * 0.9, head * 0.9), fur, at=(0, -0.05, up))
    b.add(Kind.ELLIPSOID, (head * 0.42, head * 0.35, head * 0.32), pale, at=(0, -head * 0.8, up - head * 0.2))
    b.add(Kind.ELLIPSOID, (0.08, 0.06, 0.06), dark(rng), at=(0, -head * 1.15, up - head * 0.1))
    b.add(
        Kind.ELLIPSOID,
        (0.06, 0.05, 0.07),
        dark(rng),
        at=(head * 0.4, -head * 0.85, up + head * 0.22),
        mirror="x",
    )
    if chance(rng, 0.6):
        b.add(
            Kind.ELLIPSOID,
            (head * 0.36, head * 0.18, head * 0.36),
            fur,
            at=(head * 0.72, 0, up + head * 0.72),
            mirror="x",
        )
    else:
        tall = head * uniform(rng, 0.6, 1.1)
        b.add(
            Kind.ELLIPSOID,
            (head * 0.2, head * 0.14, tall),
            fur,
            at=(head * 0.45, 0, up + head * 0.6 + tall * 0.5),
            turn=(0, 12, 0),
            mirror="x",
        )
    b.add(
        Kind.CAPSULE,
        (0.16, 0.14, belly * 0.7),
        fur,
        at=(belly * 0.75, -0.1, belly * 0.45),
        turn=(30, 145, 0),
        mirror="x",
        blend=0.05,
    )
    b.add(
        Kind.CAPSULE,
        (0.2, 0.17, belly * 0.75),
        fur,
        at=(belly * 0.55, -belly * 0.3, -belly * 0.75),
        turn=(85, 0, 20),
        mirror="x",
        blend=0.05,
    )
    if chance(rng, 0.3):
        b.add(Kind.TORUS, (head * 0.62, 0.09, np.pi), paint(rng), at=(0, -0.02, belly * 0.75))
    return b.finish()


def chess(rng: Rng) -> np.ndarray:
    """Pawn, rook, bishop, queen or king, on the same turned foot."""
    m = [white, dark, wood, stone, metal, paint][int(rng.integers(6))](rng)
    r, h = uniform(rng, 0.5, 0.65), uniform(rng, 0.6, 1.0)
    b = ObjectBuilder()
    b.add(Kind.CONE, (r, r * 0.9, 0.14, 0.05), m, at=(0, 0, -h))
    b.add(Kind.REVOLVE, (r * 0.85, r * 0.3, r * 0.25, r * 0.4, h, 0), m)
    b.add(Kind.CONE, (r * 0.6, r * 0.55, 0.06, 0.03), m, at=(0, 0, h))
    rank = int(rng.integers(5))
    if rank == 0:
        size = r * uniform(rng, 0.55, 0.7)
        b.add(Kind.ELLIPSOID, (size,) * 3, m, at=(0, 0, h + size * 0.9))
    elif rank == 1:
        top = r * uniform(rng, 0.65, 0.8)
        b.add(Kind.CONE, (top * 0.9, top, 0.25, 0.02), m, at=(0, 0, h + 0.25))
        b.add(Kind.CONE, (top * 0.68, top * 0.68, 0.15, 0.0), m, at=(0, 0, h + 0.5), op=Op.SUBTRACT)
        b.add(
            Kind.BOX,
            (top, 0.09, 0.14, 0.0),
            m,
            at=(top * 0.9, 0, h + 0.52),
            op=Op.SUBTRACT,
            radial=int(rng.integers(4, 7)),
        )
    elif rank == 2:
        size = r * uniform(rng, 0.5, 0.6)
        b.add(Kind.ELLIPSOID, (size, size, size * 1.45), m, at=(0, 0, h + size * 1.3))
        b.add(
            Kind.BOX,
            (size, size, 0.045, 0.0),
            m,
            at=(size * 0.75, 0, h + size * 1.7),
            turn=(0, -50, 0),
            op=Op.SUBTRACT,
        )
        b.add(Kind.ELLIPSOID, (0.1, 0.1, 0.1), m, at=(0, 0, h + size * 2.75))
    else:
        b.add(Kind.REVOLVE, (r * 0.4, r * 0.45, r * 0.5, r * 0.8, 0.3, 0), m, at=(0, 0, h + 0.3))
        if rank == 3:
            b.add(Kind.ELLIPSOID, (0.12,) * 3, m, at=(r * 0.68, 0, h + 0.63), radial=int(rng.integers(6, 9)))
            b.add(Kind.ELLIPSOID, (0.17,) * 3, m, at=(0, 0, h + 0.68))
        else:
            b.add(Kind.BOX, (0.07, 0.07, 0.27, 0.02), m, at=(0, 0, h + 0.83))
            b.add(Kind.BOX, (0.2, 0.07, 0.07, 0.02), m, at=(0, 0, h + 0.9))
    if chance(rng, 0.25):
        b.add(Kind.CONE, (r * 1.02, r * 1.02, 0.05, 0.02), anything(rng), at=(0, 0, -h - 0.15))
    return b.finish()
