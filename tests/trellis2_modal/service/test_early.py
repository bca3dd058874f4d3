"""The light mesh of a generation: there to be read while its turntable is still rendered."""

from __future__ import annotations

from pathlib import Path

from tests.trellis2_modal.server import picture, running, wait_for
from tests.trellis2_modal.service.test_api import problem


def test_it_comes_before_the_turntable(tmp_path: Path) -> None:
    filmed = tmp_path / "filmed"
    with running(tmp_path / "data", options={"light": str(filmed)}) as live, live.client() as client:
        sent = client.post("/jobs", files={"image": picture()}, data={"preview": "frames"})
        job = sent.headers["location"].rpartition("/")[2]

        def light() -> bytes | None:
            reply = client.get(f"/jobs/{job}/light")
            return reply.content if reply.status_code == 200 else None

        early = wait_for(light, "the light mesh")
        assert early[:4] == b"glTF"
        assert client.get(f"/jobs/{job}").json()["status"] == "running"
        problem(client.get(f"/jobs/{job}/video"), 409, "not-ready")
        problem(client.get(f"/jobs/{job}/state"), 409, "not-ready")
        with live.client(key="sk_" + "0" * 43) as stranger:
            problem(stranger.get(f"/jobs/{job}/light"), 401, "unauthenticated")
        filmed.touch()
        wait_for(lambda: client.get(f"/jobs/{job}").json()["status"] == "finished", "the end")
        assert client.get(f"/jobs/{job}/light").content == early
        assert client.get(f"/jobs/{job}/video").status_code == 200
        assert not list((tmp_path / "data").rglob("early")), "it is kept once"
