"""The local backend when things end that should not: workers, servers, patience."""

from __future__ import annotations

import base64
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from tests.trellis2_modal import fake
from tests.trellis2_modal.server import ServerProcess, alive, picture, running, wait_for
from tests.trellis2_modal.service.test_api import finished, submit

SLOW = {"step_seconds": 0.25}


def status(client: httpx.Client, job: str) -> str:
    return str(client.get(f"/jobs/{job}").json()["status"])


def wait_until_running(client: httpx.Client, job: str) -> None:
    wait_for(lambda: status(client, job) == "running", f"the start of {job}")


def test_a_running_job_stops_within_a_step(tmp_path: Path, body: dict[str, Any]) -> None:
    with running(tmp_path, options=SLOW) as server, server.client() as client:
        job = submit(client, body)["id"]
        wait_until_running(client, job)
        start = time.monotonic()
        assert client.delete(f"/jobs/{job}").status_code == 202
        assert finished(client, job)["status"] == "cancelled"
        assert time.monotonic() - start < 4 * SLOW["step_seconds"] + 1.0
        wait_for(lambda: not (tmp_path / "jobs" / job).exists(), "the end of the job's files", 5.0)


def test_a_deaf_job_is_cancelled_with_its_worker(tmp_path: Path, body: dict[str, Any]) -> None:
    with running(tmp_path, cancel_grace=0.2) as server, server.client() as client:
        job = submit(client, body | {"seed": fake.DEAF})["id"]
        wait_until_running(client, job)
        client.delete(f"/jobs/{job}")
        assert finished(client, job)["status"] == "cancelled"
        assert finished(client, submit(client, body)["id"])["status"] == "finished"


def test_a_job_may_not_run_for_ever(tmp_path: Path, body: dict[str, Any]) -> None:
    with running(tmp_path, job_timeout=1.0) as server, server.client() as client:
        job = finished(client, submit(client, body | {"seed": fake.DEAF})["id"])
        assert job["problem"]["type"] == "job-timeout"
        assert finished(client, submit(client, body)["id"])["status"] == "finished"


def test_a_killed_worker_costs_a_try_not_the_job(tmp_path: Path, body: dict[str, Any]) -> None:
    with running(tmp_path, options=SLOW) as server, server.client() as client:
        job = submit(client, body)["id"]
        wait_until_running(client, job)
        os.kill(int((tmp_path / "worker.lock").read_text()), signal.SIGKILL)
        done = finished(client, job)
        assert (done["status"], done["attempt"]) == ("finished", 2)
        types = [line for line in client.get(f"/jobs/{job}/events").text.splitlines() if "event:" in line]
        assert "event: restarted" in types


def test_a_stopped_server_puts_its_job_back(tmp_path: Path, body: dict[str, Any]) -> None:
    server = ServerProcess(tmp_path, SLOW, shutdown_grace=0.1)
    _, key = server.admin.create("a", requests_per_minute=1000)
    server.start()
    with httpx.Client(base_url=server.url, headers={"X-API-Key": key}) as client:
        job = submit(client, body)["id"]
        wait_until_running(client, job)
    assert server.stop() in (0, -signal.SIGTERM)  # uvicorn ends by the signal it was sent
    server.start()
    try:
        with httpx.Client(base_url=server.url, headers={"X-API-Key": key}) as client:
            assert finished(client, job)["status"] == "finished"
    finally:
        server.stop()


def test_a_stopping_server_ends_its_streams(tmp_path: Path, body: dict[str, Any]) -> None:
    options = {"step_seconds": 30}
    with running(tmp_path, options=options, shutdown_grace=0.0) as server, server.client() as client:
        job = submit(client, body)["id"]
        with client.stream("GET", f"/jobs/{job}/events") as stream:
            lines = stream.iter_lines()
            while "event: progress" not in next(lines):
                pass
            assert server.server is not None
            start = time.monotonic()
            server.server.handle_exit(signal.SIGTERM, None)
            assert "event: result" not in list(lines)
            assert time.monotonic() - start < 5


def test_a_worker_does_not_outlive_its_server(tmp_path: Path, body: dict[str, Any]) -> None:
    server = ServerProcess(tmp_path, SLOW)
    _, key = server.admin.create("a", requests_per_minute=1000)
    server.start()
    with httpx.Client(base_url=server.url, headers={"X-API-Key": key}) as client:
        job = submit(client, body)["id"]
        wait_until_running(client, job)
    worker = server.worker_pid()
    assert worker is not None
    server.kill()
    wait_for(lambda: not alive(worker), "the worker's end")
    server.start()
    try:
        with httpx.Client(base_url=server.url, headers={"X-API-Key": key}) as client:
            assert finished(client, job)["status"] == "finished"
    finally:
        server.stop()


# --- chaos ----------------------------------------------------------------------------------------------

JOBS, CLIENTS, WORKER_KILLS, SERVER_KILLS = 200, 20, 10, 3


class Caller(threading.Thread):
    """One client with a key of its own: submits, sometimes cancels, tries again while the server is down."""

    def __init__(self, url: str, key: str, number: int) -> None:
        super().__init__(daemon=True)
        self.accepted: dict[str, bool] = {}
        self.key = key
        self._url = url
        self._random = random.Random(number)
        self._number = number

    def run(self) -> None:
        with httpx.Client(base_url=self._url, headers={"X-API-Key": self.key}, timeout=10) as client:
            for count in range(JOBS // CLIENTS):
                job = self._submit(client, f"{self._number}-{count}", 1000 * self._number + count)
                cancel = self._random.random() < 0.2
                self.accepted[job] = cancel
                if cancel:
                    _insist(lambda job=job: client.delete(f"/jobs/{job}"))  # type: ignore[misc]

    def _submit(self, client: httpx.Client, name: str, seed: int) -> str:
        image = base64.b64encode(picture(seed=seed)).decode()
        body = {"kind": "generate", "image": image, "seed": seed, "preview": "none"}

        def post() -> httpx.Response | None:
            reply = client.post("/jobs", json=body, headers={"Idempotency-Key": name})
            return reply if reply.status_code == 202 else None  # else busy: 429, 503

        return str(_insist(post).json()["id"])


def _insist(call: Any) -> Any:
    def attempt() -> Any:
        try:
            return call()
        except httpx.TransportError:
            return None

    return wait_for(attempt, "the server's answer", 60)


def test_nothing_is_lost_when_workers_and_servers_are_killed(tmp_path: Path) -> None:
    journal = tmp_path / "journal.txt"
    options = {"step_seconds": 0.005, "journal": str(journal)}
    server = ServerProcess(tmp_path / "data", options, queue_limit=60, max_attempts=5)
    keys = [
        server.admin.create(f"caller {i}", requests_per_minute=100_000, gpu_seconds_per_day=1e6)[1]
        for i in range(CLIENTS)
    ]
    server.start()
    callers = [Caller(server.url, key, i) for i, key in enumerate(keys)]
    for caller in callers:
        caller.start()
    _kill_at_random(server)
    for caller in callers:
        caller.join(120)
    accepted = {job: (caller, cancel) for caller in callers for job, cancel in caller.accepted.items()}
    assert len(accepted) == JOBS
    try:
        attempts = _check_every_job(server, callers, keys)
    finally:
        server.stop()
    # a line is written when the model has returned; a kill between that and the publishing of its result is
    # the one thing that makes the model run for the same job again, and it counts as another attempt
    runs = Counter(journal.read_text().splitlines())
    for line, count in runs.items():
        assert count <= attempts[int(line.removeprefix("generate "))], line
    assert sum(runs.values()) - len(runs) <= WORKER_KILLS + SERVER_KILLS


def _kill_at_random(server: ServerProcess) -> None:
    chaos = random.Random(4)
    victims = ["worker"] * WORKER_KILLS + ["server"] * SERVER_KILLS
    chaos.shuffle(victims)
    for victim in victims:
        threading.Event().wait(chaos.uniform(0.1, 0.5))
        if victim == "server":
            server.kill()
            server.start()
            continue
        server.kill_worker()


def _check_every_job(server: ServerProcess, callers: list[Caller], keys: list[str]) -> dict[int, int]:
    """Every job has ended, once, and for its owner alone; how often each seed's job was taken up."""
    attempts: dict[int, int] = {}
    for caller, other in zip(callers, keys[1:] + keys[:1], strict=True):
        with httpx.Client(base_url=server.url, headers={"X-API-Key": caller.key}, timeout=30) as client:
            listed = client.get("/jobs", params={"limit": 100}).json()["jobs"]
            assert {job["id"] for job in listed} == set(caller.accepted)
            for job, cancel in caller.accepted.items():
                end = wait_for(lambda job=job: _ended(client, job), f"the end of {job}", 60)  # type: ignore[misc]
                attempts[end["settings"]["seed"]] = end["attempt"]
                lines = client.get(f"/jobs/{job}/events").text.splitlines()
                finals = [x for x in lines if x in ("event: result", "event: failed", "event: cancelled")]
                assert len(finals) == 1, lines
                if end["status"] == "finished":
                    url = f"/jobs/{job}/state"
                    assert client.get(url).status_code == 200
                    theirs = httpx.get(server.url + url, headers={"X-API-Key": other})
                    assert theirs.status_code == 404
                elif end["status"] == "cancelled":
                    assert cancel
                else:
                    assert end["problem"]["type"] == "worker-died"
    return attempts


def _ended(client: httpx.Client, job: str) -> dict[str, Any] | None:
    found: dict[str, Any] = client.get(f"/jobs/{job}").json()
    return found if found["status"] in ("finished", "failed", "cancelled") else None
