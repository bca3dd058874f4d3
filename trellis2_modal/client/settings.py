"""Where the client keeps its things, and which service it uses.

Everything lies under `home()`: settings.json (readable by its owner only, for it holds the key), history/,
and server/ (the data of the server that the client starts on this machine).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..durable import write_atomically
from .options import ProxyToken

APP_SERVER = "server"
"""Folder of the data of the server that the app starts, under `home`."""

HOME_VARIABLE = "TRELLIS2_HOME"
URL_VARIABLE = "TRELLIS2_URL"
KEY_VARIABLE = "TRELLIS2_API_KEY"
MODAL_KEY_VARIABLE = "TRELLIS2_MODAL_KEY"
MODAL_SECRET_VARIABLE = "TRELLIS2_MODAL_SECRET"
DEFAULT_HISTORY_LIMIT = 4.0


def home(env: Mapping[str, str] | None = None) -> Path:
    """The folder of the client's data: `TRELLIS2_HOME`, else under the user data folder of the platform."""
    env = os.environ if env is None else env
    chosen = env.get(HOME_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("trellis2-modal", appauthor=False)) / "client"


@dataclass(frozen=True)
class ClientSettings:
    """What a person has set. An empty `url` means the server on this machine."""

    url: str = ""
    key: str = ""
    history_limit_gb: float = DEFAULT_HISTORY_LIMIT
    modal_key: str = ""
    modal_secret: str = ""

    @property
    def proxy_token(self) -> ProxyToken:
        return ProxyToken(self.modal_key, self.modal_secret)


def settings_path(root: Path | None = None) -> Path:
    return (root or home()) / "settings.json"


def load_settings(root: Path | None = None) -> ClientSettings:
    """What was saved; defaults for what is missing or wrong, so that a bad file locks nobody out."""
    try:
        found = json.loads(settings_path(root).read_text("utf-8"))
    except (OSError, ValueError):
        return ClientSettings()
    if not isinstance(found, dict):
        return ClientSettings()
    settings = ClientSettings()
    for name in ("url", "key", "modal_key", "modal_secret"):
        if isinstance(found.get(name), str):
            settings = replace(settings, **{name: found[name]})
    limit = found.get("history_limit_gb")
    if isinstance(limit, (int, float)) and not isinstance(limit, bool) and limit > 0:
        settings = replace(settings, history_limit_gb=float(limit))
    return settings


def save_settings(settings: ClientSettings, root: Path | None = None) -> Path:
    """Write them, readable by their owner only."""
    data = json.dumps(asdict(settings), indent=1).encode()
    path = settings_path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(path, data, mode=0o600)


@dataclass(frozen=True)
class Target:
    """The service to use; `url` empty for the server on this machine. `origin` says who chose it."""

    url: str
    key: str
    origin: str
    proxy_token: ProxyToken = field(default_factory=ProxyToken)


def choose_target(
    url: str | None = None,
    key: str | None = None,
    env: Mapping[str, str] | None = None,
    root: Path | None = None,
    proxy_token: ProxyToken | None = None,
) -> Target:
    """Flags win over the environment, which wins over the settings file.

    A saved key or proxy token goes only to the saved address: it is never sent to another one.
    """
    env = os.environ if env is None else env
    saved = load_settings(root)
    for place, origin in ((url, "--url"), (env.get(URL_VARIABLE), URL_VARIABLE), (saved.url, "settings")):
        if place:
            kept = saved if place.rstrip("/") == saved.url.rstrip("/") else ClientSettings()
            token = ProxyToken(env.get(MODAL_KEY_VARIABLE, ""), env.get(MODAL_SECRET_VARIABLE, ""))
            return Target(
                place,
                key or env.get(KEY_VARIABLE) or kept.key,
                origin,
                proxy_token or token or kept.proxy_token,
            )
    return Target("", "", "this machine")
