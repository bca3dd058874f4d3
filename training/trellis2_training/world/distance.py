"""Signed distance and material of a batch of primitive tables: the portable torch evaluator, and the choice
of backend.

Distances are exact on the surface and 1-Lipschitz up to a few per cent elsewhere (ellipsoids, revolved
profiles and
bumps are first-order bounds), which is all that tracing and Hermite data need. Formulas: Inigo Quilez,
"Distance
functions" (articles/distfunctions), unless a comment says otherwise.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import torch
from torch import Tensor

from trellis2.errors import BackendError

from . import table as tb
from .table import Kind, Op, Pattern

FAR = 1e3


def distance(tables: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Signed distance (negative inside) and the index of the row whose material shows.

    Shapes: tables `[B, K, ROW]`, points `[B, N, 3]` -> `[B, N]` float32, `[B, N]` int64. On CUDA the Triton
    kernel is
    used when Triton imports; `WORLD_BACKEND=torch|triton` forces one.
    """
    if _use_triton(points):
        from .triton_distance import distance_triton

        return distance_triton(tables, points)
    return distance_torch(tables, points)


def _use_triton(points: Tensor) -> bool:
    forced = os.environ.get("WORLD_BACKEND", "")
    if forced == "torch" or (not forced and not points.is_cuda):
        return False
    try:
        import triton  # noqa: F401
    except ImportError as error:
        if forced == "triton":
            raise BackendError("WORLD_BACKEND=triton, but the package triton is not installed") from error
        return False
    return True


def distance_torch(tables: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """The portable twin of the Triton kernel; any device, same arguments and results as `distance`."""
    total = torch.full(points.shape[:2], FAR, device=points.device, dtype=points.dtype)
    shown = torch.zeros(points.shape[:2], device=points.device, dtype=torch.int64)
    kinds = tables[:, :, tb.KIND].round().to(torch.int64).cpu()
    for k in range(tables.shape[1]):
        for kind in kinds[:, k].unique().tolist():
            if kind == Kind.EMPTY:
                continue
            which = (kinds[:, k] == kind).nonzero()[:, 0].to(points.device)
            everything = which.numel() == tables.shape[0]
            rows = tables[:, k] if everything else tables[which, k]
            d = _primitive(Kind(kind), rows, _to_local(rows, points if everything else points[which]))
            if everything:
                total, shown = _join(rows, k, total, shown, d)
            else:
                joined = _join(rows, k, total[which], shown[which], d)
                total[which], shown[which] = joined
    return total, shown


def _column(rows: Tensor, index: int) -> Tensor:
    return rows[:, index, None]


def _to_local(rows: Tensor, points: Tensor) -> Tensor:
    q = points - rows[:, None, tb.ORIGIN : tb.ORIGIN + 3]
    x, y, z = q.unbind(-1)
    mirror = rows[:, tb.MIRROR].round().to(torch.int64)
    x = torch.where((mirror & 1).bool()[:, None], x.abs(), x)
    y = torch.where((mirror & 2).bool()[:, None], y.abs(), y)
    count = _column(rows, tb.RADIAL)
    if bool((count > 0).any()):
        step = 2 * math.pi / count.clamp(min=1)
        turn = torch.where(count > 0, torch.floor(torch.atan2(y, x) / step + 0.5) * step, torch.zeros_like(x))
        cos, sin = turn.cos(), turn.sin()
        x, y = x * cos + y * sin, y * cos - x * sin
    q = torch.stack([x, y, z], -1) - rows[:, None, tb.TRANSLATION : tb.TRANSLATION + 3]
    turned = rows[:, tb.ROTATION : tb.ROTATION + 9].reshape(-1, 3, 3)
    if q.shape[1] == 1:  # one point a row: millions of tiny matrix products would crawl
        return (turned[:, None] * q[:, :, None]).sum(-1)
    with torch.autocast(q.device.type, enabled=False):
        return q @ turned.transpose(1, 2)


def _join(rows: Tensor, k: int, total: Tensor, shown: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    op = _column(rows, tb.OP).round()
    blend = _column(rows, tb.BLEND)
    # min and max are one operation up to sign: subtract is -min(-total, d), intersect is -min(-total, -d).
    a = torch.where(op == Op.UNION, total, -total)
    b = torch.where(op == Op.INTERSECT, -d, d)
    shown = torch.where(b < a, torch.full_like(shown, k), shown)
    h = (blend - (a - b).abs()).clamp(min=0) / blend.clamp(min=1e-9)
    low = torch.minimum(a, b) - h * h * blend * 0.25
    return torch.where(op == Op.UNION, low, -low), shown


def _primitive(kind: Kind, rows: Tensor, p: Tensor) -> Tensor:
    d: Tensor = _SHAPES[kind](p, *(_column(rows, tb.PARAMS + i) for i in range(6)))
    amplitude, frequency = _column(rows, tb.BUMP), _column(rows, tb.BUMP_FREQUENCY)
    if bool((amplitude != 0).any()):
        waves = (
            torch.sin(p[..., 0] * frequency)
            * torch.sin(p[..., 1] * frequency)
            * torch.sin(p[..., 2] * frequency)
        )
        d = d - amplitude * waves
    return d


def _length(*parts: Tensor) -> Tensor:
    return torch.sqrt(sum((c * c for c in parts[1:]), parts[0] * parts[0]))


def _ellipsoid(p: Tensor, rx: Tensor, ry: Tensor, rz: Tensor, *_: Tensor) -> Tensor:
    x, y, z = p.unbind(-1)
    k0 = _length(x / rx, y / ry, z / rz)
    k1 = _length(x / (rx * rx), y / (ry * ry), z / (rz * rz))
    return k0 * (k0 - 1) / k1.clamp(min=1e-6)


def _box(p: Tensor, hx: Tensor, hy: Tensor, hz: Tensor, r: Tensor, *_: Tensor) -> Tensor:
    x, y, z = p[..., 0].abs() - hx + r, p[..., 1].abs() - hy + r, p[..., 2].abs() - hz + r
    outside = _length(x.clamp(min=0), y.clamp(min=0), z.clamp(min=0))
    return outside + torch.maximum(torch.maximum(x, y), z).clamp(max=0) - r


def _cone(p: Tensor, r1: Tensor, r2: Tensor, h: Tensor, r: Tensor, *_: Tensor) -> Tensor:
    r1, r2, h = (r1 - r).clamp(min=0), (r2 - r).clamp(min=0), h - r
    rho, z = _length(p[..., 0], p[..., 1]), p[..., 2]
    cap_x = rho - torch.minimum(rho, torch.where(z < 0, r1, r2))
    cap_y = z.abs() - h
    ex, ey = r2 - r1, 2 * h
    s = (((r2 - rho) * ex + (h - z) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
    side_x, side_y = rho - r2 + ex * s, z - h + ey * s
    inside = (side_x < 0) & (cap_y < 0)
    d = torch.sqrt(torch.minimum(cap_x * cap_x + cap_y * cap_y, side_x * side_x + side_y * side_y))
    return torch.where(inside, -d, d) - r


def _torus(p: Tensor, ring: Tensor, tube: Tensor, half_angle: Tensor, *_: Tensor) -> Tensor:
    x, y, z = p[..., 0].abs(), p[..., 1], p[..., 2]
    sin, cos = half_angle.sin(), half_angle.cos()
    k = torch.where(cos * x > sin * y, x * sin + y * cos, _length(x, y))
    return torch.sqrt((x * x + y * y + z * z + ring * ring - 2 * ring * k).clamp(min=0)) - tube


def _capsule(p: Tensor, r1: Tensor, r2: Tensor, h: Tensor, *_: Tensor) -> Tensor:
    rho, z = _length(p[..., 0], p[..., 1]), p[..., 2]
    b = (r1 - r2) / h
    a = torch.sqrt((1 - b * b).clamp(min=1e-6))
    k = a * z - b * rho
    side = rho * a + z * b - r1
    return torch.where(k < 0, _length(rho, z) - r1, torch.where(k > a * h, _length(rho, z - h) - r2, side))


def _smooth_max(a: Tensor, b: Tensor, r: Tensor) -> Tensor:
    h = (r - (a - b).abs()).clamp(min=0) / r.clamp(min=1e-9)
    return torch.maximum(a, b) + h * h * r * 0.25


def _frustum(p: Tensor, hx: Tensor, hy: Tensor, hz: Tensor, sx: Tensor, sy: Tensor, r: Tensor) -> Tensor:
    # Slanted slabs: distance to each pair of planes, joined by a maximum (a lower bound outside the edges).
    z = p[..., 2]
    s = 0.5 - 0.5 * z / hz
    slope_x, slope_y = hx * (1 - sx) / (2 * hz), hy * (1 - sy) / (2 * hz)
    dx = (p[..., 0].abs() - hx * (sx + (1 - sx) * s)) / torch.sqrt(1 + slope_x * slope_x)
    dy = (p[..., 1].abs() - hy * (sy + (1 - sy) * s)) / torch.sqrt(1 + slope_y * slope_y)
    return _smooth_max(_smooth_max(dx, dy, r), z.abs() - hz, r)


def _revolve(p: Tensor, r0: Tensor, r1: Tensor, r2: Tensor, r3: Tensor, h: Tensor, wall: Tensor) -> Tensor:
    rho, z = _length(p[..., 0], p[..., 1]), p[..., 2]
    s = (0.5 + 0.5 * z / h).clamp(0, 1)
    q = 1 - s
    radius = r0 * q * q * q + 3 * r1 * q * q * s + 3 * r2 * q * s * s + r3 * s * s * s
    slope = 3 * ((r1 - r0) * q * q + 2 * (r2 - r1) * q * s + (r3 - r2) * s * s) / (2 * h)
    steep = torch.rsqrt(1 + slope * slope)
    x, y = (rho - radius) * steep, z.abs() - h
    solid = _length(x.clamp(min=0), y.clamp(min=0)) + torch.maximum(x, y).clamp(max=0)
    hollow = torch.maximum(x + wall, wall - h - z)
    return torch.where(wall > 0, torch.maximum(solid, -hollow), solid)


def _prism(
    p: Tensor, corners: Tensor, outer: Tensor, h: Tensor, inner: Tensor, r: Tensor, _: Tensor
) -> Tensor:
    # Fold into half a sector; there the outline is one line from the outer corner to the inner one.
    half = math.pi / corners
    angle = torch.atan2(p[..., 1], p[..., 0])
    folded = (angle - 2 * half * torch.floor(angle / (2 * half) + 0.5)).abs()
    rho = _length(p[..., 0], p[..., 1])
    x, y = rho * folded.cos(), rho * folded.sin()
    ex, ey = inner * half.cos() - outer, inner * half.sin()
    side = ((x - outer) * ey - y * ex) * torch.rsqrt(ex * ex + ey * ey)
    return _smooth_max(side, p[..., 2].abs() - h, r)


_SHAPES: dict[Kind, Callable[..., Tensor]] = {
    Kind.ELLIPSOID: _ellipsoid,
    Kind.BOX: _box,
    Kind.CONE: _cone,
    Kind.TORUS: _torus,
    Kind.CAPSULE: _capsule,
    Kind.FRUSTUM: _frustum,
    Kind.REVOLVE: _revolve,
    Kind.PRISM: _prism,
}


def normals(tables: Tensor, points: Tensor, step: float = 5e-4) -> Tensor:
    """Unnormalised gradient of the distance `[B, N, 3]` by four samples on a tetrahedron."""
    corners = points.new_tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    gradient = torch.zeros_like(points)
    for corner in corners:
        gradient += corner * distance(tables, points + step * corner)[0][..., None]
    return gradient / (4 * step)


def _face(p: Tensor) -> Tensor:
    """1 in the eyes and the mouth of a head around the origin that looks towards -y, by direction."""
    x, y, z = torch.nn.functional.normalize(p, dim=-1).unbind(-1)
    eyes = _length(x.abs() - 0.36, z - 0.18) < 0.15
    mouth = (x.abs() < 0.32) & ((z + 0.38 - 0.5 * x * x).abs() < 0.06)
    return ((y < 0) & (eyes | mouth)).to(p.dtype)


def _bricks(q: Tensor, phase: Tensor) -> Tensor:
    """1 in the joints between bricks one unit long and half a unit high, every second row shifted."""
    row = torch.floor(2 * (q[:, 2] + phase))
    along = q[:, 0] - q[:, 1] + 0.5 * (row % 2)
    upright = 2 * (q[:, 2] + phase) - row
    return ((along - torch.floor(along) < 0.09) | (upright < 0.16)).to(q.dtype)


def _letters(q: Tensor, phase: Tensor) -> Tensor:
    """1 in the set squares of four random signs, each 3 squares wide and 5 high, that face -y."""
    column, row = torch.floor(8 * q[:, 0] + 8), torch.floor(8 * q[:, 2] + 2.5)  # 16 columns, 5 rows
    noise = torch.sin(column * 12.9898 + row * 78.233 + phase * 37.719) * 43758.5453
    on = (noise - torch.floor(noise) < 0.6) & (column % 4 != 3)
    return (on & (column >= 0) & (column < 15) & (row >= 0) & (row < 5) & (q[:, 1] < 0)).to(q.dtype)


def attributes(tables: Tensor, points: Tensor, shown: Tensor) -> Tensor:
    """Material at points `[B, N, 6]`: base colour (sRGB values), metallic, roughness, alpha, each in 0..1.

    `shown` `[B, N]` is the row index that `distance` returned there.
    """
    rows = torch.gather(tables, 1, shown[..., None].expand(-1, -1, tables.shape[-1])).flatten(0, 1)
    p = _to_local(rows, points.reshape(-1, 1, 3))[:, 0]
    frequency, phase = rows[:, tb.FREQUENCY], rows[:, tb.PHASE]
    pattern = rows[:, tb.PATTERN].round()
    rings = torch.floor(2 * (p[:, 2] * frequency + phase)) % 2
    checker = torch.floor(2 * (p * frequency[:, None] + phase[:, None])).sum(-1) % 2
    sectors = torch.floor(2 * (torch.atan2(p[:, 1], p[:, 0]) / (2 * math.pi) * frequency + phase)) % 2
    blend = (0.5 + p[:, 2] * frequency + phase).clamp(0, 1)
    swing = torch.sin(p * frequency[:, None] * 6.2832 + phase[:, None] * 6.2832).sum(-1)
    waves = (0.5 + swing).clamp(0, 1)
    tilt = rows[:, tb.TILT]
    along = p[:, 0] * tilt.cos() + p[:, 2] * tilt.sin()
    stripes = torch.floor(2 * (along * frequency + phase)) % 2
    q = p * frequency[:, None]
    cell = q + phase[:, None]
    dots = ((cell - torch.floor(cell) - 0.5).norm(dim=-1) < 0.38).to(p.dtype)
    label = (q[:, 0].abs() < 0.5) & ((q[:, 2] + phase - 0.5).abs() < 0.35) & (q[:, 1] < 0)
    bend = 0.35 * torch.sin(3.1 * q[:, 2] + 6.2832 * phase) + 0.2 * torch.sin(5.3 * q[:, 0])
    grain = (0.5 + 0.9 * torch.sin(6.2832 * (1.5 * q[:, 0] + q[:, 1] + bend))).clamp(0, 1)
    weight = torch.zeros_like(phase)
    for which, value in (
        (Pattern.RINGS, rings),
        (Pattern.CHECKER, checker),
        (Pattern.SECTORS, sectors),
        (Pattern.BLEND, blend),
        (Pattern.WAVES, waves),
        (Pattern.STRIPES, stripes),
        (Pattern.DOTS, dots),
        (Pattern.LABEL, label.to(p.dtype)),
        (Pattern.FACE, _face(p)),
        (Pattern.BRICKS, _bricks(q, phase)),
        (Pattern.GRAIN, grain),
        (Pattern.LETTERS, _letters(q, phase)),
    ):
        weight = torch.where(pattern == which, value, weight)
    first = rows[:, tb.BASE : tb.ROUGHNESS + 1]
    second = rows[:, tb.SECOND : tb.SECOND_ROUGHNESS + 1]
    mixed = first + weight[:, None] * (second - first)
    return torch.cat([mixed, torch.ones_like(mixed[:, :1])], -1).reshape(*points.shape[:2], 6)
