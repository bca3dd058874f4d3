"""The HTTP app: one factory, the same for the local server and for Modal's gateway.

`create_app(backend, keys, settings)` wires what the other modules do: `transport` around everything,
`authentication` before every route but /health, `request_parsing` for bodies, `routes` for what is answered,
`problems` for what fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from ... import __version__
from ...jobs.callbacks import Callbacks
from ...jobs.engine import Engine
from ..auth import KeyRing, KeyStorage
from ..config import Settings
from ..dry_run import canned_picture, dry_engine
from ..outbound.callbacks import CallbackSender
from ..outbound.requests import Outbound
from . import problems, request_parsing, routes
from .authentication import Authenticator
from .hosts import HostCheck
from .metrics import Metrics
from .pictures.checks import PictureChecks
from .pictures.matte import Matter
from .pictures.sources import PictureSources, image_generator
from .rate_limits import RateLimiter
from .transport import BodyMemory, Transport

DESCRIPTION = """
A photo goes in, a textured 3D asset comes out.

Every call but `/health` needs a key in the `X-API-Key` header, or as
`Authorization: Bearer`. Errors are RFC 9457 problem documents whose
`type` is a stable slug. POST calls take an `Idempotency-Key`: the same key and body is the same job.
"""

Delivery = Callable[[], str | None]


def no_delivery() -> None:
    """Where requests come straight from their callers."""


REQUEST_HEADERS = [
    *("X-API-Key", "Authorization", "X-Request-ID", "Content-Type", "Idempotency-Key", "Prefer"),
    *("Last-Event-ID", "Range", "If-Range", "If-None-Match"),
]
REPLY_HEADERS = [
    *("X-Request-ID", "RateLimit", "RateLimit-Policy", "Retry-After", "Location"),
    *("ETag", "Accept-Ranges", "Content-Range", "Content-Disposition", "Preference-Applied", "Server-Timing"),
]
"""What pages of the configured origins may send, and may read of replies."""


def create_app(
    backend: Engine,
    keys: KeyStorage,
    settings: Settings | None = None,
    matter: Matter | None = None,
    delivery: Delivery = no_delivery,
    outbound: Outbound | None = None,
    names: Collection[str] | None = None,
) -> FastAPI:
    """The app over a backend and a key list; its lifespan starts and closes the backend.

    `matter` makes the mattes of `POST /matte`; without one the route answers 503 and /health says so.
    `delivery` names the platform's delivery of the current request: one that is delivered again has the same
    name, and makes no second job. `names`: answer to these and to addresses
    alone, and to no page of another site.
    """
    settings = settings or Settings.from_env()
    picture_checks = PictureChecks()
    outbound = outbound or Outbound()
    rehearsal = dry_engine(backend, settings)
    ring = KeyRing(keys, settings.keys_ttl)
    sender = CallbackSender(ring, outbound)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await backend.start()
        await rehearsal.start()
        callbacks = [asyncio.create_task(Callbacks(e, sender).run()) for e in (backend, rehearsal)]
        try:
            yield
        finally:
            for task in callbacks:
                task.cancel()
            await asyncio.gather(*callbacks, return_exceptions=True)
            await backend.close()
            await rehearsal.close()
            await picture_checks.close()
            if matter is not None:
                await matter.close()

    app = FastAPI(
        title="TRELLIS.2",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # generated clients call their functions so
        openapi_url=None,
        redirect_slashes=False,  # it would send callers to whatever their Host header says
    )
    metrics = Metrics()
    limiter = RateLimiter()
    app.state.backend = backend
    app.state.dry_run = rehearsal
    app.state.outbound = outbound
    app.state.settings = settings
    app.state.matter = matter
    app.state.delivery = delivery
    app.state.picture_checks = picture_checks
    draw = image_generator(settings.text_to_image)
    app.state.picture_sources = PictureSources(settings.image_urls, draw, outbound)
    app.state.dry_sources = PictureSources(settings.image_urls, draw and canned_picture, outbound)
    app.state.large_bodies = asyncio.Semaphore(1)
    app.state.metrics = metrics
    app.state.body_memory = BodyMemory(settings.body_memory)
    app.state.authenticator = Authenticator(
        ring,
        limiter,
        settings.reads_per_minute,
        settings.mattes_per_minute,
        settings.max_streams,
        settings.max_all_streams,
    )
    problems.install(app)
    for router in (routes.info, routes.generate, routes.jobs, routes.estimate, routes.alias):
        app.include_router(router)
    if settings.metrics:
        app.include_router(routes.metrics)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=REQUEST_HEADERS,
            expose_headers=REPLY_HEADERS,
        )

    routes.describe(app)
    if names is not None:
        app.add_middleware(HostCheck, names=names, origins=settings.cors_origins)

    def transport(inner: ASGIApp) -> ASGIApp:
        return Transport(
            inner,
            request_parsing.body_ceiling,
            settings.body_idle_timeout,
            settings.body_min_rate,
            app.state.body_memory,
            metrics.observe,
        )

    app.add_middleware(transport)  # added last: outermost
    return app
