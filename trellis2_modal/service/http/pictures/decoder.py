"""Opens pictures with Pillow in a process: `python -m trellis2_modal.service.http.pictures.decoder`.

No pixels are decoded; that is the worker's part. What `structure` let through may still upset a
decoder, and here it upsets no more than this process.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings

from PIL import Image

from ....protocol.limits import IMAGE_MEDIA_TYPES
from .child_process import BAD, OK, claim_stdout, limit_memory, serve_frames

logger = logging.getLogger(__name__)

MEMORY = 2 << 30


def open_picture(data: bytes) -> tuple[bytes, bytes]:
    """Status, and format and size as text."""
    try:
        with Image.open(io.BytesIO(data), formats=tuple(IMAGE_MEDIA_TYPES)) as image:
            return OK, f"{image.format} {image.width} {image.height}".encode()
    except Exception as error:  # a decoder may raise anything over a stranger's bytes
        return BAD, f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:500]


def main() -> int:
    """Serve pictures from stdin until it closes."""
    warnings.simplefilter("ignore")  # our own limit on pixels comes first
    limit_memory(MEMORY)
    Image.init()
    return serve_frames(open_picture, claim_stdout())


if __name__ == "__main__":
    sys.exit(main())
