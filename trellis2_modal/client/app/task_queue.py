"""What the app works at, apart from any browser: a queue of tasks, the service they run on, the history.

Every tab looks at the same desk, so a reload, a second tab or a closed one changes nothing. One thread works
through the queue; the tabs only ask what there is to see.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ...protocol.errors import (
    ExpiredError,
    JobCancelledError,
    NotFoundError,
    ServiceError,
    UnauthenticatedError,
)
from ...protocol.events import is_result
from ...protocol.replies import FINAL_STATES, Health
from ...protocol.requests import PIPELINE_TYPES
from ..api import Client, Job
from ..errors import NoAnswerError
from ..history import STATE, Entry, Export, History
from ..local import LocalServer
from ..options import ProxyToken, Retry, Waiting
from ..pictures import read_picture
from ..results import ExtractResult, GenerateResult
from ..settings import ClientSettings, Target, choose_target, home, load_settings, save_settings
from ..stages import Tracker
from ..stats import AssetStats
from .error_messages import explain, suggested_settings

logger = logging.getLogger(__name__)

GB = 1_000_000_000
LIGHT_SETTINGS = {
    "decimation_target": 10_000,
    "texture_size": 512,
    "texture_format": "jpeg",
}
"""The mesh that the viewer turns right after a generation."""

WATCH_WHILE_STARTING, WATCH_LOCAL = 2.0, 15.0
LOCAL_RESTARTS = 2
LOCAL_RETRY = Retry(offline=3.0)
"""A server on this machine that is silent is dead: it is started again instead of waited for."""


WORK_RETRY = Retry(attempts=9)
"""Half a minute without a network ends no work: sending and fetching are tried for that long too."""

LOST = "The connection is lost; the job goes on. Reconnecting"
TRIAL_RETRY = Retry(attempts=2, startup=0.0)
"""For the connection test, where a person waits for the answer."""


class Stopped(Exception):  # noqa: N818  (a wish, not a fault)
    """The person cancelled while the client waited."""


TaskKind = Literal["generate", "extract", "light"]


@dataclass
class Task:
    """A piece of work for one entry. `told` is what the client last said about waiting."""

    kind: TaskKind
    entry: Entry
    settings: dict[str, Any]
    label: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)
    tracker: Tracker = field(default_factory=Tracker)
    told: str = ""
    job: Job | None = None

    @property
    def id(self) -> str:
        return f"{self.entry.id}.{self.kind}.{id(self):x}"


@dataclass(frozen=True)
class ServiceState:
    """The service as the header shows it: where, and what it last said (None: not heard yet)."""

    local: bool
    url: str
    health: Health | None = None
    problem: str = ""

    @property
    def ready(self) -> bool:
        return self.health is not None and self.health.status == "ok"


class Desk:
    """See the module. `close` ends the server that it started."""

    def __init__(
        self,
        root: Path | None = None,
        url: str | None = None,
        key: str | None = None,
        weights: str | None = None,
        device: str | None = None,
        client_options: Mapping[str, Any] | None = None,
        proxy_token: ProxyToken | None = None,
    ) -> None:
        self.root = root or home()
        self.settings = load_settings(self.root)
        self.history = History(self.root / "history")
        self._override = (url, key, proxy_token)
        self._env: Mapping[str, str] | None = None
        self._client_options = dict(client_options or {})
        self._server = LocalServer(self.root / "server", weights, device)
        self._changed = threading.Condition()
        self._tasks: list[Task] = []
        self._failed_export: dict[str, tuple[Task, dict[str, str]]] = {}
        self._closing = threading.Event()
        self._poke = threading.Event()
        self.service = self._first_state()
        self._resume()
        self._threads = [
            threading.Thread(target=self._work, name="desk", daemon=True),
            threading.Thread(target=self._watch, name="service watch", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _first_state(self) -> ServiceState:
        target = self.target()
        return ServiceState(not target.url, target.url)

    def target(self) -> Target:
        """The service that the next task uses; what a person saves in the app wins over the environment."""
        url, key, token = self._override
        return choose_target(url, key, self._env, self.root, token)

    def _resume(self) -> None:
        """What a closed or crashed app left unfinished goes on: the same job, never a second one."""
        for entry in reversed(self.history.entries()):
            if not entry.over:
                self._tasks.append(Task("generate", entry, dict(entry.settings)))

    def close(self) -> None:
        """Stop working; jobs on a service go on and are taken up again at the next start."""
        self._closing.set()
        self._poke.set()
        with self._changed:
            self._changed.notify_all()
        self._server.stop()

    # --- what tabs ask -----------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        """The running task first, then those that wait."""
        with self._changed:
            return list(self._tasks)

    def export_problem(self, entry_id: str) -> dict[str, str]:
        """Why the last extraction of an entry failed, empty when it did not."""
        found = self._failed_export.get(entry_id)
        return found[1] if found else {}

    def pipeline_types(self) -> list[str]:
        health = self.service.health
        return list(health.pipeline_types) if health and health.pipeline_types else list(PIPELINE_TYPES)

    def samplers(self) -> dict[str, float] | None:
        """The loaded weights' own sampler settings; None while no weights are loaded."""
        health = self.service.health
        return dict(health.samplers) if health and health.status == "ok" else None

    # --- what people do ----------------------------------------------------------------------------------

    def generate(self, picture: bytes | Path, title: str, settings: Mapping[str, Any]) -> Entry:
        """Keep a picture and queue its generation. Raises `ServiceError` or OSError."""
        data = read_picture(picture)
        entry = self.history.add(data, title, dict(settings) | {"preview": "frames"})
        self._append(Task("generate", entry, dict(entry.settings)))
        return entry

    def extract(self, entry_id: str, settings: Mapping[str, Any], label: str) -> None:
        """Queue an extraction from a kept state."""
        entry = self.history.get(entry_id)
        if entry is None or self.history.file(entry_id, STATE) is None:
            raise NotFoundError("this asset has no state yet; generate it first")
        self._failed_export.pop(entry_id, None)
        self._append(Task("extract", entry, dict(settings), label))

    def retry_extract(self, entry_id: str) -> None:
        """Queue the extraction that failed once more, with the smaller settings if the service named some."""
        found = self._failed_export.get(entry_id)
        if found is not None:
            self.extract(entry_id, found[0].settings, found[0].label)

    def cancel(self, task_id: str) -> None:
        """Stop a task: one that waits at once, a running one at its next step, on the service too."""
        with self._changed:
            task = next((task for task in self._tasks if task.id == task_id), None)
            if task is None:
                return
            task.cancelled.set()
            running = self._tasks[0] is task
            if not running:
                self._tasks.remove(task)
        if not running:
            self._end_cancelled(task)
        elif task.job is not None:
            threading.Thread(target=self._cancel_job, args=(task,), daemon=True).start()

    def retry(self, entry_id: str) -> None:
        """Take a failed or cancelled entry up again: its job if that still exists, else a new one."""
        entry = self.history.get(entry_id)
        with self._changed:
            busy = any(task.entry.id == entry_id and task.kind == "generate" for task in self._tasks)
        if entry is None or busy:
            return
        entry.status, entry.problem = "queued", {}
        self.history.save(entry)
        self._append(Task("generate", entry, dict(entry.settings)))

    def delete(self, entry_id: str) -> None:
        """Cancel what runs for an entry and remove it."""
        for task in self.tasks():
            if task.entry.id == entry_id:
                self.cancel(task.id)
        self.history.delete(entry_id)

    def matte(self, picture: bytes | Path) -> bytes | None:
        """The matte as PNG; None when the service makes none. Raises `ServiceError`."""
        client = self._connect()
        with client:
            if not client.health().matte:
                return None
            return client.matte(picture)

    def change_settings(self, settings: ClientSettings) -> None:
        """Save settings and use them from the next task on. Raises OSError or `InvalidRequestError`."""
        save_settings(settings, self.root)
        self.settings = settings
        self._override, self._env = (None, None, None), {}
        self.service = self._first_state()
        self._poke.set()

    def test_connection(self, url: str, key: str, proxy_token: ProxyToken | None = None) -> str:
        """Health and usage of a service in one sentence. Raises `ServiceError`."""
        options = {"retry": TRIAL_RETRY, "proxy_token": proxy_token, **self._client_options}
        with Client(url, key or None, **options) as client:
            health = client.health()
            if not key:
                raise UnauthenticatedError("the service answers, but needs a key")
            usage = client.usage()
        offers = ", ".join(health.pipeline_types) or "nothing yet, it is starting"
        return f"Connected to {health.model or 'the service'} as “{usage.name}”. It offers {offers}."

    # --- the service -------------------------------------------------------------------------------------

    def _connect(self, task: Task | None = None) -> Client:
        """A client of the chosen service; starts the local server when none is chosen."""
        target = self.target()
        url, key = target.url, target.key
        if not url:
            if task is not None and not self._server.running:
                task.told = "Starting the service on this machine"
            url = self._server.ensure()
            key = self._server.key
        options = dict(self._client_options)
        if not target.url:
            options["retry"] = LOCAL_RETRY
        else:
            options["proxy_token"] = target.proxy_token
        if task is not None:
            options.setdefault("retry", WORK_RETRY)
            options |= {"on_wait": self._teller(task), "sleep": self._sleeper(task)}
        return Client(url, key or None, **options)

    def _place(self, client: Client) -> str:
        """Which service an entry's job is on; empty for this machine, whose port changes."""
        return "" if self.service.local else client.url

    def _teller(self, task: Task) -> Callable[[Waiting], None]:
        def tell(waiting: Waiting) -> None:
            lost = waiting.reason == "connecting"
            task.told = LOST if lost and task.job is not None else waiting.message
            if lost:
                self._poke.set()  # so that the header tells it too

        return tell

    def _sleeper(self, task: Task) -> Callable[[float], None]:
        def sleep(seconds: float) -> None:
            if task.cancelled.wait(seconds) and task.job is None:
                raise Stopped
            if self._closing.is_set():
                raise Stopped

        return sleep

    def _watch(self) -> None:
        """Keep the header's view of the service fresh; a remote service that is ready is left in peace."""
        while not self._closing.is_set():
            self._poke.clear()
            state = self.service
            try:
                with self._connect() as client:
                    health = client.health()
                state = replace(state, url=client.url, health=health, problem="")
            except ServiceError as error:
                state = replace(state, health=None, problem=error.detail)
            except Exception as error:
                logger.exception("service watch")
                state = replace(state, health=None, problem=str(error))
            if not self._poke.is_set():
                self.service = state
            if not state.ready:
                pause: float | None = WATCH_WHILE_STARTING
            else:
                pause = WATCH_LOCAL if state.local else None
            self._poke.wait(pause)

    # --- the work ----------------------------------------------------------------------------------------

    def _append(self, task: Task) -> None:
        with self._changed:
            waiting = [other for other in self._tasks[1:] if other.kind == "light"]
            place = self._tasks.index(waiting[0]) if waiting and task.kind != "light" else len(self._tasks)
            self._tasks.insert(place, task)
            self._changed.notify_all()

    def _work(self) -> None:
        while not self._closing.is_set():
            with self._changed:
                self._changed.wait_for(lambda: bool(self._tasks) or self._closing.is_set())
                if self._closing.is_set():
                    return
                task = self._tasks[0]
            follow_up: Task | None = None
            try:
                follow_up = self._run(task)
            except Exception as error:
                self._failed(task, error)
            finally:
                with self._changed:
                    self._tasks.remove(task)
            if follow_up is not None:
                self._append(follow_up)

    def _run(self, task: Task) -> Task | None:
        task.tracker = Tracker(expected=self._expected(task))
        if task.kind == "generate":
            task.entry.status = "running"
            self.history.save(task.entry)
        result = self._tried(task)
        if isinstance(result, GenerateResult):
            self.history.keep_result(task.entry, result)
            self.history.prune(int(self.settings.history_limit_gb * GB), frozenset({task.entry.id}))
            return Task("light", task.entry, dict(LIGHT_SETTINGS))
        if task.kind == "light":
            self.history.keep_light(task.entry, result.data)
        else:
            self.history.keep_export(task.entry, result, task.label)
        return None

    def _tried(self, task: Task) -> GenerateResult | ExtractResult:
        """The result of a task; when the server on this machine died under it, that is started again."""
        for _ in range(LOCAL_RESTARTS):
            with self._connect(task) as client:
                try:
                    return self._finish(task, client)
                except NoAnswerError:
                    if not self.service.local or self._server.lives(client.url) or self._closing.is_set():
                        raise
            logger.warning("the server on this machine ended; it is started again")
        with self._connect(task) as client:
            return self._finish(task, client)

    def _finish(self, task: Task, client: Client) -> GenerateResult | ExtractResult:
        """Submit the task (or take its job up again), follow it, fetch its files."""
        job = self._job(task, client)
        task.job = job
        if task.cancelled.is_set():
            self._cancel_job(task)
        for event in job.events():
            task.told = ""
            task.tracker.feed(event)
            is_result(event)
            if self._closing.is_set():
                raise Stopped
        return job.result()

    def _job(self, task: Task, client: Client) -> Job:
        entry = task.entry
        if task.kind != "generate":
            return self._submit_export(task, client)
        if entry.job and entry.url == self._place(client):
            try:
                job = client.job(entry.job)
                if job.status.status in ("queued", "running", "finished"):
                    return job
            except (NotFoundError, ExpiredError):
                logger.info("job %s is gone; the picture is submitted again", entry.job)
            entry.key = entry.key + "+"  # the old key would give the old job back
        picture = self.history.root / entry.id / "picture"
        task.told = "Sending the picture"
        settings = {k: v for k, v in task.settings.items() if v is not None}
        job = client.submit(picture, idempotency_key=entry.key, **settings)
        entry.job, entry.url = job.id, self._place(client)
        self.history.save(entry)
        return job

    def _submit_export(self, task: Task, client: Client) -> Job:
        """From the service's own copy while it has it: the state crosses the network only when it must."""
        entry = task.entry
        if entry.job and entry.url == self._place(client):
            try:
                return client.submit_extract(job=entry.job, **task.settings)
            except (NotFoundError, ExpiredError):
                logger.info("job %s is gone; the state is sent instead", entry.job)
        task.told = "Sending the state"
        return client.submit_extract(self.history.root / entry.id / STATE, **task.settings)

    def _expected(self, task: Task) -> dict[str, float]:
        """Seconds by stage of the newest finished entry made the same way."""
        if task.kind != "generate":
            return {}
        wanted = task.settings.get("pipeline_type")
        for entry in self.history.entries():
            seconds = AssetStats.of(entry.stats).seconds
            same = wanted is None or entry.settings.get("pipeline_type") == wanted
            if entry.status == "finished" and seconds and same:
                return seconds
        return {}

    def _cancel_job(self, task: Task) -> None:
        job = task.job
        if job is None or job.status.status in FINAL_STATES:
            return
        task.told = "Cancelling"
        try:
            job.cancel()
        except (ServiceError, Stopped) as error:
            task.told = "The service could not be told to cancel; trying goes on"
            logger.warning("cancel: %s", error)

    def _failed(self, task: Task, error: Exception) -> None:
        if self._closing.is_set():
            return  # the entry stays as it is and is taken up at the next start
        if task.cancelled.is_set() or isinstance(error, (Stopped, JobCancelledError)):
            self._end_cancelled(task)
            return
        if not isinstance(error, (ServiceError, OSError)):
            logger.exception("task failed", exc_info=error)
        reason = explain(error, made=task.job is not None).to_dict()
        self._poke.set()
        if task.kind == "extract":
            task.settings |= suggested_settings(error)
            self._failed_export[task.entry.id] = (task, reason)
        elif task.kind == "generate":
            task.entry.status, task.entry.problem = "failed", reason
            task.entry.settings |= suggested_settings(error)
            self._save_quietly(task.entry)
        else:
            logger.warning("no light mesh for %s: %s", task.entry.id, error)

    def _end_cancelled(self, task: Task) -> None:
        if task.kind == "generate" and self.history.get(task.entry.id) is not None:
            task.entry.status = "cancelled"
            self._save_quietly(task.entry)

    def _save_quietly(self, entry: Entry) -> None:
        try:
            self.history.save(entry)
        except OSError as error:
            logger.warning("history: %s could not be written: %s", entry.id, error)


__all__ = ["Desk", "Entry", "Export", "ServiceState", "Stopped", "Task"]
