"""What is tried again, for how long, and what the caller hears meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trellis2_modal.client.service import KEY, URL, After, Service, answers, passes, photo, problem
from trellis2_modal.client.api import ProxyToken, Retry, Timeouts, Waiting
from trellis2_modal.client.errors import (
    NoAnswerError,
    NoReplyError,
    NotTheServiceError,
    ProxyTokenError,
    UnreachableError,
)
from trellis2_modal.client.http.core import MAX_HOPS
from trellis2_modal.protocol.errors import (
    InvalidRequestError,
    NotReadyError,
    QueueFullError,
    QuotaExceededError,
    RateLimitedError,
    TooManyJobsError,
    UnavailableError,
)

BROKEN = (
    (httpx.ConnectError("refused"), UnreachableError),
    (httpx.ConnectTimeout("slow"), UnreachableError),
    (httpx.ProxyError("proxy"), UnreachableError),
    (httpx.ReadTimeout("slow"), NoReplyError),
    (httpx.RemoteProtocolError("cut off"), NoReplyError),
)


@pytest.mark.parametrize(("error", "kind"), BROKEN)
def test_a_lost_connection_is_tried_again(
    client: Any, service: Service, waits: list[Waiting], error: Exception, kind: type[Exception]
) -> None:
    service.faults += answers(error, error)
    assert client.usage().name == "anna"
    assert [waiting.reason for waiting in waits] == ["connecting", "connecting"]
    service.faults += answers(*[error] * 4)
    with pytest.raises(kind) as caught:
        client.usage()
    assert isinstance(caught.value, NoAnswerError)
    assert not service.faults, "four tries"


def test_a_file_of_a_job_at_work_is_asked_for_once_unless_waited_for(
    client: Any, service: Service, waits: list[Waiting], picture: Path
) -> None:
    service.plans.append("hang")
    job = client.submit(picture)
    waits.clear()
    with pytest.raises(NotReadyError):
        job.download("light", patient=False)
    assert (waits, len(service.calls("GET", f"/jobs/{job.id}/light"))) == ([], 1)
    with pytest.raises(NotReadyError):
        job.download("light")
    assert {waiting.reason for waiting in waits} == {"busy"}


def test_a_repeated_submission_is_one_job(client: Any, service: Service, picture: Path) -> None:
    """The first answer got lost on its way back: the service has the job already."""

    def lost() -> httpx.Response:
        raise httpx.ReadTimeout("the answer was lost")

    service.faults.append(lambda request: After(lost))
    client.submit(picture)
    first, again = service.calls("POST", "/jobs")
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
    assert first.content == again.content
    assert len(service.jobs()) == 1
    client.submit(picture)
    assert len(service.jobs()) == 2, "another call is another wish"
    mine = client.submit(picture, idempotency_key="mine")
    assert client.submit(picture, idempotency_key="mine").id == mine.id


def test_a_result_address_is_followed(client: Any, service: Service, waits: list[Waiting]) -> None:
    """As Modal's edge does after 150 s."""
    service.faults += answers(
        httpx.Response(303, headers={"location": "/usage?__modal_function_call_id=1"}),
        httpx.Response(303, headers={"location": URL + "/usage?__modal_function_call_id=1"}),
    )
    assert client.usage().name == "anna"
    assert [r.url.query for r in service.requests] == [b""] + [b"__modal_function_call_id=1"] * 2
    assert {waiting.reason for waiting in waits} == {"working"}


def test_a_followed_post_becomes_a_get_without_its_body(client: Any, service: Service, picture: Path) -> None:
    def sent_on() -> httpx.Response:
        (job,) = service.known()
        return httpx.Response(303, headers={"location": f"/jobs/{job}"})

    service.faults.append(lambda request: After(sent_on))
    assert client.submit(picture).id == service.job().id
    followed = service.requests[-1]
    assert followed.method == "GET"
    assert followed.content == b""
    assert "content-type" not in followed.headers
    assert followed.headers["x-api-key"] == KEY


def test_the_key_never_goes_to_another_origin(client: Any, service: Service) -> None:
    for place in (
        "https://service.test/usage",
        "http://elsewhere.test/usage",
        "http://service.test:81/usage",
    ):
        service.faults += answers(httpx.Response(303, headers={"location": place}))
        with pytest.raises(NotTheServiceError, match="sends its callers on"):
            client.usage()
    assert {request.url.host for request in service.requests} == {"service.test"}


def test_result_addresses_without_end(client: Any, service: Service) -> None:
    service.faults += answers(*[httpx.Response(303, headers={"location": "/usage"})] * (MAX_HOPS + 1))
    with pytest.raises(NoReplyError, match="still works"):
        client.usage()


def test_a_starting_service_is_waited_for_with_a_message(
    client: Any, service: Service, waits: list[Waiting]
) -> None:
    service.state_is("starting")
    for _ in range(7):  # more than the tries of a call: a cold start is not a failure
        service.faults += [*answers(problem("unavailable", {"retry-after": "20"})), passes]
    assert client.usage().name == "anna"
    assert {waiting.reason for waiting in waits} == {"starting"}
    assert "loads the model" in waits[0].message
    assert all(waiting.seconds <= 8 for waiting in waits), "looks more often than it is told to"


def test_a_start_that_takes_too_long_is_an_error(connect: Callable[..., Any], service: Service) -> None:
    service.state_is("starting")
    service.faults += [*answers(problem("unavailable")), passes]
    with pytest.raises(UnavailableError):
        connect(retry=Retry(startup=0.0)).usage()


def test_busy_is_waited_out_and_then_told(client: Any, service: Service, waits: list[Waiting]) -> None:
    service.faults += answers(problem("queue-full", {"retry-after": "3"}), problem("rate-limited"))
    assert client.usage().name == "anna"
    assert [(w.reason, w.attempt) for w in waits] == [("busy", 1), ("busy", 2)]
    assert waits[0].seconds == 3
    service.faults += answers(*[problem("queue-full")] * 4)
    with pytest.raises(QueueFullError):
        client.usage()


@pytest.mark.parametrize(
    ("slug", "kind"), [("quota-exceeded", QuotaExceededError), ("too-many-jobs", TooManyJobsError)]
)
def test_what_seconds_do_not_cure_is_told_at_once(
    client: Any, service: Service, slug: str, kind: type[Exception]
) -> None:
    service.faults += answers(problem(slug, {"retry-after": "5"}))
    with pytest.raises(kind) as caught:
        client.usage()
    assert len(service.requests) == 1
    assert caught.value.retry_after == 5  # type: ignore[attr-defined]


def test_a_long_retry_after_is_told_and_not_slept(client: Any, service: Service) -> None:
    service.faults += answers(problem("rate-limited", {"retry-after": "3600"}))
    with pytest.raises(RateLimitedError) as caught:
        client.usage()
    assert caught.value.retry_after == 3600
    service.faults += answers(problem("rate-limited", {"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}))
    with pytest.raises(RateLimitedError) as caught:
        client.usage()
    assert caught.value.retry_after > 1e9


@pytest.mark.parametrize("status", [502, 503, 504, 429])
def test_a_proxys_words_count_as_unavailable(client: Any, service: Service, status: int) -> None:
    service.faults += answers(httpx.Response(status, text="upstream error"))
    assert client.usage().name == "anna"


def test_timeouts_are_per_phase_and_injected(connect: Callable[..., Any], service: Service) -> None:
    client = connect(timeouts=Timeouts(connect=1, read=2, write=3, events=4))
    client.usage()
    timeout = service.requests[0].extensions["timeout"]
    assert (timeout["connect"], timeout["read"], timeout["write"]) == (1, 2, 3)
    job = client.submit(photo())
    list(job.events())
    (stream,) = service.calls("GET", f"/jobs/{job.id}/events")
    assert stream.extensions["timeout"]["read"] == 4, "silence, not the length of the job"


def test_waits_grow_and_have_a_ceiling() -> None:
    retry = Retry(base=1.0, cap=8.0)
    for attempt, (low, high) in {1: (1.2, 2), 2: (2.4, 4), 3: (4.8, 8), 9: (4.8, 8)}.items():
        waits = [retry.delay(attempt) for _ in range(50)]
        assert low <= min(waits)
        assert max(waits) <= high
        assert len(set(waits)) > 10, "jitter"


# --- a private deployment -----------------------------------------------------------------------------------


def test_a_private_deployment_is_reached_with_its_token(
    connect: Callable[..., Any], service: Service, picture: Path
) -> None:
    service.proxy_token = ("wk-1", "ws-1")
    asset = connect(proxy_token=ProxyToken("wk-1", " ws-1\n")).generate(picture, preview="none")
    assert asset.state
    assert {r.headers["modal-key"] for r in service.requests} == {"wk-1"}


@pytest.mark.parametrize(
    ("token", "words"),
    [(None, "asks for a proxy token, and none was given"), (("wk-2", "ws-2"), "does not accept this")],
)
def test_a_private_deployment_says_what_it_asks_for(
    connect: Callable[..., Any], service: Service, token: tuple[str, str] | None, words: str
) -> None:
    service.proxy_token = ("wk-1", "ws-1")
    with pytest.raises(ProxyTokenError, match=words) as caught:
        connect(proxy_token=ProxyToken(*token) if token else None).health()
    assert "modal workspace proxy-tokens create" in str(caught.value)
    assert "ws-2" not in str(caught.value)
    assert len(service.requests) == 1


@pytest.mark.parametrize("token", [("wk-1", ""), ("", "ws-1"), ("wk-1", "ws\u20ac")])
def test_half_a_token_is_no_token(connect: Callable[..., Any], token: tuple[str, str]) -> None:
    with pytest.raises(InvalidRequestError, match="proxy token"):
        connect(proxy_token=ProxyToken(*token))
