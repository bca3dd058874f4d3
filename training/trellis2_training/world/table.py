"""The fixed-size primitive table: one object is `[MAX_PRIMITIVES, ROW]` floats, whatever it depicts.

A row holds one primitive: its kind, how it joins the rows above it, where it stands, and its material. A
fixed
table makes a batch of objects one tensor, so that one evaluator (torch, or one Triton kernel) serves them
all.
"""

from __future__ import annotations

from enum import IntEnum

MAX_PRIMITIVES = 16
ROW = 48


class Kind(IntEnum):
    """Primitive shapes; six parameters each, lengths in object units. Local z is the axis of every round
    shape.
    """

    EMPTY = -1
    ELLIPSOID = 0  # radius x, y, z
    BOX = 1  # half size x, y, z, rounding
    CONE = 2  # radius at the bottom, at the top, half height, rounding
    TORUS = (
        3  # ring radius, tube radius, half opening angle (radians, symmetric about local +y; pi = full ring)
    )
    CAPSULE = 4  # radius at the bottom, at the top, distance of the two centres (bottom centre is the origin)
    FRUSTUM = 5  # half size x, y at the bottom, half height, top scale x, y, rounding
    # four Bezier radii from bottom to top, half height, wall thickness (0 = solid, else open at the top)
    REVOLVE = 6
    PRISM = 7  # corners, outer radius, half height, inner radius, rounding


class Op(IntEnum):
    """How a row joins the distance accumulated over the rows above it."""

    UNION = 0
    SUBTRACT = 1
    INTERSECT = 2


class Pattern(IntEnum):
    """Two-colour patterns in the primitive's own coordinates."""

    PLAIN = 0
    RINGS = 1  # bands along local z
    CHECKER = 2  # cubes
    SECTORS = 3  # bands around local z
    BLEND = 4  # a smooth change along local z
    WAVES = 5  # soft blotches
    STRIPES = 6  # bands across local x, turned towards z by the tilt
    DOTS = 7  # balls on a grid
    LABEL = 8  # a rectangle on the side towards local -y
    FACE = 9  # two eyes and a mouth towards local -y
    BRICKS = 10  # rows of bricks with joints, along local z
    GRAIN = 11  # bent lines of wood along local z
    LETTERS = 12  # signs of 3 x 5 squares in a line, on the side towards local -y


# Columns of a row.
KIND, OP, BLEND, MIRROR, RADIAL, BUMP, BUMP_FREQUENCY, PARITY = range(8)
ROTATION = 8  # 9 numbers, row-major: local = ROTATION @ (folded point - TRANSLATION)
TRANSLATION = 17
PARAMS = 20  # 6 numbers
ORIGIN = 26  # centre of the mirror planes and of the radial repetition, in object coordinates
BASE = 32  # base colour (sRGB values, 0..1)
METALLIC, ROUGHNESS, PATTERN = 35, 36, 37
SECOND = 38  # second base colour
SECOND_METALLIC, SECOND_ROUGHNESS, FREQUENCY, PHASE, TILT = 41, 42, 43, 44, 45
FRONTLESS = 46  # 1 in an object's first row when no side of it is the front (a rock, a bush)

# Parameters that scale with the object (the others are angles, counts and ratios).
LENGTHS: dict[Kind, tuple[int, ...]] = {
    Kind.ELLIPSOID: (0, 1, 2),
    Kind.BOX: (0, 1, 2, 3),
    Kind.CONE: (0, 1, 2, 3),
    Kind.TORUS: (0, 1),
    Kind.CAPSULE: (0, 1, 2),
    Kind.FRUSTUM: (0, 1, 2, 5),
    Kind.REVOLVE: (0, 1, 2, 3, 4, 5),
    Kind.PRISM: (1, 2, 3, 4),
}
