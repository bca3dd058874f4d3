"""The deployment: `modal deploy trellis2_modal/service/service.py`.

`web` is the CPU gateway: it authenticates, validates, counts, and spawns calls. `TRELLIS2Service` is the GPU
class: nothing but an accepted job starts one of its containers. Settings come from the environment of whoever
deploys (see `config.DeploySettings`); nothing here asks the network for anything when it is imported.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modal
import modal.experimental

if not __package__:  # `modal deploy trellis2_modal/service/service.py`
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from trellis2_modal.service.deploy.by_path import become

    become("trellis2_modal.service.service", globals())

from ..jobs.execution import DeviceLostError
from ..protocol.errors import ExpiredError
from ..protocol.requests import JobKind
from .config import BUNDLED_MODEL, default_weights, gateway_settings
from .deploy.container import Container
from .deploy.model_host import ModelHost, Outcome, failed, state_of
from .deploy.start_record import DEPLOYMENT_VARIABLE, StartRecord, deployment_id
from .deploy.weights.manifest import WEIGHTS_ROOT, check_folder, weights_folder
from .image import KERNELS_ROOT, SETTINGS, gateway_image, gpu_image
from .logs import JsonFormatter, log_to_stderr

app = modal.App(SETTINGS.app)

DEPLOYMENT: dict[str, str | None] = {DEPLOYMENT_VARIABLE: deployment_id()}
"""Both functions of one deploy know which one they are of: the record of starts belongs to it."""

kernels_volume = modal.Volume.from_name(SETTINGS.kernels_volume, create_if_missing=True)
weights_volume = modal.Volume.from_name(SETTINGS.weights_volume, create_if_missing=True)
progress = modal.Dict.from_name(SETTINGS.progress_dict, create_if_missing=True)

RESULT_TIMEOUT = 120.0
"""Seconds to fetch the state of an earlier call."""


@app.function(image=gateway_image, env=DEPLOYMENT, **SETTINGS.gateway_options())
@modal.concurrent(max_inputs=SETTINGS.gateway_max_inputs)
@modal.asgi_app(requires_proxy_auth=SETTINGS.proxy_auth)
def web() -> Any:
    """The HTTP API on a CPU container: the same app as the local server, over calls of the GPU class."""
    from ..jobs.engine import Engine
    from ..jobs.modal.ports import CallArtifacts, CallRunner, CallTable
    from .deploy import modal_calls
    from .deploy.modal_keys import open_keys
    from .http.app import create_app
    from .http.pictures.matte import GRABCUT, MatteProcess

    log_as_json()
    settings = gateway_settings(SETTINGS)
    calls = modal_calls.ModalCalls(SETTINGS, TRELLIS2Service)
    table = CallTable(calls, shared=SETTINGS.gateway_max_containers > 1)
    artifacts = CallArtifacts(calls)
    engine = Engine(table, CallRunner(calls, artifacts, settings), artifacts, settings)
    matter = MatteProcess(GRABCUT)
    return create_app(engine, open_keys(SETTINGS), settings, matter, delivery=modal.current_input_id)


@app.cls(
    image=gpu_image,
    volumes={
        WEIGHTS_ROOT: weights_volume.with_mount_options(read_only=True),
        KERNELS_ROOT: kernels_volume,
    },
    env=DEPLOYMENT,
    **SETTINGS.gpu_class_options(),
)
class TRELLIS2Service:
    """The model on a GPU. With `.local()` the same class runs on this machine, with its default weights."""

    @modal.enter(snap=True)
    def load_model_cpu(self) -> None:
        """Before the memory snapshot: imports and, unless they are streamed, the weights in host memory."""
        log_as_json()
        table = None if modal.is_local() else progress
        record = StartRecord(table, deployment_id(), SETTINGS.gpu_max_containers)
        self.container = Container(open_host, record, SETTINGS.loading == "gpu_snapshot")
        self.container.before_snapshot()

    @modal.enter(snap=False)
    def load_model_gpu(self) -> None:
        """After the restore: a GPU is here, the weights go to it, random numbers start anew."""
        self.container.after_restore()
        if not modal.is_local():
            kernels_volume.commit()  # what was compiled serves the next container

    @modal.method()
    def generate(self, picture: bytes, settings: dict[str, Any] | None = None) -> Outcome:
        """An encoded picture becomes a state and a preview; `settings` are fields of `GenerateSettings`."""
        return run_call(self.container, "generate", settings, lambda: picture)

    @modal.method()
    def texture(self, inputs: bytes, settings: dict[str, Any] | None = None) -> Outcome:
        """A mesh and pictures (see `pack_inputs`) become the textured mesh and a preview; `settings` are
        fields of `TextureSettings`."""
        return run_call(self.container, "texture", settings, lambda: inputs)

    @modal.method()
    def extract_glb(
        self, state: bytes | None, settings: dict[str, Any] | None = None, source: str | None = None
    ) -> Outcome:
        """A state, or the one in the result of the call `source`, becomes a file; see `ExtractSettings`."""

        def load() -> bytes:
            return state if state is not None else state_of_call(source, (settings or {}).get("variant", 1))

        return run_call(self.container, "extract", settings, load)

    @modal.method()
    def health(self) -> dict[str, Any]:
        """Model, device and how this container started. Wakes a GPU: the gateway's /health does not."""
        return self.container.health()


def open_host() -> ModelHost:
    """The host of this container's weights. Raises `WeightsError` when they are not whole."""
    if modal.is_local():
        return ModelHost(SETTINGS, Path(default_weights()), device=local_device())
    folder = weights_folder(SETTINGS)
    if SETTINGS.model != BUNDLED_MODEL:
        check_folder(folder)
    return ModelHost(SETTINGS, folder, progress=progress)


def run_call(
    container: Container, kind: JobKind, settings: dict[str, Any] | None, payload: Callable[[], bytes]
) -> Outcome:
    """Run the job of the current call; a container that lost its GPU takes no other."""
    if (refusal := container.refusal()) is not None:
        return failed(refusal) | {"seconds": 0.0, "attempt": 1, "finished": time.time()}
    try:
        return container.host.run(kind, settings or {}, payload, modal.current_function_call_id())
    except DeviceLostError:
        if not modal.is_local():  # the context is poisoned: the next try gets another container
            modal.experimental.stop_fetching_inputs()
        raise


def state_of_call(source: str | None, variant: int = 1) -> bytes:
    """The state of a variant in an earlier call's result. Raises `ExpiredError` when it is no longer kept."""
    if source is None:
        raise ExpiredError("send a state, or name a finished generation")
    try:
        outcome = modal.FunctionCall.from_id(source).get(timeout=RESULT_TIMEOUT)
    except (modal.exception.OutputExpiredError, modal.exception.NotFoundError) as error:
        raise ExpiredError("the state is no longer kept; generate again, or send the state itself") from error
    return state_of(outcome, variant)


def local_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def log_as_json() -> None:
    """In a container, one JSON object a line; elsewhere logging belongs to the caller."""
    if not modal.is_local():
        log_to_stderr(JsonFormatter())
