"""The API as a caller meets it: a real uvicorn, a worker process, the fake generator."""

from __future__ import annotations

import base64
import json
import re
import time
import zlib
from typing import Any

import httpx
import pytest

from tests.trellis2_modal import fake
from tests.trellis2_modal.server import Running, picture, wait_for
from trellis2_modal.client.compression import from_base64, load_state
from trellis2_modal.protocol.replies import (
    FINAL_STATES,
    GenerateResponse,
    Health,
    JobEvent,
    JobStatus,
    Problem,
    Usage,
)


def finished(client: httpx.Client, job: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/jobs/{job}").json()
        return found if found["status"] in FINAL_STATES else None

    return wait_for(look, f"the end of {job}")


def submit(client: httpx.Client, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    reply = client.post("/jobs", json={"kind": "generate", **body}, headers=headers)
    assert reply.status_code == 202, reply.text
    job: dict[str, Any] = reply.json()
    return job


def problem(reply: httpx.Response, status: int, slug: str) -> Problem:
    """The reply has to be a problem document that gives nothing away."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate(reply.json())
    assert (found.type, found.status) == (slug, status)
    assert found.request_id == reply.headers["x-request-id"]
    for secret in ("Traceback", "/root", "/tmp", "sk_", ".py"):
        assert secret not in reply.text
    return found


def events_of(reply: httpx.Response) -> list[JobEvent]:
    lines = [line for line in reply.text.splitlines() if line.startswith("data: ")]
    return [JobEvent.model_validate_json(line.removeprefix("data: ")) for line in lines]


def test_health_needs_no_key(server: Running) -> None:
    health = Health.model_validate(httpx.get(server.url + "/health").json())
    assert (health.status, health.service, health.pipeline_types) == ("ok", "trellis2-api", ["512"])


def test_generate_waits_and_answers_json(client: httpx.Client, body: dict[str, Any]) -> None:
    reply = client.post("/generate", json=body | {"seed": 7, "preview": "frames"})
    assert reply.status_code == 200
    answer = GenerateResponse.model_validate(reply.json())
    assert (answer.seed, answer.resolution) == (7, 16)
    assert len(load_state(from_base64(answer.state)).faces) > 100
    assert answer.video
    assert answer.preview
    assert answer.request_id == reply.headers["x-request-id"]


def test_generate_streams_progress_and_then_the_result(client: httpx.Client, body: dict[str, Any]) -> None:
    reply = client.post("/generate", json=body | {"seed": 8}, headers={"Accept": "text/event-stream"})
    events = events_of(reply)
    assert [e.id for e in events] == list(range(1, len(events) + 1))
    types = [e.type for e in events]
    assert types[:2] == ["queued", "started"]
    assert set(types[2:-1]) == {"progress"}
    assert types[-1] == "result"
    assert GenerateResponse.model_validate(events[-1].data).seed == 8


def test_respond_async_gives_a_job(client: httpx.Client, body: dict[str, Any]) -> None:
    reply = client.post("/generate", json=body, headers={"Prefer": "respond-async, wait=10"})
    assert reply.status_code == 202
    assert reply.headers["preference-applied"] == "respond-async"
    job = JobStatus.model_validate(reply.json())
    prefixed = httpx.URL("https://proxy.example/trellis/jobs").join(reply.headers["location"])
    assert prefixed.path == f"/trellis/jobs/{job.id}"
    done = JobStatus.model_validate(finished(client, job.id))
    assert done.result is not None
    assert done.settings["pipeline_type"] == "512"
    assert set(done.result.artifacts) == {"state"}


def test_extract_from_a_job_and_from_a_state(client: httpx.Client, body: dict[str, Any]) -> None:
    state = client.post("/generate", json=body).json()
    by_job = client.post("/extract_glb", json={"job": state["job"], "simplify": "web"})
    assert base64.b64decode(by_job.json()["glb"])[:4] == b"glTF"
    by_state = client.post(
        "/extract_glb", json={"state": state["state"]}, headers={"Accept": "model/gltf-binary"}
    )
    assert by_state.headers["content-type"] == "model/gltf-binary"
    assert by_state.content[:4] == b"glTF"


def test_an_extraction_as_a_job(client: httpx.Client, body: dict[str, Any]) -> None:
    source = finished(client, submit(client, body)["id"])["id"]
    submission = {"kind": "extract", "job": source, "simplify": "print", "decimation_target": 5000}
    done = finished(client, client.post("/jobs", json=submission).json()["id"])
    assert done["settings"]["decimation_target"] == 5000
    assert done["result"]["artifacts"]["glb"]["media_type"] == "model/stl"


def test_a_generation_makes_the_file_too(client: httpx.Client, body: dict[str, Any]) -> None:
    asked = body | {"export": {"simplify": "mobile"}}
    reply = client.post("/generate", json=asked).json()
    assert base64.b64decode(reply["asset"])[:4] == b"glTF"
    assert reply["state"]
    assert reply["stats"]["report"]["faces"] > 0
    job = client.get(f"/jobs/{reply['job']}").json()
    assert set(job["result"]["artifacts"]) == {"state", "glb", "asset"}
    assert job["settings"]["export"]["decimation_target"] == 15_000
    for link in (job["result"]["artifacts"][name] for name in ("asset", "glb")):
        assert client.get(link["url"]).content[:4] == b"glTF"
    alone = client.post("/generate", json=asked, headers={"Accept": "model/gltf-binary"})
    assert (alone.headers["content-type"], alone.content[:4]) == ("model/gltf-binary", b"glTF")
    plain = client.post("/generate", json=body, headers={"Accept": "model/gltf-binary"})
    problem(plain, 406, "not-acceptable")
    form = {"image": picture()}, {"export": '{"format": "stl"}', "preview": "none"}
    done = finished(client, client.post("/jobs", files=form[0], data=form[1]).json()["id"])
    assert done["result"]["artifacts"]["asset"]["media_type"] == "model/stl"
    broken = client.post("/jobs", files=form[0], data={"export": "web"})
    assert "not JSON" in problem(broken, 400, "invalid-request").detail


def test_a_file_needs_the_scope_of_extractions(server: Running, body: dict[str, Any]) -> None:
    with server.client(server.new_key("maker", scopes=["generate"])) as maker:
        asked = body | {"export": {"simplify": "web"}}
        problem(maker.post("/generate", json=asked), 403, "forbidden")
        problem(maker.post("/jobs", json=asked | {"kind": "generate"}), 403, "forbidden")
        data = {"export": "{}"}
        problem(maker.post("/jobs", files={"image": picture()}, data=data), 403, "forbidden")
        assert maker.post("/generate", json=body).status_code == 200


def test_the_key_as_a_bearer_token(server: Running) -> None:
    with httpx.Client(base_url=server.url) as bare:
        good = bare.get("/usage", headers={"Authorization": f"bearer {server.key}"})
        assert good.status_code == 200
        for wrong in ("Bearer sk_wrong", f"Basic {server.key}", "Bearer", server.key):
            refused = bare.get("/usage", headers={"Authorization": wrong})
            problem(refused, 401, "unauthenticated")
            assert refused.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize(
    ("path", "fields", "hint"),
    [
        ("/generate", {"simplify": "web"}, "inside export"),
        ("/extract_glb", {"job": "j", "ss_rescale_t": 2.0}, "/generate"),
        ("/generate", {"pipelin_type": "512"}, "did you mean pipeline_type?"),
        ("/generate", {"export": {"seed": 1}}, "/generate"),
    ],
)
def test_a_field_in_the_wrong_place_says_where_it_belongs(
    client: httpx.Client, body: dict[str, Any], path: str, fields: dict[str, Any], hint: str
) -> None:
    asked = fields if path == "/extract_glb" else body | fields
    assert hint in problem(client.post(path, json=asked), 400, "invalid-request").detail


def test_json_ends_with_a_line_break(client: httpx.Client, server: Running, body: dict[str, Any]) -> None:
    job = submit(client, body)["id"]
    for path in ("/", "/health", "/usage", "/jobs", f"/jobs/{job}", "/nowhere", "/openapi.json"):
        assert client.get(path).text.endswith("}\n"), path
    assert client.post("/generate", json=body).text.endswith("}\n")


def test_the_api_describes_itself(server: Running, client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    operations = [o for methods in document["paths"].values() for o in methods.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    assert {"generate", "extract_glb", "submit_job", "list_jobs", "cancel_job", "download_file"} <= set(ids)
    assert document["servers"][0]["url"] == "/"
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    for name in re.findall(r'"\$ref": "([^"]*)"', text):
        assert name.removeprefix("#/components/schemas/") in document["components"]["schemas"], name
    for operation in operations:
        for media, body in operation.get("requestBody", {}).get("content", {}).items():
            assert "example" in body or "examples" in body, (operation["operationId"], media)


def test_the_page_of_the_api_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "//" not in re.sub(r"https?://(127\.0\.0\.1|localhost|hooks?\.example|www\.rfc)[^<]*", "", page)
    assert "<script" not in page
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in page
    assert "pipeline_type" in page


def test_the_root_says_what_this_is(server: Running) -> None:
    with httpx.Client(base_url=server.url) as bare:
        found = bare.get("/").json()
        assert found["service"] == "trellis2-api"
        page = bare.get("/", headers={"Accept": "text/html"})
        assert page.headers["content-type"].startswith("text/html")
        for link in found["links"].values():
            assert f'href="{link}"' in page.text
            assert bare.get(f"/{link}").status_code == 200


def test_a_form_with_the_file_itself(client: httpx.Client) -> None:
    reply = client.post("/jobs", files={"image": picture()}, data={"seed": "9", "remove_background": "false"})
    job = finished(client, reply.json()["id"])
    assert job["status"] == "finished"
    assert (job["settings"]["seed"], job["settings"]["remove_background"]) == (9, False)
    state = client.get(f"/jobs/{job['id']}/state").content
    extraction = client.post("/jobs", files={"state": state}, data={"simplify": "mobile"})
    done = finished(client, extraction.json()["id"])
    assert done["settings"]["decimation_target"] == 15_000
    assert client.get(f"/jobs/{done['id']}/glb").content[:4] == b"glTF"


def test_downloads_know_ranges_and_validators(client: httpx.Client, body: dict[str, Any]) -> None:
    job = finished(client, submit(client, body | {"preview": "video"})["id"])
    url = job["result"]["artifacts"]["video"]["url"]
    whole = client.get(url)
    assert whole.headers["content-type"] == "video/mp4"
    assert len(whole.content) == job["result"]["artifacts"]["video"]["bytes"]
    for header, start, stop in (("bytes=0-99", 0, 100), ("bytes=100-", 100, None), ("bytes=-7", -7, None)):
        part = client.get(url, headers={"Range": header})
        assert part.status_code == 206
        assert part.content == whole.content[start:stop]
        assert int(part.headers["content-length"]) == len(part.content)
    assert client.get(url, headers={"Range": "bytes=0-1,4-5"}).status_code == 200
    problem(client.get(url, headers={"Range": "bytes=999999-"}), 416, "range-not-satisfiable")
    known = client.get(url, headers={"If-None-Match": whole.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    stale = client.get(url, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert stale.status_code == 200
    problem(client.get(f"/jobs/{job['id']}/glb"), 404, "not-found")


def test_events_resume_after_the_last_id(client: httpx.Client, body: dict[str, Any]) -> None:
    job = submit(client, body)["id"]
    every = events_of(client.get(f"/jobs/{job}/events"))
    assert every[-1].type == "result"
    rest = events_of(client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": str(every[2].id)}))
    assert rest == every[3:]
    over = client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": str(every[-1].id)})
    assert over.status_code == 204
    problem(client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": "x"}), 400, "invalid-request")


def test_a_watcher_that_leaves_harms_no_one(client: httpx.Client, body: dict[str, Any]) -> None:
    job = submit(client, body)["id"]
    with client.stream("GET", f"/jobs/{job}/events") as stream:
        next(stream.iter_lines())
    assert finished(client, job)["status"] == "finished"


def test_a_caller_that_leaves_loses_nothing(server: Running, body: dict[str, Any]) -> None:
    with server.client() as client:
        headers = {"Idempotency-Key": "left", "Accept": "text/event-stream"}
        with client.stream("POST", "/generate", json=body | {"seed": 77}, headers=headers) as stream:
            next(stream.iter_lines())
        again = client.post("/generate", json=body | {"seed": 77}, headers={"Idempotency-Key": "left"})
        assert again.json()["seed"] == 77


def test_jobs_are_listed_newest_first(server: Running, body: dict[str, Any]) -> None:
    with server.client(server.new_key()) as client:
        ids = [submit(client, body)["id"] for _ in range(3)]
        first = client.get("/jobs", params={"limit": 2}).json()
        assert [job["id"] for job in first["jobs"]] == ids[:0:-1]
        second = client.get("/jobs", params={"before": first["next"]}).json()
        assert [job["id"] for job in second["jobs"]] == ids[:1]
        assert second["next"] is None
        finished(client, ids[-1])


def test_cancel_a_queued_and_a_running_job(client: httpx.Client, body: dict[str, Any]) -> None:
    running = submit(client, body)["id"]
    queued = submit(client, body)["id"]
    assert client.delete(f"/jobs/{queued}").json()["status"] in ("cancelled", "running")
    client.delete(f"/jobs/{running}")
    assert finished(client, queued)["status"] == "cancelled"
    assert finished(client, running)["status"] in ("cancelled", "finished")
    problem(client.get(f"/jobs/{queued}/state"), 409, "cancelled")
    assert client.delete(f"/jobs/{queued}").json()["status"] == "cancelled"


def test_the_same_idempotency_key_is_one_generation(client: httpx.Client, body: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "once"}
    first = submit(client, body | {"seed": 5}, **headers)
    again = submit(client, body | {"seed": 5}, **headers)
    assert first["id"] == again["id"]
    other = client.post("/jobs", json={"kind": "generate", **body, "seed": 6}, headers=headers)
    problem(other, 409, "idempotency-conflict")
    problem(
        client.post("/generate", json=body, headers={"Idempotency-Key": "x" * 300}), 400, "invalid-request"
    )


def test_usage_adds_up(server: Running, body: dict[str, Any]) -> None:
    with server.client(server.new_key("counter", requests_per_minute=10)) as client:
        client.post("/generate", json=body)
        usage = Usage.model_validate(client.get("/usage").json())
        assert usage.gpu_seconds_used > 0
        assert usage.gpu_seconds_left < usage.gpu_seconds_per_day
        assert (usage.requests_per_minute, usage.requests_left, usage.active_jobs) == (10, 9, 0)


def test_metrics_are_there_when_asked_for(client: httpx.Client) -> None:
    text = client.get("/metrics").text
    assert 'trellis2_requests_total{method="GET",route="/health",status="200"}' in text
    assert "trellis2_jobs" in text


def test_openapi_has_examples_and_problems(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    generate = document["paths"]["/generate"]["post"]
    assert generate["requestBody"]["content"]["application/json"]["example"]["seed"] == 42
    assert "application/problem+json" in generate["responses"]["507"]["content"]
    assert "ApiKey" in document["components"]["securitySchemes"]
    assert client.get("/docs").status_code == 200


# --- who may come in ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "sk_wrong", "é".encode().decode("latin-1")])
@pytest.mark.parametrize(("method", "path"), [("GET", "/usage"), ("POST", "/generate"), ("GET", "/jobs/x")])
def test_no_or_wrong_key(server: Running, key: str, method: str, path: str) -> None:
    headers = {"X-API-Key": key.encode("latin-1")} if key else {}
    reply = httpx.request(method, server.url + path, headers=headers)
    problem(reply, 401, "unauthenticated")
    assert "www-authenticate" in reply.headers


def test_an_expired_key(server: Running) -> None:
    with server.client(server.new_key("late", expires=time.time() - 1)) as client:
        problem(client.get("/usage"), 401, "unauthenticated")


def test_a_key_that_only_generates(server: Running, body: dict[str, Any]) -> None:
    with server.client(server.new_key("half", scopes=("generate",))) as client:
        job = client.post("/generate", json=body).json()["job"]
        problem(client.post("/extract_glb", json={"job": job}), 403, "forbidden")
        problem(client.post("/jobs", json={"kind": "extract", "job": job}), 403, "forbidden")


def test_revoked_and_wrong_scope(server: Running, body: dict[str, Any]) -> None:
    key, secret = server.admin.create("b", scopes=("extract",))
    with server.client(secret) as client:
        problem(client.post("/generate", json=body), 403, "forbidden")
        problem(client.post("/jobs", json={"kind": "generate", **body}), 403, "forbidden")
        server.admin.revoke(key.id)
        problem(client.get("/usage"), 401, "unauthenticated")


def test_anothers_job_is_not_there(
    client: httpx.Client, stranger: httpx.Client, body: dict[str, Any]
) -> None:
    job = client.post("/generate", json=body).json()["job"]
    for path in ("", "/events", "/state"):
        problem(stranger.get(f"/jobs/{job}{path}"), 404, "not-found")
    problem(stranger.delete(f"/jobs/{job}"), 404, "not-found")
    problem(stranger.post("/extract_glb", json={"job": job}), 404, "not-found")
    problem(stranger.get("/jobs", params={"before": job}), 404, "not-found")
    assert stranger.get("/jobs").json()["jobs"] == []


@pytest.mark.parametrize("source", ["../keys.json", "/etc/passwd", "x/../../y", "\0", "job_" + "0" * 32])
def test_path_tricks_in_a_source(client: httpx.Client, source: str) -> None:
    problem(client.post("/extract_glb", json={"job": source}), 404, "not-found")


def test_unknown_addresses_and_methods(client: httpx.Client) -> None:
    assert "/docs" in problem(client.get("/nowhere"), 404, "not-found").detail
    refused = client.put("/generate")
    assert "POST" in problem(refused, 405, "method-not-allowed").detail
    assert refused.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/jobs/..%2f..%2fkeys.json/state", "/jobs/%00/state", "/jobs/x/..%2fresult.json"]
)
def test_path_tricks(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code in (400, 404)


def test_rate_limit_tells_when_to_come_back(server: Running, body: dict[str, Any]) -> None:
    with server.client(server.new_key("slow", requests_per_minute=1)) as client:
        first = client.post("/jobs", json={"kind": "generate", **body})
        assert first.headers["ratelimit"].startswith('"work";r=0;t=')
        second = client.post("/jobs", json={"kind": "generate", **body})
        problem(second, 429, "rate-limited")
        assert 1 <= int(second.headers["retry-after"]) <= 60
        assert client.get("/usage").status_code == 200


def test_quota_tells_when_to_come_back(server: Running, body: dict[str, Any]) -> None:
    with server.client(server.new_key("poor", gpu_seconds_per_day=0.001)) as client:
        assert client.post("/generate", json=body).status_code == 200
        refused = client.post("/generate", json=body)
        problem(refused, 429, "quota-exceeded")
        assert int(refused.headers["retry-after"]) > 60


# --- what the model may do ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "status", "slug"),
    [
        (fake.OUT_OF_MEMORY, 507, "out-of-memory"),
        (fake.DISK_FULL, 503, "storage-full"),
        (fake.BUG, 500, "internal-error"),
        (fake.DEVICE_LOST, 500, "worker-died"),
        (fake.CRASH, 500, "worker-died"),
    ],
)
def test_failures_of_the_model(
    client: httpx.Client, body: dict[str, Any], seed: int, status: int, slug: str
) -> None:
    found = problem(client.post("/generate", json=body | {"seed": seed}), status, slug)
    if seed == fake.OUT_OF_MEMORY:
        assert found.model_extra == {"suggested": {"pipeline_type": "512"}}
    assert client.post("/generate", json=body).status_code == 200


def test_an_unoffered_pipeline_type_lists_those_there_are(client: httpx.Client, body: dict[str, Any]) -> None:
    found = problem(
        client.post("/generate", json=body | {"pipeline_type": "1024"}), 400, "unsupported-pipeline"
    )
    assert found.model_extra == {"offered": ["512"]}


def test_a_lying_png_fails_with_a_reason(client: httpx.Client, body: dict[str, Any]) -> None:
    data = bytearray(picture(200))
    start = data.index(b"IDAT") + 4
    header, rest = bytes(data[:start]), data[start:]
    chunk = zlib.compress(b"\0" * 50)  # far too few rows, but with right checksums
    lie = header[:-8] + len(chunk).to_bytes(4, "big") + b"IDAT" + chunk
    lie += zlib.crc32(b"IDAT" + chunk).to_bytes(4, "big") + bytes(rest[rest.index(b"IEND") - 4 :])
    reply = client.post("/generate", json=body | {"image": base64.b64encode(lie).decode()})
    problem(reply, 400, "invalid-image")


def test_events_of_a_failure_carry_the_problem(client: httpx.Client, body: dict[str, Any]) -> None:
    job = submit(client, body | {"seed": fake.BUG})["id"]
    last = events_of(client.get(f"/jobs/{job}/events"))[-1]
    assert last.type == "failed"
    assert last.data["type"] == "internal-error"
    assert "secret" not in json.dumps(last.data)
    assert client.get(f"/jobs/{job}").json()["problem"]["type"] == "internal-error"
