"""Objects by number: object i is always the same object, and held-out numbers never meet training numbers.

Numbers below 200,000 and held-out ones from 1,000,000,000 on draw from the first 51 families, as they always
did; numbers from 200,000 on and held-out ones from 2,000,000,000 on draw from all.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor

from .families import FAMILIES, FIRST_FAMILIES

# Training objects are numbered from 0, held-out ones from here on: of the first families, and of all.
HELD_OUT_SEED = 1_000_000_000
HELD_OUT_ALL = 2_000_000_000
ALL_FAMILIES_SEED = 200_000  # the first training object that may be of any family
_CHUNK = 512


def family_of(number: int) -> str:
    """Name of the family of object `number`: families take turns, so that every batch is mixed."""
    first = number < ALL_FAMILIES_SEED or HELD_OUT_SEED <= number < HELD_OUT_ALL
    names = list(FAMILIES)[: FIRST_FAMILIES if first else None]
    return names[number % len(names)]


def object_table(number: int) -> np.ndarray:
    """Primitive table `[MAX_PRIMITIVES, ROW]` float32 of object `number`."""
    return FAMILIES[family_of(number)](np.random.default_rng([20_240_601, number]))


def _tables(first: int, count: int) -> np.ndarray:
    return np.stack([object_table(first + i) for i in range(count)])


def table_bank(first: int, count: int, workers: int = 1) -> Tensor:
    """Tables `[count, MAX_PRIMITIVES, ROW]` of the objects `first .. first + count - 1`, made by `workers`
    processes.
    """
    if workers <= 1 or count <= _CHUNK:
        return torch.from_numpy(_tables(first, count))
    starts = list(range(first, first + count, _CHUNK))
    sizes = [min(_CHUNK, first + count - s) for s in starts]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return torch.from_numpy(np.concatenate(list(pool.map(_tables, starts, sizes))))


def held_out_tables(count: int, first: int = HELD_OUT_SEED) -> Tensor:
    """The first `count` held-out objects from number `first` on."""
    return torch.from_numpy(_tables(first, count))
