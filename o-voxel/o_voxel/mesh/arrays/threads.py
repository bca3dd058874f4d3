"""Work that one processor thread does best."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


def on_one_thread(work: Callable[[], Result]) -> Result:
    """What `work` returns, with its torch operations on the CPU kept to one thread.

    For thousands of operations on arrays of some 100,000: two threads gain nothing there, and where another
    process holds a core, each of them waits for that process's time slice (44 s instead of 3.5).
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return work()
    with ThreadPoolExecutor(1) as pool:
        # torch keeps the number per thread, from its first use on, and the last one set for threads to come.
        pool.submit(torch.get_num_threads).result()
        pool.submit(torch.set_num_threads, 1).result()
        torch.set_num_threads(threads)
        return pool.submit(work).result()
