"""Enough of Modal's control plane for the real command line to deploy to: every call is answered, and noted.

Answers have what the command goes on with (ids, images that are built, files that are known); nothing runs.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpclib.server
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from modal_proto import api_grpc, api_pb2

METHODS = api_pb2.DESCRIPTOR.services_by_name["ModalClient"].methods_by_name
PREFIXES = {"class_id": "cs", "secret_id": "st", "function_call_id": "fc"}
TOP = Path(__file__).parents[3]


class ControlPlane:
    """`calls` are the names and requests in order; `url` is where it listens."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.url = ""
        self._ids = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._done: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))

    def requests(self, name: str) -> list[Any]:
        return [request for called, request in self.calls if called == name]

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        assert self._done is not None
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(10)
        self._loop.close()

    async def _stopped(self) -> None:
        assert self._done is not None
        await self._done.wait()

    async def _serve(self) -> None:
        self._done = asyncio.Event()
        names = [name for name in METHODS if hasattr(api_grpc.ModalClientBase, name)]
        service = type("Service", (api_grpc.ModalClientBase,), {name: self._answerer(name) for name in names})
        server = grpclib.server.Server([service()])
        await server.start("127.0.0.1", 0)
        assert server._server is not None
        port = server._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._ready.set()
        await self._stopped()
        server.close()
        await server.wait_closed()

    def _answerer(self, name: str) -> Any:
        reply_type = GetMessageClass(METHODS[name].output_type)

        async def answer(service: Any, stream: Any) -> None:
            request = await stream.recv_message()
            self.calls.append((name, request))
            if name == "AppGetLogs":  # a stream that says nothing
                await self._stopped()
                return
            reply = reply_type()
            self._fill(reply)
            for field in request.DESCRIPTOR.fields:
                if field.name.startswith("existing_") and (known := getattr(request, field.name)):
                    setattr(reply, field.name.removeprefix("existing_"), known)
            if name == "FunctionMap":
                for item in request.pipelined_inputs:
                    reply.pipelined_inputs.add(idx=item.idx, input_id=f"in-{next(self._ids):06d}")
            if name == "FunctionGetOutputs":  # every call returns None
                output = reply.outputs.add(data_format=api_pb2.DATA_FORMAT_PICKLE)
                output.result.status = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
                output.result.data = pickle.dumps(None)
            if name in ("FunctionCreate", "FunctionPrecreate"):
                defined = getattr(request, "function", request)
                reply.handle_metadata.function_name = defined.function_name
                if defined.webhook_config.type:
                    reply.handle_metadata.web_url = "https://acme--trellis2-web.modal.run"
            if name == "FunctionCreate":  # what was defined comes back
                reply.function_data.CopyFrom(request.function_data)
                if not reply.function_data.ranked_functions:
                    reply.function_data.ranked_functions.add().function.CopyFrom(request.function)
            await stream.send_message(reply)

        return answer

    def _fill(self, message: Message) -> None:
        """New ids for ids, "there" for questions whether something is there, and what is built is built."""
        for field in message.DESCRIPTOR.fields:
            if field.type == FieldDescriptor.TYPE_STRING and field.name.endswith("_id"):
                prefix = PREFIXES.get(field.name, field.name[:2])
                setattr(message, field.name, f"{prefix}-{next(self._ids):06d}")
            elif field.name == "exists":
                setattr(message, field.name, True)
        if isinstance(message, (api_pb2.ImageGetOrCreateResponse, api_pb2.ImageJoinStreamingResponse)):
            message.result.status = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
        if isinstance(message, api_pb2.EnvironmentGetOrCreateResponse):
            message.metadata.settings.image_builder_version = "2025.06"


@contextmanager
def control_plane() -> Iterator[ControlPlane]:
    plane = ControlPlane()
    plane.start()
    try:
        yield plane
    finally:
        plane.stop()


def run_modal(plane: ControlPlane, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The real `modal` command in the checkout, with this control plane as its server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRELLIS2_", "MODAL_"))}
    account = {"MODAL_SERVER_URL": plane.url, "MODAL_TOKEN_ID": "ak-test", "MODAL_TOKEN_SECRET": "as-test"}
    environment = kept | account | {"HOME": "/nonexistent", "PYTHONPATH": ""} | variables
    return subprocess.run(
        [sys.executable, "-m", "modal", *arguments],
        cwd=TOP,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
