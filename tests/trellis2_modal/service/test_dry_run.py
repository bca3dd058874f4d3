"""Keys with the scope dry-run: checked like others, counted and run like none."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from o_voxel.check import check_file
from PIL import Image

from tests.trellis2_modal.server import Running, picture, running
from trellis2_modal.client.api import Client
from trellis2_modal.client.compression import load_state
from trellis2_modal.client.results import EXTENSIONS, first_still
from trellis2_modal.protocol.errors import InvalidImageError, InvalidRequestError, NotFoundError
from trellis2_modal.protocol.replies import ASSET_MEDIA_TYPES
from trellis2_modal.service.auth import ApiKey
from trellis2_modal.service.dry_run import canned


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data = tmp_path_factory.mktemp("data")
    with running(data, options={"journal": str(data / "journal")}) as found:
        yield found


@pytest.fixture
def client(live: Running) -> Iterator[Client]:
    key = live.new_key("tests", scopes=("dry-run",), requests_per_minute=2, gpu_seconds_per_day=0)
    with Client(live.url, key) as client:
        yield client


def test_the_whole_way_runs_nothing_and_counts_nothing(live: Running, client: Client) -> None:
    events: list[str] = []
    for seed in range(4):  # more than the key may submit a minute
        made = client.generate(
            picture(), seed=seed, preview="frames", on_event=lambda e: events.append(e.type)
        )
    assert made.seed == 3
    assert load_state(made.state).faces.shape[1] == 3
    assert made.video == canned("video")
    still = first_still(made, "normal")
    assert still is not None
    assert Image.open(io.BytesIO(still)).size == (96, 96)
    assert [notice.code for notice in made.warnings] == ["dry_run"]
    assert list(dict.fromkeys(events)) == ["queued", "started", "progress", "result"]
    found = client.extract_glb(made, simplify="web")
    assert found.data == canned("glb")
    assert found.settings["decimation_target"] == 50_000
    assert found.report["faces"] > 0
    usage = client.usage()
    assert (usage.gpu_seconds_used, usage.active_jobs, usage.scopes) == (0, 0, ["dry-run"])
    assert len(client.jobs()) == 5
    assert not (live.data_dir / "journal").exists(), "the model ran"
    assert httpx.get(live.url + "/health").json()["queued"] == 0
    with live.client() as other:
        assert other.get("/jobs").json()["jobs"] == [], "jobs of other keys"
        assert other.get(f"/jobs/{made.job}").status_code == 404


@pytest.mark.parametrize("kind", ASSET_MEDIA_TYPES)
def test_every_format_is_a_real_file(client: Client, tmp_path: Path, kind: Any) -> None:
    made = client.generate(picture(), preview="none")
    assert made.video is None
    path = client.extract_glb(made, format=kind).save(tmp_path / f"asset{EXTENSIONS[kind]}")
    assert path.stat().st_size < 110_000
    if kind == "glb":
        assert path.stat().st_size < 100_000
        assert check_file(path).faults == []


def test_requests_are_checked_as_always(live: Running, client: Client) -> None:
    with pytest.raises(InvalidImageError):
        client.generate(b"not a picture")
    with pytest.raises(InvalidRequestError, match="1536_cascade is not offered"):
        client.generate(picture(), pipeline_type="1536_cascade")
    with pytest.raises(NotFoundError):
        client.extract_glb(job="job_" + "0" * 32)
    with live.client() as other:
        files = {"image": ("cat.png", picture(), "image/png")}
        job = other.post("/jobs", files=files).json()["id"]
    with pytest.raises(NotFoundError):
        client.extract_glb(job=job)


def test_synchronous_calls_answer_with_it_too(live: Running, client: Client) -> None:
    made = client.generate(picture(), preview="none")
    key = live.new_key("tests", scopes=("dry-run",))
    with live.client(key) as http:
        job = http.post("/jobs", files={"image": ("cat.png", picture(), "image/png")}).json()["id"]
        answer = http.post("/extract_glb", json={"job": job}, headers={"Accept": "model/gltf-binary"})
    assert answer.content == canned("glb")
    assert made.job != job


def draw_for_money(prompt: str, seed: int) -> bytes:
    raise AssertionError("a rehearsal asked the image generator")


def test_a_prompt_asks_no_image_generator(tmp_path: Path) -> None:
    name = f"{__name__}:draw_for_money"
    with running(tmp_path, text_to_image=name) as live:
        key = live.new_key("tests", scopes=("dry-run",))
        with live.client(key) as http:
            answer = http.post("/jobs", json={"kind": "generate", "prompt": "a chair"})
            assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("other", ["generate", "extract"])
def test_dry_run_stands_alone(live: Running, other: str) -> None:
    with pytest.raises(ValueError, match="leave them out"):
        live.admin.create("both", ("dry-run", other))
    assert ApiKey("key_1", "anna", "0" * 64).scopes == ("generate", "extract"), "no key has it by itself"
