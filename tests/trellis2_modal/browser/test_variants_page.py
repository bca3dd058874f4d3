"""What a maker does next: several variants to choose from, a draft refined, a shape textured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trellis2_modal.browser.app import PHONE, watched_page
from tests.trellis2_modal.browser.axe import findings
from tests.trellis2_modal.browser.memory_app import GRADIO_WARNS, MemoryApp
from tests.trellis2_modal.browser.test_intake import dropped
from tests.trellis2_modal.server import picture, wait_for
from trellis2_modal.protocol.state import peek_state

pytestmark = [pytest.mark.browser, pytest.mark.slow, GRADIO_WARNS]

LAPTOP = (1280, 720)


def idle(app: MemoryApp) -> None:
    wait_for(lambda: not app.task_queue.tasks() or None, "the end of the work", 60)


def look_of(page: Any, button: str) -> list[Any]:
    """How a button is drawn, but for its width."""
    shown = (
        "height",
        "background-color",
        "border-width",
        "border-radius",
        "color",
        "font-size",
        "font-weight",
    )
    found: list[Any] = page.locator(button).evaluate(
        "(button, names) => names.map((name) => getComputedStyle(button).getPropertyValue(name))", shown
    )
    return found


@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_variants_are_told_made_chosen_and_exported(
    browser: Any, quick: MemoryApp, size: tuple[int, int], shots: Path
) -> None:
    with watched_page(browser, quick.address, size, dark=size == PHONE) as (page, traffic):
        page.wait_for_selector("#estimate >> text=Takes about 55 s.")
        dropped(page, "#picture .slot", ("chair.png", picture()))
        page.wait_for_selector("#picture .picked")
        page.uncheck("#new-seed input")
        field = page.locator("#set-num_samples input[type=number]")
        field.fill("4")
        field.blur()
        page.wait_for_selector("#estimate >> text=for 4 variants")
        page.click("#generate")
        group = page.get_by_role("radiogroup", name="Variants of chair.png")
        group.wait_for()
        idle(quick)
        first = group.get_by_role("radio", name="Variant 1, seed 42")
        assert first.is_checked()
        assert group.get_by_role("radio").count() == 4
        page.locator("#model").scroll_into_view_if_needed()  # a viewer opens when it is seen
        page.wait_for_selector("#model asset-viewer[data-ready]", timeout=30_000)
        page.wait_for_timeout(400)
        assert findings(page) == []
        page.screenshot(path=shots / f"variants-{size[0]}.png", full_page=size == PHONE)
        if size == LAPTOP:
            box = page.locator("#extract").bounding_box()
            assert box["y"] + box["height"] <= size[1], "Export is seen without scrolling"
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        first.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("#facts >> text=variant 2 of 4")
        page.wait_for_selector("#facts >> text=seed 43")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("#facts >> text=variant 3 of 4")
        assert group.get_by_role("radio", name="Variant 3, seed 44").is_checked()
        page.locator("#model").scroll_into_view_if_needed()
        page.wait_for_selector("asset-viewer[src$='light-3.glb'][data-ready]", timeout=30_000)
        page.click("#extract")
        page.wait_for_selector("#files >> text=chair-3-web.glb")
        page.wait_for_selector("#files >> text=variant 3")
        export = quick.service.jobs("extract")[-1]
        assert export.settings["variant"] == 3
        page.goto(quick.address)
        page.wait_for_selector("#facts >> text=variant 3 of 4")
        page.click(".variants .variant >> nth=0")
        page.wait_for_selector("#facts >> text=variant 1 of 4")
        page.get_by_role("tab", name="History", exact=True).click()
        page.wait_for_selector("#history .item >> text=4 variants")
        assert page.locator("#history .item").count() == 1
    assert traffic.complaints == []


def test_a_draft_is_refined_and_textured_again(browser: Any, quick: MemoryApp, shots: Path) -> None:
    quick.service.generator.pipeline_types = ("512", "1024_cascade")
    quick.task_queue._poke.set()
    wait_for(lambda: "1024_cascade" in quick.task_queue.pipeline_types() or None, "the offer")
    with watched_page(browser, quick.address, LAPTOP) as (page, traffic):
        dropped(page, "#picture .slot", ("chair.png", picture()))
        page.wait_for_selector("#picture .picked")
        page.click("#pipeline label:has-text('Draft first')")
        page.uncheck("#set-texture input")
        page.click("#generate")
        page.wait_for_selector("#again >> text=Add a texture")
        idle(quick)
        draft = quick.service.jobs("generate")[-1].settings
        assert (draft["pipeline_type"], draft["texture"], draft["keep_latents"]) == ("512", False, True)
        page.click("#again")
        page.wait_for_selector("#again >> text=Texture again")
        page.wait_for_selector("#facts >> text=Show whose shape it has")
        idle(quick)
        sent = quick.service.calls("POST", "/jobs")[-1].content
        assert b'name="state"' in sent, "the shape goes along"
        second = quick.service.jobs("generate")[-1].settings
        assert (second["pipeline_type"], second["texture"]) == ("512", True)
        page.wait_for_selector("#model asset-viewer[data-ready]", timeout=30_000)
        page.wait_for_timeout(400)
        assert findings(page) == []
        page.screenshot(path=shots / "draft.png")
        assert look_of(page, "#again") == look_of(page, "#facts [data-action=reuse]")
        page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
        page.wait_for_function("document.querySelector('#again').offsetHeight === 44")
        page.set_viewport_size({"width": LAPTOP[0], "height": LAPTOP[1]})
        page.click("#refine >> text=Refine to 1024")
        wait_for(lambda: len(quick.service.jobs("generate")) == 3 or None, "the third job")
        idle(quick)
        fine = quick.service.jobs("generate")[-1].settings
        assert (fine["pipeline_type"], fine["seed"]) == ("1024_cascade", second["seed"])
        page.wait_for_selector("#refine", state="detached")
        newest = quick.task_queue.history.entries()[0]
        state = quick.task_queue.history.file(newest.id, "state.lz4")
        assert state is not None
        assert peek_state(state.read_bytes())["info"]["seed"] == newest.seed
        assert not (state.parent / "shape.lz4").exists(), "what was sent is not kept twice"
    assert traffic.complaints == []
