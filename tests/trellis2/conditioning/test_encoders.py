"""Image encoders and removers at the border to their libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from trellis2.conditioning import build_background_remover, build_image_encoder
from trellis2.conditioning.encoders.dinov2 import DinoV2FeatureExtractor
from trellis2.conditioning.encoders.dinov3 import DinoV3FeatureExtractor
from trellis2.conditioning.matting.birefnet import BiRefNet
from trellis2.errors import CheckpointError, InvalidImageError

WIDTH, PATCH = 24, 16


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    model = DINOv3ViTModel(
        DINOv3ViTConfig(
            hidden_size=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            patch_size=PATCH,
            num_register_tokens=4,
        )
    )
    with torch.no_grad():
        for p in model.parameters():  # every part must matter
            p.copy_(torch.randn(p.shape) * 0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8))


class LayersAtTheTop(nn.Module):
    """The layout of transformers 4.56: layers in `model.layer`, the same weights."""

    def __init__(self, newer: Any) -> None:
        super().__init__()
        self.embeddings, self.rope_embeddings = newer.embeddings, newer.rope_embeddings
        self.layer, self.norm = newer.model.layer, nn.LayerNorm(WIDTH)

    def forward(self, pixel_values: torch.Tensor) -> Any:
        hidden = self.embeddings(pixel_values)
        positions = self.rope_embeddings(pixel_values)
        for layer in self.layer:
            hidden = layer(hidden, position_embeddings=positions)
        return type("Output", (), {"last_hidden_state": self.norm(hidden)})


def test_dinov3_gives_all_tokens_before_the_final_norm(dino_folder: Path, picture: Image.Image) -> None:
    encoder = DinoV3FeatureExtractor(str(dino_folder), image_size=64)
    tokens = encoder([picture, picture])
    assert tokens.shape == (2, 1 + 4 + (64 // PATCH) ** 2, WIDTH)
    assert tokens.dtype == torch.float32
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(tokens.shape[:2]), rtol=0, atol=1e-5)

    hidden: list[torch.Tensor] = []
    handle = encoder.model.model.layer[-1].register_forward_hook(lambda m, i, o: hidden.append(o))
    again = encoder([picture, picture])
    handle.remove()
    torch.testing.assert_close(again, nn.functional.layer_norm(hidden[0], (WIDTH,)))
    assert torch.equal(again, tokens)


def test_dinov3_reads_both_layouts(
    dino_folder: Path, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    newer = DinoV3FeatureExtractor(str(dino_folder), image_size=32)
    expected = newer([picture])
    real = transformers.AutoModel.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModel, "from_pretrained", lambda *a, **k: LayersAtTheTop(real(*a, **k))
    )
    older = DinoV3FeatureExtractor(str(dino_folder), image_size=32)
    torch.testing.assert_close(older([picture]), expected)


def test_dinov3_takes_tensors_as_they_are(dino_folder: Path, picture: Image.Image) -> None:
    encoder = DinoV3FeatureExtractor(str(dino_folder), image_size=32)
    resized = picture.resize((32, 32), Image.Resampling.LANCZOS)
    batch = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].float() / 255
    torch.testing.assert_close(encoder(batch), encoder([picture]))
    assert encoder(torch.zeros(1, 3, 48, 48)).shape[1] == 5 + 9
    with pytest.raises(InvalidImageError, match="B, 3, H, W"):
        encoder(torch.zeros(3, 48, 48))
    with pytest.raises(InvalidImageError, match="at least one"):
        encoder([])


def test_missing_weights_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="image_cond_model"):
        DinoV3FeatureExtractor(str(tmp_path))
    with pytest.raises(CheckpointError, match="rembg_model"):
        BiRefNet(str(tmp_path))


def test_dinov2_resizes_to_its_own_input(picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hub(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor, is_training: bool) -> dict[str, torch.Tensor]:
            assert is_training
            return {"x_prenorm": x.flatten(2).transpose(1, 2) * self.scale}

    asked: list[Any] = []
    monkeypatch.setattr(torch.hub, "load", lambda *a, **k: asked.append(a) or Hub())
    encoder = DinoV2FeatureExtractor("dinov2_vitl14_reg")
    assert encoder([picture], 512).shape == (1, 518 * 518, 3)
    monkeypatch.setenv("TRELLIS2_TRUST_CODE", "facebookresearch/dinov2@" + "1f" * 20)
    DinoV2FeatureExtractor("dinov2_vitl14_reg")
    pinned = "facebookresearch/dinov2:" + "1f" * 20
    assert asked == [(name, "dinov2_vitl14_reg") for name in ("facebookresearch/dinov2", pinned)]


class FakeSegmenter(nn.Module):
    """Bright pixels are the subject; returns a list of maps, the last one best, as BiRefNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((1,), 50.0))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        assert x.shape[1:] == (3, 1024, 1024)
        return [x[:, :1] * 0, x[:, :1] * self.gain]


def test_birefnet_matte_follows_the_last_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRELLIS2_TRUST_CODE", "1")
    import transformers

    asked: list[Any] = []

    def load(name: str, **options: Any) -> nn.Module:
        asked.append((name, options))
        return FakeSegmenter()

    monkeypatch.setattr(transformers.AutoModelForImageSegmentation, "from_pretrained", load)
    config = {"name": "BiRefNet", "args": {"model_name": "briaai/RMBG-2.0"}}
    remover = build_background_remover(config, override="someone/ungated-copy")
    image = Image.new("RGB", (60, 40), (10, 10, 10))
    image.paste((250, 250, 250), (20, 10, 40, 30))
    out = remover(image)
    assert asked == [("someone/ungated-copy", {"revision": None, "trust_remote_code": True})]
    assert out.mode == "RGBA"
    assert out.size == (60, 40)
    alpha = np.asarray(out)[..., 3]
    assert alpha[15:25, 25:35].min() > 250
    assert alpha[:5].max() < 5
    assert image.mode == "RGB"  # the caller's picture is left alone


def test_registry_finds_files_inside_the_pipeline_folder(dino_folder: Path) -> None:
    config = {"name": "DinoV3FeatureExtractor", "args": {"model_name": dino_folder.name}}
    encoder = build_image_encoder(config, base=dino_folder.parent)
    assert encoder([Image.new("RGB", (8, 8))]).shape[-1] == WIDTH
    with pytest.raises(CheckpointError, match="DinoV9"):
        build_image_encoder({"name": "DinoV9", "args": {}})
    with pytest.raises(CheckpointError, match="GrabCutMatting"):
        build_background_remover({"name": "Rembg", "args": {}})
