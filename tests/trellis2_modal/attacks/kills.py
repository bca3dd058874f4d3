"""Callers that submit, cancel and try again while server and worker are killed at random moments."""

from __future__ import annotations

import base64
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.trellis2_modal.server import ServerProcess, picture, wait_for

T = TypeVar("T")
PATIENCE = 600.0


@dataclass(frozen=True)
class Amount:
    """`jobs` is the least number; callers go on submitting until the last kill."""

    jobs: int = 200
    callers: int = 12
    server_kills: int = 60
    worker_kills: int = 60
    step_seconds: float = 0.05


@dataclass
class Findings:
    """What came of it: the end of each job, and faults.

    A job is `lost` when it is not there or at no proper end, `twice` when it has several ends, a double or
    more runs than attempts; `strays` are folders and files that no job has any longer.
    """

    accepted: int = 0
    ends: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    told_to_others: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    again: int = 0
    """Runs of the model beyond the first of a job: killed between their end and the result's publishing."""


class Caller(threading.Thread):
    """One client with a key of its own."""

    def __init__(self, url: str, key: str, number: int, least: int, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.accepted: dict[str, bool] = {}
        """Each job, and whether it was cancelled."""

        self.content = False
        """Whether all that it wanted was accepted."""

        self.key = key
        self._url, self._number, self._least, self._over = url, number, least, over
        self._random = random.Random(number)

    def run(self) -> None:
        with httpx.Client(base_url=self._url, headers={"X-API-Key": self.key}, timeout=10) as client:
            while len(self.accepted) < self._least or not self._over.is_set():
                count = len(self.accepted)
                job = self._submit(client, f"{self._number}-{count}", 10_000 * self._number + count)
                cancel = self._random.random() < 0.2
                self.accepted[job] = cancel
                if cancel:
                    _insist(lambda job=job: client.delete(f"/jobs/{job}"))  # type: ignore[misc]
        self.content = True

    def _submit(self, client: httpx.Client, name: str, seed: int) -> str:
        image = base64.b64encode(picture(seed=seed)).decode()
        body = {"kind": "generate", "image": image, "seed": seed, "preview": "none"}

        def post() -> httpx.Response | None:
            reply = client.post("/jobs", json=body, headers={"Idempotency-Key": name})
            return reply if reply.status_code == 202 else None  # else busy: 429, 503

        return str(_insist(post).json()["id"])


def _insist(call: Callable[[], T | None]) -> T:
    """Try every quarter of a second, as a patient client does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            found = call()
            if found is not None:
                return found
        threading.Event().wait(0.25)
    raise AssertionError(f"the server took nothing for {PATIENCE} s")


def kill_at_random(folder: Path, amount: Amount) -> Findings:
    """Run the callers and the kills, wait for every job's end, and look at what is there."""
    journal = folder / "journal.txt"
    options = {"step_seconds": amount.step_seconds, "journal": str(journal)}
    # the queue has room for all that callers may have at once, so that none waits for others
    limits: dict[str, Any] = {"queue_limit": 2 * amount.callers, "max_active_jobs": 2, "max_attempts": 5}
    server = ServerProcess(folder / "data", options, **limits)
    keys = [
        server.admin.create(f"caller {i}", requests_per_minute=100_000, gpu_seconds_per_day=1e6)[1]
        for i in range(amount.callers)
    ]
    server.start(60)
    over = threading.Event()
    least = amount.jobs // amount.callers
    callers = [Caller(server.url, key, i, least, over) for i, key in enumerate(keys)]
    for caller in callers:
        caller.start()
    try:
        _kill(server, amount)
        over.set()
        for caller in callers:
            caller.join(PATIENCE)
            assert caller.content, "a caller gave up"
        found = Findings()
        attempts: dict[int, int] = {}
        for caller, other in zip(callers, keys[1:] + keys[:1], strict=True):
            _check_jobs(server, caller, other, found, attempts)
        _check_runs(journal, attempts, found)
        server.kill()
        server.start(60)
        found.strays = _strays(server.data_dir / "jobs", found)
    finally:
        over.set()
        server.stop()
    return found


def _kill(server: ServerProcess, amount: Amount) -> None:
    chaos = random.Random(4)
    victims = ["worker"] * amount.worker_kills + ["server"] * amount.server_kills
    chaos.shuffle(victims)
    for victim in victims:
        threading.Event().wait(chaos.uniform(0.0, 2.0))
        if victim == "server":
            server.kill()
            server.start(60)
        else:
            wait_for(lambda: server.kill_worker() or None, "a worker to kill", 60)


def _check_jobs(
    server: ServerProcess, caller: Caller, other: str, found: Findings, attempts: dict[int, int]
) -> None:
    """Every job has ended, once, and for its owner alone; `attempts` gets how often, by seed."""
    with httpx.Client(base_url=server.url, headers={"X-API-Key": caller.key}, timeout=30) as client:
        listed = _listed(client)
        found.accepted += len(caller.accepted)
        found.lost += sorted(set(caller.accepted) - listed)
        found.twice += sorted(listed - set(caller.accepted))  # a job beside the one that was accepted
        for job, cancelled in caller.accepted.items():
            try:
                end = wait_for(lambda job=job: _ended(client, job), f"the end of {job}", 180)  # type: ignore[misc]
            except AssertionError:
                found.lost.append(job)
                continue
            found.ends[job] = end["status"]
            attempts[end["settings"]["seed"]] = end["attempt"]
            lines = client.get(f"/jobs/{job}/events").text.splitlines()
            finals = [x for x in lines if x in ("event: result", "event: failed", "event: cancelled")]
            if len(finals) != 1:
                found.twice.append(job)
            url = f"/jobs/{job}/state"
            if end["status"] == "finished" and client.get(url).status_code != 200:
                found.lost.append(job)
            if end["status"] == "cancelled" and not cancelled:
                found.lost.append(job)
            if end["status"] == "failed" and end["problem"]["type"] != "worker-died":
                found.lost.append(job)
            if httpx.get(server.url + url, headers={"X-API-Key": other}).status_code != 404:
                found.told_to_others.append(job)


def _listed(client: httpx.Client) -> set[str]:
    found: set[str] = set()
    before: str | None = None
    while True:
        page = client.get("/jobs", params={"limit": 100} | ({"before": before} if before else {})).json()
        found |= {job["id"] for job in page["jobs"]}
        before = page["next"]
        if before is None:
            return found


def _check_runs(journal: Path, attempts: dict[int, int], found: Findings) -> None:
    """The model writes a line at its end. It runs again for a job only as another attempt of it."""
    runs = Counter(int(line.removeprefix("generate ")) for line in journal.read_text().splitlines())
    found.twice += [f"seed {seed}" for seed, count in runs.items() if count > attempts.get(seed, 0)]
    found.again = sum(runs.values()) - len(runs)


def _strays(jobs: Path, found: Findings) -> list[str]:
    """Folders of jobs that have no files, and files that no job needs any longer."""
    kept = {job for job, end in found.ends.items() if end == "finished"}
    strays = [folder.name for folder in jobs.iterdir() if folder.name not in kept]
    return strays + [str(path) for path in jobs.glob("*/*") if path.name != "result"]


def _ended(client: httpx.Client, job: str) -> dict[str, Any] | None:
    found: dict[str, Any] = client.get(f"/jobs/{job}").json()
    return found if found["status"] in ("finished", "failed", "cancelled") else None


__all__ = ["Amount", "Findings", "kill_at_random"]
