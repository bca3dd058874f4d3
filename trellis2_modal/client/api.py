"""The Python client: `Client` for scripts, `AsyncClient` for asyncio, one body of calls behind both.

    from trellis2_modal.client.api import Client

    with Client("https://example--trellis2.modal.run", key="sk_...") as client:
        asset = client.generate("chair.png", seed=7)
        client.extract_glb(asset, simplify="web").save("chair.glb")

`generate` and `extract_glb` queue a job, follow its events and fetch its files; `submit` gives the `Job`.
Everything that can go wrong is in the tree of `errors`. Calls that are safe to repeat are repeated (all are:
POSTs carry an Idempotency-Key), result addresses (303) are followed, event streams are resumed, a service
that is starting is waited for; `on_wait` hears why before each wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar, Unpack

import httpx

from ..protocol.fields import ExtractFields, GenerateFields, MatteFields, TextureFields
from ..protocol.replies import Estimate, Health, JobEvent, JobStatus, Usage
from ..protocol.requests import JobKind
from .http import calls, deadlines
from .http.calls import MeshSource, StateSource
from .http.core import Call, Core, Flow, is_loopback
from .http.drivers import AsyncDriver, Awaited, Blocking, Driver, flow_method
from .http.environment import environment_errors
from .http.events import Follower
from .inputs.pictures import Picture
from .options import OnWait, ProxyToken, Retry, Timeouts, Waiting
from .results import ExtractResult, GenerateResult, Matte, Result, TextureResult
from .stages import status_text

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Client",
    "ExtractResult",
    "GenerateResult",
    "Job",
    "Matte",
    "ProxyToken",
    "Retry",
    "TextureResult",
    "Timeouts",
    "Waiting",
]

J = TypeVar("J", bound="JobCalls")
R = TypeVar("R", bound=Result)
OnEvent = Callable[[JobEvent], None]


def _quiet(_: object) -> None:
    """Nobody listens."""


class ServiceCalls(Generic[J]):
    """What both clients can be asked for."""

    _core: Core
    _job: Callable[[JobStatus], J]

    def __repr__(self) -> str:
        place = str(self._core.url.copy_with(userinfo=b"")).rstrip("/")
        return f"<{type(self).__name__} of {place}, {'with a' if self._core.has_key else 'without a'} key>"

    @property
    def url(self) -> str:
        """Where the service is."""
        return str(self._core.url).rstrip("/")

    # --- the whole way -----------------------------------------------------------------------------------

    @flow_method
    def generate(
        self,
        image: Picture,
        *,
        shape: StateSource | None = None,
        on_event: OnEvent = _quiet,
        **settings: Unpack[GenerateFields],
    ) -> Flow[GenerateResult]:
        """The asset in a picture; `settings` are the fields of `GenerateSettings`. Of several (`num_samples`)
        the first, with all of them in `variants`.

        `shape` is a result or state whose latents were kept (`keep_latents`): its shape stays and is textured
        anew, and with a cascade as `pipeline_type` a shape of 512 is refined.

        An interrupt (Ctrl-C; with asyncio a cancelled task) cancels the job. Raises `ServiceError`.
        """
        call = calls.generation(image, settings, None, shape)
        return self._finished([call], GenerateResult, on_event)

    @flow_method
    def extract_glb(
        self,
        state: StateSource | None = None,
        *,
        job: str | None = None,
        on_event: OnEvent = _quiet,
        **settings: Unpack[ExtractFields],
    ) -> Flow[ExtractResult]:
        """A file from a state (bytes, path or `GenerateResult`) or a job's id; `settings` are the fields of
        `ExtractSettings`. A result whose job the service still has is not uploaded again."""
        return self._finished(calls.extraction(state, job, settings, None), ExtractResult, on_event)

    @flow_method
    def texture(
        self,
        mesh: MeshSource,
        image: Picture,
        *,
        on_event: OnEvent = _quiet,
        **settings: Unpack[TextureFields],
    ) -> Flow[TextureResult]:
        """A mesh (GLB, OBJ, PLY or STL; bytes or path) with the textures that a picture shows; `settings`
        are the fields of `TextureSettings`. Positions and UVs stay as they are.
        """
        call = calls.texturing(mesh, image, settings, None)
        return self._finished([call], TextureResult, on_event)

    def _finished(self, ways: Iterable[Call], kind: type[R], on_event: OnEvent) -> Flow[R]:
        """The result of a job that one of these calls queues."""
        found = yield from self._core.queued(ways, lambda job: calls.follow(self._core, job.id, on_event))
        assert isinstance(found, kind)
        return found

    # --- jobs --------------------------------------------------------------------------------------------

    @flow_method
    def submit(
        self,
        image: Picture,
        *,
        shape: StateSource | None = None,
        idempotency_key: str | None = None,
        **settings: Unpack[GenerateFields],
    ) -> Flow[J]:
        """Queue a generation. The same idempotency key and request never make a second job."""
        return self._queued([calls.generation(image, settings, idempotency_key, shape)])

    @flow_method
    def submit_texture(
        self,
        mesh: MeshSource,
        image: Picture,
        *,
        idempotency_key: str | None = None,
        **settings: Unpack[TextureFields],
    ) -> Flow[J]:
        """Queue new textures for a mesh."""
        return self._queued([calls.texturing(mesh, image, settings, idempotency_key)])

    @flow_method
    def submit_extract(
        self,
        state: StateSource | None = None,
        *,
        job: str | None = None,
        idempotency_key: str | None = None,
        **settings: Unpack[ExtractFields],
    ) -> Flow[J]:
        """Queue an extraction."""
        return self._queued(calls.extraction(state, job, settings, idempotency_key))

    def _queued(self, ways: Iterable[Call]) -> Flow[J]:
        return self._core.queued(ways, self._known)

    def _known(self, status: JobStatus) -> Flow[J]:
        return self._job(status)
        yield

    @flow_method
    def job(self, job_id: str) -> Flow[J]:
        """A job by its id."""
        return self._job((yield from calls.status(self._core, job_id)))

    @flow_method
    def jobs(self, limit: int = 20, before: str | None = None) -> Flow[list[JobStatus]]:
        """Your jobs, newest first, older than the job `before`."""
        return (yield from calls.jobs(self._core, limit, before)).jobs

    # --- the service -------------------------------------------------------------------------------------

    @flow_method
    def health(self) -> Flow[Health]:
        """Whether the service runs and what it offers; needs no key."""
        return calls.health(self._core)

    @flow_method
    def usage(self) -> Flow[Usage]:
        """Your own limits and what is left of them."""
        return calls.usage(self._core)

    @flow_method
    def estimate(self, /, kind: JobKind = "generate", **settings: Any) -> Flow[Estimate]:
        """What a job with these settings takes and costs, by measured jobs like it; makes none."""
        return calls.estimate(self._core, kind, settings)

    @flow_method
    def matte(
        self, image: Picture, trimap: Picture | None = None, **settings: Unpack[MatteFields]
    ) -> Flow[Matte]:
        """The subject as the model will see it, PNG with transparency, and what a person should know of the
        picture; `settings` are the fields of `MatteSettings`, `trimap` what was painted (white keeps, black
        removes, mid-grey says nothing). Costs no GPU time. With `crop=False` it can be generated from.
        """
        return calls.matte(self._core, image, settings, trimap)


class JobCalls:
    """What a job can be asked for. `status` is as of the last look."""

    def __init__(self, core: Core, driver: Any, status: JobStatus) -> None:
        self._core, self._driver = core, driver
        self.status = status

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.status.kind}, {status_text(self.status)}>"

    @property
    def id(self) -> str:
        return self.status.id

    @flow_method
    def refresh(self) -> Flow[JobStatus]:
        """Look again."""
        self.status = yield from calls.status(self._core, self.id)
        return self.status

    @flow_method
    def cancel(self) -> Flow[JobStatus]:
        """Stop it: a queued job at once, a running one at its next step; a finished one stays as it is."""
        self.status = yield from calls.cancel(self._core, self.id)
        return self.status

    @flow_method
    def wait(self, on_event: OnEvent = _quiet) -> Flow[Result]:
        """Follow the job to its end and fetch its files; raises its failure, or `JobCancelledError`."""
        return calls.follow(self._core, self.id, on_event)

    @flow_method
    def result(self) -> Flow[Result]:
        """The files of a finished job; raises `NotReadyError`, `ExpiredError` or the job's failure."""
        return calls.result(self._core, self.id)

    @flow_method
    def download(self, artifact: str, patient: bool = True) -> Flow[bytes]:
        """One file: state, video, preview, light or asset; `patient` waits for a service that is starting and
        for a job at work.
        """
        return calls.artifact(self._core, self.id, artifact, patient)


class Job(JobCalls, Blocking):
    """A job of this key. `status` is as of the last look."""

    def events(self, after: int = 0) -> Iterator[JobEvent]:
        """Everything that happens to the job, from its start or after an event's id, to its end.

        A broken connection is resumed where it broke; the job is not harmed by it.
        """
        follower = Follower(self._core, self.id, after)
        try:
            while (event := self._driver.run(follower.next())) is not None:
                yield event
        finally:
            self._driver.run(follower.close())


class AsyncJob(JobCalls, Awaited):
    """`Job` for asyncio."""

    async def events(self, after: int = 0) -> AsyncIterator[JobEvent]:
        """See `Job.events`."""
        follower = Follower(self._core, self.id, after)
        try:
            while (event := await self._driver.run(follower.next())) is not None:
                yield event
        finally:
            await self._driver.run(follower.close())


class Client(ServiceCalls[Job], Blocking):
    """Blocking client of one service. Close it, or use it in a `with`. Safe to share between threads.

    Without a key only `health` works. A private deployment also asks for a `proxy_token`. `transport`
    replaces the network in tests.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        proxy_token: ProxyToken | None = None,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        on_wait: OnWait = _quiet,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._core = Core(url, key, timeouts, retry, proxy_token=proxy_token)
        with environment_errors():
            http = httpx.Client(
                transport=transport, trust_env=not is_loopback(self._core.url), follow_redirects=False
            )
        deadlines.limit_reads(http)
        self._driver = Driver(http, on_wait, sleep)
        self._job = partial(Job, self._core, self._driver)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._driver.http.close()


class AsyncClient(ServiceCalls[AsyncJob], Awaited):
    """`Client` for asyncio: the same calls, awaited; a cancelled task cancels its job."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        proxy_token: ProxyToken | None = None,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        on_wait: OnWait = _quiet,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._core = Core(url, key, timeouts, retry, proxy_token=proxy_token)
        with environment_errors():
            http = httpx.AsyncClient(
                transport=transport, trust_env=not is_loopback(self._core.url), follow_redirects=False
            )
        self._driver = AsyncDriver(http, on_wait, sleep)
        self._job = partial(AsyncJob, self._core, self._driver)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._driver.http.aclose()
