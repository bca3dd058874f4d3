"""Cut-outs corrected by hand: the page sends what was painted, the service cuts, the page shows it.

What a person settles on is a picture with transparency, which is generated from as it is.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from ....protocol.errors import InvalidRequestError, ServiceError
from ....protocol.limits import MIB
from ....protocol.requests import MAX_ATTEMPTS
from ...results import Matte
from ..error_messages import explain
from ..file_routes import Mattes
from ..html import sentence
from .matte import judge
from .received import PictureTray

MAX_TRIMAP_BYTES = 4 * MIB
SAME = 0.002
"""Share of the pixels below which two cut-outs look the same."""

CLEAR = 0.2
"""A cut-out that leaves less of the picture clear gets a clear frame: see `matting.matte.has_matte`."""

Cut = Callable[..., Matte | None]


def framed(png: bytes) -> bytes:
    """A whole picture with its cut-out as the service takes it: framed where little else is clear."""
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(png)) as image:
        alpha = np.asarray(image.getchannel("A"))
        if float((alpha < 128).mean()) >= CLEAR:
            return png
        buffer = io.BytesIO()
        ImageOps.expand(image, max(8, max(image.size) // 50), (0, 0, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def judge_whole(found: Matte) -> tuple[str, bool]:
    """A hint about the cut-out of a whole picture, and whether it is a warning."""
    from PIL import Image

    if found.warnings:
        return " ".join(sentence(notice.message) for notice in found.warnings), True
    with Image.open(io.BytesIO(found.png)) as image:
        box = image.getchannel("A").point(lambda value: 255 * (value > 127)).getbbox()
        if box is None:
            return "Nothing is left of the picture. Paint over what is to be kept.", True
        buffer = io.BytesIO()
        image.crop(box).save(buffer, "PNG", compress_level=1)
    return judge(buffer.getvalue())


def alike(one: bytes, other: bytes) -> bool:
    """Whether a person would see no difference between two cut-outs of one picture."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(one)) as a, Image.open(io.BytesIO(other)) as b:
        if a.size != b.size:
            return False
        first, second = (np.asarray(image.getchannel("A")) > 127 for image in (a, b))
    return float((first != second).mean()) < SAME


def cut_out(
    cut: Cut, picture: bytes, trimap: bytes, box: Sequence[float], attempt: int, before: bytes | None
) -> tuple[Matte, int]:
    """The whole picture's cut-out, and the attempt that made it; one that looks like `before` is passed over.

    Raises `ServiceError`.
    """
    said: dict[str, Any] = {"crop": False} | ({"box": list(box)} if box else {})
    for tries in range(MAX_ATTEMPTS):
        found = cut(picture, trimap=trimap or None, attempt=attempt, **said)
        if found is None:
            raise InvalidRequestError("this service shows no cut-outs")
        if before is None or tries == MAX_ATTEMPTS - 1 or not alike(found.png, before):
            return found, attempt
        attempt = attempt % MAX_ATTEMPTS + 1
    raise AssertionError("the last try returns")


def make_routes(tray: PictureTray, mattes: Mattes, cut: Cut, local: Callable[[], bool]) -> Sequence[Any]:
    """The route of the panel in which cut-outs are corrected."""
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def correct(request: Request) -> Response:
        asked = request.query_params
        path = tray.path(request.path_params["token"])
        if path is None:
            return JSONResponse({"said": "The picture is no longer here. Choose it again."}, 404)
        trimap = bytearray()
        async for chunk in request.stream():
            trimap += chunk
            if len(trimap) > MAX_TRIMAP_BYTES:
                return JSONResponse({"said": "That is too much paint. Start over."}, 413)
        try:
            box = [float(edge) for edge in asked.get("box", "").split(",") if edge]
            attempt = (int(asked.get("attempt", "1")) - 1) % MAX_ATTEMPTS + 1
        except ValueError:
            return JSONResponse({"said": "The correction cannot be read. Start over."}, 400)
        before = mattes.get(asked["other"]) if "other" in asked else None
        try:
            found, attempt = await run_in_threadpool(
                cut_out, cut, path.read_bytes(), bytes(trimap), box, attempt, before
            )
            words, doubt = await run_in_threadpool(judge_whole, found)
        except ServiceError as error:
            why = explain(error, local=local())
            return JSONResponse({"said": f"{why.title}. {why.detail}"}, 502)
        name = mattes.add(found.png)
        return JSONResponse({"address": name, "words": words, "doubt": doubt, "attempt": attempt})

    return [Route("/cutout/{token}", correct, methods=["POST"])]
