"""The networks of TRELLIS.2 and their checkpoints.

Lives here: the flow transformer, the sparse-structure VAE, the sparse U-Net VAE with its shape and texture
heads, the registry of class names, and `from_pretrained`. Imports `trellis2.nn`, `trellis2.sparse`, and (when
a mesh is extracted) `o_voxel` and `trellis2.representations`. Start reading at `flow.py`, then
`recorded_flow.py` (how sampling calls it) and `sparse_unet_vae.py`.
"""

from __future__ import annotations

from .base import Model
from .context import ContextCache
from .dual_grid_vae import FlexiDualGridVaeDecoder, FlexiDualGridVaeEncoder
from .flow import FlowTransformer, SLatFlowModel, SparseStructureFlowModel
from .flow_config import FlowConfig
from .loading import from_pretrained, load_weights, save_pretrained
from .recorded_flow import RecordedFlow
from .registry import MODELS, model_class
from .sparse_structure_vae import SparseStructureDecoder, SparseStructureEncoder
from .sparse_unet_vae import SparseUnetVaeDecoder, SparseUnetVaeEncoder

ElasticSLatFlowModel = SLatFlowModel
ElasticSparseStructureFlowModel = SparseStructureFlowModel

__all__ = [
    "MODELS",
    "ContextCache",
    "ElasticSLatFlowModel",
    "ElasticSparseStructureFlowModel",
    "FlexiDualGridVaeDecoder",
    "FlexiDualGridVaeEncoder",
    "FlowConfig",
    "FlowTransformer",
    "Model",
    "RecordedFlow",
    "SLatFlowModel",
    "SparseStructureDecoder",
    "SparseStructureEncoder",
    "SparseStructureFlowModel",
    "SparseUnetVaeDecoder",
    "SparseUnetVaeEncoder",
    "from_pretrained",
    "load_weights",
    "model_class",
    "save_pretrained",
]
