"""Order of faces and vertices in which a GPU shades each vertex about once.

Tipsify: Sander, Nehab, Barczak, "Fast Triangle Reordering for Vertex Locality and Reduced Overdraw" (2007).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import kernels
from .arrays.edges import sort_order

CACHE = 16
"""Vertices that a GPU is taken to remember; what is good for few is good for more."""


def cache_order(faces: Tensor, vertex_count: int) -> Tensor:
    """A permutation [F] int64 of faces [F, 3]: each fans on from vertices shaded just before."""
    from .vertex_cache_kernels import tipsify_kernel

    flat = faces.detach().int().reshape(-1)
    if not len(flat):
        return torch.zeros(0, dtype=torch.int64, device=faces.device)
    around = sort_order(flat)
    around = torch.div(around, 3, rounding_mode="floor").int().cpu()  # faces, grouped by vertex
    flat = flat.cpu().contiguous()
    live = torch.bincount(flat.long(), minlength=vertex_count).int()
    first = (live.cumsum(0) - live).int()
    order = torch.empty(len(flat) // 3, dtype=torch.int32)
    scratch = [
        torch.zeros(vertex_count, dtype=torch.int32),  # when each vertex entered the cache
        torch.zeros(len(order), dtype=torch.int32),  # 1 where a face is out
        torch.empty(len(flat), dtype=torch.int32),  # vertices to return to at dead ends
        torch.empty(3 * int(live.max()), dtype=torch.int32),  # where to go on
    ]
    arrays = [flat, around, first, live.clone(), live, *scratch, order]
    kernels.launch(tipsify_kernel, 1, [*arrays, CACHE], "cpu")
    return order.long().to(faces.device)


def fetch_order(faces: Tensor, vertex_count: int) -> tuple[Tensor, Tensor]:
    """Vertices [W] int64 in the order in which faces [F, 3] first name them, and the faces into these."""
    flat = faces.reshape(-1).long()
    place = torch.arange(len(flat), device=faces.device)
    first = torch.full((vertex_count,), len(flat), dtype=torch.int64, device=faces.device)
    first.scatter_reduce_(0, flat, place, "amin")
    order = torch.argsort(first)[: int((first < len(flat)).sum())]
    rank = torch.empty(vertex_count, dtype=torch.int64, device=faces.device)
    rank[order] = torch.arange(len(order), device=faces.device)
    return order, rank[flat].reshape(-1, 3).int()
