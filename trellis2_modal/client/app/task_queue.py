"""What the app works at, apart from any browser: a queue of tasks, the service they run on, the history.

Every tab sees the same task queue, so a reload, a second tab or a closed one changes nothing. One thread
works through the queue, another watches the service; tabs poll and click on threads of their own. What more
than one of them touches is under the task queue's one lock (`_changed`) and leaves it as a value or a copy:
tasks, settings, the state of the service. The history has a lock of its own; its entries are values.
"""

from __future__ import annotations

import copy
import itertools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
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
from ...protocol.meshes import check_mesh
from ...protocol.presets import LIGHT_SETTINGS
from ...protocol.replies import FINAL_STATES, Estimate, Health
from ...protocol.requests import PIPELINE_TYPES, JobKind
from ..api import Client, Job
from ..errors import NoAnswerError, NoReplyError, UnreachableError
from ..estimates import Forecasts
from ..history import HISTORY, LIGHT, SHAPE, STATE, Entry, Export, History
from ..inputs.pictures import read_picture
from ..local import LocalServer
from ..options import ProxyToken, Retry, Waiting
from ..results import GenerateResult, Matte, Result, TextureResult
from ..settings import (
    APP_SERVER,
    ClientSettings,
    Target,
    choose_target,
    home,
    load_settings,
    save_settings,
)
from ..stages import JobProgress
from .error_messages import explain, suggested_settings

logger = logging.getLogger(__name__)

GB = 1_000_000_000
SAME = ("remove_background", "subjects", "quality", "views", "fov", "estimate_fov", "view_mode")
"""What stays when a shape is textured again or refined: how its pictures are read."""

WATCH_WHILE_STARTING, WATCH_LOCAL = 2.0, 15.0
LOCAL_RESTARTS = 2
LOCAL_RETRY = Retry(offline=3.0)
"""A server on this machine that is silent is dead: it is started again instead of waited for."""


WORK_RETRY = Retry(attempts=9)
"""Half a minute without a network ends no work: sending and fetching are tried for that long too."""

LOST = "The connection is lost; the job goes on. Reconnecting"
LOCAL_LOST = "The local engine does not answer; it is looked after"
LOCAL_STOPPED = "The local engine stopped and is started again"
LOCAL_RESTARTED = "The local engine restarted; your job goes on"
TRIAL_RETRY = Retry(attempts=2, startup=0.0)
"""For the connection test, where a person waits for the answer."""


class UserCancelled(Exception):  # noqa: N818  (asked for, not a fault)
    """The person cancelled while the client waited."""


TaskKind = Literal["generate", "texture", "extract", "light"]


@dataclass
class Task:
    """A piece of work for one entry, which is shown as it was when the work was asked for.

    `status_text` is what the client last said about waiting, `note` what stays true to the end, `light`
    whether its light mesh is kept. The queue alone changes a task, under its lock.
    """

    kind: TaskKind
    entry: Entry
    settings: dict[str, Any]
    label: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)
    progress: JobProgress = field(default_factory=JobProgress)
    status_text: str = ""
    note: str = ""
    job: Job | None = None
    light: bool = False
    number: int = field(default_factory=itertools.count().__next__)

    @property
    def id(self) -> str:
        return f"{self.entry.id}.{self.kind}.{self.number}"

    @property
    def makes_entry(self) -> bool:
        """Whether its end is that of the entry; else it adds a file to one that is finished."""
        return self.kind == self.entry.kind

    def snapshot(self) -> Task:
        """A copy that the work does not change."""
        twin = copy.copy(self)
        twin.progress = self.progress.snapshot()
        return twin


@dataclass(frozen=True)
class FailedExport:
    """What was asked for, with smaller settings if the service named some, and why it failed."""

    settings: dict[str, Any]
    label: str
    reason: dict[str, str]
    variant: int


@dataclass(frozen=True)
class Connection:
    """A client, and where its service is for an entry: "" is this machine, whose port changes."""

    client: Client
    place: str


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


class TaskQueue:
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
        self.history = History(self.root / HISTORY)
        self._settings = load_settings(self.root)
        self._override = (url, key, proxy_token)
        self._env: Mapping[str, str] | None = None
        self._client_options = dict(client_options or {})
        self._server = LocalServer(self.root / APP_SERVER, weights, device)
        self._changed = threading.Condition()
        self._tasks: list[Task] = []
        self._failed_export: dict[str, FailedExport] = {}
        self._closing = threading.Event()
        self._poke = threading.Event()
        self._service = self._first_state()
        self._forecasts = Forecasts(self.history)
        self._resume()
        self._threads = [
            threading.Thread(target=self._work, name="task queue", daemon=True),
            threading.Thread(target=self._watch, name="service watch", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _first_state(self) -> ServiceState:
        target = self.target()
        return ServiceState(not target.url, target.url)

    @property
    def settings(self) -> ClientSettings:
        with self._changed:
            return self._settings

    @property
    def service(self) -> ServiceState:
        with self._changed:
            return self._service

    def target(self) -> Target:
        """The service that the next task uses; what a person saves in the app wins over the environment."""
        with self._changed:
            url, key, token = self._override
            return choose_target(url, key, self._env, self.root, token)

    def _resume(self) -> None:
        """What a closed or crashed app left unfinished goes on: the same job, never a second one."""
        for entry in reversed(self.history.entries()):
            if not entry.over:
                self._tasks.append(Task(entry.kind, entry, dict(entry.settings)))

    def close(self) -> None:
        """Stop working; jobs on a service go on and are taken up again at the next start."""
        self._closing.set()
        self._poke.set()
        with self._changed:
            self._changed.notify_all()
        self._server.stop()

    # --- what tabs ask -----------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        """The running task first, then those that wait, as they are now."""
        with self._changed:
            return [task.snapshot() for task in self._tasks]

    def export_problem(self, entry_id: str) -> dict[str, str]:
        """Why the last extraction of an entry failed, empty when it did not."""
        with self._changed:
            found = self._failed_export.get(entry_id)
        return found.reason if found else {}

    def pipeline_types(self) -> list[str]:
        health = self.service.health
        return list(health.pipeline_types) if health and health.pipeline_types else list(PIPELINE_TYPES)

    def texture_types(self) -> list[str]:
        """The resolutions at which the loaded weights texture meshes; none while they are not known."""
        health = self.service.health
        return list(health.texture_types) if health else []

    def samplers(self) -> dict[str, float] | None:
        """The loaded weights' own sampler settings; None while no weights are loaded."""
        health = self.service.health
        return dict(health.samplers) if health and health.status == "ok" else None

    # --- what people do ----------------------------------------------------------------------------------

    def generate(
        self,
        picture: bytes | Path,
        title: str,
        settings: Mapping[str, Any],
        sides: Mapping[str, bytes | Path] | None = None,
    ) -> Entry:
        """Keep a picture and queue its generation. Raises `ServiceError` or OSError.

        `sides`: pictures of the object's other sides by direction, beside the picture of its front.
        """
        data, others = read_picture(picture), {k: read_picture(v) for k, v in (sides or {}).items()}
        views = {"views": ["front", *others]} if others else {}
        wanted = {"preview": "frames"} | dict(settings) | views
        entry = self.history.add(data, title, wanted, list(others.values()))
        self._append(Task("generate", entry, dict(entry.settings)))
        return entry

    def texture(
        self, mesh: bytes, pictures: Sequence[bytes | Path], title: str, settings: Mapping[str, Any]
    ) -> Entry:
        """Keep a mesh and pictures of one object and queue its new textures. Raises as `generate`."""
        check_mesh(mesh)
        first, *others = [read_picture(picture) for picture in pictures]
        entry = self.history.add(first, title, dict(settings) | {"preview": "frames"}, others, mesh)
        self._append(Task("texture", entry, dict(entry.settings)))
        return entry

    def again(self, entry_id: str, settings: Mapping[str, Any]) -> Entry:
        """Queue an asset of an entry's pictures and of its chosen variant's shape, which stays: textured
        anew, or refined by a cascade. Raises as `generate`.
        """
        entry = self.history.get(entry_id)
        if entry is None or not self.keeps_shape(entry):
            raise NotFoundError("this asset's shape was not kept; generate it again with Keep latents")
        folder = self.history.root / entry_id
        first, *others = [read_picture(folder / name) for name in entry.pictures]
        same = {name: entry.settings[name] for name in SAME if entry.settings.get(name) is not None}
        wanted = same | dict(settings) | {"preview": "frames", "keep_latents": True}
        made = self.history.add(first, entry.title, wanted, others, shape=entry)
        self._append(Task("generate", made, dict(made.settings)))
        return made

    def keeps_shape(self, entry: Entry) -> bool:
        """Whether an entry's shape can be textured again, or refined."""
        kept = entry.status == "finished" and entry.settings.get("keep_latents") is True
        return kept and self.history.file(entry.id, entry.own(STATE)) is not None

    def refinements(self, entry: Entry) -> list[str]:
        """The pipeline types that refine an entry's shape, of those that the loaded weights offer."""
        if entry.settings.get("pipeline_type") != "512" or not self.keeps_shape(entry):
            return []
        return [name for name in self.pipeline_types() if name.endswith("_cascade")]

    def extract(
        self, entry_id: str, settings: Mapping[str, Any], label: str, variant: int | None = None
    ) -> None:
        """Queue an extraction from a kept state: of the chosen variant unless one is named."""
        entry = self.history.get(entry_id)
        if entry is not None and variant is not None:
            entry = replace(entry, variant=variant)
        if entry is None or self.history.file(entry_id, entry.own(STATE)) is None:
            raise NotFoundError("this asset has no state yet; generate it first")
        with self._changed:
            self._failed_export.pop(entry_id, None)
            self._append(Task("extract", entry, dict(settings), label))

    def make_light(self, entry_id: str) -> None:
        """Queue the light mesh of a finished entry's chosen variant that lacks it."""
        entry = self.history.get(entry_id)
        if entry is None or self.history.file(entry_id, entry.own(STATE)) is None:
            return
        wanted = ("light", entry_id, entry.variant)
        with self._changed:
            waits = any((t.kind, t.entry.id, t.entry.variant) == wanted for t in self._tasks)
            if entry.status == "finished" and not waits:
                self._append(Task("light", entry, dict(LIGHT_SETTINGS)))

    def choose(self, entry_id: str, number: int) -> None:
        """Show and export another variant of an entry. Raises `ServiceError` or OSError."""
        entry = self.history.choose(entry_id, number)
        if self.history.file(entry_id, entry.own(LIGHT)) is None:
            self.make_light(entry_id)

    def retry_extract(self, entry_id: str) -> None:
        """Queue the extraction that failed once more, of the same variant, with the smaller settings if the
        service named some.
        """
        with self._changed:
            found = self._failed_export.pop(entry_id, None)
        if found is not None:
            self.extract(entry_id, found.settings, found.label, found.variant)

    def cancel(self, task_id: str) -> bool:
        """Stop a task: one that waits at once, a running one at its next step, on the service too.

        Whether it was one that waited.
        """
        with self._changed:
            task = next((task for task in self._tasks if task.id == task_id), None)
            if task is None:
                return False
            task.cancelled.set()
            running = self._tasks[0] is task
            if not running:
                self._tasks.remove(task)
        if not running:
            self._end_cancelled(task)
        elif task.job is not None:
            threading.Thread(target=self._cancel_job, args=(task,), daemon=True).start()
        return not running

    def retry(self, entry_id: str) -> None:
        """Take a failed or cancelled entry up again: its job if that still exists, else a new one."""
        with self._changed:
            busy = any(task.entry.id == entry_id and task.makes_entry for task in self._tasks)
            if busy or self.history.get(entry_id) is None:
                return
            entry = self.history.change(entry_id, status="queued", problem={})
            self._append(Task(entry.kind, entry, dict(entry.settings)))

    def delete(self, entry_id: str) -> None:
        """Cancel what runs for an entry and remove it."""
        for task in self.tasks():
            if task.entry.id == entry_id:
                self.cancel(task.id)
        self.history.delete(entry_id)

    def matte(self, picture: bytes | Path, trimap: bytes | None = None, **settings: Any) -> Matte | None:
        """The matte, see `Client.matte`; None when the service makes none. Raises `ServiceError`."""
        with self._connect().client as client:
            if not client.health().matte:
                return None
            return client.matte(picture, trimap, **settings)

    def change_settings(self, settings: ClientSettings) -> None:
        """Save settings and use them from the next task on. Raises OSError or `InvalidRequestError`."""
        with self._changed:
            save_settings(settings, self.root)
            self._settings = settings
            self._override, self._env = (None, None, None), {}
            self._service = self._first_state()
            self._forecasts.forget()
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

    def _connect(self, task: Task | None = None) -> Connection:
        """A client of the chosen service; starts the local server when none is chosen."""
        target = self.target()
        url, key = target.url, target.key
        if not url:
            if task is not None and not self._server.running:
                self._note(task, status_text="Starting the service on this computer")
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
        client = Client(url, key or None, **options)
        return Connection(client, client.url if target.url else "")

    def _note(self, task: Task, **changes: Any) -> None:
        """Change a task."""
        with self._changed:
            for name, value in changes.items():
                setattr(task, name, value)

    def _teller(self, task: Task) -> Callable[[Waiting], None]:
        def tell(waiting: Waiting) -> None:
            lost = waiting.reason == "connecting"
            gone = LOST if self.target().url else LOCAL_LOST
            self._note(task, status_text=gone if lost and task.job is not None else waiting.message)
            if lost:
                self._poke.set()  # so that the header tells it too

        return tell

    def _sleeper(self, task: Task) -> Callable[[float], None]:
        def sleep(seconds: float) -> None:
            if task.cancelled.wait(seconds) and task.job is None:
                raise UserCancelled
            if self._closing.is_set():
                raise UserCancelled

        return sleep

    def _watch(self) -> None:
        """Keep the header's view of the service fresh; a remote service that is ready is left in peace."""
        while not self._closing.is_set():
            self._poke.clear()
            before = self.service
            try:
                with self._connect().client as client:
                    health = client.health()
                    if health.status == "ok" and not before.ready:
                        self._forecasts.ask(client)
                state = replace(before, url=client.url, health=health, problem="")
            except ServiceError as error:
                stopped = before.local and isinstance(error, (UnreachableError, NoReplyError))
                words = LOCAL_STOPPED.lower() if stopped else error.detail
                state = replace(before, health=None, problem=words)
            except Exception as error:
                logger.exception("service watch")
                state = replace(before, health=None, problem=str(error))
            with self._changed:
                if self._service is before:  # else the settings have changed meanwhile
                    self._service = state
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
        entry_id = task.entry.id
        if task.cancelled.is_set():
            raise UserCancelled
        self._note(task, progress=JobProgress(expected=self._expected(task)))
        if task.makes_entry:
            self.history.change(entry_id, status="running")
        return self._tried(task)

    def _keep(self, task: Task, job: Job, result: Result) -> Task | None:
        """Keep what a task gave; what is to be made next."""
        entry_id = task.entry.id
        if isinstance(result, GenerateResult):
            entry = self.history.keep_result(entry_id, result)
            self._prune(entry_id)
            self._take_light(task, job)  # last: it can be made anew
            return None if task.light else Task("light", entry, dict(LIGHT_SETTINGS))
        if isinstance(result, TextureResult):
            self.history.keep_textured(entry_id, result)
            self._prune(entry_id)
        elif task.kind == "light":
            self.history.keep_light(entry_id, result.data, task.entry.variant)
        else:
            self.history.keep_export(entry_id, result, task.label, task.entry.variant)
        return None

    def _prune(self, made: str) -> None:
        self.history.prune(int(self.settings.history_limit_gb * GB), frozenset({made}))

    def _tried(self, task: Task) -> Task | None:
        """Do a task; when the server on this machine died under it, that is started again."""
        for _ in range(LOCAL_RESTARTS):
            connection = self._connect(task)
            with connection.client as client:
                try:
                    return self._finish(task, connection)
                except NoAnswerError:
                    if connection.place or self._server.lives(client.url) or self._closing.is_set():
                        raise
            logger.warning("the server on this machine ended; it is started again")
            self._note(task, status_text=LOCAL_STOPPED, note=LOCAL_RESTARTED)
        connection = self._connect(task)
        with connection.client:
            return self._finish(task, connection)

    def _finish(self, task: Task, connection: Connection) -> Task | None:
        """Submit the task (or take its job up again), follow it, fetch its files and keep them."""
        job = self._job(task, connection)
        self._note(task, job=job)
        if task.cancelled.is_set():
            self._cancel_job(task)
        asked = False
        for event in job.events():
            with self._changed:
                task.status_text = ""
                task.progress.feed(event)
            is_result(event)
            if self._closing.is_set():
                raise UserCancelled
            if task.progress.stage == "preview" and not asked:
                asked = True
                self._take_light(task, job)
        return self._keep(task, job, job.result())

    def _take_light(self, task: Task, job: Job) -> None:
        """Keep the light mesh of a generation: the service may have it while it renders the turntable.

        The result does not depend on it: whatever stands in its way is only logged.
        """
        settings = task.settings
        if task.kind != "generate" or task.light or settings.get("num_samples", 1) > 1:
            return
        if settings.get("preview") != "frames":
            return  # the service makes none
        try:
            self.history.keep_light(task.entry.id, job.download("light", patient=False))
        except (ServiceError, OSError) as error:  # one on Modal has it with the result, an older one has none
            logger.info("no light mesh yet: %s", error)
            return
        self._note(task, light=True)

    def _job(self, task: Task, connection: Connection) -> Job:
        client = connection.client
        entry = self.history.get(task.entry.id)
        if entry is None:
            raise UserCancelled  # it was deleted
        if not task.makes_entry:
            return self._submit_export(task, entry, connection)
        key = entry.key
        if entry.job and entry.url == connection.place:
            try:
                job = client.job(entry.job)
                if job.status.status in ("queued", "running", "finished"):
                    with self._changed:
                        task.progress.began_at(job.status.created)
                    return job
            except (NotFoundError, ExpiredError):
                logger.info("job %s is gone; the picture is submitted again", entry.job)
            key += "+"  # the old key would give the old job back
        folder = self.history.root / entry.id
        pictures = [folder / name for name in entry.pictures]
        settings = {k: v for k, v in task.settings.items() if v is not None}
        self._note(task, status_text=f"Sending the {'mesh' if entry.mesh else 'picture'}")
        if entry.mesh:
            job = client.submit_texture(folder / entry.mesh, pictures, idempotency_key=key, **settings)
        else:
            shape = folder / SHAPE if entry.shape else None
            job = client.submit(pictures, shape=shape, idempotency_key=key, **settings)
        self.history.change(entry.id, key=key, job=job.id, url=connection.place)
        return job

    def _submit_export(self, task: Task, entry: Entry, connection: Connection) -> Job:
        """From the service's own copy while it has it: the state crosses the network only when it must."""
        client, variant = connection.client, task.entry.variant
        if entry.job and entry.url == connection.place:
            which: dict[str, Any] = {"variant": variant} if variant > 1 else {}
            try:
                return client.submit_extract(job=entry.job, **which, **task.settings)
            except (NotFoundError, ExpiredError):
                logger.info("job %s is gone; the state is sent instead", entry.job)
        self._note(task, status_text="Sending the state")
        state = self.history.root / entry.id / task.entry.own(STATE)
        return client.submit_extract(state, **task.settings)

    def _expected(self, task: Task) -> dict[str, float]:
        """Seconds by stage of a task."""
        stages = self.forecast("extract" if task.kind == "light" else task.kind, task.settings).stages
        kept = ("sparse_structure", "shape") if task.entry.shape and task.makes_entry else ()
        return {stage: seconds for stage, seconds in stages.items() if stage not in kept}

    def forecast(self, kind: JobKind, settings: Mapping[str, Any]) -> Estimate:
        """What a job will take on the service, as far as it can be told."""
        return self._forecasts.of(kind, settings, self.service.health)

    def _cancel_job(self, task: Task) -> None:
        job = task.job
        if job is None or job.status.status in FINAL_STATES:
            return
        self._note(task, status_text="Cancelling")
        try:
            job.cancel()
        except (ServiceError, UserCancelled) as error:
            self._note(task, status_text="The service could not be told to cancel; trying goes on")
            logger.warning("cancel: %s", error)

    def _failed(self, task: Task, error: Exception) -> None:
        if self._closing.is_set():
            return  # the entry stays as it is and is taken up at the next start
        if task.cancelled.is_set() or isinstance(error, (UserCancelled, JobCancelledError)):
            self._end_cancelled(task)
            return
        if not isinstance(error, (ServiceError, OSError)):
            logger.exception("task failed", exc_info=error)
        local = not self.target().url
        reason = explain(error, made=task.job is not None, local=local).to_dict()
        self._poke.set()
        entry, smaller = task.entry, suggested_settings(error)
        if task.kind == "extract":
            with self._changed:
                self._failed_export[entry.id] = FailedExport(
                    task.settings | smaller, task.label, reason, entry.variant
                )
        elif task.makes_entry:
            self._end(task, status="failed", problem=reason, settings=task.settings | smaller)
        else:
            logger.warning("no light mesh for %s: %s", entry.id, error)

    def _end_cancelled(self, task: Task) -> None:
        if task.makes_entry:
            self._end(task, status="cancelled")

    def _end(self, task: Task, **changes: Any) -> None:
        """Note how a generation ended, unless its entry was deleted."""
        try:
            self.history.change(task.entry.id, **changes)
        except NotFoundError:
            logger.info("%s was deleted", task.entry.id)
        except OSError as error:
            logger.warning("history: %s could not be written: %s", task.entry.id, error)


__all__ = ["Entry", "Export", "ServiceState", "Task", "TaskQueue", "UserCancelled"]
