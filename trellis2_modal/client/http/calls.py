"""Each call of the API: what is asked, checked here before it is sent, and what comes back, as a flow."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from ...protocol.errors import (
    FieldError,
    InvalidRequestError,
    InvalidStateError,
    TooLargeError,
    error_from_problem,
)
from ...protocol.events import is_result
from ...protocol.limits import MAX_STATE_BYTES, MIB
from ...protocol.meshes import bad_mesh, check_mesh
from ...protocol.replies import (
    ASSET_MEDIA_TYPES,
    Estimate,
    Health,
    JobEvent,
    JobList,
    JobResult,
    JobStatus,
    MatteResponse,
    Usage,
    artifact_of,
    variant_seeds,
)
from ...protocol.requests import ExtractSettings, GenerateSettings, JobKind, MatteSettings, TextureSettings
from ...protocol.views import check_counts
from ..errors import NotTheServiceError
from ..inputs.pictures import Picture, read_picture
from ..results import ExtractResult, GenerateResult, Matte, Result, TextureResult
from .core import MAX_ARTIFACT, Call, Core, Flow, job_path, new_idempotency_key, parse
from .events import Follower

S = TypeVar("S", bound=BaseModel)
SETTINGS: Mapping[JobKind, type[BaseModel]] = {
    "generate": GenerateSettings,
    "texture": TextureSettings,
    "extract": ExtractSettings,
}
MeshSource: TypeAlias = "bytes | str | Path"
StateSource: TypeAlias = "bytes | str | Path | GenerateResult"


def checked(model: type[S], settings: Mapping[str, Any]) -> S:
    """Settings against the protocol; raises `InvalidRequestError` naming the fields."""
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        found = [
            FieldError(".".join(str(part) for part in item["loc"]) or "settings", str(item["msg"]))
            for item in error.errors()
        ]
        detail = "; ".join(f"{item['field']}: {item['message']}" for item in found)
        raise InvalidRequestError(detail, errors=found) from error


def _given(settings: BaseModel) -> dict[str, Any]:
    """Only what the caller set, so that the service's own defaults and presets apply."""
    return settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)


def generation(
    picture: Picture, settings: Mapping[str, Any], key: str | None, shape: StateSource | None = None
) -> Call:
    """A generation from a picture, a list of views of one object, or a picture's https URL; see
    `Client.generate`."""
    asked = checked(GenerateSettings, settings)
    fields = {"kind": "generate"} | _given(asked)
    if isinstance(picture, str) and picture.startswith("https://"):
        if shape is not None:
            raise InvalidRequestError("a shape that stays takes a picture itself, not its URL")
        return _job(fields | {"image_url": picture}, (), key)
    files = _picture_files(picture, asked.views)
    return _job(fields, files if shape is None else [*files, ("state", read_state(shape))], key)


def _job(fields: Mapping[str, Any], files: Sequence[tuple[str, bytes]], key: str | None) -> Call:
    return Call("POST", "/jobs", fields=fields, files=files, idempotency_key=key or new_idempotency_key())


def _picture_files(picture: Picture, views: Any = None) -> list[tuple[str, bytes]]:
    """A picture, or a list of views of one object, as files of a form."""
    pictures = picture if isinstance(picture, (list, tuple)) else [picture]
    check_counts(len(pictures), views)
    name = "image" if len(pictures) == 1 else "images"
    return [(name, read_picture(p)) for p in pictures]


def texturing(mesh: MeshSource, picture: Picture, settings: Mapping[str, Any], key: str | None) -> Call:
    """New textures for a mesh from a picture, or from a list of views."""
    fields = {"kind": "texture"} | _given(checked(TextureSettings, settings))
    return _job(fields, [("mesh", read_mesh(mesh)), *_picture_files(picture)], key)


def read_mesh(mesh: MeshSource) -> bytes:
    """The bytes of a mesh file, looked at; raises `InvalidMeshError` or `TooLargeError`."""
    if isinstance(mesh, (str, Path)):
        try:
            data = Path(mesh).read_bytes()
        except OSError as error:
            raise bad_mesh(f"{mesh} cannot be read: {error.strerror or error}") from error
    else:
        data = bytes(mesh)
    check_mesh(data)
    return data


def extraction(
    state: StateSource | None, job: str | None, settings: Mapping[str, Any], key: str | None
) -> Iterator[Call]:
    """An extraction from a generation that the service still has, or from a state; of a result by its job,
    then by its state."""
    if isinstance(state, GenerateResult) and job is None:
        variant = {"variant": state.variant} if state.variant > 1 else {}
        yield from extraction(None, state.job, variant | dict(settings), key)
        key = None  # the state itself makes another request
    elif (state is None) == (job is None):
        raise InvalidRequestError("give exactly one of state and job")
    fields = _given(checked(ExtractSettings, settings))
    if state is not None:
        yield _job(fields | {"kind": "extract"}, [("state", read_state(state))], key)
    else:
        asked = _job(fields | {"job": job}, (), key)
        yield replace(asked, path="/extract_glb", headers={"Prefer": "respond-async"})


def read_state(state: StateSource) -> bytes:
    """The bytes of a kept state; raises `InvalidStateError` or `TooLargeError`."""
    if isinstance(state, GenerateResult):
        data = state.state
    elif isinstance(state, (str, Path)):
        try:
            data = Path(state).read_bytes()
        except OSError as error:
            raise InvalidStateError(f"{state} cannot be read: {error.strerror or error}") from error
    else:
        data = bytes(state)
    if len(data) > MAX_STATE_BYTES:
        raise TooLargeError(f"the state has {len(data) / MIB:.0f} MiB, the most is {MAX_STATE_BYTES // MIB}")
    from ...protocol.state.container import declared_size  # with numpy: not at import

    declared_size(data)
    return data


def status(core: Core, job_id: str) -> Flow[JobStatus]:
    return (yield from core.reply(Call("GET", job_path(job_id)), JobStatus))


def follow(core: Core, job_id: str, on_event: Callable[[JobEvent], None]) -> Flow[Result]:
    """A job to its end, and its files; raises its failure, or `JobCancelledError`."""
    follower = Follower(core, job_id)
    try:
        while (event := (yield from follower.next())) is not None:
            on_event(event)
            if is_result(event):
                break
    finally:
        yield from follower.close()
    return (yield from result(core, job_id))


def cancel(core: Core, job_id: str) -> Flow[JobStatus]:
    return (yield from core.reply(Call("DELETE", job_path(job_id)), JobStatus))


def jobs(core: Core, limit: int, before: str | None) -> Flow[JobList]:
    params: dict[str, Any] = {"limit": limit} | ({"before": before} if before else {})
    return (yield from core.reply(Call("GET", "/jobs", params=params), JobList))


def health(core: Core) -> Flow[Health]:
    """Raises `NotTheServiceError` when something else answers."""
    found = yield from core.reply(Call("GET", "/health"), Health)
    if found.service != "trellis2-api":
        raise NotTheServiceError(f"{core.url.host} is {found.service}, not a TRELLIS.2 service")
    return found


def usage(core: Core) -> Flow[Usage]:
    return (yield from core.reply(Call("GET", "/usage"), Usage))


def estimate(core: Core, kind: JobKind, settings: Mapping[str, Any]) -> Flow[Estimate]:
    """What a job with these settings takes, costs and waits."""
    fields = _given(checked(SETTINGS[kind], settings)) | {"kind": kind}
    return (yield from core.reply(Call("POST", "/estimate", fields=fields), Estimate))


def matte(
    core: Core, picture: Picture, settings: Mapping[str, Any], trimap: Picture | None = None
) -> Flow[Matte]:
    """The subject as the model will see it, and what a person should know of the picture."""
    files = [("image", read_picture(picture))]
    if trimap is not None:
        files.append(("trimap", read_picture(trimap)))
    call = Call(
        "POST",
        "/matte",
        headers={"Accept": "application/json"},
        fields=_given(checked(MatteSettings, settings)),
        files=files,
        ceiling=MAX_ARTIFACT,
    )
    response = yield from core.request(call, patient=False)
    if response.headers.get("content-type", "").startswith("image/"):  # of an older service
        return Matte(bytes(response.content))
    reply = parse(response, MatteResponse)
    try:
        return Matte(base64.b64decode(reply.matte, validate=True), reply.warnings)
    except ValueError as error:
        raise NotTheServiceError(f"{core.url.host} sent a matte that is not base64") from error


def artifact(core: Core, job_id: str, name: str, patient: bool = True) -> Flow[bytes]:
    """A file of a finished job, or one that it has handed over before."""
    response = yield from core.request(Call("GET", job_path(job_id, name), ceiling=MAX_ARTIFACT), patient)
    return bytes(response.content)


def result(core: Core, job_id: str) -> Flow[Result]:
    """All files of a finished job; raises the failure of one that failed."""
    job = yield from status(core, job_id)
    if job.problem is not None:
        raise error_from_problem(job.problem.model_dump())
    found = job.result
    names = set(found.artifacts) if found else set()
    if job.kind == "extract":
        kind = str(job.settings.get("format") or "glb")
        if kind not in ASSET_MEDIA_TYPES:
            raise NotTheServiceError(f"{core.url.host} made a file of an unknown format ({kind[:20]})")
        data = yield from artifact(core, job_id, "asset")
        stats = dict(found.stats) if found else {}
        return ExtractResult(
            job_id,
            data,
            kind,
            dict(job.settings),
            stats,
            found.warnings if found else [],
        )
    if job.kind == "generate":
        return (yield from _generated(core, job, found or JobResult()))
    video = (yield from artifact(core, job_id, "video")) if "video" in names else None
    preview = (yield from artifact(core, job_id, "preview")) if "preview" in names else None
    data = yield from artifact(core, job_id, "glb")
    return TextureResult(
        job_id,
        data,
        settings=dict(job.settings),
        stats=dict(found.stats) if found else {},
        warnings=found.warnings if found else [],
        seed=(found.seed if found else None) or 0,
        video=video,
        preview=preview,
    )


def _generated(core: Core, job: JobStatus, found: JobResult) -> Flow[GenerateResult]:
    """The asset of a finished generation, or all of its variants."""
    variants: list[GenerateResult] = []
    for number, seed in enumerate(variant_seeds(found.stats) or [found.seed or 0], 1):
        files = {}
        for name in ("state", "video", "preview"):
            if name == "state" or artifact_of(name, number) in found.artifacts:
                files[name] = yield from artifact(core, job.id, artifact_of(name, number))
        variants.append(
            GenerateResult(
                job.id,
                seed=seed,
                resolution=found.resolution or 0,
                state=files["state"],
                video=files.get("video"),
                preview=files.get("preview"),
                settings=dict(job.settings),
                stats=dict(found.stats),
                warnings=found.warnings,
                variant=number,
            )
        )
    asset = (yield from artifact(core, job.id, "asset")) if "asset" in found.artifacts else None
    return replace(variants[0], asset=asset, variants=tuple(variants) if len(variants) > 1 else ())
