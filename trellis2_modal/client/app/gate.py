"""Who may talk to the app: pages of its own, under names of its own, and beyond this machine with a password.

Other sites that are open in the same browser must neither read nor upload anything, whatever address and port
the app has; a name that somebody else points at this machine (DNS rebinding) must not reach it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PASSWORD_VARIABLE = "TRELLIS2_APP_PASSWORD"
FILE_ROUTES = re.compile(r"/file[=/](.*)", re.DOTALL)
"""Gradio's addresses of files by path, today's and an older one."""

GUESS_DELAY = 0.5
"""Seconds that a wrong password costs."""


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Gate:
    """ASGI middleware; `files` are the folders of which Gradio's own file route may serve something."""

    def __init__(self, app: Any, host: str, files: Iterable[Path], password: str = "") -> None:
        self._app = app
        self._names = {host.lower(), "localhost", socket.gethostname().lower()}
        self._files = [folder.resolve() for folder in files]
        self._password = password

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            reason = self._refusal(scope["method"], scope["path"], headers)
            if reason:
                await _answer(send, 403, reason)
                return
            if self._password and not self._knows(headers.get("authorization", "")):
                await asyncio.sleep(GUESS_DELAY)
                await _answer(send, 401, "a password is needed", b'Basic realm="TRELLIS.2", charset="UTF-8"')
                return
        await self._app(scope, receive, send)

    def _refusal(self, method: str, path: str, headers: dict[str, str]) -> str:
        """Why a request is not answered; empty when it is."""
        host = headers.get("host", "")
        if not self._own_name(host):
            return "this app has another name"
        origin = headers.get("origin")
        if origin is not None and urlsplit_netloc(origin) != host.lower():
            return "requests from other sites are not answered"
        opened = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and not opened:
            return "requests from other sites are not answered"
        asked = FILE_ROUTES.search(path)
        if asked and not self._may_serve(asked[1]):
            return "only files of the page are served"
        return ""

    def _own_name(self, host: str) -> bool:
        """Whether a Host header names this app: by an address (which no stranger can point elsewhere) or a
        name of this machine."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            ipaddress.ip_address(name)
        except ValueError:
            return host.rpartition(":")[0].lower() in self._names or host.lower() in self._names
        return True

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


def urlsplit_netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


async def _answer(send: Any, status: int, text: str, challenge: bytes = b"") -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    headers += [(b"www-authenticate", challenge)] if challenge else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
