"""The training objectives, each a short function (formulas: the TRELLIS.2 training recipe, scaled down)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trellis2.sparse import SparseTensor

from .data.render import Picture

SIGMA_MIN = 1e-5


def kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """Divergence of a diagonal Gaussian from the unit one, mean over all entries."""
    return 0.5 * (mean.square() + logvar.exp() - logvar - 1).mean()


def dice(logits: Tensor, truth: Tensor) -> Tensor:
    """`1 - (2 sum(p y) + 1) / (sum p + sum y + 1)` with p the sigmoid, sums over the whole batch."""
    p = torch.sigmoid(logits.float())
    return 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)


def shape_terms(
    vertices: Tensor,
    flags: Tensor,
    pred_vertices: Tensor,
    pred_logits: Tensor,
    truths: Sequence[Tensor],
    subs: Sequence[SparseTensor],
) -> dict[str, Tensor]:
    """The direct terms of the shape autoencoder, with published weights; rows are aligned with the data."""
    levels = [
        F.binary_cross_entropy_with_logits(s.feats.float(), t.float())
        for s, t in zip(subs, truths, strict=True)
    ]
    return {
        "intersected": 0.1 * F.binary_cross_entropy_with_logits(pred_logits.float(), flags.float()),
        "vertice": 0.01 * F.mse_loss(pred_vertices.float(), vertices),
        "subdivision": 0.1 * torch.stack(levels).sum(),
    }


def flow_pair(x0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Noised data and target velocity; `t` already broadcasts against `x0`."""
    x_t = (1 - t) * x0 + (SIGMA_MIN + (1 - SIGMA_MIN) * t) * noise
    return x_t, (1 - SIGMA_MIN) * noise - x0


def logit_normal(count: int, mean: float, std: float, device: torch.device) -> Tensor:
    """Times biased towards noise (mean > 0)."""
    return torch.sigmoid(mean + std * torch.randn(count, device=device))


def shifted_times(count: int, device: torch.device, shift: float = 3.0, strongest: float = 0.0) -> Tensor:
    """Uniform times moved towards noise, as samplers with `rescale_t = shift` space their steps; a share
    `strongest` of them lies in the last twentieth.

    With thousands of voxels an object's mean colour shows through any less noise: only near time 1 must it be
    read from the picture.
    """
    t = torch.rand(count, device=device)
    shifted = shift * t / (1 + (shift - 1) * t)
    last = torch.rand(count, device=device) < strongest
    return torch.where(last, 1 - 0.05 * t, shifted)


def drop_condition(tokens: Tensor, probability: float = 0.1) -> Tensor:
    """Image tokens `[B, L, C]` with some items replaced by the null condition, all zeros."""
    keep = torch.rand(tokens.shape[0], 1, 1, device=tokens.device) >= probability
    return tokens * keep


def dense_terms(predicted: Tensor, picture: Picture) -> dict[str, Tensor]:
    """Auxiliary targets of the image encoder.

    `predicted` `[B, 12, P, P]` holds position, normal, base colour, metallic, roughness and mask logit for
    the maps
    of `picture`, sampled at the centres of P x P cells.
    """
    size, cells = picture.mask.shape[-1], predicted.shape[-1]
    step = size // cells
    pick = slice(step // 2, None, step)
    mask = picture.mask[..., pick, pick]
    weight = mask / mask.sum().clamp(min=1)

    def masked(first: int, truth: Tensor) -> Tensor:
        truth = truth[..., pick, pick]
        gap = (predicted[:, first : first + truth.shape[1]].float() - truth).abs()
        return (gap * weight).sum() / truth.shape[1]

    return {
        "position": 4 * masked(0, picture.position),
        "normal": 0.5 * masked(3, picture.normal),
        "base_color": masked(6, picture.attributes[:, :3]),
        "material": 0.5 * masked(9, picture.attributes[:, 3:5]),
        "mask": 0.2 * F.binary_cross_entropy_with_logits(predicted[:, 11:12].float(), mask),
    }
