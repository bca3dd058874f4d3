"""Turntables, snapshots and encoding."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trellis2.renderers.shapes import sphere, with_voxels
from trellis2.errors import BackendError, InvalidArgumentError
from trellis2.renderers import EnvMap, MeshRenderer, PbrMeshRenderer, VoxelRenderer
from trellis2.representations import Mesh, Voxel
from trellis2.utils import video
from trellis2.utils.render_utils import (
    encode_mp4,
    encode_video,
    encode_webp,
    get_renderer,
    make_pbr_vis_frames,
    render_frames,
    render_multiview,
    render_snapshot,
    render_video,
    to_pictures,
)

RED = [0.9, 0.1, 0.1, 0.0, 0.6, 1.0]


@pytest.fixture(scope="module")
def light() -> EnvMap:
    return EnvMap(torch.ones(16, 32, 3), cube_size=16)


def moving_frames(count: int, height: int, width: int) -> list[np.ndarray]:
    frames = np.full((count, height, width, 3), 200, dtype=np.uint8)
    for n, frame in enumerate(frames):
        frame[:, n % (width - 8) : n % (width - 8) + 8] = (220, 30, 30)
    return list(frames)


def decode(data: bytes, folder: Path) -> np.ndarray:
    """Frames of an MP4, [N, H, W, 3]."""
    (folder / "video.mp4").write_bytes(data)
    ffmpeg = video.ffmpeg_path()
    said = subprocess.run(
        [ffmpeg, "-i", str(folder / "video.mp4")], capture_output=True, check=False
    ).stderr.decode()
    assert "h264" in said
    assert "yuv420p" in said
    size = next(p for p in said.replace(",", " ").split() if p[0].isdigit() and "x" in p and p[-1].isdigit())
    width, height = (int(x) for x in size.split("x"))
    command = [ffmpeg, "-loglevel", "error", "-i", str(folder / "video.mp4")]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (63, 65)])
def test_mp4_plays_back_what_was_put_in(height: int, width: int, tmp_path: Path) -> None:
    frames = moving_frames(7, height, width)
    data = encode_mp4(frames, fps=15)
    assert data.index(b"moov") < data.index(b"mdat")  # the index comes first: it plays while it loads
    got = decode(data, tmp_path)
    assert got.shape == (7, height + height % 2, width + width % 2, 3)
    assert np.abs(got[3, :height, :width].astype(int) - frames[3].astype(int)).mean() < 6


def test_webp_is_animated() -> None:
    image = Image.open(io.BytesIO(encode_webp(moving_frames(5, 33, 40), fps=10)))
    assert image.format == "WEBP"
    assert image.n_frames == 5
    assert image.size == (40, 33)


def test_video_falls_back_to_webp(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = moving_frames(2, 32, 32)
    assert encode_video(frames)[1] == "video/mp4"

    def missing() -> str:
        raise BackendError("no ffmpeg")

    monkeypatch.setattr(video, "ffmpeg_path", missing)
    data, media_type = encode_video(frames)
    assert media_type == "image/webp"
    assert data[:4] == b"RIFF"
    with pytest.raises(BackendError):
        encode_mp4(frames)


def test_bad_frames_are_refused() -> None:
    for encode in (encode_mp4, encode_webp):
        with pytest.raises(InvalidArgumentError, match="got 0"):
            encode([])
        with pytest.raises(InvalidArgumentError, match="frame 1 is 8x9"):
            encode([np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)])
        with pytest.raises(InvalidArgumentError, match="float64"):
            encode([np.zeros((8, 8, 3))])
        with pytest.raises(InvalidArgumentError, match="fps"):
            encode([np.zeros((8, 8, 3), np.uint8)], fps=0)


def test_a_turntable_goes_once_around(light: EnvMap) -> None:
    seen = []
    frames = render_video(
        with_voxels(*sphere(20), RED),
        resolution=32,
        num_frames=3,
        envmap=light,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert {"shaded", "normal", "base_color", "metallic", "roughness", "alpha", "mask", "clay"} <= set(frames)
    assert all(f.shape == (32, 32, 3) and f.dtype == np.uint8 for images in frames.values() for f in images)
    # red in the middle, a light neutral backdrop in the corner
    red = frames["shaded"][0][16, 16].astype(int)
    assert red[0] > red[1] + 60
    corner = frames["shaded"][0][0, 0].astype(int)
    assert corner.min() > 100
    assert np.ptp(corner) < 12
    black = render_video(with_voxels(*sphere(20), RED), 32, None, num_frames=1, envmap=light, keys=["shaded"])
    assert set(black) == {"shaded"}
    assert black["shaded"][0][0, 0].max() == 0


def test_snapshots_views_and_contact_sheets(light: EnvMap) -> None:
    mesh = with_voxels(*sphere(20), RED)
    shots = render_snapshot(mesh, resolution=32, nviews=2, envmap=light)
    sheets = make_pbr_vis_frames(shots, resolution=64)
    assert len(sheets) == 2
    assert sheets[0].shape == (96, 128, 3)
    pictures, extrinsics, intrinsics = render_multiview(mesh, resolution=16, nviews=3, envmap=light)
    assert len(pictures) == len(extrinsics) == len(intrinsics) == 3
    with pytest.raises(InvalidArgumentError, match="shaded"):
        make_pbr_vis_frames({"normal": shots["normal"]})


def test_renderers_by_kind() -> None:
    vertices, faces = sphere(10)
    voxel = Voxel(
        [-0.5] * 3, 0.25, torch.zeros((1, 3), dtype=torch.int32), torch.ones(1, 3), {"color": slice(0, 3)}
    )
    assert isinstance(get_renderer(with_voxels(vertices, faces, RED)), PbrMeshRenderer)
    assert isinstance(get_renderer(Mesh(vertices, faces)), MeshRenderer)
    assert isinstance(get_renderer(voxel), VoxelRenderer)
    with pytest.raises(InvalidArgumentError, match="str"):
        get_renderer("a sphere")  # type: ignore[arg-type]


def test_no_frames_and_no_views_are_refused(light: EnvMap) -> None:
    mesh = with_voxels(*sphere(10), RED)
    with pytest.raises(InvalidArgumentError, match="got 0"):
        render_video(mesh, num_frames=0, envmap=light)
    with pytest.raises(InvalidArgumentError, match="at least 1"):
        render_frames(mesh, [], [], envmap=light)


def test_maps_of_a_view_become_pictures_together() -> None:
    colour, grey = torch.linspace(-0.2, 1.2, 3 * 24 * 24).reshape(3, 24, 24), torch.rand(24, 24)
    first, second, third = to_pictures([colour, grey, grey[None]])
    np.testing.assert_array_equal(first, np.trunc(colour.clamp(0, 1).permute(1, 2, 0).numpy() * 255))
    np.testing.assert_array_equal(second, np.trunc(grey[..., None].expand(-1, -1, 3).numpy() * 255))
    np.testing.assert_array_equal(second, third)
    assert all(picture.flags.c_contiguous and picture.dtype == np.uint8 for picture in (first, second, third))
    assert to_pictures([]) == []
