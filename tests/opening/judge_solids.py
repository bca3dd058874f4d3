"""`python judge_solids.py FILE...` under a Python that has trimesh, manifold3d and pymeshlab.

Each STL or 3MF is judged by all three: whether it is one closed, manifold, outward solid, and its volume. One
JSON line a file; the exit code is 1 when one of them disagrees, or volumes differ by more than a thousandth.

    python -m venv judges && judges/bin/pip install trimesh lxml networkx manifold3d pymeshlab
    judges/bin/python tests/opening/judge_solids.py prints/*.stl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import manifold3d
import numpy as np
import pymeshlab
import trimesh

Verdict = tuple[bool, float]
"""Whether the file holds a closed solid, and its volume."""


def by_trimesh(mesh: trimesh.Trimesh) -> Verdict:
    return bool(mesh.is_volume), float(mesh.volume)


def by_manifold3d(mesh: trimesh.Trimesh) -> Verdict:
    body = manifold3d.Manifold(
        manifold3d.Mesh(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.uint32))
    )
    sound = body.status() == manifold3d.Error.NoError and not body.is_empty()
    return sound, float(body.volume())


def by_pymeshlab(mesh: trimesh.Trimesh) -> Verdict:
    meshes = pymeshlab.MeshSet()
    meshes.add_mesh(pymeshlab.Mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces)))
    found = meshes.get_topological_measures()
    sound = found["is_mesh_two_manifold"] and found["boundary_edges"] == 0
    return bool(sound), float(meshes.get_geometric_measures()["mesh_volume"])


JUDGES = {"trimesh": by_trimesh, "manifold3d": by_manifold3d, "pymeshlab": by_pymeshlab}


def judged(path: str) -> dict[str, object]:
    mesh = trimesh.load(path, force="mesh", process=True)
    verdicts = {name: judge(mesh) for name, judge in JUDGES.items()}
    volumes = [volume for _, volume in verdicts.values()]
    agree = all(sound for sound, _ in verdicts.values()) and max(volumes) <= 1.001 * min(volumes)
    found = {name: [sound, round(volume, 1)] for name, (sound, volume) in verdicts.items()}
    return {"file": Path(path).name, "agree": agree, "faces": len(mesh.faces)} | found


def main() -> int:
    results = [judged(path) for path in sys.argv[1:]]
    for result in results:
        print(json.dumps(result), flush=True)
    return int(not all(result["agree"] for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
