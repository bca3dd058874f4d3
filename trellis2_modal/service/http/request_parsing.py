"""From a request's body to a job: media types, JSON and multipart, base64, checks, digest."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ...jobs.engine import NO_MODEL
from ...jobs.ports import Capabilities
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
from ...protocol.views import Views
from .encoding import decode_base64
from .picture_checks import PictureChecks
from .problems import invalid_request

Model = TypeVar("Model", bound=BaseModel)
Parsed = TypeVar("Parsed")
SUBMISSION: TypeAdapter[GenerateRequest | ExtractRequest] = TypeAdapter(Submission)

JSON_IMAGE_BODY = limits.base64_length(limits.MAX_IMAGE_BYTES) + limits.MAX_JSON_BYTES
JSON_STATE_BODY = limits.base64_length(limits.MAX_STATE_BYTES) + limits.MAX_JSON_BYTES

HASHED_AT_ONCE = 4 << 20
"""Bytes whose digest takes a few milliseconds: less than a turn through a thread under load."""

PARSED_AT_ONCE = 256 << 10
"""Bytes of JSON that are parsed in about a millisecond."""

MAX_FIELDS = 40
MAX_FIELD_BYTES = limits.MAX_JSON_BYTES


@dataclass(frozen=True)
class Work:
    """A checked request: what a job needs, whoever asks."""

    kind: JobKind
    settings: dict[str, Any]
    payload: bytes | None
    source: str | None = None

    async def request_digest(self) -> str:
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
    return await _parsed(request, lambda body: model.model_validate_json(body, strict=True))


async def read_submission(request: Request) -> GenerateRequest | ExtractRequest | Multipart:
    """The body of `POST /jobs`, which is JSON or multipart."""
    if media_type(request) == "multipart/form-data":
        return await read_multipart(request)
    return await _parsed(request, lambda body: SUBMISSION.validate_json(body, strict=True))


async def _parsed(request: Request, parse: Callable[[bytes], Parsed]) -> Parsed:
    """The JSON body through `parse`; large ones in a thread and one at a time: text takes memory again."""
    _require(request, "application/json")
    body = await _body(request)
    try:
        if len(body) <= PARSED_AT_ONCE:
            return parse(body)
        async with request.app.state.large_bodies:
            return await asyncio.to_thread(parse, body)
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
    _, parameters = parse_options_header(request.headers["content-type"])
    charset = parameters.get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in ("utf-8", "utf8"):  # some decoders of Python's make text that nothing can encode
        raise UnsupportedMediaTypeError(f"the form's charset is {charset[:40]!r}, expected utf-8")
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


async def generate_work(request: GenerateRequest, known: Capabilities, checks: PictureChecks) -> Work:
    """Raises `InvalidImageError`, `TooLargeError`, `UnavailableError`, `UnsupportedPipelineError`."""
    settings = generate_settings(request.settings(), known)
    given = request.images if request.image is None else [request.image]
    pictures = [(await checks.check_base64(text)).data for text in given or ()]
    return Work("generate", settings, Views(pictures, request.views, request.fov).pack())


def generate_settings(settings: GenerateSettings, known: Capabilities) -> dict[str, Any]:
    """The settings with the pipeline type decided."""
    offered = known.pipeline_types
    if known.state == "degraded":
        raise UnavailableError(NO_MODEL, retry_after=60)
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
    """The frame and the header, of which no more is inflated; the worker checks the rest as it decodes."""
    if len(data) > limits.MAX_STATE_BYTES:
        raise TooLargeError(f"the state has {len(data)} bytes, the most is {limits.MAX_STATE_BYTES}")
    await asyncio.to_thread(peek_state, data)


def kind_of(submission: GenerateRequest | ExtractRequest | Multipart) -> JobKind:
    """What a submission asks for; of a form, `image` makes a generation, `state` or `job` an extraction."""
    if isinstance(submission, Multipart):
        kind = submission.fields.get("kind", "generate" if submission.file_field == "image" else "extract")
        if kind not in ("generate", "extract"):
            message = "is not known"
            raise InvalidRequestError("kind is generate or extract", errors=[FieldError("kind", message)])
        return kind  # type: ignore[return-value]
    return "extract" if isinstance(submission, ExtractRequest) else "generate"


async def form_work(form: Multipart, known: Capabilities, checks: PictureChecks) -> Work:
    """The work that a form asks for."""
    fields = dict(form.fields)
    fields.pop("kind", None)
    try:
        if kind_of(form) == "generate":
            settings = GenerateSettings.model_validate(fields)
            if form.file is None or form.file_field != "image":
                raise _missing("image")
            chosen = generate_settings(settings, known)
            return Work("generate", chosen, (await checks.check(form.file)).data)
        source = fields.pop("job", None)
        extract = ExtractSettings.model_validate(fields).resolved().model_dump()
    except ValidationError as error:
        raise invalid_request(error) from error
    if (form.file is None) == (source is None) or form.file_field == "image":
        raise _missing("state")
    if form.file is not None:
        await check_state(form.file)
    return Work("extract", extract, form.file, source)


def _missing(name: str) -> InvalidRequestError:
    message = "send the file itself" if name == "image" else "send the file, or the id of a job, not both"
    return InvalidRequestError(f"{name}: {message}", errors=[FieldError(name, message)])


async def submission_work(
    submission: GenerateRequest | ExtractRequest | Multipart, known: Capabilities, checks: PictureChecks
) -> Work:
    if isinstance(submission, Multipart):
        return await form_work(submission, known, checks)
    if isinstance(submission, ExtractRequest):
        return await extract_work(submission)
    return await generate_work(submission, known, checks)
