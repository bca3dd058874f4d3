"""What a lit pixel looks like: shading normals, the light model, ambient occlusion, tone mapping.

Each step is written in torch and as a Warp kernel that does the same. Start reading in `model`.
"""
