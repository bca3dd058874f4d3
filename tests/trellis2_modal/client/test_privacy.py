"""What the real app, open to other machines, tells to whom."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.trellis2_modal.attacks.histories import make_history
from tests.trellis2_modal.browser.app import AppProcess
from trellis2_modal.client.history import ENTRY, PICTURE, STATE, THUMBNAIL

PASSWORD = "correct horse"
PATHS = (
    *("/", "/gradio_api/info", "/kept/x/y", "/gradio_api/upload", "/received/x", "/history.zip"),
    *("/gradio_api/queue/data?session_hash=x", "/gradio_api/heartbeat/x", "/gradio_api/queue/join"),
)
"""The page, its files and its streams."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home") / "client"
    (entry,) = make_history(home / "history", 1, 0)
    (home / "history" / entry / "secret.glb").symlink_to("/etc/passwd")
    return home


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """The app as `app --share-on-network` serves it; there is no service."""
    app = AppProcess(home, "--share-on-network", "--url", "http://127.0.0.1:9", "--key", "sk_x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRELLIS2_APP_PASSWORD", PASSWORD)
        address = app.start()
    assert address.startswith("http://127.0.0.1:"), "the one that opens on this machine"
    yield address
    app.stop()
    assert "The password is that of TRELLIS2_APP_PASSWORD, with any user name" in app.lines
    assert [line for line in app.lines if line.startswith("On your phone open http")]
    assert not [line for line in app.lines if PASSWORD in line]


@pytest.fixture
def page(address: str) -> Iterator[httpx.Client]:
    """A browser on the app's own page."""
    origin = {"Origin": address, "Sec-Fetch-Site": "same-origin"}
    with httpx.Client(base_url=address, auth=("me", PASSWORD), headers=origin, timeout=30) as client:
        yield client


def test_beyond_this_machine_a_password_is_needed(address: str) -> None:
    for path in PATHS:
        assert httpx.get(address + path).status_code == 401
        assert httpx.get(address + path, auth=("me", "guess")).status_code == 401
    assert httpx.get(address, auth=("me", PASSWORD)).status_code == 200


def test_a_name_that_somebody_else_points_here_reaches_nothing(page: httpx.Client) -> None:
    for path in PATHS:
        assert page.get(path, headers={"Host": "evil.example"}).status_code == 403
    for header in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert page.post("/gradio_api/queue/join", headers=header, json={}).status_code == 403
        assert page.post("/received", headers=header, content=b"x").status_code == 403
        assert page.post("/cutout/x", headers=header, content=b"x").status_code == 403


def test_only_kept_files_are_served_and_no_state(page: httpx.Client, home: Path) -> None:
    entry = next((home / "history").iterdir())
    assert page.get(f"/kept/{entry.name}/{THUMBNAIL}").content == (entry / THUMBNAIL).read_bytes()
    for name in (STATE, ENTRY, "secret.glb", "..%2fsettings.json"):
        assert page.get(f"/kept/{entry.name}/{name}").status_code == 404
    for path in (entry / STATE, entry / ENTRY, entry / PICTURE, entry / "secret.glb", Path("/etc/passwd")):
        for route in ("/gradio_api/file=", "/gradio_api/file/", "/gradio_api/file//", "/file="):
            reply = page.get(f"{route}{path}")
            assert reply.status_code == 403, route
            assert b"state" not in reply.content


def test_other_sites_and_names_upload_and_read_nothing(page: httpx.Client, address: str) -> None:
    def upload(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return page.post("/gradio_api/upload", files={"files": b"x"}, headers=named).status_code

    assert upload() == 200
    port = int(address.rpartition(":")[2])
    for origin in ("http://evil.example", f"http://127.0.0.1:{port + 1}", f"http://localhost:{port}", "null"):
        assert upload(Origin=origin) == 403
    assert upload(Sec_Fetch_Site="cross-site") == 403
    for host in ("evil.example", f"evil.example:{port}"):
        assert upload(Host=host, Origin=f"http://{host}") == 403
        assert page.get("/", headers={"Host": host}).status_code == 403


@pytest.mark.skipif(sys.platform == "win32", reason="no POSIX modes")
def test_the_apps_folder_is_its_owners_alone(page: httpx.Client, home: Path) -> None:
    page.post("/gradio_api/upload", files={"files": b"x"})
    written = [path for path in home.rglob("*") if path.is_file() and "history" not in path.parts]
    assert written
    assert [path for path in (home, *written) if path.stat().st_mode & 0o077] == []
