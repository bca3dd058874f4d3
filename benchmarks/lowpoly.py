"""Low budgets: our collapse beside remeshers that lay even or quad meshes: python -m benchmarks.lowpoly
[FILE].

FILE is a closed mesh that trimesh reads; without it, a ball with a box through it. Remeshers that are not
installed (pip install pyinstantmeshes pynanoinstantmeshes pyquadriflow gpytoolbox pyacvd) are left out.
Deviation is the mean and the 99th percentile of the distances both ways, in thousandths of the longest side;
`even` is the 10th percentile of the triangles' shape (1: equilateral).
"""

from __future__ import annotations

import importlib.util
import resource
import sys
from collections.abc import Callable

import numpy as np
import torch
import trimesh
from o_voxel.mesh import TriangleBVH, outer_shell, simplify
from o_voxel.mesh.quality import mesh_quality

Mesh = tuple[np.ndarray, np.ndarray]
BUDGETS = (1_000, 2_000, 5_000, 10_000)
SAMPLES = 100_000


def body(file: str | None) -> Mesh:
    if file:
        loaded = trimesh.load(file, force="mesh", process=True)
        return np.asarray(loaded.vertices, np.float32), np.asarray(loaded.faces, np.int32)
    ball, box = trimesh.creation.icosphere(5, 0.3), trimesh.creation.box((0.9, 0.2, 0.2))
    joined = trimesh.util.concatenate([ball, box])
    shell = outer_shell(
        torch.tensor(joined.vertices, dtype=torch.float32), torch.tensor(joined.faces, dtype=torch.int32), 256
    )
    return shell[0].numpy(), shell[1].numpy()


def ours(mesh: Mesh, budget: int) -> Mesh:
    made = simplify(torch.from_numpy(mesh[0]), torch.from_numpy(mesh[1]), budget)
    return made[0].numpy(), made[1].numpy()


def instant_meshes(mesh: Mesh, budget: int) -> Mesh:
    import pyinstantmeshes

    # a quad counts as two of the budget's triangles
    points, faces = pyinstantmeshes.remesh(
        mesh[0], mesh[1].astype(np.uint32), target_face_count=budget // 2, deterministic=True
    )
    faces = np.asarray(faces).astype(np.int32)
    return _triangles(points, faces)


def _triangles(points: np.ndarray, faces: np.ndarray) -> Mesh:
    """Of faces [F, 3] or [F, 4]; a quad that names a corner twice is a triangle."""
    if faces.shape[1] == 4:
        faces = np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])
    proper = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    return np.asarray(points, np.float32), faces[proper].astype(np.int32)


def instant_meshes_with_creases(mesh: Mesh, budget: int) -> Mesh:
    import pynanoinstantmeshes

    count = budget // 8  # each of its quads is divided into four in the end
    points, faces = pynanoinstantmeshes.remesh(
        mesh[0], mesh[1].astype(np.uint32), count, face_count=count, creaseAngle=30.0,
        deterministic=True, extrinsic=False,
    )  # fmt: skip
    return _triangles(points, np.asarray(faces))


def quadriflow(mesh: Mesh, budget: int) -> Mesh:
    from pyQuadriFlow.pyQuadriFlow import pyquadriflow

    made = pyquadriflow(budget // 2, 0, mesh[0].tolist(), mesh[1].tolist(), True, False, False, False, False)
    return _triangles(np.array(made["vertices"]), np.array(made["faces"]))


def botsch(mesh: Mesh, budget: int) -> Mesh:
    """Splits, collapses, flips and smoothing between creases, of a collapse to ten times the budget."""
    import gpytoolbox

    points, faces = ours(mesh, 10 * budget)
    corners = points[faces].astype(np.float64)
    area = (
        np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum()
        / 2
    )
    side = float(np.sqrt(4 / np.sqrt(3) * area / budget)) * 1.03
    made = gpytoolbox.remesh_botsch(
        points.astype(np.float64),
        faces,
        10,
        side,
        True,
        detect_feature_edges=True,
        feature_dihedral_threshold=30.0,
    )
    return np.asarray(made[0], np.float32), np.asarray(made[1], np.int32)


def acvd(mesh: Mesh, budget: int) -> Mesh:
    import pyacvd
    import pyvista

    padded = np.pad(mesh[1], ((0, 0), (1, 0)), constant_values=3)
    clusters = pyacvd.Clustering(pyvista.PolyData(mesh[0], padded.reshape(-1)))
    clusters.cluster(budget // 2)
    made = clusters.create_mesh()
    return np.asarray(made.points, np.float32), made.faces.reshape(-1, 4)[:, 1:].astype(np.int32)


WAYS: dict[str, tuple[str | None, Callable[[Mesh, int], Mesh]]] = {
    "collapse (ours)": (None, ours),
    "pyinstantmeshes": ("pyinstantmeshes", instant_meshes),
    "pynanoinstantmeshes, creases": ("pynanoinstantmeshes", instant_meshes_with_creases),
    "pyquadriflow, creases": ("pyQuadriFlow", quadriflow),
    "gpytoolbox botsch, creases": ("gpytoolbox", botsch),
    "pyacvd": ("pyacvd", acvd),
}


def deviation(a: Mesh, b: Mesh) -> np.ndarray:
    """Distances from samples of each surface to the other, [2 * SAMPLES]."""
    found = []
    for here, there in ((a, b), (b, a)):
        points, _ = trimesh.sample.sample_surface(trimesh.Trimesh(*here, process=False), SAMPLES, seed=1)
        tree = TriangleBVH(torch.from_numpy(there[0]), torch.from_numpy(there[1]))
        found.append(tree.closest(torch.from_numpy(points.astype(np.float32))).distance.numpy())
    return np.concatenate(found)


def evenness(mesh: Mesh) -> float:
    corners = mesh[0][mesh[1]].astype(np.float64)
    sides = corners - np.roll(corners, 1, axis=1)
    area = np.linalg.norm(np.cross(sides[:, 1], sides[:, 2]), axis=1) / 2
    return float(np.percentile(4 * np.sqrt(3) * area / np.maximum((sides**2).sum(axis=(1, 2)), 1e-30), 10))


def main() -> None:
    mesh = body(sys.argv[1] if len(sys.argv) > 1 else None)
    longest = float(np.ptp(mesh[0], axis=0).max())
    print(f"input {len(mesh[1]):,} faces")
    print("| budget | way | faces | mean | p99 | even | open edges | crowded | CPU s |\n" + "|---" * 9 + "|")
    for budget in BUDGETS:
        for name, (package, way) in WAYS.items():
            if package and importlib.util.find_spec(package) is None:
                continue
            before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            try:
                made = way(mesh, budget)
            except Exception as error:  # one remesher that fails must not end the table
                print(f"| {budget:,} | {name} | failed: {type(error).__name__} {error} |", flush=True)
                continue
            seconds = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
            away = deviation(mesh, made) / longest * 1000
            quality = mesh_quality(torch.from_numpy(made[0]), torch.from_numpy(made[1]), look=False)
            numbers = f"{away.mean():.2f} | {np.percentile(away, 99):.2f} | {evenness(made):.2f}"
            edges = f"{quality.open_edges} | {quality.crowded_edges}"
            row = f"| {budget:,} | {name} | {len(made[1]):,} | {numbers} | {edges} | {seconds:.1f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
