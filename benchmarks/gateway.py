"""The gateway under load while the generator is busy: a server process, 50 clients, pictures of 2 MB."""

from __future__ import annotations

import asyncio
import base64
import io
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from benchmarks.record import Record
from tests.trellis2_modal.server import ServerProcess

CLIENTS = 50
SECONDS = 8.0
THINK = 2.5
"""Seconds between two uploads of one client: people do not post 2 MB in a loop."""

PICTURE_BYTES = 2_000_000
HEALTH_CONNECTIONS = 8


def run() -> list[Record]:
    """Latencies of POST /jobs (refused at the end for an unknown pipeline type, so that no job is made)."""
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(Path(folder), {"step_seconds": 5.0}, max_active_jobs=10**6)
        _, key = server.admin.create("bench", requests_per_minute=10**6, gpu_seconds_per_day=1e9)
        server.start()
        try:
            return asyncio.run(_measure(server.url, key))
        finally:
            server.kill()


async def _measure(url: str, key: str) -> list[Record]:
    image = base64.b64encode(picture()).decode()
    limits = httpx.Limits(max_connections=CLIENTS + 5, max_keepalive_connections=CLIENTS + 5)
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits) as client:
        busy = f'{{"kind": "generate", "image": "{image}"}}'.encode()
        (await client.post("/jobs", content=busy)).raise_for_status()
        refused = f'{{"kind": "generate", "pipeline_type": "1536_cascade", "image": "{image}"}}'.encode()
        served, seen = await _uploads(client, refused)
        rate = await _health_rate(url)
    return [
        Record("authentication and validation, 2 MB picture, p99", _p99(served), "ms", 50.0, _note(served)),
        Record(
            "the same as seen by the caller, p99",
            _p99(seen),
            "ms",
            note="with upload and the load's own work",
        ),
        Record("GET /health", rate, "1/s", 1000.0, "one connection each", at_least=True),
    ]


async def _uploads(client: httpx.AsyncClient, body: bytes) -> tuple[list[float], list[float]]:
    """Milliseconds inside the service (Server-Timing) and as seen, of every upload."""
    served: list[float] = []
    seen: list[float] = []
    end = time.monotonic() + SECONDS

    async def person(number: int) -> None:
        await asyncio.sleep(THINK * number / CLIENTS)
        while time.monotonic() < end:
            start = time.perf_counter()
            reply = await client.post("/jobs", content=body)
            seen.append((time.perf_counter() - start) * 1000)
            if reply.json()["type"] != "unsupported-pipeline":
                raise AssertionError(reply.text)
            served.append(float(reply.headers["server-timing"].partition("dur=")[2]))
            await asyncio.sleep(THINK)

    await asyncio.gather(*(person(number) for number in range(CLIENTS)))
    return served, seen


async def _health_rate(url: str) -> float:
    """Requests a second over raw keep-alive connections, so that the client's own cost is small."""
    host, port = url.removeprefix("http://").split(":")
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    done = 0
    end = time.monotonic() + SECONDS / 2

    async def connection() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.monotonic() < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            done += 1
        writer.close()

    start = time.monotonic()
    await asyncio.gather(*(connection() for _ in range(HEALTH_CONNECTIONS)))
    return done / (time.monotonic() - start)


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
