"""A small world and the tiny networks, on the CPU."""

from __future__ import annotations

import pytest
import torch
from trellis2_training import world
from trellis2_training.config import TINY, MiniConfig
from trellis2_training.data.batches import TableBank
from trellis2_training.runtime import Runtime


@pytest.fixture
def config() -> MiniConfig:
    return TINY


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(torch.device("cpu"))


@pytest.fixture
def bank() -> TableBank:
    return TableBank(world.table_bank(0, 12), torch.device("cpu"), seed=0)
