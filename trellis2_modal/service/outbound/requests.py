"""One HTTPS request to a checked address: redirects are checked, no proxy is used.

Everything blocks, for at most `Limits.seconds` in all: call it in a thread. The connection goes to an address
that was checked; the certificate must be the host name's.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from ... import __version__
from .addresses import Place, RefusedAddressError, Resolve, checked_place, resolve

REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 3
MAX_ADDRESSES = 3
CHUNK = 64 << 10

Connect = Callable[[str, int, float], socket.socket]
"""A TCP connection to an address and port within seconds. Raises OSError."""


class OutboundError(Exception):
    """The request failed; the text says how, in words for the caller."""


@dataclass(frozen=True)
class Limits:
    """Of one exchange, redirects included."""

    seconds: float
    size: int
    """The most bytes of a reply that are read."""


@dataclass(frozen=True)
class Answer:
    """A reply: `body` is at most `Limits.size` bytes, `whole` whether that is all of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool


def connect(address: str, port: int, seconds: float) -> socket.socket:
    return socket.create_connection((address, port), timeout=seconds)


@dataclass(frozen=True)
class Outbound:
    """How requests leave. Tests put a resolver and a network of their own in."""

    resolve: Resolve = resolve
    connect: Connect = connect
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def get(self, url: str, name: str, limits: Limits) -> Answer:
        """The reply to a GET after at most `MAX_REDIRECTS` redirects, each checked like the first address.

        `name` is the request's field that the URL came in. Raises `RefusedAddressError` or `OutboundError`.
        """
        deadline = time.monotonic() + limits.seconds
        for _ in range(MAX_REDIRECTS + 1):
            place = checked_place(url, name, self.resolve)
            answer = self._exchange(place, "GET", {"Accept": "image/*"}, None, limits, deadline)
            if answer.status not in REDIRECTS:
                return answer
            url = urljoin(url, answer.headers.get("location", ""))
        raise OutboundError(f"{name} is redirected more than {MAX_REDIRECTS} times")

    def post(self, url: str, name: str, headers: Mapping[str, str], body: bytes, limits: Limits) -> Answer:
        """The reply to a POST; a redirect is a reply like any other."""
        deadline = time.monotonic() + limits.seconds
        return self._exchange(checked_place(url, name, self.resolve), "POST", headers, body, limits, deadline)

    def _exchange(
        self,
        place: Place,
        method: str,
        headers: Mapping[str, str],
        body: bytes | None,
        limits: Limits,
        deadline: float,
    ) -> Answer:
        connection = _Connection(self, place, deadline)
        try:
            sent = {"User-Agent": f"trellis2-modal/{__version__}", "Connection": "close", **headers}
            connection.request(method, place.target, body, {"Host": place.origin, **sent})
            with closing(connection.getresponse()) as response:
                data, whole = _read(response, limits.size)
            connection.remaining()
            found = {key.lower(): value for key, value in response.getheaders()}
            return Answer(response.status, found, data, whole)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, TimeoutError) or time.monotonic() >= deadline:
                raise OutboundError(f"{place.host} did not answer within {limits.seconds:g} s") from error
            if isinstance(error, ssl.SSLError):
                raise OutboundError(f"{place.host} has no certificate that can be trusted") from error
            raise OutboundError(f"{place.host} cannot be reached, or does not speak HTTP") from error
        finally:
            connection.done()


class _Connection(http.client.HTTPConnection):
    """To one of a place's checked addresses; a timer cuts it off when the time is over."""

    def __init__(self, outbound: Outbound, place: Place, deadline: float) -> None:
        super().__init__(place.host, place.port)
        self._outbound, self._place, self._deadline = outbound, place, deadline
        self._timer: threading.Timer | None = None

    def connect(self) -> None:
        plain = self._any_address()
        self._timer = threading.Timer(self.remaining(), _cut_off, (plain,))
        self._timer.daemon = True
        self._timer.start()
        plain.settimeout(None)
        try:
            self.sock: Any = self._outbound.tls.wrap_socket(plain, server_hostname=self._place.host)
        except BaseException:
            plain.close()
            raise
        self._timer.cancel()
        self._timer = threading.Timer(self.remaining(), _cut_off, (self.sock,))
        self._timer.daemon = True
        self._timer.start()

    def _any_address(self) -> socket.socket:
        for address in self._place.addresses[:MAX_ADDRESSES]:
            try:
                return self._outbound.connect(address, self._place.port, self.remaining())
            except TimeoutError:
                raise
            except OSError as error:
                failed = error
        raise failed

    def done(self) -> None:
        """No `close`: http.client calls that before the body is read."""
        if self._timer is not None:
            self._timer.cancel()
        self.close()

    def remaining(self) -> float:
        """Seconds left. Raises TimeoutError."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _cut_off(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which would go on in the clear


def _read(response: http.client.HTTPResponse, most: int) -> tuple[bytes, bool]:
    """The body up to `most` bytes, and whether that is all."""
    data = bytearray()
    while len(data) <= most:
        chunk = response.read1(min(CHUNK, most + 1 - len(data)))
        if not chunk:
            if response.length:
                raise http.client.IncompleteRead(bytes(data), response.length)
            return bytes(data), True
        data += chunk
    return bytes(data[:most]), False


__all__ = ["Answer", "Limits", "Outbound", "OutboundError", "RefusedAddressError"]
