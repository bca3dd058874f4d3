"""Health, usage, the matte of a picture, and metrics."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse

from .... import __version__
from ....jobs.admission import DAY
from ....jobs.engine import Engine
from ....protocol.errors import UnavailableError
from ....protocol.replies import Health, MatteResponse, Usage, Welcome
from ....protocol.requests import MatteRequest, MatteSettings, default_pipeline_type
from ....protocol.webhooks import secret_of
from ...auth import ApiKey
from ...config import Settings
from ..authentication import MATTES, Authenticator, caller
from ..encoding import encode_base64, json_response
from ..metrics import MEDIA_TYPE
from ..pictures.checks import PictureChecks, picture_bytes
from ..pictures.matte import Matter
from ..pictures.sources import PictureSources
from ..request_parsing import matte_form, media_type, read_json, read_multipart
from . import documents

router = APIRouter(tags=["service"])
WELCOME_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>TRELLIS.2</title>
<h1>TRELLIS.2 {version}</h1>
<p>{what} The app with buttons is <code>trellis2-modal app</code>.</p>
<ul>{items}</ul></html>
"""

metrics_router = APIRouter(tags=["service"])


@router.get("/", response_model=Welcome, responses=documents.errors(500))
async def welcome(request: Request) -> Response:
    """What this is, and where to go on from here. Needs no key."""
    links = {"documentation": "docs", "openapi": "openapi.json", "health": "health"}
    reply = Welcome(version=__version__, links=links)
    if "text/html" not in request.headers.get("accept", ""):
        return json_response(reply)
    items = "".join(f'<li><a href="{link}">{name}</a></li>' for name, link in links.items())
    return HTMLResponse(WELCOME_PAGE.format(version=reply.version, what=reply.what, items=items))


@router.head("/health", include_in_schema=False)
@router.get("/health", response_model=Health, responses=documents.errors(500))
async def health(request: Request) -> Response:
    """Whether the service runs, what it offers and how long the queue is. Needs no key."""
    backend: Engine = request.app.state.backend
    known, stats = backend.capabilities(), backend.stats()
    sources: PictureSources = request.app.state.picture_sources
    reply = Health(
        status={"ready": "ok", "starting": "starting", "stopping": "stopping"}.get(known.state, "degraded"),  # type: ignore[arg-type]
        version=__version__,
        model=known.model,
        device=known.device,
        pipeline_types=list(known.pipeline_types),
        default_pipeline_type=default_pipeline_type(known.pipeline_types, known.default_type)
        if known.pipeline_types
        else None,
        texture_types=list(known.texture_types),
        samplers=known.samplers,
        backends=known.backends,
        views=known.views,
        queued=stats.queued,
        running=stats.running,
        queue_limit=stats.limit,
        matte=request.app.state.matter is not None,
        image_url=sources.takes_urls,
        prompt=sources.takes_prompts,
    )
    return json_response(reply)


@router.get("/usage", response_model=Usage, responses=documents.errors(*documents.READS))
async def usage(request: Request, key: Annotated[ApiKey, Depends(caller())]) -> Response:
    """The caller's own limits and what is left of them."""
    backend: Engine = request.app.state.backend
    authenticator: Authenticator = request.app.state.authenticator
    settings: Settings = request.app.state.settings
    charges = await backend.usage(key.id, time.time() - DAY)
    used = sum(charge.seconds for charge in charges)
    reply = Usage(
        key=key.id,
        name=key.name,
        scopes=list(key.scopes),
        expires=None if key.expires is None else datetime.fromtimestamp(key.expires, UTC),
        requests_per_minute=key.requests_per_minute,
        requests_left=authenticator.work_left(key),
        gpu_seconds_per_day=key.gpu_seconds_per_day,
        gpu_seconds_used=round(used, 3),
        gpu_seconds_left=round(max(0.0, key.gpu_seconds_per_day - used), 3),
        active_jobs=await backend.active(key.id),
        max_active_jobs=settings.max_active_jobs,
        gpu_price_per_hour=settings.gpu_price_per_hour or None,
        price_used=settings.price(used),
        currency=settings.currency,
        webhook_secret=secret_of(key.digest) if "webhook" in key.scopes else None,
    )
    return json_response(reply)


@router.post(
    "/matte",
    # without a header openapi-python-client forgets an import for a body of two media types
    openapi_extra=documents.parameters(documents.REQUEST_ID, body=documents.matte_body()),
    response_class=Response,
    responses=documents.errors(
        *documents.COMMON,
        _200=documents.json_reply(MatteResponse, "The subject, cut out and cropped", "image/png"),
    ),
)
async def matte(request: Request, key: Annotated[ApiKey, Depends(caller("generate", MATTES))]) -> Response:
    """The picture's subject as the model will see it: PNG with transparency, or with `Accept:
    application/json` also what a person should know of the picture. Costs no GPU seconds.

    A cut that is wrong is corrected by a box, a trimap that was painted, or another attempt; with `crop`
    false the reply is a picture to generate from, whose subject is used as it is.
    """
    matter: Matter | None = request.app.state.matter
    if matter is None:
        raise UnavailableError("this service makes no mattes (see /health)")
    checks: PictureChecks = request.app.state.picture_checks
    if media_type(request) == "multipart/form-data":
        image, trimap, asked = matte_form(await read_multipart(request))
    else:
        body = await read_json(request, MatteRequest)
        image, asked = await picture_bytes(body.image), body.part(MatteSettings)
        trimap = b"" if body.trimap is None else await picture_bytes(body.trimap)
    if trimap:
        await checks.check(trimap)
    found = await matter.matte((await checks.check(image)).data, asked, trimap)
    if "application/json" not in request.headers.get("accept", ""):
        return Response(found.png, media_type="image/png")
    reply = MatteResponse(matte=await encode_base64(found.png), warnings=found.warnings)
    return json_response(reply)


@metrics_router.get("/metrics", response_class=Response)
async def prometheus(request: Request) -> Response:
    """Counters in the Prometheus text format."""
    backend: Engine = request.app.state.backend
    return Response(request.app.state.metrics.render(backend.stats()), media_type=MEDIA_TYPE)
