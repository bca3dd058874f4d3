"""Run by tests.opening inside pymeshlab's environment: FILE; one JSON line."""

import json
import sys

import numpy as np
import pymeshlab

meshes = pymeshlab.MeshSet()
meshes.load_new_mesh(sys.argv[1])
mesh = meshes.current_mesh()
size = np.ptp(mesh.vertex_matrix(), axis=0).round(4).tolist()
if not sys.argv[1].endswith(".obj"):
    meshes.meshing_merge_close_vertices(threshold=pymeshlab.PercentageValue(0))
found = meshes.get_topological_measures()
print(
    json.dumps(
        {
            "faces": mesh.face_number(),
            "size": size,
            "textures": mesh.texture_number(),
            "open_edges": found["boundary_edges"],
            "two_manifold": found["is_mesh_two_manifold"],
        }
    )
)
