"""What the GPU class does, in plain Python: load, move to the GPU, run jobs.

`ModelHost` holds the one generator of a container. A job that fails returns its problem; only a lost GPU is
raised, so that Modal runs the call again in another container.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trellis2.errors import Cancelled
from trellis2.progress import Monitor, Progress

from ...jobs.execution import DeviceLostError, JobOutput, run_job
from ...jobs.modal.progress import Entry, EventLog, Table
from ...protocol.errors import (
    ExpiredError,
    InternalError,
    InvalidRequestError,
    JobTimeoutError,
    OutOfMemoryError,
    ServiceError,
    WorkerDiedError,
)
from ...protocol.replies import artifact_of
from ...protocol.requests import JobKind
from ..config import DeploySettings
from ..generator import Pipeline, TRELLIS2Generator, is_device_lost
from ..texturing import texturing_of
from .start_budget import StartClock
from .warm_up import warm_up

logger = logging.getLogger(__name__)

TIMEOUT_MARGIN = 30.0
"""A job stops itself this long before Modal would end its container."""

Outcome = dict[str, Any]
"""What a call returns, built-in types only: `status` (finished or failed), `seconds`, `attempt`, `finished`
(Unix seconds) and, by status, `files` {name: {media_type, data}}, `seed`, `resolution` and `stats`, or
`problem`."""


class SnapshotError(RuntimeError):
    """The process is not fit for a memory snapshot, or was not restored from one as it should."""


class ModelHost:
    """The model of one container, from import to the last job."""

    def __init__(
        self,
        settings: DeploySettings,
        folder: Path,
        device: str | None = None,
        progress: Table | None = None,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.device = device or settings.device
        self.clock = StartClock()
        self.jobs = 0
        self._progress = progress
        self._generator: TRELLIS2Generator | None = None

    # --- starting ----------------------------------------------------------------------------------------

    def load_cpu(self) -> None:
        """What a memory snapshot may hold: imports and, unless weights are streamed, weights in host memory.

        Raises `CheckpointError` for weights that cannot be used, `SnapshotError` when anything touched CUDA.
        """
        with self.clock.stage("import"):
            import torch

            import trellis2.pipelines  # noqa: F401
        self._generator = self._make_generator()
        if self.settings.loading == "snapshot":
            with self.clock.stage("load"):
                self._generator.load_model_cpu()
        if self.device != "cpu" and torch.cuda.is_initialized():
            raise SnapshotError(
                "CUDA was initialised before the snapshot: something asked for a device while loading"
            )
        self.clock.loaded()

    def to_device(self) -> None:
        """After a restore (or at once without a snapshot): a GPU, the weights on it, fresh random numbers."""
        import torch

        if self.device != "cpu" and not torch.cuda.is_available():
            raise SnapshotError(
                "there is no GPU: this container would fail every job, so it ends here. If restored "
                "containers keep ending, look for a CUDA query at import, or deploy again with "
                "TRELLIS2_LOADING=stream"
            )
        reseed()
        if self.settings.loading == "stream":
            with self.clock.stage("load"):
                self.generator.load_model_cpu()
        with self.clock.stage("to_device"):
            if self.device != "cpu":
                self.generator.move_model_gpu(self.device)
                torch.cuda.synchronize()
        self.clock.ready()

    def warm_up(self) -> None:
        """Every stage once, where kernels are compiled for a GPU and the settings do not forbid it."""
        if self.device != "cpu" and self.settings.warm_up:
            warm_up(self.generator, self.clock)
            self.generator.free_memory()

    def resume(self) -> None:
        """After a restore with the weights on the GPU: it answers, and random numbers start anew."""
        import torch

        reseed()
        if self.device != "cpu":
            torch.cuda.synchronize()

    @property
    def generator(self) -> TRELLIS2Generator:
        if self._generator is None:
            raise RuntimeError("call load_cpu first")
        return self._generator

    def _make_generator(self) -> TRELLIS2Generator:
        place = self.device if self.settings.loading == "stream" else "cpu"
        return TRELLIS2Generator(
            lambda: load_pipeline(self.folder, place),
            model=self.settings.model,
            device=self.device,
            texturing=lambda pipeline: texturing_of(pipeline, self.folder),
        )

    # --- jobs --------------------------------------------------------------------------------------------

    def run(
        self,
        kind: JobKind,
        settings: dict[str, Any],
        payload: Callable[[], bytes],
        call: str | None = None,
    ) -> Outcome:
        """Run one job; `payload` gives the encoded picture or the compressed state.

        Raises `DeviceLostError` when the container must not go on. A cancellation by Modal passes through.
        """
        log = EventLog(self._progress, call)
        earlier = log.begin()
        deadline = log.started + self.settings.gpu_timeout - TIMEOUT_MARGIN
        first = self.jobs == 0
        self.jobs += 1

        def report(at: Progress) -> None:
            nonlocal first
            if first and at.step > 0 and at.steps > 1:
                first = False
                self.clock.record("first_step", time.time() - log.started)
            log.report(at.stage, at.step, at.steps, at.message)

        monitor = Monitor(report, lambda: time.time() > deadline)
        ended = False
        try:
            refusal = self._refusal(earlier, log.started)
            if refusal is not None:
                raise refusal
            outcome = finished(run_job(self.generator, kind, settings, payload(), monitor))
            ended = True
        except Cancelled:
            outcome, ended = failed(self._timeout()), True
        except ServiceError as error:
            outcome, ended = failed(error), True
            if isinstance(error, OutOfMemoryError):
                logger.error("out of memory", extra={"call": call, "problem": error.detail})
        except ValidationError as error:
            outcome, ended = failed(InvalidRequestError(_findings(error))), True
        except DeviceLostError:
            raise
        except Exception as error:
            logger.exception("job failed", extra={"call": call, "kind": kind})
            if is_device_lost(error):
                raise DeviceLostError(str(error)) from error
            outcome, ended = failed(InternalError("the job failed inside the model; it was logged")), True
        finally:
            if not ended:  # cancelled or preempted from outside, or the device is lost
                log.leave()
                logger.warning("job stopped", extra={"call": call, "kind": kind})
            log.close()
            self._tidy(ended)
        seconds = log.spent + time.time() - log.started
        logger.info(
            "job %s", outcome["status"], extra={"call": call, "kind": kind, "seconds": round(seconds, 3)}
        )
        return outcome | {"seconds": seconds, "attempt": log.attempt, "finished": time.time()}

    def _refusal(self, earlier: Entry | None, now: float) -> ServiceError | None:
        """Why a call that has run before must not run again.

        The platform starts another container for a call whose container crashed, as often as it crashes. So
        after a crash the last container that a job may have only says so.
        """
        if earlier is None:
            return None
        if now - float(earlier["started"]) >= self.settings.gpu_timeout - TIMEOUT_MARGIN:
            return self._timeout()
        containers = earlier["attempt"] + (0 if earlier.get("left") else 1)
        if containers >= self.settings.gpu_max_attempts:
            times = "" if earlier["attempt"] == 1 else f" {earlier['attempt']} times"
            return WorkerDiedError(f"its container ended under it{times}; try smaller settings, or later")
        return None

    def _timeout(self) -> JobTimeoutError:
        minutes = self.settings.gpu_timeout / 60
        return JobTimeoutError(f"stopped after {minutes:.0f} minutes; try smaller settings")

    def _tidy(self, ended: bool) -> None:
        """Give memory back; after an unusual end also look whether the device still answers."""
        try:
            self.generator.free_memory()
            if not ended and self.device != "cpu":
                import torch

                torch.cuda.synchronize()
        except Exception as error:
            if is_device_lost(error):
                raise DeviceLostError(str(error)) from error
            raise

    def health(self) -> dict[str, Any]:
        """What this container is, for an operator."""
        return {
            "model": self.settings.model,
            "revision": self.settings.revision,
            "device": self.device,
            "pipeline_types": list(self.generator.pipeline_types),
            "texture_types": list(self.generator.texture_types),
            "loading": self.settings.loading,
            "image": self.settings.image,
            "backends": self.generator.backends,
            "jobs": self.jobs,
            "cold_start": self.clock.summary(),
        }


def load_pipeline(folder: Path, device: str) -> Pipeline:
    """The pipeline of a complete weights folder, all of it on one device."""
    from trellis2.pipelines import Trellis2ImageTo3DPipeline

    from .weights.manifest import ENCODER_FOLDER, REMOVER_FOLDER

    encoder, remover = folder / ENCODER_FOLDER, folder / REMOVER_FOLDER
    pipeline: Pipeline = Trellis2ImageTo3DPipeline.from_pretrained(
        folder,
        device=device,
        low_vram=False,
        image_cond_model=str(encoder) if encoder.is_dir() else None,
        rembg_model=str(remover) if remover.is_dir() else None,
    )
    return pipeline


def reseed() -> None:
    """New random numbers: the generators' states were copied into every container with the snapshot."""
    import numpy as np
    import torch

    random.seed(os.urandom(16))
    np.random.seed(int.from_bytes(os.urandom(4), "little"))
    torch.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)


def finished(output: JobOutput) -> Outcome:
    """The outcome of a job that ran to its end."""
    return {
        "status": "finished",
        "files": {
            name: {"media_type": file.media_type, "data": file.data} for name, file in output.files.items()
        },
        "seed": output.seed,
        "resolution": output.resolution,
        "stats": output.stats,
    }


def failed(error: ServiceError) -> Outcome:
    return {"status": "failed", "problem": error.problem()}


def state_of(outcome: Any, variant: int = 1) -> bytes:
    """The state in the result of a generation; raises `ExpiredError` when it has none."""
    try:
        data: bytes = outcome["files"][artifact_of("state", variant)]["data"]
    except (KeyError, TypeError) as error:
        raise ExpiredError("the source has no state; generate again, or send the state itself") from error
    return data


def _findings(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'body'}: {item['msg']}"
        for item in error.errors()[:3]
    )
