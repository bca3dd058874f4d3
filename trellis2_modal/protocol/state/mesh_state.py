"""What a state holds, as numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import FieldError, InvalidStateError
from ..limits import MAX_CHANNELS, MAX_FACES, MAX_GRID, MAX_TOKENS, MAX_VERTICES, MAX_VOXELS
from .blocks import each_block, extremes

CHANNELS = 6
LAYOUT: dict[str, tuple[int, int]] = {
    "base_color": (0, 3),
    "metallic": (3, 4),
    "roughness": (4, 5),
    "alpha": (5, 6),
}
"""Name of an attribute to its channels (start, stop); the only layout of this format."""


def bad_state(field_name: str, message: str) -> InvalidStateError:
    """The error for one field of a state that is invalid."""
    return InvalidStateError(
        f"the state's {field_name} {message}; send a state as the service returned it",
        errors=[FieldError(field_name, message)],
    )


@dataclass(frozen=True, eq=False)
class ShapeLatents:
    """What the shape was decoded from: `coords` i32 `[N, 3]` of its tokens, unique; `feats` f32 `[N, C]`
    (denormalised); `resolution` of the voxel grid that they decode to."""

    coords: npt.NDArray[np.int32]
    feats: npt.NDArray[np.float32]
    resolution: int

    def validate(self) -> None:
        """Raises `InvalidStateError` naming what is invalid."""
        _array("latent_coords", self.coords, np.int32, 3, MAX_TOKENS)
        count, channels = self.feats.shape if self.feats.ndim == 2 else (-1, 0)
        if self.feats.dtype != np.float32 or not 1 <= channels <= MAX_CHANNELS:
            raise bad_state("latents", f"is {self.feats.dtype} of shape {list(self.feats.shape)}")
        if count != len(self.coords) or not count:
            raise bad_state("latents", f"has {count} rows for {len(self.coords)} tokens")
        if not 1 <= self.resolution <= MAX_GRID:
            raise bad_state("latents", f"decodes to {self.resolution} voxels a side, the most is {MAX_GRID}")
        low, high = int(self.coords.min()), int(self.coords.max())
        if low < 0 or high >= self.resolution:
            raise bad_state("latent_coords", f"spans {low}..{high}")
        if len(np.unique(self.coords, axis=0)) != count:
            raise bad_state("latent_coords", "holds the same token twice")
        if not np.isfinite(self.feats).all():
            raise bad_state("latents", "holds NaN or infinity")


@dataclass(frozen=True, eq=False)
class MeshState:
    """A decoded asset: a mesh over the voxels that carry its material.

    `vertices` f32 `[V, 3]` in the cube [-0.5, 0.5]^3, Z up; `faces` i32 `[F, 3]`; `coords` i32 `[N, 3]`,
    unique; `attrs` f32 `[N, 6]`, nominally 0..1; `origin` is the cube's low corner and `voxel_size` the edge
    of a voxel. `info` is a small JSON object (seed, pipeline type, resolution). `latents`, where they were
    kept, let the texture be made anew and the shape be refined.
    """

    vertices: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]
    coords: npt.NDArray[np.int32]
    attrs: npt.NDArray[np.float32]
    origin: tuple[float, float, float] = (-0.5, -0.5, -0.5)
    voxel_size: float = 1 / 512
    info: dict[str, Any] = field(default_factory=dict)
    latents: ShapeLatents | None = None

    def validate(self) -> None:
        """Raises `InvalidStateError` naming the first array that is invalid."""
        _array("vertices", self.vertices, np.float32, 3, MAX_VERTICES)
        _array("faces", self.faces, np.int32, 3, MAX_FACES)
        _array("coords", self.coords, np.int32, 3, MAX_VOXELS)
        _array("attrs", self.attrs, np.float32, CHANNELS, MAX_VOXELS)
        if len(self.coords) != len(self.attrs):
            raise bad_state("attrs", f"has {len(self.attrs)} rows for {len(self.coords)} voxels")
        if not len(self.coords):
            raise bad_state("coords", "is empty")
        if not _finite(self.vertices):
            raise bad_state("vertices", "holds NaN or infinity")
        if not _finite(self.attrs):
            raise bad_state("attrs", "holds NaN or infinity")
        low, high = map(int, extremes(self.coords))
        if low < 0 or high >= MAX_GRID:
            raise bad_state("coords", f"spans {low}..{high}, allowed is 0..{MAX_GRID - 1}")
        if len(self.faces):
            low, high = map(int, extremes(self.faces))
            if low < 0 or high >= len(self.vertices):
                raise bad_state("faces", f"names vertices {low}..{high} of {len(self.vertices)}")
        numbers = np.array([*self.origin, self.voxel_size], dtype=np.float64)
        if not np.isfinite(numbers).all() or abs(numbers).max() > 1e6:
            raise bad_state("origin", "or voxel_size is not a finite number of sensible size")
        if not 1e-6 <= self.voxel_size <= 1e3:
            raise bad_state("voxel_size", f"is {self.voxel_size:g}, allowed is 1e-6 to 1e3")
        if self.latents is not None:
            self.latents.validate()


def _finite(array: np.ndarray) -> bool:
    return all(each_block(lambda rows: bool(np.isfinite(array[rows]).all()), len(array)))


def _array(name: str, array: np.ndarray, dtype: type, columns: int, ceiling: int) -> None:
    if array.dtype != dtype:
        raise bad_state(name, f"is {array.dtype}, expected {np.dtype(dtype)}")
    if array.ndim != 2 or array.shape[1] != columns:
        raise bad_state(name, f"has shape {list(array.shape)}, expected [n, {columns}]")
    if len(array) > ceiling:
        raise bad_state(name, f"has {len(array)} rows, the most is {ceiling}")
