"""Flows done, blocking or with asyncio, and methods that both clients share: each says its flow once."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

import httpx

from ..options import OnWait
from . import deadlines
from .core import Action, Chunk, Close, Flow, Pause, Send, Shield

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")


class Driver:
    """Does what flows ask for, one thread a flow."""

    def __init__(self, http: httpx.Client, on_wait: OnWait, sleep: Callable[[float], None]) -> None:
        self.http, self.on_wait, self.sleep = http, on_wait, sleep

    def run(self, flow: Flow[T]) -> T:
        """What the flow returns; an interrupt between two of its actions is thrown into it, too."""
        try:
            return self._run(flow, partial(next, flow))
        except BaseException as error:
            if inspect.getgeneratorstate(flow) == inspect.GEN_CLOSED:  # it has heard it
                raise
            return self._run(flow, partial(flow.throw, error))

    def _run(self, flow: Flow[T], begin: Callable[[], Action]) -> T:
        try:
            action = begin()
            while True:
                try:
                    answer = self._do(action)
                except BaseException as error:
                    action = flow.throw(error)
                else:
                    action = flow.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value

    def _do(self, action: Action) -> httpx.Response | bytes | None:
        match action:
            case Send(request):
                return deadlines.send(self.http, request)
            case Chunk(response):
                return deadlines.chunk(response)
            case Close(response):
                response.close()
            case Pause(waiting):
                self.on_wait(waiting)
                if waiting.seconds > 0:
                    self.sleep(waiting.seconds)
            case Shield(flow):
                self.run(flow)
        return None


class AsyncDriver:
    """`Driver` for asyncio. A cancelled task is heard where it awaits."""

    def __init__(
        self, http: httpx.AsyncClient, on_wait: OnWait, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self.http, self.on_wait, self.sleep = http, on_wait, sleep

    async def run(self, flow: Flow[T]) -> T:
        """See `Driver.run`."""
        try:
            action = next(flow)
            while True:
                try:
                    answer = await self._do(action)
                except BaseException as error:
                    action = flow.throw(error)
                else:
                    action = flow.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value

    async def _do(self, action: Action) -> httpx.Response | bytes | None:
        match action:
            case Send(request):
                return await deadlines.send_async(self.http, request)
            case Chunk(response):
                return await deadlines.chunk_async(response)
            case Close(response):
                await response.aclose()
            case Pause(waiting):
                self.on_wait(waiting)
                if waiting.seconds > 0:
                    await self.sleep(waiting.seconds)
            case Shield(flow):
                await asyncio.shield(self.run(flow))
        return None


class Blocking:
    """Of which `flow_method`s block."""

    _driver: Driver


class Awaited:
    """Of which `flow_method`s are awaited."""

    _driver: AsyncDriver


class FlowMethod(Protocol[P, T_co]):
    """What type checkers see of a `flow_method`."""

    @overload
    def __get__(self, owner: Blocking, kind: type) -> Callable[P, T_co]: ...
    @overload
    def __get__(self, owner: Awaited, kind: type) -> Callable[P, Coroutine[Any, Any, T_co]]: ...
    @overload
    def __get__(self, owner: object, kind: type) -> Any: ...


def flow_method(flow: Callable[Concatenate[Any, P], Flow[T]]) -> FlowMethod[P, T]:
    """A method that gives a flow, as one that runs it with the object's driver."""

    @wraps(flow)
    def run(self: Any, /, *args: P.args, **options: P.kwargs) -> Any:
        def begun() -> Flow[T]:  # by the driver: what checks arguments raises where it is awaited
            return (yield from flow(self, *args, **options))

        return self._driver.run(begun())

    signature = inspect.signature(flow)
    result = str(signature.return_annotation).removeprefix("Flow[").removesuffix("]")
    run.__signature__ = signature.replace(return_annotation=result)  # type: ignore[attr-defined]
    return cast("FlowMethod[P, T]", run)
