"""Listening sockets of the local service and of the app, and the names under which they are reached."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import time
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Hosts that stand for all addresses, and the one of them by which this machine reaches itself."""

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
    """The URL by which this machine reaches a listening socket that was asked for by this host."""
    return url_of(host, listener.getsockname()[1])


def url_of(host: str, port: int) -> str:
    """The URL of a host, which may be an IPv6 address or stand for all addresses."""
    host = EVERY_ADDRESS.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def machine_names(host: str) -> set[str]:
    """The names of what listens on `host`, in lower case."""
    own = socket.gethostname().lower()
    return {host.lower(), "localhost", own, f"{own}.local"}


def of_this_machine(host: str, names: Collection[str]) -> bool:
    """Whether a Host header has an address, which no stranger can point elsewhere, or one of the names."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        ipaddress.ip_address(name)
    except ValueError:
        return host.rpartition(":")[0].lower() in names or host.lower() in names
    return True


def netloc_of(origin: str) -> str:
    """Host and port of an Origin header; empty for one that is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def network_addresses() -> list[str]:
    """The addresses (IPv4) under which other machines may reach this one, that of the default route first."""
    found: list[Any] = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent: it only asks which way packets would take
        found.append(probe.getsockname()[0])
    with contextlib.suppress(OSError):
        found += [item[4][0] for item in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    return [address for address in dict.fromkeys(map(str, found)) if not is_loopback(address)]
