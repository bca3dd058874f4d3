"""One app, one browser for the whole folder; skipped, with the reason, where there is no Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trellis2_modal.browser.app import CHROMIUM_FLAGS, ROOT, AppProcess, find_chromium
from tests.trellis2_modal.browser.memory_app import MemoryApp, memory_app

BUNDLED_WEIGHTS = ROOT / "assets" / "weights" / "trellis2-mini"
SHOTS = ROOT / "artifacts" / "browser"


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("there is no Chromium or Chrome on this machine (CHROMIUM can name one)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled weights, or random ones of the same layout."""
    from tests.trellis2.pipelines.tiny_checkpoint import write_checkpoint

    if BUNDLED_WEIGHTS.exists():
        return BUNDLED_WEIGHTS
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="package")
def app(tmp_path_factory: pytest.TempPathFactory, weights: Path, browser: Any) -> Iterator[AppProcess]:
    app = AppProcess(tmp_path_factory.mktemp("home"), "--weights", str(weights), "--device", "cpu")
    app.start()
    yield app
    app.stop()


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Any) -> Iterator[MemoryApp]:
    """The app over the service in memory, with an empty history."""
    for name in ("TRELLIS2_URL", "TRELLIS2_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    with memory_app(tmp_path / "home") as app:
        yield app


@pytest.fixture(scope="package")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shaded ball on a plain ground."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[-1:1:384j, -1:1:384j]
    inside = (x * x + y * y < 0.4)[..., None]
    shade = np.clip(0.75 + 0.4 * x - 0.5 * y, 0.1, 1)[..., None]
    ball = shade * np.array([214, 96, 52])
    pixels = np.where(inside, ball, np.array([236, 234, 228])).astype(np.uint8)
    path = tmp_path_factory.mktemp("photo") / "orange ball.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="package")
def shots() -> Path:
    """Where pictures of the page are kept; git ignores it, CI uploads it."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS
