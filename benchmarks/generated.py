"""States for `benchmarks.meshes`: `python -m benchmarks.generated FOLDER [--objects 24]`.

The bundled weights make one of each example picture, and of the held-out objects of the trainer's world
(`training/`). What the folder already has is left as it is, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, zip_longest
from pathlib import Path

import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "o-voxel"), str(ROOT / "training")]

WEIGHTS = ROOT / "assets" / "weights" / "trellis2-mini"

Named = tuple[str, Callable[[], Image.Image]]


def _pictures() -> Iterator[Named]:
    for path in sorted((ROOT / "assets" / "example_image").glob("*.png")):
        yield path.stem, lambda path=path: Image.open(path)  # type: ignore[misc]


def _objects(count: int) -> Iterator[Named]:
    from trellis2_training import world
    from trellis2_training.evaluation.evaluate import held_out_picture, to_rgba

    def picture(number: int) -> Image.Image:
        return to_rgba(held_out_picture(torch.from_numpy(world.object_table(number)), number)[1])

    for i in range(count):
        yield f"object{i:02}", lambda i=i: picture(world.HELD_OUT_SEED + i)  # type: ignore[misc]


def main() -> None:
    from trellis2.pipelines import Trellis2ImageTo3DPipeline
    from trellis2_modal.service.state import compress_state, pack_state

    parser = argparse.ArgumentParser(prog="python -m benchmarks.generated", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--objects", type=int, default=24)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    pipeline = Trellis2ImageTo3DPipeline.from_pretrained(WEIGHTS, device="cpu")
    for named in chain.from_iterable(zip_longest(_pictures(), _objects(options.objects))):
        if named is None:
            continue
        name, picture = named
        path = options.folder / f"{name}.state.lz4"
        if path.exists():
            continue
        began = time.perf_counter()
        try:
            (mesh,) = pipeline.run(picture(), seed=42, pipeline_type="512")
        except Exception as error:  # one picture that gives nothing must not end the rest
            print(f"{name}: {type(error).__name__} {error}", flush=True)
            continue
        path.write_bytes(compress_state(pack_state(mesh)))
        print(f"{name}: {len(mesh.faces)} faces, {time.perf_counter() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
