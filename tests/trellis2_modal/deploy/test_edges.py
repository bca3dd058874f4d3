"""On Modal: callbacks leave the gateway, keys that rehearse start no call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.trellis2_modal.deploy.conftest import Deployed
from tests.trellis2_modal.deploy.emulated import until
from tests.trellis2_modal.server import picture
from tests.trellis2_modal.service.outbound.network import Network, Reply, network
from trellis2_modal.protocol.webhooks import verify
from trellis2_modal.service.dry_run import canned
from trellis2_modal.service.http import app

Deploy = Callable[..., Deployed]
FILES = {"image": ("cat.png", picture(), "image/png")}


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """The internet as the gateway sees it."""
    with network() as found:
        monkeypatch.setattr(app, "Outbound", found.outbound)
        monkeypatch.setenv("TRELLIS2_CALLBACK_DELAYS", "0.02,0.02")
        yield found


def test_a_callback_is_delivered_by_the_gateway(deploy: Deploy, net: Network) -> None:
    deployed = deploy()
    key = deployed.new_key("hooks", scopes=("generate", "webhook"))
    net.plan = lambda request: Reply(500 if len(net.received) < 3 else 200)
    with deployed.gateway(key) as client:
        fields = {"callback_url": "https://hooks.example/", "preview": "none"}
        job = client.post("/jobs", files=FILES, data=fields).json()["id"]
        until(
            lambda: client.get(f"/jobs/{job}").json()["callback"]["state"] == "delivered",
            "the callback",
        )
        callback = client.get(f"/jobs/{job}").json()["callback"]
        secret = client.get("/usage").json()["webhook_secret"]
    assert [attempt["status"] for attempt in callback["attempts"]] == [500, 500, 200]
    assert verify(secret, net.received[2].headers, net.received[2].body) == job
    assert json.loads(net.received[2].body)["data"]["status"] == "finished"


def test_the_next_gateway_delivers_what_the_last_one_could_not(deploy: Deploy, net: Network) -> None:
    deployed = deploy()
    key = deployed.new_key("hooks", scopes=("generate", "webhook"))
    net.plan = lambda request: Reply(500)
    with deployed.gateway(key) as client:
        fields = {"callback_url": "https://hooks.example/", "preview": "none"}
        job = client.post("/jobs", files=FILES, data=fields).json()["id"]
        until(lambda: bool(client.get(f"/jobs/{job}").json()["callback"]["attempts"]), "an attempt")
        tried = len(net.received)
    net.plan = lambda request: Reply(200)
    with deployed.gateway(key) as client:
        over = ("delivered", "failed")
        until(lambda: client.get(f"/jobs/{job}").json()["callback"]["state"] in over, "the end")
        attempts = client.get(f"/jobs/{job}").json()["callback"]["attempts"]
    assert tried >= 1
    assert len(attempts) <= 3
    # the first gateway may have stopped between a delivery and its note of it
    assert len(attempts) <= len(net.received) <= len(attempts) + 1


def test_a_dry_run_key_starts_no_call(deploy: Deploy) -> None:
    deployed = deploy()
    with deployed.gateway(deployed.new_key("tests", scopes=("dry-run",))) as client:
        job = client.post("/jobs", files=FILES, data={"preview": "none"}).json()["id"]
        until(lambda: client.get(f"/jobs/{job}").json()["status"] == "finished", "the job")
        found = client.post("/extract_glb", json={"job": job}, headers={"Accept": "model/gltf-binary"})
    assert found.content == canned("glb")
    assert deployed.modal.spawned == []
