"""A triangle mesh on a device, with the three operations that change it in place."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from ..errors import InvalidArgumentError

MeshT = TypeVar("MeshT", bound="Mesh")


class Mesh:
    """Triangles in the world frame.

    vertices: `[V, 3]`, kept as float32. faces: `[F, 3]` vertex indices, kept as int32. vertex_attrs: `[V, C]`
    or None. Raises `InvalidArgumentError` when a shape is not as said.
    """

    def __init__(
        self, vertices: torch.Tensor, faces: torch.Tensor, vertex_attrs: torch.Tensor | None = None
    ) -> None:
        if vertices.ndim != 2 or vertices.shape[1] != 3:
            raise InvalidArgumentError(f"vertices must be [V, 3], got {list(vertices.shape)}")
        if faces.ndim != 2 or faces.shape[1] != 3:
            raise InvalidArgumentError(f"faces must be [F, 3], got {list(faces.shape)}")
        if vertex_attrs is not None and vertex_attrs.shape[0] != vertices.shape[0]:
            raise InvalidArgumentError(
                f"vertex_attrs has {vertex_attrs.shape[0]} rows for {vertices.shape[0]} vertices"
            )
        self.vertices = vertices.float()
        self.faces = faces.int()
        self.vertex_attrs = vertex_attrs

    @property
    def device(self) -> torch.device:
        """The device of the vertices."""
        return self.vertices.device

    def to(self: MeshT, device: torch.device | str, non_blocking: bool = False) -> MeshT:
        """A new mesh of the same kind on `device`."""

        def move(value: Any) -> Any:
            return value.to(device, non_blocking=non_blocking) if isinstance(value, torch.Tensor) else value

        moved = object.__new__(type(self))
        moved.__dict__.update({name: move(value) for name, value in self.__dict__.items()})
        return moved

    def cuda(self: MeshT, non_blocking: bool = False) -> MeshT:
        """A new mesh on the current CUDA device."""
        return self.to("cuda", non_blocking)

    def cpu(self: MeshT) -> MeshT:
        """A new mesh in host memory."""
        return self.to("cpu")

    def fill_holes(self, max_hole_perimeter: float = 3e-2) -> None:
        """Close boundary loops shorter than the perimeter (world units) with a fan around a new vertex.

        Old vertices and faces keep their places; new ones are appended. Attributes of a new vertex are the
        mean of its loop's, that is of the vertices it is joined to.
        """
        from o_voxel.mesh import fill_holes

        old = self.vertices.shape[0]
        vertices, faces = fill_holes(self.vertices, self.faces, max_perimeter=max_hole_perimeter)
        if self.vertex_attrs is not None and vertices.shape[0] > old:
            self.vertex_attrs = torch.cat(
                [self.vertex_attrs, fan_means(self.vertex_attrs, faces, old, vertices.shape[0])]
            )
        self.vertices, self.faces = vertices.float(), faces.int()

    def simplify(
        self, target: int = 1_000_000, verbose: bool = False, options: dict[str, Any] | None = None
    ) -> None:
        """Collapse edges until about `target` faces are left; nothing happens with no more than that.

        `verbose` is accepted and prints nothing; `options` may hold `method` (see `o_voxel.mesh.simplify`).
        Vertex attributes are dropped when vertices move. Raises `InvalidArgumentError` for a target below 1.
        """
        if target < 1:
            raise InvalidArgumentError(f"simplify needs a target of at least 1 face, got {target}")
        unknown = sorted(set(options or {}) - {"method"})
        if unknown:
            raise InvalidArgumentError(f"simplify takes the option method, got {', '.join(unknown)}")
        if self.faces.shape[0] <= target:
            return
        from o_voxel.mesh import simplify

        vertices, faces = simplify(self.vertices, self.faces, target, **(options or {}))
        self.vertices, self.faces, self.vertex_attrs = vertices.float(), faces.int(), None

    def remove_faces(self, face_mask: torch.Tensor) -> None:
        """Keep the faces where the mask `[F]` is true; drop the others and the vertices that no face uses.

        The sense of the mask is the published interface's, whatever the name suggests.
        """
        if face_mask.shape != self.faces.shape[:1]:
            raise InvalidArgumentError(
                f"face_mask must be [{self.faces.shape[0]}], got {list(face_mask.shape)}"
            )
        kept = self.faces[face_mask.bool().to(self.faces.device)]
        used, faces = torch.unique(kept.long(), return_inverse=True)
        self.vertices, self.faces = self.vertices[used], faces.int()
        if self.vertex_attrs is not None:
            self.vertex_attrs = self.vertex_attrs[used]


def fan_means(attrs: torch.Tensor, faces: torch.Tensor, old: int, new: int) -> torch.Tensor:
    """Mean attributes `[new - old, C]` of the old vertices that each appended vertex shares a face with."""
    total = torch.zeros(new, attrs.shape[1], dtype=attrs.dtype, device=attrs.device)
    count = torch.zeros(new, 1, dtype=attrs.dtype, device=attrs.device)
    for hub, rim in ((i, j) for i in range(3) for j in range(3) if i != j):
        pairs = faces[(faces[:, hub] >= old) & (faces[:, rim] < old)].long()
        total.index_add_(0, pairs[:, hub], attrs[pairs[:, rim]])
        count.index_add_(0, pairs[:, hub], torch.ones_like(count[: len(pairs)]))
    return total[old:] / count[old:].clamp(min=1)
