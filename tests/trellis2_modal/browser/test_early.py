"""The 3D model can be turned while the turntable is still rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trellis2_modal.browser.app import DESKTOP, AppProcess, watched_page
from tests.trellis2_modal.server import running

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_mesh_is_shown_before_the_turntable(
    browser: Any, tmp_path: Path, photo: Path, shots: Path
) -> None:
    filmed = tmp_path / "filmed"
    with running(tmp_path / "service", options={"light": str(filmed)}) as live:
        app = AppProcess(tmp_path / "home", "--url", live.url, "--key", live.key)
        app.start()
        try:
            with watched_page(browser, app.address, DESKTOP) as (page, traffic):
                page.wait_for_selector("#header .ok", timeout=60_000)
                page.set_input_files("#picture input[type=file]", photo)
                page.wait_for_selector("#picture .picked")
                page.click("#generate")
                page.wait_for_selector("asset-viewer[data-ready]", timeout=60_000)
                page.wait_for_selector("#progress >> text=Rendering the turntable")
                page.screenshot(path=shots / "early.png")
                assert page.locator("#facts").is_hidden(), "it is not finished yet"
                viewer = page.locator("asset-viewer").element_handle()
                filmed.touch()
                page.wait_for_selector("#facts >> text=orange ball.png", timeout=60_000)
                page.wait_for_selector("#progress", state="hidden")
                assert viewer.is_visible(), "the model in hand stays as it is turned"
            assert traffic.complaints == []
        finally:
            app.stop()
