"""A training step's forward and backward passes, replayed as CUDA graphs where shapes never change.

Steps of small networks are bound by their launches: recorded, the processor launches a step as one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


class _InAutocast(nn.Module):
    """A network under bfloat16 autocast whose weights are cast anew every time, as a recording needs it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Any:
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            return self.network(*inputs)


def replayed(networks: Sequence[nn.Module], inputs: Sequence[tuple[Tensor, ...]]) -> list[nn.Module]:
    """Callables that replay `networks`, in the order in which a step calls them; the networks themselves
    where there is no GPU or the recording fails.

    `inputs` have the shapes of every later call, and want gradients where those do.
    """
    if not inputs[0][0].is_cuda:
        return list(networks)
    samples = tuple(tuple(map(_alike, given)) for given in inputs)
    wrapped = tuple(_InAutocast(network) for network in networks)
    try:
        with torch.autocast("cuda", enabled=False):
            made: Any = torch.cuda.make_graphed_callables(wrapped, samples, allow_unused_input=True)
            return list(made)
    except RuntimeError as error:
        log.warning("steps are launched one by one, recording failed: %s", error)
        return list(networks)


def _alike(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_(x.requires_grad)
