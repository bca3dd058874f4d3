"""Frames, turntables and snapshots of an asset in one call each."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from trellis2.errors import InvalidArgumentError
from trellis2.renderers import EnvMap, MeshRenderer, PbrMeshRenderer, VoxelRenderer, default_envmap
from trellis2.representations import Mesh, MeshWithPbrMaterial, MeshWithVoxel, Voxel
from trellis2.utils.cameras import (
    sphere_hammersley_sequence,
    yaw_pitch_r_fov_to_extrinsics_intrinsics,
)
from trellis2.utils.video import encode_mp4, encode_video, encode_webp

__all__ = [
    "encode_mp4",
    "encode_video",
    "encode_webp",
    "get_renderer",
    "make_pbr_vis_frames",
    "render_frames",
    "render_multiview",
    "render_snapshot",
    "render_video",
    "sphere_hammersley_sequence",
    "yaw_pitch_r_fov_to_extrinsics_intrinsics",
]

Sample = Mesh | Voxel
Frames = dict[str, list[np.ndarray]]
Renderer = PbrMeshRenderer | MeshRenderer | VoxelRenderer

TURN = 2.0 * 3.1415
"""One turn of the camera, as published."""
SNAPSHOT_OFFSET = (-16.0 / 180.0 * math.pi, 20.0 / 180.0 * math.pi)
# The same from the front, where viewers of an exported file stand: a GLB's +Z is our -y.
FRONT_OFFSET = (SNAPSHOT_OFFSET[0] + math.pi, SNAPSHOT_OFFSET[1])


def get_renderer(sample: Sample, **options: Any) -> Renderer:
    """The renderer for a sample, with 2x2 supersampling unless told otherwise.

    The near plane is 0.1, so that a camera close to the unit cube cuts nothing away.
    Raises InvalidArgumentError for other types and unknown options.
    """
    if isinstance(sample, (MeshWithVoxel, MeshWithPbrMaterial)):
        return PbrMeshRenderer({"near": 0.1, "ssaa": 2, **options})
    if isinstance(sample, Mesh):
        return MeshRenderer({"near": 0.1, "ssaa": 2, **options})
    if isinstance(sample, Voxel):
        return VoxelRenderer({"ssaa": 2, **options})
    raise InvalidArgumentError(
        f"nothing renders a {type(sample).__name__}: give a Mesh, MeshWithVoxel or Voxel"
    )


def render_frames(
    sample: Sample,
    extrinsics: Sequence[torch.Tensor],
    intrinsics: Sequence[torch.Tensor],
    options: Mapping[str, Any] | None = None,
    verbose: bool = True,
    progress: Callable[[int, int], None] | None = None,
    **kwargs: Any,
) -> Frames:
    """Every map of every view as uint8 [H, W, 3] (one-channel maps repeated), by name.

    options go to the renderer, kwargs (envmap, keys, transformation, ...) to each `render`. PBR meshes
    without an envmap get the default environment. `progress(done, total)` is called after each view;
    `verbose` is accepted and prints nothing. Raises InvalidArgumentError for no views, and whatever the
    renderer raises.
    """
    if len(extrinsics) != len(intrinsics) or not len(extrinsics):
        raise InvalidArgumentError(
            "need as many extrinsics as intrinsics and at least 1: "
            f"got {len(extrinsics)} and {len(intrinsics)}"
        )
    renderer = get_renderer(sample, **(options or {}))
    if isinstance(renderer, PbrMeshRenderer):
        kwargs["envmap"] = _moved(kwargs.get("envmap"), sample)
    frames: Frames = {}
    for number, (e, k) in enumerate(zip(extrinsics, intrinsics, strict=True)):
        maps = renderer.render(sample, e, k, **kwargs)  # type: ignore[arg-type]
        for name, picture in zip(maps, to_pictures(list(maps.values())), strict=True):
            frames.setdefault(name, []).append(picture)
        if progress is not None:
            progress(number + 1, len(extrinsics))
    return frames


def _moved(envmap: EnvMap | Mapping[str, EnvMap] | None, sample: Sample) -> EnvMap | dict[str, EnvMap]:
    """The environments on the sample's device, once for all frames; the default one for None."""
    device = sample.vertices.device if isinstance(sample, Mesh) else sample.coords.device
    if envmap is None:
        return default_envmap(device=device)
    if isinstance(envmap, EnvMap):
        return envmap.to(device)
    return {name: light.to(device) for name, light in envmap.items()}


def to_pictures(maps: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Maps [H, W] or [C, H, W] in 0..1 to uint8 [H, W, 3]; values are cut off, not rounded.

    Everything happens on their device, then one copy goes to the host.

    Reordering on the host takes 5 ms a map of 1024 pixels, a copy of its own a wait for the device.
    """
    if not maps:
        return []
    height, width = maps[0].shape[-2:]
    pixels = torch.empty((len(maps), height, width, 3), dtype=torch.uint8, device=maps[0].device)
    for place, image in zip(pixels, maps, strict=True):
        values = (image.detach().float() * 255.0).clamp_(0.0, 255.0)
        place.copy_((values[None] if image.ndim == 2 else values[:3]).permute(1, 2, 0).expand_as(place))
    return list(pixels.cpu().numpy())


def render_video(
    sample: Sample,
    resolution: int = 1024,
    bg_color: str | tuple[float, float, float] | None = "soft",
    num_frames: int = 120,
    r: float = 2.0,
    fov: float = 40.0,
    **kwargs: Any,
) -> Frames:
    """A turntable: once around while the camera bobs; arguments as for `render_frames`.

    bg_color: "soft" for a light neutral backdrop, a linear RGB triple, or None for black (PBR meshes only).
    Raises InvalidArgumentError for fewer than 1 frame.
    """
    if num_frames < 1:
        raise InvalidArgumentError(f"a video needs at least 1 frame, got {num_frames}")
    t = np.linspace(0.0, TURN, num_frames)
    yaws = (-t + math.pi / 2.0).tolist()
    pitchs = (0.25 + 0.5 * np.sin(t)).tolist()
    return _render_orbit(sample, yaws, pitchs, r, fov, resolution, bg_color, **kwargs)


def render_multiview(
    sample: Sample, resolution: int = 512, nviews: int = 30, **kwargs: Any
) -> tuple[list[np.ndarray], list[torch.Tensor], list[torch.Tensor]]:
    """Evenly spread views at r 2, fov 40: the pictures, extrinsics and intrinsics.

    The pictures are `color` for voxels, `shaded` for PBR meshes and `normal` for plain meshes.
    """
    cameras = [sphere_hammersley_sequence(n, nviews) for n in range(nviews)]
    extrinsics, intrinsics = yaw_pitch_r_fov_to_extrinsics_intrinsics(
        [c[0] for c in cameras], [c[1] for c in cameras], 2.0, 40.0
    )
    frames = render_frames(sample, list(extrinsics), list(intrinsics), {"resolution": resolution}, **kwargs)
    name = next((n for n in ("color", "shaded", "base_color", "normal") if n in frames), next(iter(frames)))
    return frames[name], list(extrinsics), list(intrinsics)


def render_snapshot(
    sample: Sample,
    resolution: int = 512,
    bg_color: str | tuple[float, float, float] | None = "soft",
    offset: tuple[float, float] = SNAPSHOT_OFFSET,
    r: float = 10.0,
    fov: float = 8.0,
    nviews: int = 4,
    **kwargs: Any,
) -> Frames:
    """Views around the object at equal angles; offset is (yaw of the first view, pitch of all) in radians."""
    yaws = [2.0 * math.pi * k / nviews + offset[0] for k in range(nviews)]
    return _render_orbit(sample, yaws, [offset[1]] * nviews, r, fov, resolution, bg_color, **kwargs)


def _render_orbit(
    sample: Sample,
    yaws: list[float],
    pitchs: list[float],
    r: float,
    fov: float,
    resolution: int,
    background: str | tuple[float, float, float] | None,
    options: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Frames:
    extrinsics, intrinsics = yaw_pitch_r_fov_to_extrinsics_intrinsics(yaws, pitchs, r, fov)
    options = {"resolution": resolution, **(options or {})}
    if isinstance(sample, (MeshWithVoxel, MeshWithPbrMaterial)):
        options.setdefault("background", background)
    return render_frames(sample, list(extrinsics), list(intrinsics), options, **kwargs)


PBR_MAPS: Collection[str] = ("shaded", "normal", "base_color", "metallic", "roughness", "alpha")


def make_pbr_vis_frames(
    result: Mapping[str, Sequence[np.ndarray]], resolution: int = 1024
) -> list[np.ndarray]:
    """One picture a frame: shaded and normal side by side, the four attribute maps small below; 2R wide, 1.5R
    high.

    Raises InvalidArgumentError when a map is missing (several named environments have no plain `shaded`).
    """
    missing = [name for name in PBR_MAPS if name not in result]
    if missing:
        raise InvalidArgumentError(f"the frames lack {missing}; they have {sorted(result)}")
    from PIL import Image

    def scaled(frame: np.ndarray, side: int) -> np.ndarray:
        return np.asarray(Image.fromarray(frame).resize((side, side)))

    frames = []
    for maps in zip(*(result[name] for name in PBR_MAPS), strict=True):
        top = np.concatenate([scaled(m, resolution) for m in maps[:2]], axis=1)
        bottom = np.concatenate([scaled(m, resolution // 2) for m in maps[2:]], axis=1)
        frames.append(np.concatenate([top, bottom], axis=0))
    return frames
