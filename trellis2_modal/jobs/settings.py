"""Limits and times of the job engine. `service.config.Settings` adds those of the HTTP front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class JobSettings:
    """Times are in seconds."""

    queue_limit: int = 32
    """Jobs that may wait; more are refused with 503."""

    retention: float = 24 * 3600.0
    """How long the files of a finished job stay downloadable."""

    row_retention: float = 30 * 24 * 3600.0
    """How long a job is remembered at all (it answers 410 after `retention`)."""

    job_timeout: float = 3600.0
    worker_start_timeout: float = 1200.0
    workers: int = 1
    """Jobs that run at one moment."""

    max_attempts: int = 2
    """How often a worker may die under a job before the job fails."""

    reserve_seconds: float = 60.0
    """GPU seconds that an unfinished job holds of its key's daily allowance until its real use is charged."""

    heartbeat_timeout: float = 120.0
    """A worker that is silent this long is stuck (the heartbeat is a thread of its own) and is replaced."""

    cancel_grace: float = 60.0
    """How long a cancelled job may take to reach its next check before the worker is replaced."""

    shutdown_grace: float = 20.0
    """How long a running job may go on when the server stops; after that it is put back into the queue."""

    min_free_bytes: int = 256 << 20
    """Jobs are refused when the disk has less room than this."""

    gpu_price_per_hour: float = 0.0
    """What an hour of the accelerator costs, for estimates in results and /usage; 0: none are given."""

    currency: str = "USD"
    callback_delays: tuple[float, ...] = (5.0, 30.0, 120.0, 600.0, 3600.0)
    """Seconds after each failed callback until the next attempt; after the last there is one more."""

    event_interval: float = 0.2
    """Progress of one stage is stored at most this often, and a platform is polled at most this often."""

    def longest_wait(self, ahead: int) -> float:
        """Seconds in which a platform should have begun a job that `ahead` others waited before.

        Time for a worker to start, for the jobs that ran then, and for those ahead.
        """
        return self.worker_start_timeout + (ahead // self.workers + 1) * self.job_timeout

    def price(self, seconds: float) -> float | None:
        """What accelerator seconds cost; None where the operator has set no price."""
        return round(seconds / 3600 * self.gpu_price_per_hour, 4) if self.gpu_price_per_hour > 0 else None

    def costs(self, seconds: float) -> dict[str, Any]:
        """Members of a result's stats: accelerator seconds of all attempts, and their price if known."""
        counted: dict[str, Any] = {"gpu_seconds": round(seconds, 3)}
        price = self.price(seconds)
        return counted if price is None else counted | {"price": price, "currency": self.currency}
