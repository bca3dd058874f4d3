"""The real app in a process of its own, and a Chromium that looks at it and keeps account of its traffic."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.trellis2_modal.server import wait_for

ROOT = Path(__file__).parents[3]
ADDRESS = "The app is at "
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
DESKTOP, PHONE = (1440, 900), (390, 844)
EXPECTED_NOISE = ("WebGPU", "No available adapters", "GL Driver Message", "Method not implemented")
"""What a machine without a graphics card makes Gradio's 3D view and browsers say."""


def find_chromium() -> str | None:
    """A Chromium or Chrome of this machine; CHROMIUM names another."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


class AppProcess:
    """`trellis2-modal app` with a data folder of its own; it starts the local server itself."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.home, self._arguments = home, arguments
        self._process: subprocess.Popen[str] | None = None
        self.lines: list[str] = []
        self.address = ""
        self.began = 0.0

    def start(self, timeout: float = 60.0) -> str:
        command = [sys.executable, "-m", "trellis2_modal", "app", "--no-browser", "--port", "0"]
        env = {k: v for k, v in os.environ.items() if k not in ("TRELLIS2_URL", "TRELLIS2_API_KEY")}
        env |= {"TRELLIS2_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}
        env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        self.began = time.monotonic()
        self._process = subprocess.Popen(
            [*command, *self._arguments], cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        found: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(found,), daemon=True).start()
        try:
            self.address = found.get(timeout=timeout)
        except queue.Empty:
            self.stop()
            raise AssertionError("the app did not start:\n" + "\n".join(self.lines)) from None
        return self.address

    def _read(self, found: queue.Queue[str]) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout:
            for line in self._process.stdout:
                self.lines.append(line.rstrip())
                if line.startswith(ADDRESS):
                    found.put(line.removeprefix(ADDRESS).strip())

    def wait_for_line(self, start: str) -> str:
        """The first line of its output that begins so."""
        return wait_for(lambda: next((line for line in self.lines if line.startswith(start)), ""), start)

    def kill(self) -> None:
        """As `kill -9` does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


@dataclass
class Traffic:
    """Bytes of each exchange with the app's own address: what came back, and what was sent, by URL."""

    received: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    @staticmethod
    def is_data(url: str) -> bool:
        """The page's own JSON: neither its scripts, nor the files that it shows, nor an upload."""
        return "/gradio_api/" in url and "/file=" not in url and "/upload" not in url

    def largest(self) -> int:
        """Of all JSON in either direction."""
        sizes = [n for each in (self.received, self.sent) for url, n in each.items() if self.is_data(url)]
        return max(sizes, default=0)


@contextmanager
def watched_page(
    browser: Any, address: str, size: tuple[int, int], dark: bool = False
) -> Iterator[tuple[Any, Traffic]]:
    """A tab of its own, and the account of its traffic and complaints."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        accept_downloads=True,
    )
    page, traffic, urls = context.new_page(), Traffic(), {}
    session = context.new_cdp_session(page)
    session.send("Network.enable")

    def asked(event: dict[str, Any]) -> None:
        url = event["request"]["url"]
        urls[event["requestId"]] = url
        posted = len(event["request"].get("postData", ""))
        traffic.sent[url] = max(traffic.sent.get(url, 0), posted)

    def arrived(event: dict[str, Any]) -> None:
        url = urls.get(event["requestId"], "")
        traffic.received[url] = max(traffic.received.get(url, 0), int(event["encodedDataLength"]))

    session.on("Network.requestWillBeSent", asked)
    session.on("Network.loadingFinished", arrived)
    page.on("console", lambda m: traffic.complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: traffic.complaints.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#generate")
    try:
        yield page, traffic
    finally:
        context.close()
    heard = [c for c in traffic.complaints if not any(noise in c for noise in EXPECTED_NOISE)]
    traffic.complaints = without_farewells(heard)


def without_farewells(complaints: list[str]) -> list[str]:
    """Gradio's client closes its stream when a page is left, and then says so of the request that was under
    way: two complaints that nobody sees, of a page that is gone.
    """
    closed = [c for c in complaints if c.startswith("AbortError") and ".close (" in c]
    rest = [c for c in complaints if c not in closed]
    for _ in closed:
        lost = next((c for c in rest if "Connection errored out" in c), None)
        if lost is not None:
            rest.remove(lost)
    return rest
