"""Colours of a picture on the voxels that its camera sees: boxes with stripes, drawn by intersecting rays."""

from __future__ import annotations

import math

import pytest
import torch

from trellis2.conditioning.colors.visible_colors import Sight, best_sight, color_shift, painted, seen_colors
from trellis2.conditioning.upright import UprightCamera, crop_window, project_upright, voxel_points

RESOLUTION, SIZE = 128, 128
RED, GREEN, BLUE = torch.eye(3)
Box = tuple[list[float], list[float]]
CUBE: Box = ([-0.3, -0.3, -0.3], [0.3, 0.3, 0.3])
WALL: Box = ([-0.5, 0.4, -0.4], [0.5, 0.45, 0.4])  # behind the cube, and wider


def camera(yaw: float = 0.5, pitch: float = 0.45, fov: float = 0.6) -> UprightCamera:
    return UprightCamera(*(torch.tensor([angle]) for angle in (yaw, pitch, fov)))


def shell(box: Box) -> torch.Tensor:
    """Voxels `[N, 3]` of a box's surface."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(RESOLUTION)] * 3, indexing="ij"), -1).view(-1, 3)
    low, high = (((torch.tensor(corner) + 0.5) * RESOLUTION).floor() for corner in box)
    inside = ((grid >= low) & (grid <= high)).all(1)
    return grid[inside & ((grid == low) | (grid == high)).any(1)]


def striped(points: torch.Tensor) -> torch.Tensor:
    """Red and green stripes, four voxels wide, along z."""
    return torch.where((points[:, 2:] * RESOLUTION / 4).floor() % 2 == 0, RED, GREEN)


def drawn(boxes: list[Box], view: UprightCamera, coords: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The crop `[1, 3, S, S]` around voxels, and its matte `[1, S, S]`: a striped box and blue ones."""
    centre, half = crop_window(project_upright(voxel_points(coords, RESOLUTION)[None], view)[0])
    position, right, up, away = (axis[0] for axis in view.axes())
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    x = (centre[0, 0] + half * axis)[None, :, None] * view.tangent
    y = (centre[0, 1] - half * axis)[:, None, None] * view.tangent
    rays = (right * x + up * y - away).view(-1, 3)
    nearest = torch.full((len(rays),), torch.inf)
    colours = torch.zeros(len(rays), 3)
    for number, (low, high) in enumerate(boxes):
        ends = [(torch.tensor(corner) - position) / rays for corner in (low, high)]
        near, far = torch.minimum(*ends).amax(1), torch.maximum(*ends).amin(1)
        hit = (near < far) & (near < nearest)
        nearest = torch.where(hit, near, nearest)
        colour = striped(position + near[:, None] * rays) if number == 0 else BLUE.expand(len(rays), 3)
        colours = torch.where(hit[:, None], colour, colours)
    matte = nearest.isfinite().float().view(1, SIZE, SIZE)
    return colours.T.reshape(1, 3, SIZE, SIZE), matte


def test_a_striped_cube_gets_its_stripes_where_the_camera_sees_it() -> None:
    coords, view = shell(CUBE), camera()
    sight = seen_colors(coords, RESOLUTION, *drawn([CUBE], view, coords), view)
    points = voxel_points(coords, RESOLUTION)
    low, high = coords.amin(0), coords.amax(0)
    front = (coords[:, 1] == low[1]) | (coords[:, 0] == high[0]) | (coords[:, 2] == high[2])
    deep = (((coords - low) > 6) & ((high - coords) > 6)).sum(1) == 2  # away from the cube's edges
    assert (sight.weights[front & deep] > 0.3).float().mean() > 0.95
    assert float(sight.weights[~front & deep].max()) == 0
    trusted = sight.weights > 0.3
    between = (points[:, 2] * RESOLUTION / 4 % 1 - 0.5).abs() < 0.2  # pixels blend where stripes meet
    upright = trusted & between & (coords[:, 2] < high[2])
    assert (sight.colors - striped(points))[upright].abs().mean() < 0.12
    grey = torch.full((len(coords), 3), 0.5)
    made = painted(grey, sight)
    assert (made - striped(points))[upright].abs().mean() < 0.5 * (grey - striped(points))[
        upright
    ].abs().mean()


def test_what_is_hidden_gets_nothing_and_edges_do_not_bleed() -> None:
    cube, wall = shell(CUBE), shell(WALL)
    coords, view = torch.cat([cube, wall]), camera(yaw=0.1, pitch=0.05)
    picture, matte = drawn([CUBE, WALL], view, coords)
    for off in (0.0, math.radians(1)):  # a camera that is a little wrong
        seen = UprightCamera(view.yaw + off, view.pitch, view.fov)
        sight = seen_colors(coords, RESOLUTION, picture, matte, seen)
        assert (sight.weights > 0.5).sum() > 3000
        strong = sight.weights[:, None] * sight.colors
        assert float(strong[: len(cube), 2].max()) < 0.3, "no blue of the wall on the cube"
        assert float(strong[len(cube) :, :2].max()) < 0.3, "no stripes of the cube on the wall"
        places = project_upright(voxel_points(wall, RESOLUTION)[None], seen)[0][0]
        shade = project_upright(voxel_points(cube, RESOLUTION)[None], seen)[0][0]
        behind = ((places > shade.amin(0) + 0.05) & (places < shade.amax(0) - 0.05)).all(1)
        assert behind.sum() > 1000
        assert float(sight.weights[len(cube) :][behind].max()) == 0


def test_a_picture_of_something_else_counts_for_nothing() -> None:
    coords, view = shell(CUBE), camera()
    picture, matte = drawn([CUBE], view, coords)
    thin = torch.zeros_like(matte)
    thin[:, :, SIZE // 3 : SIZE // 2] = 1
    assert float(seen_colors(coords, RESOLUTION, picture, matte, view).weights.max()) > 0.9
    assert float(seen_colors(coords, RESOLUTION, picture, thin, view).weights.max()) == 0


def test_each_voxel_takes_the_picture_that_shows_it_best() -> None:
    first = Sight(RED.expand(3, 3), torch.tensor([0.5, 0.5, 0.0]))
    other = Sight(BLUE.expand(3, 3), torch.tensor([0.52, 0.9, 0.0]))
    best = best_sight([first, other], 0.05)
    assert torch.equal(best.colors[:2], torch.stack([RED, BLUE]))
    assert best.weights.tolist() == pytest.approx([0.5, 0.9, 0.0])


def test_hidden_voxels_follow_visible_ones_of_their_colour() -> None:
    dark, light = torch.full((1, 3), 0.25), torch.tensor([[0.9, 0.9, 0.2]])
    colors = torch.cat([dark.expand(100, 3), light.expand(100, 3)])
    weights = torch.zeros(200)
    weights[:50] = 1.0  # of the dark ones half are seen, of the light ones none
    shift = color_shift(colors, Sight(colors + torch.tensor([0.2, 0.1, 0.0]), weights))
    assert (shift[:100] - torch.tensor([0.2, 0.1, 0.0])).abs().max() < 0.02
    assert shift[100:].abs().max() < 0.01
    assert torch.equal(painted(colors, Sight(colors, torch.zeros(200))), colors)
