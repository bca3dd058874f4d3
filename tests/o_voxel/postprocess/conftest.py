"""One small asset for all tests that only look at the result."""

from __future__ import annotations

from typing import Any

import pytest
from o_voxel.postprocess import GlbAsset, to_glb

from .objects import decoded, sphere


@pytest.fixture(scope="session")
def ball() -> dict[str, Any]:
    """Arguments for a textured ball, decoded at 48."""
    return decoded(sphere(), 48)


@pytest.fixture(scope="session")
def asset(ball: dict[str, Any]) -> GlbAsset:
    """The ball at 1500 faces with a normal map."""
    return to_glb(**ball, decimation_target=1500, texture_size=256, normal_map=True)
