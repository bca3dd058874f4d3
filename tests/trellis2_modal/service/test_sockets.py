"""Callers that do not behave like a browser: what happens on the wire."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trellis2_modal.server import Running, picture, running, wait_for
from tests.trellis2_modal.service.test_api import finished, problem, submit
from tests.trellis2_modal.service.test_hostile import b64, raw, request_head
from trellis2_modal.sockets import listen

POST = "POST /generate HTTP/1.1\r\nHost: localhost\r\n"


def address(server: Running) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_body_that_trickles_is_cut_off(server: Running, framing: str) -> None:
    """Always a few bytes before the idle timeout: the average rate gives it away."""
    piece = b" " * 100 if "Length" in framing else b"64\r\n" + b" " * 100 + b"\r\n"
    start = time.monotonic()
    with socket.create_connection(address(server), timeout=10) as connection:
        connection.sendall(f"{request_head(server.key)}{framing}\r\n\r\n".encode())
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.2):
                try:
                    connection.sendall(piece)
                except OSError:
                    return

        sender = threading.Thread(target=trickle, daemon=True)
        sender.start()
        reply = connection.recv(65536)
        stop.set()
        sender.join()
    assert b"408" in reply.splitlines()[0]
    assert time.monotonic() - start < 8


@pytest.mark.parametrize(
    "request_text",
    [
        POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxx",
        "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + "x" * 200_000 + "\r\n\r\n",
        "GET /health\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "GET http://elsewhere/usage HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /../../keys.json HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /jobs/../usage HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["two lengths", "two content-lengths", "long", "old", "tls", "proxy", "up", "up from jobs"],
)
def test_requests_that_are_not_quite_http(server: Running, request_text: str) -> None:
    reply = raw(server, request_text.encode("latin-1"), wait=1.0)
    assert not reply.startswith(b"HTTP/1.1 2")
    assert not reply.startswith(b"HTTP/1.1 5")
    assert httpx.get(server.url + "/health").status_code == 200


def test_a_caller_that_leaves_while_sending_is_no_fault_of_ours(
    server: Running, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nhalf'
    with caplog.at_level("INFO"):
        for path, kind, text in (
            ("/generate", "application/json", json.dumps(body).encode()[:-9]),
            ("/jobs", "multipart/form-data; boundary=b", form),
        ):
            head = request_head(server.key).replace("/generate", path).replace("application/json", kind)
            with socket.create_connection(address(server)) as connection:
                connection.sendall(f"{head}Content-Length: 9999\r\n\r\n".encode() + text)
            wait_for(lambda path=path: f"POST {path} 499" in caplog.text, "its line in the log")  # type: ignore[misc]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_watcher_that_leaves_is_forgotten(server: Running, body: dict[str, Any]) -> None:
    assert server.server is not None
    watches = server.server.backend._watches
    with server.client() as client:
        job = submit(client, body | {"seed": 31})["id"]
        with client.stream("GET", f"/jobs/{job}/events") as stream:
            next(stream.iter_lines())
        finished(client, job)
        wait_for(lambda: job not in watches or not watches[job].waiters, "the watcher's removal")


def test_many_watchers_of_one_job(server: Running, body: dict[str, Any]) -> None:
    with server.client() as client:
        job = submit(client, body | {"seed": 32})["id"]
        seen: list[str] = []

        def watch() -> None:
            with server.client() as own:
                seen.append(own.get(f"/jobs/{job}/events").text)

        watchers = [threading.Thread(target=watch) for _ in range(10)]
        for watcher in watchers:
            watcher.start()
        for watcher in watchers:
            watcher.join(20)
        assert len(seen) == 10
        assert len(set(seen)) == 1
        assert "event: result" in seen[0]


def test_many_large_bodies_do_not_fill_the_memory(tmp_path: Path, body: dict[str, Any]) -> None:
    text = json.dumps({"kind": "generate", **body}).encode()
    with running(tmp_path, body_memory=3 * len(text)) as server, ExitStack() as stack:
        assert server.server is not None
        memory = server.server.config.app.state.body_memory
        held = []
        for _ in range(3):  # each all but the last byte: held by the server until it comes
            connection = stack.enter_context(socket.create_connection(address(server), timeout=10))
            head = request_head(server.key).replace("/generate", "/jobs")
            connection.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text[:-1])
            held.append(connection)
        wait_for(lambda: memory.used == 3 * (len(text) - 1), "the bodies' arrival")
        with server.client() as client:
            refused = client.post("/jobs", content=text, headers={"Content-Type": "application/json"})
            problem(refused, 503, "unavailable")
            assert "retry-after" in refused.headers
            for connection in held:
                connection.sendall(text[-1:])
                assert b"202" in connection.recv(65536).splitlines()[0]
            wait_for(lambda: memory.used == 0, "the release of the bodies")
            submit(client, body)


def test_one_idempotency_key_from_many_callers_at_once(server: Running, body: dict[str, Any]) -> None:
    found: list[str] = []

    def call() -> None:
        with server.client() as client:
            found.append(submit(client, body | {"seed": 33}, **{"Idempotency-Key": "at once"})["id"])

    callers = [threading.Thread(target=call) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert len(found) == 20
    assert len(set(found)) == 1
    folders = {path.name for path in (server.data_dir / "jobs").iterdir()}
    with server.client() as client:
        finished(client, found[0])
        known = {job["id"] for job in client.get("/jobs", params={"limit": 100}).json()["jobs"]}
    assert found[0] in folders
    assert not {name for name in folders - known if name in found}


def test_head_answers_like_get_without_a_body(client: httpx.Client, body: dict[str, Any]) -> None:
    job = finished(client, submit(client, body | {"seed": 34})["id"])["id"]
    whole = client.get(f"/jobs/{job}/state")
    head = client.head(f"/jobs/{job}/state")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]
    assert client.head("/health").status_code == 200


def test_a_large_picture_in_a_large_request(server: Running) -> None:
    """Base64 above one piece is decoded in pieces; health answers meanwhile."""
    image = picture(3000, format="PNG") + bytes(9 << 20)
    with server.client() as client:
        reply = client.post("/jobs", json={"kind": "generate", "image": b64(image), "preview": "none"})
        assert reply.status_code in (202, 400), reply.text
        assert httpx.get(server.url + "/health").elapsed.total_seconds() < 1


def test_pages_of_other_origins_are_kept_out_unless_configured(server: Running, tmp_path: Path) -> None:
    origin = {"Origin": "https://app.example"}
    ask = origin | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-API-Key"}
    closed = httpx.options(server.url + "/generate", headers=ask)
    assert "access-control-allow-origin" not in closed.headers
    assert "access-control-allow-origin" not in httpx.get(server.url + "/health", headers=origin).headers
    with running(tmp_path, cors_origins=("https://app.example",), ready=False) as opened:
        allowed = httpx.options(opened.url + "/generate", headers=ask)
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        refused = httpx.get(opened.url + "/usage", headers=origin)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (
            401,
            origin["Origin"],
        )
        other = httpx.get(opened.url + "/health", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_small_replies_do_not_wait_for_more() -> None:
    """Nagle's algorithm is off on what the server and the app accept: a small GET took 44 ms with it."""

    async def scenario() -> int:
        accepted = asyncio.get_running_loop().create_future()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set_result(writer)

        with listen("127.0.0.1", 0) as listener:
            server = await asyncio.start_server(connected, sock=listener)
            _, client = await asyncio.open_connection(*listener.getsockname())
            writer = await accepted
            option = int(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            for end in (client, writer):
                end.close()
            server.close()
            return option

    assert asyncio.run(scenario()) != 0
