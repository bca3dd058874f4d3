"""Keys of a deployment: on a volume, through the API, and from the command line."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner, Result
from modal import exception as modal_errors

from tests.trellis2_modal.deploy.volume import MemoryVolume
from trellis2_modal.cli import main
from trellis2_modal.protocol.errors import UnauthenticatedError, UnavailableError
from trellis2_modal.service.auth import KeyAdmin, KeyRing
from trellis2_modal.service.deploy import modal_keys
from trellis2_modal.service.deploy.modal_keys import KEYS_FILE, KeysUnreachableError, VolumeKeys


@pytest.fixture
def volume() -> MemoryVolume:
    return MemoryVolume()


@pytest.fixture
def keys(volume: MemoryVolume) -> VolumeKeys:
    return VolumeKeys(volume, "my-data")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, keys: VolumeKeys) -> CliRunner:
    monkeypatch.setattr(modal_keys, "open_keys", lambda settings: keys)
    return CliRunner()


def run(cli: CliRunner, *arguments: str) -> Result:
    return cli.invoke(main, ["keys", "--modal", *arguments])


def test_the_command_line_writes_the_volume(cli: CliRunner, volume: MemoryVolume, keys: VolumeKeys) -> None:
    made = run(cli, "create", "alice", "--scope", "generate", "--days", "30")
    assert made.exit_code == 0, made.output
    secret = made.output.strip().splitlines()[-1]
    assert secret.startswith("sk_")
    assert secret not in volume.files[KEYS_FILE].decode()
    found = asyncio.run(KeyRing(keys).authenticate(secret))
    assert (found.name, found.scopes) == ("alice", ("generate",))
    listed = json.loads(run(cli, "list", "--json").output)
    assert [row["name"] for row in listed] == ["alice"]
    turned = run(cli, "rotate", found.id, "--overlap-hours", "0")
    assert turned.exit_code == 0, turned.output
    with pytest.raises(UnauthenticatedError):
        asyncio.run(KeyRing(keys).authenticate(secret))
    newest = asyncio.run(KeyRing(keys).authenticate(turned.output.strip().splitlines()[-1]))
    assert run(cli, "revoke", newest.id).exit_code == 0
    assert run(cli, "revoke", "key_none").exit_code == 1


def test_listing_before_any_key_says_how_to_make_one(cli: CliRunner) -> None:
    listed = run(cli, "list")
    assert listed.exit_code == 0
    assert "keys create" in listed.output


@pytest.mark.parametrize("content", [b"", b"  \n", b"[1]", b"not json", b'{"version": 9, "keys": []}'])
def test_an_unusable_key_file_is_said_and_never_replaced(
    cli: CliRunner, volume: MemoryVolume, content: bytes
) -> None:
    volume.files[KEYS_FILE] = content
    for arguments in (("list",), ("create", "bob")):
        result = run(cli, *arguments)
        assert result.exit_code == 1
        assert "the key list cannot be used" in result.output
    assert volume.files[KEYS_FILE] == content


def test_an_empty_file_says_what_to_run(keys: VolumeKeys, volume: MemoryVolume) -> None:
    volume.files[KEYS_FILE] = b""
    with pytest.raises(
        KeysUnreachableError, match=r"modal volume rm my-data keys.json && trellis2-modal keys"
    ):
        keys.read()


@pytest.mark.parametrize(
    ("failure", "advice"),
    [
        (modal_errors.AuthError("Token missing"), "modal setup"),
        (modal_errors.ConnectionError("no route"), "try again"),
        (OSError("disk"), "try again"),
    ],
)
def test_an_unreachable_volume_says_what_to_run(
    cli: CliRunner, volume: MemoryVolume, failure: Exception, advice: str
) -> None:
    volume.failing = failure
    result = run(cli, "create", "bob")
    assert result.exit_code == 1
    assert advice in result.output


def test_a_missing_volume_or_file_says_what_to_run(keys: VolumeKeys, volume: MemoryVolume) -> None:
    with pytest.raises(FileNotFoundError, match="trellis2-modal keys --modal create"):
        keys.read()
    volume.failing = modal_errors.NotFoundError("no such volume")
    with pytest.raises(FileNotFoundError, match="my-data"):
        keys.read()


def test_the_gateway_reads_seldom_keeps_the_last_good_copy_and_fails_closed(
    keys: VolumeKeys, volume: MemoryVolume
) -> None:
    async def scenario() -> None:
        ring = KeyRing(keys, ttl=0.2)
        with pytest.raises(UnavailableError):  # never read: nobody comes in
            await ring.authenticate("sk_x")
        secret = KeyAdmin(keys).create("alice")[1]
        await asyncio.sleep(0.25)
        volume.reads = 0
        for _ in range(50):
            await ring.authenticate(secret)
        assert volume.reads == 1
        volume.failing = modal_errors.ConnectionError("no route")
        await asyncio.sleep(0.25)
        assert (await ring.authenticate(secret)).name == "alice"
        with pytest.raises(UnauthenticatedError):
            await ring.authenticate("sk_wrong")

    asyncio.run(scenario())
