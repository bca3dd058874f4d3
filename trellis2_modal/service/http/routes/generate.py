"""The calls that make something, waited for, streamed or queued: a picture to a state, a mesh and a
picture to a textured mesh, a state to a GLB."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response

from ....jobs.engine import Engine
from ....jobs.job import JobRequest, NewJob
from ....protocol.errors import (
    FieldError,
    InvalidRequestError,
    NotAcceptableError,
    UnavailableError,
)
from ....protocol.events import is_result
from ....protocol.limits import MAX_IDEMPOTENCY_KEY_LENGTH
from ....protocol.replies import (
    ASSET_MEDIA_TYPES,
    EVENT_STREAM,
    ExtractResponse,
    GenerateResponse,
    JobEvent,
    JobStatus,
    Reply,
    TextureResponse,
    VariantFiles,
    artifact_of,
    variant_seeds,
)
from ....protocol.requests import ExtractRequest, GenerateRequest, TextureRequest
from ...auth import ApiKey
from ...config import Settings
from ...streaming import event_stream, whole_file
from ..authentication import WORK, Authenticator, caller, engine_of, sources_of
from ..context import context_of
from ..encoding import encode_base64, json_response
from ..request_parsing import (
    FetchState,
    extract_work,
    generate_work,
    media_type,
    read_json,
    read_multipart,
    request_digest,
    texture_form,
    texture_work,
)
from . import documents

router = APIRouter(tags=["generation"])

GLB = ASSET_MEDIA_TYPES["glb"]

Answer = Literal["json", "stream", "file"]
ASSETS = tuple(sorted(set(ASSET_MEDIA_TYPES.values())))
ACCEPTED = {"model": JobStatus, "description": "Queued; see Location (with Prefer: respond-async)"}


GENERATION: dict[str, Any] = {
    "response_model": GenerateResponse,
    "openapi_extra": documents.parameters(
        documents.IDEMPOTENCY_KEY,
        documents.PREFER,
        body=documents.json_body(GenerateRequest, documents.EXAMPLES["generate"]),
    ),
    "responses": documents.errors(
        *documents.COMMON,
        *(406, 409, 422, 504, 507),
        _200=documents.json_reply(
            GenerateResponse, "The asset's state and preview, or its file", EVENT_STREAM, *ASSETS
        ),
        _202=ACCEPTED,
    ),
}
"""How a generation is described, under each of its addresses."""


@router.post("/generate", **GENERATION)
async def generate(request: Request, key: Annotated[ApiKey, Depends(caller("generate", WORK))]) -> Response:
    """A picture in, the asset's state and preview out.

    `export` makes a file in the same job; then `Accept: model/gltf-binary` gives its bytes alone.
    `Accept: text/event-stream` gives progress and then the result; `Prefer: respond-async` gives a job.
    """
    answer = negotiate(request, tuple(ASSET_MEDIA_TYPES.values()))
    backend = engine_of(request, key)
    asked = await read_json(request, GenerateRequest)
    if asked.export is not None:
        key.require("extract")
    elif answer == "file":
        raise NotAcceptableError("a generation answers with a file only where it has export")
    known, checks = backend.capabilities(), request.app.state.picture_checks
    sources = sources_of(request, key)
    work = await generate_work(asked, known, checks, sources, state_fetcher(backend, key))
    job = await submit(request, key, work)
    return await reply(request, key, job, answer)


@router.post(
    "/extract_glb",
    response_model=ExtractResponse,
    openapi_extra=documents.parameters(
        documents.IDEMPOTENCY_KEY,
        documents.PREFER,
        body=documents.json_body(ExtractRequest, documents.EXAMPLES["extract"]),
    ),
    responses=documents.errors(
        *documents.COMMON,
        *(404, 406, 409, 410, 422, 504, 507),
        _200=documents.json_reply(ExtractResponse, "The file", EVENT_STREAM, *ASSETS),
        _202=ACCEPTED,
    ),
)
async def extract_glb(request: Request, key: Annotated[ApiKey, Depends(caller("extract", WORK))]) -> Response:
    """A state (or a finished generation's id) in, a file out; with `Accept: model/gltf-binary` its bytes."""
    answer = negotiate(request, tuple(ASSET_MEDIA_TYPES.values()))
    job = await submit(request, key, await extract_work(await read_json(request, ExtractRequest)))
    return await reply(request, key, job, answer)


@router.post(
    "/texture",
    response_model=TextureResponse,
    openapi_extra=documents.parameters(
        documents.IDEMPOTENCY_KEY, documents.PREFER, body=documents.texture_body()
    ),
    responses=documents.errors(
        *documents.COMMON,
        *(406, 409, 422, 504, 507),
        _200=documents.json_reply(TextureResponse, "The textured mesh", EVENT_STREAM, GLB),
        _202=ACCEPTED,
    ),
)
async def texture(request: Request, key: Annotated[ApiKey, Depends(caller("generate", WORK))]) -> Response:
    """A mesh and a picture in, the same mesh with PBR textures out: its positions and UVs stay as they are.

    JSON, or a form with the files themselves. With `Accept: model/gltf-binary` the bytes of the GLB.
    """
    answer = negotiate(request, (GLB,))
    backend = engine_of(request, key)
    known, checks = backend.capabilities(), request.app.state.picture_checks
    if media_type(request) == "multipart/form-data":
        work = await texture_form(await read_multipart(request), known, checks)
    else:
        work = await texture_work(await read_json(request, TextureRequest), known, checks)
    return await reply(request, key, await submit(request, key, work), answer)


def state_fetcher(backend: Engine, key: ApiKey) -> FetchState:
    """Reads the states of the key's own jobs."""

    async def fetch(job_id: str, variant: int) -> bytes:
        file = await backend.result(key.id, job_id, artifact_of("state", variant))
        return await asyncio.to_thread(file.read)

    return fetch


def negotiate(request: Request, files: tuple[str, ...]) -> Answer:
    """What the Accept header asks for; raises 406."""
    offers: list[tuple[float, Answer]] = []
    for item in request.headers.get("accept", "*/*").split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if media in ("application/json", "application/*", "*/*", ""):
            offers.append((quality, "json"))
        elif media == EVENT_STREAM:
            offers.append((quality, "stream"))
        elif media in files:
            offers.append((quality, "file"))
    offers = [offer for offer in offers if offer[0] > 0]
    if not offers:
        known = ", ".join(["application/json", EVENT_STREAM, *files])
        raise NotAcceptableError(f"this call can answer {known}")
    return max(offers, key=lambda offer: offer[0])[1]


async def submit(request: Request, key: ApiKey, asked: JobRequest) -> JobStatus:
    """Hand a checked request to the backend."""
    backend = engine_of(request, key)
    settings: Settings = request.app.state.settings
    authenticator: Authenticator = request.app.state.authenticator
    await authenticator.authenticate(request)  # the key may have ended while the body came
    job = await backend.submit(
        NewJob(
            **vars(asked),
            owner=key.id,
            request_digest=await request_digest(asked),
            idempotency_key=idempotency_key(request) or delivered(request),
            max_active=settings.max_active_jobs,
            gpu_seconds=math.inf if key.dry_run else key.gpu_seconds_per_day,
        )
    )
    context = context_of(request)
    context.release_body()
    context.job_id = job.id
    return job


def idempotency_key(request: Request) -> str | None:
    """The header's value; raises 400 when it is empty, too long or not printable."""
    value = request.headers.get("idempotency-key")
    if value is None:
        return None
    fits = 0 < len(value) <= MAX_IDEMPOTENCY_KEY_LENGTH
    if not fits or not value.isascii() or not value.isprintable():
        message = f"must be 1 to {MAX_IDEMPOTENCY_KEY_LENGTH} printable ASCII characters"
        raise InvalidRequestError(
            f"Idempotency-Key {message}", errors=[FieldError("Idempotency-Key", message)]
        )
    return value


def delivered(request: Request) -> str | None:
    """A key for a request without one; a line break keeps it apart from what callers can send."""
    delivery = request.app.state.delivery()
    return None if delivery is None else f"\n{delivery}"


def job_location(request: Request, job: JobStatus) -> str:
    """The job's address relative to the request's.

    So it keeps whatever prefix was asked for: behind a proxy, or where the app is mounted (`root_path`).
    """
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return "../" * (path.count("/") - 1) + f"jobs/{job.id}"


def accepted(request: Request, job: JobStatus, preferred: bool = False) -> Response:
    """202 and the job."""
    headers = {"Location": job_location(request, job)}
    if preferred:
        headers["Preference-Applied"] = "respond-async"
    return json_response(job, 202, headers)


async def reply(request: Request, key: ApiKey, job: JobStatus, answer: Answer) -> Response:
    """The job itself, its events ending in the result, or the result after waiting for it."""
    backend = engine_of(request, key)
    preferences = [part.strip().lower() for part in request.headers.get("prefer", "").split(",")]
    if "respond-async" in preferences:
        return accepted(request, job, preferred=True)
    request_id = context_of(request).request_id
    authenticator: Authenticator = request.app.state.authenticator
    authenticator.open_stream(request, key)
    if answer == "stream":
        settings: Settings = request.app.state.settings
        events = events_with_result(backend, key.id, job, request_id)
        return event_stream(events, settings.heartbeat_comment, authenticator.watch(request))
    async for event in backend.events(key.id, job.id):
        is_result(event)
    await authenticator.authenticate(request)  # or while the job ran
    done = await backend.status(key.id, job.id)
    if done.status not in ("finished", "expired"):
        raise UnavailableError(f"the service is stopping; job {job.id} goes on later", retry_after=30)
    if answer == "file":
        file = await backend.result(key.id, job.id, "glb")
        return whole_file(file, {"Location": job_location(request, job)})
    result = await result_reply(backend, key.id, done, request_id)
    return json_response(result)


async def events_with_result(
    backend: Engine, owner: str, job: JobStatus, request_id: str
) -> AsyncIterator[JobEvent]:
    """The job's events; the final `result` carries what the call would have answered."""
    async for event in backend.events(owner, job.id):
        if event.type == "result":
            done = await backend.status(owner, job.id)
            whole = await result_reply(backend, owner, done, request_id)
            event = event.model_copy(update={"data": whole.model_dump(mode="json")})
        yield event


async def result_reply(backend: Engine, owner: str, job: JobStatus, request_id: str) -> Reply:
    """The JSON reply of a finished job."""
    found = job.result

    async def encoded(name: str) -> str | None:
        if found is None or name not in found.artifacts:
            return None
        file = await backend.result(owner, job.id, name)
        return await encode_base64(await asyncio.to_thread(file.read))

    stats, warnings = (found.stats, found.warnings) if found else ({}, [])
    if job.kind == "extract":
        return ExtractResponse(
            glb=await encoded("glb") or "",
            format=str(job.settings.get("format", "glb")),
            request_id=request_id,
            job=job.id,
            warnings=warnings,
            stats=stats,
        )
    seed, resolution = (found.seed if found else None) or 0, (found.resolution if found else None) or 0
    if job.kind == "texture":
        return TextureResponse(
            glb=await encoded("glb") or "",
            video=await encoded("video"),
            preview=await encoded("preview"),
            request_id=request_id,
            job=job.id,
            seed=seed,
            resolution=resolution,
            warnings=warnings,
            stats=stats,
        )
    seeds = variant_seeds(stats) or [seed]
    files = [
        VariantFiles(
            seed=seeds[number - 1],
            state=await encoded(artifact_of("state", number)) or "",
            video=await encoded(artifact_of("video", number)),
            preview=await encoded(artifact_of("preview", number)),
        )
        for number in range(1, len(seeds) + 1)
    ]
    return GenerateResponse(
        **files[0].model_dump(exclude={"seed"}),
        variants=files if len(files) > 1 else [],
        asset=await encoded("glb"),
        request_id=request_id,
        job=job.id,
        seed=seed,
        resolution=resolution,
        warnings=warnings,
        stats=stats,
    )
