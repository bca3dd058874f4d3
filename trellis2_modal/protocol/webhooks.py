"""How a callback is signed, after the Standard Webhooks specification (version 1 signatures).

The receiver checks the headers with `verify`, or with any library for standard webhooks. The secret is the
key's own (`webhook_secret` in the reply of GET /usage).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE = 300.0
"""Seconds by which the sender's clock may differ from the receiver's."""

_PREFIX = "whsec_"


class SignatureError(ValueError):
    """The request does not come from the service, or not from just now."""


def secret_of(key_digest: str) -> str:
    """The signing secret of an API key with this SHA-256 (hex): the key does not follow from it."""
    derived = hashlib.sha256(b"trellis2 webhook\n" + key_digest.encode()).digest()
    return _PREFIX + base64.b64encode(derived).decode()


def signed_headers(secret: str, message: str, body: bytes, now: float) -> dict[str, str]:
    """The headers of a delivery; `message` is the same in every attempt."""
    timestamp = str(int(now))
    return {ID: message, TIMESTAMP: timestamp, SIGNATURE: _signature(secret, message, timestamp, body)}


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float | None = None) -> str:
    """The id of a delivery that is genuine, the same for each attempt. Raises `SignatureError`."""
    found = {name.lower(): value for name, value in headers.items()}
    try:
        message, timestamp, signatures = found[ID], found[TIMESTAMP], found[SIGNATURE].split()
        age = abs((time.time() if now is None else now) - int(timestamp))
    except (KeyError, ValueError) as error:
        raise SignatureError("a webhook header is missing or malformed") from error
    if age > TOLERANCE:
        raise SignatureError(f"the delivery is {age:.0f} s old; the most is {TOLERANCE:.0f}")
    wanted = _signature(secret, message, timestamp, body).encode()
    if not any(hmac.compare_digest(wanted, given.encode()) for given in signatures):
        raise SignatureError("the signature is not this secret's")
    return message


def _signature(secret: str, message: str, timestamp: str, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    text = f"{message}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
