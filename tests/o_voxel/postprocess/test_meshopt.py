"""The codecs of EXT_meshopt_compression against three's decoder, on random and awkward input."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from o_voxel.postprocess.writers.meshopt import (
    by_first_use,
    encode_attributes,
    encode_triangles,
    octahedral,
    walk_order,
)

from .test_gltf_node import NODE, READY

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(not READY, reason="needs node, and `npm ci` in tests/node"),
]


def decode(cases: list[dict[str, object]], folder: Path) -> list[list[int]]:
    """Bytes or indices as three's decoder reads them."""
    (folder / "cases.json").write_text(json.dumps(cases))
    command = ["node", str(NODE / "meshopt.mjs"), str(folder / "cases.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


def test_attributes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    cases, truths = [], []
    for stride in (4, 8, 12, 64):
        for count in (1, 15, 16, 17, 255, 256, 257, 1000):
            for spread in (0, 1, 3, 20, 255):
                steps = random.integers(-spread, spread + 1, (count, stride))
                data = np.cumsum(steps, axis=0).astype(np.uint8)
                truths.append(data.reshape(-1).tolist())
                stream = encode_attributes(data)
                cases.append({"mode": "ATTRIBUTES", "count": count, "stride": stride, "data": stream.hex()})
    assert decode(cases, tmp_path) == truths


def test_octahedral_normals(tmp_path: Path) -> None:
    normals = np.random.default_rng(2).normal(size=(500, 3))
    normals = np.concatenate([normals, np.eye(3), -np.eye(3)])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    data = octahedral(normals)
    case = {"mode": "ATTRIBUTES", "count": len(data), "stride": 4, "filter": "OCTAHEDRAL"}
    (found,) = decode([case | {"data": encode_attributes(data.view(np.uint8)).hex()}], tmp_path)
    shown = np.array(found, np.uint8).view(np.int8).reshape(-1, 4)[:, :3].astype(float)
    cosine = (shown * normals).sum(axis=1) / np.linalg.norm(shown, axis=1)
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 1.2


def grid(side: int) -> np.ndarray:
    y, x = np.mgrid[: side - 1, : side - 1]
    a = (y * side + x).reshape(-1)
    return np.concatenate([np.stack([a, a + 1, a + side], 1), np.stack([a + 1, a + side + 1, a + side], 1)])


def turned(faces: np.ndarray) -> np.ndarray:
    """Each face with its smallest corner first: a decoder may begin it at another one."""
    start = faces.argmin(axis=1)[:, None]
    return np.take_along_axis(faces, (start + np.arange(3)) % 3, axis=1)


def test_triangles(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    meshes = [np.array([[0, 1, 2]]), np.array([[5, 9, 70000]]), grid(2), grid(40)]
    for top in (4, 40, 4000, 1 << 20):
        faces = random.integers(0, top, (500, 3))
        meshes.append(faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)])
    meshes += [by_first_use(walk_order(grid(40)))[0], walk_order(grid(40))[::-1]]
    cases = [
        {"mode": "TRIANGLES", "count": faces.size, "stride": 4, "data": encode_triangles(faces).hex()}
        for faces in meshes
    ]
    for faces, found in zip(meshes, decode(cases, tmp_path), strict=True):
        np.testing.assert_array_equal(turned(np.reshape(found, (-1, 3))), turned(faces))


def test_an_ordered_mesh_takes_little_more_than_a_byte_a_triangle() -> None:
    faces = grid(100)
    walked, order = by_first_use(walk_order(faces))
    assert len(encode_triangles(walked)) < 1.3 * len(faces)
    np.testing.assert_array_equal(np.unique(turned(order[walked]), axis=0), np.unique(turned(faces), axis=0))
