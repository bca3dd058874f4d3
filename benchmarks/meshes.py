"""How sound the exports of generated states are: one row a state, `python -m benchmarks.meshes [STATES_DIR]`.

The folder holds `*.state.lz4` files, as `trellis2-modal generate` writes them. Without one, synthetic bodies
are made, and of each a copy for which 1 to 5 % of the faces are missing. A line a preset sums the rows up.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from o_voxel.convert import flexible_dual_grid_to_mesh, mesh_to_flexible_dual_grid
from o_voxel.mesh.quality import mesh_quality, visible_faces
from o_voxel.mesh.spatial.bvh import TriangleBVH
from o_voxel.postprocess import GlbAsset, to_glb
from o_voxel.postprocess.source import Source, check_source
from o_voxel.sampling import VoxelGrid, sample_trilinear

from trellis2_modal.service.state import decompress_state, unpack_state

from .record import peak_memory_gb

PRESETS: dict[str, dict[str, Any]] = {
    "mobile": {"decimation_target": 15_000, "texture_size": 1024, "normal_map": True},
    "web": {"decimation_target": 50_000, "texture_size": 1024, "normal_map": True},
    "game": {"decimation_target": 100_000, "texture_size": 2048, "normal_map": True},
    "print": {"decimation_target": 300_000, "texture_size": 1024, "outer_shell": True},
}
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


CLOSED = 2.0
"""Voxels from the input beyond which a point of the export lies over an opening that was closed."""


def away(vertices: torch.Tensor, faces: torch.Tensor, reference: TriangleBVH, voxel: float) -> torch.Tensor:
    """Distances, in voxels, from points spread over what can be seen of the export to the input's surface."""
    shown = faces[visible_faces(vertices, faces, picture=512)]
    corners = vertices[shown.long()]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1)
    random = torch.Generator().manual_seed(0)
    face = torch.multinomial(areas, 20_000, replacement=True, generator=random)
    weights = torch.rand((len(face), 3), generator=random).clamp(min=1e-9).log()
    points = (corners[face] * (weights / weights.sum(dim=1, keepdim=True))[:, :, None]).sum(dim=1)
    return reference.closest(points).distance / voxel


def colour_decibels(made: GlbAsset, source: Source, reference: TriangleBVH) -> float:
    """Base colour of the texture against the voxels', at points of the export's surface (peak 1)."""
    random = torch.Generator().manual_seed(0)
    face = torch.randint(len(made.faces), (20_000,), generator=random)
    weights = torch.rand((len(face), 3), generator=random).clamp(min=1e-9).log()
    weights = (weights / weights.sum(dim=1, keepdim=True))[:, :, None]
    corners = torch.from_numpy(made.faces).long()[face]
    points = (torch.from_numpy(_z_up(made.vertices))[corners] * weights).sum(dim=1)
    uvs = (torch.from_numpy(made.uvs)[corners] * weights).sum(dim=1)
    near = reference.closest(points)
    nearest = (source.vertices[source.faces[near.face.long()].long()] * near.barycentric[:, :, None]).sum(
        dim=1
    )
    places = (nearest - source.frame.origin) / source.frame.voxel_size
    true = sample_trilinear(source.grid, source.attributes[:, :3], places).clamp(0, 1)
    texture = torch.from_numpy(made.material.base_color[..., :3]).permute(2, 0, 1)[None].float() / 255
    seen = torch.nn.functional.grid_sample(
        texture, (uvs * 2 - 1)[None, None], align_corners=False, padding_mode="border"
    )[0, :, 0].T
    known = (true > 0).any(dim=1)
    return float(-10 * (seen - true)[known].square().mean().clamp(min=1e-12).log10())


def _z_up(vertices: np.ndarray) -> np.ndarray:
    return np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], axis=1)


def normals_against(made: GlbAsset) -> int:
    """Faces with a corner normal that points behind them."""
    corners = made.vertices.astype(np.float64)[made.faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    size = np.linalg.norm(cross, axis=1)
    cosine = np.einsum("fkd,fd->fk", made.normals[made.faces], cross / np.maximum(size, 1e-300)[:, None])
    return int(((cosine < -1e-6).any(axis=1) & (size > 0)).sum())


def damaged(case: Case, share: float, voxels: bool) -> Case:
    """A copy of which a share of the faces is missing, or of the voxels with every face at them."""
    name, (vertices, faces, attributes, coords, *rest), voxel = case
    faces = torch.as_tensor(faces)
    random = torch.Generator().manual_seed(1)
    if voxels:
        gone = torch.rand(len(coords), generator=random) < share
        attributes, coords = torch.as_tensor(attributes), torch.as_tensor(coords)
        cells = ((torch.as_tensor(vertices) - torch.tensor(BOX[0])) / voxel).floor().int()
        side = round(1 / voxel)
        row = VoxelGrid(coords, (side,) * 3).find(cells.clamp(0, side - 1))  # -1 where a hole was filled
        faces = faces[~((row >= 0) & gone[row])[faces.long()].any(dim=1)]
        attributes, coords = attributes[~gone], coords[~gone]
    else:
        faces = faces[torch.rand(len(faces), generator=random) >= share]
    return f"{name}-{share:.0%}", (vertices, faces, attributes, coords, *rest), voxel


COLUMNS = (
    "state preset faces open crowded bow-ties back against away closed dB charts atlas seconds cpu peak-GB "
    "missed"
)


@dataclass(frozen=True)
class Row:
    """What one export measured, the bounds that it misses, and its line of the table."""

    preset: str
    sound: bool  # closed, and no edge of more than two faces
    back: float
    charts: int
    atlas: float
    away: float
    cpu: float
    missed: set[str]
    line: str


def summary(preset: str, rows: list[Row]) -> str:
    """The rows of a preset in a line."""
    middle = sorted(row.cpu for row in rows)[len(rows) // 2]
    return (
        f"{preset}: {len(rows)} rows; closed and manifold {sum(row.sound for row in rows) / len(rows):.1%}; "
        f"back faces {sum(row.back for row in rows) / len(rows):.2%} (most "
        f"{max(row.back for row in rows):.2%}); charts at most {max(row.charts for row in rows)}; atlas use "
        f"at least {min(row.atlas for row in rows):.2f}; away in the median "
        f"{sorted(row.away for row in rows)[len(rows) // 2]:.2f} (most {max(row.away for row in rows):.2f}); "
        f"CPU s {middle:.1f} (most {max(row.cpu for row in rows):.1f})"
    )


def measure(case: Case, preset: str) -> Row:
    """Export a case under a preset's budget, and measure the result."""
    name, asset_of, voxel = case
    settings = PRESETS[preset]
    wall, cpu = time.perf_counter(), time.process_time()
    made = to_glb(*asset_of, voxel_size=voxel, **settings)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    vertices, faces = torch.from_numpy(_z_up(made.vertices)), torch.from_numpy(made.faces)
    q = mesh_quality(vertices, faces)
    source = check_source(*asset_of, voxel, None)
    reference = TriangleBVH(source.vertices, source.faces)
    distances = away(vertices, faces, reference, voxel)
    off, over_gaps = float(distances.mean()), float((distances > CLOSED).float().mean())
    decibels = colour_decibels(made, source, reference)
    against, printed = normals_against(made), preset == "print"
    bounds = {
        "open": q.open_edges == 0,
        "crowded": q.crowded_edges == 0,
        "back": q.back_pixels <= 0.02,
        "against": against == 0,
        "budget": q.faces <= settings["decimation_target"],
        "charts": made.report.charts <= 400,
        "atlas": printed or made.report.atlas_use >= 0.6,
        "away": preset != "game" or off <= 0.5,
    }
    missed = {bound for bound, held in bounds.items() if not held}
    names = ",".join(sorted(missed)) or "-"
    line = (
        f"{name} {preset} {q.faces} {q.open_edges} {q.crowded_edges} {q.bow_tie_vertices} "
        f"{q.back_pixels:.4f} {against} {off:.3f} {over_gaps:.3f} {decibels:.1f} {made.report.charts} "
        f"{made.report.atlas_use:.2f} {wall:.1f} {cpu:.1f} {peak_memory_gb():.2f} {names}"
    )
    sound = q.open_edges == 0 and q.crowded_edges == 0
    use = made.report.atlas_use
    return Row(preset, sound, q.back_pixels, made.report.charts, use, off, cpu, missed, line)


def main() -> None:
    """Print the table, and how many rows hold each bound."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.meshes", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--missing", type=float, default=0.0, help="share of the states' faces that go")
    parser.add_argument("--voxels", action="store_true", help="--missing means voxels, with their faces")
    options = parser.parse_args()
    print(COLUMNS)
    rows: list[Row] = []
    for case in saved(options.folder) if options.folder else synthetic():
        changed = damaged(case, options.missing, options.voxels) if options.missing else case
        for preset in options.presets.split(","):
            rows.append(measure(changed, preset))
            print(rows[-1].line, flush=True)
    for preset in options.presets.split(","):
        print(summary(preset, [row for row in rows if row.preset == preset]))
    bounds = sorted(set().union(*(row.missed for row in rows)))
    missed_bounds = {bound: sum(bound in row.missed for row in rows) for bound in bounds}
    print(f"{len(rows)} rows; missed: {missed_bounds or 'nothing'}")


if __name__ == "__main__":
    main()
