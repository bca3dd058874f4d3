"""The ways that only a GPU takes, on one that is simulated: no operand left behind, no detour over the CPU.

What these tests cannot show, that the kernels compute the same there, `make gpu-test` shows on a real one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from o_voxel import kernels
from o_voxel.convert import flexible_dual_grid_to_mesh, mesh_to_flexible_dual_grid
from o_voxel.mesh import TriangleBVH, unify_orientations
from o_voxel.postprocess import to_glb

from benchmarks.glb import BOX, arguments, baked_colours, psnr
from benchmarks.objects import asset_of, attributes_at, benchmark_object
from trellis2.renderers import EnvMap, studio
from trellis2.representations import PBR_ATTR_LAYOUT, Mesh, Voxel
from trellis2.utils.render_utils import render_snapshot, render_video

from .simulated_cuda import CUDA, DeviceError, OnGpu, on_gpu, simulated_cuda

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"o_voxel": ROOT / "o-voxel", "trellis2": ROOT}
WARP_KERNELS = sorted(
    ".".join(file.relative_to(folder).with_suffix("").parts)
    for package, folder in PACKAGES.items()
    for file in (folder / package).rglob("*_kernels.py")
    if "import warp" in file.read_text()
)


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """25,000 faces."""
    return benchmark_object(64)


@pytest.mark.skipif(sys.platform == "darwin", reason="Warp has no CUDA compiler for macOS")
@pytest.mark.parametrize("module", WARP_KERNELS)
@pytest.mark.parametrize("arch", [75, 90])
def test_kernels_compile_for_cuda(module: str, arch: int, tmp_path: Path) -> None:
    wp: Any = kernels.warp_module()
    wp.compile_aot_module(importlib.import_module(module), arch=arch, module_dir=tmp_path, use_ptx=True)
    (code,) = tmp_path.glob("*.ptx")
    assert f".target sm_{arch}" in code.read_text()


@pytest.mark.parametrize("remesh", [False, True])
def test_to_glb_stays_on_the_gpu(made: dict[str, Any], remesh: bool) -> None:
    faces = 2000
    with simulated_cuda() as gpu:
        asset = to_glb(
            **on_gpu(arguments(made)),
            decimation_target=faces,
            texture_size=256,
            normal_map=True,
            remesh=remesh,
        )
    assert asset.report.boundary_edges == 0
    assert asset.report.faces == pytest.approx(faces, rel=0.02)
    points, shown = baked_colours(asset)
    assert psnr(shown, attributes_at(torch.from_numpy(points).float())[:, :3].numpy()) > 30
    # Charts are packed and faces are put into cache order on the CPU, one after the other; what the file
    # holds comes there in the end.
    assert {name.split(".")[0] for name in gpu.copied} <= {"packing", "pipeline", "vertex_cache"}
    assert gpu.waits < 2000


@pytest.mark.parametrize(
    ("render", "frames"), [(render_video, {"num_frames": 3}), (render_snapshot, {"nviews": 2})]
)
def test_pictures_are_made_on_the_gpu(
    made: dict[str, Any], render: Callable[..., dict[str, list[np.ndarray]]], frames: dict[str, int]
) -> None:
    light = EnvMap(studio(32), cube_size=32)
    here = render(asset_of(made), 96, envmap=light, **frames)
    with simulated_cuda() as gpu:
        there = render(asset_of(on_gpu(made)), 96, envmap=light, **frames)
    assert set(there) == set(here)
    for name, pictures in here.items():
        for picture, other in zip(pictures, there[name], strict=True):
            assert np.abs(picture.astype(int) - other.astype(int)).max() <= 1
    assert set(gpu.copied) == {"render_utils.to_pictures"}
    views = next(iter(frames.values()))
    assert gpu.waits < 100 + 30 * views


@pytest.mark.parametrize("kind", ["plain mesh", "voxels"])
def test_maps_without_light_are_made_on_the_gpu(made: dict[str, Any], kind: str) -> None:
    def sample(values: dict[str, Any]) -> Mesh | Voxel:
        if kind == "plain mesh":
            return Mesh(values["vertices"], values["faces"])
        return Voxel([-0.5] * 3, 1 / made["resolution"], values["coords"], values["attrs"], PBR_ATTR_LAYOUT)

    here = render_video(sample(made), 64, num_frames=2)
    with simulated_cuda() as gpu:
        there = render_video(sample(on_gpu(made)), 64, num_frames=2)
    assert set(there) == set(here)
    for name, pictures in here.items():
        np.testing.assert_allclose(np.stack(pictures), np.stack(there[name]), atol=1)
    assert set(gpu.copied) == {"render_utils.to_pictures"}


def test_dual_grids_are_made_and_read_on_the_gpu(made: dict[str, Any]) -> None:
    def there_and_back(vertices: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, ...]:
        coords, dual, flags = mesh_to_flexible_dual_grid(vertices, faces, grid_size=48, aabb=BOX)
        local = dual * 48 - coords
        return coords, *flexible_dual_grid_to_mesh(coords, local, flags, None, BOX, grid_size=48)

    here = there_and_back(made["vertices"], made["faces"])
    with simulated_cuda() as gpu:
        there = there_and_back(on_gpu(made["vertices"]), on_gpu(made["faces"]))
        assert not gpu.copied
        for expected, found in zip(here, there, strict=True):
            torch.testing.assert_close(found.cpu(), expected)


def test_winding_is_unified_without_a_detour(made: dict[str, Any]) -> None:
    flipped = torch.rand(len(made["faces"]), generator=torch.Generator().manual_seed(0)) < 0.5
    mixed = torch.where(flipped[:, None], made["faces"][:, [0, 2, 1]], made["faces"])
    here = unify_orientations(made["vertices"], mixed, outward=True)[1]
    with simulated_cuda() as gpu:
        there = unify_orientations(on_gpu(made["vertices"]), on_gpu(mixed), outward=True)[1]
        assert there.device == CUDA
        assert torch.equal(there.cpu(), here)
    assert sum(gpu.copied.values()) == here.numel() * 4


def test_the_simulation_refuses_what_a_gpu_refuses() -> None:
    wp: Any = kernels.warp_module()
    from o_voxel.postprocess.textures.gutter_kernels import jump_kernel

    with simulated_cuda():
        there = torch.arange(3, device="cuda", dtype=torch.float32)
        assert isinstance(there, OnGpu)
        assert there.is_cuda
        assert (there * torch.tensor(2.0)).device == CUDA
        assert there.cpu().device.type == "cpu"
        with pytest.raises(DeviceError, match="1 tensors on the GPU and 1 on the CPU"):
            there + torch.ones(3)
        with pytest.raises(DeviceError, match="cpu"):
            there.numpy()
        tree = TriangleBVH(on_gpu(torch.eye(3)), on_gpu(torch.tensor([[0, 1, 2]])))
        tree.vertices = tree.vertices.cpu()
        with pytest.raises(DeviceError, match="on the GPU"):
            tree.points_at(on_gpu(torch.tensor([0])), on_gpu(torch.ones((1, 3))))
        seeds = [kernels.as_warp(torch.zeros(4, dtype=torch.int32, device=d)) for d in ("cuda", "cpu")]
        corners = [kernels.as_warp(on_gpu(torch.eye(3)), wp.vec3) for _ in range(2)]
        with pytest.raises(DeviceError, match="torch's stream"):
            wp.Bvh(*corners)
        with pytest.raises(DeviceError, match="the other device"):
            kernels.launch(jump_kernel, 4, [1, 2, 2, *seeds], CUDA)
