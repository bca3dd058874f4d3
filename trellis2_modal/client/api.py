"""The Python client: `Client` for scripts, `AsyncClient` for asyncio, one core behind both.

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
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import httpx

from ..protocol.errors import ExpiredError, NotFoundError, ServiceError
from ..protocol.events import is_result
from ..protocol.replies import Estimate, Health, JobEvent, JobStatus, Usage
from ..protocol.requests import JobKind
from .http import calls, deadlines
from .http.calls import MeshSource, StateSource
from .http.core import INTERRUPTS, Body, Core, Flow, Pause, is_loopback
from .http.environment import environment_errors
from .http.events import Follower
from .inputs.pictures import Picture
from .options import OnWait, ProxyToken, Retry, Timeouts, Waiting
from .results import ExtractResult, GenerateResult, Matte, Result, TextureResult

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

T = TypeVar("T")
OnEvent = Callable[[JobEvent], None]


def _quiet(_: object) -> None:
    """Nobody listens."""


class Client:
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
        self._on_wait = on_wait
        self._sleep = sleep
        with environment_errors():
            self._http = httpx.Client(
                transport=transport, trust_env=not is_loopback(self._core.url), follow_redirects=False
            )
        deadlines.limit_reads(self._http)

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
        self._http.close()

    @property
    def url(self) -> str:
        """Where the service is."""
        return str(self._core.url).rstrip("/")

    # --- the whole way -----------------------------------------------------------------------------------

    def generate(
        self,
        image: Picture,
        *,
        shape: StateSource | None = None,
        on_event: OnEvent = _quiet,
        **settings: Any,
    ) -> GenerateResult:
        """The asset in a picture; `settings` are the fields of `GenerateSettings`. Of several (`num_samples`)
        the first, with all of them in `variants`.

        `shape` is a result or state whose latents were kept (`keep_latents`): its shape stays and is textured
        anew, and with a cascade as `pipeline_type` a shape of 512 is refined.

        An interrupt (Ctrl-C) cancels the job. Raises `ServiceError`.
        """
        found = self._finish(self.submit(image, shape=shape, **settings), on_event)
        assert isinstance(found, GenerateResult)
        return found

    def extract_glb(
        self,
        state: StateSource | None = None,
        *,
        job: str | None = None,
        on_event: OnEvent = _quiet,
        **settings: Any,
    ) -> ExtractResult:
        """A file from a state (bytes, path or `GenerateResult`) or a job's id; `settings` are the fields of
        `ExtractSettings`. A result whose job the service still has is not uploaded again."""
        found = self._finish(self.submit_extract(state, job=job, **settings), on_event)
        assert isinstance(found, ExtractResult)
        return found

    def texture(
        self, mesh: MeshSource, image: Picture, *, on_event: OnEvent = _quiet, **settings: Any
    ) -> TextureResult:
        """A mesh (GLB, OBJ, PLY or STL; bytes or path) with the textures that a picture shows; `settings`
        are the fields of `TextureSettings`. Positions and UVs stay as they are.
        """
        found = self._finish(self.submit_texture(mesh, image, **settings), on_event)
        assert isinstance(found, TextureResult)
        return found

    def _finish(self, job: Job, on_event: OnEvent) -> Result:
        try:
            return job.wait(on_event)
        except ServiceError:
            raise
        except BaseException:  # an interrupt, or what the code that it came upon made of it
            with contextlib.suppress(Exception):
                job.cancel()
            raise

    # --- jobs --------------------------------------------------------------------------------------------

    def submit(
        self,
        image: Picture,
        *,
        shape: StateSource | None = None,
        idempotency_key: str | None = None,
        **settings: Any,
    ) -> Job:
        """Queue a generation. The same idempotency key and request never make a second job."""
        status = self._run(calls.submit(self._core, image, settings, idempotency_key, shape))
        return Job(self, status)

    def submit_texture(
        self, mesh: MeshSource, image: Picture, *, idempotency_key: str | None = None, **settings: Any
    ) -> Job:
        """Queue new textures for a mesh."""
        flow = calls.submit_texture(self._core, mesh, image, settings, idempotency_key)
        return Job(self, self._run(flow))

    def submit_extract(
        self,
        state: StateSource | None = None,
        *,
        job: str | None = None,
        idempotency_key: str | None = None,
        **settings: Any,
    ) -> Job:
        """Queue an extraction."""
        if isinstance(state, GenerateResult) and job is None:
            try:
                which: dict[str, Any] = {"variant": state.variant} if state.variant > 1 else {}
                return self.submit_extract(
                    job=state.job, idempotency_key=idempotency_key, **which, **settings
                )
            except (NotFoundError, ExpiredError):
                idempotency_key = None  # the state itself makes another request
        flow = calls.submit_extract(self._core, state, job, settings, idempotency_key)
        return Job(self, self._run(flow))

    def job(self, job_id: str) -> Job:
        """A job by its id."""
        return Job(self, self._run(calls.status(self._core, job_id)))

    def jobs(self, limit: int = 20, before: str | None = None) -> list[JobStatus]:
        """Your jobs, newest first, older than the job `before`."""
        return self._run(calls.jobs(self._core, limit, before)).jobs

    # --- the service -------------------------------------------------------------------------------------

    def health(self) -> Health:
        """Whether the service runs and what it offers; needs no key."""
        return self._run(calls.health(self._core))

    def usage(self) -> Usage:
        """Your own limits and what is left of them."""
        return self._run(calls.usage(self._core))

    def estimate(self, kind: JobKind = "generate", **settings: Any) -> Estimate:
        """What a job with these settings takes and costs, by measured jobs like it; makes none."""
        return self._run(calls.estimate(self._core, kind, settings))

    def matte(self, image: Picture, **settings: Any) -> Matte:
        """The subject as the model will see it, PNG with transparency, and what a person should know of the
        picture; `settings` are the fields of `MatteSettings`. Costs no GPU time.
        """
        return self._run(calls.matte(self._core, image, settings))

    # --- driving -----------------------------------------------------------------------------------------

    def _pause(self, pause: Pause) -> None:
        self._on_wait(pause.waiting)
        if pause.waiting.seconds > 0:
            self._sleep(pause.waiting.seconds)

    def _run(self, flow: Flow[T]) -> T:
        """Do what a flow asks for until it returns."""
        try:
            action = next(flow)
            while True:
                response: httpx.Response | None = None
                try:
                    if isinstance(action, Pause):
                        self._pause(action)
                    else:
                        response = deadlines.send(self._http, action.request)
                        if not (action.stream and response.is_success):
                            response = self._read(response, action.ceiling)
                except (httpx.TransportError, *INTERRUPTS) as error:
                    action = flow.throw(error)
                else:
                    action = flow.send(response)
        except StopIteration as end:
            value: T = end.value
            return value

    def _read(self, response: httpx.Response, ceiling: int) -> httpx.Response:
        """The reply, read to its end within the ceiling and at a pace."""
        body = Body(response, ceiling, self._core.clock)
        try:
            for chunk in [response.content] if response.is_stream_consumed else deadlines.chunks(response):
                body.feed(chunk)
        finally:
            response.close()
        return body.whole()

    def _events(self, job_id: str, after: int) -> Iterator[JobEvent]:
        follower = Follower(self._core, job_id, after)
        while not follower.over:
            response = self._run(follower.open())
            broken: httpx.TransportError | None = None
            if response is not None:
                try:
                    for chunk in deadlines.chunks(response):
                        yield from follower.feed(chunk)
                except httpx.TransportError as error:
                    broken = error
                finally:
                    response.close()
            if follower.over:
                return
            if broken is None:
                yield from follower.events_of(self._run(calls.status(self._core, job_id)))
                if follower.over:
                    return
            self._pause(follower.lost(broken))


class Job:
    """A job of this key. `status` is as of the last look."""

    def __init__(self, client: Client, status: JobStatus) -> None:
        self._client = client
        self.status = status

    @property
    def id(self) -> str:
        return self.status.id

    def refresh(self) -> JobStatus:
        """Look again."""
        self.status = self._client._run(calls.status(self._client._core, self.id))
        return self.status

    def events(self, after: int = 0) -> Iterator[JobEvent]:
        """Everything that happens to the job, from its start or after an event's id, to its end.

        A broken connection is resumed where it broke; the job is not harmed by it.
        """
        return self._client._events(self.id, after)

    def cancel(self) -> JobStatus:
        """Stop it: a queued job at once, a running one at its next step; a finished one stays as it is."""
        self.status = self._client._run(calls.cancel(self._client._core, self.id))
        return self.status

    def wait(self, on_event: OnEvent = _quiet) -> Result:
        """Follow the job to its end and fetch its files; raises its failure, or `JobCancelledError`."""
        for event in self.events():
            on_event(event)
            if is_result(event):
                break
        return self.result()

    def result(self) -> Result:
        """The files of a finished job; raises `NotReadyError`, `ExpiredError` or the job's failure."""
        return self._client._run(calls.result(self._client._core, self.id))

    def download(self, artifact: str) -> bytes:
        """One file: state, video, preview or asset."""
        return self._client._run(calls.artifact(self._client._core, self.id, artifact))


class AsyncClient:
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
        self._on_wait = on_wait
        self._sleep = sleep
        with environment_errors():
            self._http = httpx.AsyncClient(
                transport=transport, trust_env=not is_loopback(self._core.url), follow_redirects=False
            )

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
        await self._http.aclose()

    @property
    def url(self) -> str:
        """Where the service is."""
        return str(self._core.url).rstrip("/")

    async def generate(
        self,
        image: Picture,
        *,
        shape: StateSource | None = None,
        on_event: OnEvent = _quiet,
        **settings: Any,
    ) -> GenerateResult:
        """See `Client.generate`."""
        found = await self._finish(await self.submit(image, shape=shape, **settings), on_event)
        assert isinstance(found, GenerateResult)
        return found

    async def extract_glb(
        self,
        state: StateSource | None = None,
        *,
        job: str | None = None,
        on_event: OnEvent = _quiet,
        **settings: Any,
    ) -> ExtractResult:
        """See `Client.extract_glb`."""
        found = await self._finish(await self.submit_extract(state, job=job, **settings), on_event)
        assert isinstance(found, ExtractResult)
        return found

    async def texture(
        self, mesh: MeshSource, image: Picture, *, on_event: OnEvent = _quiet, **settings: Any
    ) -> TextureResult:
        """See `Client.texture`."""
        found = await self._finish(await self.submit_texture(mesh, image, **settings), on_event)
        assert isinstance(found, TextureResult)
        return found

    async def _finish(self, job: AsyncJob, on_event: OnEvent) -> Result:
        try:
            return await job.wait(on_event)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await asyncio.shield(job.cancel())
            raise

    async def submit(
        self,
        image: Picture,
        *,
        shape: StateSource | None = None,
        idempotency_key: str | None = None,
        **settings: Any,
    ) -> AsyncJob:
        """See `Client.submit`."""
        status = await self._run(calls.submit(self._core, image, settings, idempotency_key, shape))
        return AsyncJob(self, status)

    async def submit_texture(
        self, mesh: MeshSource, image: Picture, *, idempotency_key: str | None = None, **settings: Any
    ) -> AsyncJob:
        """See `Client.submit_texture`."""
        flow = calls.submit_texture(self._core, mesh, image, settings, idempotency_key)
        return AsyncJob(self, await self._run(flow))

    async def submit_extract(
        self,
        state: StateSource | None = None,
        *,
        job: str | None = None,
        idempotency_key: str | None = None,
        **settings: Any,
    ) -> AsyncJob:
        """See `Client.submit_extract`."""
        if isinstance(state, GenerateResult) and job is None:
            try:
                which: dict[str, Any] = {"variant": state.variant} if state.variant > 1 else {}
                return await self.submit_extract(
                    job=state.job, idempotency_key=idempotency_key, **which, **settings
                )
            except (NotFoundError, ExpiredError):
                idempotency_key = None
        flow = calls.submit_extract(self._core, state, job, settings, idempotency_key)
        return AsyncJob(self, await self._run(flow))

    async def job(self, job_id: str) -> AsyncJob:
        """A job by its id."""
        return AsyncJob(self, await self._run(calls.status(self._core, job_id)))

    async def jobs(self, limit: int = 20, before: str | None = None) -> list[JobStatus]:
        """See `Client.jobs`."""
        return (await self._run(calls.jobs(self._core, limit, before))).jobs

    async def health(self) -> Health:
        """See `Client.health`."""
        return await self._run(calls.health(self._core))

    async def usage(self) -> Usage:
        """See `Client.usage`."""
        return await self._run(calls.usage(self._core))

    async def estimate(self, kind: JobKind = "generate", **settings: Any) -> Estimate:
        """See `Client.estimate`."""
        return await self._run(calls.estimate(self._core, kind, settings))

    async def matte(self, image: Picture, **settings: Any) -> Matte:
        """See `Client.matte`."""
        return await self._run(calls.matte(self._core, image, settings))

    async def _pause(self, pause: Pause) -> None:
        self._on_wait(pause.waiting)
        if pause.waiting.seconds > 0:
            await self._sleep(pause.waiting.seconds)

    async def _run(self, flow: Flow[T]) -> T:
        """Do what a flow asks for until it returns."""
        try:
            action = next(flow)
            while True:
                response: httpx.Response | None = None
                try:
                    if isinstance(action, Pause):
                        await self._pause(action)
                    else:
                        response = await deadlines.send_async(self._http, action.request)
                        if not (action.stream and response.is_success):
                            response = await self._read(response, action.ceiling)
                except (httpx.TransportError, *INTERRUPTS) as error:
                    action = flow.throw(error)
                else:
                    action = flow.send(response)
        except StopIteration as end:
            value: T = end.value
            return value

    async def _read(self, response: httpx.Response, ceiling: int) -> httpx.Response:
        """See `Client._read`."""
        body = Body(response, ceiling, self._core.clock)
        try:
            if response.is_stream_consumed:
                body.feed(response.content)
            else:
                async for chunk in deadlines.chunks_async(response):
                    body.feed(chunk)
        finally:
            await response.aclose()
        return body.whole()

    async def _events(self, job_id: str, after: int) -> AsyncIterator[JobEvent]:
        follower = Follower(self._core, job_id, after)
        while not follower.over:
            response = await self._run(follower.open())
            broken: httpx.TransportError | None = None
            if response is not None:
                try:
                    async for chunk in deadlines.chunks_async(response):
                        for event in follower.feed(chunk):
                            yield event
                except httpx.TransportError as error:
                    broken = error
                finally:
                    await response.aclose()
            if follower.over:
                return
            if broken is None:
                for event in follower.events_of(await self._run(calls.status(self._core, job_id))):
                    yield event
                if follower.over:
                    return
            await self._pause(follower.lost(broken))


class AsyncJob:
    """`Job` for asyncio."""

    def __init__(self, client: AsyncClient, status: JobStatus) -> None:
        self._client = client
        self.status = status

    @property
    def id(self) -> str:
        return self.status.id

    async def refresh(self) -> JobStatus:
        """Look again."""
        self.status = await self._client._run(calls.status(self._client._core, self.id))
        return self.status

    def events(self, after: int = 0) -> AsyncIterator[JobEvent]:
        """See `Job.events`."""
        return self._client._events(self.id, after)

    async def cancel(self) -> JobStatus:
        """See `Job.cancel`."""
        self.status = await self._client._run(calls.cancel(self._client._core, self.id))
        return self.status

    async def wait(self, on_event: OnEvent = _quiet) -> Result:
        """See `Job.wait`."""
        async for event in self.events():
            on_event(event)
            if is_result(event):
                break
        return await self.result()

    async def result(self) -> Result:
        """See `Job.result`."""
        return await self._client._run(calls.result(self._client._core, self.id))

    async def download(self, artifact: str) -> bytes:
        """See `Job.download`."""
        return await self._client._run(calls.artifact(self._client._core, self.id, artifact))
