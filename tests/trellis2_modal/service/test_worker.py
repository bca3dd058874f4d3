"""The local backend when things end that should not: workers, servers, patience."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx

from tests.trellis2_modal import fake
from tests.trellis2_modal.attacks.kills import Amount, kill_at_random
from tests.trellis2_modal.server import ServerProcess, alive, others_can_open, running, wait_for
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


def test_nothing_is_lost_when_workers_and_servers_are_killed(tmp_path: Path) -> None:
    """A smaller amount of `python -m tests.trellis2_modal.attacks --only kills`."""
    amount = Amount(jobs=40, callers=8, server_kills=2, worker_kills=4, step_seconds=0.005)
    found = kill_at_random(tmp_path, amount)
    assert found.accepted >= amount.jobs
    assert (found.lost, found.twice, found.told_to_others, found.strays) == ([], [], [], [])
    assert len(found.ends) == found.accepted
    assert found.again <= amount.server_kills + amount.worker_kills


def test_what_a_job_leaves_is_private_and_a_cancelled_one_leaves_nothing(
    tmp_path: Path, body: dict[str, Any]
) -> None:
    folder, gate = tmp_path / "data", tmp_path / "gate"
    server = ServerProcess(folder, {"gate": str(gate)})
    _, key = server.admin.create("a", requests_per_minute=1000)
    server.start()
    try:
        with httpx.Client(base_url=server.url, headers={"X-API-Key": key}) as client:
            running_job, waiting = submit(client, body)["id"], submit(client, body)["id"]
            wait_for(lambda: client.get(f"/jobs/{running_job}").json()["progress"], "the first step")
            assert others_can_open(folder) == []
            client.delete(f"/jobs/{waiting}")
            assert not (folder / "jobs" / waiting).exists()
            client.delete(f"/jobs/{running_job}")
            assert not (folder / "jobs" / running_job / "input").exists()
            assert finished(client, running_job)["status"] == "cancelled"
            wait_for(lambda: not (folder / "jobs" / running_job).exists(), "the end of its folder")
            gate.touch()
            done = finished(client, submit(client, body)["id"])
            assert others_can_open(folder) == []
            assert [path.name for path in (folder / "jobs" / done["id"]).iterdir()] == ["result"]
    finally:
        server.stop()
