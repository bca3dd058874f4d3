"""Several pictures of one object: in a request, in a job's payload, and from the client and the command."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from pydantic import ValidationError

from tests.trellis2_modal.server import Running, picture
from trellis2_modal.client.api import Client
from trellis2_modal.client.http import calls
from trellis2_modal.client.inputs.cameras import read_cameras
from trellis2_modal.protocol.errors import InvalidRequestError
from trellis2_modal.protocol.requests import GenerateRequest
from trellis2_modal.protocol.views import MAX_VIEWS, Direction, Inputs, pack_inputs, unpack_inputs
from trellis2_pictures import cameras

EYE = [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
STRETCHED = [[2.0, 0, 0, 0], *EYE[1:]]
PAIR = [picture(40), picture(50)]


def test_the_protocols_names_are_those_of_the_checks() -> None:
    assert get_args(Direction) == tuple(cameras.DIRECTIONS)
    assert MAX_VIEWS == cameras.MAX_VIEWS


def test_payloads_come_back_and_equal_requests_are_equal_bytes() -> None:
    for inputs in (Inputs([b"a", b"b" * 12]), Inputs([b"a"], mesh=b"m"), Inputs([b"a", b"b"], state=b"s")):
        assert unpack_inputs(pack_inputs(inputs)) == inputs
        assert pack_inputs(inputs) == pack_inputs(inputs)
    assert pack_inputs(Inputs([b"\x89PNG"])) == b"\x89PNG"
    assert unpack_inputs(b"\x89PNG") == Inputs([b"\x89PNG"])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "give one of image, images"),
        ({"image": "x", "images": ["x"]}, "give one of image, images"),
        ({"images": ["x"] * (MAX_VIEWS + 1)}, "at most 8"),
        ({"images": ["x"], "views": ["top"]}, "'top' is none of front, left, back, right"),
        ({"images": ["x"], "views": [STRETCHED]}, "is no rotation"),
        ({"images": ["x"], "views": [EYE[:3]]}, "must be 4x4, got 3x4"),
        ({"images": ["x"], "views": [[["a"]]]}, "four rows of four numbers"),
        ({"image": "x", "fov": 0}, "greater than or equal to 1"),
        ({"image": "x", "fov": 180}, "less than or equal to 179"),
    ],
)
def test_requests_that_cannot_be(body: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        GenerateRequest.model_validate(body)


def of_json(server: Running, pictures: list[bytes], fields: dict[str, Any]) -> httpx.Response:
    body = {"kind": "generate", "images": [base64.b64encode(p).decode() for p in pictures], **fields}
    with server.client() as http:
        return http.post("/jobs", json=body)


def of_form(server: Running, pictures: list[bytes], fields: dict[str, Any]) -> httpx.Response:
    data = {k: v if isinstance(v, str) else json.dumps(v) for k, v in fields.items()}
    with server.client() as http:
        return http.post("/jobs", data=data, files=[("images", ("p", p)) for p in pictures])


@pytest.mark.parametrize("send", [of_json, of_form])
@pytest.mark.parametrize("views", [["front", "back"], [EYE, EYE]])
def test_several_pictures_become_one_job(server: Running, send: Any, views: Any) -> None:
    job = send(server, PAIR, {"views": views, "fov": 25.0, "seed": 3})
    assert job.status_code == 202, job.text
    assert {name: job.json()["settings"][name] for name in ("views", "fov", "seed", "view_mode")} == {
        "views": views,
        "fov": 25.0,
        "seed": 3,
        "view_mode": "cycle",
    }


@pytest.mark.parametrize("send", [of_json, of_form])
@pytest.mark.parametrize(
    ("count", "fields", "field", "says"),
    [
        (9, {}, "images", "at most 8"),
        (2, {"views": ["front"]}, "views", "2 pictures, 1 views"),
        (2, {"views": ["front", "top"]}, "views.1", "'top' is none of front"),
        (2, {"views": [EYE, STRETCHED]}, "views.1", "is no rotation"),
        (1, {"fov": 180}, "fov", "less than or equal to 179"),
        (1, {"fov": 0}, "fov", "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_with_views_is_said_in_words(
    server: Running, send: Any, count: int, fields: dict[str, Any], field: str, says: str
) -> None:
    reply = send(server, [picture(20)] * count, fields)
    assert reply.status_code == 400, reply.text
    (problem,) = reply.json()["errors"]
    assert field in problem["field"]
    assert says in problem["message"]


def test_health_says_what_the_weights_were_trained_for(server: Running) -> None:
    with Client(server.url) as client:
        assert client.health().views.model_dump() == {"least": 1, "most": 1, "cameras": False}


def test_the_clients_views_reach_the_request() -> None:
    call = calls.generation(PAIR, {"views": ["front", "back"], "fov": 25.0, "seed": 3}, None)
    assert call.files == [("images", PAIR[0]), ("images", PAIR[1])]
    assert call.fields == {"kind": "generate", "views": ["front", "back"], "fov": 25.0, "seed": 3}
    assert calls.generation(PAIR[0], {}, None).files == [("image", PAIR[0])]
    with pytest.raises(InvalidRequestError, match="2 pictures, 1 views"):
        calls.generation(PAIR, {"views": ["front"]}, None)
    with pytest.raises(InvalidRequestError, match="9 pictures"):
        calls.generation([PAIR[0]] * 9, {}, None)


def test_camera_files(tmp_path: Path) -> None:
    pictures = [tmp_path / "b.png", tmp_path / "a.png"]
    far = [*EYE[:2], [0.0, 0, 1, 4], EYE[3]]
    file = tmp_path / "transforms.json"
    frames = [{"file_path": f"./images/{n}.png", "transform_matrix": m} for n, m in (("a", EYE), ("b", far))]
    file.write_text(json.dumps({"camera_angle_x": math.radians(20), "mesh_scale": 0.5, "frames": frames}))
    found = read_cameras(file, pictures)
    assert found["views"] == [[*EYE[:2], [0.0, 0, 1, 2], EYE[3]], EYE]
    assert found["fov"] == pytest.approx(20)
    file.write_text(json.dumps([EYE, far]))
    assert read_cameras(file, pictures) == {"views": [EYE, far]}
    frames[0]["camera_angle_x"] = 0.3
    for content, says in (
        (json.dumps({"camera_angle_x": 0.2, "frames": frames}), "different camera_angle_x"),
        (json.dumps({"frames": frames[:1]}), "2 pictures, but the camera file has 1 frames"),
        ("{}", "neither a JSON list"),
        ("no json", "neither a JSON list"),
    ):
        file.write_text(content)
        with pytest.raises(InvalidRequestError, match=says):
            read_cameras(file, pictures)
