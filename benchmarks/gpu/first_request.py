"""The first request of a fresh process against the third: `python -m benchmarks.gpu.first_request`.

A process that has warmed up as a container does (`trellis2_modal.service.deploy.warm_up`), its compiled
kernels on disk from an earlier one, answers three requests of each kind: 512, 1024_cascade (both with
preview), and the export. Networks have the published sizes and random weights. What random weights would
choose is not an object, so every choice (occupancy, subdivision, mesh) is replaced by that of a synthetic
one, of another size in each request: no token count was seen before. Three processes run: one makes the
objects, one fills the caches, one is measured. `--tiny` runs the same on a CPU, to see that it works.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "o-voxel")]

import torch  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

from benchmarks.gpu.networks import network  # noqa: E402
from benchmarks.gpu.sampling import SHAPE, STRUCTURE, TEXTURE  # noqa: E402
from benchmarks.gpu.voxels import Pyramid, pyramid  # noqa: E402
from benchmarks.objects import as_decoded, asset_of, benchmark_object  # noqa: E402
from benchmarks.record import Record  # noqa: E402
from trellis2.conditioning.encoders.dinov3 import DinoV3FeatureExtractor, without_final_norm  # noqa: E402
from trellis2.pipelines import Trellis2ImageTo3DPipeline  # noqa: E402
from trellis2.pipelines.image_to_3d import PIPELINE_TYPES  # noqa: E402
from trellis2.pipelines.latents import Normalization, cascade_coords  # noqa: E402
from trellis2.pipelines.stages import LatentStage  # noqa: E402
from trellis2.progress import Monitor  # noqa: E402
from trellis2.samplers import FlowEulerGuidanceIntervalSampler  # noqa: E402
from trellis2_modal.jobs.execution import JobOutput  # noqa: E402
from trellis2_modal.protocol.requests import ExtractSettings, GenerateSettings  # noqa: E402
from trellis2_modal.service import exporter  # noqa: E402
from trellis2_modal.service.deploy.start_budget import StartClock  # noqa: E402
from trellis2_modal.service.deploy.warm_up import picture, resolutions, warm_up  # noqa: E402
from trellis2_modal.service.generator import TRELLIS2Generator  # noqa: E402

RESULTS = Path(__file__).parents[1] / "results" / "gpu-first-request.json"
REQUESTS = 3
TARGET = 1.3
KINDS = ("512", "1024_cascade")
CACHES = {
    "WARP_CACHE_PATH": "warp",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "CUDA_CACHE_PATH": "cuda",
}
NETWORKS = {
    "sparse_structure_flow_model": "structure flow",
    "sparse_structure_decoder": "structure decoder",
    "shape_slat_flow_model_512": "shape flow",
    "shape_slat_flow_model_1024": "shape flow",
    "shape_slat_decoder": "shape decoder",
    "tex_slat_flow_model_512": "texture flow",
    "tex_slat_flow_model_1024": "texture flow",
    "tex_slat_decoder": "texture decoder",
}
ENCODER = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "num_register_tokens": 4,
}
NARROW_DECODER = {"model_channels": [32, 16, 16, 8, 8], "num_blocks": [1, 0, 0, 0, 0]}
NARROW_FLOW = {"model_channels": 32, "cond_channels": 32, "num_blocks": 2, "num_heads": 2}
NARROW: dict[str, dict[str, Any]] = {
    "structure flow": NARROW_FLOW,
    "shape flow": NARROW_FLOW,
    "texture flow": NARROW_FLOW,
    "structure decoder": {"num_res_blocks": 1, "num_res_blocks_middle": 1, "channels": [8, 8, 4]},
    "shape decoder": NARROW_DECODER,
    "texture decoder": NARROW_DECODER,
}
NARROW_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 128,
}


@dataclasses.dataclass(frozen=True)
class Size:
    """Where it runs, how large networks and objects (side in that of the benchmark object) are."""

    device: str
    networks: dict[str, dict[str, Any]]
    encoder: dict[str, Any]
    objects: tuple[float, float]
    extraction: dict[str, Any] = dataclasses.field(default_factory=dict)
    preview: dict[str, int] = dataclasses.field(default_factory=dict)  # constants of the exporter


FULL = Size("cuda", {}, ENCODER, (0.8, 1.0))
PREVIEW = {"VIDEO_FRAMES": 2, "VIDEO_RESOLUTION": 64, "SHEET_VIEWS": 1, "SHEET_RESOLUTION": 64}
TINY = Size("cpu", NARROW, ENCODER | NARROW_ENCODER, (0.05, 0.06), {"texture_size": 256}, PREVIEW)


# --- the objects --------------------------------------------------------------------------------------------


def planned() -> Iterator[str]:
    """The pipeline type of each object, in the order in which they are asked for."""
    yield from resolutions(tuple(PIPELINE_TYPES))  # by the warm-up
    for kind in KINDS:
        yield from (kind for _ in range(REQUESTS))


def make_objects(size: Size, folder: Path, kinds: Iterable[str]) -> None:
    """One file for each generation of these pipeline types: voxels at every level, and the mesh."""
    low, high = size.objects
    for number, kind in enumerate(kinds):
        scale = random.Random(f"{kind} {number}").uniform(low, high)
        levels = {r: pyramid(r, size.device, scale) for r in {512, PIPELINE_TYPES[kind].resolution}}
        made: dict[str, Any] = {
            "mesh": as_decoded(benchmark_object(PIPELINE_TYPES[kind].resolution, size.device, scale)),
            "pyramids": {r: {"coords": p.coords, "masks": p.masks} for r, p in levels.items()},
        }
        torch.save(made, folder / f"{number:02}.pt")


def read_objects(folder: Path, device: str) -> Iterator[dict[str, Any]]:
    """The objects of a folder, or of one file."""
    for path in sorted(folder.glob("*.pt")) if folder.is_dir() else [folder]:
        made: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        yield made | {"pyramids": {r: Pyramid(**parts) for r, parts in made["pyramids"].items()}}


# --- the model ----------------------------------------------------------------------------------------------


class RandomEncoder(DinoV3FeatureExtractor):
    """DINOv3 ViT-L/16 with random weights."""

    def __init__(self, config: dict[str, Any], device: str) -> None:
        from transformers import DINOv3ViTConfig, DINOv3ViTModel

        with torch.device(device):
            model = DINOv3ViTModel(DINOv3ViTConfig(**config))
        self.model = without_final_norm(model).float().eval().requires_grad_(False)
        self.image_size = 512


class WhiteRemoval:
    """A matte by brightness: the usual removers bring code that is not part of this project."""

    subjects = "all"

    def __call__(self, image: Image.Image) -> Image.Image:
        matted = image.convert("RGB")
        matted.putalpha(ImageOps.invert(image.convert("L")).point(lambda value: 255 if value > 20 else 0))
        return matted

    def to(self, device: Any = None) -> WhiteRemoval:
        return self

    cuda = cpu = to


class ObjectPipeline(Trellis2ImageTo3DPipeline):
    """Every stage as it is; its choices are those of the next object."""

    def __init__(self, size: Size, objects: Iterator[dict[str, Any]]) -> None:
        models = {
            name: network(kind, device=size.device, **size.networks.get(kind, {}))
            for name, kind in NETWORKS.items()
        }
        unit = Normalization({"mean": [0.0] * 32, "std": [1.0] * 32})
        sampler = FlowEulerGuidanceIntervalSampler(1e-5)
        stages = (
            LatentStage("sparse_structure", sampler, STRUCTURE),
            LatentStage("shape_slat", sampler, SHAPE, unit),
            LatentStage("tex_slat", sampler, TEXTURE, unit),
        )
        super().__init__(
            models,
            {s.name: s for s in stages},
            RandomEncoder(size.encoder, size.device),
            WhiteRemoval(),
            False,
        )
        self._objects = list(objects)[::-1]
        self.to(size.device)

    def variants(self, *args: Any, **options: Any) -> Any:
        self.object = self._objects.pop()
        return super().variants(*args, **options)

    def sample_sparse_structure(self, *args: Any, **options: Any) -> torch.Tensor:
        super().sample_sparse_structure(*args, **options)
        return self._pyramid(512).coords[0]

    def sample_shape_slat_cascade(
        self,
        conditioner: Any,
        coarse_flow: Any,
        fine_flow: Any,
        resolution: int,
        coords: torch.Tensor,
        run: Any = None,
        max_num_tokens: int = 49152,
    ) -> Any:
        slat = self.sample_shape_slat(conditioner, coarse_flow, coords, 512, run)
        known = self._pyramid(512).remembering_latent(32).replace(slat.feats)
        decoder: Any = self._model("shape_slat_decoder")
        cascade_coords(decoder.upsample(known, upsample_times=4), 512, resolution, max_num_tokens)
        fine = self._pyramid(resolution).coords[0]
        return self.sample_shape_slat(conditioner, fine_flow, fine, resolution, run, "shape_fine"), resolution

    def decode_shape_slat(self, slat: Any, resolution: int) -> Any:
        shape = self._pyramid(resolution)
        known = shape.remembering_latent(32).replace(slat.feats)
        return super().decode_shape_slat(known, resolution)[0], shape.guides()

    def _asset(self, mesh: Any, voxels: Any, resolution: int) -> Any:
        asset = asset_of(self.object["mesh"])
        asset.fill_holes()
        return asset

    def _pyramid(self, resolution: int) -> Pyramid:
        found: Pyramid = self.object["pyramids"][resolution]
        return found


# --- the measured process -----------------------------------------------------------------------------------


def finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def photo(seed: int) -> bytes:
    """Another picture in each request."""
    image = Image.open(io.BytesIO(picture())).rotate(11 * seed, fillcolor="white")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def measure(size: Size, folder: Path, warm: bool, requests: int) -> dict[str, Any]:
    """Seconds of the warm-up by stage, and of `requests` requests of each kind with theirs."""
    started = time.perf_counter()
    for name, value in size.preview.items():
        setattr(exporter, name, value)
    generator = TRELLIS2Generator(
        lambda: ObjectPipeline(size, read_objects(folder, size.device)), "random", size.device
    )
    generator.load_model_cpu()
    finish(size.device)
    clock = StartClock()
    clock.record("load", time.perf_counter() - started)
    if warm:
        with clock.stage("warm_up"):
            warm_up(generator, clock)
            generator.free_memory()
    else:
        for _ in resolutions(generator.pipeline_types):
            generator.pipeline._objects.pop()  # type: ignore[attr-defined]
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in (*KINDS, "export")}
    states = []
    for kind in KINDS:
        for number in range(requests):
            asked = GenerateSettings.model_validate(
                {"pipeline_type": kind, "preview": "frames", "seed": number}
            )
            made = timed(size, runs[kind], partial(generator.generate, photo(number), asked, Monitor()))
            states.append(made.files["state"].data)
    export = ExtractSettings.model_validate(size.extraction)
    for state in states[-requests:] if requests else ():
        timed(size, runs["export"], partial(generator.extract_glb, state, export, Monitor()))
    return {"start": clock.seconds, "runs": runs, "device": device_name(size.device)}


def timed(size: Size, runs: list[dict[str, Any]], call: Callable[[], JobOutput]) -> JobOutput:
    started = time.perf_counter()
    output = call()
    finish(size.device)
    runs.append({"seconds": time.perf_counter() - started, "stages": output.stats["seconds"]})
    return output


def device_name(device: str) -> str:
    if device == "cpu":
        return f"CPU, torch {torch.__version__}"
    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name}, torch {torch.__version__}, CUDA {torch.version.cuda}"


# --- the whole ----------------------------------------------------------------------------------------------


def child(step: str, options: argparse.Namespace, folder: Path, caches: Path) -> dict[str, Any]:
    """Run one step in a process of its own; what it measured."""
    out = folder / f"{step}.json"
    flags = [name for name in ("--tiny", "--without-warm-up") if getattr(options, name[2:].replace("-", "_"))]
    command = [sys.executable, "-m", "benchmarks.gpu.first_request", "--step", step, *flags]
    environment = os.environ | {name: str(caches / leaf) for name, leaf in CACHES.items()}
    print(f"{step} ...", flush=True)
    started = time.perf_counter()
    subprocess.run([*command, "--folder", str(folder)], check=True, env=environment, cwd=ROOT)
    print(f"{step} {time.perf_counter() - started:.0f} s", flush=True)
    return json.loads(out.read_text()) if out.exists() else {}


def run_step(step: str, size: Size, folder: Path, warm: bool) -> None:
    if step == "objects":
        make_objects(size, folder, planned())
        return
    found = measure(size, folder, warm or step == "fill", 0 if step == "fill" else REQUESTS)
    (folder / f"{step}.json").write_text(json.dumps(found))


def records(filled: dict[str, Any], found: dict[str, Any]) -> list[Record]:
    """First over third by kind, and what the warm-up takes with empty and with filled caches."""
    rows = []
    for kind, runs in found["runs"].items():
        first, last = runs[0], runs[-1]
        apart = {name: first["stages"][name] - last["stages"].get(name, 0.0) for name in first["stages"]}
        slow = ", ".join(f"{name} {value:+.2f}" for name, value in apart.items() if abs(value) >= 0.05)
        times = ", ".join(f"{run['seconds']:.2f}" for run in runs)
        note = f"{times} s; first less third by stage: {slow or 'all under 0.05 s'}"
        rows.append(Record(f"{kind}, first over third", first["seconds"] / last["seconds"], "", TARGET, note))
    for name, start in (("empty", filled["start"]), ("filled", found["start"])):
        parts = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in start.items() if stage != "warm_up")
        rows.append(Record(f"warm-up, {name} caches", start.get("warm_up", 0.0), "s", None, parts))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.first_request", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny networks and objects on the CPU")
    parser.add_argument("--without-warm-up", action="store_true", help="for comparison")
    parser.add_argument("--json", type=Path, default=None, help="where the figures go  [gpu: results/]")
    parser.add_argument("--caches", type=Path, default=None, help="folder of compiled kernels  [a new one]")
    parser.add_argument("--step", choices=("objects", "fill", "measure"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = TINY if options.tiny else FULL
    if size.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: skipped (--tiny runs on the CPU)")
        return 0
    if options.step:
        run_step(options.step, size, options.folder, not options.without_warm_up)
        return 0
    with TemporaryDirectory() as made:
        folder = Path(made)
        caches = options.caches or folder / "caches"
        child("objects", options, folder, folder / "other-caches")
        filled = child("fill", options, folder, caches)
        found = child("measure", options, folder, caches)
    rows = records(filled, found)
    path = options.json or (None if options.tiny else RESULTS)
    if path is not None:
        stamp = {"machine": found["device"], "date": time.strftime("%Y-%m-%d"), "name": "gpu-first-request"}
        entry = stamp | {"records": [dataclasses.asdict(row) for row in rows], "measured": found}
        path.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        met = {None: "", True: "ok", False: "MISSED"}[row.met]
        print(f"{row.name:32} {row.value:7.2f} {row.unit:2} {met:7} {row.note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
