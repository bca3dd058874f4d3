"""A decoded asset to a file that opens everywhere: `to_glb` and the steps it is made of.

Imports the rest of `o_voxel`; heavy packages (trimesh, Pillow, scipy) load inside the calls that need them.
Start reading in `pipeline`: one call a step.
"""

from __future__ import annotations

from .asset import FILE_TYPES, GlbAsset, check_file_type
from .material import ALPHA_MODES, Material
from .pipeline import MOST_WALL, STEPS, to_glb
from .repaired import repaired
from .report import MeshReport, StepTimes, Topology, topology
from .textures.encode import TEXTURE_FORMATS

__all__ = [
    "ALPHA_MODES",
    "FILE_TYPES",
    "MOST_WALL",
    "STEPS",
    "TEXTURE_FORMATS",
    "GlbAsset",
    "Material",
    "MeshReport",
    "StepTimes",
    "Topology",
    "check_file_type",
    "repaired",
    "to_glb",
    "topology",
]
