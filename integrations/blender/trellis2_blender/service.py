"""The service as an add-on needs it: a picture to the bytes of a GLB, with the standard library alone."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

POLL = 1.0
TIMEOUT = 60.0
TRIES = 5
MAX_REPLY = 1 << 30

Report = Callable[[str, float], None]
"""Hears words for a person, and how far the job is, 0 to 1."""


class ServiceProblemError(Exception):
    """What went wrong, in words for a person."""


class CancelledError(Exception):
    """The person wants it to stop."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key goes to the address that was set, and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def _quiet(words: str, done: float) -> None:
    """Nobody listens."""


class Service:
    """One service, by its address and a key of it."""

    def __init__(self, url: str, key: str, poll: float = POLL) -> None:
        self._url = url.strip().rstrip("/")
        if urlsplit(self._url).scheme not in ("http", "https"):
            raise ServiceProblemError(f"{url!r} is not an address such as https://example.modal.run")
        if not key.strip().isascii() or not key.strip():
            raise ServiceProblemError("Set an API key in the add-on's preferences")
        self._key, self._poll = key.strip(), poll
        self._http = urllib.request.build_opener(_NoRedirects())

    def make(
        self,
        picture: Path,
        generate: dict[str, object],
        extract: dict[str, object],
        report: Report = _quiet,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> bytes:
        """The GLB of a picture. Raises `ServiceProblemError`, or `CancelledError` after stopping the job."""
        fields = {"kind": "generate", "preview": "none", **generate}
        job = self._submit(*_form(fields, {"image": _read(picture)}))
        self._wait(job, "Generating", report, cancelled)
        body = json.dumps({"kind": "extract", "job": job, "format": "glb", **extract}).encode()
        file = self._submit(body, "application/json")
        self._wait(file, "Making the file", report, cancelled)
        return self._call("GET", f"/jobs/{file}/glb")

    def texture(
        self,
        mesh: Path,
        picture: Path,
        settings: dict[str, object],
        report: Report = _quiet,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> bytes:
        """The GLB of a mesh file with the textures that a picture shows. Raises as `make` does."""
        fields = {"kind": "texture", "preview": "none", **settings}
        job = self._submit(*_form(fields, {"mesh": _read(mesh), "image": _read(picture)}))
        self._wait(job, "Painting", report, cancelled)
        return self._call("GET", f"/jobs/{job}/glb")

    def _submit(self, body: bytes, media_type: str) -> str:
        headers = {"Content-Type": media_type, "Idempotency-Key": str(uuid.uuid4())}
        return str(json.loads(self._call("POST", "/jobs", body, headers))["id"])

    def _wait(self, job: str, what: str, report: Report, cancelled: Callable[[], bool]) -> None:
        while True:
            found = json.loads(self._call("GET", f"/jobs/{job}"))
            status, progress = found["status"], found.get("progress") or {}
            if status == "finished":
                return
            if status not in ("queued", "running"):
                problem = found.get("problem") or {}
                raise ServiceProblemError(problem.get("detail") or f"the job was {status}")
            if cancelled():
                self._call("DELETE", f"/jobs/{job}")
                raise CancelledError
            stage = str(progress.get("stage", status)).replace("_", " ")
            report(f"{what}: {stage}", progress.get("step", 0) / max(1, progress.get("steps", 1)))
            time.sleep(self._poll)

    def _call(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        """The reply's body; a service that is busy or starting is tried again."""
        sent = {"X-API-Key": self._key, "User-Agent": "trellis2-blender", **(headers or {})}
        for attempt in range(1, TRIES + 1):
            request = urllib.request.Request(self._url + path, body, sent, method=method)
            try:
                with self._http.open(request, timeout=TIMEOUT) as reply:
                    found: bytes = reply.read(MAX_REPLY)
                    return found
            except urllib.error.HTTPError as error:
                with error:
                    words, wait = _problem(error.read(65536)), error.headers.get("Retry-After", "")
                if error.code not in (429, 503) or attempt == TRIES:
                    raise ServiceProblemError(words or f"the service answers {error.code}") from error
                time.sleep(min(30.0, float(wait) if wait.isdigit() else 2.0))
            except OSError as error:  # no connection, or it broke: a submission carries its key
                if attempt == TRIES:
                    raise ServiceProblemError(f"no answer from {self._url}: {error}") from error
                time.sleep(min(1.0, self._poll) * attempt)
        raise AssertionError("the last try returns or raises")


def _problem(body: bytes) -> str:
    """The `detail` of a problem document; empty for another reply."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServiceProblemError(f"{path}: {error.strerror or error}") from error


def _form(fields: dict[str, object], files: dict[str, bytes]) -> tuple[bytes, str]:
    """A multipart body and its media type."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{_text(value)}\r\n'.encode()
        for key, value in fields.items()
    ]
    for name, data in files.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        parts += [head.encode(), b"Content-Type: application/octet-stream\r\n\r\n", data, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
