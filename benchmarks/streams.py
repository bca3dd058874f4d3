"""GET /health of Modal's gateway, its platform emulated, while two keys open 20 event streams each.

The gateway takes 20 requests at once and the others wait outside, as on the platform. Jobs wait in the queue
all the while, so no stream ends by itself.
"""

from __future__ import annotations

import asyncio
import base64
import os
import statistics
import time
from typing import Any

import httpx
import pytest

from benchmarks.record import Record
from tests.trellis2_modal.deploy.conftest import Deployed
from tests.trellis2_modal.deploy.emulated import EmulatedModal
from tests.trellis2_modal.deploy.slots import Slots, serving
from tests.trellis2_modal.server import picture
from trellis2_modal.service import service
from trellis2_modal.service.config import DeploySettings, gateway_settings

INPUTS, STREAMS, KEYS = 20, 20, 2
REQUESTS = 300


def run() -> list[Record]:
    """p99 of /health with and without the streams, and how many of them were refused."""
    others = os.getloadavg()[0]
    settings = gateway_settings(DeploySettings(gateway_max_inputs=INPUTS), {})
    with pytest.MonkeyPatch.context() as patch:
        modal = EmulatedModal()
        deployed = Deployed(patch, modal)
        patch.setenv("TRELLIS2_MAX_STREAMS", str(settings.max_streams))
        patch.setenv("TRELLIS2_MAX_ALL_STREAMS", str(settings.max_all_streams))
        patch.setenv("TRELLIS2_EVENT_INTERVAL", str(settings.event_interval))
        modal.pause()
        try:
            keys = [deployed.new_key(f"key {n}") for n in range(KEYS)]
            with serving(Slots(service.web.local(), INPUTS)) as url:
                alone, crowded, refused = asyncio.run(_measure(url, keys))
        finally:
            modal.stop()
    note = f"{REQUESTS} requests, median {statistics.median(crowded):.1f} ms; load before {others:.1f}"
    return [
        Record(
            "/health, no streams, p99", _p99(alone), "ms", None, f"median {statistics.median(alone):.1f} ms"
        ),
        Record(
            f"/health, {KEYS} x {STREAMS} streams, {INPUTS} inputs, p99", _p99(crowded), "ms", 1000.0, note
        ),
        Record("streams refused with 429", refused, "", None, f"of {KEYS * STREAMS}"),
    ]


async def _measure(url: str, keys: list[str]) -> tuple[list[float], list[float], int]:
    body = {"image": base64.b64encode(picture()).decode(), "preview": "none"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        alone = await _health(http)
        opened: list[httpx.Response] = []
        for key in keys:
            headers = {"X-API-Key": key, "Prefer": "respond-async"}
            job = (await http.post("/generate", json=body, headers=headers)).raise_for_status().json()["id"]
            request = [
                http.build_request("GET", f"/jobs/{job}/events", headers=headers) for _ in range(STREAMS)
            ]
            opened += await asyncio.gather(*(http.send(one, stream=True) for one in request))
        crowded = await _health(http)
        refused = sum(reply.status_code == 429 for reply in opened)
        for reply in opened:
            await reply.aclose()
        return alone, crowded, refused


async def _health(http: Any) -> list[float]:
    times = []
    for _ in range(REQUESTS):
        start = time.perf_counter()
        (await http.get("/health")).raise_for_status()
        times.append(1000 * (time.perf_counter() - start))
    return times


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]
