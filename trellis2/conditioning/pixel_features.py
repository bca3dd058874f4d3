"""Features of tokens, read where they project to in one picture or averaged over several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..errors import InvalidArgumentError
from .camera import Camera, project, token_points
from .naf import NAF, Guide, upsample_at

TOKENS_AT_ONCE = 4096


@dataclass(frozen=True)
class PixelView:
    """One picture as tokens read it: its camera and patch features `[n, n, C]` float32, of a picture of
    `size` pixels a side; `guides`, by the side of their grid, where the upsampled maps can be read too.
    """

    camera: Camera
    size: int
    patches: torch.Tensor
    guides: dict[int, Guide]


def bilinear_taps(
    pixels: torch.Tensor, size: float, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The four cells `[N, 4]` int64 of a map, row by row, around each pixel `[N, 2]` of a picture of side
    `size`, and their weights `[N, 4]`.

    Places outside are moved to the border. The half pixel that is added is the published flows' own.
    """
    extent = torch.tensor([width, height], device=pixels.device)
    places = (pixels + 0.5) * (extent / size) - 0.5
    places = torch.minimum(places.nan_to_num(0.0).clamp(min=0), extent - 1.0)
    low = places.floor()
    far = places - low
    x0, y0 = low.long().unbind(1)
    x1, y1 = (x0 + 1).clamp(max=width - 1), (y0 + 1).clamp(max=height - 1)
    cells = torch.stack([y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1], dim=1)
    right, down = far.unbind(1)
    left, up = 1 - right, 1 - down
    return cells, torch.stack([up * left, up * right, down * left, down * right], dim=1)


def sample_map(features: torch.Tensor, pixels: torch.Tensor, size: float) -> torch.Tensor:
    """A map `[h, w, C]` at pixels `[N, 2]` of a picture of side `size`: `[N, C]`."""
    height, width, _ = features.shape
    cells, weights = bilinear_taps(pixels, size, height, width)
    rows: torch.Tensor = F.embedding_bag(
        cells, features.flatten(0, 1), per_sample_weights=weights.to(features.dtype), mode="sum"
    )
    return rows


def upsampled_at(view: PixelView, side: int, pixels: torch.Tensor) -> torch.Tensor:
    """The view's patch features upsampled to `side`x`side`, at pixels `[N, 2]`: `[N, C]`."""
    cells, weights = bilinear_taps(pixels, view.size, side, side)
    return upsample_at(view.guides[side], view.patches, cells, weights)


def token_features(
    views: Iterable[PixelView],
    count: int,
    coords: torch.Tensor,
    resolution: int,
    sides: Sequence[int] = (),
    mesh_scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """What the tokens `coords [N, 3]` of a `resolution`^3 grid see: `[N, C * (1 + len(sides))]` in `dtype`.

    First the patch map, then the maps upsampled to each of `sides`, all averaged over the `count` views with
    equal weights. Each view is asked for once and summed in float32, so that memory does not grow with their
    number.
    """
    total: torch.Tensor | None = None
    for view in views:
        width = view.patches.shape[-1]
        if total is None:
            summed = dtype if count == 1 else torch.float32
            total = coords.new_zeros(len(coords), width * (1 + len(sides)), dtype=summed)
        for start in range(0, len(coords), TOKENS_AT_ONCE):
            rows = slice(start, start + TOKENS_AT_ONCE)
            points = token_points(coords[rows], resolution, mesh_scale)
            pixels, _ = project(points, view.camera, view.size)
            total[rows, :width] += sample_map(view.patches, pixels, view.size)
            for i, side in enumerate(sides, start=1):
                total[rows, i * width : (i + 1) * width] += upsampled_at(view, side, pixels)
    if total is None:
        raise InvalidArgumentError("token features need at least one view")
    return total if count == 1 else total.div_(count).to(dtype)


def make_view(
    camera: Camera,
    patches: torch.Tensor,
    picture: torch.Tensor,
    sides: Sequence[int] = (),
    upsampler: NAF | None = None,
) -> PixelView:
    """A view of a picture `[3, S, S]` in 0..1 whose image model gave patch features `[n, n, C]`.

    The guide encoder runs once for all of `sides`. Raises `InvalidArgumentError` where these need an
    upsampler and there is none.
    """
    guides: dict[int, Guide] = {}
    if sides:
        if upsampler is None:
            raise InvalidArgumentError(
                "these flows read an upsampled feature map, which needs the NAF weights"
            )
        encoded = upsampler.encode(picture, max(sides))
        guides = {side: upsampler.guide(encoded, side, patches.shape[0]) for side in sides}
    return PixelView(camera, picture.shape[-1], patches, guides)


def split_tokens(tokens: torch.Tensor, globals_: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """DINOv3 tokens `[1 + 4 + n*n, C]` as the five global ones `[5, C]` and the patch map `[n, n, C]`.

    Raises `InvalidArgumentError` when the patches are no square.
    """
    patches = tokens[globals_:]
    side = round(len(patches) ** 0.5)
    if side < 1 or side * side != len(patches):
        raise InvalidArgumentError(
            f"{len(tokens)} image tokens are not {globals_} global ones and a square of patches: "
            "pixel-aligned flows need an image model such as DINOv3"
        )
    return tokens[:globals_], patches.unflatten(0, (side, side))
