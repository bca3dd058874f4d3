"""What a rasteriser returns, and how vertex attributes reach its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from o_voxel.errors import ArgumentError, MeshError

# One more and the dimensions no longer fit the 32-bit pixel index of the kernels.
MAX_PIXELS = 2**31 - 1


@dataclass(frozen=True)
class Fragments:
    """The triangle seen at each pixel centre.

    face_id: [H, W] int32, -1 where no triangle is. barycentric: [H, W, 2] float32, the perspective-correct
    weights of corners 0 and 1 (corner 2 has the rest), 0 where empty. depth: [H, W] float32, z/w in [-1, 1],
    1 where empty; in texture space 0 where a triangle covers the texel centre, and otherwise the distance in
    texels from the centre to the triangle that was taken.
    """

    face_id: torch.Tensor
    barycentric: torch.Tensor
    depth: torch.Tensor

    @property
    def mask(self) -> torch.Tensor:
        """[H, W] bool, True where a triangle is."""
        return self.face_id >= 0

    @classmethod
    def unwritten(cls, height: int, width: int, device: torch.device) -> Fragments:
        """Memory for a kernel to write."""
        return cls(
            torch.empty((height, width), dtype=torch.int32, device=device),
            torch.empty((height, width, 2), device=device),
            torch.empty((height, width), device=device),
        )

    def flat(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same memory, a row a pixel, as kernels take it."""
        return self.face_id.view(-1), self.barycentric.view(-1, 2), self.depth.view(-1)


def interpolate(attributes: torch.Tensor, faces: torch.Tensor, fragments: Fragments) -> torch.Tensor:
    """Vertex attributes at each pixel.

    attributes [V, C] float, faces [F, 3] integer; returns [H, W, C], 0 where no triangle is.
    """
    height, width = fragments.face_id.shape
    image = attributes.new_zeros((height * width, attributes.shape[1]))
    pixels = torch.nonzero(fragments.face_id.reshape(-1) >= 0).squeeze(1)  # [P]
    image[pixels] = interpolate_at(
        attributes,
        faces,
        fragments.face_id.reshape(-1)[pixels],
        fragments.barycentric.reshape(-1, 2)[pixels],
    )
    return image.reshape(height, width, -1)


def interpolate_at(
    attributes: torch.Tensor, faces: torch.Tensor, face_id: torch.Tensor, barycentric: torch.Tensor
) -> torch.Tensor:
    """Vertex attributes [V, C] at points given by face_id [P] and barycentric [P, 2]; returns [P, C]."""
    corners = faces.index_select(0, face_id)  # [P, 3]
    first, second = barycentric[:, 0:1], barycentric[:, 1:2]
    value = attributes.index_select(0, corners[:, 2]) * (1.0 - first - second)
    value.addcmul_(attributes.index_select(0, corners[:, 0]), first)
    value.addcmul_(attributes.index_select(0, corners[:, 1]), second)
    return value


def check_faces(faces: torch.Tensor, vertices: int, device: torch.device) -> torch.Tensor:
    """Contiguous int32 faces on `device`; raises MeshError for a wrong shape or indices out of range."""
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.is_floating_point():
        raise MeshError(f"faces must be integers [F, 3], got {faces.dtype} {list(faces.shape)}")
    if faces.shape[0]:
        low, high = (int(x) for x in torch.aminmax(faces))
        if low < 0 or high >= vertices:
            raise MeshError(f"faces name vertices {low}..{high}, but there are {vertices} vertices")
    return faces.to(device=device, dtype=torch.int32).contiguous()


def check_resolution(resolution: tuple[int, int]) -> tuple[int, int]:
    """(height, width) as ints; raises ArgumentError when not positive or too large to index."""
    height, width = (int(x) for x in resolution)
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ArgumentError(
            f"resolution must be 1x1 to {MAX_PIXELS} pixels, got {height}x{width}: ask for a smaller picture"
        )
    return height, width
