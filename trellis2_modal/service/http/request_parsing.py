"""From a request's body to a job: media types, JSON and multipart, base64, checks, fingerprint."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ...jobs.backend import Capabilities
from ...protocol import limits
from ...protocol.errors import (
    FieldError,
    InvalidRequestError,
    StorageFullError,
    TooLargeError,
    UnavailableError,
    UnsupportedMediaTypeError,
    UnsupportedPipelineError,
)
from ...protocol.requests import (
    ExtractRequest,
    ExtractSettings,
    GenerateRequest,
    GenerateSettings,
    JobKind,
    Submission,
    default_pipeline_type,
)
from ...protocol.state import peek_state
from ...protocol.state.mesh_state import bad_state
from .encoding import decode_base64
from .picture_checks import check_picture, picture_from_base64
from .problems import invalid_request

Model = TypeVar("Model", bound=BaseModel)
SUBMISSION: TypeAdapter[GenerateRequest | ExtractRequest] = TypeAdapter(Submission)

JSON_IMAGE_BODY = limits.base64_length(limits.MAX_IMAGE_BYTES) + limits.MAX_JSON_BYTES
JSON_STATE_BODY = limits.base64_length(limits.MAX_STATE_BYTES) + limits.MAX_JSON_BYTES

HASHED_AT_ONCE = 4 << 20
"""Bytes whose digest takes a few milliseconds: less than a turn through a thread under load."""

MAX_FIELDS = 40
MAX_FIELD_BYTES = limits.MAX_JSON_BYTES


@dataclass(frozen=True)
class Work:
    """A checked request: what a job needs, whoever asks."""

    kind: JobKind
    settings: dict[str, Any]
    payload: bytes | None
    source: str | None = None

    async def fingerprint(self) -> str:
        """Digest of all that decides the result."""
        asked = json.dumps([self.kind, self.settings, self.source], sort_keys=True)
        digest = hashlib.sha256(asked.encode() + b"\0")
        if self.payload is not None:
            if len(self.payload) < HASHED_AT_ONCE:
                digest.update(self.payload)
            else:  # gives up Python's lock while it works
                await asyncio.to_thread(digest.update, self.payload)
        return digest.hexdigest()


def body_ceiling(method: str, path: str) -> int:
    """The largest body that a route takes."""
    if method != "POST":
        return limits.MAX_JSON_BYTES
    if path in ("/extract_glb", "/jobs"):
        return JSON_STATE_BODY
    if path in ("/generate", "/matte"):
        return JSON_IMAGE_BODY
    return limits.MAX_JSON_BYTES


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request, model: type[Model]) -> Model:
    """The body as `model`; raises 400 naming the fields, or 415."""
    _require(request, "application/json")
    try:
        return model.model_validate_json(await _body(request), strict=True)
    except ValidationError as error:
        raise invalid_request(error) from error


async def read_submission(request: Request) -> GenerateRequest | ExtractRequest | Multipart:
    """The body of `POST /jobs`, which is JSON or multipart."""
    if media_type(request) == "multipart/form-data":
        return await read_multipart(request)
    _require(request, "application/json")
    try:
        return SUBMISSION.validate_json(await _body(request), strict=True)
    except ValidationError as error:
        raise invalid_request(error) from error


@dataclass(frozen=True)
class Multipart:
    """A form: text fields, and one file named `image` or `state`."""

    fields: dict[str, str]
    file: bytes | None
    file_field: str | None


async def read_multipart(request: Request) -> Multipart:
    """The form; raises 400 for anything but text fields and at most one file."""
    _require(request, "multipart/form-data")
    try:
        form = await request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
    except HTTPException as error:  # what starlette makes of a body that it cannot parse
        raise InvalidRequestError(f"the multipart body is not well formed: {error.detail}") from error
    except OSError as error:  # large files are spooled to disk
        raise StorageFullError("the upload could not be stored; try later", retry_after=60) from error
    try:
        return await _sort_form(form)
    finally:
        await form.close()


async def _sort_form(form: FormData) -> Multipart:
    fields: dict[str, str] = {}
    file, name = None, None
    for key, value in form.multi_items():
        if key in fields or key == name:
            raise InvalidRequestError(f"{key} is given twice", errors=[FieldError(key, "is given twice")])
        if isinstance(value, UploadFile):
            if key not in ("image", "state"):
                message = "is not a known file; send image or state"
                raise InvalidRequestError(f"{key} {message}", errors=[FieldError(key, message)])
            file, name = await value.read(), key
        else:
            fields[key] = value
    return Multipart(fields, file, name)


def _require(request: Request, wanted: str) -> None:
    if media_type(request) != wanted:
        given = media_type(request) or "none"
        raise UnsupportedMediaTypeError(f"Content-Type is {given[:60]}, expected {wanted}")


async def _body(request: Request) -> bytes:
    # not `request.body()`, which would keep the bytes for as long as the request waits for its job
    return b"".join([chunk async for chunk in request.stream()])


# --- checks -------------------------------------------------------------------------------------------------


async def generate_work(request: GenerateRequest, known: Capabilities) -> Work:
    """Raises `InvalidImageError`, `TooLargeError`, `UnsupportedPipelineError`."""
    picture = await picture_from_base64(request.image)
    return Work("generate", generate_settings(request.settings(), known), picture.data)


def generate_settings(settings: GenerateSettings, known: Capabilities) -> dict[str, Any]:
    """The settings with the pipeline type decided."""
    offered = known.pipeline_types
    if known.state == "degraded":
        raise UnavailableError("the model cannot be loaded; the operator has been told", retry_after=60)
    if not offered:
        raise UnavailableError("the model is still loading; try again shortly", retry_after=10)
    chosen = settings.pipeline_type or default_pipeline_type(offered)
    if chosen not in offered:
        message = f"{chosen} is not offered; choose one of {', '.join(offered)}"
        raise UnsupportedPipelineError(
            message, errors=[FieldError("pipeline_type", message)], hints={"offered": list(offered)}
        )
    return settings.given() | {"pipeline_type": chosen}


async def extract_work(request: ExtractRequest) -> Work:
    """Raises `InvalidStateError` or `TooLargeError`."""
    settings = request.settings().resolved().model_dump()
    if request.state is None:
        return Work("extract", settings, None, request.job)
    data = await decode_base64(request.state)
    if data is None:
        raise bad_state("state", "is not base64")
    await check_state(data)
    return Work("extract", settings, data)


async def check_state(data: bytes) -> None:
    """The frame, the container and the header; the worker checks the arrays when it decodes them."""
    if len(data) > limits.MAX_STATE_BYTES:
        raise TooLargeError(f"the state has {len(data)} bytes, the most is {limits.MAX_STATE_BYTES}")
    await asyncio.to_thread(peek_state, data)


async def form_work(form: Multipart, known: Capabilities) -> Work:
    """The work that a form asks for: `image` makes a generation, `state` or `job` an extraction."""
    fields = dict(form.fields)
    kind = fields.pop("kind", "generate" if form.file_field == "image" else "extract")
    try:
        if kind == "generate":
            settings = GenerateSettings.model_validate(fields)
            if form.file is None or form.file_field != "image":
                raise _missing("image")
            return Work("generate", generate_settings(settings, known), check_picture(form.file).data)
        if kind == "extract":
            source = fields.pop("job", None)
            extract = ExtractSettings.model_validate(fields).resolved().model_dump()
            if (form.file is None) == (source is None) or form.file_field == "image":
                raise _missing("state")
            if form.file is not None:
                await check_state(form.file)
            return Work("extract", extract, form.file, source)
    except ValidationError as error:
        raise invalid_request(error) from error
    raise InvalidRequestError("kind is generate or extract", errors=[FieldError("kind", "is not known")])


def _missing(name: str) -> InvalidRequestError:
    message = "send the file itself" if name == "image" else "send the file, or the id of a job, not both"
    return InvalidRequestError(f"{name}: {message}", errors=[FieldError(name, message)])


async def submission_work(
    submission: GenerateRequest | ExtractRequest | Multipart, known: Capabilities
) -> Work:
    if isinstance(submission, Multipart):
        return await form_work(submission, known)
    if isinstance(submission, ExtractRequest):
        return await extract_work(submission)
    return await generate_work(submission, known)
