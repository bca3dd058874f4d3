"""Many pictures to files: some at a time, and run again it goes on where it was, whenever it was killed.

What is asked of the service carries an Idempotency-Key that follows from the picture and the settings: a job
that a killed run left behind is found again, never made twice. A journal in the target folder (`batch.jsonl`)
says which file came of what; a file whose picture or settings changed since is made anew.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..durable import sync_folder
from ..protocol.errors import (
    ExpiredError,
    FieldError,
    ForbiddenError,
    InvalidRequestError,
    JobCancelledError,
    NotFoundError,
    QueueFullError,
    QuotaExceededError,
    RateLimitedError,
    ServiceError,
    StorageFullError,
    TooManyJobsError,
    UnauthenticatedError,
    UnavailableError,
    error_from_problem,
)
from ..protocol.requests import ExtractSettings, GenerateSettings
from .api import Client, Job
from .errors import NoAnswerError
from .http.calls import checked
from .results import EXTENSIONS
from .stats import Costs

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".heic", ".heif")
JOURNAL = "batch.jsonl"
WAIT = 5.0
"""Seconds before a service with no room is asked again, where it names none."""

NO_ROOM = (TooManyJobsError, QueueFullError, RateLimitedError)
HOPELESS = (
    *(UnauthenticatedError, ForbiddenError, QuotaExceededError),
    *(NoAnswerError, UnavailableError, StorageFullError),
)
"""What the next picture would meet too: no further one is begun."""


@dataclass(frozen=True)
class Item:
    """One picture (a file, or an https URL that the service fetches), its name, and its own settings."""

    name: str
    picture: Path | str
    generate: Mapping[str, Any] = field(default_factory=dict)
    extract: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name of the file that becomes of it."""
        return self.name + EXTENSIONS[str(self.extract.get("format") or _preset_format(self.extract))]

    def digest(self) -> str:
        """Of all that decides the file. Raises OSError."""
        asked = json.dumps([self.name, dict(self.generate), dict(self.extract)], sort_keys=True, default=str)
        data = self.picture.encode() if isinstance(self.picture, str) else self.picture.read_bytes()
        return hashlib.sha256(asked.encode() + b"\0" + data).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What became of an item; `unbegun` ones are left for the next run."""

    name: str
    state: Literal["made", "there", "failed", "unbegun"]
    file: str = ""
    job: str = ""
    seconds: float = 0.0
    costs: Costs = field(default_factory=Costs)
    problem: str = ""


@dataclass(frozen=True)
class Entry:
    """A line of the journal: the file that was made of a digest, or the next attempt at it."""

    name: str
    digest: str
    attempt: int
    made: bool


class Journal:
    """What earlier runs did, by item. A line that a power cut broke is passed over."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], Entry] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = Entry(**json.loads(line))
                    self._entries[entry.name, entry.digest] = entry
                except (ValueError, TypeError):
                    continue

    def find(self, item: Item, digest: str) -> Entry:
        return self._entries.get((item.name, digest), Entry(item.name, digest, 0, False))

    def write(self, entry: Entry) -> None:
        """On the disk when it returns. Raises OSError."""
        with self._lock:
            new = not self._path.exists()
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(entry)) + "\n")
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync_folder(self._path.parent)
            self._entries[entry.name, entry.digest] = entry


def _preset_format(extract: Mapping[str, Any]) -> str:
    return checked(ExtractSettings, extract).resolved().format


# --- what is asked for --------------------------------------------------------------------------------------


def read_items(
    source: Path, generate: Mapping[str, Any] | None = None, extract: Mapping[str, Any] | None = None
) -> list[Item]:
    """The pictures of a folder, or the lines of a CSV file, with the settings that all of them share.

    A CSV has a column `picture` (a path, from the file's folder, or an https URL), perhaps `name`, and
    settings by their names; an empty cell leaves a setting as it is. Raises `InvalidRequestError`.
    """
    generate, extract = dict(generate or {}), dict(extract or {})
    checked(GenerateSettings, generate)
    if source.is_dir():
        pictures = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
        stems = Counter(path.stem for path in pictures)
        names = [path.stem if stems[path.stem] == 1 else path.name for path in pictures]
        items = [Item(n, p, generate, extract) for n, p in zip(names, pictures, strict=True)]
    else:
        items = list(_rows(source, generate, extract))
    if not items:
        raise InvalidRequestError(f"{source} has no pictures ({', '.join(SUFFIXES)})")
    twice = [name for name, count in Counter(item.file.casefold() for item in items).items() if count > 1]
    if twice:
        raise InvalidRequestError(f"several pictures would become {twice[0]}; give them names of their own")
    return items


def _rows(source: Path, generate: Mapping[str, Any], extract: Mapping[str, Any]) -> Iterable[Item]:
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequestError(f"{source.name} cannot be read as a CSV file: {error}") from error
    for number, row in enumerate(rows, 2):
        cells = {key: value.strip() for key, value in row.items() if key and isinstance(value, str)}
        yield _item(source, number, {key: value for key, value in cells.items() if value}, generate, extract)


def _item(
    source: Path, line: int, cells: dict[str, str], generate: Mapping[str, Any], extract: Mapping[str, Any]
) -> Item:
    def refused(column: str, message: str) -> InvalidRequestError:
        text = f"{source.name}, line {line}: {column} {message}"
        return InvalidRequestError(text, errors=[FieldError(column, message)])

    picture, name = cells.pop("picture", ""), cells.pop("name", "")
    if not picture:
        raise refused("picture", "is missing")
    own = [
        {k: v for k, v in cells.items() if k in m.model_fields} for m in (GenerateSettings, ExtractSettings)
    ]
    own[0].pop("num_samples", None)  # one file a picture
    for column in cells.keys() - own[0].keys() - own[1].keys():
        raise refused(column, "is not a known column")
    remote = picture.startswith("https://")
    name = name or Path(picture.partition("?")[0]).stem or f"line-{line}"
    if Path(name).name != name or name in (".", ".."):
        raise refused("name", "must not contain a folder")
    try:
        merged = (
            checked(GenerateSettings, {**generate, **own[0]}),
            checked(ExtractSettings, {**extract, **own[1]}),
        )
    except InvalidRequestError as error:
        raise InvalidRequestError(
            f"{source.name}, line {line}: {error.detail}", errors=error.errors
        ) from error
    settings = [model.model_dump(mode="json", exclude_unset=True) for model in merged]
    return Item(name, picture if remote else source.parent / picture, *settings)


# --- doing it -----------------------------------------------------------------------------------------------


class Batch:
    """Makes the files of items in a folder. `told` hears of each item as it ends, in any order."""

    def __init__(
        self,
        client: Client,
        items: Sequence[Item],
        folder: Path,
        told: Callable[[Outcome], None] = lambda outcome: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client, self._items, self._folder = client, list(items), folder
        self._told, self._sleep = told, sleep
        self._stop = threading.Event()

    def run(self, at_once: int = 4) -> list[Outcome]:
        """The outcome of every item, in their order. Raises OSError when the folder cannot be written.

        An interrupt leaves jobs that were begun to the service; the next run takes what became of them.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        journal = Journal(self._folder)
        todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
        for item in self._items:
            todo.put(item)
        done: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()

        def work() -> None:
            while True:
                try:
                    item = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put(self._one(item, journal))
                except BaseException as error:
                    done.put(error)
                    return

        for _ in range(min(at_once, len(self._items))):
            threading.Thread(target=work, name="batch", daemon=True).start()
        found: dict[str, Outcome] = {}
        try:
            while len(found) < len(self._items):
                outcome = done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                found[outcome.name] = outcome
                self._told(outcome)
        finally:
            self._stop.set()
        return [found[item.name] for item in self._items]

    def _one(self, item: Item, journal: Journal) -> Outcome:
        if self._stop.is_set():
            return Outcome(item.name, "unbegun")
        target = self._folder / item.file
        try:
            digest = item.digest()
        except OSError as error:
            return Outcome(item.name, "failed", problem=f"{item.picture}: {error.strerror or error}")
        entry = journal.find(item, digest)
        if entry.made and target.exists():
            return Outcome(item.name, "there", item.file)
        began = time.monotonic()
        for last in (False, True):
            try:
                job, costs = self._make(item, target, f"batch-{digest[:40]}-{entry.attempt}")
            except NO_ROOM:
                return Outcome(item.name, "unbegun")
            except HOPELESS as error:
                self._stop.set()
                return Outcome(item.name, "failed", problem=error.detail)
            except ServiceError as error:
                entry = Entry(item.name, digest, entry.attempt + 1, False)
                journal.write(entry)  # the next run asks for a new job
                forgotten = isinstance(error, (ExpiredError, NotFoundError, JobCancelledError))
                if last or not forgotten:
                    return Outcome(item.name, "failed", problem=error.detail)
            else:
                journal.write(Entry(item.name, digest, entry.attempt, True))
                seconds = round(time.monotonic() - began, 3)
                return Outcome(item.name, "made", item.file, job, seconds, costs)
        raise AssertionError("the second try returns")

    def _make(self, item: Item, target: Path, key: str) -> tuple[str, Costs]:
        """The id of the generation, and what both jobs cost; found again where an earlier run made them."""
        settings = {"preview": "none"} | dict(item.generate)
        made = self._patiently(lambda: self._client.submit(item.picture, idempotency_key=key, **settings))
        status = _ended(made)
        file = self._patiently(
            lambda: self._client.submit_extract(job=made.id, idempotency_key=f"{key}-file", **item.extract)
        )
        result = file.wait()
        result.save(target)
        return made.id, Costs.of_all(status, result.stats)

    def _patiently(self, submit: Callable[[], Job]) -> Job:
        """Submit, and again while there is no room for it."""
        while True:
            try:
                return submit()
            except NO_ROOM as error:
                if self._stop.is_set():
                    raise
                self._sleep(min(error.retry_after or WAIT, 60.0))


def _ended(job: Job) -> dict[str, Any]:
    """Wait for a job's end; its stats. Raises its failure, `JobCancelledError` or `ExpiredError`."""
    for _ in job.events():
        pass
    status = job.refresh()
    if status.problem is not None:
        raise error_from_problem(status.problem.model_dump())
    if status.status == "cancelled":
        raise JobCancelledError()
    if status.status == "expired":
        raise ExpiredError()
    return dict(status.result.stats) if status.result else {}
