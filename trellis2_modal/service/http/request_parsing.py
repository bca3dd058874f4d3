"""From a request's body to a job: media types, JSON and multipart, base64, checks, digest."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
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
    EstimateRequest,
    ExtractEstimate,
    ExtractRequest,
    ExtractSettings,
    GenerateEstimate,
    GenerateRequest,
    GenerateSettings,
    JobKind,
    Submission,
    default_pipeline_type,
)
from ...protocol.state import peek_state
from ...protocol.state.mesh_state import bad_state
from ...protocol.views import MAX_VIEWS, check_counts, pack_pictures, views_of_text
from .encoding import decode_base64
from .pictures.checks import PictureChecks
from .pictures.sources import PictureSources
from .problems import invalid_request

Model = TypeVar("Model", bound=BaseModel)
Parsed = TypeVar("Parsed")
SUBMISSION: TypeAdapter[GenerateRequest | ExtractRequest] = TypeAdapter(Submission)
ESTIMATE: TypeAdapter[GenerateEstimate | ExtractEstimate] = TypeAdapter(EstimateRequest)

JSON_PICTURES_BODY = limits.base64_length(limits.MAX_PICTURES_BYTES) + limits.MAX_JSON_BYTES
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
    named: str | None = None
    """What the request named in place of the payload: another day it may stand for another picture."""

    callback: str | None = None
    """Who is told of the job's end."""

    async def request_digest(self) -> str:
        """Digest of all that decides the result."""
        named = [self.kind, self.settings, self.source]
        asked = json.dumps(named if self.callback is None else [*named, self.callback], sort_keys=True)
        digest = hashlib.sha256(asked.encode() + b"\0")
        if self.named is not None:
            digest.update(self.named.encode())
        elif self.payload is not None:
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
    if path in ("/generate", "/v1/3d/generations"):
        return JSON_PICTURES_BODY
    if path == "/matte":
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


async def read_estimate(request: Request) -> GenerateEstimate | ExtractEstimate:
    """The body of `POST /estimate`."""
    return await _parsed(request, lambda body: ESTIMATE.validate_json(body, strict=True))


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
    """A form: text fields, and files named `image` (or `images`, several times) or `state`."""

    fields: dict[str, str]
    files: Mapping[str, Sequence[bytes]]

    def file(self, name: str) -> bytes | None:
        """The one file of the form if that is its name."""
        found = self.files.get(name, ())
        return found[0] if len(found) == 1 and len(self.files) == 1 else None


async def read_multipart(request: Request) -> Multipart:
    """The form; raises 400 for anything but text fields, and files of one name."""
    _require(request, "multipart/form-data")
    _, parameters = parse_options_header(request.headers["content-type"])
    charset = parameters.get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in ("utf-8", "utf8"):  # some decoders of Python's make text that nothing can encode
        raise UnsupportedMediaTypeError(f"the form's charset is {charset[:40]!r}, expected utf-8")
    try:
        form = await request.form(
            max_files=MAX_VIEWS + 1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
        )
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
    files: dict[str, list[bytes]] = {}
    for key, value in form.multi_items():
        if key in fields or (key in files and key != "images"):
            raise InvalidRequestError(f"{key} is given twice", errors=[FieldError(key, "is given twice")])
        if not isinstance(value, UploadFile):
            fields[key] = value
            continue
        if key not in ("image", "images", "state"):
            message = "is not a known file; send image, images or state"
            raise InvalidRequestError(f"{key} {message}", errors=[FieldError(key, message)])
        files.setdefault(key, []).append(await value.read())
    return Multipart(fields, files)


def _require(request: Request, wanted: str) -> None:
    if media_type(request) != wanted:
        given = media_type(request) or "none"
        raise UnsupportedMediaTypeError(f"Content-Type is {given[:60]}, expected {wanted}")


async def _body(request: Request) -> bytes:
    # not `request.body()`, which would keep the bytes for as long as the request waits for its job
    return b"".join([chunk async for chunk in request.stream()])


# --- checks -------------------------------------------------------------------------------------------------


async def generate_work(
    request: GenerateRequest, known: Capabilities, checks: PictureChecks, sources: PictureSources
) -> Work:
    """Raises `InvalidImageError`, `TooLargeError`, `UnavailableError`, `UnsupportedPipelineError`."""
    if request.model is not None and request.model != known.model:
        message = f"{request.model} is not what runs here; leave it out, or name {known.model}"
        raise InvalidRequestError(f"model: {message}", errors=[FieldError("model", message)])
    check_counts(len(request.images or [""]), request.views)
    settings = generate_settings(request.settings(), known)
    payload = await checked_pictures(await sources.pictures(request), checks)
    return Work("generate", settings, payload, named=request.image_url or request.prompt)


async def checked_pictures(pictures: Sequence[bytes], checks: PictureChecks) -> bytes:
    """The payload of encoded pictures, each checked, and their sum."""
    if (total := sum(map(len, pictures))) > limits.MAX_PICTURES_BYTES and len(pictures) > 1:
        raise TooLargeError(f"the pictures have {total} bytes, the most is {limits.MAX_PICTURES_BYTES}")
    return pack_pictures([(await checks.check(picture)).data for picture in pictures])


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
        pictures = {"image", "images"} & submission.files.keys()
        kind = submission.fields.get("kind", "generate" if pictures else "extract")
        if kind not in ("generate", "extract"):
            message = "is not known"
            raise InvalidRequestError("kind is generate or extract", errors=[FieldError("kind", message)])
        return kind  # type: ignore[return-value]
    return "extract" if isinstance(submission, ExtractRequest) else "generate"


async def form_work(form: Multipart, known: Capabilities, checks: PictureChecks) -> Work:
    """The work that a form asks for."""
    fields = {name: value for name, value in form.fields.items() if name not in ("kind", "callback_url")}
    try:
        if kind_of(form) == "generate":
            return await _generate_form(form, fields, known, checks)
        source = fields.pop("job", None)
        extract = ExtractSettings.model_validate(fields).resolved().model_dump()
    except ValidationError as error:
        raise invalid_request(error) from error
    state = form.file("state")
    if (state is None) == (source is None) or form.files.keys() - {"state"}:
        raise _missing("state")
    if state is not None:
        await check_state(state)
    return Work("extract", extract, state, source)


async def _generate_form(
    form: Multipart, fields: Mapping[str, str], known: Capabilities, checks: PictureChecks
) -> Work:
    views = {"views": views_of_text(fields["views"])} if "views" in fields else {}
    settings = GenerateSettings.model_validate({**fields, **views})
    image = form.file("image")
    pictures = [image] if image is not None else form.files.get("images", ())
    if len(form.files) != 1 or not pictures:
        raise _missing("image")
    check_counts(len(pictures), settings.views)
    chosen = generate_settings(settings, known)
    return Work("generate", chosen, await checked_pictures(pictures, checks))


def _missing(name: str) -> InvalidRequestError:
    message = "send the file itself" if name == "image" else "send the file, or the id of a job, not both"
    return InvalidRequestError(f"{name}: {message}", errors=[FieldError(name, message)])


async def submission_work(
    submission: GenerateRequest | ExtractRequest | Multipart,
    known: Capabilities,
    checks: PictureChecks,
    sources: PictureSources,
) -> Work:
    if isinstance(submission, Multipart):
        return await form_work(submission, known, checks)
    if isinstance(submission, ExtractRequest):
        return await extract_work(submission)
    return await generate_work(submission, known, checks, sources)


def callback_of(submission: GenerateRequest | ExtractRequest | Multipart) -> str | None:
    """The address that a submission wants to be told at."""
    if isinstance(submission, Multipart):
        return submission.fields.get("callback_url")
    return getattr(submission, "callback_url", None)
