"""How a client waits and retries: small value objects, given once to `Client` or `AsyncClient`."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import httpx

from ..protocol.errors import InvalidRequestError


@dataclass(frozen=True)
class ProxyToken:
    """Of a private deployment: what Modal's edge asks for before anything starts. Empty for none."""

    key: str = ""
    secret: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.key or self.secret)

    def headers(self) -> dict[str, str]:
        """Raises `InvalidRequestError` for half a token, and for characters that none has."""
        if not self:
            return {}
        key, secret = self.key.strip(), self.secret.strip()
        if not key or not secret:
            raise InvalidRequestError("a proxy token has two parts, wk-... and ws-...; give both")
        if not all(part.isascii() and part.isprintable() for part in (key, secret)):
            raise InvalidRequestError("the proxy token has characters that none has; copy it again")
        return {"Modal-Key": key, "Modal-Secret": secret}


@dataclass(frozen=True)
class Timeouts:
    """Seconds. `read` is longer than the 150 s after which Modal's edge answers 303."""

    connect: float = 10.0
    read: float = 180.0
    write: float = 120.0
    events: float = 40.0
    """Silence on an event stream, which carries a comment every 15 s."""

    def for_calls(self) -> dict[str, float | None]:
        return httpx.Timeout(
            connect=self.connect, read=self.read, write=self.write, pool=self.connect
        ).as_dict()

    def for_events(self) -> dict[str, float | None]:
        return self.for_calls() | {"read": self.events}


@dataclass(frozen=True)
class Retry:
    """When to try again. Every call of this client is safe to repeat: POSTs carry an Idempotency-Key."""

    attempts: int = 4
    """Tries of one call, the first included."""

    base: float = 0.5
    cap: float = 8.0
    """The n-th wait is base * 2^n seconds, at most `cap`, with jitter."""

    longest_wait: float = 60.0
    """A Retry-After beyond this is not waited for: the error is raised."""

    startup: float = 900.0
    """How long a service that is starting (loading the model) is waited for."""

    offline: float = 300.0
    """How long the events of a running job are tried to be reached again: the job is paid for."""

    def delay(self, attempt: int) -> float:
        return float(min(self.cap, self.base * 2**attempt) * random.uniform(0.6, 1.0))


WaitReason = Literal["connecting", "starting", "busy", "working"]


@dataclass(frozen=True)
class Waiting:
    """Told to `on_wait` before the client waits: why, in words, and for how many seconds."""

    reason: WaitReason
    message: str
    seconds: float
    attempt: int = 1


OnWait: TypeAlias = Callable[[Waiting], None]
