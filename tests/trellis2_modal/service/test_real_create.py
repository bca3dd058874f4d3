"""What makers do next, with the bundled weights (or random ones of that layout): new textures, variants,
shapes that stay. Few steps: what is kept and what changes is tested, not how it looks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.trellis2_modal.meshes import mesh_glb
from tests.trellis2_modal.service.test_real_model import served
from trellis2_modal.client.api import Client, GenerateResult
from trellis2_modal.client.compression import load_state
from trellis2_modal.service.config import BUNDLED_WEIGHTS

pytestmark = pytest.mark.slow

STEPS = {f"{stage}_sampling_steps": 2 for stage in ("ss", "shape_slat", "tex_slat")}
GREY = 1 / 255


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Client]:
    with served(tmp_path_factory.mktemp("served"), weights) as live, Client(live.url, live.key) as client:
        yield client


@pytest.fixture(scope="module")
def grey(maker: Client, photo: bytes) -> GenerateResult:
    """Two shapes without a texture, their latents kept."""
    return maker.generate(
        photo, seed=3, num_samples=2, texture=False, keep_latents=True, preview="none", **STEPS
    )


def colours(result: GenerateResult) -> np.ndarray:
    return load_state(result.state).attrs[:, :3]


def test_a_mesh_keeps_its_positions_and_uvs_and_gets_colours(maker: Client, photo: bytes) -> None:
    from benchmarks.retexture import stored

    mesh = mesh_glb()
    made = maker.texture(mesh, photo, texture_size=256, preview="none", tex_slat_sampling_steps=2)
    for name in ("POSITION", "TEXCOORD_0"):
        assert stored(made.data, name) == stored(mesh, name), name
    assert made.report["textures"]["base_color"] == [256, 256]


def test_variants_are_of_other_seeds_and_shapes(grey: GenerateResult) -> None:
    assert [variant.seed for variant in grey.variants] == [3, 4]
    first, second = (load_state(variant.state) for variant in grey.variants)
    assert [state.info["seed"] for state in (first, second)] == [3, 4]
    assert not np.array_equal(first.coords, second.coords)


def test_a_grey_shape_gets_its_texture_later_from_its_latents(
    maker: Client,
    photo: bytes,
    grey: GenerateResult,
) -> None:
    chosen = grey.variants[1]
    assert np.ptp(colours(chosen), axis=0).max() <= GREY, "plain, without a texture"
    made = maker.generate(
        photo, shape=chosen, seed=8, keep_latents=True, preview="none", tex_slat_sampling_steps=2
    )
    before, after = load_state(chosen.state), load_state(made.state)
    assert before.latents is not None
    assert after.latents is not None
    assert np.array_equal(before.latents.coords, after.latents.coords)
    assert np.array_equal(before.latents.feats, after.latents.feats)
    counts = [(len(state.vertices), len(state.faces)) for state in (before, after)]
    assert counts[0] == counts[1], "the shape stays"
    assert (after.info["seed"], made.seed) == (8, 8)
    if BUNDLED_WEIGHTS.exists():  # random ones may paint everything alike
        assert np.ptp(colours(made), axis=0).max() > 0.1
