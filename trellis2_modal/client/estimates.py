"""What a job will probably take: as the service measured jobs like it, else as a table says."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from ..protocol.errors import ServiceError
from ..protocol.replies import Estimate, Health
from ..protocol.requests import JobKind
from .api import Client
from .history import History
from .stats import AssetStats, Costs

logger = logging.getLogger(__name__)

TYPICAL: dict[tuple[JobKind, str], dict[str, float]] = {
    ("generate", "cpu"): {
        "image": 1, "condition": 1, "sparse_structure": 8, "shape": 11, "texture": 3, "decode_shape": 8,
        "decode_texture": 5, "mesh": 1, "state": 1, "preview": 12, "stills": 4,
    },
    ("generate", "cuda"): {
        "image": 1, "condition": 1, "sparse_structure": 1, "shape": 1, "shape_fine": 4, "texture": 3,
        "decode_shape": 1, "decode_texture": 1, "mesh": 1, "state": 2, "preview": 2, "stills": 1,
    },
    ("extract", "cpu"): {
        "state": 1, "fill holes": 1, "rebuild": 4, "search tree": 1, "simplify": 6, "unwrap": 1, "bake": 2,
        "gutters": 1, "material": 1,
    },
    ("extract", "cuda"): {"state": 1, "simplify": 1, "unwrap": 1, "bake": 1, "material": 1},
}  # fmt: skip
"""Seconds by stage: of the demo model on two cores, of the published weights on an H200 (RESULTS.md)."""


TEXTURES = ("texture", "decode_texture")
PREVIEWS = {"none": ("light", "preview", "stills"), "video": ("light", "stills")}
"""Stages that a preview leaves out."""

ONCE = ("image", "condition")
"""Stages that several variants go through once."""


def estimate_of(kind: JobKind, stages: Mapping[str, float], **others: Any) -> Estimate:
    """Of seconds by stage; nothing is known of none."""
    facts = {"kind": kind, "seconds": sum(stages.values()) or None, "stages": dict(stages)}
    return Estimate.model_validate(facts | others)


def typical(kind: JobKind, health: Health | None) -> Estimate:
    """As the table says for the service's device; unknown while that is."""
    device = health.device.partition(":")[0] if health else ""
    return estimate_of(kind, TYPICAL.get((kind, device), {}))


def forecast(client: Client, kind: JobKind, settings: Mapping[str, Any]) -> Estimate:
    """As the service measured jobs like it; as the table says where it has measured none.

    A service that cannot tell is no reason not to go on: every `ServiceError` is logged.
    """
    try:
        found = client.estimate(kind, **settings)
        return found if found.seconds is not None else _scaled(typical(kind, client.health()), {}, settings)
    except ServiceError as error:
        logger.info("no estimate from the service: %s", error)
        return estimate_of(kind, {})


class Forecasts:
    """What jobs of the app's service take: as the newest of the history made the same way, else as the
    service measured, else as is typical for its device."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._told: dict[tuple[JobKind, str | None], Estimate] = {}

    def ask(self, client: Client) -> None:
        """What jobs take on a service that has become ready: generations of each quality that it offers."""
        offered = client.health().pipeline_types
        self._told = {
            ("extract", None): forecast(client, "extract", {"simplify": "web"}),
            ("texture", None): forecast(client, "texture", {"preview": "frames"}),
            **{
                ("generate", quality): forecast(
                    client, "generate", {"preview": "frames", "pipeline_type": quality}
                )
                for quality in offered
            },
        }

    def forget(self) -> None:
        """Another service is used from now on."""
        self._told = {}

    def of(self, kind: JobKind, settings: Mapping[str, Any], health: Health | None) -> Estimate:
        """See the class."""
        alike = "simplify" if kind == "extract" else "pipeline_type"
        wanted = settings.get(alike)
        if wanted is None and kind == "generate" and health is not None:
            wanted = health.default_pipeline_type
        for made, stats in self._made(kind):
            seconds = AssetStats.of(stats).seconds
            told = made.get("texture", True) or not settings.get("texture", True)
            if seconds and told and (wanted is None or made.get(alike) == wanted):
                return _scaled(estimate_of(kind, seconds, **_price(stats)), made, settings)
        told_of = self._told.get((kind, wanted if kind == "generate" else None))
        known = told_of if told_of is not None and told_of.stages else typical(kind, health)
        return _scaled(known, {}, settings)

    def _made(self, kind: JobKind) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """Settings and stats of finished jobs of a kind, the newest first; of a shape that was kept only a
        part was made."""
        for entry in self._history.entries():
            if kind == entry.kind and entry.status == "finished" and not entry.shape:
                yield entry.settings, entry.stats
            elif kind == "extract" and not entry.mesh:
                yield from ((export.settings, export.stats) for export in reversed(entry.exports))


def _price(stats: Mapping[str, Any]) -> dict[str, Any]:
    costs = Costs.of(stats)
    return {"price": costs.price, "currency": costs.currency or "USD"}


def _scaled(found: Estimate, made: Mapping[str, Any], settings: Mapping[str, Any]) -> Estimate:
    """An estimate of jobs made with other variants, or with a texture, as one of `settings`."""
    more = settings.get("num_samples", 1) / made.get("num_samples", 1)
    left_out = PREVIEWS.get(settings.get("preview", ""), ())
    left_out += () if settings.get("texture", True) else TEXTURES
    left_out += ("light",) if settings.get("num_samples", 1) > 1 else ()
    stages = {
        name: seconds if name in ONCE else seconds * more
        for name, seconds in found.stages.items()
        if name not in left_out
    }
    if not stages or stages == found.stages:
        return found
    part = sum(stages.values()) / sum(found.stages.values())
    price = found.price * part if found.price is not None else None
    return estimate_of(found.kind, stages, price=price, currency=found.currency)
