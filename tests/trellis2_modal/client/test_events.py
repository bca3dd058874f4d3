"""Event streams: decoding whatever the wire does to them, and going on where they broke."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trellis2_modal.client.service import Service, answers, passes, problem, until
from trellis2_modal.client.api import Retry, Waiting
from trellis2_modal.client.errors import NoReplyError, UnreachableError
from trellis2_modal.client.http.events import MAX_EVENT_BYTES, Decoder
from trellis2_modal.protocol.errors import UnauthenticatedError
from trellis2_modal.protocol.replies import JobEvent

WIRE = (
    'id: 1\nevent: progress\ndata: {"step": 1}\n\n'
    ": a comment\n\n"
    "id: 2\r\nevent: message\r\ndata: two\r\ndata: lines\r\n\r\n"
    "data:no space\n\n"
    "retry: 10\nunknown\nevent: nothing\n\n"
    "data: ümläut ☃\n\n"
).encode()
WHOLE = [
    ("1", "progress", '{"step": 1}'),
    ("2", "message", "two\nlines"),
    ("2", "", "no space"),
    ("2", "", "ümläut ☃"),
]


@given(st.lists(st.integers(0, len(WIRE)), max_size=30))
def test_chunks_may_end_anywhere(cuts: list[int]) -> None:
    decoder, found, start = Decoder(), [], 0
    for cut in [*sorted(cuts), len(WIRE)]:
        found += [(m.id, m.event, m.data) for m in decoder.feed(WIRE[start:cut])]
        start = cut
    assert found == WHOLE


@given(st.binary(max_size=200))
def test_noise_is_no_crash(noise: bytes) -> None:
    for message in Decoder().feed(noise):
        assert message.data


def test_a_line_without_end_is_refused() -> None:
    decoder, megabytes = Decoder(), b"x" * (1 << 20)
    for _ in range(MAX_EVENT_BYTES // len(megabytes)):
        decoder.feed(megabytes)
    with pytest.raises(NoReplyError, match="without end"):
        decoder.feed(b"x")


@pytest.mark.parametrize("after", [0, 1, 60, 200, 330])
def test_a_broken_stream_goes_on_where_it_broke(
    client: Any, service: Service, picture: Path, waits: list[Waiting], after: int
) -> None:
    service.breaks += [after, after]
    service.plans.append("hang")  # so that every stream is there to break
    steps: list[int] = []

    def note(event: JobEvent) -> None:
        steps.append(event.id)
        if len(waits) == 2:
            service.release()

    made = client.generate(picture, on_event=note)
    assert steps == list(range(1, steps[-1] + 1)), "each event once, in order"
    assert len(service.calls("GET", f"/jobs/{made.job}/events")) == 3
    assert [w.reason for w in waits] == ["connecting", "connecting"]
    assert "the job goes on" in waits[0].message
    assert len(service.jobs()) == 1


def test_a_later_event_can_be_the_start(client: Any, service: Service, picture: Path) -> None:
    job = client.submit(picture)
    whole = [event.id for event in job.events()]
    assert [event.id for event in job.events(3)] == whole[3:]


def test_a_network_that_is_away_for_long_is_an_error(
    connect: Callable[..., Any], service: Service, picture: Path
) -> None:
    """The stream breaks, and nothing answers any more; with no patience that is told at once."""
    client = connect(retry=Retry(attempts=2, base=0.0, cap=0.0, offline=0.0))
    job = client.submit(picture)
    service.breaks.append(60)
    service.faults += [passes, *answers(*[httpx.ConnectError("away")] * 40)]
    with pytest.raises(UnreachableError):
        list(job.events())
    service.faults.clear()
    assert list(job.events())[-1].type == "result", "the job was not harmed"


def test_patience_outlasts_many_failures(client: Any, service: Service, picture: Path) -> None:
    """A server that is restarted: the connection is refused for a while, then the same job is there."""
    service.breaks.append(120)
    job = client.submit(picture)
    service.faults += [passes, *answers(*[httpx.ConnectError("refused")] * 25)]
    ids = [event.id for event in job.events()]
    assert ids == list(range(1, ids[-1] + 1))


def test_a_stream_that_ends_early_is_settled_by_the_status(
    client: Any, service: Service, picture: Path
) -> None:
    job = client.submit(picture)
    until(lambda: service.job().status == "finished", "the end")
    service.faults += answers(httpx.Response(204))
    assert [event.type for event in job.events()] == ["result"]
    service.plans.append("worker-died")
    job = client.submit(picture)
    until(lambda: service.job().status == "failed", "the end")
    service.faults += answers(httpx.Response(204))
    (event,) = job.events()
    assert (event.type, event.data["type"]) == ("failed", "worker-died")


def test_a_key_that_was_revoked_ends_it(client: Any, service: Service, picture: Path) -> None:
    job = client.submit(picture)
    service.faults += answers(problem("unauthenticated"))
    with pytest.raises(UnauthenticatedError):
        list(job.events())


def test_garbage_in_the_stream_is_an_error(client: Any, service: Service, picture: Path) -> None:
    job = client.submit(picture)
    service.faults += answers(httpx.Response(200, content=b"data: {}\n\n"))
    with pytest.raises(NoReplyError, match="garbled"):
        list(job.events())
