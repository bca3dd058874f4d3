from __future__ import annotations

import asyncio
import json
import stat
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from trellis2_modal.protocol.errors import RateLimitedError, UnauthenticatedError, UnavailableError
from trellis2_modal.service import auth
from trellis2_modal.service.auth import KeyFile, KeyRing, dump_keys, keys_path, local_admin, parse_keys
from trellis2_modal.service.http.rate_limits import RateLimiter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def ring(folder: Path) -> KeyRing:
    return KeyRing(KeyFile(keys_path(folder)), ttl=0.0)


def test_a_secret_is_found_and_never_stored(folder: Path) -> None:
    key, secret = local_admin(folder).create("anna", scopes=("generate",))
    assert asyncio.run(ring(folder).authenticate(secret)) == key
    assert secret not in keys_path(folder).read_text()
    assert len(secret) >= 46  # 256 bits


@pytest.mark.skipif(sys.platform == "win32", reason="no POSIX modes")
def test_only_the_owner_can_read_the_file(folder: Path) -> None:
    local_admin(folder).create("anna")
    assert stat.S_IMODE(keys_path(folder).stat().st_mode) == 0o600


@pytest.mark.parametrize("secret", [None, "", "sk_wrong", "x" * 10_000, "sk_\udcff"])
def test_a_wrong_secret_is_refused(folder: Path, secret: str | None) -> None:
    local_admin(folder).create("anna")
    with pytest.raises(UnauthenticatedError):
        asyncio.run(ring(folder).authenticate(secret))


def test_revoked_expired_and_rotated_keys(folder: Path) -> None:
    admin = local_admin(folder)
    revoked, secret_a = admin.create("a")
    _, secret_b = admin.create("b", expires=time.time() - 1)
    old, secret_c = admin.create("c", gpu_seconds_per_day=11)
    admin.revoke(revoked.id)
    new, secret_d = admin.rotate(old.id, overlap=0.0)
    keys = ring(folder)
    for secret in (secret_a, secret_b, secret_c):
        with pytest.raises(UnauthenticatedError):
            asyncio.run(keys.authenticate(secret))
    assert asyncio.run(keys.authenticate(secret_d)) == new
    assert (new.name, new.gpu_seconds_per_day) == ("c", 11)


def test_a_rotated_key_works_through_the_overlap(folder: Path) -> None:
    admin = local_admin(folder)
    old, secret = admin.create("c")
    admin.rotate(old.id, overlap=60)
    assert asyncio.run(ring(folder).authenticate(secret)).id == old.id


def test_unknown_ids_are_errors(folder: Path) -> None:
    admin = local_admin(folder)
    admin.create("a")
    with pytest.raises(KeyError):
        admin.revoke("key_none")
    with pytest.raises(KeyError):
        admin.rotate("key_none")
    assert len(admin.keys()) == 1


def test_fail_closed_when_the_list_was_never_read(folder: Path) -> None:
    with pytest.raises(UnavailableError):
        asyncio.run(ring(folder).authenticate("sk_any"))
    keys_path(folder).write_text("{")
    with pytest.raises(UnavailableError):
        asyncio.run(ring(folder).authenticate("sk_any"))


def test_the_last_good_copy_serves_when_a_refresh_fails(folder: Path) -> None:
    key, secret = local_admin(folder).create("anna")

    async def scenario() -> None:
        keys = ring(folder)
        assert await keys.authenticate(secret) == key
        keys_path(folder).write_text("half a fi")
        assert await keys.authenticate(secret) == key
        keys_path(folder).unlink()
        assert await keys.authenticate(secret) == key

    asyncio.run(scenario())


def test_an_old_copy_is_not_used_while_another_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy serves for its refresh time, and for one more while someone reads the list again."""
    now = 100.0
    monkeypatch.setattr(auth, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    admin = local_admin(folder)
    key, secret = admin.create("anna")
    reading, released = threading.Event(), threading.Event()
    released.set()

    class Slow(KeyFile):
        def read(self) -> bytes:
            data = super().read()
            reading.set()
            assert released.wait(10)
            return data

    async def scenario() -> None:
        nonlocal now
        keys = KeyRing(Slow(keys_path(folder)), ttl=1.0)
        assert await keys.authenticate(secret) == key
        admin.revoke(key.id)
        reading.clear()
        released.clear()
        now += 1.9
        first = asyncio.create_task(keys.authenticate(secret))
        await asyncio.to_thread(reading.wait)
        assert await keys.authenticate(secret) == key
        now += 0.2
        second = asyncio.create_task(keys.authenticate(secret))
        await asyncio.sleep(0)
        assert not second.done()
        released.set()
        for refused in (first, second):
            with pytest.raises(UnauthenticatedError):
                await refused

    asyncio.run(scenario())


def test_an_empty_list_lets_no_one_in(folder: Path) -> None:
    keys_path(folder).write_bytes(dump_keys([]))
    with pytest.raises(UnauthenticatedError):
        asyncio.run(ring(folder).authenticate("sk_any"))


@pytest.mark.parametrize(
    "change",
    [
        {"scopes": ["admin"]},
        {"scopes": []},
        {"digest": "short"},
        {"requests_per_minute": -1},
        {"requests_per_minute": "many"},
        {"expires": "tomorrow"},
        {"surprise": 1},
    ],
)
def test_a_list_that_does_not_add_up_is_refused_whole(folder: Path, change: dict[str, object]) -> None:
    local_admin(folder).create("anna")
    document = json.loads(keys_path(folder).read_text())
    document["keys"][0] |= change
    with pytest.raises(ValueError, match=r"."):
        parse_keys(json.dumps(document).encode())


def test_bad_settings_make_no_key(folder: Path) -> None:
    admin = local_admin(folder)
    for options in ({"scopes": ("root",)}, {"requests_per_minute": -3}):
        with pytest.raises(ValueError, match=r"."):
            admin.create("x", **options)  # type: ignore[arg-type]
    assert admin.keys() == ()


def test_calls_are_counted_by_key_and_policy() -> None:
    limiter = RateLimiter()
    for left in (1, 0):
        allowance = limiter.hit("work", "a", 2)
        assert allowance.remaining == left
        assert allowance.headers()["RateLimit-Policy"] == '"work";q=2;w=60'
    with pytest.raises(RateLimitedError) as refused:
        limiter.hit("work", "a", 2)
    assert 0 < (refused.value.retry_after or 0) <= 60
    limiter.hit("work", "b", 2)
    limiter.hit("reads", "a", 2)
    with pytest.raises(RateLimitedError):
        limiter.hit("work", "c", 0)


def test_a_clock_that_jumps_back_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = RateLimiter()
    limiter.hit("work", "a", 1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 7200)
    assert limiter.hit("work", "a", 1).remaining == 0
    with pytest.raises(RateLimitedError):
        limiter.hit("work", "a", 1)
