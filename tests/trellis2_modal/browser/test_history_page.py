"""History as people use it: found, renamed, marked, compared, downloaded, deleted; addresses and Back."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.trellis2_modal.browser.app import DESKTOP, PHONE, watched_page
from tests.trellis2_modal.browser.memory_app import GRADIO_WARNS, MemoryApp
from tests.trellis2_modal.server import picture, wait_for
from trellis2_modal.client.history import History

pytestmark = [pytest.mark.browser, pytest.mark.slow, GRADIO_WARNS]

TITLES = "[...document.querySelectorAll('#history .item strong')].map((e) => e.textContent).join()"


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def made(app: MemoryApp, *names: str) -> list[str]:
    """The ids of assets with these names, oldest first."""
    ids = []
    for number, name in enumerate(names):
        app.service.plans += ["finish", "internal-error"]  # no light mesh: nothing for a slow 3D view to draw
        entry = app.task_queue.generate(picture(seed=number), name, {"seed": number})
        ids.append(entry.id)
        wait_for(lambda: not app.task_queue.tasks() or None, "the asset")
        app.task_queue.history.change(entry.id, created=1e9 + number)
    return ids


def test_history_is_a_place_to_work(browser: Any, quick: MemoryApp, shots: Path, tmp_path: Path) -> None:
    ids = made(quick, "zebra.png", "apple chair.png", "mug.png")
    quick.task_queue.extract(ids[0], {"simplify": "web"}, "Web")
    wait_for(lambda: not quick.task_queue.tasks() or None, "the export")
    with watched_page(browser, quick.address, DESKTOP) as (page, traffic):
        page.on("dialog", lambda dialog: dialog.accept())
        open_tab(page, "History")
        page.wait_for_selector("#history .item >> nth=2")
        newest = page.evaluate(TITLES)
        page.click("#order input")
        page.get_by_role("option", name="By name").click()
        page.wait_for_function(f"{TITLES} === 'apple chair.png,mug.png,zebra.png'")
        page.fill("#search input, #search textarea", "chair seed 1")
        page.wait_for_function(f"{TITLES} === 'apple chair.png'")
        page.click("[data-rename]")
        page.keyboard.type("armchair")
        page.keyboard.press("Enter")
        page.fill("#search input, #search textarea", "arm")
        page.wait_for_function(f"{TITLES} === 'armchair.png'")
        page.fill("#search input, #search textarea", "")
        page.wait_for_selector("#history .item >> nth=2")
        page.click(f"[data-entry='{ids[2]}'] .star")
        page.wait_for_selector(f"[data-entry='{ids[2]}'] .star[aria-pressed=true]")
        page.check("#favourites input")
        page.wait_for_function(f"{TITLES} === 'mug.png'")
        page.uncheck("#favourites input")
        page.wait_for_selector("#history .item >> nth=2")
        for name in ids[:2]:
            page.check(f"[data-entry='{name}'] .pick input")
        assert page.inner_text("#history [data-count]") == "2 selected"
        page.screenshot(path=shots / "history-selected.png", full_page=True)
        with page.expect_download() as waiting:
            page.click("#history [data-download]")
        waiting.value.save_as(tmp_path / "assets.zip")
        names = zipfile.ZipFile(tmp_path / "assets.zip").namelist()
        assert {name.partition("/")[0][:8] for name in names} == {"zebra " + ids[0][-4:-2], "armchair"}
        assert any(name.endswith(".glb") for name in names)
        assert not [name for name in names if "state" in name]
        page.click("#history [data-action=compare]")
        page.wait_for_selector("#comparison table")
        assert page.locator("#comparison video").count() == 2
        assert "Seed" in page.inner_text("#comparison .differs >> nth=1 >> xpath=..")
        page.screenshot(path=shots / "history-compared.png", full_page=True)
        page.click("#comparison >> text=Close")
        page.wait_for_selector("#comparison table", state="detached")
        for name in ids[:2]:
            page.check(f"[data-entry='{name}'] .pick input")
        page.click("#history .selection [data-action=delete]")
        page.wait_for_function(f"{TITLES} === 'mug.png'")
        assert newest
    assert traffic.complaints == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_asset_has_an_address_and_back_works(
    browser: Any, quick: MemoryApp, size: tuple[int, int], shots: Path
) -> None:
    first, second = made(quick, "first.png", "second.png")
    with watched_page(browser, f"{quick.address}/?asset={first}", size, dark=size == PHONE) as (
        page,
        traffic,
    ):
        page.wait_for_selector("#facts >> text=first.png")
        open_tab(page, "History")
        page.wait_for_function("location.search.includes('tab=history')")
        page.screenshot(path=shots / f"history-{size[0]}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        page.click(f"[data-entry='{second}'] .cover")
        page.wait_for_function(f"location.search === '?asset={second}'")
        page.wait_for_selector("#facts >> text=second.png")
        page.go_back()
        page.wait_for_selector("#history .item", state="visible")
        page.go_back()
        page.wait_for_selector("#facts >> text=first.png")
        page.go_forward()
        page.wait_for_selector("#history .item", state="visible")
        page.goto(f"{quick.address}/?asset={second}")
        page.wait_for_selector("#facts >> text=second.png")
        page.reload()
        page.wait_for_selector("#facts >> text=second.png")
    assert traffic.complaints == []


def test_an_open_tab_keeps_its_address(browser: Any, quick: MemoryApp) -> None:
    (first,) = made(quick, "first.png")
    with watched_page(browser, f"{quick.address}/?asset={first}", DESKTOP) as (page, _):
        page.wait_for_selector("#facts >> text=first.png")
        page.wait_for_function("document.querySelector('[data-address]')?.dataset.address.includes('asset=')")
        open_tab(page, "History")
        page.wait_for_function("location.search === '?tab=history'")
        # as when the answer about what is shown comes after the click, or a job of this tab ends
        page.evaluate("document.querySelector('[data-address]').dataset.address = 'asset=late'")
        page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        assert page.evaluate("location.search") == "?tab=history"
        open_tab(page, "Create")
        page.wait_for_function("location.search === '?asset=late'")


def test_what_another_process_adds_appears(browser: Any, quick: MemoryApp) -> None:
    (made_here,) = made(quick, "here.png")
    state = quick.task_queue.history.file(made_here, "state.lz4")
    assert state is not None
    from trellis2_modal.client.results import GenerateResult

    with watched_page(browser, f"{quick.address}/?tab=history", DESKTOP) as (page, _):
        page.wait_for_selector("#history .item")
        other = History(quick.task_queue.history.root)
        other.join(picture(), "elsewhere.png", GenerateResult("job_1", 3, 16, state.read_bytes()))
        page.wait_for_function(f"{TITLES}.includes('elsewhere.png')", timeout=15_000)
