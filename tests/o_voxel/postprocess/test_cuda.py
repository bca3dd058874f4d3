"""The same asset on CUDA, within what other summation orders change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from o_voxel.postprocess import to_glb

from benchmarks.glb import baked_colours, psnr

from .objects import colours

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("remesh", [False, True])
def test_to_glb_on_cuda(ball: dict[str, Any], remesh: bool) -> None:
    there = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in ball.items()}
    settings: dict[str, Any] = {"decimation_target": 1500, "texture_size": 256, "normal_map": True}
    here = to_glb(**ball, **settings, remesh=remesh)
    asset = to_glb(**there, **settings, remesh=remesh)
    assert asset.report.boundary_edges == 0
    assert asset.report.faces == pytest.approx(here.report.faces, rel=0.1)
    np.testing.assert_allclose(
        asset.report.bounding_box, here.report.bounding_box, atol=1.5 / ball["grid_size"]
    )
    points, shown = baked_colours(asset)
    assert psnr(shown, colours(torch.from_numpy(points).float()).numpy()) > 30
