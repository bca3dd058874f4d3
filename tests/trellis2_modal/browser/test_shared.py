"""The app on a phone in the same network: it asks for the password, and works with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trellis2_modal.browser.app import PHONE, AppProcess
from tests.trellis2_modal.server import running
from trellis2_modal.sockets import network_addresses

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_phone_logs_in_and_generates(browser: Any, tmp_path: Path, photo: Path) -> None:
    with running(tmp_path / "service") as live:
        app = AppProcess(tmp_path / "home", "--share-on-network", "--url", live.url, "--key", live.key)
        port = app.start().rpartition(":")[2]
        try:
            password = (
                app.wait_for_line("The password is ").removeprefix("The password is ").partition(",")[0]
            )
            address = f"http://{next(iter(network_addresses()), '127.0.0.1')}:{port}"
            options = {"viewport": {"width": PHONE[0], "height": PHONE[1]}, "has_touch": True}
            stranger = browser.new_context(**options)
            assert stranger.request.get(address).status == 401
            stranger.close()
            known = browser.new_context(**options, http_credentials={"username": "me", "password": password})
            page = known.new_page()
            complaints: list[str] = []
            page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
            page.goto(address)
            page.wait_for_selector("#header .ok", timeout=60_000)
            page.set_input_files("#picture input[type=file]", photo)
            page.wait_for_selector("#picture .picked")
            page.tap("#generate")
            page.wait_for_selector("#facts >> text=orange ball.png", timeout=60_000)
            known.close()
            assert not [words for words in complaints if "401" in words], complaints
        finally:
            app.stop()
