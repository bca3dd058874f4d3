"""The real gateway function over Modal emulated in this process."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.trellis2_modal.deploy.emulated import EmulatedModal
from tests.trellis2_modal.deploy.volume import MemoryVolume
from tests.trellis2_modal.server import picture
from trellis2_modal.jobs import engine
from trellis2_modal.service import service
from trellis2_modal.service.auth import KeyAdmin
from trellis2_modal.service.deploy import modal_calls, modal_keys
from trellis2_modal.service.deploy.modal_keys import VolumeKeys


class Deployed:
    """A deployment: Modal, the key volume, and gateways over them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, modal: EmulatedModal) -> None:
        self.modal = modal
        self.volume = MemoryVolume()
        self.keys = VolumeKeys(self.volume, "trellis2-data")
        self.admin = KeyAdmin(self.keys)
        self.key = self.new_key("tests")
        monkeypatch.setattr(modal_calls, "ModalCalls", lambda settings, cls: self.modal)
        monkeypatch.setattr(modal_keys, "open_keys", lambda settings: self.keys)
        monkeypatch.setattr(engine, "WATCH_INTERVAL", 0.05)
        monkeypatch.setattr(engine, "SWEEP_INTERVAL", 0.05)
        monkeypatch.setenv("TRELLIS2_EVENT_INTERVAL", "0.01")
        monkeypatch.setenv("TRELLIS2_KEYS_TTL", "0")

    def new_key(self, name: str, **options: Any) -> str:
        limits = {"requests_per_minute": 100_000, "gpu_seconds_per_day": 1e6}
        return self.admin.create(name, **(limits | options))[1]

    @contextmanager
    def gateway(self, key: str | None = None) -> Iterator[TestClient]:
        """A gateway container that just started, and a caller of it ("" sends no key)."""
        secret = self.key if key is None else key
        headers = {"X-API-Key": secret} if secret else {}
        with TestClient(service.web.local(), headers=headers) as client:
            yield client


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Deployed]]:
    """Makes deployments; their containers end with the test."""
    made: list[EmulatedModal] = []

    def make(**options: Any) -> Deployed:
        modal = EmulatedModal(**options)
        made.append(modal)
        return Deployed(monkeypatch, modal)

    yield make
    for modal in made:
        modal.stop()


@pytest.fixture
def deployed(deploy: Callable[..., Deployed]) -> Deployed:
    return deploy()


@pytest.fixture
def body() -> dict[str, Any]:
    """A good body of POST /generate."""
    return {"image": base64.b64encode(picture()).decode(), "preview": "none"}
