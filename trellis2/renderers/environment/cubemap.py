"""Cube maps: directions, solid angles, seamless bilinear lookup, and latitude-longitude pictures turned into
cubes.

Faces are ordered +x, -x, +y, -y, +z, -z. On a face, s runs along columns and t down rows, both in -1..1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# For each face: the axis it looks along, and the world vectors of s and t. direction = axis + s*S + t*T.
FACE_AXES = torch.tensor(
    [
        [[1.0, 0, 0], [0, 0, -1], [0, -1, 0]],
        [[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]],
        [[0.0, 1, 0], [1, 0, 0], [0, 0, 1]],
        [[0.0, -1, 0], [1, 0, 0], [0, 0, -1]],
        [[0.0, 0, 1], [1, 0, 0], [0, -1, 0]],
        [[0.0, 0, -1], [-1, 0, 0], [0, -1, 0]],
    ]
)  # [6, 3 (axis, S, T), 3]


def face_directions(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Unit directions [6, *, 3] of the points (s, t) of every face."""
    axes = FACE_AXES.to(s.device)
    shape = (6,) + (1,) * s.ndim + (3,)
    axis, along_s, along_t = (axes[:, i].reshape(shape) for i in range(3))
    return F.normalize(axis + s[None, ..., None] * along_s + t[None, ..., None] * along_t, dim=-1)


def texel_directions(size: int, device: torch.device | None = None) -> torch.Tensor:
    """Unit directions of texel centres, [6, size, size, 3] (face, row, column)."""
    centre = (torch.arange(size, device=device) + 0.5) * 2.0 / size - 1.0
    t, s = torch.meshgrid(centre, centre, indexing="ij")
    return face_directions(s, t)


def solid_angles(size: int, device: torch.device | None = None) -> torch.Tensor:
    """Solid angle of each texel of one face, [size, size]; six faces add up to 4 pi."""
    corner = torch.linspace(-1.0, 1.0, size + 1, dtype=torch.float64, device=device)
    t, s = torch.meshgrid(corner, corner, indexing="ij")
    area = torch.atan2(s * t, torch.sqrt(s * s + t * t + 1.0))
    return (area[1:, 1:] - area[:-1, 1:] - area[1:, :-1] + area[:-1, :-1]).float()


def locate(directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Face index [P], s [P] and t [P] of directions [P, 3] (any length)."""
    x, y, z = directions.unbind(-1)
    ax, ay, az = x.abs(), y.abs(), z.abs()
    major_x = (ax >= ay) & (ax >= az)
    major_y = ~major_x & (ay >= az)
    major = torch.where(major_x, x, torch.where(major_y, y, z))
    negative = major < 0
    face = torch.where(major_x, 0, torch.where(major_y, 2, 4)) + negative.long()
    sign = torch.where(negative, -1.0, 1.0)
    scale = 1.0 / major.abs().clamp(min=1e-20)
    s = torch.where(major_x, -z * sign, torch.where(major_y, x, x * sign)) * scale
    t = torch.where(major_y, z * sign, -y) * scale
    return face, s.clamp(-1.0, 1.0), t.clamp(-1.0, 1.0)


class CubeMap:
    """Texels [6, N, N, C] with a border of one texel copied from the neighbouring faces, so lookups have no
    seams.
    """

    def __init__(self, faces: torch.Tensor) -> None:
        self.size = faces.shape[1]
        self.faces = faces
        self.padded = _pad(faces)  # [6, N + 2, N + 2, C]

    def sample(self, directions: torch.Tensor) -> torch.Tensor:
        """Bilinear lookup: directions [P, 3], returns [P, C]."""
        face, s, t = locate(directions)
        return self.sample_located(face, s, t)

    def sample_located(self, face: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Bilinear lookup at places given by `locate`."""
        width = self.size + 2
        texels = self.padded.reshape(6 * width * width, -1)
        x = (s + 1.0) * (0.5 * self.size) + 0.5  # in the padded face
        y = (t + 1.0) * (0.5 * self.size) + 0.5
        column = x.floor().clamp(0, self.size)
        row = y.floor().clamp(0, self.size)
        wx = (x - column)[:, None]
        wy = (y - row)[:, None]
        corner = face * (width * width) + row.long() * width + column.long()
        top = torch.lerp(texels.index_select(0, corner), texels.index_select(0, corner + 1), wx)
        corner = corner + width
        bottom = torch.lerp(texels.index_select(0, corner), texels.index_select(0, corner + 1), wx)
        return torch.lerp(top, bottom, wy)


def _pad(faces: torch.Tensor) -> torch.Tensor:
    """Faces with a border of the texels that lie across each edge; corners are the mean of their two
    neighbours.
    """
    n = faces.shape[1]
    padded = F.pad(faces.permute(0, 3, 1, 2), (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous()
    along = (torch.arange(n, device=faces.device) + 0.5) * 2.0 / n - 1.0
    over = torch.full_like(
        along, 1.0 + 1e-4
    )  # a hair over the edge: the nearest texel there is the neighbour
    for s, t, place in (
        (-over, along, (slice(1, -1), 0)),
        (over, along, (slice(1, -1), -1)),
        (along, -over, (0, slice(1, -1))),
        (along, over, (-1, slice(1, -1))),
    ):
        face, across_s, across_t = locate(face_directions(s, t).reshape(-1, 3))
        column = ((across_s + 1.0) * (0.5 * n)).long().clamp(0, n - 1)
        row = ((across_t + 1.0) * (0.5 * n)).long().clamp(0, n - 1)
        padded[(slice(None), place[0], place[1])] = faces[face, row, column].reshape(6, n, -1)
    for y, next_y in ((0, 1), (-1, -2)):
        for x, next_x in ((0, 1), (-1, -2)):
            padded[:, y, x] = 0.5 * (padded[:, next_y, x] + padded[:, y, next_x])
    return padded


def from_latlong(image: torch.Tensor, size: int) -> torch.Tensor:
    """Cube [6, size, size, C] from a latitude-longitude picture [H, W, C].

    Row 0 is up (+z), the centre of the picture is world -y, columns grow towards +x: u = atan2(x, -y)/2pi +
    1/2, v = arccos(z)/pi. Bilinear, wrapping around in u. (Seen from inside this mirrors the panorama, as the
    published model's pictures do.)
    """
    directions = texel_directions(size, image.device).reshape(-1, 3)
    return sample_latlong(image, directions).reshape(6, size, size, -1)


def latlong_coordinates(directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """u and v in 0..1 of unit directions [P, 3]."""
    x, y, z = directions.unbind(-1)
    return torch.atan2(x, -y) / (2.0 * math.pi) + 0.5, torch.arccos(z.clamp(-1.0, 1.0)) / math.pi


def latlong_directions(height: int, width: int) -> torch.Tensor:
    """Unit directions of the pixel centres of a latitude-longitude picture, [height, width, 3]."""
    v = (torch.arange(height) + 0.5) / height * math.pi
    u = ((torch.arange(width) + 0.5) / width - 0.5) * (2.0 * math.pi)
    v, u = torch.meshgrid(v, u, indexing="ij")
    return torch.stack([v.sin() * u.sin(), -v.sin() * u.cos(), v.cos()], -1)


def sample_latlong(image: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Bilinear lookup of a latitude-longitude picture [H, W, C] at unit directions [P, 3]."""
    height, width, channels = image.shape
    u, v = latlong_coordinates(directions)
    x, y = u * width - 0.5, v * height - 0.5
    x0, y0 = x.floor(), y.floor()
    wx, wy = (x - x0)[:, None], (y - y0)[:, None]
    columns = [(x0.long() + k) % width for k in (0, 1)]
    rows = [(y0.long() + k).clamp(0, height - 1) for k in (0, 1)]
    pixels = image.reshape(-1, channels)
    top, bottom = (
        torch.lerp(pixels[row * width + columns[0]], pixels[row * width + columns[1]], wx) for row in rows
    )
    return torch.lerp(top, bottom, wy)


def halve(faces: torch.Tensor) -> torch.Tensor:
    """The next mip level [6, N/2, N/2, C], by 2x2 boxes."""
    six, n, _, channels = faces.shape
    return faces.reshape(six, n // 2, 2, n // 2, 2, channels).mean(dim=(2, 4))
