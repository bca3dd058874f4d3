"""The networks by the class names that published configs use."""

from __future__ import annotations

from ..errors import CheckpointError
from .base import Model
from .dual_grid_vae import FlexiDualGridVaeDecoder, FlexiDualGridVaeEncoder
from .flow import SLatFlowModel, SparseStructureFlowModel
from .sparse_structure_vae import SparseStructureDecoder, SparseStructureEncoder
from .sparse_unet_vae import SparseUnetVaeDecoder, SparseUnetVaeEncoder

MODELS: dict[str, type[Model]] = {
    "SparseStructureFlowModel": SparseStructureFlowModel,
    "SLatFlowModel": SLatFlowModel,
    # Training configs name the memory-saving variants; the networks are the same.
    "ElasticSparseStructureFlowModel": SparseStructureFlowModel,
    "ElasticSLatFlowModel": SLatFlowModel,
    "SparseStructureEncoder": SparseStructureEncoder,
    "SparseStructureDecoder": SparseStructureDecoder,
    "SparseUnetVaeEncoder": SparseUnetVaeEncoder,
    "SparseUnetVaeDecoder": SparseUnetVaeDecoder,
    "FlexiDualGridVaeEncoder": FlexiDualGridVaeEncoder,
    "FlexiDualGridVaeDecoder": FlexiDualGridVaeDecoder,
}


def model_class(name: str) -> type[Model]:
    """The class that a config names. Raises CheckpointError for an unknown one."""
    if name not in MODELS:
        raise CheckpointError(f"model class {name!r} is unknown; known are {', '.join(MODELS)}")
    return MODELS[name]
