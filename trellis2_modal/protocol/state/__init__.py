"""The state that a client keeps of a generation: mesh and attribute voxels in a few MB, without pickle.

numpy, lz4 and safetensors only. `mesh_state` says what a state is, `container` how bytes are framed and
bounded, `codec` how arrays become small and come back, `topology` how faces become voxel flags.
"""

from __future__ import annotations

from .codec import FORMAT, VERSION, pack_state, peek_state, unpack_state
from .container import compress_state, decompress_state
from .mesh_state import MeshState

__all__ = [
    "FORMAT",
    "VERSION",
    "MeshState",
    "compress_state",
    "decompress_state",
    "pack_state",
    "peek_state",
    "unpack_state",
]
