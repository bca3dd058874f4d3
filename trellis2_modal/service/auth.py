"""Who may come in: API keys, of which only a digest is stored.

The gateway reads the key list through a `KeyStorage` (a file here, a Volume on Modal), keeps the last good
copy when a refresh fails, and lets no one in when it was never read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from ..durable import write_atomically
from ..jobs.locks import FileLock
from ..protocol.errors import ForbiddenError, UnauthenticatedError, UnavailableError
from ..protocol.replies import DEFAULT_SCOPES, SCOPES

logger = logging.getLogger(__name__)

KEY_PREFIX = "sk_"
FILE_VERSION = 1
MAX_KEY_LENGTH = 200
READ_TIMEOUT = 10.0
"""Seconds after which reading the key list counts as failed."""


@dataclass(frozen=True)
class ApiKey:
    """One key as it is stored. Times are Unix seconds; `digest` is SHA-256 of the whole secret, in hex."""

    id: str
    name: str
    digest: str
    scopes: tuple[str, ...] = DEFAULT_SCOPES
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None
    requests_per_minute: int = 60
    gpu_seconds_per_day: float = 7200.0

    @property
    def dry_run(self) -> bool:
        """Whether its jobs run nothing; it may ask for whatever other keys may."""
        return "dry-run" in self.scopes

    def require(self, scope: str) -> None:
        """Raises `ForbiddenError` when the key lacks the scope."""
        if scope not in self.scopes and not (self.dry_run and scope in DEFAULT_SCOPES):
            raise ForbiddenError(f"this key has the scopes {', '.join(self.scopes)}; {scope} is needed")


class KeyStorage(Protocol):
    """Where the key list lives. `read` raises FileNotFoundError when there is none yet."""

    def read(self) -> bytes: ...

    def write(self, data: bytes) -> None: ...


class KeyFile:
    """The key list as a file that only its owner can read, replaced in one step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes:
        return self.path.read_bytes()

    def write(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, data, mode=0o600)


class KeyAdmin:
    """Creates, lists, revokes and rotates keys in a storage."""

    def __init__(self, storage: KeyStorage, lock: Path | None = None) -> None:
        self._storage = storage
        self._lock = lock

    def keys(self) -> tuple[ApiKey, ...]:
        try:
            return parse_keys(self._storage.read())
        except FileNotFoundError:
            return ()

    def create(
        self,
        name: str,
        scopes: Iterable[str] = DEFAULT_SCOPES,
        expires: float | None = None,
        requests_per_minute: int = 60,
        gpu_seconds_per_day: float = 7200.0,
    ) -> tuple[ApiKey, str]:
        """A new key and its secret, which is not kept. Raises ValueError for a bad scope or limit."""
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        key = _checked(
            ApiKey(
                id="key_" + secrets.token_hex(6),
                name=name,
                digest=_digest(secret),
                scopes=tuple(scopes),
                created=time.time(),
                expires=expires,
                requests_per_minute=requests_per_minute,
                gpu_seconds_per_day=gpu_seconds_per_day,
            )
        )
        self._update(lambda keys: (*keys, key))
        return key, secret

    def revoke(self, key_id: str) -> ApiKey:
        """Raises KeyError when there is no such key."""
        return self._replace(key_id, lambda old: replace(old, revoked=time.time()))

    def rotate(self, key_id: str, overlap: float = 0.0) -> tuple[ApiKey, str]:
        """A new key with the old one's name and limits; the old one works `overlap` seconds longer."""
        end = time.time() + overlap
        old = next((key for key in self.keys() if key.id == key_id), None)
        if old is None:
            raise KeyError(key_id)
        made = self.create(
            old.name, old.scopes, old.expires, old.requests_per_minute, old.gpu_seconds_per_day
        )
        self._replace(key_id, lambda k: replace(k, expires=min(end, k.expires) if k.expires else end))
        return made

    def _replace(self, key_id: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
        changed: list[ApiKey] = []

        def one(key: ApiKey) -> ApiKey:
            if key.id != key_id:
                return key
            changed.append(change(key))
            return changed[-1]

        self._update(lambda keys: tuple(one(key) for key in keys))
        if not changed:
            raise KeyError(key_id)
        return changed[-1]

    def _update(self, change: Callable[[tuple[ApiKey, ...]], tuple[ApiKey, ...]]) -> None:
        with FileLock(self._lock, timeout=10) if self._lock else nullcontext():
            self._storage.write(dump_keys(change(self.keys())))


def local_admin(data_dir: Path) -> KeyAdmin:
    """The keys of a local server: `<data_dir>/keys.json`."""
    return KeyAdmin(KeyFile(keys_path(data_dir)), lock=data_dir / "keys.lock")


def keys_path(data_dir: Path) -> Path:
    return data_dir / "keys.json"


class KeyRing:
    """Answers whose a presented secret is. One per gateway; `storage.read` runs in a thread."""

    def __init__(self, storage: KeyStorage, ttl: float = 1.0) -> None:
        self._storage = storage
        self._ttl = ttl
        self._keys: tuple[ApiKey, ...] | None = None
        self._checked = -1e9
        self._lock = asyncio.Lock()

    async def authenticate(self, presented: str | None) -> ApiKey:
        """The key of a secret.

        Raises `UnauthenticatedError` (none, unknown, revoked, expired: one text, so that a guesser learns
        nothing) or `UnavailableError` when no key list was ever read.
        """
        keys = await self._current()
        if not presented or len(presented) > MAX_KEY_LENGTH:
            raise UnauthenticatedError("send your key in the X-API-Key header")
        digest = _digest(presented)
        found = None
        for key in keys:  # every key is compared, in constant time
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None or not _good(found):
            raise UnauthenticatedError("this key is unknown, revoked or expired; ask the operator for one")
        return found

    async def find(self, key_id: str) -> ApiKey | None:
        """A key that is good now, by its id. Raises `UnavailableError`."""
        return next((key for key in await self._current() if key.id == key_id and _good(key)), None)

    async def _current(self) -> tuple[ApiKey, ...]:
        # while one caller reads the list again, the others may go on with the copy there is, but not for
        # long: what was revoked meanwhile must not get in through a slow read
        age = time.monotonic() - self._checked
        if age > self._ttl and not (self._lock.locked() and age <= 2 * self._ttl and self._keys is not None):
            async with self._lock:
                if time.monotonic() - self._checked > self._ttl:
                    await self._refresh()
        if self._keys is None:
            raise UnavailableError(
                "the key list cannot be read; the service's log says why (keys-unreadable)", retry_after=10
            )
        return self._keys

    async def _refresh(self) -> None:
        began = time.monotonic()
        try:
            reading = asyncio.to_thread(self._storage.read)
            self._keys = parse_keys(await asyncio.wait_for(reading, READ_TIMEOUT))
        except Exception as error:
            logger.error(
                "cannot read the key list (%s): %s",
                "going on with the last good copy" if self._keys is not None else "refusing every request",
                error or type(error).__name__,
                extra={"code": "keys-unreadable"},
            )
            began = time.monotonic()
        self._checked = began  # a list is as old as the moment at which its reading began


def parse_keys(data: bytes) -> tuple[ApiKey, ...]:
    """The keys of a key list; raises ValueError when it is not one."""
    try:
        document = json.loads(data)
    except ValueError as error:  # UnicodeDecodeError is one
        raise ValueError(f"keys.json is not a key list: {error}") from error
    try:
        if document["version"] != FILE_VERSION:
            raise ValueError(f"version {document['version']}, expected {FILE_VERSION}")
        entries = [entry | {"scopes": tuple(entry["scopes"])} for entry in document["keys"]]
        return tuple(_checked(ApiKey(**entry)) for entry in entries)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"keys.json is not a key list: {error!r}") from error


def dump_keys(keys: Iterable[ApiKey]) -> bytes:
    return json.dumps({"version": FILE_VERSION, "keys": [asdict(k) for k in keys]}, indent=1).encode()


def _good(key: ApiKey) -> bool:
    """Whether a key is neither revoked nor expired."""
    return key.revoked is None and (key.expires is None or key.expires > time.time())


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _checked(key: ApiKey) -> ApiKey:
    unknown = set(key.scopes) - set(SCOPES)
    if unknown or not key.scopes:
        raise ValueError(f"scopes are {', '.join(SCOPES)}; got {', '.join(key.scopes) or 'none'}")
    if key.dry_run and set(key.scopes) & set(DEFAULT_SCOPES):
        raise ValueError("dry-run stands in place of generate and extract: leave them out")
    if len(key.digest) != 64 or not key.name or len(key.name) > 100:
        raise ValueError(f"key {key.id} has no proper digest or name (1 to 100 characters)")
    for value in (key.requests_per_minute, key.gpu_seconds_per_day):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e9:
            raise ValueError(f"key {key.id}: limits must be numbers from 0 to 1e9, got {value!r}")
    for moment in (key.created, key.expires, key.revoked):
        if moment is not None and (isinstance(moment, bool) or not isinstance(moment, (int, float))):
            raise ValueError(f"key {key.id}: times must be Unix seconds, got {moment!r}")
    return key
