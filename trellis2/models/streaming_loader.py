"""Reading a safetensors file tensor by tensor, straight into memory that is already there.

The library's own reader maps the whole file; here a tensor's bytes go from the file into their place, so that
memory never holds more than the weights and one tensor, and files load side by side (reading releases the
interpreter lock).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import CheckpointError

_DTYPES = {
    "C64": torch.complex64,
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_HEADER_LIMIT = 100_000_000  # as the format's own reader


@dataclass(frozen=True)
class Entry:
    """One stored tensor."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # of its bytes in the file
    size: int


def read_header(file: BinaryIO, path: Path) -> dict[str, Entry]:
    """The stored tensors by name, in file order. Raises CheckpointError unless header and size add up."""
    total = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    if total < 8 or length > min(total - 8, _HEADER_LIMIT):
        raise CheckpointError(
            f"{path}: a header of {length} bytes is declared in a file of {total}: damaged or not "
            "safetensors; download it again"
        )
    try:
        header = json.loads(file.read(length))
        entries = [_entry(name, info, 8 + length) for name, info in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: the safetensors header cannot be read ({error}); download it again"
        ) from error
    entries.sort(key=lambda e: e.start)
    position = 8 + length
    for entry in entries:
        count = 1
        for extent in entry.shape:
            count *= extent
        if entry.start != position or entry.size != count * entry.dtype.itemsize:
            raise CheckpointError(
                f"{path}: tensor {entry.name} {list(entry.shape)} does not fit its byte range"
            )
        position += entry.size
    if position != total:
        raise CheckpointError(
            f"{path}: tensors end at byte {position} but the file has {total}: truncated or damaged; "
            "download it again"
        )
    return {entry.name: entry for entry in entries}


def _entry(name: str, info: dict, base: int) -> Entry:
    start, stop = (int(x) for x in info["data_offsets"])
    shape = tuple(int(x) for x in info["shape"])
    if stop < start or start < 0 or any(x < 0 for x in shape):
        raise ValueError(f"tensor {name} has a negative extent")
    return Entry(name, _DTYPES[info["dtype"]], shape, base + start, stop - start)


def read_into(file: BinaryIO, entry: Entry, target: torch.Tensor) -> None:
    """Read a tensor's bytes into `target` (its shape, any device and dtype), converting on the way if need
    be.
    """
    direct = target.device.type == "cpu" and target.dtype == entry.dtype and target.is_contiguous()
    place = target if direct else torch.empty(entry.shape, dtype=entry.dtype)
    if entry.size:
        file.seek(entry.start)
        view = memoryview(place.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        done = 0
        while done < entry.size:
            count = file.readinto(view[done:])  # type: ignore[attr-defined]
            if not count:
                raise CheckpointError(f"tensor {entry.name} ends after {done} of {entry.size} bytes")
            done += count
    if not direct:
        target.copy_(place)
