"""Mutated states and pictures through the parsers: `python -m tests.trellis2_modal.service.fuzz [--count N]`.

A parser may refuse with its own error and do nothing else: no other exception, no more than a second, no
memory above the ceiling. The exit status is 1 when one did, with the seed and index to repeat it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from trellis2.conditioning.images import load_image
from trellis2.errors import InvalidImageError as UnusableImageError
from trellis2_modal.protocol.errors import InvalidImageError, ServiceError
from trellis2_modal.protocol.limits import MAX_STATE_RAW_BYTES
from trellis2_modal.protocol.state import (
    MeshState,
    compress_state,
    decompress_state,
    pack_state,
    peek_state,
    unpack_state,
)
from trellis2_modal.service.http.pictures.checks import check_structure, picture_bytes

SLOWEST = 1.0
NUMBERS = (0, 1, -1, 127, 255, 2**15, 2**31 - 1, 2**32, 2**40, 2**63, 10**30)


@dataclass
class Findings:
    """What happened: cases by target and outcome, the slowest case, and what must not happen."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)


def fuzz(count: int, seed: int = 0) -> Findings:
    """Run `count` mutations, spread over all targets."""
    rng = random.Random(seed)
    targets = _targets()
    findings = Findings()
    for index in range(count):
        name, parse, samples = targets[index % len(targets)]
        data = _mutate(rng, rng.choice(samples), samples)
        start = time.perf_counter()
        try:
            parse(data)
            outcome = "accepted"
        except ServiceError:
            outcome = "refused"
        except Exception as error:
            outcome = "FAULT"
            findings.faults.append(f"{name} seed {seed} index {index}: {error!r}")
        seconds = time.perf_counter() - start
        findings.outcomes[f"{name} {outcome}"] += 1
        findings.slowest = max(findings.slowest, seconds)
        if seconds > SLOWEST:
            findings.faults.append(f"{name} seed {seed} index {index}: {seconds:.1f} s")
    return findings


Target = tuple[str, Callable[[bytes], object], list[bytes]]


def _targets() -> list[Target]:
    states = [sample_state(n) for n in (4, 12)]
    packed = [pack_state(s, lossless) for s in states for lossless in (False, True)]
    frames = [compress_state(p) for p in packed]
    pictures = _pictures()
    data_urls = [b"data:image/png;base64," + base64.b64encode(pictures[0])]
    return [
        ("state frame", lambda data: unpack_state(decompress_state(data)), frames),
        ("state header", lambda data: peek_state(compress_state(data)), packed),
        ("state arrays", unpack_state, packed),
        ("picture", check_structure, pictures),
        ("picture in base64", _from_base64, [base64.b64encode(p) for p in pictures] + data_urls),
        ("picture's pixels", _decode, pictures),
    ]


def _from_base64(data: bytes) -> None:
    asyncio.run(picture_bytes(data.decode("latin-1")))


def _decode(data: bytes) -> None:
    """What the worker does with a picture that the gateway let through."""
    check_structure(data)
    try:
        load_image(data)
    except UnusableImageError as error:
        raise InvalidImageError(str(error)) from error


def sample_state(side: int) -> MeshState:
    """A flat sheet of `side` squared voxels with all its quads."""
    x, y = (a.ravel() for a in np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    coords = np.stack([x, y, np.full_like(x, side // 2)], axis=1).astype(np.int32)
    cell = (np.arange(side * side).reshape(side, side)[:-1, :-1]).ravel()
    a, b, c, d = cell, cell + 1, cell + side + 1, cell + side
    faces = np.stack([a, b, c, a, c, d], axis=1).reshape(-1, 3).astype(np.int32)
    vertices = ((coords + 0.5) / side - 0.5).astype(np.float32)
    attrs = np.linspace(0, 1, 6 * len(coords), dtype=np.float32).reshape(-1, 6)
    return MeshState(vertices, faces, coords, attrs, voxel_size=1 / side)


def _pictures() -> list[bytes]:
    image = Image.new("RGBA", (40, 30), (200, 30, 30, 255))
    ImageDraw.Draw(image).ellipse((5, 5, 30, 25), fill=(20, 200, 30, 128))
    found = []
    for kind in ("PNG", "JPEG", "WEBP"):
        buffer = io.BytesIO()
        image.convert("RGB" if kind == "JPEG" else "RGBA").save(buffer, kind)
        found.append(buffer.getvalue())
    return found


def _mutate(rng: random.Random, sample: bytes, others: list[bytes]) -> bytes:
    data = bytearray(sample)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        if not data:
            break
        at = rng.randrange(len(data))
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del data[at : at + rng.choice((1, 4, 64, len(data)))]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 16)))
        elif kind == 4:
            number = rng.choice(NUMBERS) & (2**64 - 1)
            data[at : at + 8] = number.to_bytes(8, rng.choice(("little", "big")))
        elif kind == 5:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            data[at:] = other[start:]
        else:
            data = bytearray(_change_number(rng, bytes(data)))
    return bytes(data)


def _change_number(rng: random.Random, data: bytes) -> bytes:
    """Replace one decimal number (a count or an offset of a JSON header) by an interesting one."""
    places = list(re.finditer(rb"\d+", data[:4096]))
    if not places:
        return data
    place = rng.choice(places)
    return data[: place.start()] + str(rng.choice(NUMBERS)).encode() + data[place.end() :]


def peak_memory() -> int:
    """This process's peak resident memory in bytes; 0 where the platform does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.trellis2_modal.service.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    before = peak_memory()
    findings = fuzz(options.count, options.seed)
    grown = peak_memory() - before
    for name, number in sorted(findings.outcomes.items()):
        print(f"{name:28} {number}")
    print(f"slowest {findings.slowest * 1000:.1f} ms, memory grew by {grown >> 20} MiB at most")
    if grown > MAX_STATE_RAW_BYTES:
        findings.faults.append(f"memory grew by {grown} bytes")
    for fault in findings.faults:
        print(fault)
    return 1 if findings.faults else 0


if __name__ == "__main__":
    sys.exit(main())
