"""A mesh with texture coordinates per face corner and a material per face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..errors import InvalidArgumentError
from .materials import PbrMaterial
from .mesh import Mesh
from .voxel import PBR_ATTR_LAYOUT


class MeshWithPbrMaterial(Mesh):
    """Triangles with materials.

    material_ids: `[F]` index into `materials`. uv_coords: `[F, 3, 2]`, one pair a corner.
    Operations that change the faces would lose the mapping of corners, so they are refused.
    """

    def __init__(
        self,
        vertices: torch.Tensor,
        faces: torch.Tensor,
        material_ids: torch.Tensor,
        uv_coords: torch.Tensor,
        materials: Sequence[PbrMaterial],
        layout: Mapping[str, slice] | None = None,
    ) -> None:
        super().__init__(vertices, faces)
        count = self.faces.shape[0]
        if material_ids.shape != (count,):
            raise InvalidArgumentError(f"material_ids must be [{count}], got {list(material_ids.shape)}")
        if uv_coords.shape != (count, 3, 2):
            raise InvalidArgumentError(f"uv_coords must be [{count}, 3, 2], got {list(uv_coords.shape)}")
        if count and not 0 <= int(material_ids.min()) <= int(material_ids.max()) < len(materials):
            raise InvalidArgumentError(
                f"material_ids run from {int(material_ids.min())} to {int(material_ids.max())} "
                f"but there are {len(materials)} materials"
            )
        self.material_ids = material_ids.int()
        self.uv_coords = uv_coords.float()
        self.materials = list(materials)
        self.layout = dict(PBR_ATTR_LAYOUT if layout is None else layout)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MeshWithPbrMaterial:
        """A new mesh with its materials on `device`."""
        moved = super().to(device, non_blocking)
        moved.materials = [m.to(device, non_blocking) for m in self.materials]
        return moved

    def remove_faces(self, face_mask: torch.Tensor) -> None:
        """Keep the faces where the mask `[F]` is true, with their corners and materials."""
        keep = face_mask.bool()
        super().remove_faces(keep)
        self.material_ids = self.material_ids[keep.to(self.material_ids.device)]
        self.uv_coords = self.uv_coords[keep.to(self.uv_coords.device)]

    def fill_holes(self, max_hole_perimeter: float = 3e-2) -> None:
        raise InvalidArgumentError(
            "fill_holes would leave faces without texture coordinates; fill before texturing"
        )

    def simplify(
        self, target: int = 1_000_000, verbose: bool = False, options: dict[str, object] | None = None
    ) -> None:
        if self.faces.shape[0] > target:
            raise InvalidArgumentError(
                f"simplify from {self.faces.shape[0]} to {target} faces would lose texture coordinates; "
                "simplify before texturing"
            )
