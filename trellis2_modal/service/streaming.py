"""Server-sent events and byte ranges: what is sent piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..jobs.ports import Artifact
from ..protocol.errors import InvalidRequestError, RangeNotSatisfiableError
from ..protocol.replies import EVENT_STREAM, JobEvent

CHUNK = 256 * 1024
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
EVENT_ID = re.compile(r"[0-9]{1,12}")
KEY_CHECK = 2.0
"""Seconds after which a quiet stream asks again whether its key is still good."""

COMMENT = b": still here\n\n"


def encode_event(event: JobEvent) -> bytes:
    """One event as `id`, `event` and `data` lines."""
    return f"id: {event.id}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()


def last_event_id(request: Request) -> int:
    """Where a resumed stream goes on; raises 400 when the header is not one of our ids."""
    text = request.headers.get("last-event-id", "").strip()
    if not text:
        return 0
    if not EVENT_ID.fullmatch(text):
        raise InvalidRequestError("Last-Event-ID is not an id of this stream")
    return int(text)


Admitted = Callable[[], Awaitable[bool]]


def event_stream(
    events: AsyncIterator[JobEvent], comment_every: float, admitted: Admitted
) -> StreamingResponse:
    """Events as they come, with a comment in quiet times so that proxies keep the stream open.

    It ends as soon as its key is no longer `admitted`; whoever opens it again then gets 401.
    """
    return StreamingResponse(
        _encoded(events, comment_every, admitted),
        media_type=EVENT_STREAM,
        headers={"X-Accel-Buffering": "no"},
    )


async def _encoded(
    events: AsyncIterator[JobEvent], comment_every: float, admitted: Admitted
) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    source = events.__aiter__()
    pending: asyncio.Future[JobEvent] | None = None
    try:
        while True:
            pending = asyncio.ensure_future(anext(source))
            quiet_since = time.monotonic()
            while not (await asyncio.wait({pending}, timeout=min(KEY_CHECK, comment_every)))[0]:
                if not await admitted():
                    return
                if time.monotonic() - quiet_since >= comment_every:
                    quiet_since = time.monotonic()
                    yield COMMENT
            if not await admitted():
                return
            try:
                event = pending.result()
            except StopAsyncIteration:
                return
            yield encode_event(event)
    finally:
        if pending is not None and not pending.done():
            pending.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await pending
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


def artifact_response(request: Request, artifact: Artifact, filename: str) -> Response:
    """A file, whole or the one range that was asked for; 304 when the caller has it."""
    etag = f'"{artifact.etag}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=3600",
        "Content-Disposition": f'attachment; filename="{filename}"',
    }
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    span = None
    if request.headers.get("if-range", etag) == etag:
        span = parse_range(request.headers.get("range"), artifact.size)
    start, stop = span or (0, artifact.size)
    headers["Content-Length"] = str(stop - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{artifact.size}"
    status = 206 if span else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=artifact.media_type)
    return StreamingResponse(_chunks(artifact, start, stop), status, headers, artifact.media_type)


def whole_file(artifact: Artifact, headers: dict[str, str]) -> Response:
    """A file as the answer of the call that made it."""
    headers = headers | {"Content-Length": str(artifact.size)}
    return StreamingResponse(_chunks(artifact, 0, artifact.size), 200, headers, artifact.media_type)


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and stop (exclusive) of a single range; None for none, several or another unit (RFC 9110, 14.2).

    Raises `RangeNotSatisfiableError` when it lies outside the file.
    """
    match = RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:  # the last n bytes
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size or start >= stop:
        raise RangeNotSatisfiableError(f"the file has {size} bytes")
    return start, stop


def _chunks(artifact: Artifact, start: int, stop: int) -> Iterator[bytes]:
    for position in range(start, stop, CHUNK):
        yield artifact.read(position, min(position + CHUNK, stop))
