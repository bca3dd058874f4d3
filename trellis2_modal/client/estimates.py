"""What a job will probably take: as the service measured jobs like it, else as a table says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..protocol.errors import ServiceError
from ..protocol.replies import Estimate, Health
from ..protocol.requests import JobKind
from .api import Client

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
        return found if found.seconds is not None else typical(kind, client.health())
    except ServiceError as error:
        logger.info("no estimate from the service: %s", error)
        return estimate_of(kind, {})
