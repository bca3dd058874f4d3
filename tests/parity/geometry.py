"""Checks of the geometry golden files: dual grids, attribute voxels, voxel files, space-filling curves.

Every check is driven by what its file holds, so that further files of the same kinds pass through as well.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from o_voxel import convert, serialize
from o_voxel import io as voxel_io
from o_voxel.convert.frame import grid_frame
from o_voxel.convert.from_mesh import voxel_quadrics
from o_voxel.convert.quadrics import energies
from o_voxel.convert.scanline import checked_mesh
from o_voxel.io import neighbours, octree

from .check import Comparison, check, exact

UNIT_BOX = [[-0.5] * 3, [0.5] * 3]
# The reference solves in single precision; ours is exact, so these bound the reference's rounding, in voxels.
MEAN_VOXELS, MAX_VOXELS = 2e-4, 0.1
MAX_TIES = 2e-4  # of all voxels
ATTRIBUTE_STEP = 1.0  # of 255


def _lexicographic(coords: np.ndarray) -> np.ndarray:
    return np.lexsort(coords.astype(np.int64).T[::-1])


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _grid_arguments(golden: Any) -> dict[str, Any]:
    names = ("voxel_size", "grid_size")
    given = {name: golden[name] for name in names if name in golden.files}
    return given | {"aabb": golden["aabb"] if "aabb" in golden.files else UNIT_BOX}


@check("geometry/fdg_*.npz")
def dual_grid(path: Path) -> list[Comparison]:
    """Voxel set and flags exactly; dual vertices in voxels, on average a coordinate and at most.

    The reference compares energies in single precision, so where the best points of two box sides differ by
    less than that resolves it takes either. Those voxels must be few, and our point must
    then be the better one.
    """
    golden = np.load(path)
    vertices, faces = checked_mesh(torch.from_numpy(golden["vertices"]), torch.from_numpy(golden["faces"]))
    frame = grid_frame(**_grid_arguments(golden))
    face, boundary, regularization = golden["weights"].tolist()
    weights = {"face_weight": face, "boundary_weight": boundary, "regularization_weight": regularization}
    coords, dual, flags = convert.mesh_to_flexible_dual_grid(
        vertices, faces, **_grid_arguments(golden), **weights
    )
    order = _lexicographic(golden["voxel_indices"])
    results = [exact("voxel_indices", _numpy(coords), golden["voxel_indices"][order])]
    if not results[0].ok:
        return results
    results.append(exact("intersected", _numpy(flags) @ np.array([1, 2, 4]), golden["intersected"][order]))

    _, quadrics, _ = voxel_quadrics(vertices, faces, frame, **weights)
    reference = torch.from_numpy(golden["dual_vertices"][order]).double()
    error = (dual.double() - reference).abs() / frame.voxel_size.double()
    excess = energies(quadrics, dual.double()) - energies(quadrics, reference)
    resolution = torch.finfo(torch.float32).eps * energies(quadrics.abs(), reference.abs())
    tied = excess.abs() < resolution
    apart = (error > MAX_VOXELS).any(dim=1)
    return [
        *results,
        Comparison("dual_vertices mean", float(error.mean()), MEAN_VOXELS),
        Comparison("dual_vertices max", float(error[~(tied & apart)].max()), MAX_VOXELS),
        Comparison(
            "share of ties taken otherwise",
            float((tied & apart).double().mean()),
            max(MAX_TIES, 1 / len(coords)),
        ),
        Comparison(
            "energy above the reference's", float((excess / resolution)[apart].clamp(min=0).sum()), 0.01
        ),
    ]


@check("geometry/attr_*.npz")
def attributes(path: Path) -> list[Comparison]:
    """Voxel set exactly, every attribute byte within one."""
    golden = np.load(path)
    coords, attrs = convert.textured_mesh_to_volumetric_attr(
        _textured_mesh(golden), mip_level_offset=float(golden["mip"]), **_grid_arguments(golden)
    )
    order = _lexicographic(golden["coords"])
    results = [exact("coords", _numpy(coords), golden["coords"][order])]
    if not results[0].ok:
        return results
    for name in (n.removeprefix("out_") for n in golden.files if n.startswith("out_")):
        difference = _numpy(attrs[name]).astype(int) - golden[f"out_{name}"][order].astype(int)
        results.append(Comparison(name, float(np.abs(difference).max()), ATTRIBUTE_STEP))
    return results


def _textured_mesh(golden: Any) -> Any:
    import trimesh
    from PIL import Image

    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(golden["base_tex"]),
        metallicRoughnessTexture=Image.fromarray(golden["mr_tex"]),
        normalTexture=Image.fromarray(golden["normal_tex"]) if golden["use_normal"] else None,
        alphaMode=str(golden["alpha_mode"]),
        baseColorFactor=golden["base_factor"].astype(np.uint8),
        metallicFactor=float(golden["metallic_factor"]),
        roughnessFactor=float(golden["roughness_factor"]),
        emissiveFactor=golden["emissive_factor"],
    )
    return trimesh.Trimesh(
        golden["vertices"],
        golden["faces"],
        vertex_normals=golden["vertex_normals"],
        visual=trimesh.visual.TextureVisuals(uv=golden["uv"], material=material),
        process=False,
    )


@check("geometry/serialize.npz")
def curves(path: Path) -> list[Comparison]:
    """Codes both ways for every permutation; overflowing codes as the low 32 bits of wide ones."""
    golden = np.load(path)
    results = []
    for name in golden.files:
        mode = next((m for m in serialize.MODES if m in name), None)
        if mode is None:
            continue
        tail = name.rpartition("_")[2]
        permute = [int(c) for c in tail] if tail.isdigit() else [0, 1, 2]
        wide = name.startswith("overflow")
        source = name.removesuffix(f"_{mode}") if not tail.isdigit() else "coords"
        coords = golden["overflow_coords" if wide else source]
        bits = 13 if wide else serialize.STANDARD_BITS
        codes = _numpy(serialize.encode_seq(torch.from_numpy(coords), permute, mode, bits))
        results.append(exact(name, codes.astype(np.int32), golden[name]))
        back = serialize.decode_seq(torch.from_numpy(codes), permute, mode, bits)
        results.append(exact(f"{name} back", _numpy(back), coords))
    return results


@check("geometry/io_streams.npz")
def streams(path: Path) -> list[Comparison]:
    """The octree bytes and both attribute filters of one chunk, written and read back."""
    golden = np.load(path)
    coords, rows, depth = golden["coord"].astype(np.int64), golden["attr"], int(golden["depth"])
    tree = octree.encode_octree(golden["code"].astype(np.int64), depth)
    parsed = octree.decode_octree(golden["svo"], depth, len(coords))
    return [
        exact("svo", tree.data, golden["svo"]),
        exact("svo codes", parsed.codes, golden["code"]),
        exact("parent", octree.predict_from_siblings(tree, rows), golden["parent"]),
        exact("parent back", octree.restore_from_siblings(parsed, golden["parent"]), rows),
        exact("neighbor", neighbours.predict_from_neighbours(coords, rows), golden["neighbor"]),
        exact("neighbor back", neighbours.restore_from_neighbours(coords, golden["neighbor"]), rows),
    ]


def _voxels(path: Path) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Voxels of a plain archive, by numpy alone."""
    golden = np.load(path)
    attrs = {name: torch.from_numpy(golden[name]) for name in golden.files if name != "coord"}
    return torch.from_numpy(golden["coord"].astype(np.int32)), attrs


def _compare_voxels(
    coords: torch.Tensor, attrs: dict[str, torch.Tensor], wanted: dict[str, np.ndarray]
) -> list[Comparison]:
    results = [exact("coord", _numpy(coords), wanted["coord"])]
    return results + [exact(name, _numpy(attrs[name]), wanted[name]) for name in wanted if name != "coord"]


@check("geometry/io_input.npz", "geometry/io_voxels.npz")
def npz(path: Path) -> list[Comparison]:
    """Members as numpy reads them, and unchanged through our writer."""
    coords, attrs = voxel_io.read_npz(path)
    golden = np.load(path)
    wanted = {name: golden[name] for name in golden.files}
    again = io.BytesIO()
    voxel_io.write_npz(again, coords, attrs)
    again.seek(0)
    return _compare_voxels(coords, attrs, wanted) + _compare_voxels(*voxel_io.read_npz(again), wanted)


@check("geometry/io_*.ply")
def ply(path: Path) -> list[Comparison]:
    """The same bytes when what was read is written again; the same voxels as the archive of that name."""
    coords, attrs = voxel_io.read_ply(path)
    again = io.BytesIO()
    voxel_io.write_ply(again, coords, attrs)
    ours, stored = (np.frombuffer(b, np.uint8) for b in (again.getvalue(), path.read_bytes()))
    results = [exact("bytes", ours, stored)]
    twin = path.with_suffix(".npz")
    if twin.exists():
        golden = np.load(twin)
        results += _compare_voxels(coords, attrs, {name: golden[name] for name in golden.files})
    return results


@check("geometry/vxz_*.vxz")
def vxz(path: Path) -> list[Comparison]:
    """The arrays that the reference decoded; our own file byte for byte where nothing is compressed."""
    coords, attrs = voxel_io.read_vxz(path)
    info = voxel_io.read_vxz_info(path)
    results = []
    decoded = path.parent / "io_vxz_decoded.npz"
    prefix = path.stem.removeprefix("vxz_") + "__"
    if decoded.exists():
        golden = np.load(decoded)
        wanted = {n.removeprefix(prefix): golden[n] for n in golden.files if n.startswith(prefix)}
        results += _compare_voxels(coords, attrs, wanted) if wanted else []
    source, source_attrs = _voxels(path.parent / "io_input.npz")
    again = io.BytesIO()
    names = ("chunk_size", "filter", "compression", "compression_level", "attr_interleave")
    voxel_io.write_vxz(again, source, source_attrs, **{name: info[name] for name in names})
    if info["compression"] == "none":
        ours, stored = (np.frombuffer(b, np.uint8) for b in (again.getvalue(), path.read_bytes()))
        results.append(exact("bytes", ours, stored))
    again.seek(0)
    wanted = {"coord": _numpy(coords)} | {name: _numpy(value) for name, value in attrs.items()}
    return results + _compare_voxels(*voxel_io.read_vxz(again), wanted)


@check("geometry/io_vxz_decoded.npz")
def decoded_vxz(path: Path) -> list[Comparison]:
    """Every group of arrays has its file beside it and is what that file holds."""
    golden = np.load(path)
    results = []
    for group in sorted({name.partition("__")[0] for name in golden.files}):
        coords, attrs = voxel_io.read_vxz(path.parent / f"vxz_{group}.vxz")
        prefix = f"{group}__"
        wanted = {n.removeprefix(prefix): golden[n] for n in golden.files if n.startswith(prefix)}
        results += _compare_voxels(coords, attrs, wanted)
    return results
