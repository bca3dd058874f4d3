"""Work on one thread leaves the number of threads as it was, here and for threads to come."""

from __future__ import annotations

import threading

import pytest
import torch
from o_voxel.mesh.arrays.threads import on_one_thread


def test_one_thread_inside_and_all_of_them_outside() -> None:
    threads = torch.get_num_threads()
    later: list[int] = []
    try:
        torch.set_num_threads(3)
        assert on_one_thread(torch.get_num_threads) == 1
        assert torch.get_num_threads() == 3
        newcomer = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        newcomer.start()
        newcomer.join()
        assert later == [3]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_errors_come_through(threads: int) -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        raise ValueError("as it is")

    try:
        torch.set_num_threads(threads)
        with pytest.raises(ValueError, match="as it is"):
            on_one_thread(fail)
    finally:
        torch.set_num_threads(before)
