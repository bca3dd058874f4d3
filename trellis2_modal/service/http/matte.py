"""The matte of a picture as the model will see it, in a process of its own: cheap, on the CPU.

`MatteProcess` is the server's side. `python -m trellis2_modal.service.http.matte` is the process: frames of
an 8-byte length and bytes on stdin, a status byte before the bytes on stdout. It ends when stdin closes.
"""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import logging
import os
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ...protocol.errors import FieldError, InvalidImageError, UnavailableError

logger = logging.getLogger(__name__)

CHEAP_REMOVERS = ("GrabCutMatting",)
"""Background removers that need no model and no accelerator."""

TIMEOUT = 30.0
OK, BAD = b"\0", b"\1"


class Matter(Protocol):
    """Makes mattes for the app."""

    async def matte(self, picture: bytes) -> bytes:
        """PNG (RGBA) of the cropped subject; raises `InvalidImageError` or `UnavailableError`."""

    async def close(self) -> None: ...


def cheap_remover(weights: str) -> dict[str, Any] | None:
    """The remover entry of the weights' pipeline config when it is a cheap one that can run here."""
    path = Path(weights) / "pipeline.json"
    if not path.exists() or importlib.util.find_spec("cv2") is None:
        return None
    entry = json.loads(path.read_text())["args"].get("rembg_model")
    return entry if isinstance(entry, dict) and entry.get("name") in CHEAP_REMOVERS else None


class MatteProcess:
    """Starts the process at the first call; one picture at a time; a stuck or dead process is replaced."""

    def __init__(self, remover: dict[str, Any]) -> None:
        self._remover = remover
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def matte(self, picture: bytes) -> bytes:
        async with self._lock:
            try:
                status, reply = await asyncio.wait_for(self._ask(picture), TIMEOUT)
            except (TimeoutError, asyncio.IncompleteReadError, OSError) as error:
                await self._end()
                raise UnavailableError("the matte could not be made; try again", retry_after=5) from error
            except asyncio.CancelledError:
                await self._end()  # its reply would be taken for that of the next picture
                raise
        if status == BAD:
            text = reply.decode()
            raise InvalidImageError(text, errors=[FieldError("image", text)])
        return reply

    async def close(self) -> None:
        await self._end()

    async def _ask(self, picture: bytes) -> tuple[bytes, bytes]:
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(struct.pack("<Q", len(picture)) + picture)
        await process.stdin.drain()
        head = await process.stdout.readexactly(9)
        return head[:1], await process.stdout.readexactly(struct.unpack("<Q", head[1:])[0])

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "trellis2_modal.service.http.matte",
                json.dumps(self._remover),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p)),
            )
        return self._process

    async def _end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._process = None


def cut_out(picture: bytes, remover: Any) -> bytes:
    """PNG of the subject with its matte, cropped as the pipeline crops it."""
    from trellis2.conditioning.images import load_image
    from trellis2.conditioning.preprocess import has_alpha, limit_size, subject_square

    image = load_image(picture)
    own = has_alpha(image)
    image = limit_size(image)
    if not own:
        image = remover(image.convert("RGB"))
    buffer = io.BytesIO()
    image.crop(subject_square(image)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def main() -> int:
    """Serve pictures from stdin until it closes."""
    from trellis2.conditioning.registry import build_background_remover
    from trellis2.errors import InvalidImageError as UnusableImageError

    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    remover = build_background_remover(json.loads(sys.argv[1]))
    while (picture := _read_frame(sys.stdin.buffer)) is not None:
        try:
            status, reply = OK, cut_out(picture, remover)
        except UnusableImageError as error:
            status, reply = BAD, str(error).encode()
        except Exception:
            logger.exception("matte")
            status, reply = BAD, b"the picture cannot be read"
        replies.write(status + struct.pack("<Q", len(reply)) + reply)
        replies.flush()
    return 0


def _read_frame(stream: BinaryIO) -> bytes | None:
    head = stream.read(8)
    if len(head) < 8:
        return None
    size = struct.unpack("<Q", head)[0]
    data = stream.read(size)
    return data if len(data) == size else None


if __name__ == "__main__":
    sys.exit(main())
