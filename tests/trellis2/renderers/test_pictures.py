"""The renderers against analytic spheres, and what they promise about layers, edges and bad input."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tests.trellis2.renderers.shapes import sphere, with_voxels
from trellis2.errors import InvalidArgumentError
from trellis2.renderers import EnvMap, MeshRenderer, PbrMeshRenderer, VoxelRenderer
from trellis2.renderers.projection import pixel_rays
from trellis2.renderers.shading.normals import face_eye, smooth_normals, vertex_normals
from trellis2.renderers.shading.tonemap import aces, develop, develop_torch, encode
from trellis2.representations import Mesh, MeshWithPbrMaterial, PbrMaterial, Texture, Voxel, WrapMode
from trellis2.utils.cameras import orbit_camera

WHITE = [1.0, 1.0, 1.0, 0.0, 1.0, 1.0]
CAMERA = orbit_camera(0.7, 0.3, 2.0, 40.0)


@pytest.fixture(scope="module")
def furnace() -> EnvMap:
    return EnvMap(torch.full((16, 32, 3), 0.5), cube_size=32)


def analytic_sphere(size: int, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask and camera z of a sphere at the origin seen from 2 away."""
    rays = F.normalize(pixel_rays(CAMERA[1], size, size), dim=-1)
    along = rays[..., 2] * 2.0
    square = along**2 - (4.0 - radius**2)
    distance = along - square.clamp(min=0).sqrt()
    return square > 0, torch.where(square > 0, distance * rays[..., 2], 0.0)


@pytest.mark.parametrize("kind", ["mesh", "pbr"])
def test_silhouette_and_depth_are_the_analytic_ones(kind: str, furnace: EnvMap) -> None:
    vertices, faces = sphere(300)
    if kind == "mesh":
        out = MeshRenderer({"resolution": 128}).render(Mesh(vertices, faces), *CAMERA)
    else:
        renderer = PbrMeshRenderer({"resolution": 128, "near": 0.1})
        out = renderer.render(with_voxels(vertices, faces, WHITE), *CAMERA, furnace, keys=["mask", "depth"])
    mask, depth = analytic_sphere(128, 0.4)
    wrong = (out["mask"] > 0.5) != mask
    # only pixels at the outline may differ: eroding and dilating the disc by one pixel must contain them
    grown = F.max_pool2d(mask[None].float(), 3, 1, 1)[0] > 0
    shrunk = F.max_pool2d(1.0 - mask[None].float(), 3, 1, 1)[0] == 0
    assert not (wrong & (shrunk | ~grown)).any()
    assert (out["depth"] - depth)[shrunk].abs().max() < 2e-3
    assert (out["depth"][~grown] == 0).all()


def test_normals_are_smooth_in_spite_of_random_winding(furnace: EnvMap) -> None:
    mesh = with_voxels(*sphere(60), WHITE)
    out = PbrMeshRenderer({"resolution": 96, "near": 0.1}).render(mesh, *CAMERA, furnace, keys=["normal"])
    mask, depth = analytic_sphere(96, 0.4)
    inner = F.max_pool2d(1.0 - mask[None].float(), 5, 1, 2)[0] == 0
    points = pixel_rays(CAMERA[1], 96, 96) * depth[..., None] - CAMERA[0][:3, 3]
    exact = 0.5 - 0.5 * F.normalize(points, dim=-1)
    assert (out["normal"].permute(1, 2, 0) - exact)[inner].abs().max() < 0.02
    assert (out["normal"][:, 0, 0] == 0.5).all()
    flat = PbrMeshRenderer({"resolution": 96, "near": 0.1, "flat": True})
    steps = flat.render(mesh, *CAMERA, furnace, keys=["normal"])["normal"].permute(1, 2, 0)
    assert (steps - exact)[inner].abs().max() > 0.01
    # red is high where the surface turns left, green up, blue towards the camera
    normal = out["normal"]
    assert normal[0, 48, 30] > 0.6 > 0.4 > normal[0, 48, 66]
    assert normal[1, 30, 48] > 0.6 > 0.4 > normal[1, 66, 48]
    assert normal[2, 48, 48] > 0.95


def test_creases_stay_sharp() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1]])
    faces = torch.tensor([[0, 1, 2], [1, 3, 2], [0, 4, 1], [4, 5, 1]], dtype=torch.int32)
    normals = vertex_normals(vertices, faces)
    flat = torch.tensor([[0.0, 0, 1], [0.0, 1, 0]])
    weights = torch.full((2, 2), 0.3)
    got = smooth_normals(normals, faces, torch.tensor([0, 2]), weights, flat)
    assert torch.allclose(got, flat, atol=1e-5)


def test_face_eye_leaves_visible_normals_alone() -> None:
    eye = torch.tensor([[0.0, 0, 1], [0.0, 0, 1]])
    normal = F.normalize(torch.tensor([[1.0, 0, 1], [1.0, 0, -0.2]]), dim=-1)
    bent = face_eye(normal, eye)
    assert torch.allclose(bent[0], normal[0])
    assert (bent * eye).sum(-1).min() > 0.0


def test_furnace_object_vanishes_into_its_environment(furnace: EnvMap) -> None:
    mesh = with_voxels(*sphere(60), WHITE)
    renderer = PbrMeshRenderer({"resolution": 64, "ssaa": 2, "near": 0.1})
    out = renderer.render(mesh, *CAMERA, furnace, use_envmap_bg=True)
    # a white convex body under constant light cannot be told from the light
    expected = float(encode(aces(torch.tensor(0.5))))
    assert (out["shaded"] - expected).abs().max() < 0.015
    assert out["clay"][32, 32] > 0.99
    assert out["clay"][0, 0] == 0.0


@pytest.mark.parametrize("ssaa", [1, 2, 3])
@pytest.mark.parametrize("backdrop", [None, "flat", "picture"])
def test_the_developing_kernel_is_the_torch_one(ssaa: int, backdrop: str | None) -> None:
    generator = torch.Generator().manual_seed(ssaa)
    size = 14 * ssaa
    coverage = (torch.rand((size**2, 1), generator=generator) * 2 - 0.5).clamp(0.0, 1.0)
    colour = torch.rand((size**2, 3), generator=generator) * 3.0 * coverage
    light = torch.rand((size**2, 1), generator=generator)
    behind = {None: None, "flat": torch.tensor([[0.2, 0.5, 0.9]]), "picture": torch.rand(14 * 14, 3)}[
        backdrop
    ]
    given = (colour, light, coverage, ssaa, behind)
    assert develop(*given).shape == (3, 14, 14)
    assert (develop(*given) - develop_torch(*given)).abs().max() < 1e-4


def test_transparent_layers_blend_front_to_back(furnace: EnvMap) -> None:
    black = [0.0, 0.0, 0.0, 0.0, 1.0, 0.25]
    mesh = with_voxels(*sphere(40), black)
    light = furnace

    def centre(layers: int) -> float:
        options = {"resolution": 33, "near": 0.1, "peel_layers": layers, "background": (1.0, 1.0, 1.0)}
        return float(PbrMeshRenderer(options).render(mesh, *CAMERA, light)["shaded"][:, 16, 16].mean() ** 2.2)

    # each layer takes a quarter of the white behind it, and adds only its faint reflection
    for layers, through in ((1, 0.75), (2, 0.75**2), (8, 0.75**2)):
        assert through <= centre(layers) < through + 0.05


def test_opaque_objects_cost_one_layer(furnace: EnvMap, monkeypatch: pytest.MonkeyPatch) -> None:
    from trellis2.renderers import frame

    taken = []
    peel = frame.peel

    def counted(*args: object) -> object:
        for layer in peel(*args):  # type: ignore[arg-type]
            taken.append(layer)
            yield layer

    monkeypatch.setattr(frame, "peel", counted)
    renderer = PbrMeshRenderer({"resolution": 32, "near": 0.1})
    renderer.render(with_voxels(*sphere(30), WHITE), *CAMERA, furnace)
    assert len(taken) == 1
    taken.clear()
    renderer.render(with_voxels(*sphere(30), [*WHITE[:5], 0.5]), *CAMERA, furnace)
    assert len(taken) == 2


def test_maps_carry_the_attributes_and_the_same_seed_the_same_picture(furnace: EnvMap) -> None:
    mesh = with_voxels(*sphere(40), [0.2, 0.4, 0.6, 0.3, 0.7, 1.0])
    renderer = PbrMeshRenderer({"resolution": 32, "ssaa": 2, "near": 0.1})
    out = renderer.render(mesh, *CAMERA, {"a": furnace, "b": furnace})
    assert torch.allclose(out.base_color[:, 16, 16], torch.tensor([0.2, 0.4, 0.6]), atol=1e-5)
    got = [float(out[k][16, 16]) for k in ("metallic", "roughness", "alpha", "mask")]
    assert got == pytest.approx([0.3, 0.7, 1.0, 1.0], abs=1e-5)
    assert {"shaded_a", "shaded_b"} <= set(out)
    assert torch.equal(out["shaded_a"], out["shaded_b"])
    again = renderer.render(mesh, *CAMERA, furnace)
    assert torch.equal(again["shaded"], out["shaded_a"])
    mesh.attrs.mul_(0.5)  # an edited object is not served from the cache
    assert float(renderer.render(mesh, *CAMERA, furnace)["metallic"][16, 16]) == pytest.approx(0.15, abs=1e-5)


def test_vertex_and_pixel_attributes_look_the_same(furnace: EnvMap) -> None:
    vertices, faces = sphere(120)
    renderer = PbrMeshRenderer({"resolution": 48, "near": 0.1})
    coarse, fine = (with_voxels(vertices, faces, WHITE, resolution=n) for n in (16, 128))
    for mesh in (coarse, fine):  # dense against 16 voxels, sparse against 128
        position = mesh.position
        mesh.attrs = torch.cat(
            [position + 0.5, torch.zeros(len(position), 2), torch.ones(len(position), 1)], 1
        )
    a = renderer.render(coarse, *CAMERA, furnace, keys=["base_color"])["base_color"]
    b = renderer.render(fine, *CAMERA, furnace, keys=["base_color"])["base_color"]
    assert (a - b).abs().max() < 5e-3


def test_textured_materials(furnace: EnvMap) -> None:
    vertices = torch.tensor([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    uv = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])[faces.long()]
    image = torch.zeros(2, 2, 3)
    image[0, 0, 0] = image[1, 1, 1] = 1.0  # red in row 0, column 0
    texture = Texture(image, wrap_mode=WrapMode.CLAMP_TO_EDGE)
    material = PbrMaterial(base_color_texture=texture, metallic_factor=0.25, roughness_factor=0.5)
    mesh = MeshWithPbrMaterial(vertices, faces, torch.zeros(2), uv, [material])
    camera = orbit_camera(math.pi, 0.0, 2.0, 2 * math.degrees(math.atan(0.25)))  # from -y: +x is right
    out = PbrMeshRenderer({"resolution": 64, "near": 0.1}).render(mesh, *camera, furnace)
    assert torch.allclose(out.base_color[:, 4, 4], torch.tensor([1.0, 0, 0]), atol=0.3)
    assert torch.allclose(out.base_color[:, 59, 59], torch.tensor([0.0, 1, 0]), atol=0.3)
    assert out.base_color[:, 4, 59].max() < 0.3
    assert float(out.metallic[20, 20]) == pytest.approx(0.25)
    plain = MeshRenderer({"resolution": 64}).render(mesh, *camera, return_types=["attr"])
    assert torch.allclose(plain["base_color"], out["base_color"], atol=1e-5)


def test_a_camera_inside_the_object_gives_a_finite_picture(furnace: EnvMap) -> None:
    inside = orbit_camera(0.3, 0.1, 0.05, 60.0)
    renderer = PbrMeshRenderer({"resolution": 32, "ssaa": 2, "near": 0.01})
    out = renderer.render(with_voxels(*sphere(40), WHITE), *inside, furnace)
    assert all(bool(torch.isfinite(image).all()) for image in out.values())
    assert out["mask"].min() > 0.99


def test_empty_meshes_give_empty_pictures(furnace: EnvMap) -> None:
    nothing = torch.zeros((0, 3)), torch.zeros((0, 3), dtype=torch.int32)
    out = PbrMeshRenderer({"resolution": 16}).render(with_voxels(*nothing, WHITE), *CAMERA, furnace)
    assert all(float(out[k].abs().max()) == 0.0 for k in ("shaded", "mask", "base_color", "clay", "depth"))
    plain = MeshRenderer({"resolution": 16}).render(Mesh(*nothing), *CAMERA)
    assert float(plain["mask"].max()) == 0.0
    assert (plain["normal"] == 0.5).all()


def test_what_cannot_be_rendered_is_refused(furnace: EnvMap) -> None:
    mesh = with_voxels(*sphere(10), WHITE)
    renderer = PbrMeshRenderer({"resolution": 16})
    with pytest.raises(InvalidArgumentError, match="unknown rendering options"):
        PbrMeshRenderer({"resolutoin": 16})
    with pytest.raises(InvalidArgumentError, match="near"):
        PbrMeshRenderer({"near": 5.0, "far": 1.0})
    with pytest.raises(InvalidArgumentError, match="resolution"):
        PbrMeshRenderer({"resolution": 0})
    with pytest.raises(InvalidArgumentError, match="no PBR attributes"):
        renderer.render(Mesh(*sphere(10)), *CAMERA, furnace)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="one view"):
        renderer.render(mesh, CAMERA[0][None], CAMERA[1], furnace)
    with pytest.raises(InvalidArgumentError, match="up vector"):
        renderer.render(mesh, *orbit_camera(0.0, math.pi / 2, 0.0, 40.0), furnace)
    with pytest.raises(InvalidArgumentError, match="glitter"):
        renderer.render(mesh, *CAMERA, furnace, keys=["glitter"])
    mesh.vertices[3] = float("nan")
    with pytest.raises(InvalidArgumentError, match="1 of 200 vertices"):
        renderer.render(mesh, *CAMERA, furnace)
    with pytest.raises(InvalidArgumentError, match="no vertex attributes"):
        MeshRenderer().render(Mesh(*sphere(10)), *CAMERA, return_types=["attr"])


def test_a_voxel_is_a_cube_with_its_named_attributes() -> None:
    layout = {"color": slice(0, 3), "shine": slice(3, 4)}
    one = torch.zeros((1, 3), dtype=torch.int32)
    voxel = Voxel([-0.25] * 3, 0.5, one, torch.tensor([[0.2, 0.4, 0.6, 0.8]]), layout)
    camera = orbit_camera(0.0, 0.0, 2.0, 40.0)
    out = VoxelRenderer({"resolution": 64}).render(voxel, *camera)
    assert torch.allclose(out["color"][:, 32, 32], torch.tensor([0.2, 0.4, 0.6]))
    assert float(out["shine"].max()) == pytest.approx(0.8)
    # the near side is 1.75 away, half a unit wide
    half = 0.25 / 1.75 / math.tan(math.radians(20)) * 32
    assert abs(float(out["alpha"][32].sum()) - 2 * half) <= 1.0
    assert float(out["depth"][32, 32]) == pytest.approx(1.75, abs=2e-3)
    own = VoxelRenderer({"resolution": 16, "ssaa": 2}).render(voxel, *camera, torch.tensor([[1.0, 0, 0]]))
    assert torch.allclose(own["color"][:, 8, 8], torch.tensor([1.0, 0, 0]), atol=1e-5)
    with pytest.raises(InvalidArgumentError, match="2 colours for 1"):
        VoxelRenderer().render(voxel, *camera, torch.ones(2, 3))


def test_occlusion_is_the_published_rule_under_reference_quirks() -> None:
    """On a ball nothing lies in front: what the published rule takes is the slanted surface's own."""
    ball = with_voxels(*sphere(), WHITE)
    taken = {}
    for name, quirks, flat in (("ours", False, False), ("quirks", True, False), ("flat", False, True)):
        light = EnvMap(torch.ones(16, 32, 3), reference_quirks=quirks, cube_size=16)
        renderer = PbrMeshRenderer({"resolution": 128, "flat": flat})
        out = renderer.render(ball, *CAMERA, light, keys=["shaded", "clay", "mask"])
        taken[name] = float(1 - out["clay"][out["mask"] == 1].mean())
    assert taken["ours"] < 0.02
    assert taken["quirks"] > 0.05
    assert taken["quirks"] == pytest.approx(taken["flat"], rel=0.25)
