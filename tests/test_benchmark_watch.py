"""The watch of `benchmarks.gpu`: seconds by path, also of other threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from o_voxel.postprocess import material
from o_voxel.postprocess.textures import encode

from benchmarks.gpu.watch import Watch


def test_a_watch_knows_who_called_and_in_which_thread() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    before = dict(encode.MAP_KINDS)

    def work() -> None:
        material.encode_map("base_color", image, "png")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: material.encode_map("normal", image, "jpeg")).result()

    watch = Watch("cpu")
    watch.run(work)
    assert watch.calls["encode_map base_color png > encode_png"] == 1
    assert watch.calls["thread > encode_map normal jpeg > error of blocks"] >= 1
    assert watch.seconds["thread > encode_map normal jpeg"] > 0
    assert before == encode.MAP_KINDS
    assert not hasattr(material.encode_map, "__wrapped__")
