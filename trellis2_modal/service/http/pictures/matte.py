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
from ....protocol.requests import MatteSettings
from .child_process import BAD, OK, ChildGone, ChildProcess, claim_stdout, serve_frames

logger = logging.getLogger(__name__)

CHEAP_REMOVERS = {"GrabCutMatting": ("cv2",), "SmallMatting": ("cv2", "torch")}
"""Background removers that need no accelerator, and the packages that they need."""

GRABCUT: dict[str, Any] = {"name": "GrabCutMatting", "args": {}}
"""What a gateway without weights previews with; the weights' own remover may see the subject better."""

TIMEOUT = 30.0
"""Seconds for one matte."""


@dataclass(frozen=True)
class Matte:
    """PNG (RGBA) of the subject, and what a person should know of the picture."""

    png: bytes
    warnings: list[Notice] = field(default_factory=list)


class Matter(Protocol):
    """Makes mattes for the app."""

    async def matte(self, picture: bytes, asked: MatteSettings, trimap: bytes = b"") -> Matte:
        """The subject cut out; raises `InvalidImageError` or `UnavailableError`."""

    async def close(self) -> None: ...


def cheap_remover(weights: str) -> dict[str, Any] | None:
    """The remover entry of the weights' pipeline config when it is a cheap one that can run here, its network
    by a path that holds anywhere.
    """
    path = Path(weights) / "pipeline.json"
    if not path.exists():
        return None
    entry = json.loads(path.read_text())["args"].get("rembg_model")
    if not isinstance(entry, dict) or entry.get("name") not in CHEAP_REMOVERS:
        return None
    if any(importlib.util.find_spec(package) is None for package in CHEAP_REMOVERS[entry["name"]]):
        return None
    args = dict(entry.get("args") or {})
    if "model_name" in args:
        args["model_name"] = str(path.parent.absolute() / args["model_name"])
    return {"name": entry["name"], "args": args}


class MatteProcess:
    """Mattes from a process of its own; one picture at a time; a stuck or dead process is replaced."""

    def __init__(self, remover: dict[str, Any]) -> None:
        self._child = ChildProcess("trellis2_modal.service.http.pictures.matte", json.dumps(remover))

    async def matte(self, picture: bytes, asked: MatteSettings, trimap: bytes = b"") -> Matte:
        head = json.dumps([asked.model_dump(), len(picture)]).encode() + b"\n"
        try:
            made, reply = await self._child.ask(head + picture + trimap, TIMEOUT)
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
    picture: bytes,
    remover: Any,
    asked: MatteSettings | None = None,
    trimap: bytes = b"",
    notice: Callable[[Any], None] = lambda _: None,
) -> bytes:
    """PNG of the subject with its matte, cropped as the pipeline crops it unless `crop` is False; `notice` is
    told what a person should know.
    """
    from trellis2.conditioning.images import load_image
    from trellis2.conditioning.matting.corrections import Corrections, corrected
    from trellis2.conditioning.matting.matte import (
        BUSY_BACKGROUND,
        choose_subjects,
        has_matte,
        notice_darkness,
    )
    from trellis2.conditioning.preprocess import limit_size, subject_square, with_matte, without_alpha

    asked = asked or MatteSettings.model_validate({})
    image = load_image(picture)
    own = has_matte(image)
    chosen = remover.subjects if asked.subjects == "auto" and not own else asked.subjects
    box = None if asked.box is None else (asked.box[0], asked.box[1], asked.box[2], asked.box[3])
    corrections = Corrections(box, load_image(trimap) if trimap else None, asked.attempt)
    if corrections:
        image = limit_size(image)
        plain, whole = without_alpha(image), image
        image = corrected(plain, lambda: whole if own else remover(plain), corrections, own)
        if asked.subjects == "largest":  # else what was kept by hand stays, without a word
            image = choose_subjects(image, asked.subjects, notice)
    else:
        if not own and not remover.certain(image):
            notice(BUSY_BACKGROUND)
        image = with_matte(image, remover, chosen, notice)
    notice_darkness(image, notice)
    buffer = io.BytesIO()
    if asked.crop:
        image = image.crop(subject_square(image))
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def main() -> int:
    """Serve pictures from stdin until it closes."""
    from trellis2.conditioning.registry import build_background_remover
    from trellis2.errors import InvalidImageError as UnusableImageError

    replies = claim_stdout()
    remover = build_background_remover(json.loads(sys.argv[1]))

    def work(frame: bytes) -> tuple[bytes, bytes]:
        """A line of JSON, the picture and a trimap; a line of JSON with notices, then the matte."""
        head, _, pictures = frame.partition(b"\n")
        asked, size = json.loads(head)
        told: list[Any] = []
        try:
            settings = MatteSettings.model_validate(asked)
            png = cut_out(pictures[:size], remover, settings, pictures[size:], told.append)
            return OK, json.dumps([dataclasses.asdict(notice) for notice in told]).encode() + b"\n" + png
        except UnusableImageError as error:
            return BAD, str(error).encode()
        except Exception:
            logger.exception("matte")
            return BAD, b"the picture cannot be read"

    return serve_frames(work, replies)


if __name__ == "__main__":
    sys.exit(main())
