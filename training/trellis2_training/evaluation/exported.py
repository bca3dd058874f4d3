"""Scores of an asset as a user gets it: exported for the web, seen by the camera that took the picture.

Pictures of base colour are compared, not lit ones, so that light, which the exporter does not know, counts
nothing. Pearson's correlation is over the colours of pixels that both pictures cover, each less its own mean;
SSIM (Wang et al. 2004: 11 x 11 Gaussian of 1.5 pixels, constants 0.01 and 0.03) is the mean over the pixels
that either covers, on black. From the true camera a pattern counts only where it lies to the pixel, and a
camera that the weights read a few degrees wrong moves all of it; so crops to the silhouette, seen by the
camera as read, are compared as well ("read"): whether the asset looks like its picture from there.
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
_BOX = 256  # pixels along a crop
LEAST_SPREAD = 0.04  # of the true colours, for a correlation to mean something


def exported_scores(
    asset: Any,
    view: rd.View,
    picture: rd.Picture,
    target: Tensor,
    generator: torch.Generator,
    read: rd.View | None = None,
) -> dict[str, float]:
    """Shape against surface points `target [P, 3]`; silhouette, colours and patterns against the picture, of
    the whole frame of `view`, and crops of it where `read` is the camera that the weights read; how sound the
    mesh is.
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
    size, true, true_mask = picture.mask.shape[-1], picture.attributes[0, :3].cpu(), picture.mask[0, 0].cpu()
    colours, mask = base_colour_picture(vertices, faces, uvs, texture, view, size)
    from_read = {}
    if read is not None:
        seen = base_colour_picture(vertices, faces, uvs, texture, read, size)
        from_read = picture_scores(*boxed(*seen), *boxed(true, true_mask > 0.5))
    share = ms.dominant_share(*weld_vertices(vertices, faces))  # seams split vertices, not bodies
    return {
        "export_f_002": f_002,
        "export_f_005": f_005,
        "closed": float(quality.closed),
        "one_body": float(share >= DOMINANT_SHARE),
        **picture_scores(colours, mask, true, true_mask > 0.5),
        **{f"read_{name}": score for name, score in from_read.items()},
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


def boxed(colours: Tensor, mask: Tensor, size: int = _BOX) -> tuple[Tensor, Tensor]:
    """The tight square around the mask `[S, S]`, of it and of colours `[3, S, S]`, at `size`; all of an empty
    one.
    """
    whole = mask if bool(mask.any()) else torch.ones_like(mask)
    rows, columns = whole.nonzero().unbind(1)
    centre = [(line.min() + line.max() + 1) / 2 for line in (columns, rows)]
    half = torch.stack([line.max() - line.min() + 1 for line in (columns, rows)]).max() / 2
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    across, down = ((middle + half * axis) / mask.shape[0] * 2 - 1 for middle in centre)
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1)
    cover = mask[None].float()
    crop = F.grid_sample(torch.cat([colours * cover, cover])[None], grid[None], align_corners=False)[0]
    return crop[:3] / crop[3:].clamp(min=1e-3), crop[3] > 0.5


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
