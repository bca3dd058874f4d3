"""Pictures and meshes as they arrive: read by the app itself, so that what cannot be used gets a sentence.

The page sends each file as it is to `POST /received`. What can be used is kept under the app's cache by a
name that cannot be guessed, in a form that the service takes.
"""

from __future__ import annotations

import io
import re
import secrets
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ....durable import write_atomically
from ....protocol.errors import InvalidImageError, InvalidMeshError, TooLargeError
from ....protocol.limits import MAX_IMAGE_BYTES, MAX_MESH_BYTES, MIB, MIN_IMAGE_SIDE
from ....protocol.meshes import MeshKind, check_mesh, mesh_kind
from ...inputs.pictures import picture_format

CACHE = "cache"
FOLDER = f"{CACHE}/received"
"""Under the app's data folder; emptied when the app starts."""

MAX_RECEIVED_BYTES = 100 * MIB
LARGE_SIDE = 4096
"""Larger pictures are scaled down: a model sees 1024 pixels, and history and previews decode them often."""

TRANSPARENT_SIDE = 2048
"""The same for pictures with transparency, which only PNG keeps without loss."""

MOST_KEPT = 200
TOKEN = re.compile(r"[0-9a-f]{24}")

KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "a PDF document. Save the page as PNG or JPEG"),
    (0, b"PK\x03\x04", "a ZIP archive or an office document. Unpack it, or save the picture alone"),
    (0, b"Rar!", "a RAR archive. Unpack it"),
    (0, b"7z\xbc\xaf", "a 7z archive. Unpack it"),
    (4, b"ftypqt", "a video. Take a still picture from it"),
    (4, b"ftypisom", "a video. Take a still picture from it"),
    (4, b"ftypmp4", "a video. Take a still picture from it"),
    (4, b"ftypM4V", "a video. Take a still picture from it"),
    (0, b"\x1aE\xdf\xa3", "a video. Take a still picture from it"),
)
"""What else people drop: offset and bytes by which it is known, what it is and what to do."""

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@dataclass(frozen=True)
class Received:
    """A picture or mesh that can be used: its file, a picture's pixels, and what was done to it."""

    token: str
    path: Path
    width: int = 0
    height: int = 0
    notes: tuple[str, ...] = field(default=())
    kind: str = "picture"


class PictureTray:
    """The pictures and meshes that tabs have received, under a folder; the newest `MOST_KEPT` stay."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._decoding = threading.Lock()

    def receive(self, data: bytes, name: str, slot: str = "") -> Received:
        """Keep a picture, or a mesh, whichever it is; `slot` is where it was dropped.

        Raises `InvalidImageError` or `InvalidMeshError`, whose detail is a sentence, or OSError.
        """
        title = clean_name(name)
        if kind := usable_mesh(data, title, slot == "mesh"):
            token, path = self._keep(data, f"{Path(title).stem}.{kind}")
            return Received(token, path, kind="mesh")
        with self._decoding:  # one large picture at a time
            encoded, size, notes = usable(data, title)
        ending = {"JPEG": ".jpg", "WEBP": ".webp"}.get(picture_format(encoded) or "", ".png")
        token, path = self._keep(encoded, Path(title).stem + ending)
        return Received(token, path, *size, notes)

    def _keep(self, data: bytes, name: str) -> tuple[str, Path]:
        token = secrets.token_hex(12)
        folder = self.root / token
        folder.mkdir(parents=True)
        path = write_atomically(folder / name, data)
        self._tidy()
        return token, path

    def path(self, token: str) -> Path | None:
        """The file that was received under a token, while it is kept."""
        if not TOKEN.fullmatch(token) or not (self.root / token).is_dir():
            return None
        return next((file for file in (self.root / token).iterdir() if not file.name.startswith(".")), None)

    def _tidy(self) -> None:
        folders = sorted(self.root.iterdir(), key=lambda folder: folder.stat().st_mtime)
        for folder in folders[:-MOST_KEPT]:
            shutil.rmtree(folder, ignore_errors=True)


def address(picture: str | Path) -> str:
    """Where the page finds a received picture."""
    return f"/received/{Path(picture).parent.name}"


def clean_name(name: str) -> str:
    """A file name that is one on every system; pasted pictures and photos without one get a title."""
    plain = re.sub(r"[^\w .()+,&-]", "_", name.replace("\\", "/").rpartition("/")[2]).strip(" .")
    stem, dot, ending = plain.rpartition(".")
    if not dot:
        stem, ending = plain, ""
    return f"{stem[:60].strip() or 'picture'}{dot}{ending[:8]}"


def usable_mesh(data: bytes, name: str, wanted: bool) -> MeshKind | None:
    """The kind of a mesh that can be used; None for what may be a picture, which is also taken where a mesh
    is wanted. Raises `InvalidMeshError`, whose detail is a sentence.
    """
    try:
        mesh_kind(data)
    except InvalidMeshError as error:
        if wanted and picture_format(data) is None:
            raise InvalidMeshError(f"“{name}” {error.errors[0]['message']}.") from error
        return None
    try:
        return check_mesh(data)
    except TooLargeError as error:
        most = MAX_MESH_BYTES // MIB
        raise InvalidMeshError(
            f"“{name}” is larger than {most} MB. Simplify it, or save it without textures: they are not read."
        ) from error
    except InvalidMeshError as error:
        raise InvalidMeshError(f"“{name}” {error.errors[0]['message']}.") from error


def usable(data: bytes, name: str) -> tuple[bytes, tuple[int, int], tuple[str, ...]]:
    """The picture as the service takes it, its width and height, and what was done to it.

    Raises `InvalidImageError`, whose detail is a sentence.
    """
    from trellis2_pictures import UnreadablePictureError, open_picture, to_srgb

    if not data:
        raise refused(f"“{name}” is empty. Save or download it again.")
    if len(data) > MAX_RECEIVED_BYTES:
        raise refused(f"“{name}” is larger than {MAX_RECEIVED_BYTES // MIB} MB. Save it smaller.")
    if what := _other_kind(data):
        raise refused(f"“{name}” is no picture but {what}.")
    try:
        opened = open_picture(data)
    except UnreadablePictureError as error:
        if "too large to decode" in str(error):
            raise refused(f"“{name}” has too many pixels to be opened. Scale it down first.") from error
        raise refused(_unreadable(data, name)) from error
    moving = bool(getattr(opened, "is_animated", False))
    try:
        image = to_srgb(opened)
    except UnreadablePictureError as error:
        raise refused(f"“{name}” is damaged or incomplete. Copy or download it again.") from error
    size = image.size
    if min(size) < MIN_IMAGE_SIDE:
        raise refused(
            f"“{name}” has only {size[0]} × {size[1]} pixels. Use a picture of at least "
            f"{MIN_IMAGE_SIDE} × {MIN_IMAGE_SIDE}; 512 or more is better."
        )
    notes = ["It is animated: its first frame is used."] if moving else []
    too_large = size[0] * size[1] > LARGE_SIDE**2 or max(size) > 2 * LARGE_SIDE
    if not (too_large or moving or len(data) > MAX_IMAGE_BYTES or picture_format(data) is None):
        return data, size, ()
    side = TRANSPARENT_SIDE if image.mode == "RGBA" else LARGE_SIDE
    image.thumbnail((side, side))
    if image.size != size:
        notes.append(f"It was scaled from {size[0]} × {size[1]} to {image.width} × {image.height} pixels.")
    buffer = io.BytesIO()
    if max(image.size) > TRANSPARENT_SIDE:
        image.save(buffer, "JPEG", quality=95)
    else:
        image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue(), image.size, tuple(notes)


def _other_kind(data: bytes) -> str:
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:4096].lower():
        return "an SVG drawing. Export it as PNG"
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page. Save the picture itself"
    return next((what for at, sign, what in KINDS if data[at : at + len(sign)] == sign), "")


def _unreadable(data: bytes, name: str) -> str:
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return (
            f"“{name}” is a HEIC photo, which this installation cannot open. Export it as JPEG, or install "
            "HEIC support: pip install 'trellis2-modal[heif]'"
        )
    if picture_format(data) is not None:
        return f"“{name}” is damaged or incomplete. Copy or download it again."
    return f"“{name}” is no picture that can be opened. Use PNG, JPEG, WebP or GIF."


def refused(sentence: str) -> InvalidImageError:
    return InvalidImageError(sentence)


def make_routes(tray: PictureTray) -> Sequence[Any]:
    """Routes for Starlette: a picture's arrival and its sight."""
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, Response
    from starlette.routing import Route

    async def arrive(request: Request) -> Response:
        name, slot = (request.query_params.get(key, "") for key in ("name", "slot"))
        data = bytearray()
        async for chunk in request.stream():
            if len(data) <= MAX_RECEIVED_BYTES:  # the rest is read and dropped, so that the page is answered
                data += chunk
        try:
            found = await run_in_threadpool(tray.receive, bytes(data), name, slot)
        except (InvalidImageError, InvalidMeshError) as error:
            return JSONResponse({"said": error.detail}, 400)
        except OSError as error:
            return JSONResponse({"said": f"The file could not be kept here: {error.strerror or error}."}, 507)
        return JSONResponse({"token": found.token, "notes": found.notes, "kind": found.kind})

    def picture(request: Request) -> Response:
        path = tray.path(request.path_params["token"])
        headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return Response("not found", 404) if path is None else FileResponse(path, headers=headers)

    return [
        Route("/received", arrive, methods=["POST"]),
        Route("/received/{token}", picture),
    ]
