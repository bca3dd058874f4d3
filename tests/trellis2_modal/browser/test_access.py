"""Whoever has no mouse, no eyes or no room: the whole app over a service whose model takes no time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trellis2_modal.browser.app import PHONE, AppProcess, watched_page
from tests.trellis2_modal.browser.axe import findings
from tests.trellis2_modal.server import running

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LAPTOP = (1280, 720)
SMALL_TARGETS = """[...document.querySelectorAll('button, select, a, summary, label:has(input[type=radio])')]
  .filter((e) => e.checkVisibility({ visibilityProperty: true }))
  .filter((e) => !e.closest('[aria-hidden=true], .visually-hidden'))
  .map((e) => [e.getBoundingClientRect(), e]).filter(([box]) => Math.min(box.width, box.height) < 44)
  .map(([box, e]) => `${box.width} x ${box.height} ${e.outerHTML.slice(0, 90)}`)"""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, browser: Any, photo: Path) -> Iterator[AppProcess]:
    """The app over a service with the fake model, and one finished asset in its history."""
    with running(tmp_path_factory.mktemp("service"), options={"step_seconds": 0.3}) as live:
        app = AppProcess(tmp_path_factory.mktemp("home"), "--url", live.url, "--key", live.key)
        app.start()
        with watched_page(browser, app.address, LAPTOP) as (page, _):
            page.wait_for_selector("#header .ok", timeout=60_000)
            page.set_input_files("#picture input[type=file]", photo)
            page.wait_for_selector("#matte >> text=no preview of the cut-out", timeout=60_000)
            page.click("#generate")
            page.wait_for_selector("asset-viewer[data-ready]", timeout=60_000)
            told = page.evaluate("document.querySelector('#live').innerText")
            assert told == "orange ball.png: finished"
        yield app
        app.stop()


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(browser: Any, quick: AppProcess, dark: bool, shots: Path) -> None:
    with watched_page(browser, quick.address, LAPTOP, dark) as (page, _):
        page.wait_for_selector("asset-viewer[data-ready]", timeout=60_000)
        found = {}
        for view in ("3D model", "Turntable", "Render modes", "History", "Settings"):
            open_tab(page, view)
            page.wait_for_timeout(500)  # colours fade from one tab to the next
            found[view] = findings(page)
            page.screenshot(path=shots / f"access-{view}-{'dark' if dark else 'light'}.png")
        open_tab(page, "Create")
        closed = page.locator("button.label-wrap[aria-expanded=false]:visible")
        while closed.count():
            closed.first.click()
            page.wait_for_timeout(300)
        page.wait_for_timeout(500)
        found["folds open"] = findings(page)
    assert not any(found.values()), found


def test_the_keyboard_reaches_and_moves(browser: Any, quick: AppProcess) -> None:
    with watched_page(browser, quick.address, LAPTOP) as (page, _):
        page.wait_for_selector("asset-viewer[data-ready]", timeout=60_000)
        presses = 0
        while page.evaluate("document.activeElement.id") != "generate":
            page.keyboard.press("Tab")
            presses += 1
            assert presses <= 8, page.evaluate("document.activeElement.outerHTML")[:200]
        page.keyboard.press("Shift+Tab")
        first = page.evaluate("document.activeElement.dataset.target")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.dataset.target") != first, "examples are one stop"
        group = page.get_by_role("radiogroup", name="Export for")
        group.get_by_role("radio", name="Web").focus()
        page.keyboard.press("ArrowRight")
        assert group.get_by_role("radio", name="Game").is_checked()
        fold = page.get_by_role("button", name="Format and details")
        assert fold.get_attribute("aria-expanded") == "false"
        fold.press("Enter")
        page.wait_for_selector("#export-details [aria-expanded=true]")
        page.get_by_role("tab", name="Create", exact=True).focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("#history .item", state="visible")


def test_an_export_is_seen_named_and_judged(browser: Any, quick: AppProcess, shots: Path) -> None:
    with watched_page(browser, quick.address, LAPTOP) as (page, _):
        page.wait_for_selector("asset-viewer[data-ready]", timeout=60_000)
        box = page.locator("#extract").bounding_box()
        assert box["y"] + box["height"] <= LAPTOP[1], "Export is seen without scrolling"
        page.click("#budget label:has-text('3D print')")
        page.wait_for_selector("#set-size_mm", state="visible")
        page.get_by_role("button", name="Format and details").click()
        page.wait_for_selector("#set-wall_mm", state="visible")
        assert "exture" not in page.inner_text("#export"), "a shape alone has none"
        page.click("#extract")
        page.wait_for_selector("#files >> text=Printable.", timeout=60_000)
        assert "orange-ball-3d-print.stl" in page.inner_text("#files")
        assert "exture" not in page.inner_text("#files")
        page.screenshot(path=shots / "export-laptop.png", full_page=True)


def test_fingers_hit_and_the_result_comes_first(browser: Any, quick: AppProcess, shots: Path) -> None:
    with watched_page(browser, quick.address, PHONE) as (page, _):
        page.wait_for_selector("asset-viewer", timeout=60_000)  # of a print that the fake wrote as a GLB
        assert page.locator("#results").bounding_box()["y"] < page.locator("#inputs").bounding_box()["y"]
        assert page.evaluate(SMALL_TARGETS) == []
        page.screenshot(path=shots / "access-phone.png", full_page=True)
        page.click("text=New picture")
        page.wait_for_function("document.querySelector('#inputs').getBoundingClientRect().top < 200")


def test_it_has_a_sign_of_its_own(quick: AppProcess) -> None:
    answer = httpx.get(quick.address + "/favicon.ico")
    assert (answer.status_code, b"<svg" in answer.content) == (200, True)
