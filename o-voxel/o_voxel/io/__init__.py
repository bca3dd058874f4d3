"""Voxel files: npz, ply and vxz, read and written as coordinates and named attributes.

Imports `o_voxel.errors` and `o_voxel.serialize` only; parsers check every declared size before they use it.
Start reading in `suffixes`, then `vxz`.
"""

from .npz import read_npz, write_npz
from .ply import read_ply, write_ply
from .suffixes import read, write
from .vxz import read_vxz, read_vxz_info, write_vxz

__all__ = [
    "read",
    "read_npz",
    "read_ply",
    "read_vxz",
    "read_vxz_info",
    "write",
    "write_npz",
    "write_ply",
    "write_vxz",
]
