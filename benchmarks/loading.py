"""Starting: weights of the published size from a local disk into host memory, and imports of the GPU side.

Three flow transformers of the published shape (7.8 GB, 3.9 billion parameters) with random values, loaded
side by side as a pipeline loads them: with the file cache emptied, which measures the disk too, and from the
cache, which is what the code can do. Most of the time goes into first touches of fresh memory, 4 KiB at a
time; asking for pages of 2 MiB made cold loads slower, since the kernel then moves memory to find them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from trellis2.models.loading import build
from trellis2.models.loading import from_pretrained as load_model
from trellis2.pipelines.config import PARALLEL_LOADS

from .gpu.networks import FLOW
from .record import Record, peak_memory_gb

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "structure": (
        "SparseStructureFlowModel",
        {"resolution": 16, "in_channels": 8, "out_channels": 8, **FLOW},
    ),
    "shape": ("SLatFlowModel", {"resolution": 32, "in_channels": 32, "out_channels": 32, **FLOW}),
    "texture": ("SLatFlowModel", {"resolution": 32, "in_channels": 64, "out_channels": 32, **FLOW}),
}
BLOCK = 64 << 20
IMPORT_RUNS = 5
ROUNDS = 3
READ_BLOCK = 16 << 20


def run() -> list[Record]:
    """GB (10^9 bytes) a second, seconds, GB."""
    folder = Path(tempfile.mkdtemp(prefix="loading-", dir=_roomiest()))
    try:
        parameters = sum(_write(folder / name, *model) for name, model in MODELS.items())
        files = list(folder.glob("*.safetensors"))
        size = sum(file.stat().st_size for file in files) / 1e9
        note = f"{size:.1f} GB, {parameters / 1e9:.1f} billion parameters, {len(files)} files at once"
        disk, cold, cached = (
            size / median(rounds)
            for rounds in zip(*(_round(folder, files) for _ in range(ROUNDS)), strict=True)
        )
    finally:
        shutil.rmtree(folder)
    return [
        Record("load from disk", cold, "GB/s", 1.0, f"{note}; file cache emptied", at_least=True),
        Record("load from the file cache", cached, "GB/s", 1.0, note, at_least=True),
        Record("reading the same files alone", disk, "GB/s", note="what this disk gives to plain reads"),
        Record("peak memory over the weights", peak_memory_gb() / size, "x", 1.35, "torch included"),
        Record("import of the GPU side", _import_seconds(), "s", 5.0, "torch, pipelines, service, studio"),
    ]


def _round(folder: Path, files: list[Path]) -> tuple[float, float, float]:
    """Seconds to read the files alone, to load them from the disk, and from the file cache."""
    _forget(files)
    alone = _timed(lambda: _read(files))
    _forget(files)
    from_disk = _timed(lambda: _load(folder))
    _read(files)
    return alone, from_disk, _timed(lambda: _load(folder))


def _roomiest() -> str:
    """The folder for temporary files that is on a disk: /tmp may be memory."""
    return os.environ.get("TMPDIR") or ("/var/tmp" if Path("/var/tmp").is_dir() else tempfile.gettempdir())


def _write(stem: Path, name: str, args: dict[str, Any]) -> int:
    """A checkpoint with random values, written without building the model; returns its parameters."""
    model = build({"name": name, "args": args}, device="meta")
    dtypes = model.stored_dtypes()
    names = {"torch.bfloat16": "BF16", "torch.float16": "F16", "torch.float32": "F32"}
    header: dict[str, Any] = {}
    position = parameters = 0
    for key, parameter in model.named_parameters():
        end = position + parameter.numel() * dtypes[key].itemsize
        shape = list(parameter.shape)
        header[key] = {"dtype": names[str(dtypes[key])], "shape": shape, "data_offsets": [position, end]}
        position, parameters = end, parameters + parameter.numel()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    stem.with_suffix(".json").write_text(json.dumps({"name": name, "args": args}))
    # bytes whose exponents stay small, so that no value is infinite
    block = (np.random.default_rng(0).integers(0, 256, BLOCK, dtype=np.uint8) & 0x3F).tobytes()
    with stem.with_suffix(".safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, position, BLOCK):
            file.write(block[: min(BLOCK, position - start)])
        file.flush()
        os.fsync(file.fileno())
    return parameters


def _load(folder: Path) -> None:
    with ThreadPoolExecutor(PARALLEL_LOADS) as pool:
        models = list(pool.map(load_model, (folder / name for name in MODELS)))
    if any(parameter.device.type != "cpu" for model in models for parameter in model.parameters()):
        raise AssertionError("not everything was loaded")


def _read(files: list[Path]) -> None:
    """The files' bytes, all files at once, into one small buffer each."""

    def read(path: Path) -> None:
        buffer = bytearray(READ_BLOCK)
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    with ThreadPoolExecutor(PARALLEL_LOADS) as pool:
        list(pool.map(read, files))


def _forget(files: list[Path]) -> None:
    """Take files out of the file cache, where the system lets a program do that."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _import_seconds() -> float:
    """Median wall time of importing everything that a GPU container imports, in fresh processes."""
    code = (
        "import time; s = time.perf_counter(); import trellis2_modal.service.service, trellis2.pipelines,"
        " trellis2_modal.service.exporter, trellis2.utils.render_utils; print(time.perf_counter() - s)"
    )
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
        for _ in range(IMPORT_RUNS)
    ]
    return median(runs)
