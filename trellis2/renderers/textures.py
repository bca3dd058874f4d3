"""Textured PBR materials at the pixels of a rendering."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from trellis2.representations import MeshWithPbrMaterial, PbrMaterial, Texture

MAX_DERIVATIVE = 1e3


def material_attrs(mesh: MeshWithPbrMaterial, face_id: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Base colour, metallic, roughness, alpha [P, 6] at points on faces.

    face_id: [P]. weights: [3, P, 3] barycentrics at the pixel, one pixel to its right and one below: the
    change of the texture coordinate between them picks the mip level.
    """
    corners = mesh.uv_coords.index_select(0, face_id)  # [P, 3, 2]
    here, right, below = (torch.einsum("pk,pkc->pc", w, corners) for w in weights)
    across = (right - here).clamp(-MAX_DERIVATIVE, MAX_DERIVATIVE)
    down = (below - here).clamp(-MAX_DERIVATIVE, MAX_DERIVATIVE)
    material = mesh.material_ids.index_select(0, face_id)
    out = here.new_zeros((face_id.shape[0], 6))
    for number, m in enumerate(mesh.materials):
        rows = torch.nonzero(material == number).squeeze(1)
        if rows.numel():
            out[rows] = _evaluate(m, here[rows], across[rows], down[rows])
    return out


def _evaluate(m: PbrMaterial, uv: torch.Tensor, across: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    from trellis2.representations import AlphaMode

    def value(texture: Texture | None, channels: int) -> torch.Tensor:
        if texture is None:
            return uv.new_ones((uv.shape[0], channels))
        return sample_texture(texture, uv, across, down)[:, :channels]

    factor = torch.as_tensor(m.base_color_factor, dtype=uv.dtype, device=uv.device)[:3]
    alpha = value(m.alpha_texture, 1) * m.alpha_factor
    if m.alpha_mode == AlphaMode.OPAQUE:
        alpha = torch.ones_like(alpha)
    elif m.alpha_mode == AlphaMode.MASK:
        alpha = (alpha > m.alpha_cutoff).to(uv.dtype)
    return torch.cat(
        [
            value(m.base_color_texture, 3) * factor,
            value(m.metallic_texture, 1) * m.metallic_factor,
            value(m.roughness_texture, 1) * m.roughness_factor,
            alpha,
        ],
        1,
    )


def sample_texture(
    texture: Texture, uv: torch.Tensor, across: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """[P, C] at uv [P, 2]: nearest, or trilinear with the mip level of the longer derivative [P, 2]."""
    from trellis2.representations import FilterMode, WrapMode

    image = texture.image.to(uv)
    repeat = texture.wrap_mode != WrapMode.CLAMP_TO_EDGE
    if texture.filter_mode == FilterMode.CLOSEST:
        return _nearest(image, uv, repeat)
    size = torch.tensor([image.shape[1], image.shape[0]], dtype=uv.dtype, device=uv.device)
    span = torch.maximum((across * size).norm(dim=-1), (down * size).norm(dim=-1))
    levels = _mips(image)
    level = torch.log2(span.clamp(min=1e-8)).clamp(0.0, len(levels) - 1.0)
    below = level.long().clamp(max=max(len(levels) - 2, 0))
    out = uv.new_empty((uv.shape[0], image.shape[2]))
    for n in range(max(len(levels) - 1, 1)):
        rows = torch.nonzero(below == n).squeeze(1)
        if rows.numel():
            fine = _bilinear(levels[n], uv[rows], repeat)
            coarse = _bilinear(levels[min(n + 1, len(levels) - 1)], uv[rows], repeat)
            out[rows] = torch.lerp(fine, coarse, (level[rows] - n)[:, None])
    return out


def _mips(image: torch.Tensor) -> list[torch.Tensor]:
    """The picture and its halvings while both sides are even."""
    levels = [image]
    while levels[-1].shape[0] % 2 == 0 and levels[-1].shape[1] % 2 == 0:
        half = F.avg_pool2d(levels[-1].permute(2, 0, 1)[None], 2)[0].permute(1, 2, 0)
        levels.append(half.contiguous())
    return levels


def _index(i: torch.Tensor, size: int, repeat: bool) -> torch.Tensor:
    return i % size if repeat else i.clamp(0, size - 1)


def _nearest(image: torch.Tensor, uv: torch.Tensor, repeat: bool) -> torch.Tensor:
    height, width, _ = image.shape
    column = _index((uv[:, 0] * width).floor().long(), width, repeat)
    row = _index((uv[:, 1] * height).floor().long(), height, repeat)
    return image[row, column]


def _bilinear(image: torch.Tensor, uv: torch.Tensor, repeat: bool) -> torch.Tensor:
    height, width, _ = image.shape
    x, y = uv[:, 0] * width - 0.5, uv[:, 1] * height - 0.5
    x0, y0 = x.floor(), y.floor()
    wx, wy = (x - x0)[:, None], (y - y0)[:, None]
    columns = [_index(x0.long() + k, width, repeat) for k in (0, 1)]
    rows = [_index(y0.long() + k, height, repeat) for k in (0, 1)]
    top = torch.lerp(image[rows[0], columns[0]], image[rows[0], columns[1]], wx)
    bottom = torch.lerp(image[rows[1], columns[0]], image[rows[1], columns[1]], wx)
    return torch.lerp(top, bottom, wy)


def neighbour_weights(
    clip: torch.Tensor, faces: torch.Tensor, face_id: torch.Tensor, pixels: torch.Tensor, size: int
) -> torch.Tensor:
    """[3, P, 3] barycentrics of each pixel's face at the pixel, one to the right and one below."""
    corners = clip[faces.index_select(0, face_id).long()]  # [P, 3, 4]
    x = (pixels % size + 0.5) / size * 2.0 - 1.0
    y = (pixels // size + 0.5) / size * 2.0 - 1.0
    step = 2.0 / size
    return torch.stack([_homogeneous(corners, x + dx, y + dy) for dx, dy in ((0, 0), (step, 0), (0, step))])


def _homogeneous(corners: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """[P, 3] perspective-correct barycentrics at clip-space x, y of triangles [P, 3, 4]."""
    px = corners[..., 0] - x[:, None] * corners[..., 3]
    py = corners[..., 1] - y[:, None] * corners[..., 3]
    second, third = (1, 2, 0), (2, 0, 1)
    e = px[:, second] * py[:, third] - py[:, second] * px[:, third]
    total = e.sum(1, keepdim=True)
    safe = torch.where(total == 0, torch.ones_like(total), total)
    return torch.where(total == 0, torch.full_like(e, 1.0 / 3.0), e / safe)
