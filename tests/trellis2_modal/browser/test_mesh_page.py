"""New textures for a mesh as a person asks for them: dropped, named where it cannot be, made, seen, taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trellis2_modal.browser.app import PHONE, watched_page
from tests.trellis2_modal.browser.axe import findings
from tests.trellis2_modal.browser.memory_app import GRADIO_WARNS, MemoryApp
from tests.trellis2_modal.browser.test_intake import NEVER, dropped
from tests.trellis2_modal.meshes import mesh_glb
from tests.trellis2_modal.server import picture, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.slow, GRADIO_WARNS]

LAPTOP = (1280, 720)
REFUSED = {
    "empty.stl": (b"", "is empty"),
    "cut.glb": (mesh_glb()[:60], "cut short"),
    "chair.zip": (b"PK\x03\x04" + bytes(80), "send the file inside it"),
    "scan.pdf": (b"%PDF-1.7\n...", "none of GLB, OBJ, PLY, STL"),
    "huge.ply": (b"ply\nelement face 10000000\nend_header\n", "10,000,000 faces, the most is 2,000,000"),
}


@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_a_mesh_gets_new_textures(
    browser: Any, quick: MemoryApp, size: tuple[int, int], shots: Path, tmp_path: Path
) -> None:
    mesh, dark = mesh_glb(), size == PHONE
    with watched_page(browser, quick.address, size, dark) as (page, traffic):
        page.wait_for_selector("#header .ok")
        dropped(page, "#header", ("chair.glb", mesh))  # a mesh opens its tab, wherever it is dropped
        page.wait_for_selector("#texture-mesh asset-viewer[data-ready]", timeout=20_000)
        for name, (data, says) in REFUSED.items():
            dropped(page, "#texture-mesh .slot", (name, data))
            page.wait_for_selector(f"#texture-pictures [role=alert] >> text={says}")
            said = page.inner_text("#texture-pictures [role=alert]")
            assert name in said
            assert not [word for word in NEVER if word in said], said
        page.click("#texture")
        page.wait_for_selector("text=Drop a picture of how it should look first.")
        dropped(page, "#texture-pictures .slot", ("front.png", picture()), ("back.png", picture(seed=2)))
        page.wait_for_selector("#texture-pictures .pile li >> nth=1")
        box = page.locator("#texture").bounding_box()
        assert dark or box["y"] + box["height"] <= size[1], "the button is seen without scrolling"
        page.wait_for_selector(".toast-header", state="detached", timeout=20_000)  # it is Gradio's own
        assert findings(page) == []
        page.click("#texture")
        page.wait_for_selector("#files >> text=chair-textured.glb")
        page.locator("#model").scroll_into_view_if_needed()  # a viewer opens when it is seen
        page.wait_for_selector("#model asset-viewer[data-ready]", timeout=20_000)
        assert "chair-textured.glb" in page.get_attribute("#model canvas", "aria-label")
        assert not page.is_visible("#extract"), "there is nothing to export from"
        with page.expect_download() as waiting:
            page.click("#files a.download")
        waiting.value.save_as(tmp_path / "made.glb")
        assert (tmp_path / "made.glb").read_bytes() == mesh, "the fake model gives the mesh back"
        (job,) = quick.service.jobs("texture")
        assert job.settings["preview"] == "frames"
        page.click("#files summary")
        assert "faces" in page.inner_text("#files .report")
        page.wait_for_timeout(400)
        assert findings(page) == []
        page.screenshot(path=shots / f"mesh-textured-{size[0]}.png", full_page=dark)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        page.get_by_role("tab", name="History", exact=True).click()
        page.wait_for_selector("#history .item >> text=chair.glb")
        page.goto(quick.address)
        page.wait_for_selector("#facts >> text=Use this mesh again")
        assert not page.locator("#texture-mesh asset-viewer").count()
        page.click("text=Use this mesh again")
        page.wait_for_selector("#texture-mesh asset-viewer[data-ready]", timeout=20_000)
        page.wait_for_selector("#texture-pictures .pile li >> nth=1")
        page.click("#texture")
        wait_for(lambda: len(quick.service.jobs("texture")) == 2 or None, "the second job")
    assert [c for c in traffic.complaints if "400" not in c] == []


def test_a_mesh_that_the_service_refuses_is_told_with_a_way_on(browser: Any, quick: MemoryApp) -> None:
    quick.service.plans.append("invalid-mesh")
    with watched_page(browser, quick.address, LAPTOP) as (page, _):
        page.wait_for_selector("#header .ok")
        dropped(page, "#results", ("chair.glb", mesh_glb()))
        page.wait_for_selector("#texture-mesh asset-viewer")
        dropped(page, "#texture-pictures .slot", ("front.png", picture()))
        page.wait_for_selector("#texture-pictures .pile li")
        page.click("#texture")
        page.wait_for_selector("#model [role=alert] >> text=The mesh cannot be used")
        page.click("text=Choose another mesh")
        page.wait_for_selector("#texture-mesh >> text=Drop a mesh")
        assert page.locator("#texture-pictures .pile li").count() == 1, "the picture stays"
