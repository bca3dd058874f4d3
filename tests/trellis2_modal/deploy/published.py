"""A tiny checkpoint as three repositories of a hub: the pipeline's, its decoder's, and the encoder's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.trellis2.pipelines.tiny_checkpoint import write_checkpoint
from trellis2_modal.service.config import DeploySettings

MODEL, DECODER, ENCODER = "acme/mini", "acme/decoders", "acme/eyes"
SETTINGS = DeploySettings(
    model=MODEL,
    revision="main",
    image_encoder=ENCODER,
    background_remover="acme/none",
    gpu="none",
    image="lean",
)


def write_hub(root: Path) -> Path:
    """Fill `root` with repositories in the published layout; returns it."""
    folder = write_checkpoint(root / "made")
    model, decoder, encoder = root / MODEL, root / DECODER, root / ENCODER
    shutil.move(folder / "ckpts" / "dinov3", encoder)
    shutil.move(folder, model)
    shutil.move(root / "made" / "other-repo", decoder)
    (encoder / "README.md").write_text("not needed")
    (encoder / "model.onnx").write_bytes(b"another format")
    path = model / "pipeline.json"
    config = json.loads(path.read_text())
    config["args"]["models"]["sparse_structure_decoder"] = f"{DECODER}/ckpts/sparse_structure_decoder"
    config["args"]["image_cond_model"]["args"]["model_name"] = ENCODER
    config["args"].pop("rembg_model")
    path.write_text(json.dumps(config))
    return root
