"""A person at the app, from a dropped picture to a file opened again from history.

In order: each test goes on where the one before left off, in the one real app with its one real server.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.trellis2_modal.browser.app import DESKTOP, PHONE, AppProcess, watched_page
from tests.trellis2_modal.browser.conftest import BUNDLED_WEIGHTS

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PATIENCE = 500_000
"""Milliseconds for what the model does; less than a test may take, so that a failure says what is missing."""

LIT = 200
"""Colours of a canvas in which a shaded object is drawn."""

SMALL = 500_000
"""Bytes: no message between page and app is larger; a state is never in one."""

ITEMS = "document.querySelectorAll('#history .item').length"


@pytest.fixture(scope="module")
def tab(browser: Any, app: AppProcess) -> Any:
    with watched_page(browser, app.address, DESKTOP) as (page, traffic):
        page.traffic = traffic
        yield page
    assert traffic.complaints == []
    assert 0 < traffic.largest() < SMALL


def shot(page: Any, path: Path) -> None:
    page.wait_for_timeout(400)
    page.screenshot(path=path, full_page=True)


def set_number(page: Any, name: str, value: int) -> None:
    field = page.locator(f"#set-{name} input[type=number]")
    field.fill(str(value))
    field.blur()


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def test_first_paint(app: AppProcess, tab: Any, shots: Path) -> None:
    tab.wait_for_selector("text=From a photo to a 3D asset")
    painted = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted < 4000
    tab.wait_for_selector("#header .ok", timeout=PATIENCE)
    assert "This computer" in tab.inner_text("#header")
    tab.wait_for_selector("#model-note >> text=simple toy-like objects only")
    chosen = tab.wait_for_selector("#pipeline label:has(input:checked)").inner_text()
    assert chosen == "Automatic"
    assert "1024 cascade" in tab.inner_text("#pipeline"), "which the bundled weights offer"
    shot(tab, shots / "empty.png")


def test_a_dropped_picture_shows_its_matte(tab: Any, photo: Path, shots: Path) -> None:
    tab.set_input_files("#picture input[type=file]", photo)
    tab.wait_for_selector("#matte img", timeout=30_000)
    tab.wait_for_function("document.querySelector('#matte img')?.naturalWidth > 0")
    assert "what the model will see" in tab.inner_text("#matte")
    tab.click("#matte button")
    tab.wait_for_function("document.querySelector('#matte img')?.clientWidth > 200")
    tab.click("#matte button")
    shot(tab, shots / "matte.png")


def test_the_sliders_show_the_weights_own_settings(tab: Any, weights: Path) -> None:
    for accordion in ("Advanced", "Rough form", "Shape", "Material"):
        tab.locator("#advanced").get_by_role("button", name=accordion).click()
    config = json.loads((weights / "pipeline.json").read_text())["args"]
    own = config["sparse_structure_sampler"]["params"]["guidance_strength"]
    tab.wait_for_function(
        f"document.querySelector('#set-ss_guidance_strength input[type=number]')?.value == {own}"
    )
    assert f"Auto: {own:g}." in tab.inner_text("#set-ss_guidance_strength")
    set_number(tab, "ss_guidance_strength", own + 1)
    tab.click("#use-auto")
    tab.wait_for_function(
        f"document.querySelector('#set-ss_guidance_strength input[type=number]').value == {own}"
    )


def test_progress_and_a_cancel_that_cancels(tab: Any, app: AppProcess, shots: Path) -> None:
    set_number(tab, "ss_sampling_steps", 50)
    tab.click("#generate")
    tab.wait_for_selector("#progress .phases .now", timeout=PATIENCE)
    tab.wait_for_function(
        "/step [1-9]/.test(document.querySelector('#progress')?.innerText)", timeout=PATIENCE
    )
    assert re.search(r"\d+ s", tab.inner_text("#progress .numbers"))
    shot(tab, shots / "progress.png")
    tab.click("#progress [data-action=cancel]")
    tab.wait_for_selector("#model >> text=Cancelled", timeout=30_000)
    tab.wait_for_selector("#progress", state="detached", timeout=30_000)
    shot(tab, shots / "cancelled.png")


def test_a_generation_with_a_video_that_plays(tab: Any, shots: Path) -> None:
    for name in ("ss", "shape_slat", "tex_slat"):
        set_number(tab, f"{name}_sampling_steps", 2)
    tab.uncheck("#new-seed input")
    tab.fill("#seed input", "5")
    tab.click("#generate")
    tab.wait_for_selector("#facts >> text=seed 5", timeout=PATIENCE)
    open_tab(tab, "Turntable")
    tab.wait_for_function(
        "(() => { const v = document.querySelector('#turntable video');"
        " return v && v.videoWidth > 0 && v.currentTime > 0.2; })()",
        timeout=30_000,
    )
    assert tab.evaluate("document.querySelector('#turntable video').error") is None
    shot(tab, shots / "turntable.png")
    open_tab(tab, "Render modes")
    first = tab.locator(".stills .view").screenshot()
    tab.click(".modes >> text=Normal")
    assert tab.locator(".modes [aria-pressed=true]").inner_text() == "Normal"
    assert tab.locator(".stills .view").screenshot() != first
    tab.focus(".stills .view")
    tab.keyboard.press("ArrowRight")
    assert tab.get_attribute(".stills", "data-x") == "1"
    shot(tab, shots / "modes.png")


def extract(page: Any, budget: str, path: Path) -> bytes:
    """Make a file for a budget and download it."""
    page.click(f"#budget label:has-text('{budget}')")
    before = page.locator("#files a.download").count()
    page.click("#extract")
    page.wait_for_function(
        f"document.querySelectorAll('#files a.download').length > {before}"
        " || document.querySelector('#files [role=alert]')",
        timeout=PATIENCE,
    )
    refused = page.locator("#files [role=alert]")
    assert not refused.count(), refused.inner_text()
    with page.expect_download() as waiting:
        page.locator("#files a.download").first.click()
    waiting.value.save_as(path / waiting.value.suggested_filename)
    return (path / waiting.value.suggested_filename).read_bytes()


def faces_of(glb: bytes) -> int:
    size = int.from_bytes(glb[12:16], "little")
    document = json.loads(glb[20 : 20 + size])
    primitives = [p for mesh in document["meshes"] for p in mesh["primitives"]]
    return sum(document["accessors"][p["indices"]]["count"] // 3 for p in primitives)


def colours(png: bytes) -> int:
    """How many different colours a screenshot has: one or two while nothing is drawn."""
    with Image.open(io.BytesIO(png)) as image:
        return len(image.convert("RGB").getcolors(1 << 24) or [])


@pytest.mark.timeout(1500)  # frayed meshes are slow to simplify
def test_two_budgets_are_made_and_downloaded(tab: Any, tmp_path: Path, shots: Path, weights: Path) -> None:
    files = {budget: extract(tab, budget, tmp_path) for budget in ("Web", "Mobile")}
    for budget, data in files.items():
        assert data[:4] == b"glTF", budget
        assert faces_of(data) > 0
    assert faces_of(files["Mobile"]) < faces_of(files["Web"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "orange-ball-mobile.glb",
        "orange-ball-web.glb",
    ]
    tab.click("#files summary >> nth=0")
    assert "faces" in tab.inner_text("#files .report >> nth=0")
    tab.locator("#files [data-action=view]").first.click()
    tab.wait_for_selector("#model asset-viewer[data-ready]", timeout=60_000)
    tab.wait_for_function("document.querySelector('#model').getBoundingClientRect().top >= 0")
    shot(tab, shots / "model.png")
    assert "orange ball.png" in tab.get_attribute("#model canvas", "aria-label")
    if weights == BUNDLED_WEIGHTS:  # random ones leave specks that are too small to see
        assert colours(tab.locator("#model canvas").screenshot()) >= LIT
    seen = {}
    for name, value in {"surface": "normals", "light": "sun", "background": "black"}.items():
        tab.select_option(f"[data-look={name}]", value)
        seen[name] = tab.locator("#model canvas").screenshot()
    tab.click("[data-look=wireframe]")
    assert tab.get_attribute("[data-look=wireframe]", "aria-pressed") == "true"
    seen["wireframe"] = tab.locator("#model canvas").screenshot()
    tab.focus("#model canvas")
    tab.keyboard.press("ArrowLeft")
    seen["turned"] = tab.locator("#model canvas").screenshot()
    assert len(set(seen.values())) >= len(seen) - 1, "light does not change what normals look like"
    tab.focus("[data-look=reset]")
    top = tab.evaluate("scrollY")
    tab.hover("#model canvas")
    tab.mouse.wheel(0, 200)
    tab.wait_for_function(f"scrollY > {top}")
    assert tab.evaluate("document.querySelector('#model canvas').style.touchAction") == "pan-y"


def test_after_a_reload_it_opens_from_history(
    browser: Any, app: AppProcess, tab: Any, shots: Path, tmp_path: Path
) -> None:
    tab.reload()
    tab.wait_for_selector("#generate")
    open_tab(tab, "History")
    tab.wait_for_selector("#history .item")
    assert tab.locator("#history .item").count() == 2
    tab.wait_for_function(
        "[...document.querySelectorAll('#history .item img')].every((i) => i.naturalWidth > 0)"
    )
    shot(tab, shots / "history.png")
    tab.locator("#history .item:not(:has(.cancelled)) [data-action=open]").last.click()
    tab.wait_for_selector("asset-viewer[data-ready]", timeout=60_000)
    assert tab.locator("#files a.download").count() == 2
    tab.on("dialog", lambda dialog: dialog.accept())
    with watched_page(browser, app.address, DESKTOP) as (other, _):
        other.route("**/queue/data*", lambda route: None)  # this tab's stream of events never answers
        open_tab(other, "Render modes")
        open_tab(other, "History")
        other.wait_for_function(f"{ITEMS} == 2")
        open_tab(tab, "History")
        tab.locator("#history .item:has(.cancelled) [data-action=delete]").click()
        tab.wait_for_function(f"{ITEMS} == 1")
        other.wait_for_function(f"{ITEMS} == 1")


def test_a_wrong_service_is_told_in_settings(tab: Any, shots: Path) -> None:
    open_tab(tab, "Settings")
    tab.fill("#url textarea, #url input", "http://127.0.0.1:9")
    tab.fill("#key input", "sk_wrong")
    tab.click("#save")
    tab.wait_for_selector("#verdict .bad", timeout=20_000)
    assert "cannot be reached" in tab.inner_text("#verdict")
    shot(tab, shots / "settings.png")
    assert "This computer" in tab.inner_text("#header"), "nothing was saved"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_width_and_shade(
    browser: Any, app: AppProcess, size: tuple[int, int], dark: bool, shots: Path, photo: Path
) -> None:
    name = f"{'phone' if size == PHONE else 'desktop'}-{'dark' if dark else 'light'}"
    with watched_page(browser, app.address, size, dark) as (page, traffic):
        page.wait_for_selector("asset-viewer")
        assert page.evaluate("document.body.classList.contains('dark')") == dark
        if size == PHONE:
            tops = [page.locator(part).bounding_box()["y"] for part in ("#results", "#inputs")]
            assert tops == sorted(tops), "the result comes first"
        page.wait_for_selector("asset-viewer[data-ready]", timeout=60_000)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size[0], "nothing sticks out to the side"
        shot(page, shots / f"create-{name}.png")
        for tab in ("History", "Settings"):
            open_tab(page, tab)
            shot(page, shots / f"{tab.lower()}-{name}.png")
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        page.click("#theme-switch")
        assert page.evaluate("document.body.classList.contains('dark')") != dark
        page.reload()
        page.wait_for_selector("#generate")
        assert page.evaluate("document.body.classList.contains('dark')") != dark, "the choice is kept"
    assert traffic.complaints == []


def test_it_can_be_used_with_the_keyboard(browser: Any, app: AppProcess) -> None:
    with watched_page(browser, app.address, DESKTOP) as (page, _):
        page.wait_for_selector("#extract", state="visible", timeout=30_000)
        reached: set[str] = set()
        for _ in range(120):  # every example and every kept asset is a stop
            page.keyboard.press("Tab")
            reached.add(page.evaluate(
                "(() => { const e = document.activeElement; const named = e.closest('[id]');"
                " return e.id || (named ? named.id : '') })()"
            ))  # fmt: skip
        assert {"theme-switch", "generate", "seed", "extract"} <= reached, reached


def test_a_picture_is_pasted_anywhere(browser: Any, app: AppProcess, photo: Path) -> None:
    with watched_page(browser, app.address, DESKTOP) as (page, _):
        page.evaluate(
            """(bytes) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], 'pasted.png', { type: 'image/png' }));
              const paste = new ClipboardEvent('paste', { clipboardData: data, bubbles: true });
              document.body.dispatchEvent(paste);
            }""",
            list(photo.read_bytes()),
        )
        page.wait_for_selector("#matte img", timeout=30_000)
