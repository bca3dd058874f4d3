"""What all networks share: which part is the torso, and in which dtype it is."""

from __future__ import annotations

import torch
from torch import nn

from ..nn.precision import convert_torso


class Model(nn.Module):
    """A network with a 16-bit-able torso between float32 ends.

    `dtype` is what the torso computes in. Only matrix and convolution layers of the torso change with
    `convert_to`; norms, gammas, modulations and everything outside the torso stay float32.
    """

    dtype: torch.dtype = torch.float32
    # Whether published files hold every tensor in the torso's dtype, or each in its own.
    stores_one_dtype = True

    @property
    def torso(self) -> list[nn.Module]:
        """The modules that follow `convert_to`."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Device of the first parameter."""
        return next(self.parameters()).device

    def convert_to(self, dtype: torch.dtype) -> Model:
        """Give the torso a dtype (float32: the whole model computes in float32, as CPUs prefer); returns
        self.
        """
        self.dtype = dtype
        for part in self.torso:
            convert_torso(part, dtype)
        return self

    def reset_buffers(self, device: torch.device) -> None:
        """Recompute the buffers that checkpoints do not hold; models without any need nothing."""

    def stored_dtypes(self) -> dict[str, torch.dtype]:
        """The dtype of each tensor in a checkpoint of this model as published, by parameter name."""
        return {
            name: self.dtype if self.stores_one_dtype else parameter.dtype
            for name, parameter in self.named_parameters()
        }
