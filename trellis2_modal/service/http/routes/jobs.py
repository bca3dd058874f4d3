"""Jobs: submit, list, look, cancel, follow, download."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from ....protocol.replies import (
    ASSET_MEDIA_TYPES,
    EVENT_STREAM,
    FINAL_STATES,
    SCOPE_OF,
    STATE_MEDIA_TYPE,
    ArtifactName,
    JobList,
    JobStatus,
)
from ...auth import ApiKey
from ...config import Settings
from ...outbound.addresses import checked_place
from ...streaming import artifact_response, event_stream, last_event_id
from ..authentication import WORK, Authenticator, caller, engine_of, sources_of
from ..encoding import json_response
from ..request_parsing import callback_of, exports, kind_of, read_submission, submission_work
from . import documents
from .generate import accepted, state_fetcher, submit

router = APIRouter(prefix="/jobs", tags=["jobs"])

JobId = Annotated[str, Path(max_length=100, description="Id of one of your jobs")]
Reader = Annotated[ApiKey, Depends(caller())]

EXTENSIONS = {
    "model/gltf-binary": "glb",
    "application/zip": "zip",
    "model/vnd.usdz+zip": "usdz",
    "model/stl": "stl",
    "model/3mf": "3mf",
    "application/octet-stream": "ply",
    "video/mp4": "mp4",
    "image/webp": "webp",
    STATE_MEDIA_TYPE: "state.lz4",
}


@router.post(
    "",
    status_code=202,
    response_model=JobStatus,
    openapi_extra=documents.parameters(documents.IDEMPOTENCY_KEY, body=documents.submission_body()),
    responses=documents.errors(*documents.COMMON, 404, 409, 410, 422),
)
async def submit_job(request: Request, key: Annotated[ApiKey, Depends(caller(None, WORK))]) -> Response:
    """Queue a generation, new textures or an extraction, as JSON or as a form with the file itself."""
    backend = engine_of(request, key)
    submission = await read_submission(request)
    key.require(SCOPE_OF[kind_of(submission)])
    if (callback := callback_of(submission)) is not None:
        key.require("webhook")
        await asyncio.to_thread(checked_place, callback, "callback_url", request.app.state.outbound.resolve)
    if exports(submission):
        key.require("extract")
    known, checks = backend.capabilities(), request.app.state.picture_checks
    fetch, sources = state_fetcher(backend, key), sources_of(request, key)
    work = await submission_work(submission, known, checks, sources, fetch)
    return accepted(request, await submit(request, key, dataclasses.replace(work, callback_url=callback)))


@router.get("", response_model=JobList, responses=documents.errors(*documents.READS, 404))
async def list_jobs(
    request: Request,
    key: Reader,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: Annotated[str | None, Query(max_length=100, description="Id of the last job seen")] = None,
) -> Response:
    """Your jobs, newest first."""
    backend = engine_of(request, key)
    found = await backend.list_jobs(key.id, limit + 1, before)
    page = JobList(jobs=found[:limit], next=found[limit - 1].id if len(found) > limit else None)
    return json_response(page)


@router.get("/{job_id}", response_model=JobStatus, responses=documents.errors(*documents.READS, 404))
async def get_job(request: Request, key: Reader, job_id: JobId) -> Response:
    """One job, with progress while it runs and links to its files when it has finished."""
    backend = engine_of(request, key)
    job = await backend.status(key.id, job_id)
    return json_response(job)


@router.delete("/{job_id}", response_model=JobStatus, responses=documents.errors(*documents.READS, 404))
async def cancel_job(request: Request, key: Reader, job_id: JobId) -> Response:
    """Stop a job: a queued one at once, a running one at its next step; a finished one stays as it is."""
    backend = engine_of(request, key)
    job = await backend.cancel(key.id, job_id)
    status = 200 if job.status in FINAL_STATES else 202
    return json_response(job, status)


@router.get(
    "/{job_id}/events",
    response_class=Response,
    openapi_extra=documents.parameters(documents.LAST_EVENT_ID),
    responses=documents.errors(
        *documents.READS,
        404,
        _200={
            "description": "Server-sent events",
            "content": {EVENT_STREAM: {"schema": documents.event_schema()}},
        },
        _204={"description": "Nothing after Last-Event-ID will come"},
    ),
)
async def job_events(request: Request, key: Reader, job_id: JobId) -> Response:
    """Everything that happens to a job, from its start or from `Last-Event-ID`, ending with its end."""
    backend = engine_of(request, key)
    settings: Settings = request.app.state.settings
    authenticator: Authenticator = request.app.state.authenticator
    after = last_event_id(request)
    authenticator.open_stream(request, key)
    job = await backend.status(key.id, job_id)
    stream = backend.events(key.id, job_id, after)
    if after and job.status in FINAL_STATES:
        rest = [event async for event in stream]
        if not rest:
            return Response(status_code=204)  # tells an EventSource not to come back
        stream = backend.events(key.id, job_id, after)
    return event_stream(stream, settings.heartbeat_comment, authenticator.watch(request))


@router.head("/{job_id}/{artifact}", include_in_schema=False)
@router.get(
    "/{job_id}/{artifact}",
    response_class=Response,
    openapi_extra=documents.parameters(documents.RANGE, documents.IF_NONE_MATCH),
    responses=documents.errors(
        *documents.READS,
        *(404, 409, 410, 416, 422, 504, 507),
        _200=documents.binary(
            "The file",
            STATE_MEDIA_TYPE,
            "video/mp4",
            "image/webp",
            *sorted(set(ASSET_MEDIA_TYPES.values())),
        ),
        _206={"description": "The range that was asked for"},
        _304={"description": "The caller has it (If-None-Match)"},
    ),
)
async def download_file(request: Request, key: Reader, job_id: JobId, artifact: ArtifactName) -> Response:
    """A file of a finished job; ranges and conditional requests are understood."""
    backend = engine_of(request, key)
    file = await backend.result(key.id, job_id, artifact)
    extension = EXTENSIONS.get(file.media_type, "bin")
    name = "asset" if artifact == "glb" else artifact
    return artifact_response(request, file, f"{name}-{job_id[-8:]}.{extension}")
