"""Makes the files that keys with the scope `dry-run` get: `python -m tests.trellis2_modal.service.canned`.

A procedural object goes through the real packing, rendering and export, at small sizes.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.trellis2_modal.shapes import dual_grid
from trellis2.progress import Monitor
from trellis2_modal.protocol.replies import ASSET_MEDIA_TYPES
from trellis2_modal.protocol.requests import ExtractSettings
from trellis2_modal.protocol.state import compress_state, pack_state
from trellis2_modal.service import exporter
from trellis2_modal.service.dry_run import FOLDER
from trellis2_modal.service.state import decompress_state, unpack_state

RESOLUTION, FACES, TEXTURE = 20, 2_000, 256


def main(folder: Path = FOLDER) -> None:
    exporter.VIDEO_RESOLUTION, exporter.VIDEO_FRAMES = 96, 12
    exporter.SHEET_RESOLUTION, exporter.SHEET_VIEWS = 96, 4
    folder.mkdir(exist_ok=True)
    state = compress_state(pack_state(dual_grid(RESOLUTION)))
    mesh = unpack_state(decompress_state(state), "cpu")
    mesh_exporter = exporter.MeshExporter()
    sheet, layout = mesh_exporter.sheet(mesh, Monitor())
    files = {"state": state, "video": mesh_exporter.video(mesh, Monitor()).data, "preview": sheet.data}
    reports = {}
    for kind in ASSET_MEDIA_TYPES:
        settings = ExtractSettings(decimation_target=FACES, texture_size=TEXTURE, format=kind)  # type: ignore[arg-type]
        files[kind], reports[kind] = mesh_exporter.asset(mesh, settings, Monitor())
    for name, data in files.items():
        (folder / f"asset.{name}").write_bytes(data)
        print(f"{name:8} {len(data):8,} bytes")
    facts = {"resolution": RESOLUTION, "preview": layout, "reports": reports}
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
