"""What the service answers: jobs, events, usage, health and problem documents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from .requests import JobKind

JobState = Literal["queued", "running", "finished", "failed", "cancelled", "expired"]
FINAL_STATES: frozenset[str] = frozenset({"finished", "failed", "cancelled", "expired"})
EventType = Literal["queued", "started", "progress", "restarted", "result", "failed", "cancelled"]
FINAL_EVENTS: frozenset[str] = frozenset({"result", "failed", "cancelled"})
ArtifactName = Annotated[
    str, StringConstraints(pattern=r"^(asset|glb|light|(state|video|preview)(-[2-8])?)$")
]
"""`light` is a mesh of few faces that a generation of one asset with `preview` frames makes before its video;
of a service on this machine it can be read while the job still runs. Of a job with several variants `state`
is the first one's, `state-2` the second one's."""

Scope = Literal["generate", "extract", "webhook", "dry-run"]
SCOPES: tuple[Scope, ...] = ("generate", "extract", "webhook", "dry-run")
DEFAULT_SCOPES: tuple[Scope, ...] = ("generate", "extract")
"""What a new key may do: `webhook` lets jobs name a callback_url, `dry-run` stands in place of the first two
and runs nothing."""
SCOPE_OF: dict[JobKind, Scope] = {"generate": "generate", "texture": "generate", "extract": "extract"}

DEMO_MODEL = "trellis2-mini"
"""What /health calls the small weights that come with the repository."""

STATE_MEDIA_TYPE = "application/vnd.trellis2.state+lz4"
EVENT_STREAM = "text/event-stream"
ASSET_MEDIA_TYPES = {
    "glb": "model/gltf-binary",
    "obj": "application/zip",
    "usdz": "model/vnd.usdz+zip",
    "stl": "model/stl",
    "3mf": "model/3mf",
    "ply": "application/octet-stream",
}
"""Media type of the `glb` artifact by the format asked for (obj comes as a zip with its textures)."""


class Reply(BaseModel):
    """Clients read these leniently, so that a newer service can add members."""

    model_config = ConfigDict(extra="ignore", ser_json_inf_nan="null", defer_build=True)


class ProgressReport(Reply):
    """`step` of `steps` is done in `stage`; stages follow one another."""

    stage: str
    step: int
    steps: int
    message: str = ""


class FieldProblem(Reply):
    field: str
    message: str


class Problem(Reply):
    """RFC 9457 problem document; `type` is a stable slug (see `errors.ERRORS`)."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    type: str
    title: str
    status: int
    detail: str
    request_id: str = ""
    errors: list[FieldProblem] = []
    retry_after: float | None = None


def artifact_of(name: str, variant: int = 1) -> str:
    """Name of a file of a job's variant, counted from 1."""
    return name if variant == 1 else f"{name}-{variant}"


def variant_seeds(stats: Mapping[str, Any]) -> list[int]:
    """The seeds of a job's variants, in order; none of a job that was asked for one asset."""
    found = stats.get("variants")
    entries = found if isinstance(found, list) else []
    seeds = [entry.get("seed") for entry in entries if isinstance(entry, dict)]
    return [seed for seed in seeds if type(seed) is int]


class ArtifactLink(Reply):
    """A file of a finished job; `url` is to be put after the base URL, prefix of a proxy included."""

    url: str
    media_type: str
    bytes: int


class Notice(Reply):
    """Something a person should know of a result; `code` is stable, `message` says what to do."""

    code: str
    message: str


class JobResult(Reply):
    """What a finished job left; `stats` are for people and dashboards."""

    seed: int | None = None
    resolution: int | None = None
    artifacts: dict[str, ArtifactLink] = {}
    warnings: list[Notice] = []
    stats: dict[str, JsonValue] = {}

    @model_validator(mode="before")
    @classmethod
    def _lift_warnings(cls, value: Any) -> Any:
        """Workers count them among the stats, beside which they are published."""
        if isinstance(value, dict) and isinstance(value.get("stats"), dict) and "warnings" in value["stats"]:
            stats = dict(value["stats"])
            return {"warnings": stats.pop("warnings"), **value, "stats": stats}
        return value


class CallbackAttempt(Reply):
    """One delivery: what the receiver answered, or why it could not be reached."""

    time: datetime
    status: int | None = None
    error: str = ""


class CallbackStatus(Reply):
    """Who is told of the job's end, and how that goes."""

    url: str
    state: Literal["waiting", "delivered", "failed"]
    attempts: list[CallbackAttempt] = []


def with_asset(result: dict[str, Any]) -> dict[str, Any]:
    """The result with the file of an extraction by its name, `asset`, whatever its format, beside `glb`."""
    links = result["artifacts"]
    if "glb" not in links:
        return result
    named = {**links["glb"], "url": links["glb"]["url"].removesuffix("/glb") + "/asset"}
    return {**result, "artifacts": {**links, "asset": named}}


class JobStatus(Reply):
    """A job as its owner sees it. Times are UTC."""

    id: str
    kind: JobKind
    status: JobState
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    expires: datetime | None = Field(None, description="When the files of a finished job are removed.")
    position: int | None = Field(None, description="Jobs ahead in the queue, while queued.")
    attempt: int = Field(0, description="How often a worker has taken the job.")
    progress: ProgressReport | None = None
    settings: dict[str, JsonValue] = {}
    result: JobResult | None = None
    problem: Problem | None = None
    callback: CallbackStatus | None = None


class JobList(Reply):
    """Newest first; `next` is the `before` of the following page."""

    jobs: list[JobStatus]
    next: str | None = None


class JobEvent(Reply):
    """One event of a job; `id` counts from 1 and is the SSE id.

    `data`: `progress` carries a `ProgressReport`; `result` a `JobResult`; `failed` a `Problem`; `restarted`
    says why; `queued` the position.
    """

    id: int
    type: EventType
    time: datetime
    data: dict[str, JsonValue] = {}


class VariantFiles(Reply):
    """The files of one variant in base64, and the seed that made it."""

    seed: int
    state: str
    video: str | None = None
    preview: str | None = None


class GenerateResponse(Reply):
    """Reply of a synchronous `POST /generate`; binary members are base64.

    `state`, `video` and `preview` are the first variant's; `variants` are all of several.
    """

    state: str
    video: str | None = None
    preview: str | None = None
    variants: list[VariantFiles] = []
    asset: str | None = Field(None, description="The file that `export` asked for.")
    request_id: str
    job: str
    seed: int
    resolution: int
    warnings: list[Notice] = []
    stats: dict[str, JsonValue] = {}


class ExtractResponse(Reply):
    """Reply of a synchronous `POST /extract_glb`."""

    glb: str
    format: str = "glb"
    request_id: str
    job: str
    warnings: list[Notice] = []
    stats: dict[str, JsonValue] = {}


class TextureResponse(Reply):
    """Reply of a synchronous `POST /texture`: the textured mesh as a GLB, in base64."""

    glb: str
    video: str | None = None
    preview: str | None = None
    request_id: str
    job: str
    seed: int
    resolution: int
    warnings: list[Notice] = []
    stats: dict[str, JsonValue] = {}


class MatteResponse(Reply):
    """Reply of `POST /matte` where JSON is asked for: the PNG in base64."""

    matte: str
    warnings: list[Notice] = []


class Usage(Reply):
    """The caller's own limits and what is left of them."""

    key: str
    name: str
    scopes: list[str]
    expires: datetime | None = None
    requests_per_minute: int
    requests_left: int
    gpu_seconds_per_day: float
    gpu_seconds_used: float
    gpu_seconds_left: float
    active_jobs: int
    max_active_jobs: int
    gpu_price_per_hour: float | None = Field(None, description="As the operator estimates it.")
    price_used: float | None = Field(None, description="Of the GPU seconds used, at that price.")
    currency: str = "USD"
    webhook_secret: str | None = Field(None, description="Signs callbacks; of keys with the scope webhook.")


class Estimate(Reply):
    """Reply of `POST /estimate`: what a job would take, by the median of measured jobs like it.

    Everything is null where no job like it was measured since the service was set up.
    """

    kind: JobKind
    seconds: float | None = Field(None, description="Of the accelerator, which a key is charged.")
    low: float | None = Field(None, description="The least that a job like it took.")
    high: float | None = Field(None, description="The most that a job like it took.")
    wait_seconds: float | None = Field(None, description="Until it would begin; null where it is unknown.")
    stages: dict[str, float] = Field(default_factory=dict, description="Seconds by stage.")
    measured: int = Field(0, description="How many jobs like it were measured.")
    price: float | None = Field(None, description="Of the seconds, where the operator has set a rate.")
    currency: str = "USD"


class ViewSupport(Reply):
    """How many views of an object the weights were trained on, and whether fov and camera matrices mean
    something to them.
    """

    least: int = 1
    most: int = 1
    cameras: bool = False


class Welcome(Reply):
    """Reply of `GET /`."""

    service: str = "trellis2-api"
    version: str
    what: str = (
        "The HTTP API of TRELLIS.2: a photo goes in, a textured 3D asset comes out. All calls but /health "
        "need a key."
    )
    links: dict[str, str] = Field({}, description="Relative to this address.")


class Health(Reply):
    """Reply of `GET /health`: no key, no accelerator."""

    status: Literal["ok", "starting", "degraded", "stopping"]
    service: str = "trellis2-api"
    version: str
    model: str
    device: str = ""
    pipeline_types: list[str] = []
    default_pipeline_type: str | None = None
    texture_types: list[str] = Field([], description="Resolutions at which POST /texture works.")
    samplers: dict[str, float] = Field(
        default_factory=dict,
        description="The weights' own sampler settings: what holds where a request sets none.",
    )
    backends: dict[str, str] = Field(
        default_factory=dict,
        description="The implementation of each operation, and why; empty until a worker has started.",
    )
    views: ViewSupport = Field(
        default_factory=ViewSupport,
        description="What the weights were trained for; other numbers are taken with a warning.",
    )
    queued: int = 0
    running: int = 0
    queue_limit: int = 0
    matte: bool = Field(False, description="Whether POST /matte is available.")
    image_url: bool = Field(False, description="Whether a request may name a picture by its address.")
    prompt: bool = Field(False, description="Whether a request may give words in place of a picture.")
