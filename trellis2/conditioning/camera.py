"""Where a token of a latent grid lands in a picture: cameras, the cube's points, projection.

World frame: Z up, the object in a cube of side 1 around the origin, its front towards -y. Cameras are
camera-to-world matrices [4, 4] with columns right, up, backward, position (Blender, NeRF); pictures are
square. Pixel-aligned latents have another frame, y up with the picture's camera on +z: (x, y, z) there is (x,
-z, y) in the world. Source: Pixal3D (Li et al., SIGGRAPH 2026), whose flows were trained with exactly these
formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch

from trellis2_pictures.cameras import DIRECTIONS, MAX_VIEWS, CameraError, check_direction, rigid_matrix

from ..errors import InvalidCameraError

DEFAULT_FOV = 0.8575560450553894  # radians, 49.13 degrees: a lens of 35 mm before a sensor of 32 mm
VIEW_FOV = math.radians(20)  # of pictures whose direction is known by name only
VIEW_MARGIN = 1.1  # such a picture's frame, in sides of the cube
OFF_CENTRE = 0.02  # of the frame: how far from its middle the main view may show the object's centre


@dataclass(frozen=True)
class Camera:
    """A square pinhole camera: `camera_to_world [4, 4]` float32 and the horizontal field of view, radians."""

    camera_to_world: torch.Tensor
    fov: float = DEFAULT_FOV

    @property
    def distance(self) -> float:
        """From the origin to the camera."""
        return float(self.camera_to_world[:3, 3].norm())

    def focal(self, size: float) -> float:
        """Focal length in pixels of a picture of `size` pixels a side."""
        return size / (2 * math.tan(self.fov / 2))


def filling_distance(fov: float, mesh_scale: float = 1.0, extra: float = 0.0, size: float = 1.0) -> float:
    """How far a camera stands when the middle plane of the cube (side 1/mesh_scale) fills its picture.

    `extra` pixels of `size` stay free on each side. Raises `InvalidCameraError` for a field of view that is
    none.
    """
    focal = size / (2 * math.tan(check_fov(fov) / 2))
    return focal * (0.5 / mesh_scale) / (size / 2 + extra)


def front_matrix(distance: float) -> torch.Tensor:
    """Camera-to-world of the view from -y, `distance` from the origin."""
    return torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, -distance], [0, 1, 0, 0], [0, 0, 0, 1]])


def front_camera(fov: float = DEFAULT_FOV, distance: float | None = None, mesh_scale: float = 1.0) -> Camera:
    """The camera of a single picture; without a distance the cube's middle plane fills the frame."""
    distance = filling_distance(fov, mesh_scale) if distance is None else distance
    return Camera(front_matrix(distance), check_fov(fov))


def named_camera(direction: str, fov: float = VIEW_FOV) -> Camera:
    """The level camera that sees the object's own front, left, back or right side, the cube with a margin.

    Raises `InvalidCameraError` for another name.
    """
    try:
        check_direction(direction)
    except CameraError as error:
        raise InvalidCameraError(str(error)) from error
    quarter = DIRECTIONS[direction] // 90
    c, s = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter]
    turn = torch.tensor([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    return Camera(turn @ front_matrix(VIEW_MARGIN * filling_distance(fov)), check_fov(fov))


def in_main_frame(cameras: Sequence[Camera]) -> list[Camera]:
    """The cameras moved together so that the first is the front view at its own distance from the origin.

    The object is generated in the first view's frame.
    """
    main = cameras[0]
    front = front_matrix(main.distance)
    move = front.double() @ torch.linalg.inv(main.camera_to_world.double())
    others = [Camera((move @ c.camera_to_world.double()).float(), c.fov) for c in cameras[1:]]
    return [Camera(front, main.fov), *others]


def token_points(coords: torch.Tensor, resolution: int, mesh_scale: float = 1.0) -> torch.Tensor:
    """World points [N, 3] float32 of latent tokens `coords [N, 3]` on a `resolution`^3 grid.

    The outermost tokens lie on the faces of the cube, not half a cell inside: the published flows were
    trained so.
    """
    axis = torch.linspace(-1, 1, resolution, device=coords.device)
    x, y, z = (axis[coords.long()] / mesh_scale / 2).unbind(1)
    return torch.stack([x, -z, y], dim=1)


def project(points: torch.Tensor, camera: Camera, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels [N, 2] (right, down; the frame is 0..size) and depths [N] of world points [N, 3].

    Nothing is hidden or cut off: points outside the frame keep their pixel, points behind come out mirrored.
    """
    world_to_camera = torch.linalg.inv(camera.camera_to_world).to(points)
    x, y, z = (points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]).unbind(1)
    scale = camera.focal(size) / (-z + 1e-8)
    return torch.stack([x * scale + size / 2, size / 2 - y * scale], dim=1), -z


# ---- what people give --------------------------------------------------------------------------------------


def check_fov(fov: float) -> float:
    """The field of view (radians) if it is one. Raises `InvalidCameraError` outside 0..180 degrees."""
    if not 0 < fov < math.pi:
        raise InvalidCameraError(
            f"a field of view of {math.degrees(fov):g} degrees: it must lie between 0 and 180, both excluded"
        )
    return float(fov)


def camera_from_matrix(matrix: Sequence[Sequence[float]] | torch.Tensor, fov: float) -> Camera:
    """A camera from camera-to-world rows. Raises `InvalidCameraError` for what is no rigid motion."""
    try:
        c2w = torch.from_numpy(rigid_matrix(matrix))
    except CameraError as error:
        raise InvalidCameraError(str(error)) from error
    return Camera(c2w.float(), check_fov(fov))


def check_cameras(cameras: Sequence[Camera], mesh_scale: float = 1.0) -> None:
    """Raise `InvalidCameraError` for too many views, and for a camera whose picture cannot show the cube.

    The first camera must look at the origin, about which the object is generated.
    """
    if not 1 <= len(cameras) <= MAX_VIEWS:
        raise InvalidCameraError(f"{len(cameras)} views: at least 1 and at most {MAX_VIEWS} are taken")
    corners = torch.tensor(list(product((-0.5, 0.5), repeat=3))) / mesh_scale
    for i, camera in enumerate(cameras):
        pixels, depths = project(corners, camera, 1.0)
        nearest = float(depths.min())
        if float(depths.max()) <= 0:
            raise InvalidCameraError(f"the camera of view {i + 1} sees nothing: the object lies behind it")
        if nearest <= 0:
            raise InvalidCameraError(
                f"part of the object's cube lies {-nearest:.3g} behind the camera of view {i + 1}, which "
                f"stands {camera.distance:.3g} from the centre: move it back, or use a field of view below "
                "90 degrees"
            )
        low, high = pixels.min(0).values, pixels.max(0).values
        if bool((high < 0).any() or (low > 1).any()):
            raise InvalidCameraError(
                f"the camera of view {i + 1} sees nothing: the object's cube lies outside its frame"
            )
    middle, _ = project(torch.zeros(1, 3), cameras[0], 1.0)
    if float((middle - 0.5).abs().max()) > OFF_CENTRE:
        raise InvalidCameraError(
            "the camera of the first view must look at the object's centre (the origin), which its picture "
            f"shows at {[round(v, 3) for v in middle[0].tolist()]} of its frame instead of [0.5, 0.5]"
        )
