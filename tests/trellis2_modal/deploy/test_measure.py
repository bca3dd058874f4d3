"""The operator's measuring script, over a deployment that is played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from modal import exception as modal_errors

from tests.trellis2_modal.server import picture
from trellis2_modal.service.deploy import measure
from trellis2_modal.service.deploy.measure import MeasureError, cold_figures, wait_until_cold, warm_figures


class Played:
    """A deployment with a clock of its own: a start takes 20 s, a generation 50 s."""

    def __init__(self, containers: list[int | None], since_load: float = 3600.0) -> None:
        self.now = 0.0
        self.running = containers
        self.since_load = since_load
        self.loading = "snapshot"
        self.failing = False
        self.asked: list[dict[str, Any]] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def containers(self) -> int | None:
        return self.running.pop(0) if len(self.running) > 1 else self.running[0]

    def health(self) -> dict[str, Any]:
        self.now += 20.0
        stages = {"import": 3.0, "load": 12.0, "to_device": 5.0, "since_load": self.since_load}
        return {"cold_start": stages, "loading": self.loading, "image": "full"}

    def generate(self, picture: bytes, settings: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(settings)
        self.now += 50.0
        if self.failing:
            return {"status": "failed", "problem": {"detail": "1024 does not fit"}}
        return {"status": "finished", "seconds": 45.0, "files": {"state": {"data": bytes(2_000_000)}}}


def test_a_cold_start_by_stage() -> None:
    played = Played([0])
    figures = {f.name.strip(): f for f in cold_figures(played, played.clock)}
    assert figures["cold start"].seconds == 20.0
    assert "met" in figures["cold start"].line()
    assert figures["before our code"].seconds == 15.0
    assert "MISSED" in figures["before our code"].line()
    assert figures["load"].note == "in the snapshot"


def test_streamed_weights_belong_to_the_start() -> None:
    played = Played([0])
    played.loading = "stream"
    figures = {f.name.strip(): f for f in cold_figures(played, played.clock)}
    assert figures["before our code"].seconds == 3.0
    assert figures["load"].note == ""
    assert figures["import"].note == "in the snapshot"


def test_a_start_that_used_no_snapshot_is_said() -> None:
    played = Played([0], since_load=5.0)
    figures = {f.name.strip(): f for f in cold_figures(played, played.clock)}
    assert figures["before our code"].seconds == 0.0
    assert "no snapshot was used" in figures["before our code"].note


def test_warm_figures_leave_the_first_run_out() -> None:
    played = Played([0])
    figures = warm_figures(played, b"", "1024", 3, played.clock)
    assert [f.seconds for f in figures] == [50.0, 45.0]
    assert figures[0].target == 60.0
    assert [a["pipeline_type"] for a in played.asked] == ["1024"] * 4
    assert warm_figures(played, b"", "512", 1, played.clock)[0].target is None


def test_a_failed_generation_ends_the_measurement() -> None:
    played = Played([0])
    played.failing = True
    with pytest.raises(MeasureError, match="does not fit"):
        warm_figures(played, b"", "1024", 1, played.clock)


def test_waiting_for_the_containers_to_end() -> None:
    played = Played([2, 1, 0])
    assert wait_until_cold(played, 60.0, played.clock, played.sleep)
    assert played.now == 10.0
    busy = Played([1])
    with pytest.raises(MeasureError, match="--skip-cold"):
        wait_until_cold(busy, 60.0, busy.clock, busy.sleep)
    assert not wait_until_cold(Played([None]), 60.0, busy.clock, busy.sleep)


def test_the_command_prints_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(picture())
    monkeypatch.setattr(measure, "ModalDeployment", lambda settings: Played([0]))
    done = CliRunner().invoke(measure.command, [str(photo), "--runs", "1"])
    assert done.exit_code == 0, done.output
    assert "cold start" in done.output
    assert "warm 1024" in done.output


def test_a_wrong_setting_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(picture())
    monkeypatch.setenv("TRELLIS2_GPU", "T4")
    done = CliRunner().invoke(measure.command, [str(photo)])
    assert done.exit_code == 2
    assert "Error: TRELLIS2_GPU='T4': choose one of A100" in done.output


@pytest.mark.parametrize(
    ("failure", "advice"),
    [
        (modal_errors.NotFoundError("no app"), "modal deploy -m trellis2_modal.service.service"),
        (modal_errors.AuthError("no token"), "modal setup"),
    ],
)
def test_without_a_deployment_it_says_what_to_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failure: Exception, advice: str
) -> None:
    import modal

    class Absent:
        def __getattr__(self, name: str) -> Any:
            raise failure

    monkeypatch.setattr(modal.Cls, "from_name", lambda app, name: Absent)
    photo = tmp_path / "photo.png"
    photo.write_bytes(picture())
    done = CliRunner().invoke(measure.command, [str(photo)])
    assert done.exit_code == 1
    assert advice in done.output
