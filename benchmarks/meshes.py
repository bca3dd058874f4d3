"""How sound the exports of generated states are: one row a state, `python -m benchmarks.meshes [STATES_DIR]`.

The folder holds `*.state.lz4` files, as `trellis2-modal generate` writes them. Without one, synthetic bodies
are made, and of each a copy for which 1 to 5 % of the faces are missing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import trimesh
from o_voxel.convert import flexible_dual_grid_to_mesh, mesh_to_flexible_dual_grid
from o_voxel.mesh.bvh import TriangleBVH
from o_voxel.mesh.quality import mesh_quality
from o_voxel.postprocess import to_glb

from trellis2_modal.service.state import decompress_state, unpack_state

from .record import peak_memory_gb

BUDGETS = {"mobile": (15_000, 1024), "web": (50_000, 1024), "game": (100_000, 2048)}
BOX = [[-0.5] * 3, [0.5] * 3]
LAYOUT = {"base_color": slice(0, 3), "metallic": slice(3, 4), "roughness": slice(4, 5), "alpha": slice(5, 6)}
RESOLUTION = 128
MISSING = (0.0, 0.01, 0.05)

Case = tuple[str, tuple[Any, ...], float]
"""Name, the first arguments of `to_glb` up to the box, and the voxel's size."""


def saved(folder: Path) -> Iterator[Case]:
    """The states of a folder."""
    for path in sorted(folder.glob("*.state.lz4")):
        m = unpack_state(decompress_state(path.read_bytes()))
        yield path.name.split(".")[0], (m.vertices, m.faces, m.attrs, m.coords, m.layout, BOX), m.voxel_size


def synthetic() -> Iterator[Case]:
    """Bodies through the dual grid, whole and with faces missing at random."""
    ball = trimesh.creation.icosphere
    crossing = trimesh.util.concatenate([ball(4, 0.28), ball(4, 0.22).apply_translation((0, 0, 0.25))])
    shell = trimesh.util.concatenate([ball(4, 0.4), trimesh.Trimesh(*_inverted(ball(4, 0.36)))])
    bodies = {
        "ball": ball(4, 0.4),
        "crossing": crossing,
        "shell": shell,
        "box": trimesh.creation.box((0.5,) * 3),
    }
    for name, body in bodies.items():
        points = torch.tensor(body.vertices, dtype=torch.float32)
        corners = torch.tensor(body.faces, dtype=torch.int32)
        coords, dual, flags = mesh_to_flexible_dual_grid(points, corners, grid_size=RESOLUTION, aabb=BOX)
        local = dual * RESOLUTION - coords
        vertices, faces = flexible_dual_grid_to_mesh(coords, local, flags, None, BOX, grid_size=RESOLUTION)
        attributes = torch.tensor([0.8, 0.8, 0.8, 0.0, 0.6, 1.0]).expand(len(coords), 6)
        for share in MISSING:
            stays = torch.rand(len(faces), generator=torch.Generator().manual_seed(1)) >= share
            asset = (vertices, faces[stays], attributes, coords, LAYOUT, BOX)
            yield f"{name}-{share:.0%}", asset, 1 / RESOLUTION


def _inverted(body: trimesh.Trimesh) -> tuple[Any, Any]:
    return body.vertices, body.faces[:, ::-1]


def away(vertices: torch.Tensor, faces: torch.Tensor, reference: TriangleBVH) -> float:
    """Mean distance from the export's surface to the input's: one half of the chamfer distance."""
    corners = vertices[faces.long()]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1)
    random = torch.Generator().manual_seed(0)
    face = torch.multinomial(areas, 20_000, replacement=True, generator=random)
    weights = torch.rand((len(face), 3), generator=random).clamp(min=1e-9).log()
    points = (corners[face] * (weights / weights.sum(dim=1, keepdim=True))[:, :, None]).sum(dim=1)
    return float(reference.closest(points).distance.mean())


def main(folder: Path | None) -> None:
    """Print the table; CPU seconds of all threads beside those of the clock; and which bound a row misses."""
    print("state preset faces open crowded bow-ties back away charts atlas seconds cpu peak-GB missed")
    for name, asset_of, voxel in saved(folder) if folder else synthetic():
        reference = TriangleBVH(*asset_of[:2])
        for preset, (budget, texture) in BUDGETS.items():
            wall, cpu = time.perf_counter(), time.process_time()
            made = to_glb(
                *asset_of,
                voxel_size=voxel,
                decimation_target=budget,
                texture_size=texture,
                normal_map=True,
            )
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            x, y, z = torch.from_numpy(made.vertices).unbind(dim=1)
            vertices, faces = torch.stack([x, -z, y], dim=1), torch.from_numpy(made.faces)
            q = mesh_quality(vertices, faces)
            off = away(vertices, faces, reference) / voxel
            bounds = {
                "open": q.open_edges == 0,
                "crowded": q.crowded_edges == 0,
                "back": q.back_pixels <= 0.02,
                "budget": q.faces <= budget,
                "charts": made.report.charts <= 400,
                "atlas": made.report.atlas_use >= 0.6,
                "away": preset != "game" or off <= 0.5,
            }
            missed = ",".join(bound for bound, held in bounds.items() if not held) or "-"
            print(
                f"{name} {preset} {q.faces} {q.open_edges} {q.crowded_edges} "
                f"{q.bow_tie_vertices} {q.back_pixels:.4f} {off:.3f} {made.report.charts} "
                f"{made.report.atlas_use:.2f} {wall:.1f} {cpu:.1f} {peak_memory_gb():.2f} {missed}",
                flush=True,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
