from __future__ import annotations

import asyncio
import base64
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.trellis2_modal.client.service import KEY, URL, Service, asset, photo, state, until
from tests.trellis2_modal.transport import AppTransport
from trellis2_modal.client.api import AsyncClient, Client, ExtractResult, GenerateResult
from trellis2_modal.client.errors import NotTheServiceError
from trellis2_modal.client.http import core, drivers, events
from trellis2_modal.protocol.errors import (
    InvalidImageError,
    InvalidRequestError,
    JobCancelledError,
    NotFoundError,
    OutOfMemoryError,
    UnauthenticatedError,
)
from trellis2_modal.protocol.presets import PRESETS


def test_a_picture_becomes_an_asset_and_a_file(client: Any, service: Service, picture: Path) -> None:
    events: list[str] = []
    made = client.generate(picture, on_event=lambda e: events.append(e.type), seed=7, preview="frames")
    assert isinstance(made, GenerateResult)
    assert (made.seed, made.resolution, made.state) == (7, 16, state())
    assert made.video
    assert made.preview
    assert list(dict.fromkeys(events)) == ["queued", "started", "progress", "result"]
    assert service.generator.payloads == [photo()]
    settings = service.job().settings
    assert (settings["seed"], settings["preview"]) == (7, "frames")
    assert "ss_sampling_steps" not in settings, "only what the caller set: the weights have their own"
    result = client.extract_glb(made, simplify="web")
    assert isinstance(result, ExtractResult)
    assert result.data == asset()
    assert result.report["watertight"] is True
    assert result.settings["decimation_target"] == PRESETS["web"].settings["decimation_target"]
    assert service.job().source == made.job
    assert len(service.calls("POST", "/jobs")) == 1, "the state is not sent back"


def test_what_is_set_to_the_protocols_default_is_set(client: Any, service: Service, picture: Path) -> None:
    client.generate(picture, ss_guidance_strength=7.5)
    assert service.job().settings["ss_guidance_strength"] == 7.5


def test_a_state_is_uploaded_when_the_service_forgot_the_job(
    client: Any, service: Service, picture: Path, tmp_path: Path
) -> None:
    made = client.generate(picture, seed=7)
    service.forget(made.job)
    client.extract_glb(made, decimation_target=5000)
    assert service.generator.payloads[-1] == state()
    assert (service.job().source, service.job().settings["decimation_target"]) == (None, 5000)
    path = tmp_path / "kept.lz4"
    path.write_bytes(state())
    assert client.extract_glb(path).data == asset()
    assert client.extract_glb(state()).data == asset()


def test_results_are_saved_whole(client: Any, picture: Path, tmp_path: Path) -> None:
    made = client.generate(picture, preview="frames", seed=7)
    paths = made.save(tmp_path / "out", "disc")
    assert [path.name for path in paths] == ["disc.state.lz4", "disc.mp4", "disc.webp"]
    assert paths[0].read_bytes() == state()
    assert client.extract_glb(job=made.job).save(tmp_path / "disc.glb").read_bytes() == asset()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["disc.mp4", "disc.state.lz4", "disc.webp"]


def test_jobs_are_listed_looked_at_and_cancelled(client: Any, service: Service, picture: Path) -> None:
    service.plans += ["hang", "finish"]
    job = client.submit(picture)
    second = client.submit(picture)
    assert [found.id for found in client.jobs()] == [second.id, job.id]
    assert [found.id for found in client.jobs(limit=1)] == [second.id]
    until(lambda: client.job(job.id).status.status == "running", "the first job")
    assert job.cancel().status in ("running", "cancelled")
    assert [event.type for event in job.events()][-1] == "cancelled"
    with pytest.raises(JobCancelledError):
        job.wait()
    with pytest.raises(NotFoundError):
        client.job("no such?job")
    assert service.requests[-1].url.raw_path == b"/jobs/no%20such%3Fjob", "an odd id stays one segment"


def test_a_failed_job_raises_what_the_service_said(client: Any, service: Service, picture: Path) -> None:
    service.plans.append("out-of-memory")
    with pytest.raises(OutOfMemoryError):
        client.generate(picture)


def test_health_usage_and_matte(connect: Callable[..., Any], picture: Path) -> None:
    assert connect(key=None).health().model == "fake"
    assert connect().usage().gpu_seconds_left == 7200
    assert connect().matte(picture).png.startswith(b"\x89PNG")
    (told,) = connect().matte(picture, subjects="all").warnings
    assert told.message == "2 objects stand out; all kept"
    with pytest.raises(UnauthenticatedError):
        connect(key="sk_wrong").usage()


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"seed": -1}, "seed"), ({"sed": 1}, "sed"), ({"ss_guidance_strength": float("nan")}, "ss_guidance")],
)
def test_wrong_settings_are_refused_before_anything_is_sent(
    client: Any, service: Service, picture: Path, settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError, match=field):
        client.generate(picture, **settings)
    assert not service.requests


def test_one_source_for_an_extraction(client: Any, service: Service) -> None:
    with pytest.raises(InvalidRequestError, match="exactly one"):
        client.extract_glb()
    with pytest.raises(InvalidRequestError, match="exactly one"):
        client.extract_glb(state(), job="job_1")
    assert not service.requests


def test_pictures_of_every_kind(client: Any, service: Service, tmp_path: Path) -> None:
    from PIL import Image

    client.submit(photo("JPEG"))
    client.submit(str(tmp_path.joinpath("a.webp")) if _write(tmp_path / "a.webp", photo("WEBP")) else "")
    client.submit(Image.new("RGB", (32, 32)))
    client.submit(photo("BMP"))
    sent = service.generator.payloads
    until(lambda: len(sent) == 4, "the jobs")
    assert sent[0] == photo("JPEG")
    assert sent[1] == photo("WEBP")
    assert sent[2].startswith(b"\x89PNG")
    assert sent[3].startswith(b"\x89PNG"), "other formats are converted"
    for bad in (b"", b"not a picture", tmp_path / "missing.png"):
        with pytest.raises(InvalidImageError):
            client.submit(bad)


def _write(path: Path, data: bytes) -> bool:
    return path.write_bytes(data) > 0


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "https://exa mple.com"])
def test_addresses_that_are_none(connect: Callable[..., Any], url: str) -> None:
    with pytest.raises(InvalidRequestError):
        connect(url=url)


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("example.modal.run", "https://example.modal.run"),
        ("localhost:8188/", "http://localhost:8188"),
        (" https://a.b/base/ ", "https://a.b/base"),
    ],
)
def test_addresses_as_people_write_them(connect: Callable[..., Any], url: str, whole: str) -> None:
    assert connect(url=url).url == whole


def test_a_base_path_is_kept(connect: Callable[..., Any], service: Service) -> None:
    service.faults.append(
        lambda request: httpx.Response(200, json={"status": "ok", "version": "", "model": ""})
    )
    connect(url="https://a.b/base").health()
    assert service.requests[0].url == "https://a.b/base/health"


def test_a_service_below_a_path_of_another_app(service: Service, picture: Path) -> None:
    site = Starlette(routes=[Mount("/3d", service.app)])
    with Client(f"{URL}/3d", KEY, transport=AppTransport(site)) as client:
        made = client.generate(picture, seed=7)
        assert made.state == state()
        assert client.extract_glb(made).data == asset()
    body = {"image": base64.b64encode(photo()).decode()}
    headers = {"X-API-Key": KEY, "Prefer": "respond-async"}
    with httpx.Client(base_url=URL, headers=headers, transport=AppTransport(site)) as http:
        for path in ("/3d/generate", "/3d/jobs"):
            sent = http.post(path, json=body | ({"kind": "generate"} if path == "/3d/jobs" else {}))
            place = sent.url.join(sent.headers["location"])
            assert place.path == f"/3d/jobs/{sent.json()['id']}"
            assert http.get(place).json()["id"] == sent.json()["id"]


def test_a_key_that_cannot_be_one_is_refused(connect: Callable[..., Any]) -> None:
    with pytest.raises(InvalidRequestError, match="copy it again"):
        connect(key="sk_\u201cquoted\u201d")


def test_something_else_at_the_address(client: Any, service: Service) -> None:
    pages = [
        httpx.Response(200, text="<html>Hello</html>"),
        httpx.Response(404, text="not here"),
        httpx.Response(200, json={"service": "other", "status": "ok", "version": "1", "model": ""}),
    ]
    for page in pages:
        service.faults.append(lambda request, page=page: page)
        with pytest.raises(NotTheServiceError):
            client.health()


def test_an_interrupt_cancels_the_job(service: Service, picture: Path) -> None:
    service.plans.append("hang")

    def interrupt(event: Any) -> None:
        if event.type == "progress":
            raise KeyboardInterrupt

    with Client(URL, KEY, transport=service.transport) as client, pytest.raises(KeyboardInterrupt):
        client.generate(picture, on_event=interrupt)
    until(lambda: service.job().status == "cancelled", "the cancellation")


def test_a_cancelled_task_cancels_its_job(service: Service, picture: Path) -> None:
    service.plans.append("hang")

    async def scenario() -> None:
        async with AsyncClient(URL, KEY, transport=service.transport) as client:

            def stop(event: Any) -> None:
                task.cancel()

            task = asyncio.ensure_future(client.generate(picture, on_event=stop))
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(scenario())
    until(lambda: service.job().status == "cancelled", "the cancellation")


class Answers(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Calls `answered` when the service has the job, and its answer is on the way."""

    def __init__(self, service: Service, answered: Callable[[], Any]) -> None:
        self._service, self._answered = service, answered
        self.answers = 0

    def _note(self) -> None:
        self.answers += 1
        if self.answers == 1:
            self._answered()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._service.transport.handle_request(request)
        self._note()
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._service.transport.handle_async_request(request)
        self._note()
        await asyncio.sleep(0)
        return response


def cancels(service: Service, picture: Path, generate: Callable[[], Any]) -> None:
    """The call is interrupted, and then the newest job is cancelled, asked once."""
    service.plans.append("hang")
    with pytest.raises((KeyboardInterrupt, asyncio.CancelledError)):
        generate()
    until(lambda: service.job().status == "cancelled", "the cancellation")
    assert len(service.calls("DELETE", f"/jobs/{service.job().id}")) == 1


def test_an_interrupt_before_the_answer_cancels_the_job(service: Service, picture: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    for ask in ("generate", "submit"):
        with Client(URL, KEY, transport=Answers(service, interrupt)) as client:
            cancels(service, picture, lambda: getattr(client, ask)(picture))  # noqa: B023
    assert len(service.jobs()) == 2


@pytest.mark.parametrize(
    ("status", "posts"), [(429, 1), (503, 1), (502, 2)], ids=["refused", "starting", "gateway"]
)
def test_an_interrupt_asks_again_only_where_there_may_be_a_job(
    service: Service, picture: Path, status: int, posts: int
) -> None:
    """While the client pauses before it tries again."""

    def interrupt(waiting: Any) -> None:
        raise KeyboardInterrupt

    service.faults.append(lambda request: httpx.Response(status, headers={"Retry-After": "1"}))
    client = Client(URL, KEY, transport=service.transport, on_wait=interrupt)
    with client, pytest.raises(KeyboardInterrupt):
        client.submit(picture)
    assert len(service.calls("POST", "/generate")) + len(service.calls("POST", "/jobs")) == posts


def test_an_interrupt_uploads_no_longer_than_its_time() -> None:
    times = iter([0.0, 5.0, 11.0])
    sent = iter(core.Upload(bytes(3 * core.PIECE), core.CANCEL_SECONDS, lambda: next(times)))
    assert len(next(sent) + next(sent)) == 2 * core.PIECE
    with pytest.raises(httpx.WriteTimeout):
        next(sent)


def test_a_call_of_the_async_client_fails_where_it_is_awaited(service: Service, picture: Path) -> None:
    async def scenario() -> None:
        async with AsyncClient(URL, KEY, transport=service.transport) as client:
            calls = [client.generate(picture, seed=-1), client.submit(picture.parent / "missing.png")]
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, (InvalidRequestError, InvalidImageError)), error

    asyncio.run(scenario())


def test_a_task_cancelled_at_the_answer_cancels_its_job(service: Service, picture: Path) -> None:
    async def scenario() -> None:
        def cancel() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

        async with AsyncClient(URL, KEY, transport=Answers(service, cancel)) as client:
            await client.generate(picture)

    cancels(service, picture, lambda: asyncio.run(scenario()))
    assert len(service.jobs()) == 1


def test_an_interrupt_at_any_line_after_the_answer_cancels_the_job(service: Service, picture: Path) -> None:
    """A signal comes between any two steps of the client, from the answer to the open stream of events."""
    own = {drivers.__file__, core.__file__, events.__file__}
    struck: set[tuple[str, int]] = set()
    counting = following = False

    def strike(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in own:
            return None
        line = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and counting and line not in struck:
            struck.add(line)
            raise KeyboardInterrupt
        return strike

    def answered() -> None:
        nonlocal counting
        counting = True

    class Transport(Answers):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal following
            if request.url.path.endswith("/events"):
                following = True
                raise KeyboardInterrupt
            return super().handle_request(request)

    while not following:
        counting = False
        with Client(URL, KEY, transport=Transport(service, answered)) as client:
            before = sys.gettrace()
            sys.settrace(strike)
            try:
                cancels(service, picture, lambda: client.generate(picture))
            finally:
                sys.settrace(before)
    assert len(struck) > 20, len(struck)


def test_one_client_serves_many_threads(service: Service, picture: Path) -> None:
    found: list[str] = []
    with Client(URL, KEY, transport=service.transport) as client:
        threads = [
            threading.Thread(target=lambda: found.append(client.generate(picture).job)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(found)) == 8
