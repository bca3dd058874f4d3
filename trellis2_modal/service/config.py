"""Every setting of the service once, each overridable by an environment variable `TRELLIS2_<NAME>`."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import platformdirs
from pydantic import TypeAdapter, ValidationError

from ..jobs.settings import JobSettings
from ..protocol.replies import DEMO_MODEL

ENV_PREFIX = "TRELLIS2_"
APP_NAME = "trellis2-modal"


BUNDLED_WEIGHTS = Path(__file__).resolve().parents[2] / "assets" / "weights" / DEMO_MODEL


def default_data_dir() -> Path:
    """The user data folder of this platform."""
    return Path(platformdirs.user_data_dir(APP_NAME, appauthor=False))


@dataclass(frozen=True)
class Settings(JobSettings):
    """Limits and times (seconds) of the HTTP front, and of the job engine behind it."""

    data_dir: Path = dataclasses.field(default_factory=default_data_dir)
    """Keys, job store, job files and locks."""

    max_active_jobs: int = 8
    """Unfinished jobs of one key."""

    body_idle_timeout: float = 20.0
    body_min_rate: float = 8192.0
    """Bytes a second that an upload must average after `body_idle_timeout`."""

    body_memory: int = 768 << 20
    """Bytes of request bodies held at one moment; what would exceed it is refused with 503."""

    reads_per_minute: int = 1200
    """Calls of one key that make no work (status, events, downloads)."""

    mattes_per_minute: int = 60
    max_streams: int = 32
    """Event streams and other replies of one key that wait for a job at one moment."""

    max_all_streams: int = 512
    """The same of all keys together: what remains is for calls that answer at once."""

    max_connections: int = 1000
    """Open connections of the local server; fewer where the system allows fewer files."""

    keys_ttl: float = 1.0
    """How old the key list may be before it is read again."""

    image_urls: bool = False
    """Whether `image_url` is taken: the service then fetches pictures from public addresses (https only)."""

    text_to_image: str = ""
    """`module:function` that makes a picture (bytes) of a prompt and a seed; without one, none is taken."""

    hosts: tuple[str, ...] = ()
    """Names that the local server answers to beside addresses and the machine's own; `*` for any."""

    cors_origins: tuple[str, ...] = ()
    metrics: bool = False
    """Whether GET /metrics answers (without a key: for a private network)."""

    heartbeat_comment: float = 15.0
    """Idle event streams carry a comment this often, so that proxies keep them open."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Settings from the environment; keyword arguments win. Raises `SettingsError`."""
        return cls(**(values_from_env(cls, env) | overrides))


def default_weights() -> str:
    """`TRELLIS2_WEIGHTS`, else the bundled weights, else the published ones."""
    chosen = os.environ.get("TRELLIS2_WEIGHTS")
    if chosen:
        return chosen
    return str(BUNDLED_WEIGHTS) if BUNDLED_WEIGHTS.exists() else PUBLISHED_MODEL


def values_from_env(cls: type, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The fields of a settings class that the environment sets, of the types that they are annotated with.

    Raises `SettingsError`.
    """
    env = os.environ if env is None else env
    values: dict[str, Any] = {}
    for name, kind in get_type_hints(cls).items():
        text = env.get(ENV_PREFIX + name.upper())
        if text is None:
            continue
        listed = [part.strip() for part in text.split(",") if part.strip()]
        try:
            values[name] = TypeAdapter(kind).validate_python(listed if get_origin(kind) is tuple else text)
        except ValidationError as error:
            wanted = getattr(kind, "__name__", kind)
            raise SettingsError(f"{ENV_PREFIX}{name.upper()}={text!r} is not of type {wanted}") from error
    return values


MINUTE = 60
DAY = 24 * 60 * MINUTE

BUNDLED_MODEL = "bundled"
PUBLISHED_MODEL = "microsoft/TRELLIS.2-4B"
PUBLISHED_REVISION = "af44b45f2e35a493886929c6d786e563ec68364d"
STRUCTURE_DECODER_MODEL = "microsoft/TRELLIS-image-large"
STRUCTURE_DECODER_REVISION = "25e0d31ffbebe4b5a97464dd851910efc3002d96"
PIXEL_MODEL = "TencentARC/Pixal3D"
PIXEL_REVISION = "b0cb2e1b794cab9aa0ac38a95d794a4d9337437f"
GATED_ENCODER = "facebook/dinov3-vitl16-pretrain-lvd1689m"
OPEN_ENCODER = "timm/vit_large_patch16_dinov3.lvd1689m"
GATED_REMOVER = "briaai/RMBG-2.0"
OPEN_REMOVER = "ZhengPeng7/BiRefNet"


@dataclass(frozen=True)
class KnownModel:
    """A repository on the hub at a commit that this project was written for, and which of its configs."""

    repo: str
    revision: str
    config_file: str = "pipeline.json"
    upsampler: bool = False
    """Whether it also needs NAF's weights, which lie elsewhere."""


KNOWN_MODELS: Mapping[str, KnownModel] = {
    PUBLISHED_MODEL: KnownModel(PUBLISHED_MODEL, PUBLISHED_REVISION),
    PIXEL_MODEL: KnownModel(PIXEL_MODEL, PIXEL_REVISION, upsampler=True),
    "pixal3d": KnownModel(PIXEL_MODEL, PIXEL_REVISION, upsampler=True),
    "pixal3d-mv": KnownModel(PIXEL_MODEL, PIXEL_REVISION, "pipeline_mv.json", upsampler=True),
}
"""What `TRELLIS2_MODEL` and `--weights` take beside repositories and folders: `pixal3d` is for one picture,
`pixal3d-mv` for several views."""


def model_source(name: str) -> KnownModel:
    """Where a model lies: a known one, or a repository of which nothing is known (its branch main)."""
    return KNOWN_MODELS.get(name) or KnownModel(name, "main")


CUDA_ARCHITECTURES = {
    "A100": "8.0",
    "A100-40GB": "8.0",
    "A100-80GB": "8.0",
    "L40S": "8.9",
    "H100": "9.0",
    "H100!": "9.0",
    "H200": "9.0",
    "B200": "10.0",
    "RTX-PRO-6000": "12.0",
}
"""GPUs with room for the model, and the architecture that the full image's extensions are compiled for."""

LEAN_ONLY = ("B200", "RTX-PRO-6000")
"""GPUs that the full image's CUDA 12.4 and torch 2.6 cannot compile for."""

NO_GPU = "none"


class SettingsError(ValueError):
    """A variable of the environment has a value that it cannot have; the text names it and what it may be."""


@dataclass(frozen=True)
class DeploySettings:
    """What a deployment on Modal is made of. Read on the machine that deploys and baked into the images (see
    `baked_environment`), so that containers define the very same app.
    """

    app: str = "trellis2"
    image: str = "lean"
    """`lean`: wheels alone, what the GPU figures were measured with. `full`: the compiled extensions too, for
    comparison; some are licensed for non-commercial use only."""

    gpu: str = "A100-80GB"
    """`none` runs the model on the CPU: only for trying a deployment out with the bundled weights."""

    loading: str = "snapshot"
    """`snapshot`: weights on the CPU are part of the memory snapshot. `stream`: the snapshot holds imports
    only, and weights are read straight to the GPU after each restore. `gpu_snapshot` (experimental at Modal):
    the snapshot holds the GPU's memory, warm kernels included. Measure which starts faster."""

    model: str = PUBLISHED_MODEL
    """A repository on the hub, `pixal3d`, `pixal3d-mv`, or `bundled`: the small weights of this project,
    nothing to download."""

    revision: str = ""
    """A commit or branch; left out: of a known model the commit it is known by, else main."""

    image_encoder: str = GATED_ENCODER
    image_encoder_revision: str = "main"
    background_remover: str = OPEN_REMOVER
    background_remover_revision: str = "main"
    """A branch is resolved to its commit when the weights are downloaded, and that commit is kept."""

    forest_digest: str = "any"
    """SHA-256 of the full image's environment light; `any` takes what is there, and the build prints it."""

    hf_secret: str = "huggingface-secret"
    """Name of the Modal secret with HF_TOKEN; used only when a chosen repository is gated."""

    weights_volume: str = "trellis2-weights"
    data_volume: str = "trellis2-data"
    """Holds keys.json."""

    jobs_dict: str = "trellis2-jobs"
    """Who made which call; read by the gateway only."""

    progress_dict: str = "trellis2-progress"
    """What running calls report, by call id."""

    kernels_volume: str = "trellis2-kernels"
    """Compiled kernels of Warp, Triton and torch, so that one container compiles for all."""

    warm_up: bool = True
    """Run every stage once before a GPU container takes jobs."""

    gpu_max_containers: int = 2
    """The most GPUs that can cost money at one moment."""

    gpu_scaledown_window: int = 2 * MINUTE
    gpu_timeout: int = 20 * MINUTE
    """Of one job, not counting its wait for a container."""

    gpu_startup_timeout: int = 20 * MINUTE
    gpu_cpu: float = 8.0
    gpu_memory: int = 48 * 1024
    """MiB: one copy of the weights on the CPU (16 GB) and room for extraction."""

    gpu_max_attempts: int = 2
    """Containers that a job is given when its own dies or loses its GPU; other failures are final. After a
    crash the last one only says so: another crash would start one more."""

    gateway_max_containers: int = 1
    """Calls per minute are counted in each gateway container; more of them multiply that limit."""

    gateway_min_containers: int = 0
    gateway_max_inputs: int = 200
    gateway_scaledown_window: int = 5 * MINUTE
    gateway_cpu: float = 1.0
    gateway_memory: int = 2048
    proxy_auth: bool = False
    """Also ask for Modal's own proxy token, at the edge, before any container starts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "revision", self.revision or self.source.revision)

    @property
    def source(self) -> KnownModel:
        """Where `model` lies."""
        return model_source(self.model)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> DeploySettings:
        """Raises `SettingsError`."""
        settings = cls(**values_from_env(cls, env))
        settings.check()
        return settings

    def check(self) -> None:
        """Raises `SettingsError` for what Modal would refuse late, or not at all."""
        choices = {
            "image": ("lean", "full"),
            "loading": LOADINGS,
            "gpu": (*CUDA_ARCHITECTURES, NO_GPU),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise _refused(self, name, f"choose one of {', '.join(allowed)}")
        if self.image == "full" and self.gpu == NO_GPU:
            raise _refused(self, "gpu", f"needs {ENV_PREFIX}IMAGE=lean: extensions need a GPU")
        if self.image == "full" and self.gpu in LEAN_ONLY:
            raise _refused(self, "gpu", f"needs {ENV_PREFIX}IMAGE=lean: CUDA 12.4 does not compile for it")
        if self.gpu == NO_GPU and self.loading == "gpu_snapshot":
            raise _refused(self, "loading", f"needs a GPU, and {ENV_PREFIX}GPU={NO_GPU}")
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise _refused(self, name, f"choose a number from {least:g} to {most:g}")
        if not re.fullmatch("any|[0-9a-f]{64}", self.forest_digest):
            raise _refused(
                self, "forest_digest", "choose any, or a SHA-256: 64 digits from 0 to 9 and a to f"
            )
        if self.gateway_min_containers > self.gateway_max_containers:
            raise _refused(self, "gateway_min_containers", f"is above {ENV_PREFIX}GATEWAY_MAX_CONTAINERS")

    @property
    def device(self) -> str:
        """Where the model runs inside a container."""
        return "cpu" if self.gpu == NO_GPU else "cuda"

    @property
    def modal_gpu(self) -> str | None:
        """`gpu` as Modal's decorators take it."""
        return None if self.gpu == NO_GPU else self.gpu

    @property
    def gated_sources(self) -> tuple[str, ...]:
        """The chosen repositories that need an accepted licence and a token."""
        if self.model == BUNDLED_MODEL:
            return ()
        return tuple(
            name
            for name in (self.image_encoder, self.background_remover)
            if name in (GATED_ENCODER, GATED_REMOVER)
        )

    def gpu_class_options(self) -> dict[str, Any]:
        """Arguments of `@app.cls` that are plain data.

        Only a lost GPU or a dead container is retried: a job that fails returns its problem.
        """
        experimental = {"enable_gpu_snapshot": True} if self.loading == "gpu_snapshot" else {}
        return {
            "experimental_options": experimental,
            "gpu": self.modal_gpu,
            "cpu": self.gpu_cpu,
            "memory": self.gpu_memory,
            "min_containers": 0,
            "max_containers": self.gpu_max_containers,
            "scaledown_window": self.gpu_scaledown_window,
            "timeout": self.gpu_timeout,
            "startup_timeout": self.gpu_startup_timeout,
            "enable_memory_snapshot": True,
            "retries": max(0, self.gpu_max_attempts - 1),
        }

    def gateway_options(self) -> dict[str, Any]:
        """Arguments of the gateway's `@app.function` that are plain data; `timeout` bounds an open stream."""
        return {
            "cpu": self.gateway_cpu,
            "memory": self.gateway_memory,
            "min_containers": self.gateway_min_containers,
            "max_containers": self.gateway_max_containers,
            "scaledown_window": self.gateway_scaledown_window,
            "timeout": min(DAY, round(self.longest_request())),
        }

    def longest_request(self) -> float:
        """Seconds that a caller may wait in one request: the longest queue, the longest job, and a margin."""
        settings = gateway_settings(self)
        return settings.longest_wait(settings.queue_limit) + settings.job_timeout + 5 * MINUTE


LOADINGS = ("snapshot", "stream", "gpu_snapshot")

RANGES: dict[str, tuple[float, float]] = {
    "gpu_max_containers": (1, 1000),
    "gpu_scaledown_window": (2, 3600),
    "gpu_timeout": (60, 12 * 3600),
    "gpu_startup_timeout": (60, 24 * 3600),
    "gpu_cpu": (0.125, 64),
    "gpu_memory": (4096, 336 * 1024),
    "gpu_max_attempts": (1, 10),
    "gateway_max_containers": (1, 1000),
    "gateway_min_containers": (0, 1000),
    "gateway_max_inputs": (8, 1000),
    "gateway_scaledown_window": (2, 3600),
    "gateway_cpu": (0.125, 64),
    "gateway_memory": (512, 336 * 1024),
}
"""What Modal takes; its own refusal comes in the middle of a deploy."""


def _refused(settings: DeploySettings, name: str, why: str) -> SettingsError:
    return SettingsError(f"{ENV_PREFIX}{name.upper()}={getattr(settings, name)!r}: {why}")


def baked_environment(settings: DeploySettings, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that give a container these settings, and those of `Settings` that are set here."""
    env = os.environ if env is None else env
    baked = {
        ENV_PREFIX + field.name.upper(): str(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
    }
    for field in dataclasses.fields(Settings):
        name = ENV_PREFIX + field.name.upper()
        if name in env and field.name != "data_dir":
            baked[name] = env[name]
    return {name: value.lower() if value in ("True", "False") else value for name, value in baked.items()}


def gateway_settings(deploy: DeploySettings, env: Mapping[str, str] | None = None) -> Settings:
    """The service's settings where they differ on Modal: the environment wins over these."""
    on_modal: dict[str, Any] = {
        "queue_limit": 16,
        "max_active_jobs": 4,
        "retention": 6.5 * DAY,  # Modal keeps the result of a call for 7 days
        "row_retention": 6.5 * DAY,
        "job_timeout": float(deploy.gpu_timeout),
        "worker_start_timeout": float(deploy.gpu_startup_timeout),
        "workers": deploy.gpu_max_containers,
        "max_attempts": deploy.gpu_max_attempts,
        "keys_ttl": 20.0,
        "event_interval": 1.0,
        "max_streams": min(32, deploy.gateway_max_inputs // 4),
        "max_all_streams": deploy.gateway_max_inputs * 3 // 4,
        "body_memory": 320 << 20,  # of 2 GiB: one state of the largest size, some copies of it, and pictures
    }
    return Settings(**(on_modal | values_from_env(Settings, env)))
