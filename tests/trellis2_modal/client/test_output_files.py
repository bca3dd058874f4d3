"""Where files are written to: whole or not at all, links followed, pipes and devices never replaced."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trellis2_modal.cli.asset import STDOUT, check_writable, format_of, write
from trellis2_modal.cli.exits import WriteError
from trellis2_modal.durable import write_atomically

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes, links and umasks of POSIX")


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"data" * 50_000)
    reader.join(60)
    assert got == [b"data" * 50_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_is_written_to_and_stays_a_device() -> None:
    write_atomically("/dev/null", b"data")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "asset.glb", tmp_path / "link.glb"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize(("umask", "mode"), [("002", 0o664), ("077", 0o600)])
def test_a_new_file_has_what_the_umask_allows(tmp_path: Path, umask: str, mode: int) -> None:
    code = (
        f"import os, sys; os.umask(0o{umask})\n"
        "from trellis2_modal.durable import write_atomically\n"
        "write_atomically(sys.argv[1], b'data')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "new")], check=True)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode


def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "asset.glb"
    file.write_bytes(b"old")
    file.chmod(0o640)
    write_atomically(file, b"new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.read_bytes() == b"new"


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what was synced")
def test_a_file_and_its_name_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        sync(handle)
        told.append("folder" if os.readlink(f"/proc/self/fd/{handle}") == str(tmp_path) else "file")

    def replaced(old: str, new: Path) -> None:
        replace(old, new)
        told.append("rename")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_atomically(tmp_path / "asset.glb", b"new")
    assert told == ["file", "rename", "folder"]


def test_a_missing_folder_is_told_before_the_work_and_never_made(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"there is no folder .*typo"):
        check_writable(tmp_path / "typo" / "asset.glb")
    assert not (tmp_path / "typo").exists()


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    check_writable(STDOUT, None)
    assert format_of(STDOUT, None) == "glb"
    write(STDOUT, b"glTF")
    assert capfdbinary.readouterr().out == b"glTF"


def test_a_full_disk_names_the_file() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with pytest.raises(WriteError, match="/dev/full: No space left"):
        write(Path("/dev/full"), b"data")
