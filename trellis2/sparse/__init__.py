"""Sparse voxel tensors and the layers that work on them.

Lives here: `SparseTensor`, the 3x3x3 submanifold convolution, spatial-to-channel and back. Imports torch,
`trellis2.errors`, `trellis2.backends` and the precision rules of `trellis2.nn`, nothing above. Start reading
at `tensor.py`, then `neighbors.py` and `conv.py`.
"""

from __future__ import annotations

from .conv import SparseConv3d
from .neighbors import neighbor_table, neighbor_table_of
from .resample import SparseChannel2Spatial, SparseSpatial2Channel
from .tensor import SparseTensor, sparse_cat

__all__ = [
    "SparseChannel2Spatial",
    "SparseConv3d",
    "SparseSpatial2Channel",
    "SparseTensor",
    "neighbor_table",
    "neighbor_table_of",
    "sparse_cat",
]
