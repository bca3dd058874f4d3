"""The adapter to Modal: its handles are replaced by ones that behave as the client's do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import modal
import pytest
from modal import exception as modal_errors

from tests.trellis2_modal.deploy.emulated import MANIFEST
from trellis2_modal.jobs.execution import DeviceLostError
from trellis2_modal.protocol.errors import QueueFullError, UnavailableError
from trellis2_modal.service.config import BUNDLED_MODEL, DeploySettings
from trellis2_modal.service.deploy.modal_calls import ModalCalls
from trellis2_modal.service.deploy.weights.manifest import MARKER, WeightsError, folder_name


class Remote:
    """A method that is called as `method.aio(...)`; raises or returns what it was given."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    async def aio(self, *args: Any, **kwargs: Any) -> Any:
        self.asked.append((args, kwargs))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class RemoteChunks:
    """A generator method, as `Volume.read_file` and `Dict.items` are."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    async def aio(self, *args: Any) -> AsyncIterator[Any]:
        for item in self.items:
            if isinstance(item, Exception):
                raise item
            yield item


def calls(service: Any = None, **settings: Any) -> Any:
    """The real adapter; its lazy handles ask nothing of the network until they are used."""
    return ModalCalls(DeploySettings(**settings), service)


def service(**methods: Remote) -> Any:
    return lambda: SimpleNamespace(**{name: SimpleNamespace(spawn=spawn) for name, spawn in methods.items()})


def test_a_generation_and_an_extraction_are_spawned() -> None:
    generate, extract = Remote(SimpleNamespace(object_id="fc-1")), Remote(SimpleNamespace(object_id="fc-2"))
    adapter = calls(service(generate=generate, extract_glb=extract))
    assert asyncio.run(adapter.spawn("generate", {"seed": 1}, b"png", None)) == "fc-1"
    assert generate.asked == [((b"png", {"seed": 1}), {})]
    assert asyncio.run(adapter.spawn("extract", {}, None, "fc-1")) == "fc-2"
    assert extract.asked == [((None, {}, "fc-1"), {})]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (modal_errors.ResourceExhaustedError("too many inputs"), QueueFullError),
        (modal_errors.ConnectionError("no route"), UnavailableError),
        (modal_errors.NotFoundError("no such class"), UnavailableError),
        (OSError("reset"), UnavailableError),
    ],
)
def test_what_keeps_a_call_from_starting(failure: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught:
        asyncio.run(calls(service(generate=Remote(failure))).spawn("generate", {}, b"", None))
    assert "no route" not in str(caught.value)  # the log has it, the caller does not


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ({"status": "finished"}, "returned"),
        (TimeoutError(), "pending"),
        (modal_errors.OutputExpiredError("gone"), "expired"),
        (modal_errors.NotFoundError("unknown call"), "expired"),
        (modal_errors.FunctionTimeoutError("too long"), "timeout"),
        (modal_errors.RemoteError("cancelled"), "error"),
        (DeviceLostError("CUDA error"), "error"),
        (modal_errors.ExecutionError("killed"), "error"),
    ],
)
def test_where_a_call_stands(monkeypatch: pytest.MonkeyPatch, answer: Any, state: str) -> None:
    get = Remote(answer)
    monkeypatch.setattr(modal.FunctionCall, "from_id", lambda call: SimpleNamespace(get=get))
    outcome = asyncio.run(calls().outcome("fc-1"))
    assert outcome.state == state
    assert get.asked == [((), {"timeout": 0})]
    assert outcome.value == (answer if state == "returned" else None)


@pytest.mark.parametrize("failure", [modal_errors.ConnectionError("x"), modal_errors.ServiceError("x")])
def test_an_unreachable_modal_is_not_a_failed_job(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    remote = SimpleNamespace(get=Remote(failure), cancel=Remote(failure))
    monkeypatch.setattr(modal.FunctionCall, "from_id", lambda call: remote)
    for ask in (calls().outcome, calls().cancel):
        with pytest.raises(UnavailableError):
            asyncio.run(ask("fc-1"))


def test_tables_are_read_and_claimed() -> None:
    adapter = calls()
    put, pop = Remote(False), Remote()
    rows = RemoteChunks(("job_1", {"id": "job_1"}), ("job_2", {"id": "job_2"}))
    adapter._jobs = SimpleNamespace(put=put, get=Remote({"id": "job_1"}), pop=pop, items=rows)
    adapter._progress = SimpleNamespace(get=Remote(None))
    assert asyncio.run(adapter.claim("job_1", {"id": "job_1"})) is False
    assert put.asked == [(("job_1", {"id": "job_1"}), {"skip_if_exists": True})]
    asyncio.run(adapter.save("job_1", {}))
    asyncio.run(adapter.forget("job_1"))
    assert pop.asked == [(("job_1", None), {})]
    assert [row["id"] for row in asyncio.run(adapter.records())] == ["job_1", "job_2"]
    assert asyncio.run(adapter.record("job_1")) == {"id": "job_1"}
    assert asyncio.run(adapter.progress("fc-1")) is None


def test_the_manifest_is_read_from_the_volume() -> None:
    adapter = calls()
    data = MANIFEST.dump()
    adapter._weights = SimpleNamespace(read_file=RemoteChunks(data[:10], data[10:]))
    assert asyncio.run(adapter.manifest()) == MANIFEST


@pytest.mark.parametrize("failure", [FileNotFoundError("x"), modal_errors.NotFoundError("no volume")])
def test_weights_that_are_not_there_say_what_to_run(failure: Exception) -> None:
    adapter = calls()
    adapter._weights = SimpleNamespace(read_file=RemoteChunks(failure))
    with pytest.raises(
        WeightsError, match=r"modal run -m trellis2_modal.service.deploy.weights.download::download_weights"
    ) as e:
        asyncio.run(adapter.manifest())
    assert f"{folder_name(DeploySettings())}/{MARKER}" in str(e.value)


def test_bundled_weights_without_a_config_say_what_to_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from trellis2_modal.service.deploy import modal_calls
    from trellis2_modal.service.deploy.weights import manifest as weights_manifest

    monkeypatch.setattr(modal_calls, "bundled_manifest", lambda: weights_manifest.bundled_manifest(tmp_path))
    with pytest.raises(WeightsError, match="modal deploy -m"):
        asyncio.run(calls(model=BUNDLED_MODEL).manifest())
