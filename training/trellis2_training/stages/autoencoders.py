"""The autoencoder stages: the sparse structure's, and the shape's and the texture's on the same voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trellis2.sparse import SparseTensor

from ..config import MiniConfig
from ..data.batches import TableBank, VoxelPool, Voxels, channel_orders
from ..data.voxelize import occupancy
from ..data_dependent_init import means_by_level, start_decoder, start_encoder, start_quiet
from ..loop import Recipe
from ..losses import dice, kl, shape_terms
from ..runtime import Runtime

# Stronger than published (1e-6): noise in the posterior makes small decoders forgive the errors of small
# flows.
LATENT_KL = 5e-4


class SparseStructureVae:
    """Occupancy at 64^3 to a small dense latent and back: the published dice and KL, with cross-entropy.

    While training, heads read a coarser occupancy from the decoder's inner volumes: the error then reaches
    the latent on a short way.
    """

    name = "ss_vae"
    recipe = Recipe(lr=4e-4)

    def __init__(
        self,
        config: MiniConfig,
        bank: TableBank,
        runtime: Runtime,
        batch: int = 16,
        decoder: Any = None,
    ) -> None:
        """With a `decoder`, one that stays as it is."""
        self.runtime, self.bank, self.batch = runtime, bank, batch
        self.encoder, self.decoder = config.build("ss_enc"), decoder or config.build("ss_dec")
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


# Until this share of the budget, objects are cut into blocks of this many voxels a side: many pieces of many
# objects a step first, wider surroundings later.
SCHEDULE = ((0.4, 64), (0.9, 128), (1.0, 256))


class VoxelVae:
    """One of the two autoencoders over voxels, on blocks of many objects."""

    name: str
    recipe = Recipe(lr=3e-4)
    names: tuple[str, str]  # of its encoder and decoder

    def __init__(
        self,
        config: MiniConfig,
        bank: TableBank,
        runtime: Runtime,
        budget: int = 700_000,
        young: bool = True,
        objects: int = 24,
    ) -> None:
        self.runtime, self.budget = runtime, budget
        self.schedule: Sequence[tuple[float, int]] = SCHEDULE if young else SCHEDULE[-2:]
        self.pool = VoxelPool(bank, config.resolution, least_objects=objects)
        self.encoder, self.decoder = (config.build(name) for name in self.names)
        self.networks: dict[str, nn.Module] = dict(zip(self.names, (self.encoder, self.decoder), strict=True))
        if young:
            for network in self.networks.values():
                network.to(runtime.device)
            self.begin(self.batch(0.0))

    def batch(self, progress: float) -> Voxels:
        """Blocks for this point of the budget."""
        self.pool.cut_into(next(block for until, block in self.schedule if progress <= until))
        return self.pool.batch(self.budget)

    def begin(self, voxels: Voxels) -> None:
        """Fit the layers to one batch."""
        raise NotImplementedError

    def terms(self, voxels: Voxels) -> dict[str, Tensor]:
        """Weighted terms of one batch."""
        raise NotImplementedError

    def losses(self, progress: float) -> dict[str, Tensor]:
        return self.terms(self.batch(progress))


class ShapeVae(VoxelVae):
    """The shape's autoencoder."""

    name = "shape_vae"
    names = ("shape_enc", "shape_dec")

    def begin(self, voxels: Voxels) -> None:
        flags = voxels.intersected.feats.float()
        inputs = voxels.vertices.replace(torch.cat([voxels.vertices.feats, flags], 1) - 0.5)
        contents = surface_by_level(voxels.vertices, flags, len(self.decoder.blocks) - 1)
        m = self.decoder.voxel_margin
        inside = (voxels.vertices.feats + m) / (1 + 2 * m)
        outputs = torch.cat([torch.logit(inside, 0.01), 4 * flags - 2], 1)
        start_decoder(self.decoder, start_encoder(self.encoder, inputs, contents), contents, outputs)

    def terms(self, voxels: Voxels) -> dict[str, Tensor]:
        z, mean, logvar = self.encoder(
            voxels.vertices, voxels.intersected, sample_posterior=True, return_raw=True
        )
        return {
            **shape_losses(self.decoder, z, voxels),
            "kl": LATENT_KL * kl(mean.float(), logvar.float()),
            "_std": mean.float().std(),
        }


class TextureVae(VoxelVae):
    """The texture's autoencoder."""

    name = "tex_vae"
    names = ("tex_enc", "tex_dec")

    def begin(self, voxels: Voxels) -> None:
        colours = voxels.attributes
        contents = means_by_level(colours, len(self.decoder.blocks) - 1)
        start_decoder(self.decoder, start_encoder(self.encoder, colours, contents), contents, colours.feats)

    def terms(self, voxels: Voxels) -> dict[str, Tensor]:
        truth = voxels.attributes
        z, mean, logvar = self.encoder(truth, sample_posterior=True, return_raw=True)
        return {
            **texture_losses(self.decoder, z, truth),
            "kl": LATENT_KL * kl(mean.float(), logvar.float()),
            "_std": mean.float().std(),
        }


class MixedTexture(TextureVae):
    """The texture's decoder once more, on mixtures of two colourings of the same voxels.

    Where a flow cannot tell a colour it makes the mean of those it holds likely, a latent that no encoder
    makes. A decoder that has seen mixtures gives their colours' mean for it.
    """

    name = "tex_decoder"
    recipe = Recipe(lr=3e-5, warmup=20, ema=0.99)  # more disturbs what it reads of encoded latents

    def __init__(
        self,
        config: MiniConfig,
        bank: TableBank,
        runtime: Runtime,
        encoder: nn.Module,
        budget: int = 350_000,
        objects: int = 24,
    ) -> None:
        super().__init__(config, bank, runtime, budget, young=False, objects=objects)
        self.encoder = encoder
        self.networks = {"tex_dec": self.decoder}
        self.generator = bank.generator

    def terms(self, voxels: Voxels) -> dict[str, Tensor]:
        with torch.no_grad():
            first = voxels.attributes
            second = repainted(first, self.generator)
            share = mixing_shares(first.batch_size, self.generator).to(first.device)
            latents = [self.encoder(x) for x in (first, second)]
            rows = share[latents[0].coords[:, 0].long()]
            z = latents[0].replace(torch.lerp(latents[0].feats.float(), latents[1].feats.float(), rows))
            rows = share[first.coords[:, 0].long()]
            truth = first.replace(torch.lerp(first.feats, second.feats, rows))
        return texture_losses(self.decoder, z, truth)


_PURE = 0.4


def mixing_shares(count: int, generator: torch.Generator) -> Tensor:
    """How much of the second colouring each item holds, `[count, 1]`: none at all for two fifths of them."""
    drawn = torch.rand((2, count, 1), generator=generator)
    return torch.where(drawn[0] < _PURE, 0.0, drawn[1])


def repainted(attributes: SparseTensor, generator: torch.Generator) -> SparseTensor:
    """Attributes in -1..1 with the base colour of every item 0.3 to 2 times as bright, and half of the time
    with its channels permuted; material stays.
    """
    count = attributes.batch_size
    gain = torch.exp(torch.rand((count, 1), generator=generator) * 1.9 - 1.2)
    order = channel_orders(count, generator)
    rows = attributes.coords[:, 0].long()
    colour = attributes.feats[:, :3].gather(1, order.to(rows.device)[rows])
    colour = (gain.to(rows.device)[rows] * (colour + 1) / 2).clamp(0, 1) * 2 - 1
    return attributes.replace(torch.cat([colour, attributes.feats[:, 3:]], 1))


def shape_losses(decoder: nn.Module, z: SparseTensor, voxels: Voxels) -> dict[str, Tensor]:
    """What the shape's decoder makes of latents that remember their voxels, against the truth."""
    _, vertices, logits, truths, subs = decoder(z)
    flags = voxels.intersected.feats
    return {
        **shape_terms(voxels.vertices.feats, flags, vertices.feats, logits.feats, truths, subs),
        "_flag_error": ((logits.feats > 0) != flags).float().mean(),
        "_child_error": ((subs[-1].feats > 0) != truths[-1]).float().mean(),
    }


def texture_losses(decoder: nn.Module, z: SparseTensor, truth: SparseTensor) -> dict[str, Tensor]:
    """The same of the texture's decoder."""
    gap = (decoder(z).feats.float() - truth.feats).abs()
    return {"l1": gap.mean(), "_base_color_mae": gap[:, :3].mean() / 2}


def surface_by_level(vertices: SparseTensor, flags: Tensor, levels: int) -> list[Tensor]:
    """What voxels of each level hold of a surface, `[N_i, 6]`: the mean place of its dual vertices inside the
    voxel (-0.5..0.5), and the mean of the edge flags, which tells how it is turned.
    """
    places = vertices.coords[:, 1:] + vertices.feats.clamp(1e-3, 1 - 1e-3)  # within, for `frac`
    means = means_by_level(vertices.replace(torch.cat([places, flags], 1)), levels)
    return [torch.cat([(x[:, :3] / 2**i).frac() - 0.5, x[:, 3:]], 1) for i, x in enumerate(means)]
