"""Every setting of the service once, each overridable by an environment variable `TRELLIS2_<NAME>`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

ENV_PREFIX = "TRELLIS2_"
APP_NAME = "trellis2-modal"


def default_data_dir() -> Path:
    """The user data folder of this platform."""
    return Path(platformdirs.user_data_dir(APP_NAME, appauthor=False))


@dataclass(frozen=True)
class Settings:
    """Limits and times (seconds) of the gateway and of the local backend."""

    data_dir: Path = dataclasses.field(default_factory=default_data_dir)
    """Keys, job store, job files and locks."""

    queue_limit: int = 32
    """Jobs that may wait; more are refused with 503."""

    max_active_jobs: int = 8
    """Unfinished jobs of one key."""

    retention: float = 24 * 3600.0
    """How long the files of a finished job stay downloadable."""

    row_retention: float = 30 * 24 * 3600.0
    """How long a job is remembered at all (it answers 410 after `retention`)."""

    job_timeout: float = 3600.0
    max_attempts: int = 3
    """How often a job is tried when the worker ends under it."""

    heartbeat_timeout: float = 120.0
    """A worker that is silent this long is stuck (the heartbeat is a thread of its own) and is replaced."""

    cancel_grace: float = 60.0
    """How long a cancelled job may take to reach its next check before the worker is replaced."""

    shutdown_grace: float = 20.0
    """How long a running job may go on when the server stops; after that it is put back into the queue."""

    min_free_bytes: int = 256 << 20
    """Jobs are refused when the disk has less room than this."""

    body_idle_timeout: float = 20.0
    body_min_rate: float = 8192.0
    """Bytes a second that an upload must average after `body_idle_timeout`."""

    reads_per_minute: int = 1200
    """Calls of one key that make no work (status, events, downloads)."""

    mattes_per_minute: int = 30
    keys_ttl: float = 1.0
    """How old the key list may be before it is read again."""

    cors_origins: tuple[str, ...] = ()
    metrics: bool = False
    """Whether GET /metrics answers (without a key: for a private network)."""

    event_interval: float = 0.2
    """Progress reports of one stage are stored at most this often."""

    heartbeat_comment: float = 15.0
    """Idle event streams carry a comment this often, so that proxies keep them open."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Settings from the environment; keyword arguments win. Raises ValueError naming the variable."""
        env = os.environ if env is None else env
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            text = env.get(ENV_PREFIX + field.name.upper())
            if text is not None:
                values[field.name] = _parse(field.name, str(field.type), text)
        return cls(**(values | overrides))


def _parse(name: str, kind: str, text: str) -> Any:
    try:
        if kind == "bool":
            return {"1": True, "true": True, "0": False, "false": False}[text.lower()]
        if kind.startswith("tuple"):
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return {"int": int, "float": float, "Path": Path}[kind](text)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{ENV_PREFIX}{name.upper()}={text!r} is not of type {kind}") from error
