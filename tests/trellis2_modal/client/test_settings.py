from __future__ import annotations

import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trellis2_modal.client.options import ProxyToken
from trellis2_modal.client.settings import (
    ClientSettings,
    choose_target,
    home,
    load_settings,
    save_settings,
    settings_path,
)
from trellis2_modal.durable import write_atomically

SAVED = ClientSettings("https://a.modal.run", "sk_secret", 2.5)


def test_settings_come_back(data_home: Path) -> None:
    assert load_settings() == ClientSettings()
    save_settings(SAVED)
    assert load_settings() == SAVED
    assert settings_path().parent == data_home == home()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
def test_only_the_owner_can_read_the_key(data_home: Path) -> None:
    old = os.umask(0)
    try:
        path = save_settings(SAVED)
        path.chmod(0o644)
        save_settings(SAVED)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 3, "key": null, "history_limit_gb": -1}', "\x00"])
def test_a_bad_file_locks_nobody_out(data_home: Path, text: str) -> None:
    data_home.mkdir(parents=True)
    settings_path().write_text(text)
    assert load_settings() == ClientSettings()


def test_flags_win_over_the_environment_which_wins_over_the_file(data_home: Path) -> None:
    assert choose_target(env={}).origin == "this machine"
    save_settings(SAVED)
    env = {"TRELLIS2_URL": "https://env.test", "TRELLIS2_API_KEY": "sk_env"}
    chosen = [
        choose_target("https://flag.test", "sk_flag", env),
        choose_target("https://flag.test", None, env),
        choose_target(None, None, env),
        choose_target(None, None, {}),
    ]
    assert [(t.url, t.key, t.origin) for t in chosen] == [
        ("https://flag.test", "sk_flag", "--url"),
        ("https://flag.test", "sk_env", "--url"),
        ("https://env.test", "sk_env", "TRELLIS2_URL"),
        ("https://a.modal.run", "sk_secret", "settings"),
    ]


def test_a_proxy_token_comes_from_the_same_places(data_home: Path) -> None:
    save_settings(replace(SAVED, modal_key="wk-saved", modal_secret="ws-saved"))
    env = {"TRELLIS2_MODAL_KEY": "wk-env", "TRELLIS2_MODAL_SECRET": "ws-env"}
    flag = ProxyToken("wk-flag", "ws-flag")
    chosen = [
        choose_target(env=env, proxy_token=flag),
        choose_target(env=env),
        choose_target(env={}),
        choose_target("https://evil.test", env={}),
    ]
    assert [target.proxy_token.key for target in chosen] == ["wk-flag", "wk-env", "wk-saved", ""]
    assert chosen[2].proxy_token.secret == "ws-saved"
    assert "ws-saved" not in repr(chosen[2].proxy_token)


def test_a_saved_key_never_goes_to_another_address(data_home: Path) -> None:
    save_settings(SAVED)
    assert choose_target("https://evil.test", None, {}).key == ""
    assert choose_target(None, None, {"TRELLIS2_URL": "https://evil.test"}).key == ""
    assert choose_target("https://a.modal.run/", None, {}).key == "sk_secret"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_atomically(tmp_path / "file", b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"], "no leftovers"
