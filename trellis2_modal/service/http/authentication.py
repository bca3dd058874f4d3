"""Lets a request through to a route: who it is, whether the key may, how often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Security
from fastapi.security import APIKeyHeader
from starlette.requests import Request

from ...protocol.errors import RateLimitedError
from ..auth import ApiKey, KeyRing
from .rate_limits import RateLimiter

HEADER = APIKeyHeader(name="X-API-Key", scheme_name="ApiKey", auto_error=False)

WORK, READS, MATTES = "work", "reads", "mattes"


class Guard:
    """Authenticates, then checks the scope, then counts the call."""

    def __init__(self, ring: KeyRing, limiter: RateLimiter, reads: int, mattes: int) -> None:
        self._ring = ring
        self._limiter = limiter
        self._per_minute = {READS: reads, MATTES: mattes}

    async def admit(
        self, request: Request, secret: str | None, scope: str | None = None, policy: str | None = READS
    ) -> ApiKey:
        """The caller's key; raises 401, 403, 429 or 503. `policy` None counts nothing yet."""
        key = await self._ring.authenticate(secret)
        request.scope["key_id"] = key.id
        if scope is not None:
            key.require(scope)
        if policy is not None:
            self.count(request, key, policy)
        return key

    def count(self, request: Request, key: ApiKey, policy: str) -> None:
        """Count a call; the reply carries what is left."""
        per_minute = self._per_minute.get(policy, key.requests_per_minute)
        headers: dict[str, str] = request.scope["extra_headers"]
        try:
            headers.update(self._limiter.hit(policy, key.id, per_minute).headers())
        except RateLimitedError:
            headers.update(self._limiter.peek(policy, key.id, per_minute).headers())
            raise

    def work_left(self, key: ApiKey) -> int:
        return self._limiter.peek(WORK, key.id, key.requests_per_minute).remaining


def caller(scope: str | None = None, policy: str | None = READS) -> Callable[..., Awaitable[ApiKey]]:
    """The dependency of a route: the key behind the request."""

    async def admit(request: Request, secret: Annotated[str | None, Security(HEADER)]) -> ApiKey:
        guard: Guard = request.app.state.guard
        return await guard.admit(request, secret, scope, policy)

    return admit
