"""The app's page in a browser of its own: when it paints first, and the processor time until it can be used.

Needs playwright and a Chromium; there is no service behind the app. Other work on the machine counts, too.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from tests.trellis2_modal.browser.app import CHROMIUM_FLAGS, DESKTOP, AppProcess, find_chromium

from .record import Record

VISITS = 5
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"


def visit(browser: Any, address: str) -> tuple[float, float, float]:
    """First paint, Generate in sight, and the page's processor seconds until then; nothing is cached."""
    context = browser.new_context(viewport={"width": DESKTOP[0], "height": DESKTOP[1]})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(address)
    page.wait_for_selector("#generate")
    usable = page.evaluate("performance.now() / 1000")
    metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
    painted = page.evaluate(PAINTED)
    context.close()
    return painted, usable, metrics["TaskDuration"]


def run() -> list[Record]:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        app = AppProcess(Path(home), "--url", "http://127.0.0.1:9", "--key", "sk_none")
        address = app.start()
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        try:
            visit(browser, address)  # compiles the page's templates in the app
            load = os.getloadavg()[0]
            visits = [visit(browser, address) for _ in range(VISITS)]
        finally:
            browser.close()
            app.stop()
    painted, usable, processor = (median(column) for column in zip(*visits, strict=True))
    note = f"median of {VISITS} fresh visits, load {load:.1f} before them"
    return [
        Record("first paint of the app", painted, "s", 4.0, note),
        Record("the app can be used", usable, "s", None),
        Record("the same, processor of the page's main thread", processor, "s", 3.0),
    ]
