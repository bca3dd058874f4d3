"""The eleven published models, built without memory, have exactly the tensors of their files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trellis2.models.loading import build
from trellis2.nn.precision import as_dtype

KEYS = Path(__file__).parents[2] / "golden" / "checkpoint_keys.json.gz"
PUBLISHED: dict[str, Any] = json.loads(gzip.decompress(KEYS.read_bytes()))


def test_all_eleven_are_listed() -> None:
    assert len(PUBLISHED) == 11


@pytest.mark.parametrize("checkpoint", PUBLISHED)
def test_names_shapes_and_dtypes_equal_the_published_file(checkpoint: str) -> None:
    published = PUBLISHED[checkpoint]
    model = build({"name": published["name"], "args": published["args"]}, device="meta")
    stored = model.stored_dtypes()
    ours = {name: (list(p.shape), p.dtype, stored[name]) for name, p in model.named_parameters()}
    theirs = {
        name: (shape, as_dtype(memory), as_dtype(storage))
        for name, (shape, memory, storage) in published["tensors"].items()
    }
    assert ours == theirs
    buffers = {
        name: [list(b.shape), str(b.dtype).removeprefix("torch.")] for name, b in model.named_buffers()
    }
    assert buffers == published["buffers"]
    assert sum(p.numel() for p in model.parameters()) == published["parameters"]
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("checkpoint", [k for k, v in PUBLISHED.items() if v["size_bytes"]])
def test_a_file_of_ours_has_the_published_length(checkpoint: str) -> None:
    published = PUBLISHED[checkpoint]
    model = build({"name": published["name"], "args": published["args"]}, device="meta")
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    stored, shapes = model.stored_dtypes(), {n: list(p.shape) for n, p in model.named_parameters()}
    header: dict[str, Any] = {}
    position = 0
    # The format's own order: widest dtype first, then by name.
    for name in sorted(shapes, key=lambda n: (-stored[n].itemsize, n)):
        size = torch.Size(shapes[name]).numel() * stored[name].itemsize
        header[name] = {
            "dtype": names[stored[name]],
            "shape": shapes[name],
            "data_offsets": [position, position + size],
        }
        position += size
    length = len(json.dumps(header, separators=(",", ":")))
    assert 8 + -(-length // 8) * 8 + position == published["size_bytes"]
