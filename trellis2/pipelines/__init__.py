"""The whole way from a picture to a textured asset, one call a stage.

May import everything else in `trellis2` but renderers and training; heavy libraries are imported when first
used. Start reading at `image_to_3d.py`; `staging.py` moves models between devices, `config.py` reads pipeline
folders.
"""

from __future__ import annotations

from typing import Any

from .config import read_pipeline_config
from .family import FAMILIES
from .image_to_3d import Trellis2ImageTo3DPipeline
from .texturing import Trellis2TexturingPipeline

__all__ = ["Trellis2ImageTo3DPipeline", "Trellis2TexturingPipeline", "from_pretrained"]

_PIPELINES: dict[str, type[Trellis2ImageTo3DPipeline | Trellis2TexturingPipeline]] = {
    **dict.fromkeys(FAMILIES, Trellis2ImageTo3DPipeline),
    "Trellis2TexturingPipeline": Trellis2TexturingPipeline,
}


def from_pretrained(
    path: str, *, config_file: str = "pipeline.json", revision: str | None = None, **options: Any
) -> Trellis2ImageTo3DPipeline | Trellis2TexturingPipeline:
    """The pipeline that a folder's or hub repository's config names. Raises `CheckpointError`."""
    from ..errors import CheckpointError

    name = read_pipeline_config(path, config_file, revision).name
    if name not in _PIPELINES:
        raise CheckpointError(
            f"{path}/{config_file} names {name!r}; known pipelines: {', '.join(_PIPELINES)}"
        )
    return _PIPELINES[name].from_pretrained(path, config_file=config_file, revision=revision, **options)
