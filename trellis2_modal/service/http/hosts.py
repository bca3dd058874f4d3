"""Which names and origins the server answers to, where it listens on somebody's own machine.

A page of another site may point a name of its own at this machine (DNS rebinding): its requests carry it.
Browsers always send a name; what sends none is none.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ...protocol.errors import MisdirectedError
from ...sockets import netloc_of, of_this_machine

ANY = "*"


class HostCheck:
    """ASGI middleware; `names` beside addresses and the machine's own, `origins` beside its own; `*`: any."""

    def __init__(self, app: ASGIApp, names: Collection[str], origins: Collection[str]) -> None:
        self._app = app
        self._names, self._origins = {name.lower() for name in names}, set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and ANY not in self._names:
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin")
            if host and not of_this_machine(host, self._names):
                raise MisdirectedError(
                    f"this server does not answer to the name {host[:100]!r}; the operator adds names with "
                    "TRELLIS2_HOSTS"
                )
            own = origin is None or netloc_of(origin) == host.lower()
            if not own and not self._origins & {origin, ANY}:
                raise MisdirectedError(
                    "pages of other sites may not call this server; the operator adds origins with "
                    "TRELLIS2_CORS_ORIGINS"
                )
        await self._app(scope, receive, send)
