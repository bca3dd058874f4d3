"""Pictures and files of a decoded asset, made by `trellis2` and `o_voxel`."""

from __future__ import annotations

import dataclasses
import inspect
import io
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from trellis2.progress import Monitor

from ..jobs.execution import JobFile
from ..protocol.requests import ExtractSettings, TextureSettings

VIDEO_FRAMES = 60
VIDEO_RESOLUTION = 512
VIDEO_FPS = 15
SHEET_VIEWS = 8
BOX = [[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]]
SHEET_RESOLUTION = 384
SHEET_MODES = ("shaded", "normal", "base_color", "metallic", "roughness", "clay")


class MeshExporter:
    """Renders and exports with the packages below this one; they are imported when first used."""

    def __init__(self) -> None:
        self._shown: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def _as_exported(self, mesh: Any) -> Any:
        """A repair takes seconds on a CPU: once for the video and the stills."""
        from trellis2.representations import MeshWithPbrMaterial

        if isinstance(mesh, MeshWithPbrMaterial):  # with its file's own surface and textures
            return mesh
        if mesh not in self._shown:
            self._shown[mesh] = as_exported(mesh)
        return self._shown[mesh]

    def video(self, mesh: Any, monitor: Monitor) -> JobFile:
        """A turntable, 512 pixels square: H.264, or an animated WebP where there is no ffmpeg."""
        from trellis2.utils.render_utils import encode_video, render_video

        monitor.report("preview", 0, VIDEO_FRAMES)
        frames = render_video(
            self._as_exported(mesh),
            resolution=VIDEO_RESOLUTION,
            num_frames=VIDEO_FRAMES,
            keys=["shaded"],
            progress=lambda done, total: monitor.report("preview", done, total),
        )
        return JobFile(*encode_video(frames["shaded"], fps=VIDEO_FPS))

    def sheet(self, mesh: Any, monitor: Monitor) -> tuple[JobFile, dict[str, Any]]:
        """Stills in every render mode as one WebP picture: a row a mode, a column a view, the first from the
        front; and that layout.
        """
        from PIL import Image

        from trellis2.utils.render_utils import FRONT_OFFSET, render_snapshot

        monitor.report("stills", 0, SHEET_VIEWS)
        views = render_snapshot(
            self._as_exported(mesh),
            resolution=SHEET_RESOLUTION,
            offset=FRONT_OFFSET,
            nviews=SHEET_VIEWS,
            r=2.0,
            fov=36.0,
            keys=SHEET_MODES,
            progress=lambda done, total: monitor.report("stills", done, total),
        )
        rows = [np.concatenate(views[mode], axis=1) for mode in SHEET_MODES]
        buffer = io.BytesIO()
        Image.fromarray(np.concatenate(rows, axis=0)).save(buffer, "WEBP", quality=85)
        layout = {"modes": list(SHEET_MODES), "views": SHEET_VIEWS, "size": SHEET_RESOLUTION}
        return JobFile(buffer.getvalue(), "image/webp"), layout

    def asset(self, mesh: Any, settings: ExtractSettings, monitor: Monitor) -> tuple[bytes, dict[str, Any]]:
        """The exported file and the mesh report."""
        from o_voxel.postprocess import GlbAsset, check_file_type, to_glb

        check_file_type(settings.format, settings.compress)  # before the work, not after it
        asset = to_glb(
            mesh.vertices,
            mesh.faces,
            mesh.attrs,
            mesh.coords,
            mesh.layout,
            aabb=BOX,
            voxel_size=mesh.voxel_size,
            progress=lambda step, index, count: monitor.report(step, index, count),
            **arguments(settings, to_glb),
        )
        monitor.check()
        data = asset.export(file_type=settings.format, **arguments(settings, GlbAsset.export))
        return data, _plain(dataclasses.asdict(asset.report))

    def textured(
        self, mesh: Any, place: Any, voxels: Any, resolution: int, settings: TextureSettings, monitor: Monitor
    ) -> tuple[bytes, dict[str, Any], Any]:
        """A `MeshFile` with textures of attribute voxels as a GLB, the mesh report, and the mesh to render.

        `place` takes the file's vertices to where the voxels lie.
        """
        from o_voxel.retexture import textured

        from trellis2.representations import PBR_ATTR_LAYOUT

        asset = textured(
            mesh,
            place,
            voxels.coords[:, 1:],
            voxels.feats,
            PBR_ATTR_LAYOUT,
            resolution,
            texture_size=settings.texture_size,
            new_uvs=settings.new_uvs,
            alpha_mode=settings.alpha_mode,
            progress=lambda step, index, count: monitor.report(step, index, count),
        )
        monitor.check()
        data = asset.export(settings.texture_format)
        shown = rendered(asset, place).to(voxels.feats.device)
        return data, _plain(dataclasses.asdict(asset.report)), shown


def rendered(asset: Any, place: Any) -> Any:
    """A retextured file as the renderers take it, in the voxels' cube."""
    import torch

    from trellis2.representations import MeshWithPbrMaterial
    from trellis2.representations.materials import AlphaMode, PbrMaterial, Texture

    vertices, faces, ids, corners, materials, start = [], [], [], [], [], 0
    for number, painted in enumerate(asset.painted):
        pixels = painted.material
        colour, orm = (torch.from_numpy(image).float() / 255 for image in (pixels.base_color, pixels.orm))
        materials.append(
            PbrMaterial(
                base_color_texture=Texture(colour[..., :3]),
                metallic_texture=Texture(orm[..., 2:]),
                roughness_texture=Texture(orm[..., 1:2]),
                alpha_texture=Texture(colour[..., 3:]),
                alpha_mode=AlphaMode[pixels.alpha_mode],
            )
        )
        for surface in painted.surfaces:
            vertices.append(place(surface.vertices))
            faces.append(surface.faces + start)
            ids.append(np.full(len(surface.faces), number))
            corners.append(surface.uvs[surface.faces])
            start += len(surface.vertices)
    arrays = (np.concatenate(part) for part in (vertices, faces, ids, corners))
    placed, triangles, numbers, uvs = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    return MeshWithPbrMaterial(placed.float(), triangles.int(), numbers, uvs, materials)


def as_exported(mesh: Any) -> Any:
    """The decoded asset with the surface that its exports will have, so that pictures show no other."""
    from o_voxel.postprocess import repaired

    from trellis2.representations import MeshWithVoxel

    vertices, faces, attrs, coords = repaired(
        mesh.vertices, mesh.faces, mesh.attrs, mesh.coords, mesh.layout, BOX, mesh.voxel_size
    )
    shape = (*mesh.voxel_shape[:2], *((coords.amax(dim=0) + 1).tolist()))
    return MeshWithVoxel(vertices, faces, mesh.origin, mesh.voxel_size, coords, attrs, shape, mesh.layout)


def arguments(settings: ExtractSettings, function: Callable[..., Any]) -> dict[str, Any]:
    """The settings that `function` has arguments for, by name."""
    values = {name: value for name, value in settings if name in inspect.signature(function).parameters}
    if settings.outer_shell and "wall" in inspect.signature(function).parameters:
        from o_voxel.postprocess import MOST_WALL

        values["wall"] = min(settings.wall_mm / settings.size_mm, MOST_WALL)
    if settings.remesh is False:  # only a remeshed surface is surely closed
        values.pop("outer_shell", None)
    elif "remesh" in values:
        values["remesh"] = _remesh(settings)
    return values


def _remesh(settings: ExtractSettings) -> bool | str:
    """The offset surface of the reference for who sets what only that has; else the surface is followed."""
    defaults = ExtractSettings.model_fields
    for name in ("remesh_band", "remesh_project"):
        if getattr(settings, name) != defaults[name].default:
            return True
    return "always" if settings.remesh is True else "auto"


def _plain(value: Any) -> Any:
    """Numbers, texts, lists and dictionaries that JSON can hold."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
