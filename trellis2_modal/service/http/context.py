"""What the layers of one request tell one another: set up by the transport, filled in on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import Scope

_KEY = "trellis2.context"


@dataclass
class RequestContext:
    """One request: its id, what its reply and its log line carry, and what is to be done when it ends."""

    request_id: str
    release_body: Callable[[], None]
    """Called once the body was turned into a job: its memory is free for others."""

    reply_headers: dict[str, str] = field(default_factory=dict)
    at_end: list[Callable[[], None]] = field(default_factory=list)
    key_id: str = ""
    job_id: str = ""

    def attach(self, scope: Scope) -> None:
        scope[_KEY] = self


def context_of(request: Request) -> RequestContext:
    """The request's context. Raises KeyError outside of `Transport`."""
    context: RequestContext = request.scope[_KEY]
    return context
