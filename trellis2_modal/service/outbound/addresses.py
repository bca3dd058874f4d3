"""Which addresses a caller may send the service to: https, and public addresses alone.

A name counts as private when one of the addresses it stands for is: whoever answers for the name chooses
which of them is used. What was checked is what is connected to (see `requests`), so an answer that changes
changes nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from ...protocol.errors import FieldError, InvalidRequestError

MAX_URL = 2_000

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a name, as text. Raises OSError."""

TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
"""IPv6 addresses that stand for the IPv4 address in their last 32 bits."""


class RefusedAddressError(InvalidRequestError):
    """The service must not send a request there."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}", errors=[FieldError(field, message)])


@dataclass(frozen=True)
class Place:
    """A checked URL: the host's name, and the addresses that may be connected to."""

    host: str
    port: int
    target: str
    """Path and query, as the request line has them."""

    addresses: tuple[str, ...]

    @property
    def origin(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"


def resolve(host: str, port: int) -> list[str]:
    """The system's answer."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def checked_place(url: str, field: str, look_up: Resolve = resolve) -> Place:
    """Where `url` leads. Blocks while the name is looked up; raises `RefusedAddressError`."""
    host, port, target = split_url(url, field)
    try:
        answers = look_up(host, port)
        addresses = [ip_address(answer.partition("%")[0]) for answer in answers]
    except (OSError, ValueError, UnicodeError) as error:
        raise RefusedAddressError(field, f"names a host that cannot be found: {host[:100]}") from error
    if not addresses or not all(is_public(address) for address in addresses):
        raise RefusedAddressError(field, "must not lead to a private, local or reserved address")
    return Place(host, port, target, tuple(map(str, addresses)))


def split_url(url: str, field: str) -> tuple[str, int, str]:
    """Host, port and target of an https URL. Raises `RefusedAddressError`."""
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise RefusedAddressError(field, f"must be a URL of at most {MAX_URL} printable ASCII characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RefusedAddressError(field, "is not a URL") from error
    if parts.scheme != "https":
        raise RefusedAddressError(field, "must begin with https://")
    if parts.username is not None or parts.password is not None:
        raise RefusedAddressError(field, "must not hold a user name or password")
    if not host or "\\" in url:
        raise RefusedAddressError(field, "is not a URL")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return host, 443 if port is None else port, target


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to the internet, and to one machine of it."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and any(address in network for network in TRANSLATED):
            inner = IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
