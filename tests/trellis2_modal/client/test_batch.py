"""A batch makes every file once, whatever happens to it on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.trellis2_modal.client.service import KEY, URL, Service, asset, listening, problem
from tests.trellis2_modal.server import picture, running, wait_for
from trellis2_modal.cli import main
from trellis2_modal.cli.exits import Exit
from trellis2_modal.client.api import Client
from trellis2_modal.client.batch import JOURNAL, Batch, Outcome, read_items
from trellis2_modal.protocol.errors import InvalidRequestError


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"picture {number:03}.png").write_bytes(picture(seed=number, size=64 + number))
    return folder


@pytest.fixture
def batch(service: Service, tmp_path: Path) -> Iterator[Callable[..., Counter[str]]]:
    """Runs a batch of a folder or a CSV; how many items ended how."""
    with Client(URL, KEY, transport=service.transport, sleep=lambda s: None) as client:

        def run(source: Path, at_once: int = 3, **options: Any) -> Counter[str]:
            items = read_items(source, {"seed": 7}, {"simplify": "web"})
            found = Batch(client, items, tmp_path / "out", sleep=lambda s: None, **options).run(at_once)
            return Counter(outcome.state for outcome in found)

        yield run


def test_a_folder_becomes_files_once(batch: Any, service: Service, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 5)
    (folder / "notes.txt").write_text("no picture")
    assert batch(folder) == {"made": 5}
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == [JOURNAL, *(f"picture {number:03}.glb" for number in range(5))]
    assert (tmp_path / "out" / "picture 002.glb").read_bytes() == asset()
    assert (len(service.jobs("generate")), len(service.jobs("extract"))) == (5, 5)
    assert {job.settings["preview"] for job in service.jobs("generate")} == {"none"}
    assert batch(folder) == {"there": 5}
    assert len(service.jobs()) == 10


def test_what_is_missing_or_changed_is_made(batch: Any, service: Service, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 4)
    batch(folder)
    (tmp_path / "out" / "picture 000.glb").unlink()
    (folder / "picture 001.png").write_bytes(picture(seed=99))
    (folder / "picture 004.png").write_bytes(picture(seed=98))
    assert batch(folder) == {"there": 2, "made": 3}
    assert len(service.jobs("generate")) == 6, "a lost file comes from the job that made it"


def test_a_failure_is_one_line_and_the_next_run_tries_again(
    batch: Any, service: Service, tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "in", 3)
    (folder / "broken.png").write_bytes(b"not a picture")
    service.plans.append("out-of-memory")
    told: list[Outcome] = []
    assert batch(folder, told=told.append) == {"made": 2, "failed": 2}
    problems = {outcome.name: outcome.problem for outcome in told if outcome.state == "failed"}
    assert len(problems) == 2
    assert "broken" in problems["broken"]
    assert batch(folder) == {"there": 2, "made": 1, "failed": 1}


def test_a_job_that_the_service_forgot_is_made_again(batch: Any, service: Service, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 1)
    batch(folder)
    (tmp_path / "out" / "picture 000.glb").unlink()
    for job in service.jobs():
        service.forget(job.id)
    assert batch(folder) == {"made": 1}


def test_it_waits_for_room_and_stops_where_it_is_hopeless(
    batch: Any, service: Service, tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "in", 3)
    busy = [problem("too-many-jobs"), problem("too-many-jobs")]
    service.faults.extend([lambda request, reply=reply: reply for reply in busy])  # type: ignore[misc]
    assert batch(folder, at_once=1) == {"made": 3}
    (tmp_path / "in" / "picture 000.png").write_bytes(picture(seed=50))
    (tmp_path / "in" / "picture 001.png").write_bytes(picture(seed=51))
    service.faults.append(lambda request: problem("quota-exceeded"))
    assert batch(folder, at_once=1) == {"failed": 1, "unbegun": 2}
    assert batch(folder, at_once=1) == {"made": 2, "there": 1}


def test_a_broken_journal_line_costs_no_job(batch: Any, service: Service, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 2)
    batch(folder)
    with (tmp_path / "out" / JOURNAL).open("a") as file:
        file.write('{"name": "picture 0')
    assert batch(folder) == {"there": 2}
    (tmp_path / "out" / JOURNAL).unlink()
    assert batch(folder) == {"made": 2}
    assert len(service.jobs()) == 4


def test_a_table_of_pictures_has_settings_of_their_own(batch: Any, service: Service, tmp_path: Path) -> None:
    pictures(tmp_path / "in", 2)
    rows = "picture,name,seed,format\nin/picture 000.png,chair,3,stl\nin/picture 001.png,,,\n"
    (tmp_path / "list.csv").write_text(rows)
    assert batch(tmp_path / "list.csv") == {"made": 2}
    assert sorted(path.name for path in (tmp_path / "out").iterdir())[1:] == ["chair.stl", "picture 001.glb"]
    assert sorted(job.settings["seed"] for job in service.jobs("generate")) == [3, 7]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("picture,sed\na.png,1\n", "line 2: sed is not a known column"),
        ("picture,seed\na.png,soon\n", "line 2: seed"),
        ("name\nchair\n", "picture is missing"),
        ("picture,name\na.png,../../etc/passwd\n", "must not contain a folder"),
        ("picture,name\na.png,x\nb.png,x\n", "several pictures would become x.glb"),
        ("picture\n", "has no pictures"),
    ],
)
def test_a_bad_table_is_refused_in_words(tmp_path: Path, rows: str, said: str) -> None:
    (tmp_path / "list.csv").write_text(rows)
    with pytest.raises(InvalidRequestError, match=said):
        read_items(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00picture")
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        read_items(tmp_path / "list.csv")


def test_the_command_prints_one_table(service: Service, data_home: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 3)

    def run(*more: str) -> Result:
        there = ["--url", url, "--key", KEY, "--out", str(tmp_path / "out"), "--simplify", "web"]
        return CliRunner().invoke(main, ["batch", str(folder), *there, *more])

    with listening(service) as url:
        service.plans.append("out-of-memory")
        first = run("-n", "1")
        assert first.exit_code == Exit.FAILED
        assert f"3 pictures in {tmp_path / 'out'}: 2 made, 1 FAILED" in first.stdout
        again = run("--json")
        assert again.exit_code == 0, again.output
        rows = json.loads(again.stdout)["pictures"]
        assert Counter(row["state"] for row in rows) == {"made": 1, "there": 2}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [200])
def test_killed_three_times_it_makes_all_once(tmp_path: Path, data_home: Path, count: int) -> None:
    """A real server, and the command killed as `kill -9` does, wherever it is."""
    folder, out, journal = pictures(tmp_path / "in", count), tmp_path / "out", tmp_path / "journal"
    options = {"step_seconds": 0.0, "steps": 1, "journal": str(journal)}
    with running(tmp_path / "data", options=options, max_active_jobs=6) as live:
        command = [
            *(sys.executable, "-m", "trellis2_modal", "batch", str(folder), "--out", str(out), "-n", "8"),
            *("--simplify", "web", "--url", live.url, "--key", live.key),
        ]
        env = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))

        def files() -> int:
            return len(list(out.glob("*.glb")))

        for kill in (1, 2, 3):
            goal = count * kill // 4
            with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
                wait_for(lambda goal=goal: files() >= goal, f"{goal} files", 300)  # type: ignore[misc]
                process.kill()
            assert files() < count
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-2000:]
        assert f"{count} pictures" in done.stdout
        with live.client() as client:
            kinds: Counter[str] = Counter()
            before: str | None = ""
            while before is not None:
                page = client.get("/jobs", params={"limit": 100} | ({"before": before} if before else {}))
                kinds.update((job["kind"], job["status"]) for job in page.json()["jobs"])  # type: ignore[arg-type]
                before = page.json()["next"]
    assert files() == count
    assert kinds == {("generate", "finished"): count, ("extract", "finished"): count}
    ran = Counter(line.split()[0] for line in journal.read_text().splitlines())
    assert ran == {"generate": count, "extract": count}, "none ran twice"
