"""The app's work without a browser: nothing is lost, nothing is made twice, the next step is always named."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trellis2_modal.client.conftest import ended
from tests.trellis2_modal.client.service import (
    KEY,
    URL,
    Service,
    answers,
    asset,
    passes,
    photo,
    problem,
    state,
    until,
)
from trellis2_modal.client import history as history_module
from trellis2_modal.client.app import html
from trellis2_modal.client.app import task_queue as task_queue_module
from trellis2_modal.client.app.error_messages import explain
from trellis2_modal.client.app.task_queue import GB, LIGHT_SETTINGS, TaskQueue
from trellis2_modal.client.history import COVER, LIGHT, STATE, VIDEO, Entry
from trellis2_modal.client.settings import ClientSettings, load_settings
from trellis2_modal.protocol.errors import NotFoundError, UnauthenticatedError


def status(task_queue: TaskQueue, entry: Entry) -> str:
    found = task_queue.history.get(entry.id)
    assert found is not None
    return found.status


def hanging(open_task_queue: Callable[..., TaskQueue], service: Service) -> tuple[TaskQueue, Entry]:
    """A task queue with a generation that does not end until the service is told to."""
    service.plans.append("hang")
    task_queue = open_task_queue()
    return task_queue, task_queue.generate(photo(), "disc.png", {})


def test_a_picture_becomes_an_entry_with_everything(task_queue: TaskQueue, service: Service) -> None:
    entry = ended(task_queue, task_queue.generate(photo(), "disc.png", {"seed": 7}))
    assert (entry.status, entry.seed, entry.job, entry.url) == ("finished", 7, service.job(0).id, URL)
    kept = task_queue.history.file(entry.id, STATE)
    assert kept is not None
    assert kept.read_bytes() == state()
    for name in (VIDEO, COVER, LIGHT):
        assert task_queue.history.file(entry.id, name), name
    light = service.job()
    assert light.settings.items() >= LIGHT_SETTINGS.items()
    assert light.source == entry.job
    task_queue.extract(entry.id, {"simplify": "web"}, "Web")
    assert ended(task_queue, entry).exports[0].file == "disc-web.glb"
    assert len(service.calls("POST", "/jobs")) == 1, "the state stays on disk while the service has the job"


def test_it_goes_on_after_the_app_was_closed(
    open_task_queue: Callable[..., TaskQueue], service: Service
) -> None:
    task_queue, entry = hanging(open_task_queue, service)
    until(lambda: task_queue.tasks()[0].progress.stage, "the first step")
    again = open_task_queue()
    service.release()
    assert ended(again, entry).status == "finished"
    assert len(service.calls("POST", "/jobs")) == 1


def test_it_goes_on_after_a_crash_that_lost_the_jobs_name(
    open_task_queue: Callable[..., TaskQueue], service: Service
) -> None:
    """Killed between submitting and writing it down: the idempotency key brings the same job back."""
    task_queue, entry = hanging(open_task_queue, service)
    until(lambda: task_queue.tasks()[0].job, "the submission")
    task_queue.close()
    until(lambda: (found := task_queue.history.get(entry.id)) and found.job, "the note of it")
    task_queue.history.change(entry.id, job="", status="queued")
    again = open_task_queue()
    service.release()
    assert ended(again, entry).job == service.job(0).id
    first, second = service.calls("POST", "/jobs")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert len(service.jobs("generate")) == 1


def test_a_full_disk_loses_nothing(
    task_queue: TaskQueue, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = history_module.write_atomically

    def full(path: Path, data: bytes, mode: int = 0o644) -> Path:
        if path.name == STATE:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, data, mode)

    monkeypatch.setattr(history_module, "write_atomically", full)
    entry = ended(task_queue, task_queue.generate(photo(), "disc.png", {}))
    assert entry.status == "failed"
    assert entry.problem["title"] == "Your disk is full"
    assert "not made a second time" in entry.problem["detail"]
    monkeypatch.setattr(history_module, "write_atomically", real)
    task_queue.retry(entry.id)
    assert ended(task_queue, entry).status == "finished"
    assert len(service.calls("POST", "/jobs")) == 1


def test_no_room_for_the_light_mesh_loses_nothing_else(
    task_queue: TaskQueue, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    filmed = tmp_path / "filmed"
    filmed.touch()
    service.generator._light = filmed
    real, refused = history_module.write_atomically, threading.Event()

    def full(path: Path, data: bytes, mode: int = 0o644) -> Path:
        if path.name == LIGHT:
            refused.set()
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, data, mode)

    monkeypatch.setattr(history_module, "write_atomically", full)
    entry = ended(task_queue, task_queue.generate(photo(), "disc.png", {}))
    assert (entry.status, entry.problem) == ("finished", {})
    assert refused.is_set()
    assert task_queue.history.file(entry.id, STATE) is not None
    monkeypatch.undo()
    task_queue.make_light(entry.id)
    ended(task_queue, entry)
    assert task_queue.history.file(entry.id, LIGHT) is not None


def test_a_light_mesh_is_asked_for_only_where_one_is_made(task_queue: TaskQueue, service: Service) -> None:
    for preview, asked in (("video", False), ("frames", True)):
        entry = ended(task_queue, task_queue.generate(photo(), "disc.png", {"preview": preview}))
        assert bool(service.calls("GET", f"/jobs/{entry.job}/light")) == asked


def test_a_disk_full_from_the_start_is_told_at_once(
    task_queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes, mode: int = 0o644) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(history_module, "write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        task_queue.generate(photo(), "disc.png", {})
    assert not task_queue.tasks()
    assert not task_queue.history.entries()
    assert "waits on the service" not in explain(OSError(errno.ENOSPC, "x")).detail, "nothing was sent"


def test_the_limit_holds_and_spares_what_was_just_made(task_queue: TaskQueue) -> None:
    task_queue.change_settings(ClientSettings(URL, KEY, 1e3 / GB))
    first = ended(task_queue, task_queue.generate(photo(), "a.png", {}))
    second = ended(task_queue, task_queue.generate(photo(), "b.png", {}))
    until(lambda: task_queue.history.get(first.id) is None, "the removal of the first")
    assert [entry.id for entry in task_queue.history.entries()] == [second.id]


def test_a_running_job_is_cancelled_on_the_service_too(task_queue: TaskQueue, service: Service) -> None:
    service.plans.append("hang")
    entry = task_queue.generate(photo(), "disc.png", {})
    until(lambda: task_queue.tasks()[0].progress.stage, "the first step")
    task_queue.cancel(task_queue.tasks()[0].id)
    assert ended(task_queue, entry).status == "cancelled"
    assert service.job(0).status == "cancelled"
    task_queue.retry(entry.id)
    again = ended(task_queue, entry)
    assert again.status == "finished"
    assert again.job == service.job(1).id, "the old key would have given the cancelled job back"


def test_several_pictures_wait_and_one_that_waits_is_never_sent(
    task_queue: TaskQueue, service: Service
) -> None:
    service.plans.append("hang")
    first = task_queue.generate(photo(), "a.png", {})
    second, third = (task_queue.generate(photo(), name, {}) for name in ("b.png", "c.png"))
    until(lambda: task_queue.tasks()[0].progress.stage, "the first step")
    assert [task.entry.title for task in task_queue.tasks()] == ["a.png", "b.png", "c.png"]
    task_queue.cancel(task_queue.tasks()[1].id)
    assert status(task_queue, second) == "cancelled"
    service.release()
    assert ended(task_queue, third).status == "finished"
    assert status(task_queue, first) == "finished"
    assert len(service.calls("POST", "/jobs")) == 2


def test_cancelling_while_the_service_is_away_ends_the_wait(
    open_task_queue: Callable[..., TaskQueue], service: Service
) -> None:
    task_queue = open_task_queue(retry=task_queue_module.Retry(attempts=1000, base=5.0, cap=60.0))
    until(lambda: task_queue.service.ready, "the service")
    service.faults += answers(*[httpx.ConnectError("away")] * 1000)
    entry = task_queue.generate(photo(), "disc.png", {})
    until(lambda: "No answer" in task_queue.tasks()[0].status_text, "the wait")
    task_queue.cancel(task_queue.tasks()[0].id)
    assert ended(task_queue, entry).status == "cancelled"
    assert not service.jobs()


def test_a_short_outage_in_mid_job_is_only_told(task_queue: TaskQueue, service: Service) -> None:
    """A cable that is out, a server that is restarted: the job is the same before and after."""
    until(lambda: task_queue.service.ready, "the service")
    service.breaks.append(100)
    service.faults += [passes, passes, *answers(*[httpx.ConnectError("away")] * 30)]
    entry = ended(task_queue, task_queue.generate(photo(), "disc.png", {}))
    assert entry.status == "finished"
    assert len(service.calls("POST", "/jobs")) == 1


def test_a_service_that_forgot_the_job_makes_it_anew(
    open_task_queue: Callable[..., TaskQueue], service: Service
) -> None:
    task_queue, entry = hanging(open_task_queue, service)
    until(lambda: task_queue.tasks()[0].progress.stage, "the first step")
    task_queue.close()
    service.release()
    until(lambda: service.job().status == "finished", "its end")
    service.forget(service.job().id)
    again = open_task_queue()
    found = ended(again, entry)
    assert (found.status, found.job) == ("finished", service.job(0).id)


def test_an_export_sends_the_state_when_the_service_forgot_the_job(
    task_queue: TaskQueue, service: Service
) -> None:
    entry = ended(task_queue, task_queue.generate(photo(), "disc.png", {"seed": 7}))
    service.forget(entry.job)
    task_queue.extract(entry.id, {"decimation_target": 5000}, "Custom")
    assert ended(task_queue, entry).exports
    assert service.generator.payloads[-1] == state()


@pytest.mark.parametrize(
    ("slug", "title", "action"),
    [
        ("unauthenticated", "The service does not know this key", "settings"),
        ("forbidden", "This key may not do that", "settings"),
        ("quota-exceeded", "Today's GPU time is used up", "retry"),
        ("too-many-jobs", "Too many unfinished jobs", "retry"),
        ("invalid-image", "The picture cannot be used", "picture"),
    ],
)
def test_a_refusal_keeps_the_picture_and_names_the_next_step(
    task_queue: TaskQueue, service: Service, slug: str, title: str, action: str
) -> None:
    until(lambda: task_queue.service.ready, "the service")
    service.faults += answers(problem(slug))
    entry = ended(task_queue, task_queue.generate(photo(), "disc.png", {}))
    assert (entry.status, entry.problem["title"], entry.problem["action"]) == ("failed", title, action)
    assert task_queue.history.file(entry.id, "picture")
    task_queue.retry(entry.id)
    assert ended(task_queue, entry).status == "finished"


@pytest.mark.parametrize(
    ("slug", "title"),
    [
        ("empty-result", "No object was found in the picture"),
        ("worker-died", "The service had to stop this job"),
        ("job-timeout", "That took too long"),
        ("internal-error", "Something went wrong on the service"),
    ],
)
def test_a_job_that_failed_can_be_tried_again(
    task_queue: TaskQueue, service: Service, slug: str, title: str
) -> None:
    service.plans.append(slug)
    entry = ended(task_queue, task_queue.generate(photo(), "disc.png", {}))
    assert (entry.status, entry.problem["title"]) == ("failed", title)
    task_queue.retry(entry.id)
    assert ended(task_queue, entry).status == "finished"
    assert len(service.jobs("generate")) == 2


def test_out_of_memory_tries_the_smaller_setting_next(task_queue: TaskQueue, service: Service) -> None:
    until(lambda: task_queue.service.ready, "the service")
    service.faults += answers(problem("out-of-memory", suggested={"pipeline_type": "512"}))
    entry = ended(task_queue, task_queue.generate(photo(), "disc.png", {"pipeline_type": "1024"}))
    assert entry.status == "failed"
    task_queue.retry(entry.id)
    ended(task_queue, entry)
    assert service.jobs("generate")[-1].settings["pipeline_type"] == "512"


def test_a_failed_export_is_told_and_tried_again(task_queue: TaskQueue, service: Service) -> None:
    entry = ended(task_queue, task_queue.generate(photo(), "disc.png", {}))
    service.plans.append("out-of-memory")
    task_queue.extract(entry.id, {"texture_size": 4096}, "Custom")
    ended(task_queue, entry)
    assert "memory" in task_queue.export_problem(entry.id)["title"]
    assert status(task_queue, entry) == "finished", "the asset itself is not harmed"
    task_queue.retry_extract(entry.id)
    entry = ended(task_queue, entry)
    assert task_queue.export_problem(entry.id) == {}
    assert entry.exports[0].label == "Custom"
    with pytest.raises(NotFoundError):
        task_queue.extract("20260101-000000-00000000", {}, "Web")


def test_two_presses_of_retry_are_one_task(task_queue: TaskQueue, service: Service) -> None:
    service.plans.append("worker-died")
    entry = ended(task_queue, task_queue.generate(photo(), "disc.png", {}))
    service.plans.append("hang")
    presses = [threading.Thread(target=task_queue.retry, args=(entry.id,)) for _ in range(8)]
    for press in presses:
        press.start()
    for press in presses:
        press.join()
    assert len(task_queue.tasks()) == 1
    service.release()
    assert ended(task_queue, entry).status == "finished"
    assert len(service.jobs("generate")) == 2


def test_what_tabs_see_is_a_copy(task_queue: TaskQueue, service: Service) -> None:
    service.plans.append("hang")
    task_queue.generate(photo(), "disc.png", {})
    until(lambda: task_queue.tasks()[0].progress.stage, "the first step")
    seen = task_queue.tasks()[0]
    before = (seen.status_text, seen.progress.step, dict(seen.progress.seconds))
    service.release()
    until(lambda: not task_queue.tasks(), "the end of the work")
    assert (seen.status_text, seen.progress.step, seen.progress.seconds) == before


def test_settings_saved_in_many_tabs_are_one_of_them(task_queue: TaskQueue, data_home: Path) -> None:
    choices = [ClientSettings(f"http://service{n}.test", f"sk_{n}") for n in range(8)]
    tabs = [threading.Thread(target=task_queue.change_settings, args=(choice,)) for choice in choices]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert task_queue.settings in choices
    assert load_settings(data_home) == task_queue.settings
    assert task_queue.service.url == task_queue.target().url == task_queue.settings.url


def test_deleting_cancels_what_runs(task_queue: TaskQueue, service: Service) -> None:
    service.plans.append("hang")
    entry = task_queue.generate(photo(), "disc.png", {})
    until(lambda: task_queue.tasks()[0].progress.stage, "the first step")
    task_queue.delete(entry.id)
    until(lambda: not task_queue.tasks(), "the end of the work")
    assert task_queue.history.get(entry.id) is None
    until(lambda: service.job().status == "cancelled", "the cancellation")
    assert not (task_queue.history.root / entry.id).exists()


def test_what_is_saved_in_the_app_wins_over_the_environment(
    open_task_queue: Callable[..., TaskQueue], data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS2_URL", "https://env.test")
    task_queue = open_task_queue(None, None)
    assert (task_queue.target().url, task_queue.target().origin) == ("https://env.test", "TRELLIS2_URL")
    task_queue.change_settings(ClientSettings("https://mine.test", "sk_mine"))
    assert (task_queue.target().url, task_queue.target().key) == ("https://mine.test", "sk_mine")
    assert load_settings(data_home) == ClientSettings("https://mine.test", "sk_mine")


def test_the_connection_test_says_who_and_what(task_queue: TaskQueue, service: Service) -> None:
    words = task_queue.test_connection(URL, KEY)
    assert "fake" in words
    assert "anna" in words
    assert "512, 1024" in words
    for key in ("", "sk_wrong"):
        with pytest.raises(UnauthenticatedError):
            task_queue.test_connection(URL, key)


def test_the_header_hears_of_a_service_that_comes_up(
    open_task_queue: Callable[..., TaskQueue], service: Service
) -> None:
    service.faults += answers(*[httpx.ConnectError("down")] * 4)
    service.state_is("starting")
    task_queue = open_task_queue()
    until(lambda: task_queue.service.problem, "the bad news")
    assert "no connection to service.test" in task_queue.service.problem
    until(lambda: task_queue.service.health, "the service")
    service.state_is("ready")
    until(lambda: task_queue.service.ready, "the ready service")
    assert task_queue.pipeline_types() == ["512", "1024"]


class MemoryServer:
    """Stands for the server on this machine: an address, and whether its process lives."""

    starts = 0

    def __init__(self, *arguments: Any) -> None:
        self.running, self.url, self.key = False, "", KEY

    def ensure(self) -> str:
        if not self.running:
            MemoryServer.starts += 1
            self.running, self.url = True, f"http://127.0.0.1:{9000 + MemoryServer.starts}"
        return self.url

    def lives(self, url: str) -> bool:
        return self.running and self.url == url

    def stop(self) -> None:
        self.running = False


def test_a_local_server_that_dies_is_started_again(
    open_task_queue: Callable[..., TaskQueue], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs survive in its data folder, so the same job is followed on the new port."""
    monkeypatch.setattr(task_queue_module, "LocalServer", MemoryServer)
    monkeypatch.setattr(
        task_queue_module, "LOCAL_RETRY", task_queue_module.Retry(attempts=2, base=0, cap=0, offline=0)
    )
    task_queue = open_task_queue(None, None)
    until(lambda: task_queue.service.ready, "the local server")
    dies = threading.Event()

    def dead(request: httpx.Request) -> httpx.Response:
        dies.set()
        task_queue._server.running = False  # type: ignore[misc]
        raise httpx.ConnectError("dead")

    service.breaks.append(100)
    service.faults += [passes, passes, dead, *answers(httpx.ConnectError("dead"))]
    service.plans.append("hang")
    before, began = MemoryServer.starts, time.monotonic()
    made = task_queue.generate(photo(), "disc.png", {})
    until(
        lambda: task_queue.tasks()[0].note and task_queue.tasks()[0].progress.stage,
        "the job on its way again",
    )
    assert task_queue.tasks()[0].progress.began < began + 1.0, "its time goes on, too"
    shown = html.progress(task_queue, made)
    assert "The local engine restarted; your job goes on" in shown
    assert "network" not in shown
    service.release()
    entry = ended(task_queue, made)
    assert dies.is_set()
    assert entry.status == "finished"
    assert MemoryServer.starts > before
    assert entry.url == "", "this machine, on whatever port"
    assert len(service.calls("POST", "/jobs")) == 1


def test_the_light_mesh_gives_way_to_what_people_ask_for(task_queue: TaskQueue, service: Service) -> None:
    service.plans += ["finish", "hang"]
    first = task_queue.generate(photo(), "a.png", {})
    until(lambda: task_queue.tasks() and task_queue.tasks()[0].kind == "light", "the light mesh")
    until(lambda: service.jobs("extract"), "its job")
    second = task_queue.generate(photo(), "b.png", {})
    task_queue.extract(first.id, {"simplify": "web"}, "Web")
    assert [task.kind for task in task_queue.tasks()] == ["light", "generate", "extract"]
    service.release()
    ended(task_queue, second)
    light = task_queue.history.file(second.id, LIGHT)
    assert light is not None
    assert light.read_bytes() == asset(42)
