"""The app's work without a browser: nothing is lost, nothing is made twice, the next step is always named."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trellis2_modal.client.conftest import QUICK
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
from trellis2_modal.client.app import task_queue as desk_module
from trellis2_modal.client.app.error_messages import explain
from trellis2_modal.client.app.task_queue import GB, LIGHT_SETTINGS, Desk
from trellis2_modal.client.history import COVER, LIGHT, STATE, VIDEO, Entry
from trellis2_modal.client.settings import ClientSettings, load_settings
from trellis2_modal.protocol.errors import NotFoundError, UnauthenticatedError


@pytest.fixture
def open_desk(data_home: Path, service: Service) -> Iterator[Callable[..., Desk]]:
    """Opens the app's desk on the same folder as often as it is asked to."""
    desks: list[Desk] = []

    def make(url: str | None = URL, key: str | None = KEY, **options: Any) -> Desk:
        for desk in desks:
            desk.close()
        client_options = {"transport": service.transport, "retry": QUICK} | options
        desks.append(Desk(data_home, url, key, client_options=client_options))
        return desks[-1]

    yield make
    service.release()
    for desk in desks:
        desk.close()


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk()


def ended(desk: Desk, entry: Entry) -> Entry:
    """The entry as soon as nothing is left to do."""
    until(lambda: not desk.tasks(), "the end of the work")
    found = desk.history.get(entry.id)
    assert found is not None
    return found


def status(desk: Desk, entry: Entry) -> str:
    found = desk.history.get(entry.id)
    assert found is not None
    return found.status


def test_a_picture_becomes_an_entry_with_everything(desk: Desk, service: Service) -> None:
    entry = ended(desk, desk.generate(photo(), "disc.png", {"seed": 7}))
    assert (entry.status, entry.seed, entry.job, entry.url) == ("finished", 7, service.job(0).id, URL)
    kept = desk.history.file(entry.id, STATE)
    assert kept is not None
    assert kept.read_bytes() == state()
    for name in (VIDEO, COVER, LIGHT):
        assert desk.history.file(entry.id, name), name
    light = service.job()
    assert light.settings.items() >= LIGHT_SETTINGS.items()
    assert light.source == entry.job
    desk.extract(entry.id, {"simplify": "web"}, "Web")
    assert ended(desk, entry).exports[0].file == "disc-web.glb"
    assert len(service.calls("POST", "/jobs")) == 1, "the state stays on disk while the service has the job"


def test_it_goes_on_after_the_app_was_closed(open_desk: Callable[..., Desk], service: Service) -> None:
    service.plans.append("hang")
    desk = open_desk()
    entry = desk.generate(photo(), "disc.png", {})
    until(lambda: desk.tasks()[0].tracker.stage, "the first step")
    again = open_desk()
    service.release()
    assert ended(again, entry).status == "finished"
    assert len(service.calls("POST", "/jobs")) == 1


def test_it_goes_on_after_a_crash_that_lost_the_jobs_name(
    open_desk: Callable[..., Desk], service: Service
) -> None:
    """Killed between submitting and writing it down: the idempotency key brings the same job back."""
    service.plans.append("hang")
    desk = open_desk()
    entry = desk.generate(photo(), "disc.png", {})
    until(lambda: desk.tasks()[0].job, "the submission")
    desk.close()
    until(lambda: (found := desk.history.get(entry.id)) and found.job, "the note of it")
    desk.history.change(entry.id, job="", status="queued")
    again = open_desk()
    service.release()
    assert ended(again, entry).job == service.job(0).id
    first, second = service.calls("POST", "/jobs")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert len(service.jobs("generate")) == 1


def test_a_full_disk_loses_nothing(desk: Desk, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    real = history_module.write_atomically

    def full(path: Path, data: bytes, mode: int = 0o644) -> Path:
        if path.name == STATE:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, data, mode)

    monkeypatch.setattr(history_module, "write_atomically", full)
    entry = ended(desk, desk.generate(photo(), "disc.png", {}))
    assert entry.status == "failed"
    assert entry.problem["title"] == "Your disk is full"
    assert "not made a second time" in entry.problem["detail"]
    monkeypatch.setattr(history_module, "write_atomically", real)
    desk.retry(entry.id)
    assert ended(desk, entry).status == "finished"
    assert len(service.calls("POST", "/jobs")) == 1


def test_a_disk_full_from_the_start_is_told_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes, mode: int = 0o644) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(history_module, "write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        desk.generate(photo(), "disc.png", {})
    assert not desk.tasks()
    assert not desk.history.entries()
    assert "waits on the service" not in explain(OSError(errno.ENOSPC, "x")).detail, "nothing was sent"


def test_the_limit_holds_and_spares_what_was_just_made(desk: Desk) -> None:
    desk.change_settings(ClientSettings(URL, KEY, 1e3 / GB))
    first = ended(desk, desk.generate(photo(), "a.png", {}))
    second = ended(desk, desk.generate(photo(), "b.png", {}))
    until(lambda: desk.history.get(first.id) is None, "the removal of the first")
    assert [entry.id for entry in desk.history.entries()] == [second.id]


def test_a_running_job_is_cancelled_on_the_service_too(desk: Desk, service: Service) -> None:
    service.plans.append("hang")
    entry = desk.generate(photo(), "disc.png", {})
    until(lambda: desk.tasks()[0].tracker.stage, "the first step")
    desk.cancel(desk.tasks()[0].id)
    assert ended(desk, entry).status == "cancelled"
    assert service.job(0).status == "cancelled"
    desk.retry(entry.id)
    again = ended(desk, entry)
    assert again.status == "finished"
    assert again.job == service.job(1).id, "the old key would have given the cancelled job back"


def test_several_pictures_wait_and_one_that_waits_is_never_sent(desk: Desk, service: Service) -> None:
    service.plans.append("hang")
    first = desk.generate(photo(), "a.png", {})
    second, third = (desk.generate(photo(), name, {}) for name in ("b.png", "c.png"))
    until(lambda: desk.tasks()[0].tracker.stage, "the first step")
    assert [task.entry.title for task in desk.tasks()] == ["a.png", "b.png", "c.png"]
    desk.cancel(desk.tasks()[1].id)
    assert status(desk, second) == "cancelled"
    service.release()
    assert ended(desk, third).status == "finished"
    assert status(desk, first) == "finished"
    assert len(service.calls("POST", "/jobs")) == 2


def test_cancelling_while_the_service_is_away_ends_the_wait(
    open_desk: Callable[..., Desk], service: Service
) -> None:
    desk = open_desk(retry=desk_module.Retry(attempts=1000, base=5.0, cap=60.0))
    until(lambda: desk.service.ready, "the service")
    service.faults += answers(*[httpx.ConnectError("away")] * 1000)
    entry = desk.generate(photo(), "disc.png", {})
    until(lambda: "No answer" in desk.tasks()[0].told, "the wait")
    desk.cancel(desk.tasks()[0].id)
    assert ended(desk, entry).status == "cancelled"
    assert not service.jobs()


def test_a_short_outage_in_mid_job_is_only_told(desk: Desk, service: Service) -> None:
    """A cable that is out, a server that is restarted: the job is the same before and after."""
    until(lambda: desk.service.ready, "the service")
    service.breaks.append(100)
    service.faults += [passes, passes, *answers(*[httpx.ConnectError("away")] * 30)]
    entry = ended(desk, desk.generate(photo(), "disc.png", {}))
    assert entry.status == "finished"
    assert len(service.calls("POST", "/jobs")) == 1


def test_a_service_that_forgot_the_job_makes_it_anew(
    open_desk: Callable[..., Desk], service: Service
) -> None:
    service.plans.append("hang")
    desk = open_desk()
    entry = desk.generate(photo(), "disc.png", {})
    until(lambda: desk.tasks()[0].tracker.stage, "the first step")
    desk.close()
    service.release()
    until(lambda: service.job().status == "finished", "its end")
    service.forget(service.job().id)
    again = open_desk()
    found = ended(again, entry)
    assert (found.status, found.job) == ("finished", service.job(0).id)


def test_an_export_sends_the_state_when_the_service_forgot_the_job(desk: Desk, service: Service) -> None:
    entry = ended(desk, desk.generate(photo(), "disc.png", {"seed": 7}))
    service.forget(entry.job)
    desk.extract(entry.id, {"decimation_target": 5000}, "Custom")
    assert ended(desk, entry).exports
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
    desk: Desk, service: Service, slug: str, title: str, action: str
) -> None:
    until(lambda: desk.service.ready, "the service")
    service.faults += answers(problem(slug))
    entry = ended(desk, desk.generate(photo(), "disc.png", {}))
    assert (entry.status, entry.problem["title"], entry.problem["action"]) == ("failed", title, action)
    assert desk.history.file(entry.id, "picture")
    desk.retry(entry.id)
    assert ended(desk, entry).status == "finished"


@pytest.mark.parametrize(
    ("slug", "title"),
    [
        ("empty-result", "No object was found in the picture"),
        ("worker-died", "The service had to stop this job"),
        ("job-timeout", "That took too long"),
        ("internal-error", "Something went wrong on the service"),
    ],
)
def test_a_job_that_failed_can_be_tried_again(desk: Desk, service: Service, slug: str, title: str) -> None:
    service.plans.append(slug)
    entry = ended(desk, desk.generate(photo(), "disc.png", {}))
    assert (entry.status, entry.problem["title"]) == ("failed", title)
    desk.retry(entry.id)
    assert ended(desk, entry).status == "finished"
    assert len(service.jobs("generate")) == 2


def test_out_of_memory_tries_the_smaller_setting_next(desk: Desk, service: Service) -> None:
    until(lambda: desk.service.ready, "the service")
    service.faults += answers(problem("out-of-memory", suggested={"pipeline_type": "512"}))
    entry = ended(desk, desk.generate(photo(), "disc.png", {"pipeline_type": "1024"}))
    assert entry.status == "failed"
    desk.retry(entry.id)
    ended(desk, entry)
    assert service.jobs("generate")[-1].settings["pipeline_type"] == "512"


def test_a_failed_export_is_told_and_tried_again(desk: Desk, service: Service) -> None:
    entry = ended(desk, desk.generate(photo(), "disc.png", {}))
    service.plans.append("out-of-memory")
    desk.extract(entry.id, {"texture_size": 4096}, "Custom")
    ended(desk, entry)
    assert "memory" in desk.export_problem(entry.id)["title"]
    assert status(desk, entry) == "finished", "the asset itself is not harmed"
    desk.retry_extract(entry.id)
    entry = ended(desk, entry)
    assert desk.export_problem(entry.id) == {}
    assert entry.exports[0].label == "Custom"
    with pytest.raises(NotFoundError):
        desk.extract("20260101-000000-00000000", {}, "Web")


def test_two_presses_of_retry_are_one_task(desk: Desk, service: Service) -> None:
    service.plans.append("worker-died")
    entry = ended(desk, desk.generate(photo(), "disc.png", {}))
    service.plans.append("hang")
    presses = [threading.Thread(target=desk.retry, args=(entry.id,)) for _ in range(8)]
    for press in presses:
        press.start()
    for press in presses:
        press.join()
    assert len(desk.tasks()) == 1
    service.release()
    assert ended(desk, entry).status == "finished"
    assert len(service.jobs("generate")) == 2


def test_what_tabs_see_is_a_copy(desk: Desk, service: Service) -> None:
    service.plans.append("hang")
    desk.generate(photo(), "disc.png", {})
    until(lambda: desk.tasks()[0].tracker.stage, "the first step")
    seen = desk.tasks()[0]
    before = (seen.told, seen.tracker.step, dict(seen.tracker.seconds))
    service.release()
    until(lambda: not desk.tasks(), "the end of the work")
    assert (seen.told, seen.tracker.step, seen.tracker.seconds) == before


def test_settings_saved_in_many_tabs_are_one_of_them(desk: Desk, data_home: Path) -> None:
    choices = [ClientSettings(f"http://service{n}.test", f"sk_{n}") for n in range(8)]
    tabs = [threading.Thread(target=desk.change_settings, args=(choice,)) for choice in choices]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert desk.settings in choices
    assert load_settings(data_home) == desk.settings
    assert desk.service.url == desk.target().url == desk.settings.url


def test_deleting_cancels_what_runs(desk: Desk, service: Service) -> None:
    service.plans.append("hang")
    entry = desk.generate(photo(), "disc.png", {})
    until(lambda: desk.tasks()[0].tracker.stage, "the first step")
    desk.delete(entry.id)
    until(lambda: not desk.tasks(), "the end of the work")
    assert desk.history.get(entry.id) is None
    until(lambda: service.job().status == "cancelled", "the cancellation")
    assert not (desk.history.root / entry.id).exists()


def test_what_is_saved_in_the_app_wins_over_the_environment(
    open_desk: Callable[..., Desk], data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS2_URL", "https://env.test")
    desk = open_desk(None, None)
    assert (desk.target().url, desk.target().origin) == ("https://env.test", "TRELLIS2_URL")
    desk.change_settings(ClientSettings("https://mine.test", "sk_mine"))
    assert (desk.target().url, desk.target().key) == ("https://mine.test", "sk_mine")
    assert load_settings(data_home) == ClientSettings("https://mine.test", "sk_mine")


def test_the_connection_test_says_who_and_what(desk: Desk, service: Service) -> None:
    words = desk.test_connection(URL, KEY)
    assert "fake" in words
    assert "anna" in words
    assert "512, 1024" in words
    for key in ("", "sk_wrong"):
        with pytest.raises(UnauthenticatedError):
            desk.test_connection(URL, key)


def test_the_header_hears_of_a_service_that_comes_up(
    open_desk: Callable[..., Desk], service: Service
) -> None:
    service.faults += answers(*[httpx.ConnectError("down")] * 4)
    service.state_is("starting")
    desk = open_desk()
    until(lambda: desk.service.problem, "the bad news")
    assert "no connection to service.test" in desk.service.problem
    until(lambda: desk.service.health, "the service")
    service.state_is("ready")
    until(lambda: desk.service.ready, "the ready service")
    assert desk.pipeline_types() == ["512", "1024"]


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
    open_desk: Callable[..., Desk], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs survive in its data folder, so the same job is followed on the new port."""
    monkeypatch.setattr(desk_module, "LocalServer", MemoryServer)
    monkeypatch.setattr(desk_module, "LOCAL_RETRY", desk_module.Retry(attempts=2, base=0, cap=0, offline=0))
    desk = open_desk(None, None)
    until(lambda: desk.service.ready, "the local server")
    dies = threading.Event()

    def dead(request: httpx.Request) -> httpx.Response:
        dies.set()
        desk._server.running = False  # type: ignore[misc]
        raise httpx.ConnectError("dead")

    service.breaks.append(100)
    service.faults += [passes, passes, dead, *answers(httpx.ConnectError("dead"))]
    before = MemoryServer.starts
    entry = ended(desk, desk.generate(photo(), "disc.png", {}))
    assert dies.is_set()
    assert entry.status == "finished"
    assert MemoryServer.starts > before
    assert entry.url == "", "this machine, on whatever port"
    assert len(service.calls("POST", "/jobs")) == 1


def test_the_light_mesh_gives_way_to_what_people_ask_for(desk: Desk, service: Service) -> None:
    service.plans += ["finish", "hang"]
    first = desk.generate(photo(), "a.png", {})
    until(lambda: desk.tasks() and desk.tasks()[0].kind == "light", "the light mesh")
    until(lambda: service.jobs("extract"), "its job")
    second = desk.generate(photo(), "b.png", {})
    desk.extract(first.id, {"simplify": "web"}, "Web")
    assert [task.kind for task in desk.tasks()] == ["light", "generate", "extract"]
    service.release()
    ended(desk, second)
    light = desk.history.file(second.id, LIGHT)
    assert light is not None
    assert light.read_bytes() == asset(42)
