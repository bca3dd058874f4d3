"""TRELLIS.2: image to MeshWithVoxel to pictures. Imports `o_voxel`; never touches a GPU at import.

Start reading in `pipelines/image_to_3d.py`.
"""
