"""Closest-point, ray and inside queries against a triangle mesh, by Warp's bounding volume tree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from ... import kernels
from ...errors import ArgumentError
from ..normals import face_crosses
from ..validation import check_mesh

SLIVER = 3e-6
"""Faces lower than this times their longest edge are treated as that edge: Warp leaves them out of its
search.
"""


@dataclass(frozen=True)
class Closest:
    """Nearest surface points of Q queries; `face` -1 and `distance` inf where none lay within the limit."""

    distance: torch.Tensor  # [Q] float32
    face: torch.Tensor  # [Q] int64
    barycentric: torch.Tensor  # [Q, 3] float32, weights of the face's corners 0, 1, 2


@dataclass(frozen=True)
class Hits:
    """First hits of Q rays; `face` is -1 and `distance` inf for a miss."""

    distance: torch.Tensor  # [Q] float32, in lengths of the (normalised) direction
    face: torch.Tensor  # [Q] int64
    barycentric: torch.Tensor  # [Q, 3] float32


def _slivers(vertices: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Faces [S] lower than SLIVER times their longest edge, and the corner [S] where that edge starts."""
    corners = vertices[faces.long()]  # [F, 3, 3]
    longest, start = (corners.roll(-1, dims=1) - corners).square().sum(dim=2).max(dim=1)
    height = torch.linalg.vector_norm(face_crosses(vertices, faces), dim=1)
    thin = (height <= SLIVER * longest).nonzero()[:, 0]
    return thin, start[thin]


class TriangleBVH:
    """A search tree over a mesh of one or more triangles (degenerate ones allowed).

    The mesh is copied; queries may come from several threads. All lengths are in mesh units.
    Ties between equally near faces are resolved arbitrarily.
    """

    def __init__(self, vertices: torch.Tensor, faces: torch.Tensor) -> None:
        """Build over vertices [V, 3] and faces [F, 3], on the vertices' device. Raises MeshError."""
        self.vertices, self.faces = check_mesh(vertices, faces)
        self.device = self.vertices.device
        low, high = self.vertices.amin(dim=0), self.vertices.amax(dim=0)
        self._centre = (low + high) / 2
        self._radius = float(torch.linalg.vector_norm(high - low)) / 2
        self._thin, self._longest = _slivers(self.vertices, self.faces)
        self._mesh = self._build(winding=False)
        self._winding_mesh: Any = None

    def _build(self, winding: bool) -> Any:
        wp = kernels.warp_module()
        # Own copies: Warp keeps the memory, and a caller may write to its tensors.
        points, faces = self.vertices.clone(), self.faces.clone()
        if not winding and len(self._thin):
            points, faces = self._thickened(points, faces)
        corners = kernels.as_warp(points, wp.vec3)
        indices = kernels.as_warp(faces.reshape(-1))
        with kernels.current_stream(self.device):
            return wp.Mesh(points=corners, indices=indices, support_winding_number=winding)

    def _thin_edges(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Ends [S, 3] of the longest edges of slivers, given as rows of `_thin`."""
        corners = self.vertices[self.faces[self._thin[rows]].long()]  # [S, 3, 3]
        place = torch.arange(len(rows), device=self.device)
        first = self._longest[rows]
        return corners[place, first], corners[place, (first + 1) % 3]

    def _thickened(self, points: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give slivers a width that Warp does not skip, about 1e-5 of their length or 1e-6 of the mesh's
        size.
        """
        a, b = self._thin_edges(torch.arange(len(self._thin), device=self.device))
        least = 1e-6 * max(self._radius, float(self._centre.abs().max()), 1e-30)
        length = torch.linalg.vector_norm(b - a, dim=1, keepdim=True)
        unit = torch.zeros_like(a)
        unit[:, 0] = 1.0
        along = torch.where(length > least, (b - a) / length.clamp(min=least), unit)
        across = torch.linalg.cross(
            along, torch.nn.functional.one_hot(along.abs().argmin(dim=1), 3).to(along)
        )
        far = a + along * length.clamp(min=least)
        aside = a + torch.nn.functional.normalize(across, dim=1) * (1e-5 * length).clamp(min=least)
        added = torch.arange(3 * len(a), dtype=torch.int32, device=self.device).view(3, -1).T
        faces[self._thin] = added + len(points)
        return torch.cat([points, a, far, aside]), faces

    def _queries(self, points: torch.Tensor, name: str = "points") -> torch.Tensor:
        if points.ndim != 2 or points.shape[1] != 3:
            raise ArgumentError(f"{name} must have shape [Q, 3], got {list(points.shape)}")
        points = points.detach().to(self.device, torch.float32).contiguous()
        if not bool(torch.isfinite(points).all()):
            raise ArgumentError(f"{name} hold NaN or infinite coordinates")
        return points

    def _rays(self, origins: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Checked origins and unit directions, [Q, 3] each."""
        origins = self._queries(origins, "origins")
        directions = self._queries(directions, "directions")
        if origins.shape != directions.shape:
            raise ArgumentError(f"{len(origins)} origins but {len(directions)} directions")
        length = torch.linalg.vector_norm(directions, dim=1, keepdim=True)
        if bool((length == 0).any()):
            raise ArgumentError("a ray direction has length 0")
        return origins, directions / length

    def _reach(self, points: torch.Tensor) -> float:
        """A distance that no nearest point exceeds; Warp prunes with it, and refuses infinity."""
        if len(points) == 0:
            return 1.0
        far = float(torch.linalg.vector_norm(points - self._centre, dim=1).max())
        return (far + self._radius) * 1.01 + 1e-6

    def _outputs(self, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return (
            torch.empty(count, dtype=torch.float32, device=self.device),
            torch.empty(count, dtype=torch.int32, device=self.device),
            torch.empty((count, 3), dtype=torch.float32, device=self.device),
        )

    def closest(self, points: torch.Tensor, max_distance: float | torch.Tensor | None = None) -> Closest:
        """Nearest surface point of each query in points [Q, 3].

        `max_distance` (one number, or one a query: [Q]) bounds the search and makes it faster; queries with
        no surface within it get face -1 and distance inf.
        """
        from .bvh_kernels import closest_kernel

        points = self._queries(points)
        reach = self._reach(points)
        if isinstance(max_distance, torch.Tensor):
            if max_distance.shape != (len(points),):
                raise ArgumentError(
                    f"max_distance has shape {list(max_distance.shape)} for {len(points)} points"
                )
            limits = max_distance.to(self.device, torch.float32).clamp(max=reach).contiguous()
        else:
            limit = reach if max_distance is None else min(float(max_distance), reach)
            if not limit >= 0:
                raise ArgumentError(f"max_distance must be 0 or more, got {max_distance}")
            limits = torch.full((1,), limit, dtype=torch.float32, device=self.device)
        distance, face, barycentric = self._outputs(len(points))
        inputs = [self._mesh.id, points, limits, distance, face, barycentric]
        kernels.launch(closest_kernel, len(points), inputs, self.device)
        if len(self._thin):
            self._on_slivers(points, face.long(), distance, barycentric)
        return Closest(distance, face.long(), barycentric)

    def _on_slivers(
        self, points: torch.Tensor, face: torch.Tensor, distance: torch.Tensor, barycentric: torch.Tensor
    ) -> None:
        """Replace answers on thickened slivers by the nearest point of their longest edge, in place."""
        place = torch.searchsorted(self._thin, face).clamp(max=len(self._thin) - 1)
        rows = (self._thin[place] == face).nonzero()[:, 0]
        place = place[rows]
        a, b = self._thin_edges(place)
        edge, away = b - a, points[rows] - a
        share = (away * edge).sum(dim=1) / edge.square().sum(dim=1).clamp(min=torch.finfo().tiny)
        share = share.clamp(0.0, 1.0)
        first = self._longest[place]
        weights = torch.zeros((len(rows), 3), device=self.device)
        weights.scatter_(1, first[:, None], 1.0 - share[:, None])
        weights.scatter_(1, ((first + 1) % 3)[:, None], share[:, None])
        distance[rows] = torch.linalg.vector_norm(away - share[:, None] * edge, dim=1)
        barycentric[rows] = weights

    def cast(self, origins: torch.Tensor, directions: torch.Tensor, max_distance: float = math.inf) -> Hits:
        """First hit of each ray, from either side; directions [Q, 3] of any length but 0."""
        from .bvh_kernels import cast_kernel

        origins, directions = self._rays(origins, directions)
        if not max_distance >= 0:
            raise ArgumentError(f"max_distance must be 0 or more, got {max_distance}")
        distance, face, barycentric = self._outputs(len(origins))
        reach = float(min(max_distance, self._reach(origins)))
        inputs = [self._mesh.id, origins, directions, reach, distance, face, barycentric]
        kernels.launch(cast_kernel, len(origins), inputs, self.device)
        return Hits(distance, face.long(), barycentric)

    def crossings(self, origins: torch.Tensor, directions: torch.Tensor, most: int = 64) -> torch.Tensor:
        """Surfaces that each ray passes through, int [Q], up to `most`; coincident ones count once."""
        from .bvh_kernels import crossings_kernel

        origins, directions = self._rays(origins, directions)
        crossings = torch.empty(len(origins), dtype=torch.int32, device=self.device)
        step = max(1e-6 * self._radius, torch.finfo(torch.float32).tiny)
        inputs = [self._mesh.id, origins, directions, self._reach(origins), step, int(most), crossings]
        kernels.launch(crossings_kernel, len(origins), inputs, self.device)
        return crossings

    def openness(self, points: torch.Tensor, normals: torch.Tensor, rays: int = 96) -> torch.Tensor:
        """Ambient occlusion [Q] of surface points [Q, 3] with outward normals [Q, 3]: 1 where nothing of the
        mesh is in the way, 0 where everything is, weighted by the cosine to the normal.
        """
        from .bvh_kernels import openness_kernel

        points, normals = self._rays(points, normals)
        openness = torch.empty(len(points), dtype=torch.float32, device=self.device)
        offset, reach = 1e-3 * self._radius, self._reach(points)
        inputs = [self._mesh.id, points, normals, offset, reach, int(rays), openness]
        kernels.launch(openness_kernel, len(points), inputs, self.device)
        return openness

    def inside(self, points: torch.Tensor) -> torch.Tensor:
        """Bool [Q]: winding number above one half; for closed, outward-oriented meshes.

        Small holes do no harm. A fast approximation (Barill et al. 2018, Fast Winding Numbers for Soups and
        Clouds).
        """
        from .bvh_kernels import inside_kernel

        points = self._queries(points)
        if self._winding_mesh is None:
            self._winding_mesh = self._build(winding=True)
        inside = torch.empty(len(points), dtype=torch.int32, device=self.device)
        inputs = [self._winding_mesh.id, points, self._reach(points), inside]
        kernels.launch(inside_kernel, len(points), inputs, self.device)
        return inside.bool()

    def signed_distance(self, points: torch.Tensor) -> torch.Tensor:
        """Distance [Q] to the surface, negative inside (see `inside`)."""
        distance = self.closest(points).distance
        return torch.where(self.inside(points), -distance, distance)

    def points_at(self, face: torch.Tensor, barycentric: torch.Tensor) -> torch.Tensor:
        """Positions [Q, 3] of surface points given as face [Q] and weights [Q, 3]."""
        corners = self.vertices[self.faces[face].long()]  # [Q, 3, 3]
        return (corners * barycentric[:, :, None]).sum(dim=1)
