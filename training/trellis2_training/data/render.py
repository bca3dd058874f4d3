"""Conditioning pictures of primitive tables by sphere tracing, on the tables' device, with dense maps for
supervision.

Frame: Z up; the camera looks at the origin from the upper front hemisphere (front = -y). Light is linear, a
sun with
a soft shadow, a fill light and a sky gradient with two bright panels that glossy and metallic surfaces
reflect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from trellis2.conditioning.upright import UprightCamera

from .. import world
from ..world.distance import _use_triton

_HIT = 4e-4
_HALF_CUBE = 0.505
_STEPS_BETWEEN_PACKINGS = 6
_NEARLY = 10 * _HIT  # a ray that runs out of steps this close to a surface has hit it, else it has missed


@dataclass(frozen=True)
class View:
    """Cameras of a batch: position and axes (right, up, forward) `[B, 3]`, tangent of half the field of view
    `[B]`,
    and the window of the picture plane to draw: centre `[B, 2]` and half size `[B]` in units where the frame
    is +-1."""

    position: Tensor
    right: Tensor
    up: Tensor
    forward: Tensor
    tangent: Tensor
    centre: Tensor
    half: Tensor


@dataclass(frozen=True)
class Lights:
    """Light of a batch; colours linear, directions towards the light."""

    sun: Tensor  # [B, 3] unit
    sun_colour: Tensor  # [B, 3]
    fill: Tensor  # [B, 3] unit
    fill_colour: Tensor  # [B, 3]
    sky: Tensor  # [B, 3]
    ground: Tensor  # [B, 3]
    filmic: Tensor  # [B] 0 or 1
    hardness: Tensor | None = None  # [B] of the sun's shadow, 12 when not given: larger is harder


@dataclass(frozen=True)
class Picture:
    """Pictures `[B, *, S, S]`, premultiplied by the mask (black background), and the maps under them."""

    rgb: Tensor  # [B, 3, S, S] 0..1
    mask: Tensor  # [B, 1, S, S] 0..1
    position: Tensor  # [B, 3, S, S] canonical position of the visible surface, 0 outside
    normal: Tensor  # [B, 3, S, S] world normal, 0 outside
    attributes: Tensor  # [B, 6, S, S], 0 outside


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def random_views(count: int, generator: torch.Generator, device: torch.device | str = "cpu") -> View:
    """Cameras with yaw within 60 degrees of the front, pitch 0..50, field of view 20..50 degrees, the whole
    frame.
    """
    yaw = torch.deg2rad(_uniform(generator, -60, 60, count))
    pitch = torch.deg2rad(_uniform(generator, 0, 50, count))
    fov = torch.deg2rad(_uniform(generator, 20, 50, count))
    return camera(yaw, pitch, fov, device)


def camera(yaw: Tensor, pitch: Tensor, fov: Tensor, device: torch.device | str = "cpu") -> View:
    """Cameras `[B]` from angles in radians, far enough to see the whole unit cube."""
    upright = UprightCamera(yaw, pitch, fov)
    position, right, up, away = upright.axes()
    window = torch.zeros(len(yaw), 2), torch.ones(len(yaw))
    return View(*(p.float().to(device) for p in (position, right, up, -away, upright.tangent, *window)))


def upright_camera(view: View) -> UprightCamera:
    """The angles of a view, without its window."""
    yaw = torch.atan2(view.right[:, 1], view.right[:, 0])
    pitch = torch.asin((-view.forward[:, 2]).clamp(-1, 1))
    return UprightCamera(yaw, pitch, 2 * torch.atan(view.tangent))


def random_lights(view: View, generator: torch.Generator) -> Lights:
    """A sun from above, beside or behind the camera, a weaker fill, and a tinted sky."""
    count, device = view.tangent.shape[0], view.tangent.device

    def direction(side: float) -> Tensor:
        weights = torch.stack(
            [
                _uniform(generator, -side, side, count),
                _uniform(generator, 0.1, 1.2, count),
                _uniform(generator, 0.3, 1.2, count),
            ]
        ).to(device)
        toward = (
            weights[0, :, None] * view.right
            + weights[1, :, None] * view.up
            - weights[2, :, None] * view.forward
        )
        toward[:, 2] = toward[:, 2].clamp(min=0.1)
        return F.normalize(toward, dim=-1)

    def colour(low: float, high: float, tint: float) -> Tensor:
        strength = _uniform(generator, low, high, count, 1)
        return (strength * (1 + _uniform(generator, -tint, tint, count, 3))).to(device)

    sky = colour(0.35, 0.9, 0.12)
    ground = sky * _uniform(generator, 0.3, 0.9, count, 1).to(device)
    filmic = (torch.rand(count, generator=generator) < 0.3).float().to(device)
    return Lights(
        direction(1.2), colour(0.4, 1.1, 0.1), direction(1.5), colour(0.0, 0.3, 0.15), sky, ground, filmic
    )


def varied_lights(view: View, generator: torch.Generator) -> Lights:
    """Half of them `random_lights`; the others a hard sun under a blue sky, a soft studio, a coloured lamp,
    or one strong light in the dark.
    """
    lights, device = random_lights(view, generator), view.tangent.device
    count = len(view.tangent)
    kind = torch.randint(8, (count,), generator=generator)  # from 4 on the usual ones
    # By kind: factors of sun, fill and sky, hardness of the shadow.
    table = torch.tensor(
        [[1.7, 0.5, 0.6, 60], [0.35, 1.6, 1.25, 5], [1.0, 1.5, 0.8, 20], [1.9, 0.3, 0.35, 30]]
    )
    table = torch.cat([table, torch.tensor([1.0, 1.0, 1.0, 12.0]).expand(4, 4)])[kind]
    tints = torch.rand((count, 2, 3), generator=generator)
    tints = tints / tints.amax(2, keepdim=True)
    coloured = (kind == 2).float()[:, None, None] * torch.tensor([0.25, 0.6]).view(1, 2, 1)
    tints = 1 - coloured * (1 - tints)
    blue = 1 - (kind == 0).float()[:, None] * torch.tensor([0.25, 0.08, -0.1])
    sun, fill, sky = (table[:, i, None] for i in range(3))
    factors = torch.stack([sun * tints[:, 0], fill * tints[:, 1], sky * blue, sky.expand(-1, 3)]).to(device)
    return replace(
        lights,
        sun_colour=lights.sun_colour * factors[0],
        fill_colour=lights.fill_colour * factors[1],
        sky=lights.sky * factors[2],
        ground=lights.ground * factors[3],
        hardness=table[:, 3].to(device),
    )


def rays(view: View, size: int) -> tuple[Tensor, Tensor]:
    """Origins and unit directions `[B, S*S, 3]` through pixel centres, rows from the top."""
    axis = (torch.arange(size, device=view.half.device) + 0.5) / size * 2 - 1
    x = (view.centre[:, 0, None] + view.half[:, None] * axis) * view.tangent[:, None]  # [B, S]
    y = (view.centre[:, 1, None] - view.half[:, None] * axis) * view.tangent[:, None]
    across = x[:, None, :, None] * view.right[:, None, None]
    along = y[:, :, None, None] * view.up[:, None, None]
    directions = F.normalize((across + along + view.forward[:, None, None]).flatten(1, 2), dim=-1)
    return view.position[:, None].expand_as(directions), directions


def trace(
    tables: Tensor,
    origins: Tensor,
    directions: Tensor,
    start: Tensor,
    reach: Tensor,
    steps: int,
    relax: float = 0.95,
) -> tuple[Tensor, Tensor]:
    """March rays `[B, N, 3]` from parameter `start` until a hit or `reach` (both `[B, N]`).

    Returns the final parameter (>= reach on a miss) and the least ratio distance / parameter met on the way.
    """
    if _use_triton(origins):
        from ..world.triton_distance import trace_triton

        return trace_triton(tables, origins, directions, start, reach, steps, relax, _HIT, _NEARLY)
    t, least, last = start.clone(), torch.full_like(start, 1e3), torch.zeros_like(start)
    marching = t < reach
    done = 0
    while done < steps:
        rows = _packed(marching)
        if rows is None:
            break
        some_t, some_least, some_reach = t.gather(1, rows), least.gather(1, rows), reach.gather(1, rows)
        index = rows[..., None].expand(-1, -1, 3)
        some_origins, some_directions = origins.gather(1, index), directions.gather(1, index)
        active = marching.gather(1, rows)
        some_last = last.gather(1, rows)
        for _ in range(_STEPS_BETWEEN_PACKINGS):
            d, _ = world.distance(tables, some_origins + some_t[..., None] * some_directions)
            some_least = torch.where(
                active, torch.minimum(some_least, d / some_t.clamp(min=1e-3)), some_least
            )
            some_last = torch.where(active, d, some_last)
            active = active & (d >= _HIT)
            some_t = torch.where(active, some_t + d * relax, some_t)
            active = active & (some_t < some_reach)
        t.scatter_(1, rows, some_t)
        least.scatter_(1, rows, some_least)
        last.scatter_(1, rows, some_last)
        marching.scatter_(1, rows, active)
        done += _STEPS_BETWEEN_PACKINGS
    return torch.where(marching & (last >= _NEARLY), reach, t), least


def _packed(mask: Tensor) -> Tensor | None:
    """Indices `[B, M]` with each row's true entries first, M the largest count; None when nothing is true."""
    longest = int(mask.sum(1).max()) if mask.numel() else 0
    if longest == 0:
        return None
    return mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :longest]


def _through_cube(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    safe = torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    one, two = (-_HALF_CUBE - origins) / safe, (_HALF_CUBE - origins) / safe
    return torch.minimum(one, two).amax(-1).clamp(min=0), torch.maximum(one, two).amin(-1)


def crop_view(tables: Tensor, view: View, size: int = 128) -> View:
    """The view whose window is the object's tight square, as the pipeline crops it."""
    origins, directions = rays(view, size)
    start, reach = _through_cube(origins, directions)
    t, _ = trace(tables, origins, directions, start, reach, 48)
    hit = (t < reach).view(-1, size, size)
    axis = (torch.arange(size, device=hit.device) + 0.5) / size * 2 - 1
    lows, highs = [], []
    for seen, sign in ((hit.any(1), 1.0), (hit.any(2), -1.0)):
        place = sign * axis
        lows.append(torch.where(seen, place, torch.full_like(place, 9.0)).amin(-1))
        highs.append(torch.where(seen, place, torch.full_like(place, -9.0)).amax(-1))
    # Half a pixel outwards: the silhouette lies between the last pixel seen and the next.
    low, high = torch.stack(lows, -1) - 1 / size, torch.stack(highs, -1) + 1 / size
    half = ((high - low).amax(-1) / 2).clamp(0.02, 1.0)
    return View(view.position, view.right, view.up, view.forward, view.tangent, (low + high) / 2, half)


def jittered(view: View, generator: torch.Generator, shift: float = 0.02, grow: float = 0.05) -> View:
    """The window moved and grown a little, as imperfect mattes do."""
    count, device = view.half.shape[0], view.half.device
    half = view.half * _uniform(generator, 1 - shift, 1 + grow, count).to(device)
    centre = view.centre + half[:, None] * _uniform(generator, -shift, shift, count, 2).to(device)
    return View(view.position, view.right, view.up, view.forward, view.tangent, centre, half)


def _environment(direction: Tensor, roughness: Tensor, lights: Lights) -> Tensor:
    """Light from a direction `[B, N, 3]`, blurred by roughness `[B, N, 1]`."""
    up = direction[..., 2:3]
    blend = (0.5 + up / (0.3 + 1.4 * roughness)).clamp(0, 1)
    light = lights.ground[:, None] * 0.6 + blend * (lights.sky[:, None] * 1.1 - lights.ground[:, None] * 0.6)
    sharp = 2.0 / (roughness * roughness + 0.02)
    for toward, colour in ((lights.sun, lights.sun_colour), (lights.fill, lights.fill_colour)):
        panel = torch.exp(sharp * ((direction * toward[:, None]).sum(-1, keepdim=True) - 1))
        light = light + panel * colour[:, None] * (1.2 / (0.35 + roughness))
    return light


def shade(
    tables: Tensor,
    point: Tensor,
    normal: Tensor,
    eye: Tensor,
    attributes: Tensor,
    lights: Lights,
    shadows: bool = True,
) -> Tensor:
    """Outgoing light `[B, N, 3]` as display values 0..1; `eye` is the unit direction towards the camera."""
    base = attributes[..., :3].clamp(0, 1) ** 2.2
    metallic, roughness = attributes[..., 3:4], attributes[..., 4:5]
    occlusion = torch.zeros_like(metallic)
    for height in (0.03, 0.08, 0.18):
        free, _ = world.distance(tables, point + height * normal)
        occlusion = occlusion + ((height - free) / height).clamp(0, 1)[..., None]
    ambient = 1 - 0.28 * occlusion
    visible = torch.ones_like(metallic)
    if shadows:
        origin = point + 0.006 * normal
        toward = lights.sun[:, None].expand_as(point).contiguous()
        start = torch.full(point.shape[:2], 0.004, device=point.device)
        reach = torch.where(
            (normal * toward).sum(-1) > 0, torch.full_like(start, 1.2), torch.zeros_like(start)
        )
        t, least = trace(tables, origin, toward, start, reach, 32)
        hardness = 12 if lights.hardness is None else lights.hardness[:, None]
        soft = (least * hardness).clamp(0, 1)
        visible = torch.where(t < reach, torch.zeros_like(soft), soft)[..., None]
        visible = torch.where((reach > 0)[..., None], visible, torch.zeros_like(visible))
    up = 0.5 + 0.5 * normal[..., 2:3]
    irradiance = (lights.ground[:, None] + up * (lights.sky - lights.ground)[:, None]) * ambient
    facing_sun = (normal * lights.sun[:, None]).sum(-1, keepdim=True).clamp(min=0) * visible
    facing_fill = (normal * lights.fill[:, None]).sum(-1, keepdim=True).clamp(min=0)
    irradiance = (
        irradiance + facing_sun * lights.sun_colour[:, None] + facing_fill * lights.fill_colour[:, None]
    )
    facing = (normal * eye).sum(-1, keepdim=True).clamp(0, 1)
    mirror = 2 * facing * normal - eye
    tone = 0.04 * (1 - metallic) + base * metallic
    fresnel = tone + (torch.maximum(1 - roughness, tone) - tone) * (1 - facing) ** 5
    light = base * (1 - metallic) * irradiance + fresnel * _environment(mirror, roughness, lights) * ambient
    curve = light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14)
    light = torch.where(lights.filmic[:, None, None] > 0, curve, light)
    return light.clamp(0, 1) ** (1 / 2.2)


def render(
    tables: Tensor,
    view: View,
    lights: Lights,
    size: int,
    supersample: int = 1,
    shadows: bool = True,
    steps: int = 72,
) -> Picture:
    """Draw a batch; maps are averaged over samples with the mask as weight, so they stay exact inside the
    object.
    """
    full = size * supersample
    origins, directions = rays(view, full)
    start, reach = _through_cube(origins, directions)
    t, _ = trace(tables, origins, directions, start, reach, steps)
    hit = t < reach
    rows = _packed(hit)
    if rows is None:
        rows = torch.zeros((len(tables), 1), dtype=torch.int64, device=t.device)
    index = rows[..., None].expand(-1, -1, 3)
    point = origins.gather(1, index) + t.gather(1, rows)[..., None] * directions.gather(1, index)
    _, shown = world.distance(tables, point)
    normal = F.normalize(world.normals(tables, point), dim=-1)
    attributes = world.attributes(tables, point, shown)
    colour = shade(tables, point, normal, -directions.gather(1, index), attributes, lights, shadows)
    seen = hit.gather(1, rows)[..., None]

    def spread(values: Tensor) -> Tensor:
        out = values.new_zeros(*t.shape, values.shape[-1])
        return out.scatter_(1, rows[..., None].expand_as(values), values * seen)

    def image(values: Tensor) -> Tensor:
        values = values.transpose(1, 2).unflatten(2, (full, full))
        return F.avg_pool2d(values, supersample) if supersample > 1 else values

    mask = image(hit[..., None].to(t.dtype))
    weight = mask.clamp(min=1e-6)
    maps = [image(spread(values)) for values in (colour, point, normal, attributes)]
    return Picture(maps[0], mask, maps[1] / weight, maps[2] / weight, maps[3] / weight)
