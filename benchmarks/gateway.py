"""The gateway under load while the generator keeps every processor busy: 50 clients, pictures of 2 MB.

Three processes share the machine: the server, its worker (a generator that multiplies matrices, at the lower
priority that every worker has), and this one, which plays the clients over raw keep-alive sockets. Each
`POST /jobs` is authenticated, read and wholly validated, and refused at the very end for a pipeline type that
the weights lack, so that no job is made.

"Inside the service" is the reply's Server-Timing: from the request's head to the reply's head, less the time
spent waiting for the body to arrive. "Seen by the caller" is wall time from the first byte sent to the last
byte received, upload included. People pause; a closed loop, where all 50 always send, saturates the server
and shows its throughput: there a caller's wait is 50 requests long whatever the server does.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from benchmarks.record import Record
from tests.trellis2_modal.server import ServerProcess, wait_for

CLIENTS = 50
SECONDS = 10.0
PAUSE = (1.5, 3.5)
"""Seconds between two uploads of one client, at random: about 20 uploads a second altogether."""

PICTURE_BYTES = 2_000_000
HEALTH_CONNECTIONS = 8


@dataclass
class Times:
    """Milliseconds of every request: inside the service, and as its caller saw it."""

    served: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)


def run() -> list[Record]:
    """p99 of uploads by people, the same in a closed loop, and the rate of GET /health."""
    others = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        busy = {"step_seconds": 600.0, "burn": True}
        server = ServerProcess(Path(folder), busy, max_active_jobs=10**6, keys_ttl=1.0)
        _, key = server.admin.create("bench", requests_per_minute=10**6, gpu_seconds_per_day=1e9)
        server.start()
        try:
            return [
                *_measure(server, key),
                Record("load of other programs before", others, "processes", note="1 minute average"),
            ]
        finally:
            server.kill()


def _measure(server: ServerProcess, key: str) -> list[Record]:
    image = base64.b64encode(picture()).decode()
    with httpx.Client(base_url=server.url, headers={"X-API-Key": key}) as client:
        client.post("/jobs", json={"kind": "generate", "image": image}).raise_for_status()
        wait_for(lambda: client.get("/health").json()["running"], "a busy generator")
    body = f'{{"kind": "generate", "pipeline_type": "1536_cascade", "image": "{image}"}}'
    upload = _request("POST", "/jobs", key, body.encode())
    people = asyncio.run(_uploads(server, upload, PAUSE))
    crowd = asyncio.run(_uploads(server, upload, (0.0, 0.0)))
    rate = asyncio.run(_health_rate(server))
    return [
        Record("2 MB upload, inside the service, p99", _p99(people.served), "ms", 50.0, _note(people.served)),
        Record("2 MB upload, seen by the caller, p99", _p99(people.seen), "ms", None, _note(people.seen)),
        Record("closed loop, inside the service, p99", _p99(crowd.served), "ms", None, _note(crowd.served)),
        Record("closed loop, seen by the caller, p99", _p99(crowd.seen), "ms", None, _note(crowd.seen)),
        Record("closed loop, uploads", len(crowd.seen) / SECONDS, "1/s", note=f"{CLIENTS} connections"),
        Record("GET /health", rate, "1/s", 1000.0, f"{HEALTH_CONNECTIONS} connections", at_least=True),
    ]


def _request(method: str, path: str, key: str = "", body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n"
    head += "Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _uploads(server: ServerProcess, upload: bytes, pause: tuple[float, float]) -> Times:
    times = Times()
    end = time.monotonic() + SECONDS

    async def person(number: int) -> None:
        chance = random.Random(number)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.sleep(chance.uniform(0, pause[1]))
        while time.monotonic() < end:
            start = time.perf_counter()
            writer.write(upload)
            head, body = await _reply(reader)
            times.seen.append((time.perf_counter() - start) * 1000)
            if b"unsupported-pipeline" not in body:
                raise AssertionError(body)
            times.served.append(float(head.partition(b"dur=")[2].split(b"\r\n")[0]))
            await asyncio.sleep(chance.uniform(*pause))
        writer.close()

    await asyncio.gather(*(person(number) for number in range(CLIENTS)))
    return times


async def _health_rate(server: ServerProcess) -> float:
    request = _request("GET", "/health")
    done = 0
    end = time.monotonic() + SECONDS / 2

    async def connection() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while time.monotonic() < end:
            writer.write(request)
            await _reply(reader)
            done += 1
        writer.close()

    start = time.monotonic()
    await asyncio.gather(*(connection() for _ in range(HEALTH_CONNECTIONS)))
    return done / (time.monotonic() - start)


async def _reply(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head (in lower case) and body of a response."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


def picture() -> bytes:
    """A JPEG of about 2 MB."""
    rng = np.random.default_rng(0)
    for side in range(600, 3000, 100):
        noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "JPEG", quality=90)
        if buffer.tell() >= PICTURE_BYTES:
            break
    return buffer.getvalue()


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def _note(values: list[float]) -> str:
    return f"{CLIENTS} clients, {len(values)} requests, median {statistics.median(values):.1f} ms"
