"""Pictures that a request names: by a URL, or by words for the operator's image generator."""

from __future__ import annotations

import base64
import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trellis2_modal.client.service import KEY, URL, Service, photo
from tests.trellis2_modal.service.outbound.network import PUBLIC, Network, Reply, network
from trellis2_modal.client.api import Client
from trellis2_modal.protocol.limits import MAX_IMAGE_BYTES
from trellis2_modal.service.config import Settings, SettingsError
from trellis2_modal.service.http.pictures.sources import PictureSources, image_generator

EXAMPLE = Path(__file__).parents[3] / "examples" / "text_to_image.py"
PICTURE = "https://pictures.example/cat.png"
Post = Callable[..., httpx.Response]


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as found:
        found.plan = lambda request: Reply(200, {"Content-Type": "image/png"}, photo())
        yield found


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    service.start()
    yield service
    service.stop()


@pytest.fixture
def post(service: Service) -> Iterator[Post]:
    """Submits a generation with these fields."""
    with httpx.Client(transport=service.transport, base_url=URL, headers={"X-API-Key": KEY}) as http:
        yield lambda **fields: http.post(
            "/jobs",
            json={"kind": "generate"} | {k: v for k, v in fields.items() if k != "again"},
            headers={"Idempotency-Key": fields["again"]} if "again" in fields else {},
        )


def takes(service: Service, net: Network | None = None, draw: Any = None) -> None:
    service.app.state.picture_sources = PictureSources(net is not None, draw, net.outbound() if net else None)


def told(response: httpx.Response) -> tuple[int, str, str]:
    problem = response.json()
    return response.status_code, problem["errors"][0]["field"] if problem["errors"] else "", problem["detail"]


def offered(service: Service) -> tuple[bool, bool]:
    """Whether /health says that addresses and words are taken."""
    with httpx.Client(transport=service.transport, base_url=URL) as http:
        health = http.get("/health").json()
    return health["image_url"], health["prompt"]


def test_health_says_what_is_taken(service: Service, net: Network) -> None:
    takes(service, net)
    assert offered(service) == (True, False)
    takes(service, draw=lambda prompt, seed: photo())
    assert offered(service) == (False, True)


def test_neither_is_taken_unless_the_operator_says_so(service: Service, post: Post) -> None:
    assert Settings().image_urls is False
    assert Settings().text_to_image == ""
    assert offered(service) == (False, False)
    status, field, detail = told(post(image_url=PICTURE))
    assert (status, field) == (400, "image_url")
    assert "TRELLIS2_IMAGE_URLS=true" in detail
    status, field, detail = told(post(prompt="a red chair"))
    assert (status, field) == (400, "prompt")
    assert "TRELLIS2_TEXT_TO_IMAGE=module:function" in detail
    assert service.jobs() == []


def test_a_picture_is_fetched_and_checked_like_one_that_was_sent(
    service: Service, post: Post, net: Network
) -> None:
    takes(service, net)
    with Client(URL, KEY, transport=service.transport) as client:
        made = client.generate(PICTURE, seed=7)
    assert made.seed == 7
    assert service.generator.payloads == [photo()]
    assert [request.path for request in net.received] == ["/cat.png"]
    net.plan = lambda request: Reply(200, {"Content-Type": "image/png"}, b"not a picture")
    assert told(post(image_url=PICTURE))[:2] == (400, "image")


def test_the_same_address_under_the_same_key_is_the_same_job(
    service: Service, post: Post, net: Network
) -> None:
    takes(service, net)
    first = post(image_url=PICTURE, again="one").json()["id"]
    net.plan = lambda request: Reply(200, {"Content-Type": "image/jpeg"}, photo("JPEG"))
    assert post(image_url=PICTURE, again="one").json()["id"] == first
    assert post(image_url=PICTURE + "?2", again="one").status_code == 409


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(404), "answers 404"),
        (Reply(200, {"Content-Type": "text/html"}, b"<html>"), "type text/html"),
        (Reply(302, {"Location": "https://10.0.0.1/"}), "private, local or reserved"),
        (Reply(302, {"Location": "https://hidden.example/"}), "private, local or reserved"),
        (Reply(200, {"Content-Type": "image/png"}, bytes(MAX_IMAGE_BYTES + 1)), "more than 24 MiB"),
    ],
    ids=["missing", "page", "private", "private name", "large"],
)
def test_what_gives_no_picture_is_refused_in_words(
    service: Service, post: Post, net: Network, reply: Reply, said: str
) -> None:
    takes(service, net)
    net.names("hidden.example", ["192.168.0.1"])
    net.plan = lambda request: reply
    status, _, detail = told(post(image_url=PICTURE))
    assert status in (400, 413)
    assert said in detail
    assert net.connected == [PUBLIC]
    assert service.jobs() == []


def test_one_picture_is_named_in_one_way(service: Service, post: Post, net: Network) -> None:
    takes(service, net)
    for fields in ({}, {"image_url": PICTURE, "prompt": "a chair"}, {"image_url": PICTURE, "image": "aaaa"}):
        assert "give one of image, images" in told(post(**fields))[2]
    assert told(post(image_url=PICTURE, views=["front", "back"]))[:2] == (400, "views")
    assert net.connected == []


def test_words_become_a_picture_by_the_operators_generator(service: Service, post: Post) -> None:
    asked: list[tuple[str, int]] = []

    def draw(prompt: str, seed: int) -> bytes:
        asked.append((prompt, seed))
        return photo()

    takes(service, draw=draw)
    answer = post(prompt="a red chair", seed=7, again="chair")
    assert answer.status_code == 202, answer.text
    assert asked == [("a red chair", 7)]
    assert post(prompt="a red chair", seed=7, again="chair").json()["id"] == answer.json()["id"]


def test_a_generator_that_fails_is_told_apart_from_a_refused_prompt(service: Service, post: Post) -> None:
    def refuses(prompt: str, seed: int) -> bytes:
        raise ValueError("no weapons")

    def fails(prompt: str, seed: int) -> bytes:
        raise RuntimeError("secret path /root/key")

    takes(service, draw=refuses)
    assert told(post(prompt="a sword")) == (
        400,
        "prompt",
        "prompt is refused by the image generator: no weapons",
    )
    takes(service, draw=fails)
    status, _, detail = told(post(prompt="a chair"))
    assert status == 503
    assert "secret" not in detail
    takes(service, draw=lambda prompt, seed: "text")
    assert told(post(prompt="a chair"))[0] == 503
    assert service.jobs() == []


@pytest.mark.parametrize("name", ["nowhere:draw", "json:draw", "json", ":draw", "json:__name__"])
def test_a_generator_that_is_not_there_stops_the_start(name: str) -> None:
    with pytest.raises(SettingsError, match="TRELLIS2_TEXT_TO_IMAGE"):
        image_generator(name)
    assert image_generator("") is None


def test_the_example_asks_an_image_server(service: Service, post: Post, monkeypatch: Any) -> None:
    asked: list[dict[str, Any]] = []

    class Images(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append(body | {"path": self.path, "key": self.headers["authorization"]})
            refused = "sword" in body["prompt"]
            reply = json.dumps({"data": [{"b64_json": base64.b64encode(photo()).decode()}]}).encode()
            self.send_response(400 if refused else 200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:
            """Tests print nothing."""

    server = HTTPServer(("127.0.0.1", 0), Images)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    monkeypatch.setenv("IMAGE_API_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("IMAGE_API_KEY", "secret")
    try:
        spec = importlib.util.spec_from_file_location("text_to_image", EXAMPLE)
        assert spec is not None
        assert spec.loader is not None
        example = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(example)
        takes(service, draw=example.draw)
        assert post(prompt="a red chair", seed=3).status_code == 202
        assert told(post(prompt="a sword"))[0] == 400
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert asked[0]["prompt"].endswith("a red chair")
    assert (asked[0]["seed"], asked[0]["path"], asked[0]["key"]) == (
        3,
        "/v1/images/generations",
        "Bearer secret",
    )
