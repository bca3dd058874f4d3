"""The mini configuration: shapes of the bundled networks, as frozen dataclasses that build them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trellis2.conditioning.colors.base_color import BaseColorNet
from trellis2.conditioning.encoders.small_encoder import SmallVit, SmallVitConfig
from trellis2.conditioning.matting.small_matting import SmallMattingConfig, SmallMattingNet
from trellis2.conditioning.pixel_map import CameraHead, PixelMap, PixelMapConfig
from trellis2.conditioning.structure_refiner import StructureRefiner, StructureRefinerConfig
from trellis2.models.loading import build

BLOCK, UP, DOWN = "SparseConvNeXtBlock3d", "SparseResBlockC2S3d", "SparseResBlockS2C3d"


@dataclass(frozen=True)
class ModelConfig:
    """A class name of the model registry with its constructor arguments."""

    name: str
    args: dict[str, Any]

    def build(self) -> Any:
        """The network, randomly initialised, in training mode."""
        return build({"name": self.name, "args": self.args}).train()


@dataclass(frozen=True)
class MiniConfig:
    """Everything that has a shape. Widths obey: C a multiple of 8, and the next one a multiple of C/8."""

    resolution: int = 512
    ss_latent: int = 16
    ss_grid: int = 8
    latent: int = 16
    cond: int = 192
    # Fine to coarse. A down block passes on an eighth of the next width a child: a narrow start would keep
    # less than the six numbers of a voxel.
    encoder_widths: tuple[int, ...] = (32, 64, 64, 64, 64)
    encoder_blocks: tuple[int, ...] = (0, 0, 0, 0, 1)
    decoder_widths: tuple[int, ...] = (64, 64, 32, 32, 16)
    shape_blocks: tuple[int, ...] = (2, 1, 1, 0, 0)
    texture_blocks: tuple[int, ...] = (1, 0, 1, 0, 0)
    ss_channels: tuple[int, ...] = (64, 48, 32, 16)
    flow_width: int = 192
    flow_heads: int = 6
    ss_flow_blocks: int = 7
    shape_flow_blocks: int = 6
    texture_flow_blocks: int = 4
    encoder: SmallVitConfig = field(default_factory=SmallVitConfig)
    matting: SmallMattingConfig = field(default_factory=SmallMattingConfig)
    pixel_widths: tuple[int, int, int] = (96, 128, 32)  # of the pixel maps: inside, out, the structure's out
    camera_blocks: int = 2  # of the camera head
    color_widths: tuple[int, ...] = (24, 48, 96, 128, 160)  # of the base colour network; none: there is none
    refiner_widths: tuple[int, int, int] = (48, 96, 192)
    aligned_structure: bool = True  # else the structure's flow sees image tokens alone, and has no map

    def _flow(
        self, name: str, resolution: int, inputs: int, outputs: int, blocks: int, **others: Any
    ) -> ModelConfig:
        args = {
            "resolution": resolution,
            "in_channels": inputs,
            "out_channels": outputs,
            "model_channels": self.flow_width,
            "cond_channels": self.cond,
            "num_blocks": blocks,
            "num_heads": self.flow_heads,
            "mlp_ratio": 3,
            "pe_mode": "rope",
            "share_mod": True,
            "initialization": "scaled",
            "qk_rms_norm": True,
            "qk_rms_norm_cross": True,
            "dtype": "float32",
            **others,
        }
        return ModelConfig(name, args)

    def _unet(self, name: str, down: bool, blocks: tuple[int, ...], **extra: Any) -> ModelConfig:
        widths = list(self.encoder_widths if down else self.decoder_widths)
        levels, counts = len(widths), list(blocks)
        args = {
            **extra,
            "model_channels": widths,
            "latent_channels": self.latent,
            "num_blocks": counts,
            "block_type": [BLOCK] * levels,
            "down_block_type" if down else "up_block_type": [DOWN if down else UP] * (levels - 1),
            "block_args": [{}] * levels,
            "use_fp16": False,
        }
        return ModelConfig(name, args)

    def _ss(self, name: str, channels: list[int], **extra: int) -> ModelConfig:
        args = {**extra, "latent_channels": self.ss_latent, "num_res_blocks": 1, "num_res_blocks_middle": 1}
        return ModelConfig(name, {**args, "channels": channels, "use_fp16": False})

    @property
    def models(self) -> dict[str, ModelConfig]:
        """All networks of the model registry, by the names that stages and checkpoints use."""
        c = self
        return {
            "ss_enc": c._ss("SparseStructureEncoder", list(c.ss_channels)[::-1], in_channels=1),
            "ss_dec": c._ss("SparseStructureDecoder", list(c.ss_channels), out_channels=1),
            "shape_enc": c._unet("FlexiDualGridVaeEncoder", True, c.encoder_blocks),
            "shape_dec": c._unet("FlexiDualGridVaeDecoder", False, c.shape_blocks, resolution=256),
            "tex_enc": c._unet("SparseUnetVaeEncoder", True, c.encoder_blocks, in_channels=6),
            "tex_dec": c._unet(
                "SparseUnetVaeDecoder", False, c.texture_blocks, out_channels=6, pred_subdiv=False
            ),
            "ss_flow": c._flow(
                "SparseStructureFlowModel",
                c.ss_grid,
                c.ss_latent,
                c.ss_latent,
                c.ss_flow_blocks,
                **(_aligned(c.pixel_map.cell_features) if c.aligned_structure else {}),
            ),
            "shape_flow": c._flow(
                "SLatFlowModel",
                32,
                c.latent,
                c.latent,
                c.shape_flow_blocks,
                **_aligned(c.pixel_map.features),
            ),
            # Relative positions alone do not tell a shallow network which part of the picture is a voxel's.
            "tex_flow": c._flow(
                "SLatFlowModel",
                32,
                2 * c.latent,
                c.latent,
                c.texture_flow_blocks,
                pe_mode="ape",
                **_aligned(c.pixel_map.features),
            ),
        }

    @property
    def pixel_map(self) -> PixelMapConfig:
        """What the flows read of pictures."""
        middle, out, structure = self.pixel_widths
        structure = structure if self.aligned_structure else 0
        return PixelMapConfig.beside(
            self.encoder, middle, out, structure, self.camera_blocks, self.color_widths
        )

    @property
    def refiner(self) -> StructureRefinerConfig:
        """The structure refiner, which reads both maps."""
        maps = self.pixel_map.out + self.pixel_map.structure
        widths, grid = self.refiner_widths, 4 * self.ss_grid
        return StructureRefinerConfig(maps, self.cond, self.ss_latent, grid, widths=widths)

    def build(self, name: str) -> Any:
        """One network by name: of the model registry, or one of those that read pictures."""
        if name == "encoder":
            return SmallVit(self.encoder).train()
        if name == "pixel_map":
            return PixelMap(self.pixel_map).train()
        if name == "matting":
            return SmallMattingNet(self.matting).train()
        if name == "base_color":
            return BaseColorNet(self.color_widths, self.cond).train()
        if name == "structure_map":
            return PixelMap(self.pixel_map.of_structure()).train()
        if name == "camera_head":
            return CameraHead(self.cond, self.camera_blocks).train()
        if name == "structure_refiner":
            return StructureRefiner(self.refiner).train()
        return self.models[name].build()


def _aligned(features: int) -> dict[str, Any]:
    return {"image_attn_mode": "proj", "proj_in_channels": features}


# Networks that ship with the pipeline, and the file stems they ship under.
SHIPPED = {
    "ss_dec": "ss_dec_conv3d_8l16_fp16",
    "ss_flow": "ss_flow_img_dit_mini_fp16",
    "shape_dec": "shape_dec_mini_f16c16_fp16",
    "shape_flow": "slat_flow_img2shape_dit_mini_512_fp16",
    "tex_dec": "tex_dec_mini_f16c16_fp16",
    "tex_flow": "slat_flow_imgshape2tex_dit_mini_512_fp16",
    "shape_enc": "shape_enc_mini_f16c16_fp16",
    "tex_enc": "tex_enc_mini_f16c16_fp16",
}

MINI = MiniConfig()
# A configuration for tests and dry runs on a CPU: same structure, a few thousand parameters.
TINY = MiniConfig(
    resolution=64,
    ss_latent=4,
    latent=4,
    cond=32,
    encoder_widths=(8, 8, 8, 16, 16),
    encoder_blocks=(0, 0, 0, 0, 1),
    decoder_widths=(16, 16, 8, 8, 8),
    shape_blocks=(1, 0, 0, 0, 0),
    texture_blocks=(1, 0, 0, 0, 0),
    ss_channels=(16, 16, 8, 8),
    flow_width=32,
    flow_heads=2,
    ss_flow_blocks=1,
    shape_flow_blocks=1,
    texture_flow_blocks=1,
    encoder=SmallVitConfig(image_size=64, width=32, blocks=1, heads=2, stem=(8, 16, 16)),
    matting=SmallMattingConfig(image_size=32, widths=(8, 8, 16), heads=2),
    pixel_widths=(16, 16, 8),
    camera_blocks=1,
    color_widths=(8, 8, 8, 8, 16),
    refiner_widths=(8, 16, 24),
)
CONFIGS = {"mini": MINI, "tiny": TINY}
