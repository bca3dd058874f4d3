"""Every stage once before a container takes jobs, so that nobody waits for kernels to be compiled."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

from trellis2.progress import Monitor

from ...jobs.execution import Generator
from ...protocol.errors import ServiceError
from ...protocol.requests import ExtractSettings, GenerateSettings
from .start_budget import StartClock

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

STEPS = {"shape_slat_sampling_steps": 3, "tex_slat_sampling_steps": 3}
"""Enough for both branches of guidance; the structure has all its steps, so that there is an object."""

EXPORTS: tuple[dict[str, Any], ...] = ({}, {"remesh": True, "simplify": "game"})
"""What is exported where nothing is set; and remeshed, with a normal map: between them every kernel."""


def picture() -> bytes:
    """PNG of a red vase-like shape on white."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (512, 512), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((136, 150, 376, 420), fill=(180, 60, 50))
    draw.rectangle((216, 90, 296, 180), fill=(160, 50, 45))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def resolutions(offered: tuple[str, ...]) -> Iterator[str]:
    """One pipeline type for each resolution of the flows: a cascade runs the 512 and the 1024 shape flow."""
    if "512" in offered:
        yield "512"
    large = [name for name in ("1024_cascade", "1024") if name in offered]
    yield from large[:1]


def warm_up(generator: Generator, clock: StartClock) -> None:
    """Generate at each resolution with a preview, and export twice; the seconds go to `clock`.

    A job that is refused (no memory at 1024, no object) is logged and ends the warm-up of that stage alone;
    whatever else is raised would fail every job, and passes.
    """
    state: bytes | None = None
    for kind in resolutions(generator.pipeline_types):
        asked = GenerateSettings.model_validate(
            STEPS | {"pipeline_type": kind, "preview": "none" if state else "frames", "seed": 1}
        )
        with clock.stage(f"warm_{kind}"):
            try:
                made = generator.generate(picture(), asked, Monitor())
            except ServiceError as error:
                logger.warning("warm-up at %s: %s", kind, error.detail)
                continue
        state = state or made.files["state"].data
    for wanted in EXPORTS if state else ():
        with clock.stage("warm_export"):
            try:
                generator.extract_glb(state or b"", ExtractSettings.model_validate(wanted), Monitor())
            except ServiceError as error:
                logger.warning("warm-up of the export: %s", error.detail)
