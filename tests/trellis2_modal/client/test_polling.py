"""A proxy that buffers whole replies lets no event through: the job's status is polled instead."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.trellis2_modal.client.service import KEY, URL, Service
from trellis2_modal.client.api import Client
from trellis2_modal.client.http.core import Core
from trellis2_modal.client.http.events import Follower
from trellis2_modal.client.options import Waiting
from trellis2_modal.protocol.replies import JobEvent


class Buffering(httpx.BaseTransport):
    """Hands requests on; an event stream stays silent until the client gives up."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self.inner = inner
        self.streams = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            self.streams += 1
            raise httpx.ReadTimeout("silence", request=request)
        return self.inner.handle_request(request)


def test_a_long_job_is_followed_to_its_end_by_polling(service: Service, picture: Path) -> None:
    service.plans.append("hang")
    waits: list[Waiting] = []
    seen: list[JobEvent] = []

    def note(event: JobEvent) -> None:
        seen.append(event)
        if len(seen) == 200:
            service.release()

    proxy = Buffering(service.transport)
    with Client(URL, KEY, transport=proxy, sleep=lambda s: None, on_wait=waits.append) as client:
        made = client.generate(picture, on_event=note, seed=7)
    assert made.seed == 7
    assert [event.type for event in seen].count("progress") > 190
    assert seen[-1].type == "result"
    assert proxy.streams == 2
    assert sum(wait.seconds for wait in waits) > 600  # longer than a stream may stay lost


def test_every_new_place_in_the_queue_is_told() -> None:
    follower = Follower(Core("http://service.test", "sk_test"), "j1")
    places = [
        {"id": 1, "type": "queued", "time": "2026-01-02T03:04:05Z", "data": {"position": position}}
        for position in (3, 2, 1)
    ]
    stream = "".join(f"id: 1\nevent: queued\ndata: {json.dumps(place)}\n\n" for place in places)
    assert [event.data["position"] for event in follower.feed(stream.encode())] == [3, 2, 1]
