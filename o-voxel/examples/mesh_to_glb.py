"""A mesh file through the dual grid to a GLB: python mesh_to_glb.py model.obj out.glb [--resolution 256].

Colours come from the position, so that any mesh will do.
"""

from __future__ import annotations

import argparse

import torch
import trimesh
from o_voxel.convert import flexible_dual_grid_to_mesh, mesh_to_flexible_dual_grid
from o_voxel.postprocess import to_glb

BOX = [[-0.5] * 3, [0.5] * 3]
LAYOUT = {"base_color": slice(0, 3), "metallic": slice(3, 4), "roughness": slice(4, 5), "alpha": slice(5, 6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mesh")
    parser.add_argument("output", help=".glb, .obj, .stl or .ply")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--faces", type=int, default=50_000)
    parser.add_argument("--texture-size", type=int, default=1024)
    options = parser.parse_args()

    loaded = trimesh.load(options.mesh, force="mesh")
    vertices = torch.tensor(loaded.vertices, dtype=torch.float32)
    low, high = vertices.amin(dim=0), vertices.amax(dim=0)
    vertices = (vertices - (low + high) / 2) * (0.99 / float((high - low).max()))
    faces = torch.tensor(loaded.faces, dtype=torch.int32)

    resolution = options.resolution
    coords, dual, flags = mesh_to_flexible_dual_grid(vertices, faces, grid_size=resolution, aabb=BOX)
    dense = flexible_dual_grid_to_mesh(
        coords, dual * resolution - coords, flags, None, BOX, grid_size=resolution
    )
    rest = torch.tensor([0.0, 0.6, 1.0]).expand(len(coords), 3)
    attributes = torch.cat([(coords + 0.5) / resolution, rest], dim=1)
    asset = to_glb(
        *dense,
        attributes,
        coords,
        LAYOUT,
        BOX,
        grid_size=resolution,
        decimation_target=options.faces,
        texture_size=options.texture_size,
        normal_map=True,
        progress=lambda step, index, count: print(f"{index + 1}/{count} {step}"),
    )
    asset.export(options.output)
    print(asset.report.summary())


if __name__ == "__main__":
    main()
