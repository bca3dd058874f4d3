from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from tests.trellis2_modal.server import others_can_open, picture, wait_for
from trellis2_modal.cli import COMMANDS, main
from trellis2_modal.jobs.locks import FileLock
from trellis2_modal.service.auth import keys_path
from trellis2_modal.service.config import BUNDLED_WEIGHTS
from trellis2_modal.service.http.server import ensure_first_key
from trellis2_modal.sockets import listen


def keys(data_dir: Path, *arguments: str) -> str:
    result = CliRunner().invoke(main, ["keys", "--data-dir", str(data_dir), *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_help_lists_what_there_is_without_importing_it() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from trellis2_modal.cli import main;"
        "out = CliRunner().invoke(main, ['--help']).output; assert 'serve' in out and 'doctor' in out;"
        "assert not {'torch', 'fastapi', 'gradio', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("before", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_yield_while_they_wait_unless_told_otherwise(before: str | None, expected: str) -> None:
    code = (
        "import os; from click.testing import CliRunner; from trellis2_modal.cli import main;"
        "CliRunner().invoke(main, ['keys', '--help']); print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if before is None else {"OMP_WAIT_POLICY": before}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert done.stdout.decode().strip() == expected


def test_every_listed_command_exists_as_a_module() -> None:
    for name in main.list_commands(None):  # type: ignore[arg-type]
        command = main.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert command.help
        assert COMMANDS[name]


def test_a_key_is_made_listed_rotated_and_revoked(tmp_path: Path) -> None:
    secret = keys(tmp_path, "create", "anna", "--scope", "generate", "--days", "3").strip()
    assert secret.startswith("sk_")
    assert secret not in keys_path(tmp_path).read_text()
    (row,) = json.loads(keys(tmp_path, "list", "--json"))
    assert (row["name"], row["scopes"], row["state"]) == ("anna", ["generate"], "active")
    rotated = keys(tmp_path, "rotate", row["id"], "--overlap-hours", "0").strip()
    assert rotated != secret
    assert [r["state"] for r in json.loads(keys(tmp_path, "list", "--json"))] == ["expired", "active"]
    keys(tmp_path, "revoke", json.loads(keys(tmp_path, "list", "--json"))[1]["id"])
    assert "revoked" in keys(tmp_path, "list")
    assert secret not in keys(tmp_path, "list")


def test_an_unknown_key_is_an_error_that_helps(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["keys", "--data-dir", str(tmp_path), "revoke", "key_x"])
    assert result.exit_code != 0
    assert "keys list" in result.output


def test_doctor_tells_backends_and_service() -> None:
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["packages"]["numpy"] != "not installed"
    assert "accelerator" in report["machine"] or report["machine"]["device"] == "cuda"
    assert "attention" in json.dumps(report["trellis2.backends"])
    assert report["o_voxel.backends"]
    assert report["service"]["data folder"]


def test_doctor_ends_in_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRELLIS2_HOME", str(tmp_path))
    monkeypatch.setenv("TRELLIS2_URL", "http://127.0.0.1:9")
    verdict = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["verdict"]
    assert verdict["weights whole"] == "yes"
    assert verdict["small model"].startswith("yes, a generation takes about")
    assert verdict["GPU model"].startswith(("yes", "no: "))
    assert "cannot be used" in verdict["saved service"]

    weights = tmp_path / "weights"
    shutil.copytree(BUNDLED_WEIGHTS, weights)
    cut = sorted(weights.rglob("*.safetensors"))[0]
    cut.write_bytes(cut.read_bytes()[:-1])
    monkeypatch.setenv("TRELLIS2_WEIGHTS", str(weights))
    verdict = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["verdict"]
    assert cut.name in verdict["weights whole"]
    assert verdict["small model"].startswith("no: ")


def test_doctor_names_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRELLIS2_QUEUE_LIMIT", "many")
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    assert "TRELLIS2_QUEUE_LIMIT='many'" in json.loads(result.stdout)["service"]["settings"]


def test_serve_makes_a_key_listens_and_stops(tmp_path: Path) -> None:
    """With weights that are not there: the server runs, says so in /health, and stops when told."""
    command = [sys.executable, "-m", "trellis2_modal", "serve", "--port", "0", "--weights", "nowhere/at-all"]
    env = dict(os.environ, HF_HUB_OFFLINE="1")
    process = subprocess.Popen(
        [*command, "--data-dir", str(tmp_path), "--device", "cpu", "--json-logs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=env,
    )
    assert process.stdout is not None
    try:
        told = "".join(process.stdout.readline() for _ in range(4))
        found = re.search(r"Listening on (http://127\.0\.0\.1:\d+)", told)
        assert found, told
        key = (tmp_path / "first-key.txt").read_text().strip()
        assert str(tmp_path / "first-key.txt") in told
        assert key not in told
        assert "/docs" in told
        url = found[1]
        wait_for(lambda: _health(url) == "degraded", "the bad news about the weights", 60)
        with httpx.Client(base_url=url, headers={"X-API-Key": key}) as client:
            assert client.get("/usage").json()["name"] == "this machine"
            assert client.post("/jobs", files={"image": picture()}).status_code == 503
        assert sys.platform == "win32" or others_can_open(tmp_path) == []
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()
    assert process.returncode in (0, -signal.SIGTERM)


def serve(*arguments: str, **env: str) -> str:
    """What a server that cannot start says; it has to be short and without a traceback."""
    result = CliRunner().invoke(main, ["serve", *arguments], env=env)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Error: " in result.output
    return str(result.output)


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trellis2_modal.service.http.server.configure_logging", lambda as_json: None)
    monkeypatch.setattr("trellis2_modal.jobs.local.assembly.SERVER_LOCK_TIMEOUT", 0.1)
    folder = str(tmp_path / "data")
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1:{port}" in serve("--port", port, "--data-dir", folder)
    with FileLock(tmp_path / "data" / "server.lock"):
        said = serve("--port", "0", "--data-dir", folder)
        assert f"is held by process {os.getpid()}" in said
    (tmp_path / "file").write_text("")
    assert "cannot be used" in serve("--data-dir", str(tmp_path / "file" / "below"))
    keys_path(tmp_path / "data").write_text("{")
    assert "is not a key list" in serve("--data-dir", folder)
    assert "TRELLIS2_QUEUE_LIMIT" in serve("--data-dir", folder, TRELLIS2_QUEUE_LIMIT="many")


def test_a_lost_first_key_is_not_promised(tmp_path: Path) -> None:
    path = ensure_first_key(tmp_path)
    assert path is not None
    assert ensure_first_key(tmp_path) == path
    path.unlink()
    assert ensure_first_key(tmp_path) is None


def _health(url: str) -> str | None:
    try:
        return str(httpx.get(url + "/health").json()["status"])
    except httpx.TransportError:
        return None


@pytest.mark.parametrize("variable", ["TRELLIS2_QUEUE_LIMIT", "TRELLIS2_METRICS"])
def test_a_setting_that_is_not_one_is_named(variable: str) -> None:
    from trellis2_modal.service.config import Settings

    assert Settings.from_env({"TRELLIS2_QUEUE_LIMIT": "5", "TRELLIS2_METRICS": "true"}).queue_limit == 5
    assert Settings.from_env({"TRELLIS2_CORS_ORIGINS": "https://a, https://b"}).cors_origins == (
        "https://a",
        "https://b",
    )
    with pytest.raises(ValueError, match=variable):
        Settings.from_env({variable: "perhaps"})
