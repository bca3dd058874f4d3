"""Mesh to dual grid to mesh to GLB: the shape and colours that went in come out."""

from __future__ import annotations

import numpy as np
import torch
from o_voxel.mesh.bvh import TriangleBVH
from o_voxel.postprocess import to_glb

from .objects import decoded, sphere, surface_points
from .test_to_glb import baked_colours, colours

RESOLUTION = 96


def symmetric_chamfer(first: tuple, second: tuple, count: int = 20_000) -> float:
    """Mean of the two mean distances between surfaces, each (vertices, faces)."""
    total = 0.0
    for (vertices, faces), other in ((first, second), (second, first)):
        face, weights = surface_points(vertices, faces, count)
        points = (vertices[faces[face]] * weights[:, :, None]).sum(axis=1)
        tree = TriangleBVH(torch.from_numpy(other[0]).float(), torch.from_numpy(other[1]))
        total += float(tree.closest(torch.from_numpy(points).float()).distance.mean())
    return total / 2


def dented_ball() -> tuple[torch.Tensor, torch.Tensor]:
    vertices, faces = sphere(0.38, 90)
    wave = torch.sin(vertices * 22).prod(dim=1, keepdim=True)
    return vertices * (1 + 0.08 * wave), faces


def test_shape_colour_and_closedness() -> None:
    mesh = dented_ball()
    asset = to_glb(**decoded(mesh, RESOLUTION), decimation_target=8000, texture_size=512)
    z_up = np.stack([asset.vertices[:, 0], -asset.vertices[:, 2], asset.vertices[:, 1]], axis=1)
    chamfer = symmetric_chamfer((mesh[0].numpy(), mesh[1].numpy()), (z_up, asset.faces))
    assert chamfer * RESOLUTION <= 0.5
    points, shown = baked_colours(asset)
    error = np.mean((shown - colours(torch.from_numpy(points).float()).numpy()) ** 2)
    assert -10 * np.log10(error) >= 30
    assert asset.report.boundary_edges == 0
    assert asset.report.watertight
