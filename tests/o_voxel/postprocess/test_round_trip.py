"""Mesh to dual grid to mesh to GLB: the shape and colours that went in come out."""

from __future__ import annotations

import torch
from o_voxel.postprocess import to_glb

from benchmarks.glb import baked_colours, psnr, symmetric_chamfer, z_up

from .objects import colours, decoded, sphere

RESOLUTION = 96


def dented_ball() -> tuple[torch.Tensor, torch.Tensor]:
    vertices, faces = sphere(0.38, 90)
    wave = torch.sin(vertices * 22).prod(dim=1, keepdim=True)
    return vertices * (1 + 0.08 * wave), faces


def test_shape_colour_and_closedness() -> None:
    mesh = dented_ball()
    asset = to_glb(**decoded(mesh, RESOLUTION), decimation_target=8000, texture_size=512)
    result = (z_up(asset.vertices), asset.faces)
    assert symmetric_chamfer((mesh[0].numpy(), mesh[1].numpy()), result) * RESOLUTION <= 0.5
    points, shown = baked_colours(asset)
    assert psnr(shown, colours(torch.from_numpy(points).float()).numpy()) >= 30
    assert asset.report.boundary_edges == 0
    assert asset.report.watertight
