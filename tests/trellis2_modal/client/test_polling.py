"""A proxy that buffers whole replies lets no event through: the job's status is polled instead."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx

from trellis2_modal.client.api import Client
from trellis2_modal.client.core import Core
from trellis2_modal.client.events import Follower
from trellis2_modal.client.options import Waiting

JOB = {"id": "j1", "kind": "generate", "created": "2026-01-02T03:04:05Z"}


class Buffering:
    """Answers status requests; an event stream stays silent until the client gives up."""

    def __init__(self, runs: int) -> None:
        self.streams = 0
        self._states: Iterator[dict[str, object]] = iter(
            [{"status": "queued", "position": 2}]
            + [{"status": "running", "progress": progress(step)} for step in range(runs)]
            + [{"status": "finished", "finished": "2026-01-02T03:16:05Z", "result": {"seed": 7}}]
        )

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            self.streams += 1
            raise httpx.ReadTimeout("silence", request=request)
        return httpx.Response(200, text=json.dumps(JOB | next(self._states)))


def progress(step: int) -> dict[str, object]:
    return {"stage": "shape_slat", "step": step, "steps": 12, "message": ""}


def test_a_long_job_is_followed_to_its_end_by_polling() -> None:
    waits: list[Waiting] = []
    service = Buffering(runs=200)
    client = Client(
        "http://service.test",
        "sk_test",
        transport=httpx.MockTransport(service),
        sleep=lambda seconds: None,
        on_wait=waits.append,
    )
    events = list(client._events("j1", 0))
    assert [event.type for event in events] == ["queued", *["progress"] * 200, "result"]
    assert service.streams == 2
    assert sum(wait.seconds for wait in waits) > 600  # longer than a stream may stay lost


def test_every_new_place_in_the_queue_is_told() -> None:
    follower = Follower(Core("http://service.test", "sk_test"), "j1")
    places = [
        {"id": 1, "type": "queued", "time": JOB["created"], "data": {"position": position}}
        for position in (3, 2, 1)
    ]
    stream = "".join(f"id: 1\nevent: queued\ndata: {json.dumps(place)}\n\n" for place in places)
    assert [event.data["position"] for event in follower.feed(stream.encode())] == [3, 2, 1]
