"""How sound the exports of generated states are: one row a state, `python -m benchmarks.meshes STATES_DIR`.

The folder holds `*.state.lz4` files, as `trellis2-modal generate` writes them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from o_voxel.mesh.quality import mesh_quality
from o_voxel.postprocess import to_glb

from trellis2_modal.service.state import decompress_state, unpack_state

from .record import peak_memory_gb

BUDGETS = {"mobile": (15_000, 1024), "web": (50_000, 1024), "game": (100_000, 2048)}
BOX = [[-0.5] * 3, [0.5] * 3]


def main(folder: Path) -> None:
    """Print the table; CPU seconds of all threads beside those of the clock."""
    print("state preset faces open crowded bow-ties back charts atlas seconds cpu peak-GB")
    for path in sorted(folder.glob("*.state.lz4")):
        m = unpack_state(decompress_state(path.read_bytes()))
        asset_of = (m.vertices, m.faces, m.attrs, m.coords, m.layout, BOX)
        for preset, (budget, texture) in BUDGETS.items():
            wall, cpu = time.perf_counter(), time.process_time()
            made = to_glb(
                *asset_of,
                voxel_size=m.voxel_size,
                decimation_target=budget,
                texture_size=texture,
                normal_map=True,
            )
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            q = mesh_quality(torch.from_numpy(made.vertices), torch.from_numpy(made.faces))
            print(
                f"{path.name.split('.')[0]} {preset} {q.faces} {q.open_edges} {q.crowded_edges} "
                f"{q.bow_tie_vertices} {q.back_pixels:.4f} {made.report.charts} {made.report.atlas_use:.2f} "
                f"{wall:.1f} {cpu:.1f} {peak_memory_gb():.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
