"""How large the web preset's files are, on the object that the benchmarks share."""

from __future__ import annotations

from o_voxel.postprocess import to_glb

from benchmarks.glb import arguments
from benchmarks.objects import benchmark_object
from trellis2_modal.protocol.requests import ExtractSettings
from trellis2_modal.service.exporter import arguments as arguments_of


def test_files_of_the_web_preset_stay_small() -> None:
    web = ExtractSettings(simplify="web").resolved()
    asset = to_glb(**arguments(benchmark_object(128)), **arguments_of(web, to_glb))
    assert 49_000 < asset.report.faces <= 50_000
    for options, limit in (
        ({"quantize": True}, 1.2e6),
        ({"compress": "meshopt"}, 0.6e6),
        ({"compress": "draco"}, 0.6e6),
    ):
        assert len(asset.export(**options)) <= limit, options
