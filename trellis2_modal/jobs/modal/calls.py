"""All that the engine asks of Modal, behind one small protocol: calls of the GPU class, and two tables.

`service.deploy.modal_calls` is the real one. Everything above this seam is tested without Modal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ...protocol.requests import JobKind
from ..ports import Capabilities


@dataclass(frozen=True)
class CallOutcome:
    """Where a call stands. `value` is what it returned, `detail` what went wrong, for the log."""

    state: Literal["pending", "returned", "expired", "timeout", "error"]
    value: Any = None
    detail: str = ""


PENDING = CallOutcome("pending")


class Calls(Protocol):
    """Raises `UnavailableError` when Modal cannot be reached."""

    async def spawn(
        self, kind: JobKind, settings: dict[str, Any], payload: bytes | None, source: str | None
    ) -> str:
        """Start a call of the GPU class and return its id; `source` is the call whose state is extracted.

        Raises `QueueFullError` when Modal takes no more.
        """

    async def outcome(self, call: str) -> CallOutcome: ...

    async def cancel(self, call: str) -> None: ...

    async def progress(self, call: str) -> object:
        """What the call's container wrote (see `progress.load_entry`), None before that."""

    async def capabilities(self) -> Capabilities:
        """What the weights can do; degraded, with a reason that says what to run, when they are not whole."""

    async def records(self) -> list[dict[str, Any]]:
        """Every stored job."""

    async def record(self, job: str) -> dict[str, Any] | None: ...

    async def claim(self, job: str, record: dict[str, Any]) -> bool:
        """Store a new job; False when there is one of that id, which stays as it is."""

    async def save(self, job: str, record: dict[str, Any]) -> None: ...

    async def forget(self, job: str) -> None: ...
