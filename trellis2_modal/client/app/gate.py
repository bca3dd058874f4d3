"""Who may talk to the app: pages of its own, under names of its own, and beyond this machine with a password.

Other sites that are open in the same browser must neither read nor upload anything, whatever address and port
the app has; a name that somebody else points at this machine (DNS rebinding) must not reach it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...sockets import machine_names, netloc_of, of_this_machine

PASSWORD_VARIABLE = "TRELLIS2_APP_PASSWORD"
FILE_ROUTES = re.compile(r"/file[=/](.*)", re.DOTALL)
"""Gradio's addresses of files by path, today's and an older one."""

GUESS_DELAY = 0.5
"""Seconds that a wrong password costs; guesses wait for one another."""

MOST_GUESSES = 20
"""Wrong passwords that may wait at one moment; more are turned away."""


class Gate:
    """ASGI middleware; `files` are the folders of which Gradio's own file route may serve something."""

    def __init__(self, app: Any, host: str, files: Iterable[Path], password: str = "") -> None:
        self._app = app
        self._names = machine_names(host)
        self._files = [folder.resolve() for folder in files]
        self._password = password
        self._guessing, self._guesses = asyncio.Lock(), 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            reason = self._refusal(scope["method"], scope["path"], headers)
            if reason:
                await _answer(send, 403, reason)
                return
            given = headers.get("authorization", "")
            if self._password and not self._knows(given):
                if given and not await self._slowed_down():
                    await _answer(send, 429, "too many wrong passwords; try again in a minute")
                    return
                await _answer(send, 401, "a password is needed", b'Basic realm="TRELLIS.2", charset="UTF-8"')
                return
        elif scope["type"] == "websocket":  # no part of the page opens one
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, _unframed(send))

    async def _slowed_down(self) -> bool:
        """Make a wrong password cost its time; False when too many wait for that."""
        if self._guesses >= MOST_GUESSES:
            return False
        self._guesses += 1
        try:
            async with self._guessing:
                await asyncio.sleep(GUESS_DELAY)
        finally:
            self._guesses -= 1
        return True

    def _refusal(self, method: str, path: str, headers: dict[str, str]) -> str:
        """Why a request is not answered; empty when it is."""
        host = headers.get("host", "")
        if not of_this_machine(host, self._names):
            return "this app has another name"
        origin = headers.get("origin")
        if origin is not None and netloc_of(origin) != host.lower():
            return "requests from other sites are not answered"
        opened = (
            method == "GET"
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest", "document") == "document"
        )
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and not opened:
            return "requests from other sites are not answered"
        asked = FILE_ROUTES.search(path)
        if asked and not self._may_serve(asked[1]):
            return "only files of the page are served"
        return ""

    def _may_serve(self, name: str) -> bool:
        try:
            path = Path(name).resolve()
        except (OSError, ValueError, RuntimeError):
            return False
        return any(path.is_relative_to(folder) for folder in self._files)

    def _knows(self, authorization: str) -> bool:
        kind, _, text = authorization.partition(" ")
        try:
            given = base64.b64decode(text, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return False
        return kind.lower() == "basic" and hmac.compare_digest(given, self._password.encode())


def _unframed(send: Any) -> Any:
    """Pages of other sites cannot show the answer in a frame and steer clicks into it."""

    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            own = (b"content-security-policy", b"frame-ancestors 'self'")
            message = {**message, "headers": [*message["headers"], own]}
        await send(message)

    return sent


async def _answer(send: Any, status: int, text: str, challenge: bytes = b"") -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    headers += [(b"www-authenticate", challenge)] if challenge else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
