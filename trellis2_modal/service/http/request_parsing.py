"""From a request's body to a job: media types, JSON and multipart, base64, checks, digest."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ...jobs.engine import NO_MODEL
from ...jobs.job import JobRequest
from ...jobs.ports import Capabilities
from ...protocol import limits, meshes
from ...protocol.errors import (
    FieldError,
    InvalidRequestError,
    StorageFullError,
    TooLargeError,
    UnavailableError,
    UnsupportedMediaTypeError,
    UnsupportedPipelineError,
)
from ...protocol.replies import SCOPE_OF
from ...protocol.requests import (
    MAX_SAMPLES,
    PIPELINE_TYPES,
    AnyEstimate,
    EstimateRequest,
    ExtractRequest,
    ExtractSettings,
    GenerateRequest,
    GenerateSettings,
    JobKind,
    MatteSettings,
    Submission,
    TextureRequest,
    TextureSettings,
    default_pipeline_type,
    default_texture_type,
)
from ...protocol.state import peek_state
from ...protocol.state.mesh_state import bad_state
from ...protocol.views import MAX_VIEWS, Inputs, check_counts, pack_inputs, views_of_text
from .encoding import decode_base64
from .pictures.checks import PictureChecks, picture_bytes
from .pictures.sources import PictureSources
from .problems import invalid_request

Model = TypeVar("Model", bound=BaseModel)
Parsed = TypeVar("Parsed")
Asked = GenerateRequest | ExtractRequest | TextureRequest
VARIANT: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=1, le=MAX_SAMPLES)])
SUBMISSION: TypeAdapter[Asked] = TypeAdapter(Submission)
ESTIMATE: TypeAdapter[AnyEstimate] = TypeAdapter(EstimateRequest)

JSON_PICTURES_BODY = limits.base64_length(limits.MAX_PICTURES_BYTES) + limits.MAX_JSON_BYTES
JSON_TEXTURE_BODY = JSON_PICTURES_BODY + limits.base64_length(limits.MAX_MESH_BYTES)
JSON_IMAGE_BODY = limits.base64_length(limits.MAX_IMAGE_BYTES) + limits.MAX_JSON_BYTES
JSON_TRIMAP = limits.base64_length(4 * limits.MIB)
"""A grey PNG of strokes has some kilobytes."""

JSON_STATE_BODY = limits.base64_length(limits.MAX_STATE_BYTES) + limits.MAX_JSON_BYTES

HASHED_AT_ONCE = 4 << 20
"""Bytes whose digest takes a few milliseconds: less than a turn through a thread under load."""

PARSED_AT_ONCE = 256 << 10
"""Bytes of JSON that are parsed in about a millisecond."""

MAX_FIELDS = 40
OF_SUBMISSIONS = ("kind", "callback_url")
FILES = ("image", "images", "mesh", "trimap", "state")
MAX_FIELD_BYTES = limits.MAX_JSON_BYTES


async def request_digest(request: JobRequest) -> str:
    """Digest of all that decides the result."""
    named = [request.kind, request.settings, request.source]
    asked = json.dumps(
        named if request.callback_url is None else [*named, request.callback_url], sort_keys=True
    )
    digest = hashlib.sha256(asked.encode() + b"\0")
    if request.named is not None:
        digest.update(request.named.encode())
    elif request.payload is not None:
        if len(request.payload) < HASHED_AT_ONCE:
            digest.update(request.payload)
        else:  # gives up Python's lock while it works
            await asyncio.to_thread(digest.update, request.payload)
    return digest.hexdigest()


def body_ceiling(method: str, path: str) -> int:
    """The largest body that a route takes."""
    if method != "POST":
        return limits.MAX_JSON_BYTES
    if path in ("/texture", "/jobs"):
        return JSON_TEXTURE_BODY
    if path == "/extract_glb":
        return JSON_STATE_BODY
    if path in ("/generate", "/v1/3d/generations"):
        return JSON_PICTURES_BODY
    if path == "/matte":
        return JSON_IMAGE_BODY + JSON_TRIMAP
    return limits.MAX_JSON_BYTES


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request, model: type[Model]) -> Model:
    """The body as `model`; raises 400 naming the fields, or 415."""
    return await _parsed(request, lambda body: model.model_validate_json(body, strict=True))


async def read_submission(request: Request) -> Asked | Multipart:
    """The body of `POST /jobs`, which is JSON or multipart."""
    if media_type(request) == "multipart/form-data":
        return await read_multipart(request)
    return await _parsed(request, lambda body: SUBMISSION.validate_json(body, strict=True))


async def read_estimate(request: Request) -> AnyEstimate:
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
    """A form: text fields, and files named `image` (or `images`, several times), `mesh` or `state`."""

    fields: dict[str, str]
    files: Mapping[str, Sequence[bytes]]

    def file(self, name: str) -> bytes | None:
        """The one file of the form if that is its name."""
        found = self.files.get(name, ())
        return found[0] if len(found) == 1 and len(self.files) == 1 else None

    def pictures(self, *others: str) -> Sequence[bytes]:
        """Its `image` or `images`; raises 400 unless it has one of these, and no files but `others`
        beside."""
        names = self.files.keys() - set(others)
        if len(names) != 1 or not names <= {"image", "images"}:
            raise _missing("image")
        return self.files[names.pop()]


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
        if key not in FILES:
            message = f"is not a known file; send {', '.join(FILES[:-1])} or {FILES[-1]}"
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


FetchState = Callable[[str, int], Awaitable[bytes]]
"""The state of one of the caller's jobs, by its id and the variant."""


async def generate_work(
    request: GenerateRequest,
    known: Capabilities,
    checks: PictureChecks,
    sources: PictureSources,
    fetch: FetchState,
) -> JobRequest:
    """Raises `InvalidImageError`, `InvalidStateError`, `TooLargeError`, `UnavailableError`,
    `UnsupportedPipelineError`, and what `fetch` raises."""
    if request.model is not None and request.model != known.model:
        message = f"{request.model} is not what runs here; leave it out, or name {known.model}"
        raise InvalidRequestError(f"model: {message}", errors=[FieldError("model", message)])
    check_counts(len(request.images or [""]), request.views)
    state = None
    if request.job is not None:
        state = await fetch(request.job, request.variant)
    elif request.state is not None and (state := await decode_base64(request.state)) is None:
        raise bad_state("state", "is not base64")
    chosen = await _settings_of_shape(request.settings(), state, known)
    inputs = Inputs(await checked_pictures(await sources.pictures(request), checks), state=state)
    return JobRequest("generate", chosen, pack_inputs(inputs), named=request.image_url or request.prompt)


async def _settings_of_shape(
    settings: GenerateSettings, state: bytes | None, known: Capabilities
) -> dict[str, Any]:
    """See `generate_settings`; left out, the pipeline type is that of the state whose shape stays."""
    own = None if state is None else await _type_of_shape(state)
    return generate_settings(settings, known, own)


async def _type_of_shape(state: bytes) -> str | None:
    """The pipeline type that made a state; raises `InvalidStateError` unless it has latents."""
    header = await check_state(state)
    if header.get("latents") is None:
        raise bad_state("latents", "were not kept; generate with keep_latents")
    made = header["info"].get("pipeline_type")
    return made if made in PIPELINE_TYPES else None


async def checked_pictures(pictures: Sequence[bytes], checks: PictureChecks) -> list[bytes]:
    """Encoded pictures, each checked, and their sum."""
    if (total := sum(map(len, pictures))) > limits.MAX_PICTURES_BYTES and len(pictures) > 1:
        raise TooLargeError(f"the pictures have {total} bytes, the most is {limits.MAX_PICTURES_BYTES}")
    return [(await checks.check(picture)).data for picture in pictures]


async def texture_work(request: TextureRequest, known: Capabilities, checks: PictureChecks) -> JobRequest:
    """Raises `InvalidMeshError`, `InvalidImageError`, `TooLargeError`, `UnavailableError`,
    `UnsupportedPipelineError`."""
    given = [request.image] if request.image is not None else request.images or []
    mesh = await decode_base64(request.mesh or "")
    if mesh is None:
        raise meshes.bad_mesh("is not base64 without line breaks")
    pictures = [await picture_bytes(text) for text in given]
    return await _texture_work(request.settings(), pictures, mesh, known, checks)


async def _texture_work(
    settings: TextureSettings,
    pictures: Sequence[bytes],
    mesh: bytes,
    known: Capabilities,
    checks: PictureChecks,
) -> JobRequest:
    check_counts(len(pictures), None)
    chosen = texture_settings(settings, known)
    await asyncio.to_thread(meshes.check_mesh, mesh)
    inputs = Inputs(await checked_pictures(pictures, checks), mesh=mesh)
    return JobRequest("texture", chosen, await asyncio.to_thread(pack_inputs, inputs))


def texture_settings(settings: TextureSettings, known: Capabilities) -> dict[str, Any]:
    """The settings with the resolution decided."""
    _check_loaded(known)
    offered = known.texture_types
    if not offered:
        raise UnsupportedPipelineError("the loaded weights cannot texture meshes: they have no shape encoder")
    chosen = settings.pipeline_type or default_texture_type(offered, known.default_type)
    return settings.given() | {"pipeline_type": _chosen(chosen, offered)}


def generate_settings(
    settings: GenerateSettings, known: Capabilities, own: str | None = None
) -> dict[str, Any]:
    """The settings with the pipeline type decided: as asked, else `own`, else the service's default."""
    _check_loaded(known)
    offered = known.pipeline_types
    chosen = settings.pipeline_type or own or default_pipeline_type(offered, known.default_type)
    return settings.given() | {"pipeline_type": _chosen(chosen, offered)}


def _check_loaded(known: Capabilities) -> None:
    if known.state == "degraded":
        raise UnavailableError(NO_MODEL, retry_after=60)
    if not known.pipeline_types:
        raise UnavailableError("the model is still loading; try again shortly", retry_after=10)


def _chosen(chosen: str, offered: Sequence[str]) -> str:
    """Raises `UnsupportedPipelineError` for a type that is not offered."""
    if chosen not in offered:
        message = f"{chosen} is not offered; choose one of {', '.join(offered)}"
        raise UnsupportedPipelineError(
            message, errors=[FieldError("pipeline_type", message)], hints={"offered": list(offered)}
        )
    return chosen


async def extract_work(request: ExtractRequest) -> JobRequest:
    """Raises `InvalidStateError` or `TooLargeError`."""
    settings = request.settings().resolved().model_dump()
    if request.state is None:
        return JobRequest("extract", settings, None, request.job)
    data = await decode_base64(request.state)
    if data is None:
        raise bad_state("state", "is not base64")
    await check_state(data)
    return JobRequest("extract", settings, data)


async def check_state(data: bytes) -> dict[str, Any]:
    """The header of a state, of which no more is inflated; the worker checks the rest as it decodes."""
    if len(data) > limits.MAX_STATE_BYTES:
        raise TooLargeError(f"the state has {len(data)} bytes, the most is {limits.MAX_STATE_BYTES}")
    return await asyncio.to_thread(peek_state, data)


def kind_of(submission: Asked | Multipart) -> JobKind:
    """What a submission asks for; of a form, `mesh` makes new textures, `image` a generation, `state` or
    `job` an extraction."""
    if isinstance(submission, Multipart):
        pictures = {"image", "images"} & submission.files.keys()
        found = "texture" if "mesh" in submission.files else "generate" if pictures else "extract"
        kind = submission.fields.get("kind", found)
        if kind not in SCOPE_OF:
            message = f"is none of {', '.join(SCOPE_OF)}"
            raise InvalidRequestError(f"kind {message}", errors=[FieldError("kind", message)])
        return kind
    if isinstance(submission, TextureRequest):
        return "texture"
    return "extract" if isinstance(submission, ExtractRequest) else "generate"


def exports(submission: Asked | Multipart) -> bool:
    """Whether a generation makes a file, too, which needs the scope of an extraction."""
    if isinstance(submission, Multipart):
        return "export" in submission.fields
    return isinstance(submission, GenerateRequest) and submission.export is not None


async def form_work(
    form: Multipart, known: Capabilities, checks: PictureChecks, fetch: FetchState
) -> JobRequest:
    """The work that a form asks for."""
    fields = {name: value for name, value in form.fields.items() if name not in OF_SUBMISSIONS}
    try:
        kind = kind_of(form)
        if kind == "generate":
            return await _generate_form(form, fields, known, checks, fetch)
        if kind == "texture":
            return await texture_form(form, known, checks)
        source = fields.pop("job", None)
        extract = ExtractSettings.model_validate(fields).resolved().model_dump()
    except ValidationError as error:
        raise invalid_request(error) from error
    state = form.file("state")
    if (state is None) == (source is None) or form.files.keys() - {"state"}:
        raise _missing("state")
    if state is not None:
        await check_state(state)
    return JobRequest("extract", extract, state, source)


async def _generate_form(
    form: Multipart,
    fields: dict[str, str],
    known: Capabilities,
    checks: PictureChecks,
    fetch: FetchState,
) -> JobRequest:
    source, files = fields.pop("job", None), form.files.get("state", ())
    variant = VARIANT.validate_python(fields.pop("variant", "1"))
    views = {"views": views_of_text(fields["views"])} if "views" in fields else {}
    export = {"export": _object(fields["export"], "export")} if "export" in fields else {}
    settings = GenerateSettings.model_validate({**fields, **views, **export})
    pictures = form.pictures("state")
    if files and source is not None:
        raise _missing("state")
    state = files[0] if files else None if source is None else await fetch(source, variant)
    check_counts(len(pictures), settings.views)
    chosen = await _settings_of_shape(settings, state, known)
    inputs = Inputs(await checked_pictures(pictures, checks), state=state)
    return JobRequest("generate", chosen, pack_inputs(inputs))


async def texture_form(form: Multipart, known: Capabilities, checks: PictureChecks) -> JobRequest:
    """The new textures that a form asks for."""
    fields = {name: value for name, value in form.fields.items() if name not in OF_SUBMISSIONS}
    try:
        settings = TextureSettings.model_validate(fields)
    except ValidationError as error:
        raise invalid_request(error) from error
    mesh = form.files.get("mesh", ())
    if len(mesh) != 1:
        raise _missing("mesh")
    return await _texture_work(settings, form.pictures("mesh"), mesh[0], known, checks)


def matte_form(form: Multipart) -> tuple[bytes, bytes, MatteSettings]:
    """The picture, the trimap (empty without one) and the settings of a form for `POST /matte`."""
    fields: dict[str, Any] = dict(form.fields)
    if "box" in fields:
        fields["box"] = fields["box"].strip("[] ").split(",")
    if form.files.keys() - {"image", "trimap"} or "image" not in form.files:
        message = "send the picture as the file image; a trimap may go beside it"
        raise InvalidRequestError(message, errors=[FieldError("image", message)])
    try:
        asked = MatteSettings.model_validate(fields)
    except ValidationError as error:
        raise invalid_request(error) from error
    return form.files["image"][0], form.files.get("trimap", [b""])[0], asked


def _object(text: str, name: str) -> Any:
    """The JSON of a form's field."""
    try:
        return json.loads(text)
    except ValueError as error:
        message = 'is not JSON; send an object such as {"simplify": "web"}'
        raise InvalidRequestError(f"{name}: {message}", errors=[FieldError(name, message)]) from error


def _missing(name: str) -> InvalidRequestError:
    message = "send the file, or the id of a job, not both" if name == "state" else "send the file itself"
    return InvalidRequestError(f"{name}: {message}", errors=[FieldError(name, message)])


async def submission_work(
    submission: Asked | Multipart,
    known: Capabilities,
    checks: PictureChecks,
    sources: PictureSources,
    fetch: FetchState,
) -> JobRequest:
    if isinstance(submission, Multipart):
        return await form_work(submission, known, checks, fetch)
    if isinstance(submission, ExtractRequest):
        return await extract_work(submission)
    if isinstance(submission, TextureRequest):
        return await texture_work(submission, known, checks)
    return await generate_work(submission, known, checks, sources, fetch)


def callback_of(submission: Asked | Multipart) -> str | None:
    """The address that a submission wants to be told at."""
    if isinstance(submission, Multipart):
        return submission.fields.get("callback_url")
    return getattr(submission, "callback_url", None)
