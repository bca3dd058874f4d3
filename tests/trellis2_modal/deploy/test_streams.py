"""Event streams that wait for jobs leave the gateway free for everyone else."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.trellis2_modal.deploy.conftest import Deployed
from tests.trellis2_modal.deploy.slots import Slots, serving
from trellis2_modal.service import service
from trellis2_modal.service.config import DeploySettings, gateway_settings

INPUTS = 20


def test_forty_streams_of_two_keys_leave_room(
    deployed: Deployed, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = gateway_settings(DeploySettings(gateway_max_inputs=INPUTS), {})
    monkeypatch.setenv("TRELLIS2_MAX_STREAMS", str(small.max_streams))
    monkeypatch.setenv("TRELLIS2_MAX_ALL_STREAMS", str(small.max_all_streams))
    deployed.modal.pause()
    with serving(Slots(service.web.local(), INPUTS)) as url:
        statuses = asyncio.run(crowd(url, [deployed.key, deployed.new_key("other")], body))
    assert [counts.get(200) for counts in statuses] == [small.max_streams, small.max_streams]
    assert [counts.get(429) for counts in statuses] == [20 - small.max_streams] * 2
    assert 2 * small.max_streams < small.max_all_streams < INPUTS


async def crowd(url: str, keys: list[str], body: dict[str, Any]) -> list[dict[int, int]]:
    """Twenty streams of each key at once; the replies by status. While they are open, other calls answer."""
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=httpx.Limits(max_connections=100)) as http:
        found: list[dict[int, int]] = []
        opened: list[httpx.Response] = []
        for key in keys:
            headers = {"X-API-Key": key, "Prefer": "respond-async"}
            job = (await http.post("/generate", json=body, headers=headers)).json()["id"]

            async def follow(job: str = job, headers: dict[str, str] = headers) -> httpx.Response:
                request = http.build_request("GET", f"/jobs/{job}/events", headers=headers)
                return await http.send(request, stream=True)

            replies = await asyncio.gather(*(follow() for _ in range(20)))
            found.append({s: [r.status_code for r in replies].count(s) for s in (200, 429)})
            opened += replies
            assert (await http.get("/health")).json()["status"] == "ok"
            assert (await http.get(f"/jobs/{job}", headers=headers)).json()["status"] == "queued"
        for reply in opened:
            await reply.aclose()
        return found


def test_all_keys_together_have_a_limit_too(
    deployed: Deployed, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS2_MAX_ALL_STREAMS", "0")
    with deployed.gateway() as client:
        job = client.post("/generate", json=body, headers={"Prefer": "respond-async"}).json()["id"]
        refused = client.get(f"/jobs/{job}/events")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "poll the job" in refused.json()["detail"]
