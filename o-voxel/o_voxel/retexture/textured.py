"""Attribute voxels to the textures of a `MeshFile`, a material each, and the file that they are written
into."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..check.judge import atlas
from ..check.scene import Part
from ..errors import MeshError
from ..mesh.quality import signed_volume
from ..postprocess.material import Material, choose_alpha_mode
from ..postprocess.report import MeshReport, Progress, StepTimes, inside_out, topology
from ..postprocess.textures.bake import TEXELS_PER_CHUNK, quantise
from ..postprocess.textures.encode import MIME_TYPES
from ..postprocess.textures.gutters import fill, nearest_covered
from ..postprocess.writers.glb import SAMPLER, glb_container, material_entry, texture_entry
from ..postprocess.writers.gltf_mesh import TRANSFORM, Binary
from ..raster import rasterize_uv
from ..raster.fragments import interpolate_at
from ..sampling import VoxelGrid, sample_trilinear
from .mesh_file import MeshFile, Surface, unwrapped

Place = Callable[[np.ndarray], np.ndarray]
CHANNELS = ("base_color", "metallic", "roughness", "alpha")
STEPS = ("unwrap", "bake", "material")
MOST_MATERIALS = 16
MOST_TEXELS = 64_000_000
SHARED = 0.02
"""Share of the charts' area that lies over other charts from which on a person is told."""


@dataclass(frozen=True)
class Painted:
    """Surfaces of one material (None: of none) with its textures."""

    source: int | None
    surfaces: list[Surface]
    material: Material


@dataclass(frozen=True, eq=False)
class RetexturedAsset:
    """A file with its new materials; `report` says what is in it."""

    file: MeshFile
    painted: list[Painted]
    report: MeshReport

    def export(self, texture_format: str = "jpeg") -> bytes:
        """GLB bytes: of a GLB all but its materials stays (nodes, skins, animations, extras)."""
        data = _write(self.file, self.painted, texture_format)
        self.report.bytes["glb"] = len(data)
        return data


def textured(
    file: MeshFile,
    place: Place,
    coords: Tensor,
    attrs: Tensor,
    layout: Mapping[str, slice],
    resolution: int,
    *,
    texture_size: int = 2048,
    new_uvs: bool = False,
    alpha_mode: str = "auto",
    progress: Progress | None = None,
) -> RetexturedAsset:
    """A file with textures baked from attribute voxels.

    `place` takes the file's vertices [V, 3] to where the voxels lie: the unit cube around the origin.
    `coords` [N, 3] and `attrs` [N, 6] (0..1, columns by `layout`) are cells of a `resolution`³ grid over
    it. Texture coordinates are the file's own; `new_uvs`, or none in the file, makes new ones for one
    texture of `texture_size` texels a side. Raises MeshError for texture coordinates that cannot be
    painted on.
    """
    times = StepTimes(STEPS, progress, attrs.device)
    source_faces, source_vertices = len(file.faces), len(file.vertices)
    with times.step("unwrap"):
        if not new_uvs:
            file.check_uvs()
        if new_uvs or not file.has_uvs:
            file = unwrapped(file, texture_size)
    groups: dict[int | None, list[Surface]] = {}
    for surface in file.surfaces:
        groups.setdefault(surface.material, []).append(surface)
    if len(groups) > MOST_MATERIALS or len(groups) * texture_size**2 > MOST_TEXELS:
        raise MeshError(
            f"{len(groups)} materials with a texture of {texture_size} each are too many: at most "
            f"{MOST_MATERIALS}, and {MOST_TEXELS // 10**6} million texels in all; choose a smaller "
            f"texture_size "
            "or new_uvs, which makes one"
        )
    grid, notes = VoxelGrid(coords, (resolution,) * 3), list(file.notes)
    columns = torch.cat([torch.arange(attrs.shape[1])[layout[name]] for name in CHANNELS]).to(attrs.device)
    volume = torch.nn.functional.pad(attrs.float()[:, columns], (0, 1), value=1.0)
    painted = []
    with times.step("bake"):
        for material, surfaces in groups.items():
            texture, alpha, shared = _baked(surfaces, place, grid, volume, resolution, texture_size)
            mode, note = choose_alpha_mode(alpha_mode, alpha)
            notes += [note] if note else []
            if shared > SHARED:
                notes.append(
                    f"{shared:.0%} of the charts lie over others: those parts of the surface share their "
                    "texels and look alike; new_uvs gives each its own"
                )
            painted.append(
                Painted(material, surfaces, _material(texture, mode, _double_sided(file, material)))
            )
    with times.step("material"):
        report = _report(file, painted, source_vertices, source_faces, notes, times)
    return RetexturedAsset(file, painted, report)


def _baked(
    surfaces: list[Surface], place: Place, grid: VoxelGrid, volume: Tensor, resolution: int, size: int
) -> tuple[Tensor, np.ndarray, float]:
    """Texture [size, size, 6] uint8, alpha [P] of its covered texels, and the share of charts that
    overlap."""
    device = volume.device
    starts = np.cumsum([0, *(len(s.vertices) for s in surfaces)])
    joined = np.concatenate([s.faces + start for s, start in zip(surfaces, starts, strict=False)])
    faces = torch.from_numpy(joined.astype(np.int32)).to(device)
    placed = np.concatenate([place(s.vertices) for s in surfaces])
    vertices = torch.from_numpy(placed.astype(np.float32)).to(device)
    uvs = torch.from_numpy(np.concatenate([s.uvs for s in surfaces if s.uvs is not None])).to(device)
    exact = rasterize_uv(uvs, faces, (size, size), False).mask
    shared = max(
        0.0, 1 - float(exact.float().mean()) / max(sum(surface.uv_area for surface in surfaces), 1e-9)
    )
    fragments = rasterize_uv(uvs, faces, (size, size), conservative=True)
    face_id, barycentric = fragments.face_id.reshape(-1), fragments.barycentric.reshape(-1, 2)
    texels = torch.nonzero(face_id >= 0).squeeze(1)
    texture = torch.zeros((size * size, 6), dtype=torch.uint8, device=device)
    covered = torch.zeros(size * size, dtype=torch.bool, device=device)
    for chunk in texels.split(TEXELS_PER_CHUNK[device.type]):
        points = interpolate_at(vertices, faces, face_id[chunk], barycentric[chunk])
        sampled = sample_trilinear(grid, volume, (points + 0.5) * resolution)
        texture[chunk] = quantise(sampled[:, :6])
        covered[chunk] = sampled[:, 6] > 0.5
    alpha = texture[covered][:, 5].cpu().numpy()
    covered = covered.reshape(size, size)
    return fill(texture.reshape(size, size, 6), nearest_covered(covered)).cpu(), alpha, shared


def _material(texture: Tensor, mode: str, double_sided: bool) -> Material:
    pixels = texture.numpy()
    base_color = np.concatenate([pixels[..., :3], pixels[..., 5:]], axis=2)
    orm = np.stack([np.zeros_like(pixels[..., 3]), pixels[..., 4], pixels[..., 3]], axis=2)
    return Material(base_color, orm, None, mode, double_sided)


def _double_sided(file: MeshFile, material: int | None) -> bool:
    if material is None:
        return False
    return bool(file.glb.document["materials"][material].get("doubleSided", False))


def _report(
    file: MeshFile,
    painted: list[Painted],
    source_vertices: int,
    source_faces: int,
    notes: list[str],
    times: StepTimes,
) -> MeshReport:
    vertices = torch.from_numpy(file.vertices.astype(np.float32))
    faces = torch.from_numpy(file.faces.astype(np.int32))
    shape = topology(vertices, faces)
    charts, use = atlas([Part(s.vertices, s.faces, uvs=s.uvs) for s in file.surfaces])
    low, high = file.vertices.min(axis=0).tolist(), file.vertices.max(axis=0).tolist()
    single = len(painted) == 1
    return MeshReport(
        faces=len(faces),
        vertices=len(vertices),
        **asdict(shape),
        charts=charts,
        atlas_use=use,
        bounding_box=((low[0], low[1], low[2]), (high[0], high[1], high[2])),
        textures={
            name if single else f"{name} {number + 1}": size
            for number, group in enumerate(painted)
            for name, size in group.material.sizes.items()
        },
        alpha_mode=", ".join(sorted({group.material.alpha_mode for group in painted})),
        double_sided=any(group.material.double_sided for group in painted),
        source_vertices=source_vertices,
        source_faces=source_faces,
        seconds=times.seconds,
        notes=notes,
        volume=signed_volume(vertices, faces) if shape.watertight else None,
        inside_out=inside_out(vertices, faces),
    )


# --- the file -----------------------------------------------------------------------------------------------

OF_MATERIALS = ("KHR_materials_", "KHR_texture_", "EXT_texture_", "MSFT_texture_", "MSFT_lod")
UNPACKED = ("EXT_meshopt_compression", "KHR_meshopt_compression")
"""Beginnings of the extensions that go with the old materials; lower levels of detail had textures of
their own."""


def _write(file: MeshFile, painted: list[Painted], texture_format: str) -> bytes:
    document: dict[str, Any] = json.loads(json.dumps(file.glb.document))
    old = document.get("materials", [])
    for name in ("images", "textures", "samplers", "materials"):
        document.pop(name, None)
    binary = Binary()
    _keep_views(document, file, binary)
    document |= {"images": [], "textures": [], "samplers": [SAMPLER], "materials": []}
    numbers = {group.source: number for number, group in enumerate(painted)}
    for group in painted:
        _add_material(document, binary, group, old, texture_format)
    drawn = {id(p) for p, _ in _with_document(file, document).drawn()}
    for mesh in document.get("meshes", []):
        for primitive in mesh["primitives"]:
            source = primitive.pop("material", None)
            if source in numbers and (source is not None or id(primitive) in drawn):
                primitive["material"] = numbers[source]
            for name in [n for n in primitive["attributes"] if n.startswith("COLOR_")]:
                del primitive["attributes"][name]  # it would tint the texture
            _drop_extensions(primitive)
    for entry in (document, *document.get("nodes", [])):
        _drop_extensions(entry)
    used, required = (
        {name for name in document.get(key, []) if not name.startswith((*OF_MATERIALS, *UNPACKED))}
        for key in ("extensionsUsed", "extensionsRequired")
    )
    if any("extensions" in texture for texture in document["textures"]):
        required.add("EXT_texture_webp")
    if any(_moves(material) for material in document["materials"]):
        required.add(TRANSFORM)
    for name, names in (("extensionsUsed", used | required), ("extensionsRequired", required)):
        document.pop(name, None)
        if names:
            document[name] = sorted(names)
    document |= {"bufferViews": binary.views, "buffers": binary.buffers()}
    return glb_container(document, binary.data)


def _with_document(file: MeshFile, document: dict[str, Any]) -> Any:
    return type(file.glb)(document, file.glb.binary)


def _moves(material: dict[str, Any]) -> bool:
    return "extensions" in material["pbrMetallicRoughness"]["baseColorTexture"]


def _drop_extensions(entry: dict[str, Any]) -> None:
    found = entry.get("extensions")
    if found:
        for name in [n for n in found if n.startswith(OF_MATERIALS)]:
            del found[name]
        if not found:
            del entry["extensions"]


def _keep_views(document: dict[str, Any], file: MeshFile, binary: Binary) -> None:
    """Copy the buffer views that are still named, unpacked, byte for byte, and renumber the names."""
    numbers: dict[int, int] = {}

    def renumber(value: Any) -> None:
        if isinstance(value, dict):
            for name, member in value.items():
                if name == "bufferView" and type(member) is int:
                    if member not in numbers:
                        entry = file.glb.document["bufferViews"][member]
                        more = {name: entry[name] for name in ("byteStride", "target") if name in entry}
                        numbers[member] = binary.view(file.glb.view(member), **more)
                    value[name] = numbers[member]
                else:
                    renumber(member)
        elif isinstance(value, list):
            for member in value:
                renumber(member)

    document.pop("bufferViews", None)
    renumber(document)


def _add_material(
    document: dict[str, Any], binary: Binary, group: Painted, old: list[Any], texture_format: str
) -> None:
    places = {}
    for name, (kind, data) in group.material.encoded(texture_format).items():
        places[name] = len(document["textures"])
        document["textures"].append(texture_entry(len(document["images"]), kind))
        document["images"].append(
            {"name": name, "mimeType": MIME_TYPES[kind], "bufferView": binary.view(data)}
        )
    entry = material_entry(group.material, group.material.alpha_mode, places, 1.0)
    source = {} if group.source is None else old[group.source]
    if "name" in source:
        entry["name"] = source["name"]
    info = source.get("pbrMetallicRoughness", {}).get("baseColorTexture", {})
    kept: dict[str, Any] = {"texCoord": info["texCoord"]} if "texCoord" in info else {}
    if (move := info.get("extensions", {}).get(TRANSFORM)) is not None:
        kept["extensions"] = {TRANSFORM: move}
    for slot in ("baseColorTexture", "metallicRoughnessTexture"):
        entry["pbrMetallicRoughness"][slot] |= kept
    document["materials"].append(entry)
