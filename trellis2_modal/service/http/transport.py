"""The outermost layer: request ids, body ceilings, upload pace, security headers, a log line a request."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...protocol.errors import (
    InternalError,
    InvalidRequestError,
    RequestTimeoutError,
    ServiceError,
    TooLargeError,
    UnavailableError,
)
from .context import RequestContext
from .problems import problem_response

logger = logging.getLogger("trellis2_modal.access")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
SECURITY_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]

QUIET_ROUTES = frozenset({"/health", "/metrics"})
"""Asked every few seconds by machines: logged at DEBUG."""

CLIENT_LEFT = 499
"""Logged and counted, never sent: the caller went away while sending."""

Observer = Callable[[str, str, int, float], None]
"""Called with method, route, status and seconds after every request."""


class Transport:
    """Wraps the app; see the module's first line. `ceiling(method, path)` is the largest body in bytes."""

    def __init__(
        self,
        app: ASGIApp,
        ceiling: Callable[[str, str], int],
        idle_timeout: float,
        min_rate: float,
        memory: BodyMemory,
        observe: Observer,
    ) -> None:
        self._app = app
        self._ceiling = ceiling
        self._idle_timeout = idle_timeout
        self._min_rate = min_rate
        self._memory = memory
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = _request_id(scope)
        status = 0

        ceiling = self._ceiling(scope["method"], scope["path"])
        paced = _PacedBody(receive, ceiling, self._idle_timeout, self._min_rate, self._memory)
        context = RequestContext(request_id, paced.release)
        context.attach(scope)

        def busy_ms() -> float:
            """Milliseconds since the request came, less those spent waiting for its body."""
            return (time.perf_counter() - start - paced.waited) * 1000

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ())]
                present = {name.lower() for name, _ in headers}
                headers += [pair for pair in SECURITY_HEADERS if pair[0] not in present]
                if status >= 400 and not paced.complete:
                    headers.append((b"connection", b"close"))  # the rest of the body is not wanted
                headers.append((b"x-request-id", request_id.encode()))
                headers.append((b"server-timing", f"gateway;dur={busy_ms():.2f}".encode()))
                headers += [
                    (name.lower().encode(), value.encode()) for name, value in context.reply_headers.items()
                ]
                message = {**message, "headers": headers}
            await send(message)

        async def fail(error: ServiceError) -> None:
            await problem_response(error, request_id)(scope, receive, send_with_headers)

        try:
            declared = _content_length(scope)
            if _framed_twice(scope):
                await fail(InvalidRequestError("send Content-Length or Transfer-Encoding, not both"))
            elif declared is not None and declared > paced.ceiling:
                await fail(TooLargeError(f"the body has {declared} bytes, the most here is {paced.ceiling}"))
            else:
                await self._app(scope, paced, send_with_headers)
        except ServiceError as error:
            if status == 0:
                await fail(error)
            else:
                logger.warning("the reply broke off: %s", error, extra={"request_id": request_id})
        except ClientDisconnect:
            status = CLIENT_LEFT
        except Exception:
            logger.exception("unhandled", extra={"request_id": request_id})
            if status == 0:
                await fail(InternalError("the failure was logged under this request_id"))
        finally:
            paced.release()
            for release in context.at_end:
                release()
            self._record(scope, context, status, time.perf_counter() - start)

    def _record(self, scope: Scope, context: RequestContext, status: int, seconds: float) -> None:
        """Count the request and log a line, by route so that neither grows with the ids in the paths."""
        route = getattr(scope.get("route"), "path", "unmatched")
        self._observe(scope["method"], route, status, seconds)
        level = logging.DEBUG if route in QUIET_ROUTES else logging.INFO
        if logger.isEnabledFor(level):
            details = {
                "request_id": context.request_id,
                "method": scope["method"],
                "path": route,
                "status": status,
                "seconds": round(seconds, 4),
                "key": context.key_id,
                "job": context.job_id or scope.get("path_params", {}).get("job_id", ""),
            }
            logger.log(level, "%s %s %d", scope["method"], route, status, extra=details)


class BodyMemory:
    """Bytes of all bodies that are being read or checked, with a ceiling: many large ones cannot fill it."""

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self.used = 0

    def take(self, size: int) -> None:
        """Raises `UnavailableError`; what is taken has to be given back in either case."""
        self.used += size
        if self.used > self._ceiling:
            raise UnavailableError("too many large requests at once; try again", retry_after=5)

    def give_back(self, size: int) -> None:
        self.used -= size


class _PacedBody:
    """A `receive` that raises when the body grows too large or comes too slowly."""

    def __init__(self, receive: Receive, ceiling: int, idle: float, rate: float, memory: BodyMemory) -> None:
        self._receive = receive
        self.ceiling = ceiling
        self.waited = 0.0
        self._idle = idle
        self._rate = rate
        self._memory = memory
        self._size = 0
        self._held = 0
        self._start: float | None = None
        self.complete = False

    async def __call__(self) -> Message:
        if self.complete:
            return await self._receive()  # from here on: news of a disconnect
        if self._start is None:
            self._start = time.monotonic()
        asked = time.perf_counter()
        try:
            message = await asyncio.wait_for(self._receive(), self._idle)
        except TimeoutError as error:
            raise RequestTimeoutError(f"nothing came for {self._idle:.0f} s") from error
        finally:
            self.waited += time.perf_counter() - asked
        if message["type"] != "http.request":
            self.complete = True
            return message
        size = len(message.get("body", b""))
        self._size += size
        self._held += size
        self._memory.take(size)
        self.complete = not message.get("more_body", False)
        if self._size > self.ceiling:
            raise TooLargeError(f"the body has more than {self.ceiling} bytes, the most here")
        elapsed = time.monotonic() - self._start
        if not self.complete and elapsed > self._idle and self._size < elapsed * self._rate:
            raise RequestTimeoutError(f"{self._size} bytes came in {elapsed:.0f} s; send faster or less")
        return message

    def release(self) -> None:
        """The body is no longer held: it was turned into a job, or the request has ended."""
        self._memory.give_back(self._held)
        self._held = 0


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return uuid.uuid4().hex


def _framed_twice(scope: Scope) -> bool:
    """Two ends of one body: a proxy before us may have taken the other one (RFC 9112, 6.3)."""
    names = {name for name, _ in scope["headers"]}
    return b"content-length" in names and b"transfer-encoding" in names


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return None
