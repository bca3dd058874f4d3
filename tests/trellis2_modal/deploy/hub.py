"""A hub whose repositories are folders: digests as the real one gives them, and failures on demand."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from trellis2_modal.service.deploy.weights.hub import RemoteFile, Snapshot
from trellis2_modal.service.deploy.weights.manifest import WeightsError

SMALL = 100_000
"""Files above this are kept apart by the hub, which then knows their SHA-256."""


class FolderHub:
    """`root/owner/repo`. `damaged` files arrive with a flipped byte; `cut_after` downloads are the most."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.downloads: list[str] = []
        self.damaged: set[str] = set()
        self.cut_after: int | None = None

    def snapshot(self, repo: str, revision: str) -> Snapshot:
        folder = self.root / repo
        if not folder.is_dir():
            raise WeightsError(f"there is no repository {repo}")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return Snapshot(repo, f"commit-of-{revision}", tuple(remote(path, folder) for path in files))

    def download(self, repo: str, commit: str, path: str, target: Path) -> None:
        if self.cut_after is not None and len(self.downloads) >= self.cut_after:
            raise WeightsError("the hub cannot be reached; run again")
        self.downloads.append(f"{repo}/{path}")
        shutil.copyfile(self.root / repo / path, target)
        if path in self.damaged:
            data = bytearray(target.read_bytes())
            data[-1] ^= 1
            target.write_bytes(data)


def remote(path: Path, folder: Path) -> RemoteFile:
    data = path.read_bytes()
    name = path.relative_to(folder).as_posix()
    if len(data) > SMALL:
        return RemoteFile(name, len(data), sha256=hashlib.sha256(data).hexdigest())
    return RemoteFile(name, len(data), git_sha1=hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest())
