"""Where the time of a cold start goes: a budget by stage, and the log line that every start writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

BUDGET: dict[str, float] = {
    "import": 5.0,
    "load": 16.0,
    "restore": 12.0,
    "to_device": 6.0,
    "warm_512": 8.0,
    "warm_1024_cascade": 12.0,
    "warm_export": 6.0,
    "first_step": 1.0,
}
"""Seconds that each stage of a start may take.

import: our modules and torch. load: the weights into host memory at 1 GB/s. Both are in the snapshot, so a
restored container has them for the price of `restore`, which ends with the first line of our own code; the
platform and not this process can time it (`measure` does). to_device: the weights to the GPU. warm_...: every
stage once, with kernels from the cache; the first start of an image fills the cache and takes longer.
first_step: from the first job's start to its first sampler step.
"""

TARGET = 30.0
"""Seconds from a call to a GPU class that has no container to its first line of work, with a snapshot."""


class StartClock:
    """Seconds by stage of this process; survives a memory snapshot."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.loaded_at: float | None = None
        self.started_at: float | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and log it, as a warning when it is over its budget; a second time adds to it."""
        start = time.perf_counter()
        yield
        self.record(name, self.seconds.get(name, 0.0) + time.perf_counter() - start)

    def record(self, name: str, seconds: float) -> None:
        """Note how long a stage took; one over its budget is logged as a warning."""
        self.seconds[name] = round(seconds, 3)
        budget = BUDGET.get(name)
        over = budget is not None and seconds > budget
        logger.log(
            logging.WARNING if over else logging.INFO,
            "cold start: %s took %.1f s%s",
            name,
            seconds,
            f", over its budget of {budget:g} s" if over else "",
            extra={"stage": name, "seconds": round(seconds, 3), "budget": budget},
        )

    def loaded(self) -> None:
        """The stages that belong to the snapshot are over."""
        self.loaded_at = time.time()

    def ready(self) -> None:
        """The container takes work now: one line with every stage."""
        self.started_at = time.time()
        logger.info("cold start: ready", extra={"stage": "ready", **self.summary()})

    def summary(self) -> dict[str, float]:
        """Seconds by stage, and how long before the start the stages of the snapshot were run."""
        age = {}
        if self.loaded_at is not None and self.started_at is not None:
            age = {"since_load": round(self.started_at - self.loaded_at, 3)}
        return self.seconds | age
