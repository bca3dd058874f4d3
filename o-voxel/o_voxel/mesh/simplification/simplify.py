"""Simplification to a face budget."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from ...errors import ArgumentError
from .. import cumesh_backend
from ..repair.cleanup import remove_duplicate_faces
from ..validation import check_mesh
from .quadric import CLOSE_ENOUGH, quadric_collapse

Method = Literal["auto", "quadric", "parallel"]

_log = logging.getLogger(__name__)


def simplify(
    vertices: torch.Tensor, faces: torch.Tensor, target_faces: int, *, method: Method = "auto"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reduce the mesh to about `target_faces` faces: at most 1 % above, where collapses can reach it.

    `quadric` (serial, on the CPU) gives the smaller error; where collapses stall, as on frayed meshes, it
    merges vertices closer than half an edge of the result. `parallel` collapses independent edges all at once
    and suits GPUs; `auto` takes `parallel` on CUDA (or cumesh, where installed) and `quadric` elsewhere. A
    mesh within the budget comes back as it is. A budget too small for the mesh's parts gives the smallest
    sound mesh that was reached, with a warning in the log. Duplicate faces that collapses leave are dropped.

    Raises:
        MeshError: invalid arrays.
        ArgumentError: a budget below 1, an unknown method.
    """
    vertices, faces = check_mesh(vertices, faces)
    if target_faces < 1:
        raise ArgumentError(f"target_faces must be 1 or more, got {target_faces}")
    if method not in ("auto", "quadric", "parallel"):
        raise ArgumentError(f"unknown method {method!r}: use auto, quadric or parallel")
    if len(faces) <= target_faces:
        return vertices, faces
    if method == "auto":
        method = "parallel" if vertices.device.type == "cuda" else "quadric"
        if cumesh_backend.selected(vertices.device):
            return remove_duplicate_faces(*cumesh_backend.simplify(vertices, faces, int(target_faces)))
    if method == "quadric":
        vertices, faces = quadric_collapse(vertices, faces, int(target_faces))
    else:
        from .collapse import parallel_collapse

        vertices, faces = parallel_collapse(vertices, faces, int(target_faces))
    vertices, faces = remove_duplicate_faces(vertices, faces)
    if len(faces) > CLOSE_ENOUGH * target_faces:
        _log.warning("simplify reached %d faces, not the %d asked for", len(faces), target_faces)
    return vertices, faces
