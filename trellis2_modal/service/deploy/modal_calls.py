"""What the job engine asks of Modal, asked: calls of the GPU class, two tables, and the weights volume."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import modal
from modal import exception as modal_errors

from ...jobs.modal.calls import PENDING, CallOutcome
from ...jobs.ports import Capabilities
from ...protocol.errors import QueueFullError, UnavailableError
from ...protocol.replies import ViewSupport
from ...protocol.requests import PIPELINE_TYPES, JobKind
from ..config import BUNDLED_MODEL, DeploySettings
from .start_record import KEY as START_KEY
from .start_record import Start, deployment_id
from .weights.manifest import (
    DOWNLOAD_COMMAND,
    MARKER,
    Manifest,
    WeightsError,
    bundled_manifest,
    folder_name,
    parse_manifest,
)

logger = logging.getLogger(__name__)

UNREACHABLE = (
    modal_errors.AuthError,
    modal_errors.ClientClosed,
    modal_errors.ConnectionError,
    modal_errors.InternalError,
    modal_errors.PermissionDeniedError,
    modal_errors.ServiceError,
    OSError,
)
"""What says that Modal, and not the call, is at fault."""


class ModalCalls:
    """Calls of the class `service`, tables and the weights volume of a deployment; looked up when used."""

    def __init__(self, settings: DeploySettings, service: Any) -> None:
        self._settings = settings
        self._service = service
        self._jobs = modal.Dict.from_name(settings.jobs_dict, create_if_missing=True)
        self._progress = modal.Dict.from_name(settings.progress_dict, create_if_missing=True)
        self._weights = modal.Volume.from_name(settings.weights_volume, create_if_missing=True)

    async def spawn(
        self, kind: JobKind, settings: dict[str, Any], payload: bytes | None, source: str | None
    ) -> str:
        async with reaching("a job could not be started"):
            container = self._service()
            if kind == "generate":
                call = await container.generate.spawn.aio(payload, settings)
            elif kind == "texture":
                call = await container.texture.spawn.aio(payload, settings)
            else:
                call = await container.extract_glb.spawn.aio(payload, settings, source)
            return str(call.object_id)

    async def outcome(self, call: str) -> CallOutcome:
        async with reaching("a job cannot be looked at"):
            try:
                value = await modal.FunctionCall.from_id(call).get.aio(timeout=0)
            except modal_errors.OutputExpiredError:
                return CallOutcome("expired")
            except modal_errors.NotFoundError:
                return CallOutcome("expired", detail="the call is not known any more")
            except modal_errors.FunctionTimeoutError:
                return CallOutcome("timeout")
            except TimeoutError:  # not modal's TimeoutError: it has not ended yet
                return PENDING
            except UNREACHABLE:
                raise
            except Exception as error:
                return CallOutcome("error", detail=f"{type(error).__name__}: {error}")
            return CallOutcome("returned", value)

    async def cancel(self, call: str) -> None:
        async with reaching("a job could not be cancelled"):
            await modal.FunctionCall.from_id(call).cancel.aio()

    async def progress(self, call: str) -> object:
        async with reaching("progress cannot be read"):
            return await self._progress.get.aio(call)

    async def capabilities(self) -> Capabilities:
        return await capabilities_of(self.manifest, self._settings, self._start)

    async def _start(self) -> Start:
        async with reaching("the record of starts cannot be read"):
            return Start.load(await self._progress.get.aio(START_KEY), deployment_id())

    async def manifest(self) -> Manifest:
        """Raises `WeightsError`, whose text says what to run."""
        if self._settings.model == BUNDLED_MODEL:
            return bundled_manifest()
        path = f"{folder_name(self._settings)}/{MARKER}"
        async with reaching("the weights volume cannot be read"):
            try:
                chunks = [chunk async for chunk in self._weights.read_file.aio(path)]
            except (FileNotFoundError, modal_errors.NotFoundError) as error:
                raise WeightsError(
                    f"{path} is not on the volume {self._settings.weights_volume}: never downloaded, or the "
                    f"download has not ended; run: {DOWNLOAD_COMMAND}"
                ) from error
        return parse_manifest(b"".join(chunks))

    async def records(self) -> list[dict[str, Any]]:
        async with reaching("the job table cannot be read"):
            return [value async for _, value in self._jobs.items.aio()]

    async def record(self, job: str) -> dict[str, Any] | None:
        async with reaching("the job table cannot be read"):
            found: dict[str, Any] | None = await self._jobs.get.aio(job)
            return found

    async def claim(self, job: str, record: dict[str, Any]) -> bool:
        async with reaching("the job table cannot be written"):
            return bool(await self._jobs.put.aio(job, record, skip_if_exists=True))

    async def save(self, job: str, record: dict[str, Any]) -> None:
        async with reaching("the job table cannot be written"):
            await self._jobs.put.aio(job, record)

    async def forget(self, job: str) -> None:
        async with reaching("the job table cannot be written"):
            await self._jobs.pop.aio(job, None)


async def capabilities_of(
    read: Callable[[], Awaitable[Manifest]],
    deploy: DeploySettings,
    started: Callable[[], Awaitable[Start]] | None = None,
) -> Capabilities:
    """What the weights of a manifest can do; degraded when there is none, or no container can start."""
    start = Start("") if started is None else await started()
    if reason := start.broken:
        return Capabilities(deploy.model, deploy.gpu, (), "degraded", reason=f"cannot start: {reason}")
    try:
        manifest = await read()
    except WeightsError as error:
        return Capabilities(deploy.model, deploy.gpu, (), "degraded", reason=str(error))
    offered = manifest.pipeline_types
    types = tuple(str(name) for name in PIPELINE_TYPES if name in offered)
    backends = dict((start.report or {}).get("backends", {}))
    least, most, cameras = manifest.views
    views = ViewSupport(least=least, most=most, cameras=cameras)
    return Capabilities(
        deploy.model,
        deploy.gpu,
        types,
        "ready",
        manifest.samplers,
        backends=backends,
        views=views,
        texture_types=manifest.texture_types,
        default_type=manifest.default_type,
    )


@asynccontextmanager
async def reaching(purpose: str) -> AsyncIterator[None]:
    """Turn failures of Modal itself into errors that a caller can act on; the log has the cause."""
    try:
        yield
    except modal_errors.ResourceExhaustedError as error:
        logger.error("%s: %s", purpose, error)
        raise QueueFullError("the platform takes no more jobs now", retry_after=60) from error
    except (*UNREACHABLE, modal_errors.NotFoundError) as error:
        logger.error("%s (%s: %s)", purpose, type(error).__name__, error)
        raise UnavailableError(f"{purpose}; try again", retry_after=10) from error
