"""Samplers: from noise to a latent along the flow that a velocity model predicts.

May import torch, `trellis2.errors`, `trellis2.progress` and (for types) `trellis2.sparse`. Start reading at
`flow.py`, which is the whole method as pure functions; `guidance.py` runs the network, `acceleration.py` says
where to do without it, `euler.py` holds the classes that configs name.
"""

from __future__ import annotations

from .euler import (
    SAMPLERS,
    FlowEulerCfgSampler,
    FlowEulerGuidanceIntervalSampler,
    FlowEulerSampler,
    build_sampler,
)
from .flow import SamplingResult, time_grid

__all__ = [
    "SAMPLERS",
    "FlowEulerCfgSampler",
    "FlowEulerGuidanceIntervalSampler",
    "FlowEulerSampler",
    "SamplingResult",
    "build_sampler",
    "time_grid",
]
