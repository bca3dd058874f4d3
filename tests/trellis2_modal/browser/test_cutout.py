"""A cut-out that is wrong, put right by hand: painted, boxed, cut again; then generated from as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trellis2_modal.browser.app import DESKTOP, PHONE, AppProcess, watched_page
from tests.trellis2_modal.browser.axe import findings
from tests.trellis2_modal.server import MATTE, running, wait_for
from trellis2_modal.client.history import HISTORY, PICTURE, History
from trellis2_modal.service.http.pictures.matte import MatteProcess

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SIZE = 320
BALL, CUBE = (110, 160, 70), (250, 160, 40)
READY = "dialog.correct:not([data-busy]) [data-do=use]:enabled"
SMALL_TARGETS = """[...document.querySelectorAll('dialog.correct :is(button, input), #matte button')]
  .map((e) => [e.getBoundingClientRect(), e])
  .filter(([box]) => box.width && Math.min(box.width, box.height) < 44)
  .map(([box, e]) => `${box.width} x ${box.height} ${e.outerHTML.slice(0, 90)}`)"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[AppProcess]:
    """The app over a service that cuts out as the real one does; its model takes no time."""
    with running(tmp_path_factory.mktemp("service"), matter=MatteProcess(MATTE)) as live:
        app = AppProcess(tmp_path_factory.mktemp("home"), "--url", live.url, "--key", live.key)
        app.start()
        yield app
        app.stop()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ball and a smaller disc beside it, on a plain ground."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    pixels = np.full((SIZE, SIZE, 3), (236, 234, 228), dtype=np.float64)
    for (cx, cy, radius), colour in ((BALL, (214, 96, 52)), (CUBE, (40, 80, 200))):
        far = np.hypot(x - cx, y - cy)
        inside = far < radius
        pixels[inside] = (1 - 0.4 * far[inside, None] / radius) * np.array(colour)
    path = tmp_path_factory.mktemp("photo") / "two things.png"
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def opened(page: Any, photo: Path) -> None:
    page.wait_for_selector("#header .ok", timeout=60_000)
    page.set_input_files("#picture input[type=file]", photo)
    page.wait_for_selector("#matte img", timeout=60_000)
    page.click("#matte >> text=Correct the cut-out")
    page.wait_for_selector(READY, timeout=60_000)


def at(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a point of the picture is on the page."""
    box = page.locator("dialog.correct canvas").bounding_box()
    return box["x"] + x * box["width"] / SIZE, box["y"] + y * box["height"] / SIZE


def drag(page: Any, start: tuple[float, float], stop: tuple[float, float]) -> None:
    page.mouse.move(*at(page, *start))
    page.mouse.down()
    page.mouse.move(*at(page, *stop), steps=5)
    page.mouse.up()
    page.wait_for_selector(READY, timeout=60_000)


def shown(page: Any, x: float, y: float) -> int:
    """How opaque the panel shows a point of the picture; what is removed is dimmed."""
    alpha: int = page.evaluate(
        "([x, y]) => { const c = document.querySelector('dialog.correct canvas');"
        " return c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data[3]; }",
        [x / SIZE, y / SIZE],
    )
    return alpha


def used(app: AppProcess, count: int) -> np.ndarray:
    """The picture of the newest of so many entries, as it is kept and sent."""

    def newest() -> Path | None:
        history = History(
            app.home / HISTORY
        )  # anew: one that is just being written would be left out for good
        entries = history.entries()
        return history.file(entries[0].id, PICTURE) if len(entries) == count else None

    with Image.open(wait_for(newest, "the entry")) as image:
        return np.asarray(image.convert("RGBA"))


def test_painting_a_box_and_another_cut(browser: Any, app: AppProcess, two: Path, shots: Path) -> None:
    with watched_page(browser, app.address, DESKTOP) as (page, traffic):
        opened(page, two)
        assert shown(page, BALL[0], BALL[1]) == 255
        assert shown(page, CUBE[0], CUBE[1]) < 200, "only the largest is kept at first"
        drag(page, (235, 160), (265, 160))
        assert shown(page, CUBE[0], CUBE[1] + 30) == 255, "a stroke keeps all of what it marks"
        page.click("dialog.correct [data-tool=remove]")
        drag(page, (95, 160), (125, 160))
        assert shown(page, BALL[0], BALL[1] - 50) < 200
        page.screenshot(path=shots / "cutout-painted.png")
        page.click("dialog.correct [data-do=undo]")
        page.wait_for_selector(READY)
        assert shown(page, BALL[0], BALL[1] - 50) == 255
        page.click("dialog.correct [data-do=reset]")
        page.wait_for_selector(READY)
        page.click("dialog.correct [data-tool=box]")
        drag(page, (195, 100), (305, 220))
        assert shown(page, CUBE[0], CUBE[1]) == 255
        assert shown(page, BALL[0], BALL[1]) < 200
        page.click("dialog.correct [data-do=reset]")
        page.click("dialog.correct [data-do=another] >> nth=0")
        page.wait_for_selector(READY)
        page.wait_for_function("document.querySelector('dialog.correct .hint').textContent.includes('see')")
        page.click("dialog.correct [data-tool=keep]")
        page.focus("dialog.correct canvas")
        for key in ("Space", "ArrowRight", "ArrowRight", "Space"):
            page.keyboard.press(key)
        page.wait_for_selector(READY)
        assert shown(page, SIZE / 2 + 10, SIZE / 2) == 255, "the keyboard paints, too"
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog.correct", state="detached")
    assert traffic.complaints == []


def test_what_was_corrected_is_generated_from_as_shown(
    browser: Any, app: AppProcess, two: Path, shots: Path
) -> None:
    with watched_page(browser, app.address, DESKTOP) as (page, traffic):
        opened(page, two)
        page.click("dialog.correct [data-tool=box]")
        drag(page, (195, 100), (305, 220))
        page.click("dialog.correct [data-do=use]")
        page.wait_for_selector("#matte >> text=Undo the correction", timeout=60_000)
        page.wait_for_selector("#matte >> text=what the model will see")
        page.screenshot(path=shots / "cutout-used.png")
        page.click("#generate")
        alpha = used(app, 1)[..., 3]
        assert alpha.shape == (SIZE, SIZE)
        assert alpha[CUBE[1], CUBE[0]] == 255
        assert alpha[BALL[1], BALL[0]] == 0
        page.wait_for_selector("#facts >> text=two things.png", timeout=60_000)
        page.click("#matte >> text=Undo the correction")
        page.wait_for_selector("#matte >> text=Undo the correction", state="detached")
        page.click("#generate")
        assert used(app, 2)[..., 3].min() == 255, "the picture itself again"
    assert traffic.complaints == []


def test_a_picture_that_is_kept_whole_is_taken_for_a_cut_out(
    browser: Any, app: AppProcess, two: Path
) -> None:
    with watched_page(browser, app.address, DESKTOP) as (page, _):
        before = len(History(app.home / HISTORY).entries())
        opened(page, two)
        page.evaluate("document.querySelector('dialog.correct input').value = 160")
        for y in range(20, SIZE, 40):
            drag(page, (0, y), (SIZE - 1, y))
        page.click("dialog.correct [data-do=use]")
        page.wait_for_selector("#matte >> text=Undo the correction", timeout=60_000)
        page.click("#generate")
        alpha = used(app, before + 1)[..., 3]
        assert alpha[0].max() == 0, "a clear frame around it"
        assert (alpha == 255).mean() > 0.85


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_and_weak_eyes(browser: Any, app: AppProcess, two: Path, dark: bool, shots: Path) -> None:
    with watched_page(browser, app.address, PHONE, dark) as (page, traffic):
        opened(page, two)
        assert page.evaluate(SMALL_TARGETS) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        assert (
            page.evaluate("getComputedStyle(document.querySelector('dialog canvas')).touchAction") == "none"
        )
        assert findings(page) == []
        page.screenshot(path=shots / f"cutout-phone-{'dark' if dark else 'light'}.png")
    assert traffic.complaints == []
