"""After the walk through the app (files run by name): what a kill leaves behind."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.trellis2_modal.browser.app import DESKTOP, AppProcess, watched_page
from trellis2_modal.running import running_server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PATIENCE = 300_000


def test_a_crash_of_the_app_loses_nothing(browser: Any, app: AppProcess) -> None:
    """Killed as by a power cut, and started again: the asset and its files are there."""
    with watched_page(browser, app.address, DESKTOP) as (page, _):
        page.wait_for_timeout(3_000)
        if not page.locator("asset-viewer").count():
            pytest.skip("nothing was generated before; run the whole folder")
        files = page.locator("#files a.download").count()
    app.kill()
    with watched_page(browser, app.start(), DESKTOP) as (page, traffic):
        page.wait_for_selector("asset-viewer")
        page.wait_for_selector("#files a.download")
        assert page.locator("#files a.download").count() == files
    assert traffic.complaints == []


def test_a_crash_of_the_engine_loses_no_job(browser: Any, app: AppProcess, shots: Path) -> None:
    """Its process killed in the middle of a job: the same job goes on, with its time."""
    with watched_page(browser, app.address, DESKTOP) as (page, _):
        page.wait_for_selector("#header .ok", timeout=PATIENCE)
        page.locator("#examples button").first.click()
        page.wait_for_selector("#picture .picked")
        page.click("#generate")
        page.wait_for_selector("#progress .phases .now", timeout=PATIENCE)
        spent = seconds(page)
        server = running_server(app.home / "server")
        assert server is not None
        os.kill(server.pid, signal.SIGKILL)
        page.wait_for_selector(
            "#progress >> text=The local engine restarted; your job goes on", timeout=PATIENCE
        )
        page.wait_for_selector("#progress .phases .now", timeout=PATIENCE)
        page.screenshot(path=shots / "engine-restarted.png")
        assert "network" not in page.inner_text("body")
        assert seconds(page) > spent
        page.click("#progress [data-action=cancel]")
        page.wait_for_selector("#progress", state="detached", timeout=60_000)


def seconds(page: Any) -> int:
    """The elapsed time that the page shows."""
    shown = page.inner_text("#progress .numbers").partition(",")[0]
    found = re.fullmatch(r"(?:(\d+) min)? ?(?:(\d+) s)?", shown.strip())
    assert found, shown
    return 60 * int(found[1] or 0) + int(found[2] or 0)
