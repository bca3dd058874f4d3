"""The Triton twin of `distance_torch`: one program interprets one object's table for a block of points.

The same device function also traces rays (`trace_triton`), so that a whole sphere-tracing loop is one launch.
Kinds, columns and formulas are those of `table.py` and `distance.py`; the constants below must agree with
them,
which a test asserts.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import table as tb

_BLOCK = 256
ROW_LENGTH: tl.constexpr = tl.constexpr(48)
FAR_AWAY: tl.constexpr = tl.constexpr(1e3)


@triton.jit
def _atan2(y, x):
    # Polynomial arctangent (error below 2e-5 radians); core Triton has none.
    ax, ay = tl.abs(x), tl.abs(y)
    a = tl.minimum(ax, ay) / tl.maximum(tl.maximum(ax, ay), 1e-20)
    s = a * a
    r = (
        (((-0.0117212 * s + 0.05265332) * s - 0.11643287) * s + 0.19354346) * s - 0.33262347
    ) * s + 0.99997726
    r = r * a
    r = tl.where(ay > ax, 1.57079637 - r, r)
    r = tl.where(x < 0, 3.14159274 - r, r)
    return tl.where(y < 0, -r, r)


@triton.jit
def _smooth_max(a, b, r):
    h = tl.maximum(r - tl.abs(a - b), 0.0) / tl.maximum(r, 1e-9)
    return tl.maximum(a, b) + h * h * r * 0.25


@triton.jit
def _ellipsoid(x, y, z, p0, p1, p2):
    a, b, c = x / p0, y / p1, z / p2
    k0 = tl.sqrt(a * a + b * b + c * c)
    a, b, c = a / p0, b / p1, c / p2
    d = k0 * (k0 - 1) / tl.maximum(tl.sqrt(a * a + b * b + c * c), 1e-6)
    return d


@triton.jit
def _box(x, y, z, p0, p1, p2, p3):
    a, b, c = tl.abs(x) - p0 + p3, tl.abs(y) - p1 + p3, tl.abs(z) - p2 + p3
    u, v, w = tl.maximum(a, 0.0), tl.maximum(b, 0.0), tl.maximum(c, 0.0)
    d = tl.sqrt(u * u + v * v + w * w) + tl.minimum(tl.maximum(tl.maximum(a, b), c), 0.0) - p3
    return d


@triton.jit
def _cone(x, y, z, p0, p1, p2, p3):
    rho = tl.sqrt(x * x + y * y)
    r1, r2, h = tl.maximum(p0 - p3, 0.0), tl.maximum(p1 - p3, 0.0), p2 - p3
    cap_x = rho - tl.minimum(rho, tl.where(z < 0, r1, r2))
    cap_y = tl.abs(z) - h
    ex, ey = r2 - r1, 2 * h
    s = ((r2 - rho) * ex + (h - z) * ey) / (ex * ex + ey * ey)
    s = tl.minimum(tl.maximum(s, 0.0), 1.0)
    side_x, side_y = rho - r2 + ex * s, z - h + ey * s
    m = tl.sqrt(tl.minimum(cap_x * cap_x + cap_y * cap_y, side_x * side_x + side_y * side_y))
    d = tl.where((side_x < 0) & (cap_y < 0), -m, m) - p3
    return d


@triton.jit
def _torus(x, y, z, p0, p1, p2):
    rho = tl.sqrt(x * x + y * y)
    opening = x * 0.0 + p2
    sin, cos = tl.sin(opening), tl.cos(opening)
    k = tl.where(cos * tl.abs(x) > sin * y, tl.abs(x) * sin + y * cos, rho)
    d = tl.sqrt(tl.maximum(x * x + y * y + z * z + p0 * p0 - 2 * p0 * k, 0.0)) - p1
    return d


@triton.jit
def _capsule(x, y, z, p0, p1, p2):
    rho = tl.sqrt(x * x + y * y)
    b = (p0 - p1) / p2
    a = tl.sqrt(tl.maximum(1 - b * b, 1e-6))
    k = a * z - b * rho
    top = z - p2
    low = tl.sqrt(rho * rho + z * z) - p0
    high = tl.sqrt(rho * rho + top * top) - p1
    d = tl.where(k < 0, low, tl.where(k > a * p2, high, rho * a + z * b - p0))
    return d


@triton.jit
def _frustum(x, y, z, p0, p1, p2, p3, p4, p5):
    s = 0.5 - 0.5 * z / p2
    slope_x, slope_y = p0 * (1 - p3) / (2 * p2), p1 * (1 - p4) / (2 * p2)
    dx = (tl.abs(x) - p0 * (p3 + (1 - p3) * s)) / tl.sqrt(1 + slope_x * slope_x)
    dy = (tl.abs(y) - p1 * (p4 + (1 - p4) * s)) / tl.sqrt(1 + slope_y * slope_y)
    d = _smooth_max(_smooth_max(dx, dy, p5), tl.abs(z) - p2, p5)
    return d


@triton.jit
def _revolve(x, y, z, p0, p1, p2, p3, p4, p5):
    rho = tl.sqrt(x * x + y * y)
    s = tl.minimum(tl.maximum(0.5 + 0.5 * z / p4, 0.0), 1.0)
    q = 1 - s
    radius = p0 * q * q * q + 3 * p1 * q * q * s + 3 * p2 * q * s * s + p3 * s * s * s
    slope = 3 * ((p1 - p0) * q * q + 2 * (p2 - p1) * q * s + (p3 - p2) * s * s) / (2 * p4)
    a, b = (rho - radius) / tl.sqrt(1 + slope * slope), tl.abs(z) - p4
    u, v = tl.maximum(a, 0.0), tl.maximum(b, 0.0)
    d = tl.sqrt(u * u + v * v) + tl.minimum(tl.maximum(a, b), 0.0)
    hollow = tl.maximum(a + p5, p5 - p4 - z)
    d = tl.where(p5 > 0, tl.maximum(d, -hollow), d)
    return d


@triton.jit
def _prism(x, y, z, p0, p1, p2, p3, p4):
    rho = tl.sqrt(x * x + y * y)
    half = x * 0.0 + 3.14159265 / p0
    angle = _atan2(y, x)
    folded = tl.abs(angle - 2 * half * tl.floor(angle / (2 * half) + 0.5))
    a, b = rho * tl.cos(folded), rho * tl.sin(folded)
    ex, ey = p3 * tl.cos(half) - p1, p3 * tl.sin(half)
    side = ((a - p1) * ey - b * ex) / tl.sqrt(ex * ex + ey * ey)
    d = _smooth_max(side, tl.abs(z) - p2, p4)
    return d


# One function a kind: names inside the branches of one function would have to agree in type.


@triton.jit
def _primitive(kind, x, y, z, p0, p1, p2, p3, p4, p5):
    d = x * 0.0
    if kind == 0:
        d = _ellipsoid(x, y, z, p0, p1, p2)
    elif kind == 1:
        d = _box(x, y, z, p0, p1, p2, p3)
    elif kind == 2:
        d = _cone(x, y, z, p0, p1, p2, p3)
    elif kind == 3:
        d = _torus(x, y, z, p0, p1, p2)
    elif kind == 4:
        d = _capsule(x, y, z, p0, p1, p2)
    elif kind == 5:
        d = _frustum(x, y, z, p0, p1, p2, p3, p4, p5)
    elif kind == 6:
        d = _revolve(x, y, z, p0, p1, p2, p3, p4, p5)
    else:
        d = _prism(x, y, z, p0, p1, p2, p3, p4)
    return d


@triton.jit
def _scene(table, px, py, pz, ROWS: tl.constexpr):
    total = px * 0.0 + FAR_AWAY
    shown = (px * 0.0).to(tl.int32)
    for k in range(ROWS):
        row = table + k * ROW_LENGTH
        kind = tl.load(row).to(tl.int32)
        if kind >= 0:
            x, y, z = px - tl.load(row + 26), py - tl.load(row + 27), pz - tl.load(row + 28)
            mirror = tl.load(row + 3).to(tl.int32)
            x = tl.where((mirror & 1) != 0, tl.abs(x), x)
            y = tl.where((mirror & 2) != 0, tl.abs(y), y)
            count = tl.load(row + 4)
            if count > 0:
                step = 6.28318531 / count
                turn = tl.floor(_atan2(y, x) / step + 0.5) * step
                cos, sin = tl.cos(turn), tl.sin(turn)
                u = x * cos + y * sin
                y = y * cos - x * sin
                x = u
            x, y, z = x - tl.load(row + 17), y - tl.load(row + 18), z - tl.load(row + 19)
            lx = tl.load(row + 8) * x + tl.load(row + 9) * y + tl.load(row + 10) * z
            ly = tl.load(row + 11) * x + tl.load(row + 12) * y + tl.load(row + 13) * z
            lz = tl.load(row + 14) * x + tl.load(row + 15) * y + tl.load(row + 16) * z
            p0, p1, p2 = tl.load(row + 20), tl.load(row + 21), tl.load(row + 22)
            p3, p4, p5 = tl.load(row + 23), tl.load(row + 24), tl.load(row + 25)
            d = _primitive(kind, lx, ly, lz, p0, p1, p2, p3, p4, p5)
            amplitude = tl.load(row + 5)
            if amplitude != 0.0:
                f = tl.load(row + 6)
                d -= amplitude * tl.sin(lx * f) * tl.sin(ly * f) * tl.sin(lz * f)
            op = tl.load(row + 1).to(tl.int32)
            blend = tl.load(row + 2)
            sign = tl.where(op == 0, 1.0, -1.0)
            a = total * sign
            b = d * tl.where(op == 2, -1.0, 1.0)
            shown = tl.where(b < a, k, shown)
            h = tl.maximum(blend - tl.abs(a - b), 0.0) / tl.maximum(blend, 1e-9)
            total = sign * (tl.minimum(a, b) - h * h * blend * 0.25)
    return total, shown


@triton.jit
def _distance_kernel(tables, points, distances, shown, count, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    item = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = i < count
    at = item * count + i
    px = tl.load(points + at * 3, mask=valid, other=0.0)
    py = tl.load(points + at * 3 + 1, mask=valid, other=0.0)
    pz = tl.load(points + at * 3 + 2, mask=valid, other=0.0)
    d, row = _scene(tables + item * ROWS * ROW_LENGTH, px, py, pz, ROWS)
    tl.store(distances + at, d, mask=valid)
    tl.store(shown + at, row, mask=valid)


@triton.jit
def _trace_kernel(
    tables, origins, directions, starts, reaches, nearest, count, steps, relax, hit, nearly,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    item = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = i < count
    at = item * count + i
    ox = tl.load(origins + at * 3, mask=valid, other=0.0)
    oy = tl.load(origins + at * 3 + 1, mask=valid, other=0.0)
    oz = tl.load(origins + at * 3 + 2, mask=valid, other=0.0)
    dx = tl.load(directions + at * 3, mask=valid, other=0.0)
    dy = tl.load(directions + at * 3 + 1, mask=valid, other=0.0)
    dz = tl.load(directions + at * 3 + 2, mask=valid, other=0.0)
    t = tl.load(starts + at, mask=valid, other=0.0)
    reach = tl.load(reaches + at, mask=valid, other=-1.0)
    open_ray = (t < reach).to(tl.int32)
    least = t * 0.0 + FAR_AWAY
    last = t * 0.0
    active = tl.sum(open_ray, 0)
    step = active * 0
    while (step < steps) & (active > 0):
        d, _row = _scene(tables + item * ROWS * ROW_LENGTH, ox + t * dx, oy + t * dy, oz + t * dz, ROWS)
        going = open_ray != 0
        least = tl.where(going, tl.minimum(least, d / tl.maximum(t, 1e-3)), least)
        last = tl.where(going, d, last)
        t = tl.where(going & (d >= hit), t + d * relax, t)
        open_ray = (going & (d >= hit) & (t < reach)).to(tl.int32)
        active = tl.sum(open_ray, 0)
        step += 1
    t = tl.where((open_ray != 0) & (last >= nearly), reach, t)
    tl.store(starts + at, t, mask=valid)
    tl.store(nearest + at, least, mask=valid)


def distance_triton(tables: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """See `distance`; CUDA tensors (or CPU ones under Triton's interpreter)."""
    batch, count = points.shape[:2]
    tables, points = tables.contiguous().float(), points.contiguous().float()
    out = torch.empty((batch, count), device=points.device, dtype=torch.float32)
    shown = torch.empty((batch, count), device=points.device, dtype=torch.int32)
    if count:
        grid = (triton.cdiv(count, _BLOCK), batch)
        _distance_kernel[grid](tables, points, out, shown, count, ROWS=tables.shape[1], BLOCK=_BLOCK)
    return out, shown.long()


def trace_triton(
    tables: Tensor,
    origins: Tensor,
    directions: Tensor,
    start: Tensor,
    reach: Tensor,
    steps: int,
    relax: float,
    hit: float,
    nearly: float,
) -> tuple[Tensor, Tensor]:
    """See `render.trace`: `[B, N, 3]` rays from parameter `start` to `reach` -> final parameter, least d/t,
    `[B, N]`.
    """
    batch, count = start.shape
    tables = tables.contiguous().float()
    t = start.contiguous().float().clone()
    least = torch.empty_like(t)
    if count:
        grid = (triton.cdiv(count, _BLOCK), batch)
        _trace_kernel[grid](
            *(
                tables,
                origins.contiguous().float(),
                directions.contiguous().float(),
                t,
                reach.contiguous().float(),
            ),
            *(least, count, steps, relax, hit, nearly),
            ROWS=tables.shape[1],
            BLOCK=_BLOCK,
        )
    return t, least


assert ROW_LENGTH.value == tb.ROW
