"""The matte of a picture as the model will see it, in a process of its own: cheap, on the CPU.

`MatteProcess` is the server's side, `python -m trellis2_modal.service.http.pictures.matte` the process.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ....protocol.errors import FieldError, InvalidImageError, UnavailableError
from ....protocol.replies import Notice
from ....protocol.requests import Subjects
from .child_process import BAD, OK, ChildGone, ChildProcess, claim_stdout, serve_frames

logger = logging.getLogger(__name__)

CHEAP_REMOVERS = ("GrabCutMatting",)
"""Background removers that need no model and no accelerator."""

GRABCUT: dict[str, Any] = {"name": "GrabCutMatting", "args": {}}
"""What a gateway without weights previews with; the weights' own remover may see the subject better."""

TIMEOUT = 30.0
"""Seconds for one matte."""


@dataclass(frozen=True)
class Matte:
    """PNG (RGBA) of the cropped subject, and what a person should know of the picture."""

    png: bytes
    warnings: list[Notice] = field(default_factory=list)


class Matter(Protocol):
    """Makes mattes for the app."""

    async def matte(self, picture: bytes, subjects: Subjects) -> Matte:
        """The cropped subject; raises `InvalidImageError` or `UnavailableError`."""

    async def close(self) -> None: ...


def cheap_remover(weights: str) -> dict[str, Any] | None:
    """The remover entry of the weights' pipeline config when it is a cheap one that can run here."""
    path = Path(weights) / "pipeline.json"
    if not path.exists() or importlib.util.find_spec("cv2") is None:
        return None
    entry = json.loads(path.read_text())["args"].get("rembg_model")
    return entry if isinstance(entry, dict) and entry.get("name") in CHEAP_REMOVERS else None


class MatteProcess:
    """Mattes from a process of its own; one picture at a time; a stuck or dead process is replaced."""

    def __init__(self, remover: dict[str, Any]) -> None:
        self._child = ChildProcess("trellis2_modal.service.http.pictures.matte", json.dumps(remover))

    async def matte(self, picture: bytes, subjects: Subjects) -> Matte:
        try:
            made, reply = await self._child.ask(subjects.encode() + b"\n" + picture, TIMEOUT)
        except ChildGone as error:
            raise UnavailableError("the matte could not be made; try again", retry_after=5) from error
        if not made:
            text = reply.decode()
            raise InvalidImageError(text, errors=[FieldError("image", text)])
        warnings, _, png = reply.partition(b"\n")
        return Matte(png, [Notice.model_validate(notice) for notice in json.loads(warnings)])

    async def close(self) -> None:
        await self._child.end()


def cut_out(
    picture: bytes, remover: Any, subjects: Subjects = "auto", notice: Callable[[Any], None] = lambda _: None
) -> bytes:
    """PNG of the subject with its matte, cropped as the pipeline crops it; `notice` is told what a person
    should know.
    """
    from trellis2.conditioning.images import load_image
    from trellis2.conditioning.matting.matte import has_matte, notice_darkness
    from trellis2.conditioning.preprocess import subject_square, with_matte

    image = load_image(picture)
    chosen = remover.subjects if subjects == "auto" and not has_matte(image) else subjects
    image = with_matte(image, remover, chosen, notice)
    notice_darkness(image, notice)
    buffer = io.BytesIO()
    image.crop(subject_square(image)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def main() -> int:
    """Serve pictures from stdin until it closes."""
    from trellis2.conditioning.registry import build_background_remover
    from trellis2.errors import InvalidImageError as UnusableImageError

    replies = claim_stdout()
    remover = build_background_remover(json.loads(sys.argv[1]))

    def work(frame: bytes) -> tuple[bytes, bytes]:
        """A line with the subjects, then the picture; a line of JSON with notices, then the matte."""
        subjects, _, picture = frame.partition(b"\n")
        told: list[Any] = []
        try:
            png = cut_out(picture, remover, subjects.decode(), told.append)  # type: ignore[arg-type]
            return OK, json.dumps([dataclasses.asdict(notice) for notice in told]).encode() + b"\n" + png
        except UnusableImageError as error:
            return BAD, str(error).encode()
        except Exception:
            logger.exception("matte")
            return BAD, b"the picture cannot be read"

    return serve_frames(work, replies)


if __name__ == "__main__":
    sys.exit(main())
