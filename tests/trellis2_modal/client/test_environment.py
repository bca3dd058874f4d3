"""Environment variables that httpx cannot use are named, in one line and with an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from trellis2_modal.cli import main
from trellis2_modal.cli.exits import Exit
from trellis2_modal.client.api import Client
from trellis2_modal.client.errors import EnvironmentVariableError
from trellis2_modal.client.http import environment

CASES = [
    ("ALL_PROXY", "socks5://127.0.0.1:1", "pip install socksio"),
    ("HTTPS_PROXY", "foo://proxy", "foo://"),
    ("NO_PROXY", "localhost,fe80::/10", "'fe80::/10'"),
    ("SSL_CERT_FILE", "/no/such/file.pem", "does not exist"),
]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*environment.PROXIES, "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    find = environment.importlib.util.find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr(
        environment.importlib.util,  # type: ignore[attr-defined]
        "find_spec",
        lambda name: None if name == "socksio" else find(name),
    )


@pytest.mark.parametrize(("name", "value", "hint"), CASES)
def test_the_variable_is_named(name: str, value: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(EnvironmentVariableError, match=f"^{name}: ") as caught:
        Client("https://service.example", "sk_test")
    assert hint in caught.value.detail


def test_the_command_says_it_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRELLIS2_HOME", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
    result = CliRunner().invoke(main, ["health", "--url", "https://service.example"])
    assert result.exit_code == Exit.USAGE
    assert "SSL_CERT_FILE: /no/such/file.pem does not exist" in result.output
    assert "Traceback" not in result.output


def test_this_machine_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "foo://proxy")
    Client("http://127.0.0.1:1", "sk_test").close()
