"""Image-based lighting: an environment picture, prepared once, that lights points and fills backgrounds."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F

from trellis2.errors import InvalidArgumentError, NumericalError
from trellis2.renderers.environment.cubemap import CubeMap, from_latlong
from trellis2.renderers.environment.prefilter import fg_table, irradiance, mip_chain, specular_levels
from trellis2.renderers.shading.model import PreparedLight, shade_kernel

_log = logging.getLogger(__name__)


class EnvMap:
    """Light from all around, given as a latitude-longitude picture.

    image: [H, W, 3] linear HDR, row 0 up (+z), centre column towards world -y, columns growing towards +x. By
    default solid angles are exact and energy is conserved: under constant light 1 a white surface shows 1 at
    every roughness (multiple scattering after Fdez-Agüera, "A Multiple-Scattering Microfacet Model for Real-
    Time Image Based Lighting", 2019, as three.js has it). With `reference_quirks` the published model's
    formulas are followed to the letter: its texel areas (diffuse light 5 to 12 % too bright) and single
    scattering. In both the reflection turns into diffuse light as roughness grows, as published.

    Pixels that are not finite are replaced by the nearest finite brightness bound (0 for NaN and -inf, the
    brightest finite pixel for +inf), with a warning; raises NumericalError when none is finite, and
    InvalidArgumentError for a wrong shape. Nothing is computed before first use.
    """

    def __init__(
        self, image: torch.Tensor, reference_quirks: bool = False, cube_size: int | None = None
    ) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InvalidArgumentError(f"an environment must be [H, W, 3], got {list(image.shape)}")
        self.image = _finite(image.detach().float())
        self.reference_quirks = reference_quirks
        self.cube_size = cube_size or (512 if reference_quirks else 256)
        if self.cube_size < 16 or self.cube_size & (self.cube_size - 1):
            raise InvalidArgumentError(f"cube_size must be a power of two from 16, got {self.cube_size}")
        self._prepared: PreparedLight | None = None
        self._elsewhere: dict[torch.device, EnvMap] = {}

    @property
    def device(self) -> torch.device:
        return self.image.device

    def to(self, device: torch.device | str) -> EnvMap:
        """The same environment on `device`; the same object each time, so that it is prepared once there."""
        device = torch.device(device)
        if device == self.device:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = EnvMap(self.image.to(device), self.reference_quirks, self.cube_size)
        return self._elsewhere[device]

    @property
    def prepared(self) -> PreparedLight:
        """Cubes and tables, made on first use."""
        if self._prepared is None:
            cube = from_latlong(self.image, self.cube_size)
            coarse = mip_chain(cube)[-1]
            self._prepared = PreparedLight(
                cube=CubeMap(cube),
                diffuse=CubeMap(irradiance(coarse, self.reference_quirks)),
                specular=tuple(CubeMap(x) for x in specular_levels(cube, self.reference_quirks)),
                fg=fg_table(self.device),
            )
        return self._prepared

    def sample(self, directions: torch.Tensor) -> torch.Tensor:
        """Unfiltered radiance seen along directions [..., 3] of any length; returns [..., 3]."""
        return self.prepared.cube.sample(directions.reshape(-1, 3)).reshape(directions.shape)

    def shade(
        self,
        pos: torch.Tensor,
        normal: torch.Tensor,
        kd: torch.Tensor,
        ks: torch.Tensor,
        view_pos: torch.Tensor,
        specular: bool = True,
    ) -> torch.Tensor:
        """Radiance that leaves points towards the eye, linear HDR, shaped like `pos`.

        pos, normal (unit), kd (linear base colour), ks (occlusion, roughness, metallic): [..., 3]; view_pos
        broadcasts against pos. Without `specular` only diffuse light times kd.
        """
        shape = pos.shape
        to_eye = F.normalize((view_pos - pos).reshape(-1, 3), dim=-1)
        out = self.shade_points(to_eye, normal.reshape(-1, 3), kd.reshape(-1, 3), ks.reshape(-1, 3), specular)
        return out.reshape(shape)

    def shade_points(
        self,
        to_eye: torch.Tensor,
        normal: torch.Tensor,
        kd: torch.Tensor,
        ks: torch.Tensor,
        specular: bool = True,
    ) -> torch.Tensor:
        """`shade` for [P, 3] with unit directions to the eye."""
        if not specular:
            return self.prepared.diffuse.sample(normal) * kd
        return shade_kernel(self.prepared, to_eye, normal, kd, ks, self.reference_quirks)


def _finite(image: torch.Tensor) -> torch.Tensor:
    finite = torch.isfinite(image)
    if bool(finite.all()):
        return image
    bad = int((~finite).any(-1).sum())
    total = image.shape[0] * image.shape[1]
    if not bool(finite.any()):
        raise NumericalError(
            f"all {total} pixels of the environment are NaN or infinite: use another picture"
        )
    _log.warning("environment: %d of %d pixels are NaN or infinite; replaced", bad, total)
    brightest = float(image[finite].max())
    return torch.nan_to_num(image, nan=0.0, posinf=brightest, neginf=0.0)
