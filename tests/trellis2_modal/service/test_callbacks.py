"""Callbacks: signed, tried again, told of in the job, and only to the internet."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from tests.trellis2_modal import fake
from tests.trellis2_modal.client.service import Keys
from tests.trellis2_modal.memory import memory_engine
from tests.trellis2_modal.server import picture, settings_for, wait_for
from tests.trellis2_modal.service.outbound.network import Network, Reply, network
from trellis2_modal.jobs.engine import Engine
from trellis2_modal.jobs.local.assembly import folder_lock
from trellis2_modal.jobs.local.table import SqliteTable
from trellis2_modal.protocol.webhooks import SignatureError, verify
from trellis2_modal.service.auth import KeyAdmin
from trellis2_modal.service.http.app import create_app
from trellis2_modal.sockets import listen

HOOK = "https://hooks.example/done?who=me"
QUICK = (0.02, 0.02, 0.02)


class KeyList(Keys):
    """See `auth.KeyStorage`."""

    data = b""

    def read(self) -> bytes:
        if not self.data:
            raise FileNotFoundError
        return self.data

    def write(self, data: bytes) -> None:
        self.data = data


@contextmanager
def served(net: Network, engine: Engine, keys: KeyList, **overrides: Any) -> Iterator[str]:
    """The app with its lifespan, as a server runs it; gives its address."""
    settings = settings_for(Path("unused"), **overrides)
    engine.settings = settings
    app = create_app(engine, keys, settings, outbound=net.outbound())
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_for(lambda: server.started, "the server")
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join(20)


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as found:
        yield found


@pytest.fixture
def keys() -> KeyList:
    return KeyList()


@pytest.fixture
def connect(net: Network, keys: KeyList) -> Iterator[Callable[..., httpx.Client]]:
    """A client with a key of these scopes, at one server with a fake generator."""
    with served(net, memory_engine(fake.create(0.0)), keys, callback_delays=QUICK) as url:
        clients = []

        def make(*scopes: str) -> httpx.Client:
            secret = KeyAdmin(keys).create("tests", scopes)[1]
            clients.append(httpx.Client(base_url=url, headers={"X-API-Key": secret}, timeout=30))
            return clients[-1]

        yield make
        for client in clients:
            client.close()


def submit(client: httpx.Client, callback: str = HOOK, **fields: Any) -> httpx.Response:
    files = {"image": ("cat.png", picture(), "image/png")}
    return client.post("/jobs", files=files, data={"callback_url": callback, "preview": "none"} | fields)


def told(client: httpx.Client, job: str) -> dict[str, Any]:
    """The job's callback when it is over."""

    def look() -> Any:
        found = client.get(f"/jobs/{job}").json()["callback"]
        return found if found["state"] != "waiting" else None

    return wait_for(look, "the callback")


def test_a_receiver_that_fails_twice_is_told_once_with_a_valid_signature(net: Network, connect: Any) -> None:
    client = connect("generate", "webhook")
    replies = [Reply(500), Reply(302, {"Location": "https://10.0.0.1/"}), Reply(204)]
    net.plan = lambda request: replies[len(net.received) - 1]
    job = submit(client, seed="7").json()["id"]
    callback = told(client, job)
    assert callback["state"] == "delivered"
    assert [attempt["status"] for attempt in callback["attempts"]] == [500, 302, 204]
    assert len(net.received) == 3, "no redirect was followed, nothing was sent after the delivery"
    secret = client.get("/usage").json()["webhook_secret"]
    for request in net.received:
        assert (request.method, request.path) == ("POST", "/done?who=me")
        assert verify(secret, request.headers, request.body) == job
        with pytest.raises(SignatureError):
            verify(secret, request.headers, request.body + b" ")
    message = json.loads(net.received[-1].body)
    assert message["type"] == "job.finished"
    assert (message["data"]["id"], message["data"]["settings"]["seed"]) == (job, 7)
    assert message["data"]["result"]["artifacts"]["state"]["url"] == f"/jobs/{job}/state"
    assert client.headers["x-api-key"] not in str(net.received)


def test_the_signature_is_that_of_the_specification(net: Network, connect: Any) -> None:
    """Computed here as the specification of Standard Webhooks says, not by our own code."""
    client = connect("generate", "webhook")
    told(client, submit(client).json()["id"])
    sent = net.received[0]
    signed = f"{sent.headers['webhook-id']}.{sent.headers['webhook-timestamp']}.".encode() + sent.body
    key = base64.b64decode(client.get("/usage").json()["webhook_secret"].removeprefix("whsec_"))
    mac = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert sent.headers["webhook-signature"] == f"v1,{mac}"


def test_old_or_foreign_messages_are_not_genuine(net: Network, connect: Any) -> None:
    client, other = connect("generate", "webhook"), connect("generate", "webhook")
    told(client, submit(client).json()["id"])
    sent = net.received[0]
    secret = client.get("/usage").json()["webhook_secret"]
    when = float(sent.headers["webhook-timestamp"])
    verify(secret, sent.headers, sent.body, now=when + 299)
    for headers, now, chosen in (
        (sent.headers, when + 301, secret),
        ({}, when, secret),
        (sent.headers | {"webhook-timestamp": "soon"}, when, secret),
        (sent.headers | {"webhook-id": "job_other"}, when, secret),
        (sent.headers, when, other.get("/usage").json()["webhook_secret"]),
    ):
        with pytest.raises(SignatureError):
            verify(chosen, headers, sent.body, now)


def test_a_receiver_that_always_fails_is_given_up(net: Network, connect: Any) -> None:
    client = connect("generate", "webhook")
    net.plan = lambda request: Reply(503)
    callback = told(client, submit(client).json()["id"])
    assert callback["state"] == "failed"
    assert [attempt["status"] for attempt in callback["attempts"]] == [503] * (len(QUICK) + 1)


def test_a_receiver_that_is_gone_is_not_asked_again(net: Network, connect: Any) -> None:
    client = connect("generate", "webhook")
    net.plan = lambda request: Reply(410)
    assert [a["status"] for a in told(client, submit(client).json()["id"])["attempts"]] == [410]


def test_failures_and_cancellations_are_told_too(net: Network, connect: Any) -> None:
    client = connect("generate", "webhook")
    told(client, submit(client, seed=str(fake.OUT_OF_MEMORY)).json()["id"])
    message = json.loads(net.received[0].body)
    assert (message["type"], message["data"]["problem"]["type"]) == ("job.failed", "out-of-memory")


def test_a_key_needs_the_scope(net: Network, connect: Any) -> None:
    client = connect("generate", "extract")
    answer = submit(client)
    assert (answer.status_code, answer.json()["type"]) == (403, "forbidden")
    assert client.get("/usage").json()["webhook_secret"] is None
    assert client.get("/jobs").json()["jobs"] == []
    assert net.lookups == []


@pytest.mark.parametrize(
    "callback",
    ["http://hooks.example/", "https://10.0.0.1/", "https://[::1]/", "https://169.254.169.254/", "nonsense"],
)
def test_addresses_of_ours_are_refused_at_once(net: Network, connect: Any, callback: str) -> None:
    client = connect("generate", "webhook")
    answer = submit(client, callback)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "callback_url"
    assert net.connected == []


def test_a_name_that_turns_private_later_gets_nothing(net: Network, connect: Any) -> None:
    client = connect("generate", "webhook")
    net.names("hooks.example", ["93.184.215.14"], ["127.0.0.1"])
    callback = told(client, submit(client).json()["id"])
    assert callback["state"] == "failed"
    assert "private, local or reserved" in callback["attempts"][0]["error"]
    assert net.connected == []


def test_the_same_request_with_another_callback_is_another_request(net: Network, connect: Any) -> None:
    client = connect("generate", "webhook")
    client.headers["Idempotency-Key"] = "one"
    first = submit(client).json()["id"]
    assert submit(client).json()["id"] == first
    assert submit(client, "https://other.example/").status_code == 409
    told(client, first)
    assert len(net.received) == 1


def test_a_revoked_key_sends_nothing(net: Network, keys: KeyList, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    engine = memory_engine(fake.create(0.0, gate=str(gate)))
    key, secret = KeyAdmin(keys).create("tests", ("generate", "webhook"))
    with (
        served(net, engine, keys) as url,
        httpx.Client(base_url=url, headers={"X-API-Key": secret}) as client,
    ):
        job = submit(client).json()["id"]
        KeyAdmin(keys).revoke(key.id)
        gate.touch()
        table: Any = engine.table
        found = wait_for(lambda: (j := table._jobs[job]).over and j.callback.attempts and j.callback, "it")
        assert found.state == "failed"
        assert net.connected == []


def test_a_server_that_was_killed_goes_on_where_it_was(net: Network, keys: KeyList, tmp_path: Path) -> None:
    """The attempts are in the table: the next server makes what is left of them."""
    secret = KeyAdmin(keys).create("tests", ("generate", "webhook"))[1]

    def engine() -> Engine:
        made = memory_engine(fake.create(0.0))
        made.table = SqliteTable(tmp_path / "jobs.sqlite", folder_lock(tmp_path))
        return made

    net.plan = lambda request: Reply(500 if len(net.received) < 2 else 200)
    with (
        served(net, engine(), keys, callback_delays=(0.5, 0.5)) as url,
        httpx.Client(base_url=url, headers={"X-API-Key": secret}) as client,
    ):
        job = submit(client).json()["id"]
        wait_for(lambda: client.get(f"/jobs/{job}").json()["callback"]["attempts"], "the first attempt")
    with (
        served(net, engine(), keys, callback_delays=(0.5, 0.5)) as url,
        httpx.Client(base_url=url, headers={"X-API-Key": secret}) as client,
    ):
        callback = told(client, job)
    assert [attempt["status"] for attempt in callback["attempts"]] == [500, 200]
    assert len({request.headers["webhook-id"] for request in net.received}) == 1


def test_dry_runs_call_back_too(net: Network, connect: Any) -> None:
    client = connect("dry-run", "webhook")
    callback = told(client, submit(client).json()["id"])
    assert callback["state"] == "delivered"
