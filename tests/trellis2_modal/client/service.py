"""The real app over the job engine in memory, with plans for its jobs and faults for its replies."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from tests.trellis2_modal import fake
from tests.trellis2_modal.memory import memory_engine
from tests.trellis2_modal.server import picture, settings_for, wait_for
from tests.trellis2_modal.shapes import dual_grid
from tests.trellis2_modal.transport import AppTransport, submit
from trellis2.progress import Monitor
from trellis2_modal.jobs.execution import JobOutput
from trellis2_modal.jobs.job import Job
from trellis2_modal.jobs.ports import Query
from trellis2_modal.protocol.errors import ERRORS, ServiceError
from trellis2_modal.protocol.replies import Notice
from trellis2_modal.protocol.requests import ExtractSettings, GenerateSettings, MatteSettings
from trellis2_modal.protocol.state import compress_state, decompress_state, pack_state, unpack_state
from trellis2_modal.service.auth import ApiKey, dump_keys
from trellis2_modal.service.http.app import create_app
from trellis2_modal.service.http.pictures.checks import PictureChecks
from trellis2_modal.service.http.pictures.matte import Matte
from trellis2_modal.sockets import listen

URL, KEY = "http://service.test", "sk_test"
KEYS = dump_keys(
    [ApiKey("key_1", "anna", hashlib.sha256(KEY.encode()).hexdigest(), requests_per_minute=100_000)]
)
PIPELINE_TYPES = ("512", "1024")
until = wait_for


@lru_cache
def photo(format: str = "PNG") -> bytes:
    """A picture of a disc."""
    return picture(format=format)


@lru_cache
def state(seed: int = 7) -> bytes:
    """The compressed state that a generation with this seed gives."""
    return compress_state(pack_state(dual_grid(16, seed=seed)))


@lru_cache
def asset(seed: int = 7) -> bytes:
    """The file that an extraction from this state gives."""
    return fake.glb(unpack_state(decompress_state(state(seed))))


class Planned(fake.FakeGenerator):
    """One plan for each job that runs: "finish", "hang" (until `released`) or the slug of an error."""

    def __init__(self) -> None:
        super().__init__(0.0, None, PIPELINE_TYPES, burn=False, pad=0)
        self.plans: deque[str] = deque()
        self.payloads: list[bytes] = []
        self.released = threading.Event()

    def generate(self, picture: bytes, settings: GenerateSettings, monitor: Monitor) -> JobOutput:
        self.payloads.append(picture)
        return super().generate(picture, settings, monitor)

    def extract_glb(self, state: bytes, settings: ExtractSettings, monitor: Monitor) -> JobOutput:
        self.payloads.append(state)
        return super().extract_glb(state, settings, monitor)

    def _steps(self, monitor: Monitor, stage: str) -> None:
        plan = self.plans.popleft() if self.plans else "finish"
        super()._steps(monitor, stage)
        if plan == "hang":
            while not self.released.wait(0.01):
                monitor.check()
        elif plan != "finish":
            raise ERRORS[plan]()


class Keys:
    """See `auth.KeyStorage`."""

    def read(self) -> bytes:
        return KEYS

    def write(self, data: bytes) -> None:
        raise NotImplementedError


class Mattes:
    """See `matte.Matter`: the picture itself, with a warning where a choice was made; what was `asked`."""

    def __init__(self) -> None:
        self.asked: list[tuple[MatteSettings, bytes]] = []

    async def matte(self, picture: bytes, asked: MatteSettings, trimap: bytes = b"") -> Matte:
        self.asked.append((asked, trimap))
        told = Notice(code="several_subjects", message=f"2 objects stand out; {asked.subjects} kept")
        return Matte(picture, [] if asked.subjects == "auto" else [told])

    async def close(self) -> None: ...


@lru_cache
def picture_checks() -> PictureChecks:
    """One process that decodes pictures, for all tests."""
    return PictureChecks()


@dataclass(frozen=True)
class After:
    """What arrives in place of the service's own reply, after it has done what was asked."""

    answer: Callable[[], httpx.Response]


Fault = Callable[[httpx.Request], httpx.Response | After | None]


class Service:
    """See the module. Each request takes a fault from `faults`, which answers, raises, or lets it pass."""

    def __init__(self) -> None:
        self.generator = Planned()
        self.plans = self.generator.plans
        settings = settings_for(Path("unused"), shutdown_grace=0.0, max_active_jobs=64)
        self.engine = memory_engine(self.generator, settings)
        self.app = create_app(self.engine, Keys(), settings, Mattes())
        self.app.state.picture_checks = picture_checks()
        self.transport = AppTransport(self, self._budget)
        self.requests: list[httpx.Request] = []
        self.faults: deque[Fault] = deque()
        self.proxy_token: tuple[str, str] | None = None
        """What Modal's edge asks for."""

        self.breaks: deque[int] = deque()
        """Event streams that break off after so many bytes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        request = _request(scope, body)
        self.requests.append(request)
        answer = self.faults.popleft()(request) if self.faults else None
        sent = (request.headers.get("modal-key"), request.headers.get("modal-secret"))
        if self.proxy_token is not None and sent != self.proxy_token:
            answer = httpx.Response(401, text="modal-http: missing credentials for proxy authorization")

        async def replay() -> Message:
            nonlocal body
            if body is not None:
                whole, body = body, None
                return {"type": "http.request", "body": whole, "more_body": False}
            return await receive()

        if isinstance(answer, httpx.Response):
            await _send(answer, send)
        elif isinstance(answer, After):
            await self.app(scope, replay, _discard)
            await _send(answer.answer(), send)
        else:
            await self.app(scope, replay, send)

    def _budget(self, request: httpx.Request) -> int | None:
        streams = request.url.path.endswith("/events") and self.breaks
        return self.breaks.popleft() if streams else None

    # --- life --------------------------------------------------------------------------------------------

    def start(self) -> None:
        submit(self.engine.start()).result()

    def stop(self) -> None:
        self.release()
        submit(self.engine.close()).result()

    # --- what tests do and look at -----------------------------------------------------------------------

    def release(self) -> None:
        """Let the jobs that hang go on."""
        self.generator.released.set()

    def state_is(self, state: str) -> None:
        """What the model is from now on: starting, ready or degraded."""
        runner: Any = self.engine.runner
        runner.state = state

    def charges(self, **rate: Any) -> None:
        """The rate that the operator has set."""
        self.engine.settings = self.app.state.settings = replace(self.app.state.settings, **rate)

    def jobs(self, kind: str | None = None) -> list[Job]:
        """All jobs, oldest first."""
        found = submit(self.engine.table.query(Query())).result()
        return [job for job in found if kind in (None, job.kind)]

    def known(self) -> list[str]:
        """The ids of all jobs; for faults, which run on the app's own loop."""
        table: Any = self.engine.table
        return list(table._jobs)

    def job(self, number: int = -1) -> Job:
        return self.jobs()[number]

    def forget(self, job_id: str) -> None:
        """The job and its files are gone, as after a service was set up anew."""
        submit(self.engine.table.forget([job_id])).result()
        submit(self.engine.artifacts.discard(job_id)).result()

    def calls(self, method: str, path: str) -> list[httpx.Request]:
        return [r for r in self.requests if r.method == method and r.url.path == path]


async def _body(receive: Receive) -> bytes | None:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _request(scope: Scope, body: bytes | None) -> httpx.Request:
    """The request that a client of this process has sent, or one that came through a socket."""
    sent = scope.get("extensions", {}).get("request")
    if isinstance(sent, httpx.Request):
        return sent
    url = f"{scope['scheme']}://service.test{scope['path']}?{scope['query_string'].decode()}"
    return httpx.Request(scope["method"], url, headers=scope["headers"], content=body)


async def _send(response: httpx.Response, send: Send) -> None:
    head = {"status": response.status_code, "headers": [(n.lower(), v) for n, v in response.headers.raw]}
    await send({"type": "http.response.start", **head})
    await send({"type": "http.response.body", "body": response.content})


async def _discard(message: Message) -> None: ...


def problem(slug: str, headers: dict[str, str] | None = None, **hints: Any) -> httpx.Response:
    """The response that an error of the protocol becomes."""
    error: ServiceError = ERRORS[slug](hints=hints)
    kind = {"content-type": "application/problem+json"}
    return httpx.Response(error.status, json=error.problem("req_1"), headers=kind | (headers or {}))


def answers(*responses: httpx.Response | Exception) -> list[Fault]:
    """Faults that answer or raise, one after the other."""

    def fault(response: httpx.Response | Exception) -> Fault:
        def answer(request: httpx.Request) -> httpx.Response:
            if isinstance(response, Exception):
                raise response
            return response

        return answer

    return [fault(response) for response in responses]


def passes(request: httpx.Request) -> None:
    """The fault that is none."""


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """The service behind a socket of this machine; gives its address."""
    config = uvicorn.Config(service, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as listener:
        served = submit(server.serve(sockets=[listener]))
        wait_for(lambda: server.started, "the server's start")
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            served.result()
