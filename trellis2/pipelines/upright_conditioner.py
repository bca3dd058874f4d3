"""Conditions of flows that are pixel-aligned in the object's own upright frame, as the bundled ones are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..conditioning.colors.visible_colors import Sight, best_sight, painted, seen_colors
from ..conditioning.pixel_map import PixelSource, cell_geometry, cell_reading, voxel_features
from ..conditioning.structure_refiner import Observation
from ..conditioning.upright import UprightCamera, Window
from ..errors import CheckpointError
from ..nn.tokens import PixelTokens
from ..representations import PBR_ATTR_LAYOUT
from ..sparse import SparseTensor
from .conditioner import Condition, Conditioner, ImageConditioner
from .latents import LATENT_STRIDE

_BLACK = 3 / 255  # the brightest channel of a pixel without the object
OTHERS = 0.05  # a voxel that is seen as well in the first picture is read there


@dataclass(frozen=True)
class UprightConditioner:
    """Image tokens for every stage; for those in `aligned` also what each voxel sees of the picture.

    `maps [1, C, H, W]` are the picture's feature maps, `matte [1, S, S]` in 0..1 is what of it the object
    covers. `camera` and `window`, the part of its frame that the picture shows, are the camera head's; later
    stages find the window from the voxels. The structure's stage has maps of its own. `colors [1, 3, S, S]`
    are the base colours of the picture, where the weights tell them.
    """

    tokens: ImageConditioner
    maps: torch.Tensor
    camera: UprightCamera
    aligned: frozenset[str]
    window: Window | None = None
    structure_maps: torch.Tensor | None = None
    cells: int = 8  # along a side of the structure's latent
    matte: torch.Tensor | None = None
    colors: torch.Tensor | None = None
    picture: torch.Tensor | None = None  # [1, 3, S, S] in 0..1, with its tokens `seen [1, L, C]`
    seen: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        tokens: ImageConditioner,
        seen: torch.Tensor,
        picture: torch.Tensor,
        source: PixelSource,
        aligned: frozenset[str],
        cells: int = 8,
        matte: torch.Tensor | None = None,
    ) -> UprightConditioner:
        """From a picture `[1, 3, S, S]` in 0..1 on black, its image tokens `seen [1, L, C]` and its matte.

        Without a `matte` the object is where the picture is not black.
        """
        camera, window = source.camera(seen)
        structure = None if source.structure is None else source.structure(picture, seen)
        matte = matte_of(picture) if matte is None else matte
        colors = None if source.base_color is None else source.base_color(picture, seen).clamp(0, 1)
        maps = source.map(picture, seen)
        return cls(tokens, maps, camera, aligned, window, structure, cells, matte, colors, picture, seen)

    def condition(self, stage: str, coords: torch.Tensor | None, resolution: int) -> Condition:
        """As `Conditioner` says; the voxels of an item are the object that its crop was made around."""
        plain = self.tokens.condition(stage, coords, resolution)
        if stage not in self.aligned:
            return plain
        return with_features(
            plain, self._cells(stage) if coords is None else self.features(coords, resolution)
        )

    def features(self, coords: torch.Tensor, resolution: int) -> torch.Tensor:
        """What voxels `[N, 4]` towards a grid of `resolution`^3 see of the picture: `[N, C]`."""
        grid, items = resolution // LATENT_STRIDE, coords[:, 0]
        features = self.maps.new_empty(0)
        for item in items.unique().tolist():
            rows = items == item
            made = voxel_features(self.maps, coords[rows][None, :, 1:], grid, self.camera)[0]
            if not len(features):
                features = made.new_empty(len(coords), made.shape[1])
            features[rows] = made
        return features

    def sight(self, coords: torch.Tensor, resolution: int) -> Sight:
        """What the picture shows of one item's voxels `[N, 3]` on a grid of `resolution`^3."""
        assert self.colors is not None
        assert self.matte is not None
        return seen_colors(coords, resolution, self.colors, self.matte, self.camera)

    def observation(self) -> Observation:
        """What a structure refiner sees. Raises `CheckpointError` without the structure's map."""
        structure, window, picture, seen = self.structure_maps, self.window, self.picture, self.seen
        if structure is None or window is None or picture is None or seen is None:
            raise CheckpointError("these weights refine structures, but have no map for the structure")
        return Observation(picture, seen, torch.cat([self.maps, structure], 1), self.camera, window)

    def _cells(self, stage: str) -> torch.Tensor:
        """What the cells of the structure's latent see."""
        if self.structure_maps is None or self.window is None:
            raise CheckpointError(
                f"the flow of {stage} is pixel-aligned, but these weights have no map for it"
            )
        places, geometry = cell_geometry(self.cells, self.camera, self.window)
        return cell_reading(self.structure_maps, places, geometry)


def matte_of(picture: torch.Tensor) -> torch.Tensor:
    """Where a picture `[1, 3, S, S]` on black shows the object: `[1, S, S]`, 0 or 1."""
    return (picture.amax(1) > _BLACK).float()


def with_features(plain: Condition, features: torch.Tensor) -> Condition:
    """Image tokens joined by what voxels see of the picture."""
    tokens = PixelTokens(plain.cond, features)
    return Condition(tokens, tokens.null())


@dataclass(frozen=True)
class UprightViews:
    """Of several pictures, each voxel of a pixel-aligned stage is seen in the one that shows it best.

    All else is told by the first picture alone: on weights that learnt one, the tokens of others did harm,
    joined as well as averaged.
    """

    views: tuple[UprightConditioner, ...]

    @classmethod
    def around(cls, views: Sequence[UprightConditioner], yaws: Sequence[float | None]) -> UprightViews:
        """With cameras at `yaws` (radians) around the object, otherwise as the first one; None: as read."""
        first = views[0].camera
        posed = [
            view
            if yaw is None
            else replace(view, camera=UprightCamera(torch.full_like(first.yaw, yaw), first.pitch, first.fov))
            for view, yaw in zip(views, yaws, strict=True)
        ]
        return cls(tuple(posed))

    def condition(self, stage: str, coords: torch.Tensor | None, resolution: int) -> Condition:
        """As `Conditioner` says."""
        first = self.views[0]
        if coords is None or stage not in first.aligned:
            return first.condition(stage, coords, resolution)
        seen = torch.stack([view.features(coords, resolution) for view in self.views])  # [V, N, C]
        behind = seen[..., -4:-2].sum(-1)  # the first surface, by two measures of `voxel_geometry`
        behind[1:] += OTHERS
        rows = torch.arange(len(coords), device=seen.device)
        plain = first.tokens.condition(stage, coords, resolution)
        return with_features(plain, seen[behind.argmin(0), rows])


def with_seen_colors(conditioner: Conditioner | None, voxels: SparseTensor, resolution: int) -> SparseTensor:
    """Attributes `[T, 6]` of voxels with the base colours that the pictures show, where the weights read them
    off pictures in the object's upright frame; else as they are.
    """
    views = conditioner.views if isinstance(conditioner, UprightViews) else (conditioner,)
    seeing = [v for v in views if isinstance(v, UprightConditioner) and v.colors is not None]
    if not seeing:
        return voxels
    attributes, layers = voxels.feats.clone(), PBR_ATTR_LAYOUT["base_color"]
    for item in range(voxels.batch_size):
        rows = voxels.coords[:, 0] == item
        sights = [view.sight(voxels.coords[rows, 1:], resolution) for view in seeing]
        colors = painted(attributes[rows, layers].float(), best_sight(sights, OTHERS))
        attributes[rows, layers] = colors.to(attributes.dtype)
    return voxels.replace(attributes)
