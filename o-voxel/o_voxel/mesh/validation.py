"""The one check of mesh arrays that every entry point calls."""

from __future__ import annotations

import torch

from ..errors import MeshError


def check_mesh(
    vertices: torch.Tensor, faces: torch.Tensor, *, allow_empty: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mesh as contiguous float32 vertices [V, 3] and int32 faces [F, 3] on the vertices' device.

    Degenerate, duplicate and non-manifold faces pass: they are sound input for every operation here.

    Raises:
        MeshError: wrong shape or dtype, no vertex or face (unless `allow_empty`), a NaN or infinite
            coordinate, an index outside 0..V-1.
    """
    for name, value in (("vertices", vertices), ("faces", faces)):
        if not isinstance(value, torch.Tensor):
            raise MeshError(f"{name} must be a torch tensor, not {type(value).__name__}; use torch.as_tensor")
        if value.ndim != 2 or value.shape[1] != 3:
            raise MeshError(f"{name} must have shape [N, 3], got {list(value.shape)}")
    if not vertices.is_floating_point():
        raise MeshError(f"vertices must be floating point, got {vertices.dtype}")
    if faces.is_floating_point() or faces.is_complex() or faces.dtype == torch.bool:
        raise MeshError(f"faces must hold integers, got {faces.dtype}")
    if not allow_empty and (len(vertices) == 0 or len(faces) == 0):
        raise MeshError(f"the mesh is empty: {len(vertices)} vertices and {len(faces)} faces")
    vertices = vertices.detach().to(torch.float32).contiguous()
    finite = torch.isfinite(vertices)
    if not bool(finite.all()):
        bad = int((~finite.all(dim=1)).nonzero()[0])
        raise MeshError(f"vertex {bad} of {len(vertices)} is not finite in float32: {vertices[bad].tolist()}")
    if len(faces):
        low, high = int(faces.min()), int(faces.max())
        if low < 0 or high >= len(vertices):
            raise MeshError(
                f"face indices run from {low} to {high}, but the mesh has {len(vertices)} vertices "
                f"(valid: 0 to {len(vertices) - 1})"
            )
    return vertices, faces.detach().to(device=vertices.device, dtype=torch.int32).contiguous()
