"""What a renderer keeps about a mesh between frames, and the surface it finds at a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from o_voxel.raster import Fragments

from trellis2.errors import InvalidArgumentError
from trellis2.renderers.shading.normals import (
    FLAT_ABOVE,
    LEAST_COSINE,
    SMOOTH_BELOW,
    face_cross,
    vertex_normals,
)
from trellis2.representations import Mesh, MeshWithPbrMaterial, MeshWithVoxel

DENSE_EDGE = 1.5
"""Mean edge length, in voxels, up to which attributes are read once per vertex instead of once per pixel."""

CHANNELS = 6


@dataclass(frozen=True)
class Geometry:
    """Per-object tables in world space; made once, used by every frame.

    vertices [V, 3], faces [F, 3] int32, flat [F, 3] unit face normals by the winding, smooth [V, 3] (None
    when only flat normals are asked for), attrs [V, 6] of voxels at the vertices (None without voxels).
    `dense`: edges are about as short as the voxels, so the attributes of the vertices are all there is;
    otherwise they are read per pixel, and those of the vertices serve where a pixel has no voxel.
    """

    vertices: torch.Tensor
    faces: torch.Tensor
    flat: torch.Tensor
    smooth: torch.Tensor | None
    attrs: torch.Tensor | None
    dense: bool


@dataclass(frozen=True)
class PixelCamera:
    """What turns a pixel and its depth into a point: camera, picture size and clip planes."""

    extrinsics: torch.Tensor
    intrinsics: torch.Tensor
    size: int
    near: float
    far: float


@dataclass(frozen=True)
class Surface:
    """What is seen at P pixels: unit normal towards the eye and direction to it (world space, [P, 3]), camera
    z [P], and the interpolated vertex attributes [P, 6] (not written where the geometry has none).
    """

    normal: torch.Tensor
    to_eye: torch.Tensor
    depth: torch.Tensor
    attrs: torch.Tensor


def find_surface(
    geometry: Geometry, fragments: Fragments, pixels: torch.Tensor, camera: PixelCamera
) -> Surface:
    """The surface at the given flat pixel indices [P] of some fragments."""
    from o_voxel.kernels import launch, warp_module

    wp = warp_module()
    from trellis2.renderers.shading import shade_kernels

    device, count = pixels.device, pixels.shape[0]
    nothing = torch.empty((0, 3), device=device)
    smooth = nothing if geometry.smooth is None else geometry.smooth
    no_attrs = torch.empty((0, CHANNELS), device=device)
    attrs = geometry.attrs if geometry.dense and geometry.attrs is not None else no_attrs
    out = Surface(
        torch.empty((count, 3), device=device),
        torch.empty((count, 3), device=device),
        torch.empty(count, device=device),
        torch.empty((count, CHANNELS), device=device),
    )
    k = camera.intrinsics.tolist()
    inputs = [
        pixels,
        *fragments.flat(),
        geometry.faces,
        geometry.flat,
        smooth,
        attrs,
        wp.mat33(*camera.extrinsics[:3, :3].flatten().tolist()),
        wp.vec4(k[0][0], k[1][1], k[0][2], k[1][2]),
        camera.size,
        camera.near,
        camera.far,
        FLAT_ABOVE,
        SMOOTH_BELOW,
        LEAST_COSINE,
        out.normal,
        out.to_eye,
        out.depth,
        out.attrs,
    ]
    launch(shade_kernels.find_surface, count, inputs, device)
    return out


class GeometryCache:
    """The tables of the last mesh; made anew when any of its tensors or the transformation changes."""

    def __init__(self) -> None:
        self._sources: list[torch.Tensor] = []
        self._state: tuple[object, ...] = ()
        self._geometry: Geometry | None = None

    def get(self, mesh: Mesh, transformation: torch.Tensor | None, flat: bool) -> Geometry:
        """The geometry of a mesh, made again only if a tensor of it was replaced or written to since."""
        sources = [mesh.vertices, mesh.faces]
        if isinstance(mesh, MeshWithVoxel):
            sources += [mesh.coords, mesh.attrs]
        moved = None if transformation is None else tuple(transformation.flatten().tolist())
        state = (type(mesh), moved, flat, *(t._version for t in sources))
        same = len(sources) == len(self._sources) and all(
            a is b for a, b in zip(sources, self._sources, strict=True)
        )
        if self._geometry is None or not same or state != self._state:
            self._geometry = build(mesh, transformation, flat)
            self._sources, self._state = sources, state
        return self._geometry


def build(mesh: Mesh, transformation: torch.Tensor | None, flat: bool) -> Geometry:
    """Tables of a mesh; raises InvalidArgumentError for vertices that are not finite."""
    vertices = mesh.vertices.detach().float().contiguous()
    if not bool(torch.isfinite(vertices).all()):
        bad = int((~torch.isfinite(vertices)).any(1).sum())
        raise InvalidArgumentError(f"{bad} of {len(vertices)} vertices are not finite: repair the mesh first")
    attrs, dense = None, False
    if isinstance(mesh, MeshWithVoxel):
        dense = is_dense(mesh)
        attrs = vertex_attrs(mesh) if dense or not flat else None
    if transformation is not None:
        m = transformation.to(vertices)
        vertices = vertices @ m[:3, :3].T + m[:3, 3]
    return Geometry(
        vertices=vertices,
        faces=mesh.faces.int().contiguous(),
        flat=F.normalize(face_cross(vertices, mesh.faces), dim=-1),
        smooth=None if flat else vertex_normals(vertices, mesh.faces),
        attrs=attrs,
        dense=dense,
    )


def is_dense(mesh: MeshWithVoxel) -> bool:
    """Whether edges are about as short as the voxels, as the decoder makes them: then vertices carry all
    detail.
    """
    faces = mesh.faces
    if not faces.shape[0]:
        return False
    some = faces[:: max(1, faces.shape[0] // 20000)].long()
    a, b = mesh.vertices[some[:, 0]], mesh.vertices[some[:, 1]]
    return float((a - b).norm(dim=1).mean()) <= DENSE_EDGE * mesh.voxel_size


def vertex_attrs(mesh: MeshWithVoxel) -> torch.Tensor:
    """[V, 6] attributes at the vertices; a vertex without any voxel around it takes the mean of its
    neighbours.
    """
    attrs = pbr_columns(mesh, mesh.query_vertex_attrs())
    used = torch.zeros(attrs.shape[0], dtype=torch.bool, device=attrs.device)
    used[mesh.faces.reshape(-1).long()] = True
    missing = used & (attrs == 0).all(1)
    for _ in range(8):
        if not bool(missing.any()):
            break
        rows = missing[mesh.faces.long()].any(1)
        faces = mesh.faces[rows].long()
        known = (~missing).to(attrs.dtype)[:, None]
        total, count = torch.zeros_like(attrs), torch.zeros_like(known)
        for i, j in ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)):
            total.index_add_(0, faces[:, i], (attrs * known)[faces[:, j]])
            count.index_add_(0, faces[:, i], known[faces[:, j]])
        filled = missing & (count[:, 0] > 0)
        attrs[filled] = (total / count.clamp(min=1.0))[filled]
        missing = missing & ~filled
    return attrs


def pbr_columns(mesh: MeshWithVoxel | MeshWithPbrMaterial, attrs: torch.Tensor) -> torch.Tensor:
    """Columns base colour, metallic, roughness, alpha [P, 6], whatever the order of the mesh's layout."""
    names = ("base_color", "metallic", "roughness", "alpha")
    lacking = [n for n in names if n not in mesh.layout]
    if lacking:
        raise InvalidArgumentError(f"the mesh has no {', '.join(lacking)}; its layout is {list(mesh.layout)}")
    return torch.cat([attrs[:, mesh.layout[n]] for n in names], 1)
