"""How often a key may call: moving windows per key, and the headers that tell the caller."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from ...protocol.errors import RateLimitedError

CLOCK_JUMP = 5.0
"""Seconds by which the wall clock may drift from the monotonic one before the windows start afresh."""


@dataclass(frozen=True)
class Allowance:
    """What is left of a window: the headers `RateLimit` and `RateLimit-Policy`."""

    policy: str
    limit: int
    remaining: int
    reset: int

    def headers(self) -> dict[str, str]:
        return {
            "RateLimit-Policy": f'"{self.policy}";q={self.limit};w=60',
            "RateLimit": f'"{self.policy}";r={self.remaining};t={self.reset}',
        }


class RateLimiter:
    """Counts calls by policy and key, in this process."""

    def __init__(self) -> None:
        self._windows = MovingWindowRateLimiter(MemoryStorage())
        self._offset = time.time() - time.monotonic()

    def hit(self, policy: str, owner: str, per_minute: int) -> Allowance:
        """Count one call; raises `RateLimitedError` with the time to wait when there is none left."""
        self._forget_after_clock_jump()
        item = RateLimitItemPerMinute(max(per_minute, 1))
        allowed = per_minute > 0 and self._windows.hit(item, policy, owner)
        allowance = self.peek(policy, owner, per_minute)
        if not allowed:
            wait = max(allowance.reset, 1)
            raise RateLimitedError(
                f"{per_minute} calls a minute are allowed; try again in {wait} s",
                retry_after=wait,
            )
        return allowance

    def peek(self, policy: str, owner: str, per_minute: int) -> Allowance:
        """What is left, without counting a call."""
        item = RateLimitItemPerMinute(max(per_minute, 1))
        stats = self._windows.get_window_stats(item, policy, owner)
        reset = max(0, math.ceil(stats.reset_time - time.time()))
        return Allowance(policy, per_minute, stats.remaining if per_minute > 0 else 0, min(reset, 60))

    def _forget_after_clock_jump(self) -> None:
        # windows hold wall-clock times: after a jump back they would block a key for as long as the jump
        offset = time.time() - time.monotonic()
        if abs(offset - self._offset) > CLOCK_JUMP:
            self._windows = MovingWindowRateLimiter(MemoryStorage())
            self._offset = offset
