"""Environment light: furnace, mirror, FG table, twins, parity quirks and bad pictures."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trellis2.errors import InvalidArgumentError, InvalidImageError, NumericalError
from trellis2.renderers import EnvMap, default_envmap, read_hdr, studio
from trellis2.renderers.environment.cubemap import (
    CubeMap,
    from_latlong,
    latlong_directions,
    locate,
    solid_angles,
    texel_directions,
)
from trellis2.renderers.environment.prefilter import LEVEL_ROUGHNESS, fg_table, irradiance
from trellis2.renderers.shading.model import level_of, shade_kernel, shade_torch


def directions(count: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture(scope="module")
def smooth_light() -> EnvMap:
    """A gentle environment: 1 + 0.5 z + 0.3 x in three scaled channels."""
    d = latlong_directions(64, 128)
    value = 1.0 + 0.5 * d[..., 2] + 0.3 * d[..., 0]
    return EnvMap(value[..., None] * torch.tensor([1.0, 0.5, 2.0]), cube_size=64)


@pytest.mark.parametrize("metallic", [0.0, 1.0])
def test_white_furnace_returns_one_at_every_roughness(metallic: float) -> None:
    light = EnvMap(torch.ones(16, 32, 3), cube_size=32)
    normal = torch.tensor([[0.0, 0, 1]]).repeat(200, 1)
    angle = torch.linspace(0.0, 1.45, 20).repeat(10)
    to_eye = torch.stack([angle.sin(), torch.zeros(200), angle.cos()], 1)
    roughness = torch.linspace(0.0, 1.0, 10).repeat_interleave(20)
    ks = torch.stack([torch.zeros(200), roughness, torch.full((200,), metallic)], 1)
    out = light.shade(torch.zeros(200, 3), normal, torch.ones(200, 3), ks, to_eye)
    assert (out - 1.0).abs().max() < 0.01
    diffuse = light.shade(torch.zeros(200, 3), normal, torch.ones(200, 3), ks, to_eye, specular=False)
    assert (diffuse - 1.0).abs().max() < 0.01


def test_a_mirror_reproduces_the_environment(smooth_light: EnvMap) -> None:
    normal, to_eye = directions(500, 1), directions(500, 2)
    to_eye = torch.where((normal * to_eye).sum(1, keepdim=True) < 0, -to_eye, to_eye)
    ks = torch.tensor([[0.0, 0.0, 1.0]]).repeat(500, 1)
    out = smooth_light.shade(torch.zeros(500, 3), normal, torch.ones(500, 3), ks, to_eye)
    reflected = 2 * (normal * to_eye).sum(1, keepdim=True) * normal - to_eye
    seen = (1.0 + 0.5 * reflected[:, 2] + 0.3 * reflected[:, 0])[:, None] * torch.tensor([1.0, 0.5, 2.0])
    assert ((out - seen) / seen).abs().max() < 0.02
    assert ((smooth_light.sample(reflected) - seen) / seen).abs().max() < 0.01


def test_irradiance_is_the_cosine_integral(smooth_light: EnvMap) -> None:
    n = directions(100, 3)
    got = smooth_light.prepared.diffuse.sample(n)
    # a linear function a + b.d integrates against the cosine lobe to a + 2/3 b.n
    exact = (1.0 + (0.5 * n[:, 2] + 0.3 * n[:, 0]) * 2 / 3)[:, None] * torch.tensor([1.0, 0.5, 2.0])
    assert ((got - exact) / exact).abs().max() < 0.01


@pytest.mark.parametrize("reference_quirks", [False, True])
def test_the_kernel_is_the_torch_model(smooth_light: EnvMap, reference_quirks: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    kd, ks = torch.rand(4000, 3, generator=generator), torch.rand(4000, 3, generator=generator)
    points = (smooth_light.prepared, directions(4000, 6), directions(4000, 7), kd, ks, reference_quirks)
    assert torch.allclose(shade_kernel(*points), shade_torch(*points), rtol=1e-4, atol=1e-5)


def test_reference_formula_by_hand() -> None:
    light = EnvMap(torch.full((16, 32, 3), 2.0), reference_quirks=True, cube_size=16)
    kd, roughness, metallic = torch.tensor([0.8, 0.4, 0.2]), 0.3, 0.25
    normal = torch.tensor([0.0, 0.6, 0.8])
    eye = torch.tensor([0.3, 0.1, 2.0])
    out = light.shade(
        torch.zeros(1, 3), normal[None], kd[None], torch.tensor([[0.1, roughness, metallic]]), eye
    )
    ambient = light.prepared.diffuse.sample(normal[None])[0]
    fg = fg_table()
    x, y = float(F.normalize(eye, dim=0) @ normal) * 256 - 0.5, roughness * 256 - 0.5
    i, j = int(x), int(y)
    corners = fg[j : j + 2, i : i + 2]
    wx, wy = x - i, y - j
    f = (1 - wy) * ((1 - wx) * corners[0, 0] + wx * corners[0, 1]) + wy * (
        (1 - wx) * corners[1, 0] + wx * corners[1, 1]
    )
    f0 = 0.04 * (1 - metallic) + kd * metallic
    mirror = 2.0 * (1 - roughness) + ambient * roughness
    expected = (ambient * kd * (1 - metallic) + mirror * (f0 * f[0] + f[1])) * 0.9
    assert torch.allclose(out[0], expected, rtol=1e-5)


def test_quirk_irradiance_has_the_published_excess() -> None:
    d = irradiance(torch.ones(6, 16, 16, 3), reference_quirks=True)
    assert float(d.min()) == pytest.approx(1.046, abs=1e-3)
    assert float(d.max()) == pytest.approx(1.116, abs=1e-3)
    assert float(d.mean()) == pytest.approx(1.081, abs=1e-3)
    assert torch.allclose(irradiance(torch.ones(6, 16, 16, 3)), torch.ones(1), atol=1e-5)


@pytest.mark.parametrize(
    ("row", "column"), [(2, 3), (10, 200), (40, 4), (100, 1), (128, 128), (200, 10), (255, 250)]
)
def test_fg_table_agrees_with_integration(row: int, column: int) -> None:
    roughness, cosine = (row + 0.5) / 256, (column + 0.5) / 256
    square = roughness**4
    # half vectors by inverse transform of the distribution itself, quite unlike the table's own quadrature
    u = torch.quasirandom.SobolEngine(2, scramble=True, seed=1).draw(1 << 17).double()
    h_z = ((1 - u[:, 0]) / (1 + (square - 1) * u[:, 0])).sqrt()
    h_x = (1 - h_z**2).clamp(min=0).sqrt() * (2 * math.pi * u[:, 1]).cos()
    vh = math.sqrt(1 - cosine**2) * h_x + cosine * h_z
    l_z = 2 * vh * h_z - cosine
    ok = (l_z > 0) & (vh > 0)
    l_z, vh = l_z[ok], vh[ok]
    smith = (
        2
        * l_z
        * cosine
        / (
            cosine * (square + (1 - square) * l_z**2).sqrt()
            + l_z * math.sqrt(square + (1 - square) * cosine**2)
        )
    )
    weight = smith * vh / (h_z[ok] * cosine)
    fresnel = (1 - vh) ** 5
    exact = torch.stack([((1 - fresnel) * weight).sum(), (fresnel * weight).sum()]) / len(u)
    assert (fg_table()[row, column] - exact).abs().max() < 2e-3


def test_cube_faces_follow_the_convention() -> None:
    d = texel_directions(4)
    s, t = (1 + 0.5) * 2 / 4 - 1, (2 + 0.5) * 2 / 4 - 1  # row 2, column 1
    expected = torch.tensor(
        [[1, -t, -s], [-1, -t, s], [s, 1, t], [s, -1, -t], [s, -t, 1], [-s, -t, -1]], dtype=torch.float32
    )
    assert torch.allclose(d[:, 2, 1], F.normalize(expected, dim=-1))
    face, s_back, t_back = locate(d.reshape(-1, 3))
    assert torch.equal(face.reshape(6, 4, 4), torch.arange(6)[:, None, None].expand(6, 4, 4))
    assert torch.allclose(s_back.reshape(6, 4, 4)[:, 2, 1], torch.tensor(s))
    assert torch.allclose(t_back.reshape(6, 4, 4)[:, 2, 1], torch.tensor(t))
    assert float(solid_angles(8).sum() * 6) == pytest.approx(4 * math.pi, rel=1e-5)


def test_lookup_has_no_seams_and_latlong_points_where_it_should() -> None:
    def value(d: torch.Tensor) -> torch.Tensor:
        return torch.stack([d[..., 0], d[..., 1], d[..., 2]], -1)

    image = value(latlong_directions(128, 256))
    cube = CubeMap(from_latlong(image, 64))
    d = directions(20000, 9)
    assert (cube.sample(d) - value(d)).abs().max() < 0.02
    up, centre = torch.tensor([[0.0, 0, 1]]), torch.tensor([[0.0, -1, 0]])
    assert cube.sample(up)[0, 2] > 0.99
    assert cube.sample(centre)[0, 1] < -0.99
    assert image[64, 160, 0] > 0  # columns right of the centre look towards +x


def test_specular_levels_span_the_roughness_range() -> None:
    levels = level_of(torch.tensor([0.0, *LEVEL_ROUGHNESS, 2.0]))
    assert torch.allclose(levels, torch.tensor([0.0, 0, 1, 2, 3, 4, 5, 5]), atol=1e-5)


def test_bad_pixels_are_replaced_with_a_message_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    image = torch.ones(8, 16, 3)
    image[2, 3, 1] = float("nan")
    image[4, 4, 0] = float("inf")
    image[5, 5] = 7.0
    with caplog.at_level(logging.WARNING):
        fixed = EnvMap(image).image
    assert "2 of 128 pixels" in caplog.text
    assert fixed[2, 3, 1] == 0.0
    assert fixed[4, 4, 0] == 7.0
    with pytest.raises(NumericalError, match="all 128 pixels"):
        EnvMap(torch.full((8, 16, 3), float("nan")))
    with pytest.raises(InvalidArgumentError, match="H, W, 3"):
        EnvMap(torch.ones(8, 16))
    with pytest.raises(InvalidArgumentError, match="power of two"):
        EnvMap(torch.ones(8, 16, 3), cube_size=100)


def test_hdr_files_are_read_as_linear_rgb(tmp_path: Path) -> None:
    import cv2

    rgb = np.tile(np.array([4.0, 1.0, 0.25], dtype=np.float32), (4, 8, 1))
    _, data = cv2.imencode(".hdr", rgb[..., ::-1])
    (tmp_path / "sky.hdr").write_bytes(data.tobytes())
    assert np.allclose(read_hdr(tmp_path / "sky.hdr").numpy(), rgb, rtol=0.02)
    (tmp_path / "broken.hdr").write_bytes(b"#?RADIANCE nothing more")
    (tmp_path / "empty.exr").write_bytes(b"")
    for name in ("broken.hdr", "empty.exr", "missing.hdr"):
        with pytest.raises(InvalidImageError, match=name):
            read_hdr(tmp_path / name)


def test_the_studio_is_a_sound_environment() -> None:
    image = studio(64)
    assert image.shape == (64, 128, 3)
    assert bool(torch.isfinite(image).all())
    assert 0.5 < float(irradiance(from_latlong(image, 16)).mean()) < 1.5
    assert default_envmap("studio").image.shape == (256, 512, 3)
    with pytest.raises(InvalidArgumentError, match="moon"):
        default_envmap("moon")


def test_the_studio_stands_in_for_a_forest_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from trellis2.renderers.environment import environments

    (tmp_path / "forest.exr").write_bytes(environments.EXR_MAGIC + b"and nothing else")
    monkeypatch.setattr(environments, "FOREST", tmp_path / "forest.exr")
    environments._default.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            light = default_envmap()
        assert "studio is used instead" in caplog.text
        assert light.image.shape == (256, 512, 3)
        assert default_envmap() is light
        with pytest.raises(InvalidImageError, match=r"forest\.exr"):
            default_envmap("forest")
    finally:
        environments._default.cache_clear()


def test_exr_files_are_read_as_linear_rgb(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR")
    rgb = np.tile(np.array([4.0, 1.0, 0.25], dtype=np.float32), (4, 8, 1))
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    exr.File(header, {"RGB": rgb}).write(str(tmp_path / "sky.exr"))
    assert np.allclose(read_hdr(tmp_path / "sky.exr").numpy(), rgb)
