"""The web preset's files of the shared object: sizes, what encoding costs each map, seconds of writing."""

from __future__ import annotations

import time

from .glb import arguments
from .objects import benchmark_object
from .record import Record


def run() -> list[Record]:
    """Every figure of files that the exporter answers for."""
    import numpy as np
    from o_voxel.postprocess import to_glb
    from o_voxel.postprocess.textures.encode import MAP_KINDS, decoded

    from trellis2_modal.protocol.requests import ExtractSettings
    from trellis2_modal.service.exporter import arguments as arguments_of

    web = ExtractSettings(simplify="web").resolved()
    asset = to_glb(**arguments(benchmark_object(512)), **arguments_of(web, to_glb))
    note = f"{asset.report.faces:,} faces, {asset.report.vertices:,} vertices, textures of {web.texture_size}"
    records = []
    for name, options, limit in (
        ("GLB, web preset", {"quantize": True}, 1.2),
        ("GLB, web preset, draco", {"compress": "draco"}, 0.6),
        ("GLB, web preset, meshopt", {"compress": "meshopt"}, 0.6),
        ("GLB, exact arrays", {}, None),
    ):
        records.append(Record(name, len(asset.export(**options)) / 1e6, "MB", limit, note))
    units = {"base_color": "-dB", "metallic_roughness": "of 255", "normal": "degrees"}
    encoded = asset.material.encoded("jpeg")
    for name, picture in asset.material.pictures().items():
        kind, data = encoded[name]
        shown, truth = decoded(data), picture[..., :3].astype(np.float32)
        error, bound = MAP_KINDS[name].error(truth, shown), MAP_KINDS[name].bound
        records.append(
            Record(f"{name} after encoding", error, units[name], bound, f"{kind}, {len(data):,} bytes")
        )
    for kind in ("usdz", "3mf", "obj"):
        start, worked = time.perf_counter(), time.process_time()
        size = len(asset.export(file_type=kind))
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
        limit = 2.0 if kind == "usdz" else None
        records.append(
            Record(
                f"writing {kind}", seconds, "s", limit, f"{size / 1e6:.2f} MB; {worked:.1f} s processor time"
            )
        )
    return records
