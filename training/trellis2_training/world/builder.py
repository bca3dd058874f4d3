"""Writes a primitive table: places parts, remembers their exact extent, and normalises the whole into the
cube.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trellis2.errors import InvalidArgumentError

from . import table as tb
from .table import Kind, Op, Pattern

CUBE_SIDE = 0.99999
Vector = Sequence[float]


@dataclass(frozen=True)
class Material:
    """Metallic-roughness material; base colours are sRGB values in 0..1, an optional second one makes a
    pattern.
    """

    base: tuple[float, float, float]
    metallic: float = 0.0
    roughness: float = 0.5
    pattern: Pattern = Pattern.PLAIN
    second: tuple[float, float, float] = (0.0, 0.0, 0.0)
    second_metallic: float = 0.0
    second_roughness: float = 0.5
    frequency: float = 4.0  # periods per object unit, or around the axis for sectors
    phase: float = 0.0

    def with_pattern(
        self, other: Material, pattern: Pattern, frequency: float, phase: float = 0.0
    ) -> Material:
        """This material patterned with another one."""
        return replace(
            self,
            pattern=pattern,
            second=other.base,
            second_metallic=other.metallic,
            second_roughness=other.roughness,
            frequency=frequency,
            phase=phase,
        )


def rotation(degrees: Vector) -> np.ndarray:
    """Matrix `[3, 3]` that turns about x, then y, then z."""
    a, b, c = np.radians(np.asarray(degrees, dtype=np.float64))
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rz @ ry @ rx


def _ring(radius: float, z: float, corners: int = 48) -> np.ndarray:
    angle = np.arange(corners) * (2 * np.pi / corners)
    radius = radius / np.cos(np.pi / corners)  # circumscribed, so the extent is never too small
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(corners, z)], axis=1)


def _box_corners(hx: float, hy: float, hz: float) -> np.ndarray:
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
    return signs * np.array([hx, hy, hz])


def bezier_radius(radii: Vector | np.ndarray, s: np.ndarray) -> np.ndarray:
    """Radius of a revolved profile at `s` in 0..1 from bottom to top."""
    r0, r1, r2, r3 = radii
    q = 1 - s
    return r0 * q**3 + 3 * r1 * q * q * s + 3 * r2 * q * s * s + r3 * s**3


def outline(kind: Kind, params: np.ndarray) -> tuple[np.ndarray, float]:
    """Points `[M, 3]` and a radius whose swept ball has the primitive's extent in every direction (never
    less).
    """
    p = params
    if kind is Kind.ELLIPSOID:
        points = np.concatenate([_ring(np.cos(t), np.sin(t), 24) for t in np.linspace(-1.5, 1.5, 13)])
        return points * p[:3] * 1.005, 0.0
    if kind is Kind.BOX:
        return _box_corners(p[0] - p[3], p[1] - p[3], p[2] - p[3]), float(p[3])
    if kind is Kind.CONE:
        r = float(p[3])
        low, high = max(p[0] - r, 0.0), max(p[1] - r, 0.0)
        return np.concatenate([_ring(low, r - p[2]), _ring(high, p[2] - r)]), r
    if kind is Kind.TORUS:
        angle = np.linspace(-p[2], p[2], 65)
        reach = p[0] * 1.002
        return np.stack([reach * np.sin(angle), reach * np.cos(angle), np.zeros(65)], axis=1), float(p[1])
    if kind is Kind.CAPSULE:
        big = max(p[0], p[1])
        ends = np.array([[0, 0, p[0] - big], [0, 0, p[2] + p[1] - big]])
        return (ends, float(big)) if p[0] == p[1] else (_capsule_points(p), 0.0)
    if kind is Kind.FRUSTUM:
        low = _box_corners(p[0], p[1], p[2])[[0, 2, 4, 6]]
        high = _box_corners(p[0] * p[3], p[1] * p[4], p[2])[[1, 3, 5, 7]]
        return np.concatenate([low, high]), 0.0
    if kind is Kind.REVOLVE:
        s = np.linspace(0, 1, 25)
        radii = bezier_radius(p[:4], s) * 1.002
        return np.concatenate([_ring(r, z) for r, z in zip(radii, (2 * s - 1) * p[4], strict=True)]), 0.0
    if kind is Kind.PRISM:
        ring = _ring(p[1] * np.cos(np.pi / p[0]), 0.0, int(p[0]))
        lift = np.array([0.0, 0.0, p[2]])
        return np.concatenate([ring + lift, ring - lift]), 0.0
    raise InvalidArgumentError(f"no outline for primitive kind {kind!r}")


def _capsule_points(p: np.ndarray) -> np.ndarray:
    rings = []
    for centre, radius in ((0.0, p[0]), (p[2], p[1])):
        rings += [
            _ring(radius * np.cos(t), centre + radius * np.sin(t), 24) for t in np.linspace(-1.5, 1.5, 9)
        ]
        rings.append(np.array([[0, 0, centre - radius], [0, 0, centre + radius]]))
    return np.concatenate(rings)


class ObjectBuilder:
    """Collects parts in free units; `finish()` gives the table of the object centred in the cube of side
    0.99999.

    Frame: Z up, front towards -y. `mirror` ("x", "y" or "xy") copies a part through the planes x = 0, y = 0;
    `radial` repeats it n times around the z axis (place the part on the +x side, symmetric about that
    direction).
    """

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._extents: list[np.ndarray] = []
        self._last_material: Material | None = None

    def add(
        self,
        kind: Kind,
        params: Vector,
        material: Material | None = None,
        at: Vector = (0.0, 0.0, 0.0),
        turn: Vector = (0.0, 0.0, 0.0),
        op: Op = Op.UNION,
        blend: float = 0.0,
        mirror: str = "",
        radial: int = 0,
        bump: tuple[float, float] = (0.0, 1.0),
    ) -> ObjectBuilder:
        """Append one part; a subtraction without a material shows the material of the part before it."""
        if len(self._rows) == tb.MAX_PRIMITIVES:
            raise InvalidArgumentError(f"an object has at most {tb.MAX_PRIMITIVES} primitives")
        material = material or self._last_material
        if material is None:
            raise InvalidArgumentError("the first part of an object needs a material")
        self._last_material = material
        values = np.zeros(6)
        values[: len(params)] = params
        turned = rotation(turn)
        row = np.zeros(tb.ROW)
        row[tb.KIND], row[tb.OP], row[tb.BLEND] = kind, op, blend
        row[tb.MIRROR] = ("x" in mirror) + 2 * ("y" in mirror)
        row[tb.RADIAL] = radial if radial > 1 else 0
        row[tb.BUMP], row[tb.BUMP_FREQUENCY] = bump
        row[tb.ROTATION : tb.ROTATION + 9] = turned.T.reshape(-1)
        row[tb.TRANSLATION : tb.TRANSLATION + 3] = at
        row[tb.PARAMS : tb.PARAMS + 6] = values
        _write_material(row, material)
        self._rows.append(row)
        if op is Op.UNION:
            self._extents.append(self._extent(kind, values, turned, np.asarray(at), row))
        return self

    def trim(self, axis: int, low: float, high: float) -> ObjectBuilder:
        """Bound what was added so far along an axis, where subtractions have taken the rest away."""
        for extent in self._extents:
            extent[:, axis] = extent[:, axis].clip(low, high)
        return self

    def _extent(
        self, kind: Kind, values: np.ndarray, turned: np.ndarray, at: np.ndarray, row: np.ndarray
    ) -> np.ndarray:
        points, radius = outline(kind, values)
        points = points @ turned.T + at
        if int(row[tb.RADIAL]):
            angles = np.arange(int(row[tb.RADIAL])) * (360.0 / row[tb.RADIAL])
            points = np.concatenate([points @ rotation((0, 0, a)).T for a in angles])
        for bit, axis in ((1, 0), (2, 1)):
            if int(row[tb.MIRROR]) & bit:
                flipped = points.copy()
                flipped[:, axis] *= -1
                points = np.concatenate([points, flipped])
        radius += abs(row[tb.BUMP]) + 0.25 * row[tb.BLEND]
        return np.stack([points.min(0) - radius, points.max(0) + radius])

    def finish(self, frontless: bool = False) -> np.ndarray:
        """Table `[MAX_PRIMITIVES, ROW]` float32, object in [-0.5, 0.5]^3; `frontless` when its sides are
        alike to the eye, though not the same.
        """
        low = np.min([e[0] for e in self._extents], axis=0)
        high = np.max([e[1] for e in self._extents], axis=0)
        scale = CUBE_SIDE / float((high - low).max())
        origin = -(low + high) / 2 * scale
        rows = np.zeros((tb.MAX_PRIMITIVES, tb.ROW))
        rows[:, tb.KIND] = Kind.EMPTY
        for i, source in enumerate(self._rows):
            row = source.copy()
            for p in tb.LENGTHS[Kind(int(row[tb.KIND]))]:
                row[tb.PARAMS + p] *= scale
            row[[tb.BLEND, tb.BUMP]] *= scale
            row[tb.BUMP_FREQUENCY] /= scale
            if int(row[tb.PATTERN]) != Pattern.SECTORS:
                row[tb.FREQUENCY] /= scale
            row[tb.TRANSLATION : tb.TRANSLATION + 3] *= scale
            row[tb.ORIGIN : tb.ORIGIN + 3] = origin
            rows[i] = row
        rows[0, tb.FRONTLESS] = frontless
        return rows.astype(np.float32)


def _write_material(row: np.ndarray, m: Material) -> None:
    row[tb.BASE : tb.BASE + 3] = m.base
    row[tb.METALLIC], row[tb.ROUGHNESS], row[tb.PATTERN] = m.metallic, m.roughness, m.pattern
    row[tb.SECOND : tb.SECOND + 3] = m.second
    row[tb.SECOND_METALLIC], row[tb.SECOND_ROUGHNESS] = m.second_metallic, m.second_roughness
    row[tb.FREQUENCY], row[tb.PHASE] = m.frequency, m.phase
