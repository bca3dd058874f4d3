"""Connected components of a mesh: faces joined through manifold edges."""

from __future__ import annotations

import torch

from ..arrays.edges import edge_table
from ..arrays.graph import connected_labels
from ..arrays.groups import group_sums
from ..normals import face_areas
from ..validation import check_mesh
from .cleanup import keep_faces


def face_components(faces: torch.Tensor, vertex_count: int) -> torch.Tensor:
    """Label [F] of each face's component, numbered by smallest face; only edges of multiplicity 2 connect."""
    table = edge_table(faces, vertex_count)
    return connected_labels(len(faces), torch.div(table.manifold_pairs, 3, rounding_mode="floor"))


def remove_small_components(
    vertices: torch.Tensor, faces: torch.Tensor, min_area: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Drop components whose total area is below `min_area` (mesh units squared), and vertices no longer used.

    The result may be empty. Raises MeshError on an invalid mesh.
    """
    vertices, faces = check_mesh(vertices, faces, allow_empty=True)
    if len(faces) == 0:
        return keep_faces(vertices, faces, torch.ones(0, dtype=torch.bool, device=faces.device))
    labels = face_components(faces, len(vertices))
    return keep_faces(vertices, faces, (component_areas(vertices, faces, labels) >= min_area)[labels])


def keep_largest_component(vertices: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep only the component with the largest area."""
    vertices, faces = check_mesh(vertices, faces)
    labels = face_components(faces, len(vertices))
    return keep_faces(vertices, faces, labels == component_areas(vertices, faces, labels).argmax())


def component_areas(vertices: torch.Tensor, faces: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Total area of each component, float64 [components]."""
    return group_sums(labels, face_areas(vertices, faces).double(), int(labels.max()) + 1)
