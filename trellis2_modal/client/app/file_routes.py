"""The app's own addresses: kept files by range, mattes and examples; only to pages of the app itself."""

from __future__ import annotations

import secrets
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..history import ENTRY, History
from .history_view import archived

MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".webp": "image/webp",
    ".glb": "model/gltf-binary",
    ".stl": "model/stl",
    ".zip": "application/zip",
    ".ply": "application/octet-stream",
}
STATIC = Path(__file__).parent / "static"
PRIVATE = (ENTRY, ".lz4")
"""Ends of names that never leave the disk this way: records, states."""

MAX_MATTES = 32


class Mattes:
    """The last few mattes in memory, by a name that cannot be guessed."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, png: bytes) -> str:
        """Keep a matte; returns its address."""
        name = secrets.token_hex(12)
        with self._lock:
            self._kept[name] = png
            while len(self._kept) > MAX_MATTES:
                self._kept.popitem(last=False)
        return f"/matte/{name}"

    def get(self, name: str) -> bytes | None:
        with self._lock:
            return self._kept.get(name)


class _Parts:
    """What was written since the last look, for an archive that is sent while it is made."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None: ...

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def zipped(files: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """An archive of files under names of their own, piece by piece; nothing is compressed twice."""
    parts = _Parts()
    with zipfile.ZipFile(parts, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, path in files:
            with path.open("rb") as source, archive.open(name, "w", force_zip64=True) as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)
                    yield parts.taken()
    yield parts.taken()


def make_routes(history: History, mattes: Mattes, examples: Sequence[Path] = ()) -> list[Any]:
    """Routes for Starlette. States never leave the disk this way."""
    from starlette.requests import Request
    from starlette.responses import FileResponse, Response, StreamingResponse
    from starlette.routing import Route

    def kept(request: Request) -> Response:
        name = request.path_params["name"]
        path = None if name.endswith(PRIVATE) else history.file(request.path_params["entry"], name)
        if path is None:
            return Response("not found", 404)
        headers = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
        media_type = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
        return FileResponse(path, media_type=media_type, headers=headers)

    def matte(request: Request) -> Response:
        png = mattes.get(request.path_params["name"])
        return Response("not found", 404) if png is None else Response(png, media_type="image/png")

    def archive(request: Request) -> Response:
        ids = request.query_params.get("ids", "").split()
        files = archived(history, ids)
        if not files:
            return Response("there is nothing to download", 404)
        headers = {"Content-Disposition": 'attachment; filename="trellis2-assets.zip"'}
        return StreamingResponse(zipped(files), media_type="application/zip", headers=headers)

    pictures = {path.name: path for path in examples}
    scripts = {path.name: path for path in STATIC.iterdir() if path.suffix in (".js", ".svg")}

    def static(request: Request) -> Response:
        path = scripts.get(request.path_params["name"])
        return Response("not found", 404) if path is None else FileResponse(path)

    def example(request: Request) -> Response:
        path = pictures.get(request.path_params["name"])
        return Response("not found", 404) if path is None else FileResponse(path)

    return [
        Route("/kept/{entry}/{name}", kept),
        Route("/history.zip", archive),
        Route("/matte/{name}", matte),
        Route("/example/{name}", example),
        Route("/static/app/{name}", static),
    ]
