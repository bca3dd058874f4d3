"""The same operations by the cumesh package (CUDA only), where it is installed; imported on first use only.

A CUDA error inside cumesh leaves the process unusable: a worker that sees one should end.
"""

from __future__ import annotations

from typing import Any

import torch

from ..backends import pick
from .arrays.edges import half_edges

Arrays = tuple[torch.Tensor, torch.Tensor]


def selected(device: torch.device) -> bool:
    """Whether operations on this device go to cumesh (`MESH_BACKEND`). Raises BackendError, ArgumentError."""
    return pick("mesh", device).backend == "cumesh"


def _load(vertices: torch.Tensor, faces: torch.Tensor) -> Any:
    import cumesh

    mesh = cumesh.CuMesh()
    mesh.init(vertices.contiguous(), faces.int().contiguous())
    return mesh


def fill_holes(vertices: torch.Tensor, faces: torch.Tensor, max_perimeter: float) -> Arrays:
    """As `holes.fill_holes`. cumesh winds new faces by vertex number; here they turn to match their rim."""
    mesh = _load(vertices, faces)
    mesh.fill_holes(max_hole_perimeter=max_perimeter)
    filled_vertices, filled = mesh.read()
    old, new = filled[: len(faces)], filled[len(faces) :]
    start, end = half_edges(old)
    taken = start * len(filled_vertices) + end
    same_way = torch.isin(new[:, 0].long() * len(filled_vertices) + new[:, 1].long(), taken)
    new = torch.where(same_way[:, None], new[:, [1, 0, 2]], new)
    return filled_vertices, torch.cat([old, new]).int()


def simplify(vertices: torch.Tensor, faces: torch.Tensor, target_faces: int) -> Arrays:
    """As `simplify.simplify` by parallel collapse; the last step may go a few percent below the target."""
    mesh = _load(vertices, faces)
    mesh.simplify(target_faces, verbose=False)
    fewer_vertices, fewer = mesh.read()
    return fewer_vertices, fewer.int()


def remesh_narrow_band(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    center: torch.Tensor,
    scale: float,
    resolution: int,
    band: float,
    project_back: float,
) -> Arrays:
    """As `remesh.remesh_narrow_band`, the double shell. Its tree refuses meshes of 8 triangles or fewer."""
    import cumesh

    shell_vertices, shell = cumesh.remeshing.remesh_narrow_band_dc(
        vertices.contiguous(),
        faces.int().contiguous(),
        center=center,
        scale=scale,
        resolution=resolution,
        band=band,
        project_back=project_back,
        verbose=False,
    )
    return shell_vertices, shell.int()
