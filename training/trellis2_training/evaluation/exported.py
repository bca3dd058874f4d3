"""Scores of an asset as a user gets it: exported for the web, seen by the camera that took the picture.

Pictures of base colour are compared, not lit ones, so that light, which the exporter does not know, counts
nothing. Pearson's correlation is over the colours of pixels that both pictures cover, each less its own mean;
SSIM (Wang et al. 2004: 11 x 11 Gaussian of 1.5 pixels, constants 0.01 and 0.03) is the mean over the pixels
that either covers, on black.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import render as rd
from . import measures as ms

# What the preset "web" asks of the mesh and its textures.
WEB: dict[str, Any] = {
    "decimation_target": 50_000,
    "texture_size": 1024,
    "remesh": "auto",
    "normal_map": True,
}
DOMINANT_SHARE = 0.98  # of the area, for an exported mesh to count as one piece
LEAST_SPREAD = 0.04  # of the true colours, for a correlation to mean something


def exported_scores(
    asset: Any, view: rd.View, picture: rd.Picture, target: Tensor, generator: torch.Generator
) -> dict[str, float]:
    """Shape against surface points `target [P, 3]`; silhouette, colours and patterns against the picture, of
    the whole frame of `view`; how sound the mesh is.
    """
    from o_voxel.mesh.quality import mesh_quality
    from o_voxel.mesh.repair.cleanup import weld_vertices
    from o_voxel.postprocess import to_glb

    made = to_glb(
        asset.vertices,
        asset.faces,
        asset.attrs,
        asset.coords,
        asset.layout,
        aabb=ms.AABB,
        voxel_size=asset.voxel_size,
        **WEB,
    )
    faces, uvs = torch.from_numpy(made.faces).long(), torch.from_numpy(made.uvs)
    x, y, z = torch.from_numpy(made.vertices).unbind(1)
    vertices = torch.stack([x, -z, y], 1)  # from glTF's frame
    points = ms.surface_points(vertices, faces, len(target), generator)
    f_002, f_005 = ms.f_scores(target, points, (0.02, 0.05))
    quality = mesh_quality(vertices, faces, look=False)
    texture = torch.from_numpy(made.material.base_color)[..., :3].float() / 255
    colours, mask = base_colour_picture(vertices, faces, uvs, texture, view, picture.mask.shape[-1])
    share = ms.dominant_share(*weld_vertices(vertices, faces))  # seams split vertices, not bodies
    return {
        "export_f_002": f_002,
        "export_f_005": f_005,
        "closed": float(quality.closed),
        "one_body": float(share >= DOMINANT_SHARE),
        **picture_scores(colours, mask, picture.attributes[0, :3].cpu(), picture.mask[0, 0].cpu() > 0.5),
    }


def base_colour_picture(
    vertices: Tensor, faces: Tensor, uvs: Tensor, texture: Tensor, view: rd.View, size: int
) -> tuple[Tensor, Tensor]:
    """Base colours `[3, S, S]` and mask `[S, S]` of a textured mesh (texture `[H, W, 3]`, v downwards) in the
    whole frame of the first camera of `view`, on the CPU.
    """
    from o_voxel.raster import interpolate, rasterize

    fragments = rasterize(clip_positions(vertices, view), faces.int(), (size, size))
    places = interpolate(uvs, faces, fragments) * 2 - 1
    sampled = F.grid_sample(texture.permute(2, 0, 1)[None], places[None], align_corners=False)[0]
    return sampled * fragments.mask, fragments.mask


def clip_positions(points: Tensor, view: rd.View) -> Tensor:
    """Clip coordinates `[V, 4]` of points `[V, 3]` for the rasteriser, whose row 0 is at the top."""
    position, right, up, forward, tangent = (
        getattr(view, name)[0].cpu() for name in ("position", "right", "up", "forward", "tangent")
    )
    away = points - position
    depth = away @ forward
    near, far = float(position.norm()) - 0.9, float(position.norm()) + 0.9
    z = ((far + near) * depth - 2 * far * near) / (far - near)
    return torch.stack([away @ right / tangent, -(away @ up) / tangent, z, depth], 1)


def picture_scores(made: Tensor, mask: Tensor, truth: Tensor, true_mask: Tensor) -> dict[str, float]:
    """Of base colours `[3, S, S]` where `mask [S, S]` is, against the true ones."""
    both, either = mask & true_mask, mask | true_mask
    scores = {"silhouette_iou": float(both.sum() / either.sum().clamp(min=1))}
    if not bool(both.any()):
        return scores
    a, b = made[:, both], truth[:, both]
    scores["seen_base_color_mae"] = float((a - b).abs().mean())
    spread = b - b.mean(1, keepdim=True)
    if float(spread.square().mean().sqrt()) >= LEAST_SPREAD:
        off = a - a.mean(1, keepdim=True)
        scores["correlation"] = float((off * spread).sum() / (off.norm() * spread.norm()).clamp(min=1e-9))
        scores["ssim"] = float(ssim(made * mask, truth * true_mask)[either].mean())
    return scores


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity `[H, W]` of pictures `[C, H, W]` in 0..1, the mean of their channels'."""
    x = torch.arange(11) - 5.0
    line = torch.exp(-x.square() / (2 * 1.5**2))
    kernel = (line[:, None] * line / line.sum() ** 2)[None, None]

    def blurred(values: Tensor) -> Tensor:
        return F.conv2d(values[:, None], kernel, padding=5)[:, 0]

    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    alike = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    return (alike * (2 * both + 0.03**2) / (var_a + var_b + 0.03**2)).mean(0)
