"""What a job would take and cost, before it is submitted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from ....jobs.engine import Engine
from ....protocol.replies import Estimate
from ....protocol.requests import (
    ExtractEstimate,
    ExtractSettings,
    GenerateSettings,
    TextureEstimate,
    TextureSettings,
)
from ...auth import ApiKey
from ...config import Settings
from ..authentication import caller
from ..encoding import json_response
from ..request_parsing import generate_settings, read_estimate, texture_settings
from . import documents

router = APIRouter(tags=["service"])


@router.post(
    "/estimate",
    response_model=Estimate,
    openapi_extra=documents.estimate_body(),
    responses=documents.errors(*documents.COMMON),
)
async def estimate(request: Request, key: Annotated[ApiKey, Depends(caller())]) -> Response:
    """What a job with these settings takes and costs, by the stage times of the last jobs like it, and how
    long it would wait. Makes no job and costs nothing.
    """
    backend: Engine = request.app.state.backend
    rates: Settings = request.app.state.settings
    asked = await read_estimate(request)
    if isinstance(asked, ExtractEstimate):
        settings = asked.part(ExtractSettings).resolved().model_dump()
    elif isinstance(asked, TextureEstimate):
        settings = texture_settings(asked.part(TextureSettings), backend.capabilities())
    else:
        settings = generate_settings(asked.part(GenerateSettings), backend.capabilities())
    members: dict[str, object] = {
        "kind": asked.kind,
        "wait_seconds": await backend.wait(),
        "currency": rates.currency,
    }
    found = backend.estimate(asked.kind, settings)
    if found is not None:
        members |= {
            "seconds": found.seconds,
            "low": found.low,
            "high": found.high,
            "stages": found.stages,
            "measured": found.jobs,
            "price": rates.price(found.seconds),
        }
    return json_response(Estimate.model_validate(members))
