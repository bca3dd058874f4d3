"""Real pictures and real files of a small asset."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from o_voxel.mesh.quality import mesh_quality
from o_voxel.postprocess import to_glb
from PIL import Image

from tests.trellis2_modal.shapes import dual_grid
from trellis2.errors import Cancelled
from trellis2.progress import Monitor
from trellis2_modal.protocol.requests import ExtractSettings
from trellis2_modal.service import exporter
from trellis2_modal.service import state as states


@pytest.fixture(scope="module")
def mesh() -> object:
    return states.to_mesh(dual_grid(32))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "VIDEO_FRAMES", 2)
    monkeypatch.setattr(exporter, "VIDEO_RESOLUTION", 64)
    monkeypatch.setattr(exporter, "SHEET_VIEWS", 2)
    monkeypatch.setattr(exporter, "SHEET_RESOLUTION", 48)


def test_a_video_with_progress(mesh: object) -> None:
    seen: list[tuple[int, int]] = []
    monitor = Monitor(lambda at: seen.append((at.step, at.steps)))
    video = exporter.MeshExporter().video(mesh, monitor)
    assert video.media_type in ("video/mp4", "image/webp")
    assert len(video.data) > 500
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_a_sheet_of_every_mode(mesh: object) -> None:
    sheet, layout = exporter.MeshExporter().sheet(mesh, Monitor())
    with Image.open(io.BytesIO(sheet.data)) as image:
        assert image.size == (2 * 48, len(layout["modes"]) * 48)
    assert layout["views"] == 2


def test_pictures_show_the_surface_of_the_export() -> None:
    """A ball with a hole: closed, outward, and coloured over the gap."""
    mesh = states.to_mesh(dual_grid(32))
    middle = mesh.vertices[mesh.faces.long()].mean(dim=1)
    axis = torch.nn.functional.normalize(middle, dim=1)[:, 2]
    mesh.faces = mesh.faces[axis < 0.97]
    gone = torch.nn.functional.normalize(mesh.coords - 15.5, dim=1)[:, 2] >= 0.97
    mesh = states.to_mesh(
        replace(states.from_mesh(mesh), coords=mesh.coords[~gone].numpy(), attrs=mesh.attrs[~gone].numpy())
    )
    assert mesh_quality(mesh.vertices, mesh.faces, look=False).open_edges > 0
    shown = exporter.as_exported(mesh)
    quality = mesh_quality(shown.vertices, shown.faces)
    assert (quality.open_edges, quality.crowded_edges, quality.back_pixels) == (0, 0, 0)
    assert float(shown.query_vertex_attrs()[:, mesh.layout["alpha"]].min()) > 0.5


def test_the_first_still_is_the_front() -> None:
    """A viewer of the exported file looks at it from its +Z, which is our -y."""
    mesh = states.to_mesh(dual_grid(32))
    front = mesh.coords[:, 1] < 16
    mesh.attrs[:, mesh.layout["base_color"]] = torch.where(front[:, None], 1.0, 0.0)
    sheet, layout = exporter.MeshExporter().sheet(mesh, Monitor())
    with Image.open(io.BytesIO(sheet.data)) as image:
        row = np.asarray(image.convert("L"))[layout["modes"].index("base_color") * 48 :][:48]
    assert row[24, 24] > 200
    assert row[24, 48 + 24] < 60


@pytest.mark.parametrize(
    ("format", "head"), [("glb", b"glTF"), ("obj", b"PK"), ("ply", b"ply"), ("stl", b"")]
)
def test_a_file_of_each_format(mesh: object, format: str, head: bytes) -> None:
    settings = ExtractSettings.model_validate(
        {"format": format, "decimation_target": 2000, "texture_size": 256, "remesh": False}
    )
    data, report = exporter.MeshExporter().asset(mesh, settings, Monitor())
    assert data.startswith(head)
    assert 0 < report["faces"] <= 2100
    assert report["bytes"][format] == len(data) or format == "obj"


def test_a_preset_and_a_cancel(mesh: object) -> None:
    settings = ExtractSettings(simplify="web", decimation_target=2000, texture_size=256).resolved()
    data, _ = exporter.MeshExporter().asset(mesh, settings, Monitor())
    assert b"normalTexture" in data
    with pytest.raises(Cancelled):
        exporter.MeshExporter().asset(mesh, settings, Monitor(cancel=lambda: True))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "auto"),
        ({"simplify": "web"}, "auto"),
        ({"remesh": False}, False),
        ({"remesh": "auto"}, "auto"),
        ({"remesh": True}, "always"),
        ({"remesh_project": 0.5}, True),
        ({"remesh": "auto", "remesh_band": 2.0}, True),
    ],
)
def test_remeshing_follows_the_surface_unless_an_offset_is_asked_for(
    given: dict[str, object], wanted: object
) -> None:
    settings = ExtractSettings(**given).resolved()
    assert exporter.arguments(settings, to_glb)["remesh"] == wanted
