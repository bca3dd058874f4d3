"""Pictures of one object, what is said of each, and all that a job is given as one payload."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator

from .errors import FieldError, InvalidRequestError

SIGNATURE = b"PK\x03\x04"
OTHERS = ("mesh", "state")
MAX_VIEWS = 8


def _camera(value: Any) -> Any:
    """What is wrong with a camera in words: a union's own errors name each of its members."""
    from trellis2_pictures.cameras import check_direction, rigid_matrix  # with Pillow: not at import

    if isinstance(value, str):
        return check_direction(value)
    return rigid_matrix(value).tolist()


Direction = Literal["front", "left", "back", "right"]
Matrix: TypeAlias = list[list[float]]
ViewCamera: TypeAlias = Annotated[Direction | Matrix, BeforeValidator(_camera)]
"""The object's own side that a picture shows, or a camera-to-world matrix, 4x4, Z up."""


def views_of_text(text: str) -> list[Any]:
    """Views as a form or a command line has them: `front,left`, or JSON."""
    if not text.lstrip().startswith("["):
        return [name.strip() for name in text.split(",")]
    try:
        found: list[Any] = json.loads(text)
        return found
    except (ValueError, RecursionError) as error:
        message = "is neither names with commas between them nor JSON"
        raise InvalidRequestError(f"views {message}", errors=[FieldError("views", message)]) from error


def check_counts(pictures: int, views: Sequence[Any] | None) -> None:
    """Raise `InvalidRequestError` unless there are 1 to 8 pictures, and a view for each or none at all."""
    if not 1 <= pictures <= MAX_VIEWS:
        message = f"{pictures} pictures: at least 1 and at most {MAX_VIEWS} are taken"
        raise InvalidRequestError(message, errors=[FieldError("images", message)])
    if views is not None and len(views) != pictures:
        message = f"must say where each picture was taken from: {pictures} pictures, {len(views)} views"
        raise InvalidRequestError(f"views {message}", errors=[FieldError("views", message)])


@dataclass(frozen=True)
class Inputs:
    """What a job is given: encoded pictures, and beside them a mesh file or a compressed state."""

    pictures: Sequence[bytes]
    mesh: bytes | None = None
    state: bytes | None = None


def pack_inputs(inputs: Inputs) -> bytes:
    """The payload of a job: the bytes of one encoded picture alone, else a stored (not compressed) zip."""
    others = {name: data for name in OTHERS if (data := getattr(inputs, name)) is not None}
    if len(inputs.pictures) == 1 and not others:
        return inputs.pictures[0]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        members = {str(i): picture for i, picture in enumerate(inputs.pictures)} | others
        for name, data in members.items():  # with a fixed date: equal requests are equal bytes
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def unpack_inputs(payload: bytes) -> Inputs:
    """What `pack_inputs` was called with. Only for payloads that the gateway has made."""
    if not payload.startswith(SIGNATURE):
        return Inputs([payload])
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    others = {name: found.pop(name) for name in OTHERS if name in found}
    return Inputs([found[str(i)] for i in range(len(found))], **others)
