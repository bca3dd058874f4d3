"""Listening sockets of the local service and of the app."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Any

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
ACCEPT_PAUSE = 0.9
"""A little less than the second after which asyncio accepts again."""


class Listener(socket.socket):
    """A listening socket that stops trying for a moment when files have run out.

    asyncio then accepts again after a second, but (3.11 to 3.13) first tries, and logs a traceback, as often
    as the backlog is long, and plans a fresh start each time.
    """

    _paused_until = 0.0

    def accept(self) -> tuple[socket.socket, Any]:
        if time.monotonic() < self._paused_until:
            raise BlockingIOError
        try:
            return super().accept()
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._paused_until = time.monotonic() + ACCEPT_PAUSE
            raise


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks a free one. Raises OSError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off; without, every small reply waits 40 ms.
    listener = Listener(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name != "nt":  # there it would allow two servers on one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(512)
    except BaseException:
        listener.close()
        raise
    return listener


def address_of(listener: socket.socket, host: str) -> str:
    """The URL of a listening socket that was asked for by this host."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
