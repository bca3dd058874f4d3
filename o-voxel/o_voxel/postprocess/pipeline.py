"""`to_glb`: a decoded mesh with attribute voxels to a textured asset, one call a step."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from ..convert.frame import Box, Triple
from ..errors import ArgumentError, MeshError
from ..mesh.charts.unwrap import Unwrapped, unwrap
from ..mesh.creases import shading_normals
from ..mesh.quality import signed_volume
from ..mesh.rebuild.solid import wall_thickness
from ..mesh.repair.holes import fill_holes
from ..mesh.spatial.bvh import TriangleBVH
from ..mesh.vertex_cache import cache_order, fetch_order
from .asset import GlbAsset
from .geometry import (
    HOLE_PERIMETER,
    clean_and_simplify,
    evened,
    is_frayed,
    rebuilt,
    remesh_and_simplify,
    simplified_closed,
)
from .material import ALPHA_MODES, Material, check_texture_format, choose_alpha_mode
from .placement import to_y_up
from .printing import printable
from .report import MeshReport, Progress, StepTimes, inside_out, topology
from .source import Source, check_budget, check_source
from .textures.bake import Layout, Textures, bake, fill_gutters
from .textures.tangents import vertex_tangents
from .translucency import translucent_faces

log = logging.getLogger(__name__)

MOST_LEVELS = 6
MOST_WALL = 0.25
LEAST_FACES, LEAST_TEXTURE = 64, 64
"""Of the coarser levels of detail."""

STEPS = ("fill holes", "rebuild", "search tree", "simplify", "unwrap", "bake", "gutters", "material")


def to_glb(
    vertices: Any,
    faces: Any,
    attr_volume: Any,
    coords: Any,
    attr_layout: Mapping[str, slice],
    aabb: Box,
    voxel_size: Triple | None = None,
    grid_size: Triple | None = None,
    decimation_target: int = 1_000_000,
    texture_size: int = 2048,
    remesh: bool | Literal["auto", "always"] = "auto",
    remesh_band: float = 1,
    remesh_project: float = 0.9,
    mesh_cluster_threshold_cone_half_angle_rad: float = np.pi / 2,
    mesh_cluster_refine_iterations: int = 0,
    mesh_cluster_global_iterations: int = 1,
    mesh_cluster_smooth_strength: float = 1,
    verbose: bool = False,
    use_tqdm: bool = False,
    *,
    alpha_mode: str = "auto",
    texture_format: str = "png",
    normal_map: bool = False,
    occlusion: bool = False,
    outer_shell: bool | None = None,
    double_sided: bool | None = None,
    lods: int = 1,
    flat_base: bool = False,
    wall: float = 0.0,
    progress: Progress | None = None,
) -> GlbAsset:
    """Turn a decoded asset into a textured mesh of a given budget, ready to export.

    Args:
        vertices, faces: the dense mesh, [N, 3] float and [M, 3] integer, z up. Torch (any device) or numpy.
        attr_volume, coords: attributes [L, C] in [0, 1] (or uint8) and their voxels [L, 3]; values outside
            are clipped.
        attr_layout: columns of base_color (3), metallic, roughness, alpha (1 each).
        aabb, voxel_size, grid_size: where the voxels lie; give one size (voxel_size wins).
        decimation_target: the most *faces* of the result.
        texture_size: texels a side, 16 to 8192.
        remesh: auto looks at the surface: a sound one is simplified as it is, a frayed one is rebuilt as one
            closed outward surface that follows it; always rebuilds a sound one, too. True replaces any
            surface by a closed one at `remesh_band` voxels' distance, moved back by the share
            `remesh_project` (0 leaves it that much larger), as the reference does. False never rebuilds.
        mesh_cluster_threshold_cone_half_angle_rad: bound on a chart's normal cone; smaller means more and
            flatter charts.
        mesh_cluster_refine_iterations: rounds of straightening chart borders beyond the usual eight.
        mesh_cluster_global_iterations, mesh_cluster_smooth_strength, use_tqdm: accepted because the reference
            has them; without effect here (for a bar, use `progress`).
        verbose: log each step at INFO instead of DEBUG.
        alpha_mode: auto, opaque, mask or blend; auto keeps an asset without transparent parts opaque.
        texture_format: png (exact), jpeg (png where that would cost too much, and for alpha) or webp
            (smallest; viewers need EXT_texture_webp; jpeg for a map above 2048 that webp holds without loss
            only). `encode` states what is lost.
        normal_map: bake the dense surface's normals, and export tangents.
        occlusion: bake how much of its surroundings each vertex sees past the asset into the red channel of
            the metallic-roughness map.
        outer_shell: with `remesh`, keep only the skin that the outside can reach. True, for printing, also
            fills hollow bodies whose walls have holes, and lays the skin on the surface whatever
            `remesh_band` and `remesh_project` say. None: unless the asset is translucent, when inner walls
            show.
        double_sided: None: only if `remesh` is False, as the reference; a closed surface needs one side.
        lods: levels of detail, 1 to 6. Each has a quarter of the faces and of the texels of the one before,
            and textures of its own.
        flat_base: with `outer_shell`, press the lowest 1.5 % flat, so that a print stands.
        wall: with `outer_shell`, make thinner parts this thick; a share of the longest side.
        progress: called as (step, index, count) when a step of STEPS begins; raise from it to cancel.
    Raises:
        MeshError: empty or not finite mesh, indices out of range, only degenerate faces, outside the box.
        ArgumentError: any other argument that cannot be; the message says which.
    """
    check_budget(decimation_target, texture_size)
    check_texture_format(texture_format)
    if alpha_mode not in ALPHA_MODES:
        raise ArgumentError(f"alpha_mode {alpha_mode!r}: one of {', '.join(ALPHA_MODES)}")
    if not 1 <= lods <= MOST_LEVELS:
        raise ArgumentError(f"lods must lie between 1 and {MOST_LEVELS}, got {lods}")
    if remesh not in (True, False, "auto", "always"):
        raise ArgumentError(f"remesh {remesh!r}: one of True, False, auto, always")
    if not 0 <= wall <= MOST_WALL:
        raise ArgumentError(f"wall must lie between 0 and {MOST_WALL} of the longest side, got {wall}")
    if outer_shell and remesh is False:
        raise ArgumentError("outer_shell needs remesh: only a remeshed surface is surely closed")
    source = check_source(vertices, faces, attr_volume, coords, attr_layout, aabb, voxel_size, grid_size)
    times = StepTimes(STEPS, progress, source.vertices.device)

    with times.step("fill holes"):
        reference_mesh = fill_holes(source.vertices, source.faces, HOLE_PERIMETER)
    with times.step("rebuild"):
        frayed = not outer_shell and (remesh == "always" or (remesh == "auto" and is_frayed(reference_mesh)))
        notes: list[str] = []
        if frayed:
            made = rebuilt(source)
            reference_mesh, notes = (made.vertices, made.faces), made.findings()
    with times.step("search tree"):
        reference = TriangleBVH(*reference_mesh)
    with times.step("simplify"):
        if outer_shell:
            mesh, notes = printable(source, decimation_target, flat_base, wall)
        elif frayed:
            mesh = simplified_closed(reference_mesh, decimation_target)
        elif remesh is True:
            only_outer = not source.translucent if outer_shell is None else outer_shell
            mesh = remesh_and_simplify(
                source, reference, decimation_target, remesh_band, remesh_project, only_outer
            )
        else:
            mesh = clean_and_simplify(reference_mesh, decimation_target)
            if remesh == "auto":
                mesh = simplified_closed(mesh, decimation_target)
        if not len(mesh[1]):
            raise MeshError(f"nothing is left of {len(source.faces)} faces: all of them are degenerate")
    finish = Finish(
        cone_half_angle=mesh_cluster_threshold_cone_half_angle_rad,
        smooth_iterations=8 + mesh_cluster_refine_iterations,
        normal_map=normal_map,
        occlusion=occlusion,
        alpha_mode=alpha_mode,
        double_sided=remesh is False if double_sided is None else double_sided,
        texture_format=texture_format,
        # An offset surface keeps its distance: its nearest point is always the right one.
        recheck=remesh is not True or bool(outer_shell),
    )
    asset = _textured(source, reference, evened(mesh), finish, texture_size, times)
    asset.report.notes += notes
    asset.report.inside_out = inside_out(*mesh)
    if outer_shell:
        thickness = wall_thickness(*mesh)
        asset.report.thinnest = float(thickness[thickness.isfinite()].quantile(0.01))
    lower = []
    for level in range(1, lods):
        coarser = clean_and_simplify if isinstance(remesh, bool) else simplified_closed
        mesh = coarser(mesh, max(decimation_target // 4**level, LEAST_FACES))
        silent = StepTimes(STEPS, None, source.vertices.device)
        size = max(texture_size // 2**level, LEAST_TEXTURE)
        lower.append(_textured(source, reference, evened(mesh), finish, size, silent))
        times.seconds[f"level {level}"] = sum(silent.seconds.values())
    if lower:
        asset.report.lods = [level.report.faces for level in lower]
        asset = replace(asset, lower=tuple(lower))
    for name, seconds in times.seconds.items():
        log.log(logging.INFO if verbose else logging.DEBUG, "%s: %.2f s", name, seconds)
    return asset


@dataclass(frozen=True)
class Finish:
    """How a mesh is unwrapped and textured; see `to_glb`."""

    cone_half_angle: float
    smooth_iterations: int
    normal_map: bool
    occlusion: bool
    alpha_mode: str
    double_sided: bool
    texture_format: str
    recheck: bool


def _textured(
    source: Source,
    reference: TriangleBVH,
    mesh: tuple[torch.Tensor, torch.Tensor],
    finish: Finish,
    texture_size: int,
    times: StepTimes,
) -> GlbAsset:
    with times.step("unwrap"):
        unwrapped = unwrap(
            *mesh,
            texture_size=texture_size,
            cone_half_angle=finish.cone_half_angle,
            smooth_iterations=finish.smooth_iterations,
        )
        layout = shaded_layout(mesh, unwrapped, finish.normal_map)
    with times.step("bake"):
        if finish.occlusion:
            own = TriangleBVH(layout.vertices, layout.faces)
            layout = replace(layout, openness=own.openness(layout.vertices, layout.normals))
        textures = bake(source, reference, layout, texture_size, recheck=finish.recheck)
    with times.step("gutters"):
        textures = fill_gutters(textures)
    with times.step("material"):
        material, notes = _material(textures, finish.alpha_mode, finish.double_sided)
        see_through = None
        if material.alpha_mode == "BLEND":
            alpha = textures.attributes[..., 5]
            see_through = translucent_faces(textures.face_id, alpha, layout.uvs, layout.faces)
        return _asset(source, layout, see_through, unwrapped, material, finish.texture_format, notes, times)


def shaded_layout(mesh: tuple[torch.Tensor, torch.Tensor], unwrapped: Unwrapped, normal_map: bool) -> Layout:
    """Normals are the mesh's before seams cut it, so shading is smooth across them; creases are hard."""
    source, shading, normals = shading_normals(*mesh)
    # a vertex of the file for each pair of a texture and a shading vertex
    pairs = unwrapped.faces.long() * len(source) + shading.long()
    pair, faces = torch.unique(pairs, return_inverse=True)
    place = torch.div(pair, len(source), rounding_mode="floor")
    vertices, uvs, normals = unwrapped.vertices[place], unwrapped.uvs[place], normals[pair % len(source)]
    faces = faces[cache_order(faces, len(pair))]
    order, faces = fetch_order(faces, len(pair))
    vertices, uvs, normals = vertices[order], uvs[order], normals[order]
    tangents = vertex_tangents(vertices, faces, uvs, normals) if normal_map else None
    return Layout(vertices, faces, uvs, normals, tangents)


def _material(textures: Textures, alpha_mode: str, double_sided: bool) -> tuple[Material, list[str]]:
    attributes = textures.attributes
    mode, note = choose_alpha_mode(alpha_mode, attributes[textures.covered][:, 5].cpu().numpy())
    notes = [note] if note else []
    if not bool(textures.covered.any()):
        notes.append("no voxel lies near the surface; the textures are black")
    metallic, roughness, alpha = attributes[..., 3:].unbind(dim=2)
    base_color = torch.cat([attributes[..., :3], alpha[..., None]], dim=2)
    occlusion = torch.zeros_like(alpha) if textures.occlusion is None else textures.occlusion
    orm = torch.stack([occlusion, roughness, metallic], dim=2)
    material = Material(
        base_color=base_color.cpu().numpy(),
        orm=orm.cpu().numpy(),
        normal=None if textures.normal is None else textures.normal.cpu().numpy(),
        alpha_mode=mode,
        double_sided=double_sided,
        occluded=textures.occlusion is not None,
    )
    return material, notes


def _asset(
    source: Source,
    layout: Layout,
    see_through: torch.Tensor | None,
    unwrapped: Unwrapped,
    material: Material,
    texture_format: str,
    notes: list[str],
    times: StepTimes,
) -> GlbAsset:
    vertices = to_y_up(layout.vertices.cpu().numpy())
    faces = layout.faces.cpu().numpy()
    tangents = None
    if layout.tangents is not None:
        frame = layout.tangents.cpu().numpy()
        tangents = np.concatenate([to_y_up(frame[:, :3]), frame[:, 3:]], axis=1)
    shape = topology(layout.vertices, layout.faces)
    low, high = vertices.min(axis=0).tolist(), vertices.max(axis=0).tolist()
    report = MeshReport(
        faces=len(faces),
        vertices=len(vertices),
        **asdict(shape),
        charts=unwrapped.num_charts,
        atlas_use=unwrapped.utilisation,
        bounding_box=((low[0], low[1], low[2]), (high[0], high[1], high[2])),
        textures=material.sizes,
        alpha_mode=material.alpha_mode,
        double_sided=material.double_sided,
        source_vertices=len(source.vertices),
        source_faces=len(source.faces),
        seconds=times.seconds,
        notes=notes,
        volume=signed_volume(layout.vertices, layout.faces) if shape.watertight else None,
    )
    return GlbAsset(
        vertices=vertices,
        faces=faces,
        normals=to_y_up(layout.normals.cpu().numpy()),
        uvs=layout.uvs.cpu().numpy(),
        tangents=tangents,
        see_through=None if see_through is None else see_through.cpu().numpy(),
        material=material,
        texture_format=texture_format,
        report=report,
    )
