"""Pictures of assets: environment light, PBR meshes, plain meshes, voxels; the same code on CPU and CUDA.

May import torch, `o_voxel`, `trellis2.errors` and `trellis2.representations`. Start reading in `frame.py`,
which is one view from the first triangle to the finished maps; `environment` is the light.
"""

from __future__ import annotations

from trellis2.renderers.environment.environments import default_envmap, load_envmap, read_hdr, studio
from trellis2.renderers.environment.envmap import EnvMap
from trellis2.renderers.mesh import MeshRenderer
from trellis2.renderers.pbr import PbrMeshRenderer
from trellis2.renderers.rendering import Rendering
from trellis2.renderers.voxel import VoxelRenderer

__all__ = [
    "EnvMap",
    "MeshRenderer",
    "PbrMeshRenderer",
    "Rendering",
    "VoxelRenderer",
    "default_envmap",
    "load_envmap",
    "read_hdr",
    "studio",
]
