"""Server-sent events: a decoder for the wire, and a follower that survives broken connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from pydantic import ValidationError

from ...protocol.errors import InternalError, ServiceError
from ...protocol.events import Queued, event_of, final_payload, payload_of
from ...protocol.replies import EVENT_STREAM, FINAL_EVENTS, FINAL_STATES, JobEvent, JobStatus
from ..errors import NoReplyError, UnreachableError
from ..options import Waiting
from .core import Call, Chunk, Close, Core, Flow, Pause, job_path, transport_failure

SILENT_STREAMS = 2
"""Event streams in a row without a byte, after which the status is polled."""

MAX_EVENT_BYTES = 4 << 20
"""An event that grows beyond this is not one of ours."""


@dataclass
class Message:
    """One server-sent event as it stood on the wire."""

    id: str = ""
    event: str = ""
    data: str = ""


class Decoder:
    """Bytes in, messages out (HTML standard, section 9.2.6); chunks may end anywhere."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._fields = Message()
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages that this chunk completes. Raises `NoReplyError` on an endless line."""
        self._parts.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_EVENT_BYTES:
            raise NoReplyError("the event stream sends an event without end")
        if b"\n" not in chunk:
            return []
        # a lone CR also ends a line, but only when it is known not to be half of CRLF
        *lines, rest = b"".join(self._parts).replace(b"\r\n", b"\n").split(b"\n")
        self._parts = [rest]
        messages = [self._line(line.decode("utf-8", "replace")) for line in lines]
        return [message for message in messages if message is not None]

    def _line(self, line: str) -> Message | None:
        line = line.rstrip("\r")
        if not line:
            self._size = 0
            done, self._fields = self._fields, Message(id=self._fields.id)
            done.data, self._data = "\n".join(self._data), []
            return done if done.data else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._fields.event = value
        elif name == "id" and "\0" not in value:
            self._fields.id = value
        return None


class Follower:
    """Follows one job from an event on, over broken connections; close it when no more are asked for."""

    def __init__(self, core: Core, job_id: str, after: int = 0) -> None:
        self.job_id = job_id
        self.last = after
        self.over = False
        self._core = core
        self._decoder = Decoder()
        self._failures = 0
        self._silences = 0
        self._lost_since: float | None = None
        self._stream: httpx.Response | None = None
        self._come: deque[JobEvent] = deque()
        self._due: Pause | None = None

    def next(self) -> Flow[JobEvent | None]:
        """The next event; None after the job's end."""
        while not self._come and not self.over:
            yield from self._receive()
        return self._come.popleft() if self._come else None

    def close(self) -> Flow[None]:
        stream, self._stream = self._stream, None
        if stream is not None:
            yield Close(stream)

    def _receive(self) -> Flow[None]:
        """What comes next: a piece of the stream, else the job's status."""
        if self._due is not None:
            due, self._due = self._due, None
            yield due
        broken: httpx.TransportError | None = None
        if self._stream is None:
            self._stream = yield from self.open()
        if self._stream is not None:
            try:
                if piece := (yield Chunk(self._stream)):
                    self._come.extend(self.feed(piece))
                    return
            except httpx.TransportError as error:
                broken = error
            yield from self.close()
        if broken is None:
            status = yield from self._core.reply(Call("GET", job_path(self.job_id)), JobStatus)
            self._come.extend(self.events_of(status))
        if not self.over:
            self._due = self.lost(broken)

    def open(self) -> Flow[httpx.Response | None]:
        """The stream after the last event seen; None when the job's status is to be asked for instead.

        A proxy that buffers whole replies lets no event through before the job's end: after two silent
        streams the status is polled.
        """
        if self._silences >= SILENT_STREAMS:
            return None
        headers = {"Accept": EVENT_STREAM} | ({"Last-Event-ID": str(self.last)} if self.last else {})
        self._decoder = Decoder()
        while True:
            try:
                call = Call("GET", job_path(self.job_id, "events"), headers=headers, stream=True)
                response = yield from self._core.request(call)
            except ServiceError as error:
                if not error.retryable:
                    raise
                yield self._again(error)
                if not isinstance(error, UnreachableError):
                    self._silences += 1
                    return None
            else:
                return None if response.status_code == 204 else response

    def feed(self, chunk: bytes) -> list[JobEvent]:
        """The new events in a chunk of the stream."""
        self._failures, self._silences, self._lost_since = 0, 0, None
        events = []
        for message in self._decoder.feed(chunk):
            try:
                event = JobEvent.model_validate_json(message.data)
                payload_of(event)
            except ValidationError as error:
                raise NoReplyError("the event stream is garbled") from error
            moved = event.type == "queued" and event.id == self.last  # a new place in the queue keeps its id
            if event.id > self.last or moved:
                self.last = event.id
                events.append(event)
                self.over = self.over or event.type in FINAL_EVENTS
        return events

    def lost(self, error: httpx.TransportError | None) -> Pause:
        """The stream broke off (or ended without the job's end): wait, then open it again."""
        if error is None:
            return self._again(NoReplyError("the service ended the stream of events"))
        if isinstance(error, httpx.ReadTimeout):
            self._silences += 1
        return self._again(transport_failure(error, self._core.url))

    def _again(self, error: ServiceError) -> Pause:
        now = self._core.clock()
        self._lost_since = now if self._lost_since is None else self._lost_since
        self._failures += 1
        retry = self._core.retry
        if now - self._lost_since > retry.offline:
            raise error
        message = "The connection was lost; the job goes on. Reconnecting"
        return Pause(Waiting("connecting", message, retry.delay(self._failures), self._failures))

    def events_of(self, status: JobStatus) -> Iterator[JobEvent]:
        """The events that a job's status stands for, when the stream did not bring them."""
        self._lost_since = None
        if status.status not in FINAL_STATES:
            now = datetime.now(UTC)
            if status.status == "queued" and status.position is not None:
                yield event_of(self.last, now, Queued(job=status.id, position=status.position))
            elif status.progress is not None:
                yield event_of(self.last, now, status.progress)
            return
        self.over = True
        problem = status.problem or InternalError("the service does not say why").problem()
        payload = final_payload(status.status, status.result, problem)
        yield event_of(self.last + 1, status.finished or status.created, payload)
