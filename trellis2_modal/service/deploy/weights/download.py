"""`modal run -m trellis2_modal.service.deploy.weights.download::download_weights` fills the weights volume.

An app of its own, so that deploying the service asks for no token.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import modal

if not __package__:  # `modal run trellis2_modal/service/deploy/weights/download.py::download_weights`
    sys.path[0] = str(Path(__file__).resolve().parents[4])
    from trellis2_modal.service.deploy.by_path import become

    become("trellis2_modal.service.deploy.weights.download", globals())

from ...config import BUNDLED_MODEL, DeploySettings, default_data_dir
from ...image import SETTINGS, download_image
from ..start_record import KEY as START_KEY
from .fetch import fetch
from .hub import Hub, HuggingFaceHub, gated_advice
from .manifest import WEIGHTS_ROOT, WeightsError, bundled_manifest, weights_folder

app = modal.App(f"{SETTINGS.app}-weights")
progress = modal.Dict.from_name(SETTINGS.progress_dict, create_if_missing=True)
volume = modal.Volume.from_name(SETTINGS.weights_volume, create_if_missing=True)

# a secret that is missing ends the run before it starts, with Modal's message that names it
secrets = (
    [modal.Secret.from_name(SETTINGS.hf_secret, required_keys=["HF_TOKEN"])] if SETTINGS.gated_sources else []
)

DOWNLOAD_OPTIONS: dict[str, Any] = {"cpu": 4.0, "memory": 8 * 1024, "timeout": 3 * 3600, "max_containers": 1}


@app.function(image=download_image, volumes={WEIGHTS_ROOT: volume}, secrets=secrets, **DOWNLOAD_OPTIONS)
def download_weights() -> dict[str, Any]:
    """Download, check and complete the weights that the settings choose; returns what there is then.

    Called with `.local()` it fills `weights/` in this machine's data folder instead of a volume.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if modal.is_local():
        return run(SETTINGS, default_data_dir() / "weights", HuggingFaceHub())
    summary = run(SETTINGS, Path(WEIGHTS_ROOT), HuggingFaceHub(), volume.commit)
    progress.pop(START_KEY, None)  # starts that failed for want of these weights are tried again
    return summary


def run(settings: DeploySettings, root: Path, hub: Hub, saved: Any = lambda: None) -> dict[str, Any]:
    """`fetch` and a summary. Raises `WeightsError`, whose text says what to run."""
    if settings.model == BUNDLED_MODEL:
        manifest = bundled_manifest()
    else:
        for repo in settings.gated_sources:
            if not os.environ.get("HF_TOKEN"):
                raise WeightsError(f"HF_TOKEN is not set, and {gated_advice(repo)}")
        manifest = fetch(settings, root, hub, saved)
    summary = {
        "folder": str(weights_folder(settings, root)),
        "model": manifest.model,
        "revision": manifest.revision,
        "pipeline_types": list(manifest.pipeline_types),
        "files": len(manifest.files),
        "bytes": sum(file.size for file in manifest.files),
    }
    print("\n".join(f"{name}: {value}" for name, value in summary.items()), flush=True)
    return summary
