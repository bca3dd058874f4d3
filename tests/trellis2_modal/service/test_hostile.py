"""Bad input and hostile callers, over real sockets."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import httpx
import lz4.frame
import numpy as np
import pytest
from PIL import Image

from tests.trellis2_modal.server import Running, picture, running, wait_for
from tests.trellis2_modal.service.test_api import finished, problem, submit
from tests.trellis2_modal.shapes import dual_grid
from trellis2_modal.protocol.limits import MAX_IMAGE_BYTES, MAX_JSON_BYTES
from trellis2_modal.protocol.state import compress_state, pack_state
from trellis2_modal.protocol.state.container import read_container, write_container
from trellis2_modal.service.http.request_parsing import JSON_PICTURES_BODY


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def request_head(key: str) -> str:
    line = "POST /generate HTTP/1.1\r\nHost: localhost\r\n"
    return f"{line}X-API-Key: {key}\r\nContent-Type: application/json\r\n"


def raw(server: Running, request: bytes, wait: float = 5.0) -> bytes:
    """Send bytes as they are, return what comes back until the server closes or falls silent."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as connection:
        connection.sendall(request)
        reply = b""
        try:
            while chunk := connection.recv(65536):
                reply += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return reply


# --- bodies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"image": 1}', b"[" * 9999]
)
def test_what_is_not_the_json_that_was_asked_for(client: httpx.Client, content: bytes) -> None:
    for path in ("/generate", "/extract_glb", "/jobs"):
        reply = client.post(path, content=content, headers={"Content-Type": "application/json"})
        assert problem(reply, 400, "invalid-request").errors


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": "42"}, "seed"),
        ({"seed": 2**40}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"ss_sampling_steps": -1}, "ss_sampling_steps"),
        ({"ss_sampling_steps": True}, "ss_sampling_steps"),
        ({"tex_slat_rescale_t": 1e9}, "tex_slat_rescale_t"),
        ({"pipeline_type": "8192"}, "pipeline_type"),
        ({"preview": None}, "preview"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_fields_are_named(
    client: httpx.Client, body: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    found = problem(client.post("/generate", json=body | change), 400, "invalid-request")
    assert [e.field for e in found.errors] == [field]


def test_wrong_media_types(client: httpx.Client, body: dict[str, Any]) -> None:
    text = json.dumps(body)
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        reply = client.post("/generate", content=text, headers={"Content-Type": kind})
        problem(reply, 415, "unsupported-media-type")
    problem(client.post("/generate", json=body, headers={"Accept": "image/png"}), 406, "not-acceptable")


def test_too_large_by_declared_length(server: Running) -> None:
    head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {server.key}\r\n"
    head += "Content-Type: application/json\r\n"
    reply = raw(server, f"{head}Content-Length: {JSON_PICTURES_BODY + 1}\r\n\r\n".encode())
    assert reply.startswith(b"HTTP/1.1 413")
    assert b"too-large" in reply


def test_too_large_by_chunked_length(client: httpx.Client) -> None:
    def endless() -> Any:
        for _ in range(MAX_JSON_BYTES // 4096 + 64):
            yield b" " * 4096

    reply = client.post("/usage", content=endless(), headers={"Content-Type": "application/json"})
    assert reply.status_code in (405, 413)
    sent = 0

    def picture_stream() -> Any:
        nonlocal sent
        while sent < JSON_PICTURES_BODY + (8 << 20):
            sent += 1 << 20
            yield b" " * (1 << 20)

    headers = {"Content-Type": "application/json"}
    problem(client.post("/generate", content=picture_stream(), headers=headers), 413, "too-large")


def test_a_slow_body_is_cut_off(server: Running) -> None:
    head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {server.key}\r\n"
    head += "Content-Type: application/json\r\n"
    start = time.monotonic()
    reply = raw(server, f"{head}Content-Length: 1000\r\n\r\n{{".encode(), wait=15)
    assert b"request-timeout" in reply
    assert time.monotonic() - start < 10


def test_a_head_that_never_ends_is_cut_off(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trellis2_modal.service.http.connections.HEAD_TIMEOUT", 0.3)
    start = time.monotonic()
    assert raw(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", wait=15) == b""
    assert time.monotonic() - start < 10


def test_an_upload_that_breaks_off_leaves_no_job(server: Running, body: dict[str, Any]) -> None:
    key = server.new_key("broken line")
    text = json.dumps(body).encode()
    head = request_head(key)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text[: len(text) // 2])
    with server.client(key) as client:
        assert client.get("/jobs").json()["jobs"] == []


def test_forms_that_are_not_well_formed(client: httpx.Client) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    for content in (b"", b"--b", b"--b\r\nnonsense\r\n\r\nx\r\n--b--\r\n", b"--b--\r\n"):
        assert client.post("/jobs", content=content, headers=form).status_code == 400
    no_boundary = client.post("/jobs", content=b"x", headers={"Content-Type": "multipart/form-data"})
    problem(no_boundary, 400, "invalid-request")
    image = ("image", ("a.png", picture()))
    problem(client.post("/jobs", files=[image, image]), 400, "invalid-request")
    problem(client.post("/jobs", files={"other": picture()}), 400, "invalid-request")
    problem(client.post("/jobs", files={"image": picture()}, data={"seed": "x"}), 400, "invalid-request")
    problem(
        client.post("/jobs", files={"image": picture()}, data={"kind": "extract"}), 400, "invalid-request"
    )
    problem(client.post("/jobs", files={"image": picture()}, data={"what": "1"}), 400, "invalid-request")
    many = {f"f{i}": "1" for i in range(100)}
    problem(client.post("/jobs", files={"image": picture()}, data=many), 400, "invalid-request")


# --- pictures -------------------------------------------------------------------------------------------


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def gif() -> bytes:
    buffer = io.BytesIO()
    Image.new("P", (64, 64)).save(buffer, "GIF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "image",
    [
        b64(b""),
        b64(b"GIF89a"),
        b64(gif()),
        b64(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        b64(picture()[:60]),
        b64(png_claiming(50_000, 50_000)),
        b64(png_claiming(2, 2)),
        b64(png_claiming(0, 9)),
        b64(picture()[:-30] + b"x" * 30),
        "not base64!",
        "=" * 40,
        b64(picture())[:-3],
        b64(picture()) + "\n\0junk",
        "data:image/png,plain",
        "data:image/png;base64," + b64(b"x"),
        "é" * 100,
    ],
)
def test_what_is_not_a_usable_picture(client: httpx.Client, body: dict[str, Any], image: str) -> None:
    reply = client.post("/generate", json=body | {"image": image})
    assert reply.json()["type"] in ("invalid-image", "invalid-request")
    assert reply.status_code == 400


def test_a_data_url_is_taken(client: httpx.Client, body: dict[str, Any]) -> None:
    reply = client.post("/generate", json=body | {"image": "data:image/png;base64," + body["image"]})
    assert reply.status_code == 200


def test_a_picture_over_the_limit(client: httpx.Client) -> None:
    reply = client.post("/jobs", files={"image": b"\x89PNG" + bytes(MAX_IMAGE_BYTES)})
    problem(reply, 413, "too-large")


# --- states ---------------------------------------------------------------------------------------------


def state_with(**changes: Any) -> bytes:
    tensors, header = read_container(pack_state(dual_grid(16)))
    arrays = {name: np.array(array) for name, array in tensors.items()}
    for name in list(changes):
        if isinstance(changes[name], np.ndarray):
            arrays[name] = changes.pop(name)
    return compress_state(write_container(arrays, header | changes))


def lossless_with_nan() -> bytes:
    tensors, header = read_container(pack_state(dual_grid(16), lossless=True))
    arrays = {name: np.array(array) for name, array in tensors.items()}
    arrays["attrs_0"][:] = 255
    arrays["vertices_0"][:] = 255
    return compress_state(write_container(arrays, header))


def bomb() -> bytes:
    return lz4.frame.compress(bytes(900 << 20), store_size=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"junk",
        lambda: compress_state(b"junk" * 9),
        lambda: compress_state(pack_state(dual_grid(16)))[:-9],
        lambda: state_with(version=3),
        lambda: state_with(version=0),
        lambda: state_with(voxels=10**12),
        lambda: state_with(faces=10**7),
        lambda: state_with(grid=[16, 16, 2000]),
        lambda: state_with(flags=np.full((3, 90), 255, np.uint8)),
        lambda: state_with(attr_0=np.zeros((8, 1), np.uint8)),
        lambda: state_with(attr_0=np.zeros(4, np.float32)),
        lossless_with_nan,
        bomb,
    ],
)
def test_a_state_that_does_not_add_up(client: httpx.Client, make: Any) -> None:
    found = problem(client.post("/extract_glb", json={"state": b64(make())}), 422, "invalid-state")
    assert found.errors


def test_a_state_that_is_not_base64(client: httpx.Client) -> None:
    problem(client.post("/extract_glb", json={"state": "???"}), 422, "invalid-state")


# --- the machine ----------------------------------------------------------------------------------------


def test_a_full_disk_refuses_and_recovers(tmp_path: Path, body: dict[str, Any]) -> None:
    with running(tmp_path, min_free_bytes=1 << 60) as server, server.client() as client:
        reply = client.post("/generate", json=body)
        problem(reply, 503, "storage-full")
        assert "retry-after" in reply.headers
        assert list((tmp_path / "jobs").iterdir()) == []
        assert client.get("/jobs").json()["jobs"] == []


def test_a_full_queue_refuses(tmp_path: Path, body: dict[str, Any]) -> None:
    options = {"step_seconds": 0.3}
    with (
        running(tmp_path, options=options, queue_limit=1, shutdown_grace=0.0) as server,
        server.client() as client,
    ):
        first = submit(client, body)["id"]
        wait_for(lambda: client.get(f"/jobs/{first}").json()["status"] == "running", "the first job's start")
        submit(client, body)
        refused = client.post("/jobs", json={"kind": "generate", **body})
        problem(refused, 503, "queue-full")
        assert "retry-after" in refused.headers


def test_old_files_are_gone_and_say_so(tmp_path: Path, body: dict[str, Any]) -> None:
    with running(tmp_path, retention=0.0) as server, server.client() as client:
        job = finished(client, submit(client, body)["id"])["id"]
        problem(client.get(f"/jobs/{job}/state"), 410, "expired")
        problem(client.post("/extract_glb", json={"job": job}), 410, "expired")
        assert client.get(f"/jobs/{job}").json()["status"] == "expired"


def test_a_model_that_cannot_load_is_said(tmp_path: Path, body: dict[str, Any]) -> None:
    factory = "tests.trellis2_modal.fake:broken"
    with running(tmp_path, factory=factory, ready=False) as server, server.client() as client:
        wait_for(lambda: client.get("/health").json()["status"] == "degraded", "the bad news")
        problem(client.post("/generate", json=body), 503, "unavailable")


def test_without_a_readable_key_list_no_one_comes_in(tmp_path: Path) -> None:
    with running(tmp_path, ready=False) as server, server.client() as client:
        (tmp_path / "keys.json").write_text("{")
        problem(client.get("/usage"), 503, "unavailable")
        assert client.get("/health").status_code == 200
