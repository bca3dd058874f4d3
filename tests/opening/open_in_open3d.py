"""Run by tests.opening inside open3d's environment: FILE; one JSON line."""

import json
import sys

import numpy as np
import open3d as o3d

textures = 0
if sys.argv[1].endswith((".ply", ".stl")):
    meshes = [o3d.io.read_triangle_mesh(sys.argv[1])]
else:
    model = o3d.io.read_triangle_model(sys.argv[1])
    meshes = [part.mesh for part in model.meshes]
    for material in model.materials:
        maps = ("albedo_img", "normal_img", "ao_rough_metal_img", "roughness_img", "metallic_img")
        images = [getattr(material, name) for name in maps]
        textures += sum(image is not None and not image.is_empty() for image in images)
faces = sum(len(mesh.triangles) for mesh in meshes)
points = [np.asarray(mesh.vertices) for mesh in meshes]
size = np.ptp(np.concatenate(points), axis=0).round(4).tolist()
print(json.dumps({"faces": faces, "size": size, "textures": textures}))
