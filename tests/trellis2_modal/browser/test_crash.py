"""After the walk through the app (files run by name): what a kill leaves behind."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trellis2_modal.browser.app import DESKTOP, AppProcess, watched_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


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
