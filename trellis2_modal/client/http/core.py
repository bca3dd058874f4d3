"""One core for both clients: calls as generators that say what to send, to read and to wait for.

A flow yields actions and returns the reply. What an action raises is thrown in, interrupts as well, so that a
flow may clean up. `drivers` does what flows ask for, blocking or with asyncio; nothing here does I/O.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote, urljoin

import httpx
from pydantic import BaseModel, ValidationError

from ... import __version__
from ...protocol.errors import (
    ExpiredError,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    QuotaExceededError,
    ServiceError,
    TooManyJobsError,
    UnavailableError,
    error_from_problem,
)
from ...protocol.limits import MIB
from ...protocol.replies import Health, JobStatus
from ..errors import NoAnswerError, NoReplyError, NotTheServiceError, ProxyTokenError, UnreachableError
from ..options import ProxyToken, Retry, Timeouts, Waiting

logger = logging.getLogger(__name__)

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

MAX_HOPS = 200
"""Result URLs that are followed: each blocks up to 150 s."""

MAX_REPLY = 8 * MIB
MAX_ARTIFACT = 1024 * MIB
"""Bytes of a reply that are read: of JSON, and of a job's file."""

PATIENCE, SLOWEST = 60.0, 1024
"""After so many seconds a reply must have come at so many bytes a second on average."""

PIECE = 1 << 16

PROXY_REFUSAL = b"proxy authorization"
"""What Modal's edge says to who has no proxy token."""

TOKEN_COMMAND = "modal workspace proxy-tokens create"

NOT_WORTH_WAITING = (QuotaExceededError, TooManyJobsError)
"""Refusals that end with a day or with another job, not with a second."""

REFUSALS = frozenset(range(400, 500)) - {408, 409} | {503}
"""Statuses that say for certain that nothing was done: others may be a gateway's, or another try's."""

CANCEL_SECONDS = 10.0
"""For all that an interrupt still asks of the service."""


@dataclass(frozen=True)
class Send:
    """Send a request: answered with the `httpx.Response`, its body unread."""

    request: httpx.Request


@dataclass(frozen=True)
class Chunk:
    """Read on: answered with the next piece of a body, b"" at its end."""

    response: httpx.Response


@dataclass(frozen=True)
class Close:
    """Give up what is left of a body, if anything."""

    response: httpx.Response


@dataclass(frozen=True)
class Pause:
    """Tell the caller, then wait."""

    waiting: Waiting


@dataclass(frozen=True)
class Shield:
    """Run a flow to its end, even if this one is cancelled."""

    flow: Flow[None]


Action: TypeAlias = Send | Chunk | Close | Pause | Shield
Flow: TypeAlias = Generator[Action, Any, T]


@dataclass(frozen=True)
class Call:
    """One call of the API."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] | None = None
    """Form fields; with `files` (names and bytes) the body is multipart, else JSON."""

    files: Sequence[tuple[str, bytes]] = ()
    stream: bool = False
    ceiling: int = MAX_REPLY
    """The most bytes of a reply that are read."""

    idempotency_key: str | None = None


@dataclass
class Asked:
    """Whether the service may have done what it was asked: not before it is sent, not after a refusal."""

    perhaps_done: bool = False


def new_idempotency_key() -> str:
    return str(uuid.uuid4())


def job_path(job_id: str, part: str = "") -> str:
    """The address of a job or of something of it; an odd id stays one path segment."""
    return f"/jobs/{quote(job_id, safe='')}" + (f"/{part}" if part else "")


def base_url(text: str) -> httpx.URL:
    """The address of a service, ending in a slash. Raises `InvalidRequestError`."""
    text = text.strip()
    if "://" not in text:
        text = ("http://" if text.startswith(("localhost", "127.", "[::1]")) else "https://") + text
    try:
        url = httpx.URL(text.rstrip("/") + "/")
    except httpx.InvalidURL as error:
        raise InvalidRequestError(f"{text!r} is not an address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or any(c.isspace() or c == "%" for c in url.host):
        raise InvalidRequestError(f"{text!r} is not an address such as https://example.modal.run")
    return url


def is_loopback(url: httpx.URL) -> bool:
    return url.host in ("localhost", "::1") or url.host.startswith("127.")


class Core:
    """Addresses, headers, retries and what counts as an answer."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        clock: Callable[[], float] = time.monotonic,
        proxy_token: ProxyToken | None = None,
    ) -> None:
        self.url = base_url(url)
        self.timeouts = timeouts or Timeouts()
        self.retry = retry or Retry()
        self.clock = clock
        self.has_key = bool(key)
        self._headers = {"User-Agent": f"trellis2-modal/{__version__}", "Accept-Encoding": "identity"}
        self._headers |= (proxy_token or ProxyToken()).headers()
        if key:
            secret = key.strip()
            if not secret.isascii() or not secret.isprintable():
                raise InvalidRequestError("the API key has characters that no key has; copy it again")
            self._headers["X-API-Key"] = secret

    # --- requests ----------------------------------------------------------------------------------------

    def build(self, call: Call) -> httpx.Request:
        """The request of a call, its body in memory so that it can be sent again."""
        headers = self._headers | dict(call.headers)
        if call.idempotency_key:
            headers["Idempotency-Key"] = call.idempotency_key
        body: dict[str, Any] = {}
        if call.files:
            body["files"] = [(name, (name, data, "application/octet-stream")) for name, data in call.files]
            body["data"] = {key: _form_value(value) for key, value in (call.fields or {}).items()}
        elif call.fields is not None:
            body["json"] = dict(call.fields)
        request = httpx.Request(
            call.method,
            self.url.join(call.path.lstrip("/")),
            params=dict(call.params) or None,
            headers=headers,
            extensions={"timeout": self._timeout(call)},
            **body,
        )
        request.read()
        return request

    def _timeout(self, call: Call) -> dict[str, float | None]:
        return self.timeouts.for_events() if call.stream else self.timeouts.for_calls()

    def follow(self, request: httpx.Request, response: httpx.Response) -> httpx.Request:
        """The request that a 303 asks for. The key never goes to another origin."""
        try:
            target = httpx.URL(urljoin(str(request.url), response.headers.get("location", "")))
        except (httpx.InvalidURL, ValueError) as error:
            raise NotTheServiceError(f"{self.url.host} sends its callers on to no address") from error
        origin = (self.url.scheme, self.url.host, self.url.port)
        if (target.scheme, target.host, target.port) != origin:
            raise NotTheServiceError(
                f"{self.url.host} sends its callers on to {target.host}; check the address"
            )
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _BODY_HEADERS}
        headers.pop("host", None)
        return httpx.Request("GET", target, headers=headers, extensions=request.extensions)

    # --- flows -------------------------------------------------------------------------------------------

    def exchange(
        self, request: httpx.Request, stream: bool = False, ceiling: int = MAX_REPLY
    ) -> Flow[httpx.Response]:
        """The reply to a request, read to its end within the ceiling and at a pace; of a `stream` that
        succeeds the head alone. Raises `httpx.TransportError` and `NoReplyError`."""
        response: httpx.Response = yield Send(request)
        if stream and response.is_success:
            return response
        body = Body(response, ceiling, self.clock)
        try:
            if response.is_stream_consumed:  # some transports read it themselves
                body.feed(response.content)
            else:
                while piece := (yield Chunk(response)):
                    body.feed(piece)
        finally:
            yield Close(response)
        return body.whole()

    def request(self, call: Call, patient: bool = True, asked: Asked | None = None) -> Flow[httpx.Response]:
        """A successful response to a call, after following result URLs and the retries that are safe.

        `patient` waits for a service that is starting and for a job at work; `asked` learns what an interrupt
        has to know. Raises the `ServiceError` that tells what to do.
        """
        request = self.build(call)
        attempt, hops, lost = 0, 0, False
        asked = asked or Asked()
        started = self.clock()
        while True:
            asked.perhaps_done = True
            try:
                response = yield from self.exchange(request, call.stream, call.ceiling)
            except httpx.TransportError as error:
                attempt += 1
                lost = True
                if attempt >= self.retry.attempts or call.stream:  # who follows a stream tries again itself
                    raise transport_failure(error, request.url) from error
                waiting = Waiting(
                    "connecting", "No answer yet; trying again", self.retry.delay(attempt), attempt
                )
                yield Pause(waiting)
                continue
            if response.status_code == 303:
                hops += 1
                if hops > MAX_HOPS:
                    raise NoReplyError(f"the service still works on this after {hops} result addresses")
                request = self.follow(request, response)
                yield Pause(Waiting("working", "The service is still working on this", 0.0, hops))
                continue
            if response.is_success:
                return response
            asked.perhaps_done = lost or response.status_code not in REFUSALS
            failure = failure_of(response)
            attempt += 1
            starting = patient and isinstance(failure, UnavailableError) and (yield from self._starting())
            pause = self._pause(failure, attempt, starting, self.clock() - started)
            if pause is None or (not patient and isinstance(failure, NotReadyError)):
                raise failure
            yield pause

    def _pause(self, failure: ServiceError, attempt: int, starting: bool, waited: float) -> Pause | None:
        """How to wait before trying again, None to give up."""
        if not failure.retryable or isinstance(failure, NOT_WORTH_WAITING):
            return None
        seconds = self.retry.delay(attempt) if failure.retry_after is None else failure.retry_after
        if starting:
            if waited >= self.retry.startup:
                return None
            message = "The service is starting and loads the model"
            return Pause(Waiting("starting", message, min(seconds, self.retry.cap), attempt))
        if attempt >= self.retry.attempts or seconds > self.retry.longest_wait:
            return None
        return Pause(Waiting("busy", failure.detail, seconds, attempt))

    def _starting(self) -> Flow[bool]:
        """Whether a service that is unavailable says that it is on its way up."""
        try:
            response = yield from self.exchange(self.build(Call("GET", "/health")))
            return response.is_success and parse(response, Health).status == "starting"
        except (httpx.TransportError, NotTheServiceError):
            return False

    def reply(self, call: Call, model: type[M], asked: Asked | None = None) -> Flow[M]:
        """The reply to a call, read leniently."""
        response = yield from self.request(call, asked=asked)
        return parse(response, model)

    def queued(self, ways: Iterable[Call], then: Callable[[JobStatus], Flow[T]]) -> Flow[T]:
        """Queue a job by the first of `ways` whose source the service still has, and go on with it.

        An interrupt, whenever it comes, cancels the job, and so does a fault in what the caller hears
        progress with.
        """
        call: Call | None = None
        job: JobStatus | None = None
        asked = Asked()
        gone: ServiceError = NotFoundError()
        try:
            for call in ways:
                try:
                    job = yield from self.reply(call, JobStatus, asked)
                    break
                except (NotFoundError, ExpiredError) as error:
                    gone = error
            else:
                raise gone
            return (yield from then(job))
        except (ServiceError, GeneratorExit):
            raise
        except BaseException:
            if call is not None and (job is not None or asked.perhaps_done):
                yield Shield(self._withdraw(call, job))
            raise

    def _withdraw(self, call: Call, job: JobStatus | None) -> Flow[None]:
        """Cancel the job of an interrupted call: no retries, no waits.

        The service may have the job while the answer is still on its way: the same key never makes a second
        one, so asking once more tells its id.
        """
        deadline = self.clock() + CANCEL_SECONDS
        try:
            if job is None:
                job = parse((yield from self._once(call, deadline)), JobStatus)
            yield from self._once(Call("DELETE", job_path(job.id)), deadline)
        except (ServiceError, httpx.TransportError) as error:
            logger.warning("the service could not be told to cancel: %s", error)

    def _once(self, call: Call, deadline: float) -> Flow[httpx.Response]:
        request = self.build(call)
        left = max(deadline - self.clock(), 1.0)
        request.extensions["timeout"] = httpx.Timeout(left).as_dict()
        request.stream = Upload(request.read(), deadline, self.clock)
        response = yield from self.exchange(request)
        if not response.is_success:
            raise failure_of(response)
        return response


class Upload(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A request's body, until the deadline: httpx has one for each write alone."""

    def __init__(self, data: bytes, deadline: float, clock: Callable[[], float]) -> None:
        self._data, self._deadline, self._clock = data, deadline, clock

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), PIECE):
            if self._clock() > self._deadline:
                raise httpx.WriteTimeout(f"the request took more than {CANCEL_SECONDS:.0f} s")
            yield self._data[start : start + PIECE]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


class Body:
    """Collects a reply as it comes off the wire, within its ceiling and at a pace.

    `feed` raises `NoReplyError`; `whole` gives the reply with its body, or raises `NotTheServiceError`.
    """

    def __init__(self, response: httpx.Response, ceiling: int, clock: Callable[[], float]) -> None:
        self._response, self._ceiling, self._clock = response, ceiling, clock
        self._data = bytearray()
        self._start = clock()

    def feed(self, chunk: bytes) -> None:
        self._data += chunk
        host = self._response.request.url.host
        if len(self._data) > self._ceiling:
            raise NoReplyError(f"{host} sends more than {self._ceiling} bytes, the most for this reply")
        elapsed = self._clock() - self._start
        if elapsed > PATIENCE and len(self._data) < elapsed * SLOWEST:
            raise NoReplyError(f"{host} sent {len(self._data)} bytes in {elapsed:.0f} s; try again")

    def whole(self) -> httpx.Response:
        response, data = self._response, bytes(self._data)
        coding = response.headers.get("content-encoding", "identity").strip().lower()
        if coding != "identity":  # not asked for, and a few bytes may stand for gigabytes
            if response.is_success:
                raise NotTheServiceError(f"{response.request.url.host} compresses its reply unasked")
            data = b""
        headers = [pair for pair in response.headers.raw if pair[0].lower() not in _FRAMING_HEADERS]
        return httpx.Response(response.status_code, headers=headers, content=data, request=response.request)


_FRAMING_HEADERS = {b"content-encoding", b"content-length", b"transfer-encoding"}
_BODY_HEADERS = {"content-length", "content-type", "transfer-encoding"}


def _form_value(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse(response: httpx.Response, model: type[M]) -> M:
    """The reply as a model; raises `NotTheServiceError` when it is something else."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise NotTheServiceError(
            f"{response.request.url.host} answered, but not as this service does; check the address"
        ) from error


def failure_of(response: httpx.Response) -> ServiceError:
    """The error that a response stands for: its problem document, or what a proxy's status says."""
    retry_after = _seconds(response.headers.get("retry-after"))
    try:
        document = json.loads(response.content)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and isinstance(document.get("type"), str) and "detail" in document:
        return error_from_problem(document, retry_after)
    host, status = response.request.url.host, response.status_code
    if status in (401, 403) and PROXY_REFUSAL in response.content[:1000]:
        sent = "modal-key" in response.request.headers
        words = "does not accept this proxy token" if sent else "asks for a proxy token, and none was given"
        return ProxyTokenError(f"{host} {words}; its operator makes them: {TOKEN_COMMAND}")
    if status in (408, 429, 502, 503, 504):
        return UnavailableError(
            f"{host} answers {status}; it may be starting or overloaded", retry_after=retry_after
        )
    return NotTheServiceError(f"{host} answers {status}, but not as this service does; check the address")


def transport_failure(error: httpx.TransportError, url: httpx.URL) -> NoAnswerError:
    """What a failed connection means to a person."""
    place = url.host if url.port is None else f"{url.host}:{url.port}"
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        return UnreachableError(f"no connection to {place}; check the address and your network")
    if isinstance(error, httpx.UnsupportedProtocol):
        return UnreachableError(f"{url.scheme}:// is not supported; use https://")
    return NoReplyError(f"{place} did not reply properly ({type(error).__name__}); try again")


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; dates (RFC 9110 allows them) are turned into a difference."""
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return float(text)
    from datetime import datetime
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(text)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
