from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from trellis2_modal.client.app.gate import Gate
from trellis2_modal.client.history import History


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"page"})


def ask(gate: Gate, path: str = "/", method: str = "GET", **headers: str) -> int:
    async def call() -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gate)) as client:
            return (await client.request(method, "http://127.0.0.1:7860" + path, headers=named)).status_code

    return asyncio.run(call())


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    (tmp_path / "cache").mkdir()
    return Gate(inner, "127.0.0.1", [tmp_path / "cache"])


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "192.168.0.9:80"])
def test_own_names(gate: Gate, host: str) -> None:
    assert ask(gate, host=host) == 200
    assert ask(gate, method="POST", host=host, origin=f"http://{host}", sec_fetch_site="same-origin") == 200


@pytest.mark.parametrize("host", ["evil.example:7860", "evil.example", "", "127.0.0.1.evil.example"])
def test_names_of_others(gate: Gate, host: str) -> None:
    assert ask(gate, host=host) == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9", "http://[", ""])
def test_other_origins_and_ports_upload_nothing(gate: Gate, origin: str) -> None:
    assert ask(gate, "/gradio_api/upload", "POST", origin=origin) == 403


def test_other_sites_may_link_here_but_not_embed(gate: Gate) -> None:
    assert ask(gate, sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 200
    assert ask(gate, "/kept/x/y", sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == 403
    assert ask(gate, "/kept/x/y", sec_fetch_site="same-site", sec_fetch_mode="no-cors") == 403
    assert ask(gate, method="POST", sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 403


def test_of_files_only_the_page_s_own(gate: Gate, tmp_path: Path) -> None:
    state = tmp_path / "history" / "state.lz4"
    state.parent.mkdir()
    state.write_bytes(b"x")
    shown = tmp_path / "cache" / "a.png"
    shown.write_bytes(b"x")
    (tmp_path / "cache" / "link").symlink_to(state)
    assert ask(gate, f"/gradio_api/file={shown}") == 200
    for path in (state, tmp_path / "cache" / ".." / "history" / "state.lz4", tmp_path / "cache" / "link"):
        for route in ("file=", "file/", "file%3D", "/file%2f"):
            assert ask(gate, f"/gradio_api/{route}{str(path).replace('..', '%2e%2e')}") == 403


def test_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trellis2_modal.client.app.gate.GUESS_DELAY", 0.0)
    gate = Gate(inner, "0.0.0.0", [tmp_path], "secret")
    assert ask(gate) == 401
    assert ask(gate, authorization="Basic eDpzZWNyZXQ=") == 200  # x:secret
    assert ask(gate, authorization="Basic eDp3cm9uZw==") == 401
    assert ask(gate, authorization="Basic ???") == 401


def test_history_follows_no_link_out(tmp_path: Path) -> None:
    entry = tmp_path / "20250101-000000-0123abcd"
    entry.mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    (entry / "light.glb").symlink_to(tmp_path / "secret")
    (entry / "cover.webp").write_bytes(b"x")
    history = History(tmp_path)
    assert history.file(entry.name, "cover.webp") is not None
    assert history.file(entry.name, "light.glb") is None
    os.rename(entry, tmp_path / "moved")
    entry.symlink_to(tmp_path / "moved")
    assert history.file(entry.name, "cover.webp") is None
