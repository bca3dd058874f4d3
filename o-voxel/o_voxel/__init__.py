"""Geometry: voxels, meshes, GLB. Imports neither `trellis2` nor `trellis2_modal`; no GPU at import.

Start reading in `postprocess` (to_glb) or `convert` (mesh to dual grid and back).
"""

__version__ = "0.1.0"
