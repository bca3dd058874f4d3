"""A service in memory that speaks the API over an injected transport: it keeps jobs, and breaks on demand.

`Service` is called with an `httpx.Request` and answers it; `listening` puts the same thing behind a socket.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import httpx
from PIL import Image, ImageDraw

from tests.trellis2_modal.shapes import dual_grid
from trellis2_modal.protocol.errors import ERRORS, ServiceError
from trellis2_modal.protocol.replies import STATE_MEDIA_TYPE
from trellis2_modal.protocol.state import compress_state, pack_state

URL, KEY = "http://service.test", "sk_test"
WHEN = "2026-01-02T03:04:05Z"
GLB = b"glTF" + bytes(60)
SIZE, MODES = 16, ("shaded", "normal")
T = TypeVar("T")
Fault = Callable[[httpx.Request], httpx.Response | None]


@lru_cache
def state() -> bytes:
    """A compressed state as the service makes it."""
    return compress_state(pack_state(dual_grid(16), {"seed": 7}))


@lru_cache
def photo(format: str = "PNG") -> bytes:
    """A picture of a disc."""
    image = Image.new("RGB", (64, 48), (240, 240, 240))
    ImageDraw.Draw(image).ellipse((12, 4, 52, 44), fill=(200, 60, 40))
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


@lru_cache
def sheet() -> bytes:
    """A sheet of stills: two modes, two views."""
    buffer = io.BytesIO()
    Image.new("RGB", (2 * SIZE, 2 * SIZE), (90, 120, 40)).save(buffer, "WEBP")
    return buffer.getvalue()


@dataclass
class FakeJob:
    """`plan`: "finish", "hang" (runs until it is cancelled or released) or the slug of an error."""

    id: str
    kind: str
    settings: dict[str, Any]
    plan: str = "finish"
    status: str = "running"
    released: threading.Event = field(default_factory=threading.Event)
    deleted: bool = False

    def end(self) -> None:
        if self.status == "running":
            self.status = "finished" if self.plan in ("finish", "hang") else "failed"


class Service:
    """See the module. Each request takes a fault from `faults`, which answers, raises, or lets it pass."""

    def __init__(self) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.requests: list[httpx.Request] = []
        self.faults: deque[Fault] = deque()
        self.plans: deque[str] = deque()
        self.health = "ok"
        self.chunk = 40
        self.breaks: deque[int] = deque()
        """Event streams that break off after so many bytes."""

        self.keys: dict[str, str] = {}
        self.has_matte = True
        self._lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        with self._lock:
            self.requests.append(request)
            fault = self.faults.popleft() if self.faults else None
        if fault is not None:
            answer = fault(request)
            if answer is not None:
                return answer
        path = request.url.path
        if path == "/health":
            return self._health()
        if request.headers.get("x-api-key") != KEY:
            return problem("unauthenticated")
        for method, pattern, handler in self._routes():
            found = re.fullmatch(pattern, path)
            if found and method == request.method:
                return handler(request, *found.groups())
        return problem("not-found")

    def _routes(self) -> tuple[tuple[str, str, Callable[..., httpx.Response]], ...]:
        return (
            ("GET", "/usage", self._usage),
            ("POST", "/jobs", self._submit),
            ("POST", "/extract_glb", self._submit),
            ("POST", "/matte", lambda request: httpx.Response(200, content=photo())),
            ("GET", "/jobs", self._list),
            ("GET", "/jobs/([^/]+)", lambda request, job: self._with(job, self._status)),
            ("DELETE", "/jobs/([^/]+)", lambda request, job: self._with(job, self._cancel)),
            ("GET", "/jobs/([^/]+)/events", self._events),
            ("GET", "/jobs/([^/]+)/(state|video|preview|glb)", self._artifact),
        )

    # --- what tests look at ------------------------------------------------------------------------------

    def calls(self, method: str, pattern: str) -> list[httpx.Request]:
        return [r for r in self.requests if r.method == method and re.fullmatch(pattern, r.url.path)]

    def newest(self) -> FakeJob:
        return list(self.jobs.values())[-1]

    # --- answers -----------------------------------------------------------------------------------------

    def _health(self) -> httpx.Response:
        return httpx.Response(
            200,
            json={
                "status": self.health,
                "version": "1",
                "model": "small",
                "pipeline_types": ["512", "1024"],
                "default_pipeline_type": "1024",
                "matte": self.has_matte,
                "something_newer": 1,
            },
        )

    def _usage(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200,
            json={
                "key": "key_1",
                "name": "anna",
                "scopes": ["generate", "extract"],
                "requests_per_minute": 60,
                "requests_left": 59,
                "gpu_seconds_per_day": 7200,
                "gpu_seconds_used": 10,
                "gpu_seconds_left": 7190,
                "active_jobs": 0,
                "max_active_jobs": 4,
            },
        )

    def _submit(self, request: httpx.Request) -> httpx.Response:
        key = request.headers.get("idempotency-key", "")
        with self._lock:
            if key in self.keys:
                return httpx.Response(202, json=self._document(self.jobs[self.keys[key]]))
            fields = form_of(request)
            source = fields.get("job")
            if source is not None and (source not in self.jobs or self.jobs[source].deleted):
                return problem("not-found")
            number = len(self.jobs) + 1
            kind = "extract" if request.url.path == "/extract_glb" else str(fields.get("kind"))
            settings = {k: v for k, v in fields.items() if k not in ("kind", "job", "image", "state")}
            plan = self.plans.popleft() if self.plans else "finish"
            job = FakeJob(f"job_{number}", kind, settings, plan)
            self.jobs[job.id] = job
            self.keys[key] = job.id
        return httpx.Response(202, json=self._document(job))

    def _with(self, job_id: str, answer: Callable[[FakeJob], httpx.Response]) -> httpx.Response:
        job = self.jobs.get(job_id)
        return problem("not-found") if job is None or job.deleted else answer(job)

    def _status(self, job: FakeJob) -> httpx.Response:
        return httpx.Response(200, json=self._document(job))

    def _cancel(self, job: FakeJob) -> httpx.Response:
        if job.status == "running":
            job.status = "cancelled"
        job.released.set()
        return httpx.Response(202, json=self._document(job))

    def _list(self, request: httpx.Request) -> httpx.Response:
        newest = list(reversed(self.jobs.values()))[: int(request.url.params.get("limit", 20))]
        return httpx.Response(200, json={"jobs": [self._document(job) for job in newest], "next": None})

    def _document(self, job: FakeJob) -> dict[str, Any]:
        document: dict[str, Any] = {
            "id": job.id,
            "kind": job.kind,
            "status": job.status,
            "created": WHEN,
            "settings": job.settings,
        }
        if job.status == "finished":
            document["result"] = self._result(job)
        if job.status == "failed":
            document["problem"] = ERRORS[job.plan]().problem()
        return document

    def _result(self, job: FakeJob) -> dict[str, Any]:
        names = ["glb"] if job.kind == "extract" else ["state", "video", "preview"]
        links = {n: {"url": f"/jobs/{job.id}/{n}", "media_type": "x/y", "bytes": 1} for n in names}
        layout = {"modes": list(MODES), "views": 2, "size": SIZE}
        stats: dict[str, Any] = {"seconds": {"shape": 2.0, "texture": 1.0}, "voxels": 10, "preview": layout}
        if job.kind == "extract":
            stats = {"report": {"faces": 1200, "vertices": 700, "components": 1, "watertight": True}}
        return {"seed": 7, "resolution": 16, "artifacts": links, "stats": stats}

    def _artifact(self, request: httpx.Request, job_id: str, name: str) -> httpx.Response:
        job = self.jobs.get(job_id)
        if job is None or job.deleted or job.status != "finished":
            return problem("not-found")
        files = {
            "state": (state(), STATE_MEDIA_TYPE),
            "video": (b"video" * 10, "video/mp4"),
            "preview": (sheet(), "image/webp"),
            "glb": (GLB, "model/gltf-binary"),
        }
        content, kind = files[name]
        return httpx.Response(200, content=content, headers={"content-type": kind})

    def _events(self, request: httpx.Request, job_id: str) -> httpx.Response:
        job = self.jobs.get(job_id)
        if job is None:
            return problem("not-found")
        after = int(request.headers.get("last-event-id", 0))
        budget = self.breaks.popleft() if self.breaks else None
        stream = Stream(lambda: self._stream(job, after), budget)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)

    def _stream(self, job: FakeJob, after: int) -> Iterator[bytes]:
        def event(number: int, kind: str, data: dict[str, Any]) -> bytes:
            if number <= after:
                return b""
            body = json.dumps({"id": number, "type": kind, "time": WHEN, "data": data})
            return f"id: {number}\nevent: {kind}\ndata: {body}\n\n".encode()

        yield event(1, "queued", {"position": 0}) + event(2, "started", {})
        for step in range(3):
            yield event(3 + step, "progress", {"stage": "shape", "step": step + 1, "steps": 3})
        if job.plan == "hang":
            yield b": still here\n\n"
            assert job.released.wait(20), "nobody released the job"
        job.end()
        if job.status == "cancelled":
            yield event(6, "cancelled", {})
        elif job.status == "failed":
            yield event(6, "failed", ERRORS[job.plan]().problem())
        else:
            yield event(6, "result", self._result(job))


class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body for both kinds of client, in small chunks; breaks off after `budget` bytes."""

    def __init__(self, make: Callable[[], Iterator[bytes]], budget: int | None) -> None:
        self._make, self._budget = make, budget

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        for block in self._make():
            for start in range(0, len(block), 17):
                chunk = block[start : start + 17]
                if self._budget is not None and sent + len(chunk) > self._budget:
                    raise httpx.ReadError("the network is gone")
                sent += len(chunk)
                yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            await asyncio.sleep(0)  # as a network does: others have their turn
            yield chunk


def form_of(request: httpx.Request) -> dict[str, Any]:
    """The fields of a JSON or multipart body; files by their bytes."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/"):
        found: dict[str, Any] = json.loads(request.content)
        return found
    boundary = kind.partition("boundary=")[2].encode()
    fields: dict[str, Any] = {}
    for part in request.content.split(b"--" + boundary)[1:-1]:
        head, _, body = part.partition(b"\r\n\r\n")
        named = re.search(rb'name="([^"]+)"', head)
        assert named is not None
        value = body.removesuffix(b"\r\n")
        fields[named[1].decode()] = value if b"filename=" in head else value.decode()
    return fields


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


def until(check: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """What `check` gives once it is true; fails naming what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        threading.Event().wait(0.01)
    raise AssertionError(f"{what}: not within {seconds} s")


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """The service behind a socket of this machine; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            url = f"http://{self.headers['host']}{self.path}"
            response = service(httpx.Request(self.command, url, headers=dict(self.headers), content=body))
            self.send_response(response.status_code)
            for name, value in response.headers.items():
                if name not in ("content-length", "transfer-encoding"):
                    self.send_header(name, value)
            self.end_headers()
            if isinstance(response.stream, httpx.SyncByteStream):
                for chunk in response.stream:
                    self.wfile.write(chunk)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815  (names of the base class)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
