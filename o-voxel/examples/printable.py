"""Make any mesh printable, one closed outer skin: python printable.py model.glb out.stl --size 80 (mm)."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import trimesh
from o_voxel.mesh.rebuild.remesh import outer_shell
from o_voxel.mesh.simplification.simplify import simplify
from o_voxel.postprocess import topology
from o_voxel.postprocess.writers.plain import write_stl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mesh")
    parser.add_argument("output")
    parser.add_argument("--size", type=float, default=80.0, help="longest side in mm")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--faces", type=int, default=200_000)
    options = parser.parse_args()

    loaded = trimesh.load(options.mesh, force="mesh")
    vertices = torch.tensor(loaded.vertices, dtype=torch.float32)
    shell = outer_shell(vertices, torch.tensor(loaded.faces, dtype=torch.int32), options.resolution)
    points, faces = (part.numpy() for part in simplify(*shell, options.faces))
    scale = options.size / float((points.max(axis=0) - points.min(axis=0)).max())
    Path(options.output).write_bytes(write_stl(points * scale, faces))
    found = topology(points, faces)
    print(f"{len(faces)} faces, {found.components} part(s), watertight: {found.watertight}")


if __name__ == "__main__":
    main()
