"""Several pictures of one object: in a request, in a job's payload, and from the client."""

from __future__ import annotations

import asyncio
import base64
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from tests.trellis2_modal.server import picture
from trellis2_modal.client import calls
from trellis2_modal.protocol.errors import InvalidRequestError
from trellis2_modal.protocol.requests import GenerateRequest
from trellis2_modal.protocol.views import MAX_VIEWS, Views, unpack_views
from trellis2_modal.service.http.request_parsing import generate_work

EYE = [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_payloads_come_back_and_equal_requests_are_equal_bytes() -> None:
    for given in (
        Views([b"one"], ["front"]),
        Views([b"a", b"b" * 12], [EYE, EYE], 30.0),
        Views([b"a", b"b"]),
    ):
        found = unpack_views(given.pack())
        assert (list(found.pictures), found.cameras, found.fov) == (
            list(given.pictures),
            given.cameras,
            given.fov,
        )
        assert given.pack() == given.pack()
    assert Views([b"\x89PNG"]).pack() == b"\x89PNG"
    assert unpack_views(b"\x89PNG").plain


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "give image, or images"),
        ({"image": "x", "images": ["x"]}, "give image, or images"),
        ({"images": ["x"] * (MAX_VIEWS + 1)}, "at most 8"),
        ({"images": ["x", "y"], "views": ["front"]}, "one for each"),
        ({"images": ["x"], "views": ["top"]}, "front"),
        ({"image": "x", "fov": 0}, "greater than 0"),
        ({"image": "x", "fov": 180}, "less than 180"),
    ],
)
def test_requests_that_cannot_be(body: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        GenerateRequest.model_validate(body)


def test_the_clients_views_reach_the_payload() -> None:
    class Checks:
        async def check_base64(self, text: str) -> Any:
            return SimpleNamespace(data=base64.b64decode(text))

    views = ["front", "back"]
    core: Any = SimpleNamespace(reply=lambda call, model: iter([call]))
    flow = calls.submit(core, [picture(40), picture(50)], {"views": views, "fov": 25.0, "seed": 3}, None)
    call: Any = next(flow)
    assert call.file is None
    body = {name: value for name, value in call.fields.items() if name != "kind"}
    known: Any = SimpleNamespace(pipeline_types=("512",), state="ready")
    work = asyncio.run(generate_work(GenerateRequest.model_validate(body), known, Checks()))  # type: ignore[arg-type]
    assert work.payload is not None
    found = unpack_views(work.payload)
    assert (list(found.pictures), found.cameras, found.fov) == ([picture(40), picture(50)], views, 25.0)
    assert work.settings["seed"] == 3
    plain: Any = next(calls.submit(core, picture(40), {}, None))
    assert plain.file == ("image", picture(40))
    with pytest.raises(InvalidRequestError, match="one for each"):
        next(calls.submit(core, [picture(40), picture(50)], {"views": ["front"]}, None))
