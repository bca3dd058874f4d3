"""Lets a request through to a route: who it is, whether the key may, how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.requests import Request

from ...jobs.engine import Engine
from ...protocol.errors import RateLimitedError, UnauthenticatedError, UnavailableError
from ..auth import ApiKey, KeyRing
from .context import context_of
from .pictures.sources import PictureSources
from .rate_limits import RateLimiter

HEADER = APIKeyHeader(name="X-API-Key", scheme_name="ApiKey", auto_error=False)
BEARER = HTTPBearer(scheme_name="Bearer", description="The same key.", auto_error=False)

WORK, READS, MATTES = "work", "reads", "mattes"


class Authenticator:
    """Authenticates, then checks the scope, then counts the call."""

    def __init__(
        self, ring: KeyRing, limiter: RateLimiter, reads: int, mattes: int, streams: int, all_streams: int
    ) -> None:
        self.ring = ring
        self._limiter = limiter
        self._per_minute = {READS: reads, MATTES: mattes}
        self._max_streams, self._max_all_streams = streams, all_streams
        self._streams: Counter[str] = Counter()

    async def authenticate(self, request: Request) -> ApiKey:
        """The key behind a request, as the key list has it now; raises 401 or 503."""
        return await self.ring.authenticate(secret_of(request))

    def watch(self, request: Request) -> Callable[[], Awaitable[bool]]:
        """Asks, as long as a stream lasts, whether its key is still good."""

        async def still_good() -> bool:
            try:
                await self.authenticate(request)
            except UnauthenticatedError:
                return False
            return True

        return still_good

    def open_stream(self, request: Request, key: ApiKey) -> None:
        """Count a reply that waits for a job, until the request ends.

        Raises 429 beyond the key's share, 503 beyond what all keys may hold together.
        """
        if self._streams[key.id] >= self._max_streams:
            raise RateLimitedError(
                f"{self._max_streams} of your requests wait for jobs already, the most at once", retry_after=5
            )
        if self._streams.total() >= self._max_all_streams:
            raise UnavailableError(
                f"{self._max_all_streams} requests wait for jobs already; poll the job instead", retry_after=5
            )
        self._streams[key.id] += 1
        context_of(request).at_end.append(lambda: self._close_stream(key.id))

    def _close_stream(self, key_id: str) -> None:
        self._streams[key_id] -= 1
        if self._streams[key_id] <= 0:
            del self._streams[key_id]

    async def admit(
        self, request: Request, secret: str | None, scope: str | None = None, policy: str | None = READS
    ) -> ApiKey:
        """The caller's key; raises 401, 403, 429 or 503. `policy` None counts nothing yet."""
        key = await self.ring.authenticate(secret)
        context_of(request).key_id = key.id
        if scope is not None:
            key.require(scope)
        if policy == WORK and key.dry_run:
            policy = READS
        if policy is not None:
            self.count(request, key, policy)
        return key

    def count(self, request: Request, key: ApiKey, policy: str) -> None:
        """Count a call; the reply carries what is left."""
        per_minute = self._per_minute.get(policy, key.requests_per_minute)
        headers = context_of(request).reply_headers
        try:
            headers.update(self._limiter.hit(policy, key.id, per_minute).headers())
        except RateLimitedError:
            headers.update(self._limiter.peek(policy, key.id, per_minute).headers())
            raise

    def work_left(self, key: ApiKey) -> int:
        return self._limiter.peek(WORK, key.id, key.requests_per_minute).remaining


def engine_of(request: Request, key: ApiKey) -> Engine:
    """The engine that has the key's jobs: the service's own, or the one that runs nothing."""
    state = request.app.state
    engine: Engine = state.dry_run if key.dry_run else state.backend
    return engine


def sources_of(request: Request, key: ApiKey) -> PictureSources:
    """What gets the pictures that the key's requests name: a rehearsal asks no image generator."""
    state = request.app.state
    sources: PictureSources = state.dry_sources if key.dry_run else state.picture_sources
    return sources


def secret_of(request: Request) -> str | None:
    """The key that a request carries: `X-API-Key: sk_...`, or `Authorization: Bearer sk_...`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else None
    return request.headers.get(HEADER.model.name) or bearer


def caller(scope: str | None = None, policy: str | None = READS) -> Callable[..., Awaitable[ApiKey]]:
    """The dependency of a route: the key behind the request."""

    async def admit(
        request: Request, header: Annotated[Any, Security(HEADER)], bearer: Annotated[Any, Security(BEARER)]
    ) -> ApiKey:
        authenticator: Authenticator = request.app.state.authenticator
        return await authenticator.admit(request, secret_of(request), scope, policy)

    return admit
