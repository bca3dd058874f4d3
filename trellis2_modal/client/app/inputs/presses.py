"""One press is one job: a second press for the same thing within two seconds is the same press."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")

SAME_PRESS = 2.0
"""Seconds within which a press is taken for the one before: a double click, an impatient hand, two tabs."""


class Presses(Generic[T]):
    """What the presses of the last seconds have made, by what they asked for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._made: dict[str, tuple[float, T]] = {}
        self._lock = threading.Lock()

    def once(self, asked: str, make: Callable[[], T]) -> T:
        """What `make` gives, or what it gave to the same press a moment ago; presses wait for one another."""
        with self._lock:
            now = self._clock()
            self._made = {key: kept for key, kept in self._made.items() if now - kept[0] < SAME_PRESS}
            if asked not in self._made:
                self._made[asked] = now, make()
            return self._made[asked][1]


def digest(pictures: Sequence[bytes], settings: Mapping[str, Any]) -> str:
    """A word for pictures and settings: the same for the same ones."""
    found = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for picture in pictures:
        found.update(hashlib.sha256(picture).digest())
    return found.hexdigest()
