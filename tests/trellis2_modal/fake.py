"""A generator that is fast, but real where the service looks: it decodes the picture, steps, packs a state.

Seeds from `CRASH` on make it fail in the ways that a model can.
"""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.trellis2_modal.shapes import dual_grid
from trellis2.progress import Monitor
from trellis2_modal.jobs.execution import DeviceLostError, JobFile, JobMonitor, JobOutput
from trellis2_modal.protocol.errors import InvalidImageError, OutOfMemoryError
from trellis2_modal.protocol.replies import ASSET_MEDIA_TYPES, STATE_MEDIA_TYPE, artifact_of
from trellis2_modal.protocol.requests import ExtractSettings, GenerateSettings, TextureSettings
from trellis2_modal.protocol.state import (
    MeshState,
    ShapeLatents,
    compress_state,
    decompress_state,
    pack_state,
    peek_state,
    unpack_state,
)
from trellis2_modal.protocol.views import unpack_inputs

SHEET = {"modes": ["shaded", "normal"], "views": 2, "size": 32}
"""How the stills lie on the preview."""

CRASH, OUT_OF_MEMORY, DEVICE_LOST, DEAF, DISK_FULL, BUG = range(666_001, 666_007)
STEPS = 4


class KilledError(BaseException):
    """A worker that is gone: nothing of ours sees it coming."""


def die() -> None:
    """What a crash is where the worker is a thread."""
    raise KilledError


class FakeGenerator:
    """See the module. `journal` is a file that gets a line for every run that came to its end."""

    model = "fake"
    device = "cpu"

    def __init__(
        self,
        step_seconds: float,
        journal: str | None,
        pipeline_types: tuple[str, ...],
        burn: bool,
        pad: int,
        gate: str | None = None,
        steps: int = STEPS,
        light: str | None = None,
    ) -> None:
        self.crash: Callable[[], None] = lambda: os._exit(9)
        self._gate = Path(gate) if gate else None
        self._light = Path(light) if light else None
        self.pipeline_types = pipeline_types
        self.texture_types = ("512",)
        self.default_type = ""
        self.backends = {"attention": "sdpa: first choice"}
        self.samplers = {"ss_guidance_strength": 2.0, "ss_sampling_steps": 12.0}
        self.views = {"least": 1, "most": 1, "cameras": False}
        self._step_seconds = step_seconds
        self._burn = burn
        self._message = "." * pad
        self._count = steps
        self._journal = Path(journal) if journal else None

    def generate(self, picture: bytes, settings: GenerateSettings, monitor: Monitor) -> JobOutput:
        try:
            for data in unpack_inputs(picture).pictures:
                with Image.open(io.BytesIO(data)) as image:
                    image.load()
        except Exception as error:
            raise InvalidImageError("the picture cannot be decoded") from error
        if settings.seed == CRASH:
            self.crash()
        _misbehave(settings.seed)
        self._steps(monitor, "shape")
        files, variants = {}, []
        for number, seed in enumerate(settings.seeds, 1):
            state = dual_grid(16, seed=seed)
            if settings.keep_latents:
                coords = np.array([[0, 1, 2], [1, 2, 3]], np.int32)
                latents = ShapeLatents(coords, np.full((2, 4), seed, np.float32), 512)
                info = {"seed": seed, "pipeline_type": "512", "model": self.model}
                state = dataclasses.replace(state, latents=latents, info=info)
            own = {"state": JobFile(compress_state(pack_state(state)), STATE_MEDIA_TYPE)}
            if settings.preview != "none":
                own["video"] = JobFile(b"\0\0\0\x18ftypmp42" + bytes(5_000), "video/mp4")
            if settings.preview == "frames":
                own["preview"] = JobFile(sheet(), "image/webp")
            files |= {artifact_of(name, number): file for name, file in own.items()}
            variants.append({"seed": seed, "voxels": len(state.coords)})
        if self._light is not None and settings.preview == "frames" and len(settings.seeds) == 1:
            files["light"] = JobFile(glb(dual_grid(16, seed=settings.seed)), ASSET_MEDIA_TYPES["glb"])
            if isinstance(monitor, JobMonitor) and monitor.early is not None:
                monitor.early("light", files["light"])
            self._gate = self._light
            self._steps(monitor, "preview")
        kept = unpack_inputs(picture).state
        shape = "" if kept is None else f" of {peek_state(kept)['info']['seed']}"
        self._write(f"generate {settings.seed}{shape}")
        stats = variants[0] | {"seconds": {"shape": 2.0, "texture": 1.0}, "preview": SHEET}
        if len(variants) > 1:
            stats["variants"] = variants
        return JobOutput(files, settings.seed, 16, stats)

    def texture(self, inputs: bytes, settings: TextureSettings, monitor: Monitor) -> JobOutput:
        mesh = unpack_inputs(inputs).mesh
        assert mesh is not None
        _misbehave(settings.seed)
        self._steps(monitor, "texture")
        files = {"glb": JobFile(mesh, ASSET_MEDIA_TYPES["glb"])}
        if settings.preview != "none":
            files["video"] = JobFile(b"\0\0\0\x18ftypmp42" + bytes(5_000), "video/mp4")
        if settings.preview == "frames":
            files["preview"] = JobFile(sheet(), "image/webp")
        self._write(f"texture {settings.seed}")
        return JobOutput(files, settings.seed, 512, {"report": {"faces": 2}, "preview": SHEET})

    def extract_glb(self, state: bytes, settings: ExtractSettings, monitor: Monitor) -> JobOutput:
        mesh = unpack_state(decompress_state(state))
        self._steps(monitor, "bake")
        self._write(f"extract {settings.decimation_target}")
        report = {"faces": len(mesh.faces), "vertices": len(mesh.vertices), "watertight": True}
        file = JobFile(glb(mesh), ASSET_MEDIA_TYPES[settings.format])
        return JobOutput({"glb": file}, stats={"report": report})

    def _steps(self, monitor: Monitor, stage: str) -> None:
        for step in range(self._count):
            monitor.report(stage, step, self._count, self._message)
            while self._gate is not None and not self._gate.exists():
                monitor.check()
                time.sleep(0.01)
            if self._burn:
                _burn(self._step_seconds)
            else:
                time.sleep(self._step_seconds)
        monitor.report(stage, self._count, self._count)

    def _write(self, line: str) -> None:
        if self._journal is not None:
            with self._journal.open("a") as file:
                file.write(line + "\n")


def create(
    step_seconds: float = 0.01,
    journal: str | None = None,
    pipeline_types: tuple[str, ...] = ("512",),
    burn: bool = False,
    pad: int = 0,
    gate: str | None = None,
    steps: int = STEPS,
    light: str | None = None,
) -> FakeGenerator:
    """With `burn` its steps keep every processor busy, as a model on the CPU does.

    Each progress message has `pad` characters. Steps wait until the file `gate` exists.
    With `light` a generation hands a light mesh over, and its turntable waits until that file exists.
    """
    return FakeGenerator(step_seconds, journal, tuple(pipeline_types), burn, pad, gate, steps, light)


def broken() -> FakeGenerator:
    """A model that cannot be loaded."""
    raise RuntimeError("no weights")


def _burn(seconds: float) -> None:
    end = time.monotonic() + seconds
    matrix = np.ones((700, 700), np.float32)
    while time.monotonic() < end:
        matrix @ matrix  # numpy's BLAS takes a thread a processor


def _misbehave(seed: int) -> None:
    if seed == OUT_OF_MEMORY:
        raise OutOfMemoryError("try 512", hints={"suggested": {"pipeline_type": "512"}})
    if seed == DEVICE_LOST:
        raise DeviceLostError("CUDA error: an illegal memory access was encountered")
    if seed == DEAF:
        time.sleep(3600)
    if seed == DISK_FULL:
        raise OSError(errno.ENOSPC, "No space left on device")
    if seed == BUG:
        raise RuntimeError("secret path /root/weights")


def glb(mesh: MeshState) -> bytes:
    """A small valid GLB of the mesh's shape."""
    points = np.ascontiguousarray(mesh.vertices, "<f4")
    indices = np.ascontiguousarray(mesh.faces, "<u4")
    body = points.tobytes() + indices.tobytes()
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": 5126,
                "count": len(points),
                "type": "VEC3",
                "min": points.min(axis=0).tolist(),
                "max": points.max(axis=0).tolist(),
            },
            {"bufferView": 1, "componentType": 5125, "count": indices.size, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": points.nbytes},
            {"buffer": 0, "byteOffset": points.nbytes, "byteLength": indices.nbytes},
        ],
        "buffers": [{"byteLength": len(body)}],
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def sheet() -> bytes:
    """Stills of one colour, laid out as `SHEET` says."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 120, 40)).save(buffer, "WEBP")
    return buffer.getvalue()
