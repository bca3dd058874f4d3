"""The gateway on Modal, through its own `web` function: what reaches a GPU, and what comes back."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from typing import Any

import modal
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.trellis2_modal import fake
from tests.trellis2_modal.deploy.conftest import Deployed
from tests.trellis2_modal.deploy.emulated import MANIFEST, EmulatedModal, HostedFake, until, wait_for_call
from tests.trellis2_modal.server import picture
from trellis2_modal.jobs import engine
from trellis2_modal.jobs.modal import ports
from trellis2_modal.jobs.settings import JobSettings
from trellis2_modal.protocol.state import decompress_state, unpack_state
from trellis2_modal.service.deploy.model_host import SnapshotError
from trellis2_modal.service.deploy.weights.manifest import WeightsError

Deploy = Callable[..., Deployed]
Body = dict[str, Any]


def submit(client: TestClient, body: Body, **headers: str) -> dict[str, Any]:
    reply = client.post("/generate", json=body, headers={"Prefer": "respond-async", **headers})
    assert reply.status_code == 202, reply.text
    job: dict[str, Any] = reply.json()
    return job


def finished(client: TestClient, job: str) -> dict[str, Any]:
    """Poll as a script would."""
    found: dict[str, Any] = {}

    def over() -> bool:
        found.update(client.get(f"/jobs/{job}").json())
        return found["status"] in ("finished", "failed", "cancelled")

    until(over, f"job {job}")
    return found


def events(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Id, type and document of each event of a stream."""
    found = re.findall(r"id: (\d+)\nevent: (\w+)\ndata: (.*)\n", text)
    return [(int(number), kind, json.loads(data)["data"]) for number, kind, data in found]


def problem(reply: Any) -> tuple[int, str]:
    return reply.status_code, reply.json()["type"]


# --- who reaches a GPU --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/generate"),
        ("POST", "/extract_glb"),
        ("POST", "/jobs"),
        ("GET", "/jobs"),
        ("GET", "/jobs/job_00000000000000000000000000000000"),
        ("DELETE", "/jobs/job_00000000000000000000000000000000"),
        ("GET", "/jobs/job_00000000000000000000000000000000/events"),
        ("GET", "/jobs/job_00000000000000000000000000000000/state"),
        ("POST", "/matte"),
        ("GET", "/usage"),
    ],
)
@pytest.mark.parametrize("key", ["", "sk_wrong", "\x7f" * 300])
def test_without_a_valid_key_nothing_reaches_modal(
    deployed: Deployed, body: Body, method: str, path: str, key: str
) -> None:
    with deployed.gateway("") as client:
        deployed.modal.asked.clear()
        reply = client.request(method, path, json=body, headers={"X-API-Key": key} if key else {})
        assert problem(reply) == (401, "unauthenticated")
        assert not {"spawn", "outcome", "record", "claim", "cancel"} & set(deployed.modal.asked)
    assert deployed.modal.spawned == []


def test_revoked_expired_and_unscoped_keys_start_nothing(deployed: Deployed, body: Body) -> None:
    revoked, _ = deployed.admin.create("gone")
    secret = deployed.new_key("extracts only", scopes=["extract"])
    old = deployed.new_key("old", expires=1.0)
    deployed.admin.revoke(revoked.id)
    with deployed.gateway("") as client:
        for key, expected in ((secret, 403), (old, 401)):
            assert client.post("/generate", json=body, headers={"X-API-Key": key}).status_code == expected
    assert deployed.modal.spawned == []


@pytest.mark.parametrize(
    "change",
    [
        {"image": "AAAA"},
        {"seed": -1},
        {"pipeline_type": "1024"},
        {"unknown": 1},
        {"ss_sampling_steps": 10_000},
    ],
)
def test_a_bad_request_starts_nothing(deployed: Deployed, body: Body, change: Body) -> None:
    with deployed.gateway() as client:
        assert client.post("/generate", json=body | change).status_code == 400
    assert deployed.modal.spawned == []


def test_health_and_documentation_wake_nobody(deployed: Deployed) -> None:
    with deployed.gateway("") as client:
        deployed.modal.asked.clear()
        health = client.get("/health").json()
        assert client.get("/openapi.json").status_code == 200
    assert health["status"] == "ok"
    assert health["pipeline_types"] == ["512"]
    assert health["queue_limit"] == 16
    assert health["device"] == "A100-80GB"
    assert deployed.modal.spawned == []
    assert deployed.modal.asked["outcome"] == 0


def test_a_matte_is_made_without_a_gpu(deployed: Deployed, body: Body) -> None:
    with deployed.gateway() as client:
        assert client.get("/health").json()["matte"] is True
        made = client.post("/matte", json={"image": body["image"]})
        assert made.status_code == 200, made.text
        with Image.open(io.BytesIO(made.content)) as picture:
            assert (picture.format, picture.mode) == ("PNG", "RGBA")
            assert picture.getchannel("A").getextrema() == (0, 255)
    assert deployed.modal.spawned == []
    assert deployed.modal.containers_made == 0


def test_keys_are_read_again_without_a_reload(deployed: Deployed, body: Body) -> None:
    with deployed.gateway("") as client:
        late = deployed.new_key("made after the gateway started")
        assert client.get("/usage", headers={"X-API-Key": late}).status_code == 200
        deployed.volume.failing = OSError("the volume is gone")
        assert client.get("/usage", headers={"X-API-Key": late}).status_code == 200  # the last good copy
    with deployed.gateway(late) as client:  # a gateway that never read one lets nobody in
        assert problem(client.post("/generate", json=body)) == (503, "unavailable")
    assert deployed.modal.spawned == []


# --- the two calls ------------------------------------------------------------------------------------------


def test_a_picture_becomes_a_state_and_the_state_a_glb(deployed: Deployed, body: Body) -> None:
    with deployed.gateway() as client:
        made = client.post("/generate", json=body | {"seed": 7, "preview": "frames"})
        assert made.status_code == 200, made.text
        reply = made.json()
        assert reply["seed"] == 7
        mesh = unpack_state(decompress_state(base64.b64decode(reply["state"])))
        assert len(mesh.faces) > 0
        assert base64.b64decode(reply["video"])[4:8] == b"ftyp"
        for source in ({"job": reply["job"]}, {"state": reply["state"]}):
            extracted = client.post("/extract_glb", json=source, headers={"Accept": "model/gltf-binary"})
            assert extracted.status_code == 200, extracted.text
            assert extracted.content[:4] == b"glTF"
    kinds = [deployed.modal.calls[call].kind for call in deployed.modal.spawned]
    assert kinds == ["generate", "extract", "extract"]


def test_the_state_of_a_job_never_travels_through_the_gateway_again(deployed: Deployed, body: Body) -> None:
    with deployed.gateway() as client:
        job = finished(client, submit(client, body)["id"])
        client.post("/extract_glb", json={"job": job["id"]})
    import pickle

    _, payload, source = pickle.loads(deployed.modal.calls[deployed.modal.spawned[1]].arguments)
    assert payload is None
    assert source == deployed.modal.spawned[0]


def test_progress_streams_and_resumes_where_it_stopped(deploy: Deploy, body: Body) -> None:
    deployed = deploy(step_seconds=0.05)
    with deployed.gateway() as client:
        stream = client.post("/generate", json=body, headers={"Accept": "text/event-stream"})
        assert stream.headers["content-type"].startswith("text/event-stream")
        seen = events(stream.text)
        assert [number for number, _, _ in seen] == list(range(1, len(seen) + 1))
        kinds = [kind for _, kind, _ in seen]
        assert kinds[:2] == ["queued", "started"]
        assert kinds[-1] == "result"
        assert "progress" in kinds
        assert seen[-1][2]["state"]
        job = client.get("/jobs").json()["jobs"][0]["id"]
    with deployed.gateway() as client:  # another gateway gives the same events the same ids
        whole = events(client.get(f"/jobs/{job}/events").text)
        assert [(n, k) for n, k, _ in whole] == [(n, k) for n, k, _ in seen]
        resumed = client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": "2"})
        assert [n for n, _, _ in events(resumed.text)] == [n for n, _, _ in seen[2:]]
        last = str(seen[-1][0])
        assert client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": last}).status_code == 204


def test_files_have_types_ranges_and_owners(deployed: Deployed, body: Body) -> None:
    with deployed.gateway() as client:
        job = finished(client, submit(client, body | {"preview": "video"})["id"])
        links = job["result"]["artifacts"]
        assert set(links) == {"state", "video"}
        whole = client.get(links["video"]["url"])
        assert whole.headers["content-type"] == "video/mp4"
        assert len(whole.content) == links["video"]["bytes"]
        part = client.get(links["video"]["url"], headers={"Range": "bytes=4-7"})
        assert (part.status_code, part.content) == (206, b"ftyp")
        assert problem(client.get(f"/jobs/{job['id']}/glb")) == (404, "not-found")
        stranger = {"X-API-Key": deployed.new_key("stranger")}
        for method, path in (
            ("GET", f"/jobs/{job['id']}"),
            ("GET", f"/jobs/{job['id']}/state"),
            ("GET", f"/jobs/{job['id']}/events"),
            ("DELETE", f"/jobs/{job['id']}"),
        ):
            assert problem(client.request(method, path, headers=stranger)) == (404, "not-found")
        theirs = client.post("/extract_glb", json={"job": job["id"]}, headers=stranger)
        assert problem(theirs) == (404, "not-found")
        assert client.get("/jobs", headers=stranger).json()["jobs"] == []
    assert len(deployed.modal.spawned) == 1


# --- the queue ----------------------------------------------------------------------------------------------


def test_the_queue_is_bounded_and_counts_what_waits(
    deploy: Deploy, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS2_QUEUE_LIMIT", "2")
    deployed = deploy()
    deployed.modal.pause()
    with deployed.gateway() as client:
        first, second = (submit(client, body)["id"] for _ in range(2))
        assert client.get(f"/jobs/{second}").json()["position"] == 1
        full = client.post("/generate", json=body)
        assert problem(full) == (503, "queue-full")
        assert int(full.headers["retry-after"]) > 0
        assert client.get("/health").json()["queued"] == 2
        deployed.modal.resume()
        assert finished(client, first)["status"] == "finished"
        assert finished(client, second)["status"] == "finished"
        submit(client, body)
    assert len(deployed.modal.spawned) == 3


def test_a_key_has_only_so_many_unfinished_jobs(
    deploy: Deploy, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS2_MAX_ACTIVE_JOBS", "1")
    deployed = deploy()
    deployed.modal.pause()
    with deployed.gateway() as client:
        submit(client, body)
        assert problem(client.post("/generate", json=body)) == (429, "too-many-jobs")
        assert client.get("/usage").json()["active_jobs"] == 1
    assert len(deployed.modal.spawned) == 1


def test_gpu_seconds_are_charged_and_run_out(deploy: Deploy, body: Body) -> None:
    deployed = deploy(step_seconds=0.02)
    poor = deployed.new_key("poor", gpu_seconds_per_day=0.01)
    with deployed.gateway(poor) as client:
        job = finished(client, submit(client, body)["id"])
        used = client.get("/usage").json()["gpu_seconds_used"]
        assert used >= 0.08
        assert problem(client.post("/generate", json=body)) == (429, "quota-exceeded")
        assert job["attempt"] == 1
    with deployed.gateway(poor) as client:  # and a new gateway still knows
        assert client.get("/usage").json()["gpu_seconds_used"] == pytest.approx(used)
    assert len(deployed.modal.spawned) == 1


def test_seconds_and_their_price_are_told(
    deploy: Deploy, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRELLIS2_GPU_PRICE_PER_HOUR", "3600")
    monkeypatch.setenv("TRELLIS2_CURRENCY", "EUR")
    deployed = deploy(step_seconds=0.02)
    with deployed.gateway() as client:
        stats = finished(client, submit(client, body)["id"])["result"]["stats"]
        usage = client.get("/usage").json()
        assert 0.08 <= stats["gpu_seconds"] < 20
        assert (stats["price"], stats["currency"]) == (pytest.approx(stats["gpu_seconds"], abs=1e-3), "EUR")
        assert usage["price_used"] == pytest.approx(usage["gpu_seconds_used"], abs=1e-3)
        assert (usage["gpu_price_per_hour"], usage["currency"]) == (3600, "EUR")
        whole = client.post("/generate", json=body).json()["stats"]
        assert whole["price"] > 0


def test_without_a_rate_there_is_no_price(deployed: Deployed, body: Body) -> None:
    with deployed.gateway() as client:
        stats = finished(client, submit(client, body)["id"])["result"]["stats"]
        assert "gpu_seconds" in stats
        assert "price" not in stats
        assert client.get("/usage").json()["price_used"] is None


def test_the_same_idempotency_key_is_the_same_job(deployed: Deployed, body: Body) -> None:
    tag = {"Idempotency-Key": "order-1"}
    with deployed.gateway() as client:
        first = submit(client, body, **tag)
        assert submit(client, body, **tag)["id"] == first["id"]
        other = client.post("/generate", json=body | {"seed": 1}, headers=tag)
        assert problem(other) == (409, "idempotency-conflict")
    with deployed.gateway() as client:
        assert submit(client, body, **tag)["id"] == first["id"]
        theirs = {"X-API-Key": deployed.new_key("stranger"), **tag}
        assert submit(client, body, **theirs)["id"] != first["id"]
    assert len(deployed.modal.spawned) == 2


def test_a_request_that_is_delivered_again_runs_once(
    deployed: Deployed, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform repeats what a dying gateway had not answered, under the input's old id."""
    delivery = ["in-1"]
    monkeypatch.setattr(modal, "current_input_id", lambda: delivery[0])
    deployed.modal.pause()
    with deployed.gateway() as client:
        first = submit(client, body)["id"]
    deployed.modal.resume()
    with deployed.gateway() as client:  # another container, which has not seen the request
        again = client.post("/generate", json=body)
        assert (again.status_code, again.json()["job"]) == (200, first)
        assert len(deployed.modal.spawned) == 1
        stranger = {"X-API-Key": deployed.new_key("stranger")}
        assert submit(client, body, **stranger)["id"] != first
        delivery[0] = "in-2"
        assert submit(client, body)["id"] != first
        tagged = submit(client, body, **{"Idempotency-Key": "order-1"})["id"]
        delivery[0] = "in-3"
        assert submit(client, body, **{"Idempotency-Key": "order-1"})["id"] == tagged
    assert len(deployed.modal.spawned) == 4


def test_a_submission_that_was_cut_off_is_taken_up_by_its_repeat(
    deployed: Deployed, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = {"Idempotency-Key": "order-2"}
    deployed.modal.pause()
    with deployed.gateway() as client:
        job = submit(client, body, **tag)["id"]
    stored = deployed.modal.jobs.get(job)
    deployed.modal.jobs.put(job, stored | {"handle": None})  # as if the gateway had died before the call
    with deployed.gateway() as client:
        again = client.post("/generate", json=body, headers={"Prefer": "respond-async", **tag})
        assert (again.status_code, again.headers["retry-after"]) == (503, "10")
        assert len(deployed.modal.spawned) == 1  # it may still be on its way
    monkeypatch.setattr(engine, "WATCH_INTERVAL", 60.0)
    with deployed.gateway() as client:
        monkeypatch.setattr(engine, "UNSTARTED", -1.0)
        assert submit(client, body, **tag)["id"] == job
        deployed.modal.resume()
        assert finished(client, job)["status"] == "finished"
    assert len(deployed.modal.spawned) == 2


def test_jobs_outlive_the_gateway(deploy: Deploy, body: Body) -> None:
    deployed = deploy(step_seconds=0.02)
    with deployed.gateway() as client:
        jobs = [submit(client, body | {"seed": n})["id"] for n in range(3)]
    for call in deployed.modal.spawned:
        wait_for_call(deployed.modal, call)
    with deployed.gateway() as client:
        listed = client.get("/jobs?limit=2").json()
        assert [job["id"] for job in listed["jobs"]] == [jobs[2], jobs[1]]
        rest = client.get("/jobs", params={"before": listed["next"]}).json()
        assert [job["id"] for job in rest["jobs"]] == [jobs[0]]
        assert {job["status"] for job in listed["jobs"]} == {"finished"}
        assert client.get(f"/jobs/{jobs[0]}/state").status_code == 200


# --- stopping and failing -----------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_and_never_runs(deployed: Deployed, body: Body) -> None:
    deployed.modal.pause()
    with deployed.gateway() as client:
        job = submit(client, body)["id"]
        reply = client.delete(f"/jobs/{job}")
        assert (reply.status_code, reply.json()["status"]) == (200, "cancelled")
        deployed.modal.resume()
        assert problem(client.get(f"/jobs/{job}/state")) == (409, "cancelled")
        assert finished(client, submit(client, body)["id"])["status"] == "finished"
        assert client.delete(f"/jobs/{job}").json()["status"] == "cancelled"
    assert [deployed.modal.calls[call].runs for call in deployed.modal.spawned] == [0, 1]


def test_a_running_job_is_cancelled_and_its_container_goes_on(deploy: Deploy, body: Body) -> None:
    deployed = deploy(step_seconds=0.1)
    with deployed.gateway() as client:
        job = submit(client, body)["id"]
        until(lambda: client.get(f"/jobs/{job}").json()["status"] == "running", "the start")
        freed = HostedFake.freed
        assert client.delete(f"/jobs/{job}").json()["status"] == "cancelled"
        wait_for_call(deployed.modal, deployed.modal.spawned[0])
        assert HostedFake.freed == freed + 1
        assert "cancelled" in repr(deployed.modal.calls[deployed.modal.spawned[0]].error)
        kinds = [kind for _, kind, _ in events(client.get(f"/jobs/{job}/events").text)]
        assert kinds[-1] == "cancelled"
        assert finished(client, submit(client, body)["id"])["status"] == "finished"
        assert client.get("/usage").json()["gpu_seconds_used"] > 0
    assert deployed.modal.containers_made == 1


def test_cancelling_a_finished_job_leaves_it(deployed: Deployed, body: Body) -> None:
    with deployed.gateway() as client:
        job = submit(client, body)["id"]
        wait_for_call(deployed.modal, deployed.modal.spawned[0])
        reply = client.delete(f"/jobs/{job}")
        assert (reply.status_code, reply.json()["status"]) == (200, "finished")


@pytest.mark.parametrize(
    ("seed", "status", "slug"),
    [(fake.OUT_OF_MEMORY, 507, "out-of-memory"), (fake.BUG, 500, "internal-error")],
)
def test_a_failing_job_says_why_and_its_container_goes_on(
    deployed: Deployed, body: Body, seed: int, status: int, slug: str
) -> None:
    with deployed.gateway() as client:
        reply = client.post("/generate", json=body | {"seed": seed})
        assert problem(reply) == (status, slug)
        assert "/root" not in reply.text
        if status == 507:
            assert reply.json()["suggested"] == {"pipeline_type": "512"}
        assert client.post("/generate", json=body).status_code == 200
    assert deployed.modal.containers_made == 1
    assert [deployed.modal.calls[call].runs for call in deployed.modal.spawned] == [1, 1]


def test_a_lost_gpu_retires_the_container_and_the_job_runs_again(deployed: Deployed, body: Body) -> None:
    with deployed.gateway() as client:
        job = finished(client, submit(client, body | {"seed": fake.DEVICE_LOST})["id"])
        assert job["status"] == "failed"
        assert job["problem"]["type"] == "worker-died"
        assert client.post("/generate", json=body).status_code == 200
    assert deployed.modal.calls[deployed.modal.spawned[0]].runs == 2
    assert deployed.modal.containers_made == 3


def test_a_poison_job_starts_two_containers_and_pays_for_both(deploy: Deploy, body: Body) -> None:
    deployed = deploy(step_seconds=0.02)
    with deployed.gateway() as client:
        job = finished(client, submit(client, body | {"seed": fake.CRASH})["id"])
        assert (job["status"], job["problem"]["type"]) == ("failed", "worker-died")
        assert client.get("/usage").json()["gpu_seconds_used"] > 0
        assert client.post("/generate", json=body).status_code == 200
    assert deployed.modal.calls[deployed.modal.spawned[0]].runs == 2
    assert deployed.modal.containers_made == 2


def test_a_preempted_job_runs_again(deployed: Deployed, body: Body) -> None:
    deployed.modal.preempt_next = 1
    with deployed.gateway() as client:
        job = finished(client, submit(client, body)["id"])
        assert (job["status"], job["attempt"]) == ("finished", 2)
        kinds = [kind for _, kind, _ in events(client.get(f"/jobs/{job['id']}/events").text)]
        assert kinds.count("started") == 2
        assert kinds.count("restarted") == 1


def test_what_modal_keeps_no_longer_is_gone(deployed: Deployed, body: Body) -> None:
    with deployed.gateway() as client:
        job = finished(client, submit(client, body)["id"])["id"]
        deployed.modal.expired.add(deployed.modal.spawned[0])
    with deployed.gateway() as client:
        assert problem(client.get(f"/jobs/{job}/state")) == (410, "expired")
        assert client.get(f"/jobs/{job}").json()["status"] == "expired"
        assert problem(client.post("/extract_glb", json={"job": job})) == (410, "expired")


def test_files_expire_by_the_clock_too(deploy: Deploy, body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRELLIS2_RETENTION", "-1")
    deployed = deploy()
    with deployed.gateway() as client:
        job = submit(client, body)["id"]
        until(lambda: client.get(f"/jobs/{job}").json()["status"] == "expired", "the expiry")
        assert problem(client.get(f"/jobs/{job}/state")) == (410, "expired")


def test_old_jobs_are_forgotten(deploy: Deploy, body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRELLIS2_ROW_RETENTION", "0")
    deployed = deploy()
    with deployed.gateway() as client:
        job = submit(client, body)["id"]
        until(lambda: client.get(f"/jobs/{job}").status_code == 404, "the job to be forgotten")
    assert deployed.modal.jobs.values == {}


def test_a_job_that_no_container_takes_is_ended(
    deployed: Deployed, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobSettings, "longest_wait", lambda self, ahead: 0.05)
    deployed.modal.pause()
    with deployed.gateway() as client:
        job = finished(client, submit(client, body)["id"])
        assert (job["status"], job["problem"]["type"]) == ("failed", "unavailable")
    assert deployed.modal.calls[deployed.modal.spawned[0]].done.is_set()


# --- containers that cannot start ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "starts"),
    [
        (WeightsError("/weights/x has no complete.json; run: modal run download"), 2),
        (SnapshotError("CUDA was initialised before the snapshot"), 2),
        (RuntimeError("the image encoder cannot be loaded"), 2),
        (fake.KilledError(), 3),  # without a word, it takes one more to know
    ],
)
def test_a_start_that_fails_costs_two_starts_and_is_told_to_all(
    deployed: Deployed,
    body: Body,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    starts: int,
) -> None:
    monkeypatch.setattr(ports, "WEIGHTS_INTERVAL", 0.05)
    deployed.modal.start_fails = failure
    deployed.modal.pause()
    with deployed.gateway() as client:
        waiting = [submit(client, body | {"seed": n})["id"] for n in range(3)]
        deployed.modal.resume()
        for job in waiting:
            told = finished(client, job)
            assert (told["status"], told["problem"]["type"]) == ("failed", "unavailable")
            assert "the service cannot start: " in told["problem"]["detail"]
            assert str(failure).rpartition("/")[2] in told["problem"]["detail"]
            assert "/weights/" not in told["problem"]["detail"]
        until(lambda: client.get("/health").json()["status"] == "degraded", "the gateway to know")
        assert problem(client.post("/generate", json=body)) == (503, "unavailable")
        assert deployed.modal.containers_made == starts
        assert client.get("/usage").json()["gpu_seconds_used"] == 0
        deployed.modal.redeploy()
        until(lambda: client.get("/health").json()["status"] == "ok", "the gateway to recover")
        assert client.post("/generate", json=body).status_code == 200
        until(lambda: client.get("/health").json()["backends"], "the new containers' own word")
        assert client.get("/health").json()["backends"] == {"attention": "sdpa: first choice"}
    assert deployed.modal.containers_made == starts + 1
    assert len(deployed.modal.spawned) == 4


# --- when things are not in place ---------------------------------------------------------------------------


def test_without_weights_jobs_are_refused_until_they_are_there(
    deployed: Deployed, body: Body, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ports, "WEIGHTS_INTERVAL", 0.05)
    deployed.modal.manifest_now = WeightsError("x is not there; run: modal run -m w::download_weights")
    with deployed.gateway() as client:
        assert client.get("/health").json()["status"] == "degraded"
        assert problem(client.post("/generate", json=body)) == (503, "unavailable")
        assert "run: modal run" in caplog.text
        deployed.modal.manifest_now = MANIFEST
        until(lambda: client.get("/health").json()["status"] == "ok", "the weights")
        assert client.post("/generate", json=body).status_code == 200
    assert len(deployed.modal.spawned) == 1


def test_an_unreachable_modal_is_a_503_and_then_works_again(
    deployed: Deployed, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.modal.broken = True
    with monkeypatch.context() as patched:
        patched.setattr(engine, "START_TIMEOUT", 0.2)  # Modal does not answer, however long one waits
        with deployed.gateway() as client:
            assert client.get("/health").json()["status"] == "starting"
            assert problem(client.post("/generate", json=body)) == (503, "unavailable")
    deployed.modal.broken = False
    with deployed.gateway() as client:
        job = submit(client, body)["id"]
        finished(client, job)
        deployed.modal.broken = True
        assert problem(client.post("/generate", json=body)) == (503, "unavailable")
        assert client.get(f"/jobs/{job}").json()["status"] == "finished"
        assert client.get("/usage").json()["active_jobs"] == 0  # nothing of the refused job is left
        deployed.modal.broken = False
        assert client.post("/generate", json=body).status_code == 200


def test_watching_costs_one_question_an_interval(
    deploy: Deploy, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed = deploy()
    monkeypatch.setenv("TRELLIS2_EVENT_INTERVAL", "30")
    deployed.modal.pause()
    with deployed.gateway() as client:
        job = submit(client, body)["id"]
        for _ in range(20):
            assert client.get(f"/jobs/{job}").json()["status"] == "queued"
        assert deployed.modal.asked["outcome"] <= 1


def test_multipart_works_too(deployed: Deployed) -> None:
    with deployed.gateway() as client:
        reply = client.post("/jobs", files={"image": picture()}, data={"preview": "none", "seed": "3"})
        assert reply.status_code == 202, reply.text
        assert finished(client, reply.json()["id"])["result"]["seed"] == 3


def test_the_emulation_keeps_modals_rules(deployed: Deployed) -> None:
    assert isinstance(deployed.modal, EmulatedModal)
    table = deployed.modal.jobs
    value = {"nested": [1]}
    table.put("a", value)
    value["nested"].append(2)
    assert table.get("a") == {"nested": [1]}


def test_a_submission_that_was_cut_off_and_never_repeated_is_forgotten(
    deployed: Deployed, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller was never told of it: it neither fails nor counts among the unfinished jobs."""
    deployed.modal.pause()
    with deployed.gateway() as client:
        job = submit(client, body)["id"]
    deployed.modal.jobs.put(job, deployed.modal.jobs.get(job) | {"handle": None})
    monkeypatch.setattr(engine, "UNSTARTED", -1.0)
    with deployed.gateway() as client:
        until(lambda: client.get(f"/jobs/{job}").status_code == 404, "it is forgotten")
        assert client.get("/usage").json()["active_jobs"] == 0
