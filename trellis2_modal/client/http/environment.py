"""Proxies and certificates set by environment variables, named when httpx cannot use them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from ..errors import EnvironmentVariableError

PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
SCHEMES = ("http", "https", "socks5", "socks5h")


@contextmanager
def environment_errors() -> Iterator[None]:
    """Around the making of an HTTP client: what it cannot use of the environment raises
    `EnvironmentVariableError`, which names the variable.
    """
    try:
        yield
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        found = _certificate_fault() if isinstance(error, OSError) else _proxy_variable_fault()
        if found is None:
            raise
        raise EnvironmentVariableError(f"{found}; correct it or unset it") from error


def _certificate_fault() -> str | None:
    for name, exists in (("SSL_CERT_FILE", os.path.isfile), ("SSL_CERT_DIR", os.path.isdir)):
        if value := os.environ.get(name):
            fault = "holds no readable certificates" if exists(value) else "does not exist"
            return f"{name}: {value} {fault}"
    return None


def _proxy_variable_fault() -> str | None:
    for name in (spelling for proxy in PROXIES for spelling in (proxy, proxy.lower())):
        if (value := os.environ.get(name)) and (reason := _proxy_fault(value)):
            return f"{name}: {reason}"
    for name in ("NO_PROXY", "no_proxy"):
        for entry in os.environ.get(name, "").split(","):
            if ":" in entry.replace("://", ""):
                return f"{name}: the entry {entry.strip()!r} is no host name that httpx takes (IPv6 is not)"
    return None


def _proxy_fault(value: str) -> str:
    try:
        scheme = httpx.URL(value if "://" in value else f"http://{value}").scheme
    except httpx.InvalidURL:
        return f"{value!r} is no address of a proxy"
    if scheme not in SCHEMES:
        return f"{scheme}:// is no kind of proxy that is known; use http:// or socks5://"
    if scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        return "a SOCKS proxy needs one more package: pip install socksio"
    return ""
