"""Pictures as people bring them: chosen, dropped anywhere, pasted, several at once, no picture at all."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.trellis2_modal.browser.app import DESKTOP, PHONE, watched_page
from tests.trellis2_modal.browser.memory_app import GRADIO_WARNS, MemoryApp
from tests.trellis2_modal.server import picture, wait_for
from trellis2_modal.client.app.inputs import ready_made

pytestmark = [pytest.mark.browser, pytest.mark.slow, GRADIO_WARNS]

NEVER = ("Traceback", "Error:", "PIL", "/tmp", "site-packages", "None")
"""What no sentence on the page holds."""


def dropped(page: Any, selector: str, *files: tuple[str, bytes]) -> None:
    """Drop files on a place of the page."""
    page.evaluate(
        """([selector, files]) => {
          const data = new DataTransfer();
          for (const [name, text] of files) {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            data.items.add(new File([bytes], name));
          }
          for (const kind of ['dragenter', 'dragover', 'drop'])
            document.querySelector(selector).dispatchEvent(
              new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [selector, [(name, base64.b64encode(data).decode()) for name, data in files]],
    )


def encoded(format: str, size: tuple[int, int] = (64, 64), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 90, 40)).save(buffer, format, **options)
    return buffer.getvalue()


def test_whatever_is_brought_gets_a_sentence_or_works(browser: Any, quick: MemoryApp, shots: Path) -> None:
    moving = encoded("GIF", save_all=True, append_images=[Image.new("RGB", (64, 64))])
    refused = {
        "scan.png": (b"%PDF-1.7\n...", "is no picture but a PDF document"),
        "empty.jpg": (b"", "is empty"),
        "IMG_1.heic": (b"\0\0\0\x18ftypheic" + bytes(64), "HEIC"),
        "broken.png": (picture()[:60], "damaged or incomplete"),
        "notes.txt": (b"hello", "no picture that can be opened"),
        "tiny.png": (encoded("PNG", (8, 8)), "8 × 8 pixels"),
        "logo.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    }
    with watched_page(browser, quick.address, DESKTOP) as (page, traffic):
        for name, (data, says) in refused.items():
            dropped(page, "#header", (name, data))
            page.wait_for_selector(f"#picture [role=alert] >> text={says}")
            said = page.inner_text("#picture")
            assert name in said
            assert not [word for word in NEVER if word in said], said
        page.screenshot(path=shots / "intake-refused.png")
        dropped(page, "#picture .slot", ("turning.gif", moving))
        page.wait_for_selector("#picture >> text=its first frame is used")
        page.wait_for_function("document.querySelector('#picture .picked')?.naturalWidth === 64")
        page.wait_for_selector("#matte img")
        large = encoded("JPEG", (8000, 8000), quality=40)
        dropped(page, "#results", ("large photo.jpg", large))
        page.wait_for_selector("#picture >> text=scaled from 8000 × 8000 to 4096 × 4096", timeout=60_000)
        page.screenshot(path=shots / "intake-picked.png", full_page=True)
        page.click("#generate")
        wait_for(lambda: [e for e in quick.task_queue.history.entries() if e.status == "finished"], "it", 60)
        page.get_by_role("button", name="Remove", exact=True).click()
        page.wait_for_selector("#picture >> text=Drop or paste a picture")
    assert [c for c in traffic.complaints if "400" not in c] == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_several_pictures_are_a_queue_or_views(
    browser: Any, quick: MemoryApp, size: tuple[int, int], shots: Path
) -> None:
    files = [
        (name, picture(seed=i)) for i, name in enumerate(("chair back.png", "chair front.png", "c left.png"))
    ]
    with watched_page(browser, quick.address, size, dark=size == PHONE) as (page, traffic):
        page.set_input_files(
            "#picture input[type=file]",
            [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files],
        )
        page.wait_for_selector("#picture >> text=3 pictures: 3 assets")
        page.screenshot(path=shots / f"intake-several-{size[0]}.png", full_page=True)
        page.click("#generate")
        wait_for(lambda: len(quick.service.jobs("generate")) == 3 or None, "three jobs")
        page.click("text=They are views of one object")
        page.wait_for_selector("#sides .picked >> nth=1")
        assert page.locator("#picture .name").inner_text() == "chair front.png"
        page.select_option("[data-slot=back] select", "right")
        page.wait_for_selector("[data-slot=right] .picked")
        page.screenshot(path=shots / f"intake-views-{size[0]}.png", full_page=True)
        wait_for(lambda: not quick.task_queue.tasks() or None, "the queue's end")
        page.click("#generate")
        wait_for(lambda: len(quick.service.jobs("generate")) == 4 or None, "the job of the views")
        assert quick.service.jobs("generate")[-1].settings["views"] == ["front", "right", "left"]
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert traffic.complaints == []


def test_a_finished_example_opens_by_a_click(browser: Any, quick: MemoryApp, shots: Path) -> None:
    if not ready_made.is_there():
        pytest.skip("the finished example is not in this copy")
    with watched_page(browser, quick.address, DESKTOP) as (page, traffic):
        page.click("text=See a finished example")
        page.wait_for_selector("#model asset-viewer[data-ready]", timeout=60_000)
        page.wait_for_selector("#facts >> text=ready-made")
        page.wait_for_function("location.search.includes('asset=')")
        page.screenshot(path=shots / "ready-made.png", full_page=True)
        page.get_by_role("tab", name="Turntable", exact=True).click()
        page.wait_for_function("document.querySelector('#turntable video')?.videoWidth > 0", timeout=30_000)
    assert quick.service.jobs("generate") == [], "nothing was generated for it"
    assert traffic.complaints == []
