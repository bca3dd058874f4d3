"""The same pictures on CUDA, within what other roundings change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.objects import asset_of, benchmark_object
from trellis2.renderers import EnvMap, studio
from trellis2.representations import PBR_ATTR_LAYOUT, Mesh, Voxel
from trellis2.utils.render_utils import render_video

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def sample(kind: str, made: dict[str, Any]) -> Mesh | Voxel:
    if kind == "voxels":
        return Voxel([-0.5] * 3, 1 / made["resolution"], made["coords"], made["attrs"], PBR_ATTR_LAYOUT)
    return Mesh(made["vertices"], made["faces"]) if kind == "plain mesh" else asset_of(made)


@pytest.mark.parametrize("kind", ["asset", "plain mesh", "voxels"])
def test_pictures_on_cuda(kind: str) -> None:
    made = benchmark_object(64)
    there = {name: v.cuda() if isinstance(v, torch.Tensor) else v for name, v in made.items()}
    options = {"envmap": EnvMap(studio(64), cube_size=64)} if kind == "asset" else {}
    here = render_video(sample(kind, made), 128, num_frames=3, **options)
    found = render_video(sample(kind, there), 128, num_frames=3, **options)
    assert set(found) == set(here)
    for name, pictures in here.items():
        apart = np.abs(np.stack(pictures).astype(int) - np.stack(found[name]).astype(int))
        assert apart.mean() < 0.2, name
        assert (apart > 8).mean() < 0.002, name  # a silhouette's pixel may fall to the other side
