"""A finished asset as the bytes of a file: GLB, USDZ, OBJ, STL, PLY and 3MF, one format a module.

Arrays in, bytes out; nothing here changes a mesh. Start reading in `glb`, then `gltf_mesh`.
"""
