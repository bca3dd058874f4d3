"""The pictures of the documentation: `python -m tests.trellis2_modal.browser.screenshots [FOLDER]`.

Drives the real app with the bundled weights (or those of --weights) and writes small WebP files.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from tests.trellis2_modal.browser.app import (
    CHROMIUM_FLAGS,
    DESKTOP,
    PHONE,
    ROOT,
    AppProcess,
    find_chromium,
    watched_page,
)

LAPTOP = (1280, 720)
FOLDER = ROOT / "trellis2_modal" / "docs" / "images"
EXAMPLES = ROOT / "assets" / "example_image"
MESH = ROOT / "assets" / "ready_made" / "light.glb"
PATIENCE = 400_000
QUALITY = 76


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--weights", default=None, help="folder of weights instead of the bundled ones")
    parser.add_argument("--views", type=Path, default=None, help="folder for every view, to look at")
    parser.add_argument("--pictures", type=Path, default=EXAMPLES, help="folder of example pictures")
    chosen = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chosen.folder.mkdir(parents=True, exist_ok=True)
    pictures = sorted(p for p in chosen.pictures.iterdir() if p.suffix.lower() in (".png", ".jpg", ".webp"))
    weights = ("--weights", chosen.weights) if chosen.weights else ()
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        app = AppProcess(Path(home), *weights)
        app.start()
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        try:
            take_all(browser, app.address, chosen.folder, pictures)
            if chosen.views is not None:
                chosen.views.mkdir(parents=True, exist_ok=True)
                take_views(browser, app.address, chosen.views, pictures[0])
        finally:
            browser.close()
            app.stop()


def take_all(browser: Any, address: str, folder: Path, pictures: list[Path]) -> None:
    """Make a few assets, three of them variants, texture a mesh, and photograph the app on the way."""
    with watched_page(browser, address, DESKTOP) as (page, _):
        page.wait_for_selector("#header .ok", timeout=PATIENCE)
        take(page, folder / "app-empty.webp")
        generate(page, pictures[0])
        page.wait_for_function(
            "/step [2-9]/.test(document.querySelector('#progress')?.innerText)", timeout=PATIENCE
        )
        take(page, folder / "app-progress.webp")
        finished(page, 1)
        generate(page, pictures[1 % len(pictures)])
        finished(page, 2)
        page.click("#extract")
        page.wait_for_selector("#files a.download", timeout=PATIENCE)
        page.wait_for_selector("#progress", state="detached", timeout=PATIENCE)
        take(page, folder / "app-result.webp", full=True)
        page.get_by_role("tab", name="Render modes").click()
        page.click(".modes >> text=Normal")
        page.evaluate("scrollTo(0, 0)")
        take(page, folder / "app-modes.webp")
        page.get_by_role("tab", name="History", exact=True).click()
        take(page, folder / "app-history.webp")
        page.get_by_role("tab", name="Create", exact=True).click()
        count = page.locator("#set-num_samples input[type=number]")
        count.fill("3")
        count.blur()
        generate(page, pictures[2 % len(pictures)])
        page.wait_for_selector(".variants", timeout=PATIENCE)
        finished(page, 3)
        page.locator(".variants input").nth(1).click()
        page.wait_for_selector("asset-viewer[src$='light-2.glb'][data-ready]", timeout=PATIENCE)
        take(page, folder / "app-variants.webp")
        page.get_by_role("tab", name="Texture a mesh").click()
        page.set_input_files("#texture-mesh input[type=file]", MESH)
        page.set_input_files("#texture-pictures input[type=file]", pictures[1 % len(pictures)])
        page.wait_for_selector("#texture-pictures .pile img")
        page.click("#texture")
        page.wait_for_selector("#files >> text=textured.glb", timeout=PATIENCE)
        finished(page, 4)
        page.wait_for_selector("#texture-mesh asset-viewer[data-ready]", timeout=60_000)
        take(page, folder / "app-mesh.webp")
    with watched_page(browser, address, DESKTOP, dark=True) as (page, _):
        page.wait_for_selector("asset-viewer[data-ready]", timeout=60_000)
        take(page, folder / "app-model-dark.webp")
    with watched_page(browser, address, PHONE) as (page, _):
        page.wait_for_selector("asset-viewer[data-ready]", timeout=60_000)
        page.wait_for_timeout(1_500)
        take(page, folder / "app-phone.webp")
        page.set_input_files("#picture input[type=file]", pictures[1 % len(pictures)])
        correct(page)
        take(page, folder / "app-cutout.webp")


def take_views(browser: Any, address: str, folder: Path, picture: Path) -> None:
    """Every view at three sizes, light and dark."""
    for name, size in {"desktop": DESKTOP, "laptop": LAPTOP, "phone": PHONE}.items():
        for dark in (False, True):
            ending = f"{name}-{'dark' if dark else 'light'}.webp"
            with watched_page(browser, address, size, dark) as (page, _):
                page.wait_for_selector("asset-viewer[data-ready]", timeout=60_000)
                take(page, folder / f"create-{ending}", full=True)
                for tab in ("History", "Settings"):
                    page.get_by_role("tab", name=tab, exact=True).click()
                    take(page, folder / f"{tab.lower()}-{ending}", full=True)
                page.get_by_role("tab", name="Create", exact=True).click()
                page.set_input_files("#picture input[type=file]", picture)
                correct(page)
                take(page, folder / f"cutout-{ending}")


def correct(page: Any) -> None:
    """Open the panel in which the cut-out is corrected."""
    page.click("#matte >> text=Correct the cut-out", timeout=60_000)
    page.wait_for_selector("dialog.correct:not([data-busy]) [data-do=use]:enabled", timeout=60_000)


def generate(page: Any, picture: Path) -> None:
    """Drop a picture in the place of the last one and press Generate."""
    clear = page.locator("#picture button[aria-label='Clear'], #picture button[aria-label='Remove Image']")
    if clear.count():
        clear.first.click()
    page.set_input_files("#picture input[type=file]", picture)
    page.wait_for_selector("#matte img", timeout=60_000)
    page.uncheck("#new-seed input")
    page.click("#generate")
    page.wait_for_selector("#progress [role=progressbar]", timeout=PATIENCE)  # so that its end is one


def finished(page: Any, count: int) -> None:
    """Wait until so many assets are there, the newest is shown, and nothing is at work."""
    page.wait_for_selector("#progress", state="detached", timeout=PATIENCE)
    if count > 1:
        page.locator("#strip .thumb").first.click()
    page.wait_for_selector("asset-viewer[data-ready]", timeout=PATIENCE)


def take(page: Any, path: Path, full: bool = False) -> None:
    """One picture as WebP."""
    page.wait_for_timeout(700)
    with Image.open(io.BytesIO(page.screenshot(full_page=full))) as image:
        image.convert("RGB").save(path, "WEBP", quality=QUALITY, method=6)


if __name__ == "__main__":
    main()
