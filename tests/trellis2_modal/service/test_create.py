"""What a maker does next, through the API and the client: new textures, several variants, a kept shape."""

from __future__ import annotations

import base64
import io
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

from tests.trellis2_modal.meshes import mesh_glb
from tests.trellis2_modal.server import Running, picture
from trellis2_modal.cli import main
from trellis2_modal.client.api import Client
from trellis2_modal.client.compression import load_state
from trellis2_modal.protocol import errors
from trellis2_modal.protocol.limits import MAX_MESH_FACES
from trellis2_modal.protocol.meshes import check_mesh
from trellis2_modal.service.inputs import mesh_errors


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def maker(server: Running) -> Iterator[Client]:
    with Client(server.url, server.key) as client:
        yield client


@pytest.fixture
def places(server: Running) -> list[str]:
    """Options that name the server to a command."""
    return ["--url", server.url, "--key", server.key]


# --- new textures -------------------------------------------------------------------------------------------


def test_a_mesh_is_textured_by_every_way_to_ask(
    client: httpx.Client, maker: Client, places: list[str], tmp_path: Path
) -> None:
    """The fake generator gives the mesh back."""
    mesh, photo = mesh_glb(), picture()
    body = {"mesh": text(mesh), "image": text(photo), "preview": "none", "texture_size": 512}
    whole = client.post("/texture", json=body)
    assert whole.status_code == 200, whole.text
    assert base64.b64decode(whole.json()["glb"]) == mesh
    assert whole.json()["seed"] == 42
    raw = client.post("/texture", json=body, headers={"Accept": "model/gltf-binary"})
    assert raw.content == mesh
    several = client.post("/texture", files=[("mesh", mesh), ("images", photo), ("images", photo)])
    assert several.status_code == 200, several.text
    queued = client.post("/jobs", json={"kind": "texture", **body})
    assert (queued.status_code, queued.json()["kind"]) == (202, "texture")
    assert queued.json()["settings"]["pipeline_type"] == "512"

    result = maker.texture(mesh, photo, preview="frames", seed=5)
    assert (result.data, result.seed, result.report["faces"]) == (mesh, 5, 2)
    assert result.video
    assert result.preview
    (tmp_path / "square.glb").write_bytes(mesh)
    (tmp_path / "photo.png").write_bytes(photo)
    done = CliRunner().invoke(
        main,
        [
            *("texture", str(tmp_path / "square.glb"), str(tmp_path / "photo.png"), *places),
            *("--preview", str(tmp_path / "square.mp4")),
        ],
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "square-textured.glb").read_bytes() == mesh
    assert (tmp_path / "square.mp4").exists()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(30 << 20))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mesh", "words"),
    [
        (b"", "empty|give mesh|at least 1"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "none of GLB, OBJ, PLY, STL"),
        (zipped(), "zip archive"),
        (b'{"asset": {"version": "2.0"}}', r"send a \.glb"),
        (mesh_glb()[:60], "cut short"),
        (b"glTF" + bytes(40), "version 0"),
        (
            b"ply\nformat binary_little_endian 1.0\nelement face 10000000\nend_header\n",
            f"10,000,000 faces, the most is {MAX_MESH_FACES:,}",
        ),
    ],
)
def test_meshes_that_cannot_be_are_refused_before_there_is_a_job(
    client: httpx.Client, mesh: bytes, words: str
) -> None:
    before = len(client.get("/jobs").json()["jobs"])
    reply = client.post("/texture", files={"mesh": mesh, "image": picture()})
    assert reply.status_code == 400, reply.text
    assert reply.json()["type"] == "invalid-mesh"
    assert reply.json()["errors"][0]["field"] == "mesh"
    assert re.search(words, reply.json()["detail"]), reply.json()["detail"]
    assert len(client.get("/jobs").json()["jobs"]) == before


@pytest.mark.parametrize(
    ("files", "data", "field"),
    [
        ({"mesh": mesh_glb()}, {}, "image"),
        ({"image": picture()}, {"kind": "texture"}, "mesh"),
        ({"mesh": mesh_glb(), "image": picture(), "state": b"x"}, {}, "image"),
        ({"mesh": mesh_glb(), "image": picture()}, {"decimation_target": "5000"}, "decimation_target"),
        ({"mesh": mesh_glb(), "image": picture()}, {"pipeline_type": "1024"}, "pipeline_type"),
    ],
)
def test_what_is_wrong_with_a_form_is_named(
    client: httpx.Client, files: dict[str, bytes], data: dict[str, str], field: str
) -> None:
    reply = client.post("/jobs", files=files, data=data)
    assert reply.status_code == 400, reply.text
    assert [error["field"] for error in reply.json()["errors"]] == [field]


def uvs_outside() -> bytes:
    """The square with UVs of which a texture repeats."""
    return mesh_glb().replace(struct.pack("<2f", 0.9, 0.1), struct.pack("<2f", 3.9, 0.1))


@pytest.mark.parametrize(
    ("mesh", "words", "suggested"),
    [
        (mesh_glb().replace(struct.pack("<3f", 1, 1, 0), struct.pack("<3f", 1, np.nan, 0)), "not finite", {}),
        (mesh_glb(meshes=[]), "invalid or corrupted|no triangles", {}),
        (uvs_outside(), "outside 0..1", {"suggested": {"new_uvs": True}}),
        (b"v 0 0 0\nv 1 0 0\nv 1 1 0\n", "no triangles", {}),
    ],
)
def test_what_only_a_parser_finds_is_told_of_the_mesh(mesh: bytes, words: str, suggested: Any) -> None:
    from o_voxel.retexture import read_mesh

    kind = check_mesh(mesh)
    with pytest.raises(errors.InvalidMeshError, match=words) as refused, mesh_errors():
        read_mesh(mesh, kind, MAX_MESH_FACES).check_uvs()
    assert refused.value.errors[0]["field"] == "mesh"
    assert refused.value.hints == suggested


# --- variants and kept shapes -------------------------------------------------------------------------------


def test_variants_of_one_job_are_chosen_and_extracted(
    client: httpx.Client, maker: Client, places: list[str], tmp_path: Path
) -> None:
    first = maker.generate(picture(), seed=10, num_samples=3, keep_latents=True)
    assert [v.seed for v in first.variants] == [10, 11, 12]
    assert first.state == first.variants[0].state
    assert load_state(first.variants[2].state).info["seed"] == 12
    links = client.get(f"/jobs/{first.job}").json()["result"]["artifacts"]
    assert {"state", "state-2", "state-3", "video-3"} <= links.keys()
    assert client.get(f"/jobs/{first.job}/state-2").content == first.variants[1].state
    assert client.get(f"/jobs/{first.job}/state-4").status_code == 404
    chosen = maker.extract_glb(first.variants[1])
    assert chosen.data == maker.extract_glb(first.variants[1].state).data
    assert chosen.data != maker.extract_glb(first).data
    body = {"image": text(picture()), "seed": 10, "num_samples": 2, "preview": "none"}
    whole = client.post("/generate", json=body).json()
    assert [v["seed"] for v in whole["variants"]] == [10, 11]
    assert base64.b64decode(whole["variants"][0]["state"]) == base64.b64decode(whole["state"])

    (tmp_path / "photo.png").write_bytes(picture())
    done = CliRunner().invoke(
        main,
        [
            *("generate", str(tmp_path / "photo.png"), "-o", str(tmp_path / "chair.glb"), *places),
            *("--num-samples", "2", "--state", str(tmp_path / "chair.state.lz4")),
        ],
    )
    assert done.exit_code == 0, done.output
    names = {path.name for path in tmp_path.iterdir()}
    assert {"chair-1.glb", "chair-2.glb", "chair-1.state.lz4", "chair-2.state.lz4"} <= names


def test_a_kept_shape_is_used_from_a_state_or_a_job(
    client: httpx.Client, maker: Client, stranger: httpx.Client
) -> None:
    asset = maker.generate(picture(), seed=20, num_samples=2, keep_latents=True, preview="none")
    again = maker.generate(picture(), shape=asset.variants[1], seed=3, preview="none")
    assert again.settings["pipeline_type"] == "512"
    body: dict[str, Any] = {"image": text(picture()), "job": asset.job, "variant": 2, "preview": "none"}
    assert client.post("/generate", json=body).status_code == 200
    assert stranger.post("/generate", json=body).status_code == 404
    form = client.post("/jobs", files={"image": picture()}, data={"job": asset.job, "variant": "2"})
    assert form.status_code == 202, form.text
    plain = maker.generate(picture(), preview="none")
    with pytest.raises(errors.InvalidStateError, match="keep_latents"):
        maker.generate(picture(), shape=plain)
    with pytest.raises(errors.InvalidRequestError, match="seed"):
        maker.generate(picture(), seed=2**31 - 1, num_samples=2)


def test_a_rehearsal_answers_each_of_these(server: Running) -> None:
    key = server.new_key("rehearsal", scopes=("dry-run",))
    with Client(server.url, key) as rehearsal:
        assert rehearsal.texture(mesh_glb(), picture(), preview="frames").data[:4] == b"glTF"
        made = rehearsal.generate(picture(), seed=4, num_samples=2)
        assert [v.seed for v in made.variants] == [4, 5]
        with pytest.raises(errors.InvalidMeshError):
            rehearsal.texture(b"glTF" + bytes(100), picture())
