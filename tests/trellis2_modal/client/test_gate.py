from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from trellis2_modal.client.app.gate import MOST_GUESSES, Gate
from trellis2_modal.client.app.launch import make_app, new_password
from trellis2_modal.client.history import History


def test_browsers_that_tell_nothing_do_not_frame_it_either(gate: Gate) -> None:
    async def call() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gate)) as client:
            return (await client.get("http://127.0.0.1:7860/")).headers["content-security-policy"]

    assert asyncio.run(call()) == "frame-ancestors 'self'"


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
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert ask(gate, **link) == ask(gate, sec_fetch_dest="document", **link) == 200
    assert ask(gate, sec_fetch_dest="iframe", **link) == 403
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


def test_guesses_wait_for_one_another_and_many_are_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = 0

    async def waits(seconds: float) -> None:
        nonlocal waited
        waited += 1
        assert gate._guessing.locked(), "one after another"
        await asyncio.Event().wait()

    monkeypatch.setattr("trellis2_modal.client.app.gate.asyncio.sleep", waits)
    gate = Gate(inner, "0.0.0.0", [tmp_path], "secret")

    async def flood() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://10.0.0.1") as http:
            guess = {"authorization": "Basic eDp3cm9uZw=="}
            guesses = [asyncio.create_task(http.get("/", headers=guess)) for _ in range(MOST_GUESSES + 1)]
            done, left = await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
            right = await http.get("/", headers={"authorization": "Basic eDpzZWNyZXQ="})
            assert right.status_code == 200, "who knows the password does not wait"
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            return done.pop().result().status_code

    assert asyncio.run(flood()) == 429
    assert waited == 1


def test_no_websocket_gets_past_it(gate: Gate) -> None:
    sent: list[Any] = []

    async def connect() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/gradio_api/queue/join", "headers": []}
        await gate(scope, lambda: None, send)

    asyncio.run(connect())
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_other_machines_never_get_in_without_a_password() -> None:
    for host in ("0.0.0.0", "192.168.0.9", "::"):
        with pytest.raises(ValueError, match="needs a password"):
            make_app(None, host, "")  # type: ignore[arg-type]


def test_a_password_that_is_made_is_easily_typed_and_never_the_same() -> None:
    made = {new_password() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"([a-hjkmnp-z]{4}-){2}[a-hjkmnp-z]{4}", password) for password in made)


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
