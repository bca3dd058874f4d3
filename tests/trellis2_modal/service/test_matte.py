"""The matte route over the process that makes mattes."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from tests.trellis2_modal.server import Running, picture, running
from tests.trellis2_modal.service.test_api import problem
from trellis2.conditioning.matting.small_matting import (
    SmallMattingConfig,
    SmallMattingNet,
    save_small_matting,
)
from trellis2_modal.service.config import BUNDLED_WEIGHTS
from trellis2_modal.service.http.pictures.matte import MatteProcess, cheap_remover


@pytest.fixture(scope="module", params=["grabcut", "bundled"])
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline config with GrabCut, and the bundled weights with their network."""
    if request.param == "bundled":
        return BUNDLED_WEIGHTS
    folder = tmp_path_factory.mktemp("weights")
    remover = {"name": "GrabCutMatting", "args": {}}
    (folder / "pipeline.json").write_text(json.dumps({"args": {"rembg_model": remover}}))
    return folder


@pytest.fixture(scope="module")
def matting(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Running]:
    remover = cheap_remover(str(weights))
    assert remover is not None
    with running(tmp_path_factory.mktemp("data"), matter=MatteProcess(remover)) as live:
        yield live


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_remover_that_needs_a_model_is_not_cheap(tmp_path: Path) -> None:
    assert cheap_remover(str(tmp_path)) is None
    (tmp_path / "pipeline.json").write_text('{"args": {"rembg_model": {"name": "BiRefNet", "args": {}}}}')
    assert cheap_remover(str(tmp_path)) is None


def test_the_network_of_the_weights_cuts_out_wherever_the_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = SmallMattingNet(SmallMattingConfig(image_size=32, widths=(8, 8), heads=1))
    torch.nn.init.constant_(net.out.bias, 99)  # type: ignore[arg-type]
    save_small_matting(net, tmp_path / "weights" / "ckpts" / "matting")
    entry = {"name": "SmallMatting", "args": {"model_name": "ckpts/matting"}}
    (tmp_path / "weights" / "pipeline.json").write_text(json.dumps({"args": {"rembg_model": entry}}))
    monkeypatch.chdir(tmp_path)
    remover = cheap_remover("weights")
    assert remover is not None
    monkeypatch.chdir("/")
    with running(tmp_path / "data", matter=MatteProcess(remover)) as live, live.client() as client:
        reply = client.post("/matte", files={"image": picture(200)})
        assert reply.status_code == 200, reply.text
        with Image.open(io.BytesIO(reply.content)) as image:
            assert image.getpixel((1, 1))[3] == 255, "this network keeps all"  # type: ignore[index]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else name)
    assert cheap_remover(str(tmp_path / "weights")) is None, "without torch there is none"


def test_the_subject_comes_back_cut_out(matting: Running) -> None:
    with matting.client() as client:
        assert client.get("/health").json()["matte"] is True
        by_form = client.post("/matte", files={"image": picture(200)})
        assert by_form.status_code == 200, by_form.text
        assert by_form.headers["content-type"] == "image/png"
        with Image.open(io.BytesIO(by_form.content)) as image:
            assert image.mode == "RGBA"
            assert image.getpixel((image.width // 2, image.height // 2))[3] > 200  # type: ignore[index]
            assert image.getpixel((1, 1))[3] < 50  # type: ignore[index]
        encoded = base64.b64encode(picture(200)).decode()
        assert client.post("/matte", json={"image": encoded}).content == by_form.content


def test_warnings_come_with_json_and_subjects_are_chosen(matting: Running) -> None:
    image = Image.new("RGBA", (200, 100), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.ellipse((10, 10, 90, 90), fill=(200, 60, 40, 255))
    draw.ellipse((120, 25, 170, 75), fill=(40, 60, 200, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    widths = {}
    with matting.client() as client:
        for subjects in ("auto", "largest", "all"):
            asked = {"image": base64.b64encode(buffer.getvalue()).decode(), "subjects": subjects}
            reply = client.post("/matte", json=asked, headers={"Accept": "application/json"})
            (warning,) = reply.json()["warnings"]
            assert warning["code"] == "several_subjects"
            with Image.open(io.BytesIO(base64.b64decode(reply.json()["matte"]))) as matte:
                widths[subjects] = matte.width
        form = {"files": {"image": buffer.getvalue()}, "data": {"subjects": "several"}}
        assert "subjects" in problem(client.post("/matte", **form), 400, "invalid-request").detail
    assert widths["auto"] == widths["all"] > 150 > widths["largest"]


def test_a_picture_without_a_subject_is_refused(matting: Running) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (64, 64), (9, 9, 9, 0)).save(buffer, "PNG")
    with matting.client() as client:
        problem(client.post("/matte", files={"image": buffer.getvalue()}), 400, "invalid-image")
        problem(client.post("/matte", files={"image": b"junk"}), 400, "invalid-image")
        problem(client.post("/matte", files={"state": b"junk"}), 400, "invalid-request")


def test_mattes_are_counted(tmp_path: Path) -> None:
    with running(tmp_path, mattes_per_minute=1) as live, live.client() as client:
        assert client.get("/health").json()["matte"] is False
        problem(client.post("/matte", files={"image": picture()}), 503, "unavailable")
        problem(client.post("/matte", files={"image": picture()}), 429, "rate-limited")


def test_a_cut_is_corrected_by_box_trimap_and_attempt(matting: Running) -> None:
    image = Image.new("RGB", (200, 100), (235, 233, 228))
    draw = ImageDraw.Draw(image)
    draw.ellipse((10, 10, 90, 90), fill=(200, 60, 40))
    draw.ellipse((120, 25, 170, 75), fill=(40, 60, 200))
    photo = png(image)
    trimap = Image.new("L", (200, 100), 128)
    ImageDraw.Draw(trimap).line((135, 50, 155, 50), fill=255, width=8)
    inside, outside = (145, 50), (50, 50)

    def alpha(**asked: object) -> Image.Image:
        files = {"image": photo} | ({"trimap": png(trimap)} if asked.pop("painted", False) else {})
        reply = client.post("/matte", files=files, data={"crop": "false", **asked})
        assert reply.status_code == 200, reply.text
        with Image.open(io.BytesIO(reply.content)) as matte:
            assert matte.size == image.size
            return matte.getchannel("A")

    with matting.client() as client:
        first, boxed = alpha(), alpha(box="0.55,0.1,0.9,0.9")
        assert (first.getpixel(inside), first.getpixel(outside)) == (0, 255)
        assert (boxed.getpixel(inside), boxed.getpixel(outside)) == (255, 0)
        painted = alpha(painted=True)
        assert (painted.getpixel(inside), painted.getpixel(outside)) == (255, 255)
        assert alpha(attempt="2").getpixel(inside) == 255, "this one keeps both"
        asked = {
            "image": base64.b64encode(photo).decode(),
            "trimap": base64.b64encode(png(trimap)).decode(),
            "box": [0.55, 0.1, 0.9, 0.9],
            "crop": False,
        }
        by_json = client.post("/matte", json=asked)
        with Image.open(io.BytesIO(by_json.content)) as matte:
            assert matte.getpixel(inside)[3] == 255  # type: ignore[index]


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("box", {"box": "0.9,0.1,0.2,0.9"}),
        ("box", {"box": "0,0,1"}),
        ("box", {"box": "a,b,c,d"}),
        ("attempt", {"attempt": "9"}),
    ],
)
def test_a_correction_that_is_none_is_refused_by_name(
    matting: Running, field: str, asked: dict[str, str]
) -> None:
    with matting.client() as client:
        reply = client.post("/matte", files={"image": picture()}, data=asked)
        assert field in problem(reply, 400, "invalid-request").detail
        broken = client.post("/matte", files={"image": picture(), "trimap": b"junk"})
        problem(broken, 400, "invalid-image")
        large = client.post("/matte", files={"image": picture(), "state": b"x"})
        problem(large, 400, "invalid-request")


def test_a_guess_is_told(matting: Running) -> None:
    small = Image.new("RGB", (16, 16))
    for i in range(256):
        small.putpixel((i % 16, i // 16), (i * 67 % 256, i * 151 % 256, i * 113 % 256))
    image = small.resize((160, 160), Image.Resampling.NEAREST)
    ImageDraw.Draw(image).ellipse((40, 40, 120, 120), outline=(240, 240, 240), width=8)
    photo = base64.b64encode(png(image)).decode()
    with matting.client() as client:
        reply = client.post("/matte", json={"image": photo}, headers={"Accept": "application/json"})
        assert "busy_background" in [warning["code"] for warning in reply.json()["warnings"]], reply.text
