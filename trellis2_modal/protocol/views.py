"""Several pictures of one object as one payload of a job: a stored (not compressed) zip, written by the
gateway.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

MAX_VIEWS = 8
SIGNATURE = b"PK\x03\x04"
CAMERAS = "cameras.json"

Direction = Literal["front", "left", "back", "right"]
Matrix: TypeAlias = list[list[float]]
ViewCamera: TypeAlias = Direction | Matrix
"""The object's own side that a picture shows, or a camera-to-world matrix, 4x4, Z up."""


@dataclass(frozen=True)
class Views:
    """Encoded pictures, where each was taken from (None: not said), and the width of the view in degrees."""

    pictures: Sequence[bytes]
    cameras: Sequence[ViewCamera] | None = None
    fov: float | None = None

    @property
    def plain(self) -> bool:
        """Whether this is one picture and nothing else, whose bytes are the payload."""
        return len(self.pictures) == 1 and self.cameras is None and self.fov is None

    def pack(self) -> bytes:
        """The payload of a job."""
        if self.plain:
            return self.pictures[0]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for i, picture in enumerate(self.pictures):
                archive.writestr(_stored(f"{i}"), picture)
            archive.writestr(_stored(CAMERAS), json.dumps({"cameras": self.cameras, "fov": self.fov}))
        return buffer.getvalue()


def _stored(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name)  # of a fixed date: equal requests are equal bytes


def unpack_views(payload: bytes) -> Views:
    """What `Views.pack` was called on. Only for payloads that the gateway has made."""
    if not payload.startswith(SIGNATURE):
        return Views([payload])
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        said: dict[str, Any] = json.loads(archive.read(CAMERAS))
        pictures = [archive.read(str(i)) for i in range(len(archive.namelist()) - 1)]
    return Views(pictures, said["cameras"], said["fov"])
