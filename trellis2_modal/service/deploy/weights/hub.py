"""The Hugging Face hub as the download of weights needs it: what a revision holds, and one file of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...config import ENV_PREFIX, GATED_ENCODER, GATED_REMOVER, OPEN_ENCODER, OPEN_REMOVER, DeploySettings
from .manifest import DOWNLOAD_COMMAND, WeightsError

CHUNK = 8 << 20
UPSAMPLER_REPO = "valeoai/NAF"
"""On GitHub, whose releases hold its weights."""

TIMEOUT = 60.0
RELEASES = "https://api.github.com/repos/{repo}/releases"
OPEN_COPIES = {
    GATED_ENCODER: (f"{ENV_PREFIX}IMAGE_ENCODER", OPEN_ENCODER),
    GATED_REMOVER: (f"{ENV_PREFIX}BACKGROUND_REMOVER", OPEN_REMOVER),
}
"""Gated repository: the setting that chooses another, and an ungated one."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository; small files have git's digest of the blob, large ones their SHA-256."""

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """A repository at a commit."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]

    def file(self, path: str) -> RemoteFile:
        """Raises `WeightsError` when the repository has no such file."""
        for file in self.files:
            if file.path == path:
                return file
        raise WeightsError(
            f"{self.repo} has no {path} at {self.commit[:12]}: "
            f"check {ENV_PREFIX}MODEL and {ENV_PREFIX}REVISION"
        )


class Hub(Protocol):
    """Raises `WeightsError`, whose text says what to do."""

    def snapshot(self, repo: str, revision: str) -> Snapshot: ...

    def download(self, repo: str, commit: str, path: str, target: Path) -> None: ...


class HuggingFaceHub:
    """The real hub, asked with HF_TOKEN where the environment has it."""

    def snapshot(self, repo: str, revision: str) -> Snapshot:
        from huggingface_hub import HfApi

        with explained(repo, revision):
            info = HfApi().model_info(repo, revision=revision, files_metadata=True)
        files = tuple(
            RemoteFile(
                sibling.rfilename,
                sibling.size or 0,
                sibling.lfs.sha256 if sibling.lfs else None,
                None if sibling.lfs else sibling.blob_id,
            )
            for sibling in info.siblings or ()
        )
        return Snapshot(repo, info.sha or revision, files)

    def download(self, repo: str, commit: str, path: str, target: Path) -> None:
        if repo == UPSAMPLER_REPO:
            download_release(repo, path, target)
            return
        from huggingface_hub import hf_hub_download

        # into local disk first: the hub's client writes lock files beside what it downloads
        with tempfile.TemporaryDirectory(prefix="weights-") as folder:
            with explained(repo, commit):
                found = hf_hub_download(repo, path, revision=commit, local_dir=folder)
            shutil.copyfile(found, target)


def download_release(repo: str, name: str, target: Path) -> None:
    """A file of the newest release on GitHub that has it, not yet checked. Raises `WeightsError`."""
    place = f"https://github.com/{repo}/releases"
    try:
        with urllib.request.urlopen(RELEASES.format(repo=repo), timeout=TIMEOUT) as reply:
            releases = json.load(reply)
        found = [a["browser_download_url"] for r in releases for a in r["assets"] if a["name"] == name]
        if not found:
            raise WeightsError(f"{place} holds no {name}")
        with urllib.request.urlopen(found[0], timeout=TIMEOUT) as reply, target.open("wb") as file:
            shutil.copyfileobj(reply, file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{name} cannot be downloaded from {place} ({type(error).__name__}: {error}); try again, or put "
            f"the file at {target.with_suffix('')}"
        ) from error


@contextmanager
def explained(repo: str, revision: str) -> Iterator[None]:
    """Turn the hub's errors into `WeightsError`s that say what to run."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise WeightsError(gated_advice(repo)) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(
            f"{repo} has no revision {revision!r}: set {ENV_PREFIX}REVISION (or that of the part) to a "
            f"commit or branch of https://huggingface.co/{repo}/commits, then run: {DOWNLOAD_COMMAND}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"there is no repository {repo}, or the token may not see it: check {ENV_PREFIX}MODEL, "
            f"{ENV_PREFIX}IMAGE_ENCODER and {ENV_PREFIX}BACKGROUND_REMOVER"
        ) from error
    except Exception as error:  # the client's, its transport's and the file system's have no common base
        raise WeightsError(
            f"the hub cannot be reached for {repo} ({type(error).__name__}: {error}); "
            f"what was downloaded is kept, run again: {DOWNLOAD_COMMAND}"
        ) from error


def gated_advice(repo: str) -> str:
    """What to do about a repository whose licence must be accepted."""
    text = (
        f"{repo} is gated: accept its licence at https://huggingface.co/{repo} with the account of your "
        f"token, and run: modal secret create {DeploySettings().hf_secret} HF_TOKEN=YOUR_TOKEN"
    )
    if repo in OPEN_COPIES:
        variable, other = OPEN_COPIES[repo]
        text += f"; or choose an ungated one: {variable}={other}"
    return text


def check_file(path: Path, wanted: RemoteFile) -> str:
    """SHA-256 of a file that is what was wanted; raises `WeightsError` otherwise."""
    size = path.stat().st_size
    if wanted.size and size != wanted.size:
        raise WeightsError(
            f"{path.name} has {size} bytes, the hub has {wanted.size}; run again: {DOWNLOAD_COMMAND}"
        )
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            if wanted.git_sha1:
                blob.update(chunk)
    for kind, found, expected in (
        ("SHA-256", sha256.hexdigest(), wanted.sha256),
        ("git", blob.hexdigest(), wanted.git_sha1),
    ):
        if expected and found != expected:
            raise WeightsError(
                f"{path.name} has the {kind} digest {found[:12]}, {expected[:12]} was expected: damaged on "
                f"the way, or replaced on the hub; run again: {DOWNLOAD_COMMAND}"
            )
    return sha256.hexdigest()
