"""The autoencoder stages: the sparse structure's, and the shape's and the texture's on the same voxels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.sparse_blocks import SparseResBlockC2S3d, SparseResBlockS2C3d
from ..sparse import SparseSpatial2Channel, SparseTensor
from ..sparse.resample import CHILDREN
from .config import MiniConfig
from .data import TableBank, VoxelPool, Voxels
from .loop import Recipe
from .losses import dice, kl, shape_terms
from .runtime import Runtime
from .voxelize import occupancy

# Stronger than published (1e-6): noise in the posterior makes small decoders forgive the errors of small
# flows.
LATENT_KL = 1e-4
# Deviation e^-3 of a young posterior: with the unit noise of a plain start nothing is learnt for long.
_QUIET_LOG_VARIANCE = -6.0


def start_quiet(projection: nn.Linear | nn.Conv3d) -> None:
    """Let an untrained encoder's projection `[..., 2 * latent]` begin with little posterior noise."""
    assert projection.bias is not None
    latent = projection.bias.shape[0] // 2
    with torch.no_grad():
        projection.weight[latent:] *= 0.1
        projection.bias[latent:] = _QUIET_LOG_VARIANCE


@torch.no_grad()
def whiten(projection: nn.Linear, features: Tensor) -> None:
    """Start the latent's mean at the strongest principal components of `features` `[N, C]`, centred and of
    unit variance: one direction holds most of the variance, and gradients would follow it alone.
    """
    latent = projection.out_features // 2
    features = features.float()
    mean = features.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((features - mean).T))  # ascending
    rows = vectors[:, -latent:].T / values[-latent:, None].clamp(min=1e-6).sqrt()
    projection.weight[:latent] = rows
    projection.bias[:latent] = -rows @ mean


# How loud the constructed part of a young block is, and how much of the usual random start is mixed in.
_PROJECTED, _MERGED, _COPIED, _RANDOM = 2.0, 0.7, 4.0, 0.3


@torch.no_grad()
def let_information_through(network: nn.Module) -> None:
    """Start the blocks that change the resolution so that a voxel's features survive all of them.

    As they are born their second convolutions are zero, and the way around them averages or repeats a few
    channels: at these narrow widths nothing of the input is left after two levels, and nothing is learnt for
    long. Here a down block passes on the mean of its children's features and an up block copies the parent's
    to every child, both through a random orthogonal projection, with some of the usual noise.
    """
    for block in network.modules():
        if not isinstance(block, (SparseResBlockC2S3d, SparseResBlockS2C3d)):
            continue
        block.conv2.reset_parameters()
        for conv in (block.conv1, block.conv2):
            conv.weight.mul_(_RANDOM)
        first, second = block.conv1.weight[:, 1, 1, 1], block.conv2.weight[:, 1, 1, 1]  # the voxel itself
        if isinstance(block, SparseResBlockS2C3d):
            first.add_(nn.init.orthogonal_(torch.empty_like(first)), alpha=_PROJECTED)
            share = block.out_channels // CHILDREN
            mixed = nn.init.orthogonal_(first.new_empty(block.out_channels, share)) * CHILDREN**0.5
            second.add_(mixed @ torch.eye(share).repeat(1, CHILDREN), alpha=_MERGED)
        else:
            projection = nn.init.orthogonal_(first.new_empty(block.out_channels, block.channels))
            first.add_(projection.repeat(CHILDREN, 1), alpha=_PROJECTED)
            second.add_(torch.eye(block.out_channels), alpha=_COPIED)


class SparseStructureVae:
    """Occupancy at 64^3 to a small dense latent and back: the published dice and KL, with cross-entropy.

    While training, heads read a coarser occupancy from the decoder's inner volumes: the error then reaches
    the latent on a short way.
    """

    name = "ss_vae"
    recipe = Recipe(lr=1.5e-3)

    def __init__(self, config: MiniConfig, bank: TableBank, runtime: Runtime, batch: int = 16) -> None:
        self.runtime, self.bank, self.batch = runtime, bank, batch
        self.encoder, self.decoder = config.build("ss_enc"), config.build("ss_dec")
        start_quiet(self.encoder.out_layer[-1])
        self.heads = nn.ModuleList(nn.Conv3d(width, 1, 1) for width in config.ss_channels[:-1])
        self.networks: dict[str, nn.Module] = {
            "ss_enc": self.encoder,
            "ss_dec": self.decoder,
            "ss_heads": self.heads,
        }
        for network in self.networks.values():
            network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._inner: list[Tensor] = []
        ups = [b for b in self.decoder.blocks if hasattr(b, "conv")][:-1]
        for block in (self.decoder.middle_block, *ups):
            block.register_forward_hook(lambda _m, _i, out: self._inner.append(out))

    def losses(self, progress: float) -> dict[str, Tensor]:
        truth = occupancy(self.bank.draw(self.batch)[1])
        self._inner.clear()
        z, mean, logvar = self.encoder(truth, sample_posterior=True, return_raw=True)
        logits = self.decoder(z).float()
        # Few cells are occupied: without a weight the first thing learnt is to leave everything empty.
        weight = truth.new_tensor(8.0 if progress < 0.3 else 2.0)
        terms = {
            "dice": dice(logits, truth),
            "bce": F.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight),
            "kl": 1e-3 * kl(mean.float(), logvar.float()),
        }
        coarse = [
            F.binary_cross_entropy_with_logits(
                head(volume).float(), F.max_pool3d(truth, truth.shape[-1] // volume.shape[-1])
            )
            for head, volume in zip(self.heads, self._inner, strict=True)
        ]
        predicted, actual = logits > 0, truth > 0
        return {
            **terms,
            "coarse": 0.3 * torch.stack(coarse).sum(),
            "_iou": (predicted & actual).sum() / (predicted | actual).sum().clamp(min=1),
            "_std": mean.float().std(),
        }


# Until this share of the budget, the voxels are this many times coarser: many small objects, cheap steps.
SCHEDULE = ((0.35, 4), (0.65, 2), (1.0, 1))
_COARSEST = 32
_MOST_OBJECTS = 32


class VoxelVaes:
    """The shape's and the texture's autoencoder, two networks apart, on the same batches of voxels."""

    name = "vaes"
    recipe = Recipe(lr=2e-3)

    def __init__(
        self,
        config: MiniConfig,
        bank: TableBank,
        runtime: Runtime,
        budget: int = 700_000,
        young: bool = True,
    ) -> None:
        self.runtime, self.bank, self.budget, self.young = runtime, bank, budget, young
        self.schedule: Sequence[tuple[float, int]] = SCHEDULE if young else ((1.0, 1),)
        self.resolution = config.resolution
        self.pools: dict[int, VoxelPool] = {}
        names = ("shape_enc", "shape_dec", "tex_enc", "tex_dec")
        self.networks: dict[str, nn.Module] = {name: config.build(name) for name in names}
        for name, network in self.networks.items():
            let_information_through(network)
            if name.endswith("enc"):
                start_quiet(network.to_latent)  # type: ignore[arg-type]
        self.heads = nn.ModuleList(nn.Linear(w, 6) for w in (config.latent, *config.decoder_widths[1:-1]))
        self.networks["tex_heads"] = self.heads
        self._inner: list[SparseTensor] = []
        for level in list(self.networks["tex_dec"].blocks)[:-2]:  # type: ignore[arg-type]
            level[-1].register_forward_hook(lambda _m, _i, out: self._inner.append(out))

    def _batch(self, progress: float) -> Voxels:
        factor = next(f for until, f in self.schedule if progress <= until)
        resolution = max(self.resolution // factor, _COARSEST)
        if resolution not in self.pools:
            self.pools = {resolution: VoxelPool(self.bank, resolution)}
        return self.pools[resolution].batch(self.budget, _MOST_OBJECTS)

    def losses(self, progress: float) -> dict[str, Tensor]:
        voxels = self._batch(progress)
        if self.young:
            self.young = False
            self._whiten(voxels)
        return {**self._shape(voxels), **self._texture(voxels.attributes)}

    def _whiten(self, voxels: Voxels) -> None:
        inputs = {"shape_enc": (voxels.vertices, voxels.intersected), "tex_enc": (voxels.attributes,)}
        for name, arguments in inputs.items():
            encoder = self.networks[name]
            projection: nn.Linear = encoder.to_latent  # type: ignore[assignment]
            seen: list[Tensor] = []
            hook = projection.register_forward_pre_hook(lambda _m, given, seen=seen: seen.append(given[0]))
            with torch.no_grad():
                encoder(*arguments)
            hook.remove()
            whiten(projection, seen[0])
            self.runtime.broadcast([p.data for p in projection.parameters()])

    def _shape(self, voxels: Voxels) -> dict[str, Tensor]:
        z, mean, logvar = self.networks["shape_enc"](
            voxels.vertices, voxels.intersected, sample_posterior=True, return_raw=True
        )
        _, vertices, logits, truths, subs = self.networks["shape_dec"](z)
        flags = voxels.intersected.feats
        terms = shape_terms(voxels.vertices.feats, flags, vertices.feats, logits.feats, truths, subs)
        return {
            **terms,
            "shape_kl": LATENT_KL * kl(mean.float(), logvar.float()),
            "_flag_error": ((logits.feats > 0) != flags).float().mean(),
            "_child_error": ((subs[-1].feats > 0) != truths[-1]).float().mean(),
            "_shape_std": mean.float().std(),
        }

    def _texture(self, truth: SparseTensor) -> dict[str, Tensor]:
        self._inner.clear()
        z, mean, logvar = self.networks["tex_enc"](truth, sample_posterior=True, return_raw=True)
        gap = (self.networks["tex_dec"](z).feats.float() - truth.feats).abs()
        inner = [z.feats, *(F.layer_norm(x.feats.float(), x.feats.shape[-1:]) for x in self._inner)]
        targets = coarse_means(truth, len(inner))
        coarse = [
            (head(x).float() - target).abs().mean()
            for head, x, target in zip(self.heads, inner, reversed(targets), strict=True)
        ]
        return {
            "l1": gap.mean(),
            "coarse": 0.5 * torch.stack(coarse).sum(),
            "tex_kl": LATENT_KL * kl(mean.float(), logvar.float()),
            "_base_color_mae": gap[:, :3].mean() / 2,
            "_latent_mae": coarse[0].detach(),
            "_tex_std": mean.float().std(),
        }


def coarse_means(x: SparseTensor, levels: int) -> list[Tensor]:
    """Means `[N_i, C]` of features over the voxels of 1, 2, ... `levels` halvings, rows as every network
    orders them; the finest first.
    """
    merge = SparseSpatial2Channel()
    channels = x.feats.shape[1] + 1
    sums = x.replace(torch.cat([x.feats, torch.ones_like(x.feats[:, :1])], 1))
    means = []
    for _ in range(levels):
        stacked = merge(sums)
        sums = stacked.replace(stacked.feats.unflatten(1, (-1, channels)).sum(1))
        means.append(sums.feats[:, :-1] / sums.feats[:, -1:])
    return means
