"""The 512 pipeline on this machine's processor with the bundled weights: a picture to a MeshWithVoxel."""

from __future__ import annotations

import time

from PIL import Image

from trellis2.pipelines import Trellis2ImageTo3DPipeline
from trellis2_modal.client.inputs.pictures import EXAMPLES
from trellis2_modal.service.config import BUNDLED_WEIGHTS

from .record import Record, peak_memory_gb

PICTURE = "mug.png"
RUNS = 2


def run() -> list[Record]:
    start = time.perf_counter()
    pipeline = Trellis2ImageTo3DPipeline.from_pretrained(BUNDLED_WEIGHTS)
    loaded = time.perf_counter() - start
    seconds, processor = [], []
    with Image.open(EXAMPLES / PICTURE) as picture:
        picture.load()
    for _ in range(RUNS):
        began, used = time.perf_counter(), time.process_time()
        (mesh,) = pipeline.run(picture, seed=42, pipeline_type="512")
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    note = f"{PICTURE}, {len(mesh.coords):,} voxels; first run {seconds[0]:.1f} s"
    return [
        Record("picture to MeshWithVoxel, 512", seconds[-1], "s", 60.0, note),
        Record("the same, processor", processor[-1], "s", None, "all threads"),
        Record("peak memory", peak_memory_gb(), "GB", 6.0, "weights and libraries included"),
        Record("loading the bundled weights", loaded, "s", None),
    ]
