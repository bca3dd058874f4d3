"""The three autoencoder stages: sparse structure, shape, texture."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .config import MiniConfig
from .data import TableBank, voxel_batch
from .loop import Recipe
from .losses import dice, kl, shape_terms
from .runtime import Runtime
from .voxelize import occupancy

# Stronger than published (1e-6): noise in the posterior makes small decoders forgive the errors of small
# flows.
LATENT_KL = 1e-4


class SparseStructureVae:
    """Occupancy at 64^3 to a small dense latent and back: the published dice and KL, with cross-entropy."""

    name = "ss_vae"
    recipe = Recipe(lr=1e-3)

    def __init__(self, config: MiniConfig, bank: TableBank, runtime: Runtime, batch: int = 24) -> None:
        self.runtime, self.bank, self.batch = runtime, bank, batch
        self.encoder, self.decoder = config.build("ss_enc"), config.build("ss_dec")
        self.networks: dict[str, nn.Module] = {"ss_enc": self.encoder, "ss_dec": self.decoder}

    def losses(self, progress: float) -> dict[str, Tensor]:
        truth = occupancy(self.bank.draw(self.batch)[1])
        z, mean, logvar = self.encoder(truth, sample_posterior=True, return_raw=True)
        logits = self.decoder(z).float()
        predicted, actual = logits > 0, truth > 0
        return {
            "dice": dice(logits, truth),
            "bce": F.binary_cross_entropy_with_logits(logits, truth),
            "kl": 1e-3 * kl(mean.float(), logvar.float()),
            "_iou": (predicted & actual).sum() / (predicted | actual).sum().clamp(min=1),
            "_std": mean.float().std(),
        }


class _VoxelStage:
    """Objects at half resolution first (cheap steps), then at the full one."""

    def __init__(
        self, config: MiniConfig, bank: TableBank, runtime: Runtime, budget: int, warm_share: float
    ) -> None:
        self.runtime, self.bank, self.budget, self.warm_share = runtime, bank, budget, warm_share
        self.resolution = config.resolution

    def _resolution(self, progress: float) -> int:
        return self.resolution // 2 if progress < self.warm_share else self.resolution


class ShapeVae(_VoxelStage):
    """Dual grid to latent and back: the direct terms as published (no rendered ones)."""

    name = "shape_vae"
    recipe = Recipe(lr=1.5e-3)

    def __init__(
        self,
        config: MiniConfig,
        bank: TableBank,
        runtime: Runtime,
        budget: int = 1_200_000,
        warm_share: float = 0.35,
    ) -> None:
        super().__init__(config, bank, runtime, budget, warm_share)
        self.encoder, self.decoder = config.build("shape_enc"), config.build("shape_dec")
        self.networks: dict[str, nn.Module] = {"shape_enc": self.encoder, "shape_dec": self.decoder}

    def losses(self, progress: float) -> dict[str, Tensor]:
        voxels = voxel_batch(self.bank, self._resolution(progress), self.budget)
        z, mean, logvar = self.encoder(
            voxels.vertices, voxels.intersected, sample_posterior=True, return_raw=True
        )
        _, vertices, logits, truths, subs = self.decoder(z)
        flags = voxels.intersected.feats
        terms = shape_terms(voxels.vertices.feats, flags, vertices.feats, logits.feats, truths, subs)
        wrong = ((logits.feats > 0) != flags).float().mean()
        missed = ((subs[-1].feats > 0) != truths[-1]).float().mean()
        watched = {"_flag_error": wrong, "_child_error": missed, "_std": mean.float().std()}
        return {**terms, "kl": LATENT_KL * kl(mean.float(), logvar.float()), **watched}


class TextureVae(_VoxelStage):
    """Attribute voxels to latent and back: L1 and KL."""

    name = "tex_vae"
    recipe = Recipe(lr=1.5e-3)

    def __init__(
        self,
        config: MiniConfig,
        bank: TableBank,
        runtime: Runtime,
        budget: int = 1_200_000,
        warm_share: float = 0.35,
    ) -> None:
        super().__init__(config, bank, runtime, budget, warm_share)
        self.encoder, self.decoder = config.build("tex_enc"), config.build("tex_dec")
        self.networks: dict[str, nn.Module] = {"tex_enc": self.encoder, "tex_dec": self.decoder}

    def losses(self, progress: float) -> dict[str, Tensor]:
        truth = voxel_batch(self.bank, self._resolution(progress), self.budget).attributes
        z, mean, logvar = self.encoder(truth, sample_posterior=True, return_raw=True)
        gap = (self.decoder(z).feats.float() - truth.feats).abs()
        return {
            "l1": gap.mean(),
            "kl": LATENT_KL * kl(mean.float(), logvar.float()),
            "_base_color_mae": gap[:, :3].mean() / 2,
            "_std": mean.float().std(),
        }
