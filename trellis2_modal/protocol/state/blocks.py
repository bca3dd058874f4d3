"""Long arrays in blocks, on all cores: numpy releases the interpreter's lock, and a block suits the cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
S = TypeVar("S")

BLOCK = 1 << 16
"""Rows; a multiple of 8, so that blocks of bit planes begin at whole bytes."""


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def blocks_of(count: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


@lru_cache(maxsize=1)
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="state-blocks")


def on_all_cores(work: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """What `work`, which may not come here itself, gives for each item, in their order; the first exception
    is raised."""
    todo = list(items)
    if min(len(todo), cores()) < 2:
        return [work(item) for item in todo]
    # starting threads for each of some thirty passes costs a sixth of their work on 16 cores
    return list(_pool(os.getpid(), cores()).map(work, todo))


def each_block(work: Callable[[slice], T], count: int) -> list[T]:
    """What `work` gives for each block of `count` rows."""
    return on_all_cores(work, blocks_of(count))


def extremes(array: np.ndarray) -> tuple[Any, Any]:
    """Least and largest value of a non-empty array; NaN where one is in it."""
    found = each_block(lambda rows: (array[rows].min(), array[rows].max()), len(array))
    lows, highs = np.array(found).T
    return lows.min(), highs.max()


def column_maxima(array: np.ndarray) -> list[int]:
    """The largest value in each column of a non-empty array of whole numbers."""
    found = each_block(lambda rows: array[rows].max(axis=0), len(array))
    return [int(value) for value in np.max(found, axis=0)]


def ascending(array: np.ndarray) -> bool:
    """Whether each value is larger than the one before."""

    def rises(rows: slice) -> bool:
        part = array[max(rows.start - 1, 0) : rows.stop]
        return bool((part[1:] > part[:-1]).all())

    return all(each_block(rises, len(array)))


def running_sum(out: np.ndarray, deltas: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Fill `out` [n] with the sums of `deltas` (of a block of rows) from the first on, modulo its type."""

    def within(rows: slice) -> Any:
        np.cumsum(deltas(rows), dtype=out.dtype, out=out[rows])
        return out[rows.stop - 1]

    ends = np.array(each_block(within, len(out)), dtype=out.dtype)
    before = np.cumsum(ends, dtype=out.dtype) - ends

    def lift(at: int) -> None:
        out[at * BLOCK : (at + 1) * BLOCK] += before[at]

    on_all_cores(lift, range(1, len(ends)))
    return out
