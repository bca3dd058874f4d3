"""One small asset for all tests that only look at the result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from o_voxel.postprocess import GlbAsset, to_glb

from .objects import attributes, box, decoded, sphere


@pytest.fixture(scope="session")
def ball() -> dict[str, Any]:
    """Arguments for a textured ball, decoded at 48."""
    return decoded(sphere(), 48)


@pytest.fixture(scope="session")
def asset(ball: dict[str, Any]) -> GlbAsset:
    """The ball at 1500 faces with a normal map."""
    return to_glb(**ball, decimation_target=1500, texture_size=256, normal_map=True)


@pytest.fixture(scope="session")
def globe_arguments() -> dict[str, Any]:
    """Arguments for a solid cube in a ball of glass, decoded at 64."""

    def values(points: torch.Tensor) -> torch.Tensor:
        found = attributes(points)
        found[points.norm(dim=1) > 0.36, 5] = 0.3
        return found

    ball, cube = sphere(0.42), box((-0.15, -0.15, -0.15), (0.15, 0.15, 0.15))
    return decoded((torch.cat([ball[0], cube[0]]), torch.cat([ball[1], cube[1] + len(ball[0])])), 64, values)
