"""The state that a client keeps of a generation: mesh and attribute voxels in a few MB, without pickle.

numpy, lz4 and safetensors only. `mesh_state` says what a state is, `container` how bytes are framed and
bounded, `header` what is checked of them, `codec` how arrays become small and come back, `topology` how faces
become voxel flags.
"""

from __future__ import annotations

from .codec import pack_state, peek_state, rounded_state, unpack_state
from .container import compress_state, decompress_state
from .header import FORMAT, VERSION
from .mesh_state import MeshState, ShapeLatents

__all__ = [
    "FORMAT",
    "VERSION",
    "MeshState",
    "ShapeLatents",
    "compress_state",
    "decompress_state",
    "pack_state",
    "peek_state",
    "rounded_state",
    "unpack_state",
]
