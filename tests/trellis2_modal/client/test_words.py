"""What people read: failures and their next step, progress, time, the mesh report, the hint about a matte."""

from __future__ import annotations

import errno
import io
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trellis2_modal.client import errors as client_errors
from trellis2_modal.client.app.error_messages import (
    ACTION_LABELS,
    NOTHING_FOUND,
    explain,
    suggested_settings,
)
from trellis2_modal.client.app.inputs.matte import judge
from trellis2_modal.client.errors import LocalServerError, UnreachableError
from trellis2_modal.client.report import describe_report, judge_file
from trellis2_modal.client.stages import JobProgress, duration, phases_of, size_text
from trellis2_modal.protocol.errors import (
    ERRORS,
    InvalidImageError,
    InvalidMeshError,
    OutOfMemoryError,
    QuotaExceededError,
    ServiceError,
)
from trellis2_modal.protocol.replies import JobEvent

CLIENT_ERRORS = [
    value for value in vars(client_errors).values() if isinstance(value, type) and value is not ServiceError
]


@pytest.mark.parametrize("kind", [*ERRORS.values(), *CLIENT_ERRORS])
def test_every_error_has_a_title_and_whole_sentences(kind: type[ServiceError]) -> None:
    found = explain(kind("the disk of the service is full"))
    assert found.title[0].isupper()
    assert not found.title.endswith(".")
    assert found.detail.startswith("The disk of the service is full")
    assert found.action in ACTION_LABELS


def test_faults_and_disks() -> None:
    assert "full" in explain(OSError(errno.ENOSPC, "No space left on device")).title
    found = explain(OSError(errno.EACCES, "Permission denied", "/data/x"))
    assert "/data/x" in found.detail
    assert "ZeroDivisionError" in explain(ZeroDivisionError("x")).detail
    assert explain(LocalServerError("no weights", "log"), local=True).action == "settings"
    silent = explain(UnreachableError("no connection to 127.0.0.1:9; check the address"), local=True)
    assert "local engine" in silent.title
    assert "network" not in silent.detail
    assert explain(UnreachableError("no connection to a.test")).action == "retry"


def test_when_to_try_again_is_said() -> None:
    assert explain(QuotaExceededError("spent", retry_after=7300)).detail.endswith("Try again in 2 h 1 min.")


def test_a_picture_without_a_subject_is_told_without_numbers() -> None:
    found = explain(InvalidImageError("no pixel is above alpha 204 of 255: it shows no subject"))
    assert found == NOTHING_FOUND
    assert found.action == "picture"


def test_uvs_that_cannot_be_used_are_made_anew_by_the_next_try() -> None:
    words = "the texture coordinates reach from (-1, 0) to (2, 1), outside 0..1; ask for new ones (new_uvs)"
    error = InvalidMeshError(words, hints={"suggested": {"new_uvs": True}})
    found = explain(error)
    assert (found.title, found.action) == ("The mesh's UVs cannot be used", "retry")
    assert found.detail.startswith(
        "The texture coordinates reach from (-1, 0) to (2, 1), outside 0..1; ask for"
    )
    assert "new_uvs" not in found.detail, "the form calls it otherwise"
    assert suggested_settings(error) == {"new_uvs": True}
    plain = explain(InvalidMeshError("the GLB shows no triangles"))
    assert (plain.title, plain.action) == ("The mesh cannot be used", "mesh")


def test_smaller_settings_are_taken_from_the_error() -> None:
    hints = {"suggested": {"pipeline_type": "512"}}
    assert suggested_settings(OutOfMemoryError("too big", hints=hints)) == {"pipeline_type": "512"}
    assert suggested_settings(OutOfMemoryError("too big", hints={"suggested": 3})) == {}
    assert suggested_settings(ValueError()) == {}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (7.6, "8 s"),
        (60, "1 min"),
        (80, "1 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (-1, "0 s"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("size", "words"), [(12, "12 B"), (1_500, "1.5 kB"), (2_000_000, "2.0 MB"), (3e9, "3.0 GB")]
)
def test_sizes(size: float, words: str) -> None:
    assert size_text(size) == words


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def event(kind: str, **data: Any) -> JobEvent:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    return JobEvent(id=1, type=kind, time=when, data=data)  # type: ignore[arg-type]


def test_progress_and_time_left() -> None:
    clock = Clock()
    progress = JobProgress({"shape": 10.0, "texture": 6.0, "preview": 4.0}, clock)
    progress.feed(event("queued", position=2))
    assert (progress.state, progress.position, progress.left()) == ("queued", 2, None)
    progress.feed(event("started"))
    progress.feed(event("progress", stage="shape", step=0, steps=10))
    clock.now += 3
    assert progress.left() == pytest.approx(17)
    progress.feed(event("progress", stage="shape", step=5, steps=10))
    assert progress.left() == pytest.approx(13), "what is seen counts more than what was expected"
    assert progress.overall() == pytest.approx(3 / 16)
    clock.now += 3
    progress.feed(event("progress", stage="texture", step=0, steps=1))
    assert progress.seconds == {"shape": pytest.approx(6)}
    assert progress.left() == pytest.approx(10)
    progress.feed(event("restarted", reason="the worker ended"))
    assert (progress.state, progress.message) == ("queued", "the worker ended")
    progress.feed(event("result"))
    assert (progress.state, progress.overall()) == ("finished", 1.0)


@pytest.mark.parametrize("expected", [{}, {"shape": 1.0}])
def test_overall_never_goes_back_or_over(expected: dict[str, float]) -> None:
    progress, seen = JobProgress(expected, Clock()), [0.0]
    for stage in ("image", "condition", "sparse_structure", "shape", "texture", "mesh", "preview", "stills"):
        for step in range(4):
            progress.feed(event("progress", stage=stage, step=step, steps=4))
            seen.append(progress.overall())
    assert max(seen) <= 0.99
    if not expected:
        assert seen == sorted(seen)


def test_a_job_at_a_glance() -> None:
    progress = JobProgress(clock=Clock())
    assert phases_of(progress) == []
    progress.feed(event("progress", stage="shape", step=1, steps=2))
    states = dict(phases_of(progress))
    assert (states["Rough form"], states["Shape"], states["Preview"]) == ("done", "now", "next")
    for stage in ("state", "bake"):
        progress = JobProgress(clock=Clock())
        progress.feed(event("progress", stage=stage, step=1, steps=2))
        assert "File" in dict(phases_of(progress)), "an export, though it begins by unpacking the state"


def test_the_report_in_words() -> None:
    report = {
        "faces": 50_000,
        "vertices": 27_219,
        "components": 1,
        "source_faces": 72_664,
        "watertight": True,
        "bounding_box": [[-0.5, -0.25, 0], [0.5, 0.25, 1]],
        "textures": {"base_color": [1024, 1024], "normal": [1024, 1024]},
        "alpha_mode": "OPAQUE",
        "notes": ["the lid was closed"],
    }
    printed = describe_report(report | {"size": {"stl": [[100.0, 51.23, 80.0], "mm"]}})
    assert "Size 100 x 51.2 x 80 mm." in printed
    assert not any("outward" in line for line in printed)
    assert "Every face that can be seen points outward." in describe_report(report | {"inside_out": 0.0})
    turned = "12.5% of the visible surface is inside out: engines that cull back faces show holes there."
    assert turned in describe_report(report | {"inside_out": 0.125})
    text = "\n".join(describe_report(report, 1_600_000))
    for words in ("50,000 faces", "in one piece", "72,664", "Watertight", "1.00 x 0.50 x 1.00", "1024 x 1024",
                  "base colour, normal map", "Opaque", "1.6 MB", "the lid was closed"):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize(
    "report", [{}, {"textures": 3, "bounding_box": "x", "notes": 5, "size": {"glb": 4}, "faces": "many"}]
)
def test_a_report_of_another_version_is_no_crash(report: dict[str, Any]) -> None:
    assert describe_report(report) == []
    open_mesh = describe_report({"watertight": False, "boundary_edges": 3, "non_manifold_edges": 2})
    assert "Not watertight: 3 edges are open" in open_mesh[0]


def matte(make: Any) -> bytes:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    alpha = np.clip(make(x, y), 0, 1)
    pixels = np.dstack([np.full((64, 64, 3), 128), alpha * 255]).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x, y: (x * x + y * y < 0.9) * 1.0, None),
        (lambda x, y: (x * x + y * y < 0.01) * 1.0, "Hardly anything"),
        (lambda x, y: np.ones_like(x), "background may still be there"),
        (lambda x, y: (np.hypot(x, y) > 0.3) * 1.0, "cut off at the border"),
        (lambda x, y: 1.1 - np.hypot(x, y), "blurry"),
    ],
)
def test_the_hint_about_a_matte(make: Any, words: str | None) -> None:
    hint, warn = judge(matte(make))
    assert warn == (words is not None)
    assert (words or "what the model will see") in hint


def test_a_print_has_its_volume_and_wall() -> None:
    report = {"faces": 10, "solid": {"stl": {"volume_cm3": 123.4, "wall_mm": 1.23}}}
    assert "Volume 123 cm³, thinnest wall 1.2 mm." in describe_report(report)
    assert not any("olume" in line for line in describe_report({"faces": 10}))


CLOSED = {"watertight": True, "textures": {"base_color": [1024, 1024]}, "alpha_mode": "OPAQUE"}
OPEN = {"watertight": False, "boundary_edges": 12}


@pytest.mark.parametrize(
    ("kind", "report", "settings", "good", "words"),
    [
        ("stl", CLOSED, {}, True, "Printable."),
        ("3mf", CLOSED | {"solid": {"3mf": {"wall_mm": 0.3}}}, {}, False, "a wall of 0.3 mm"),
        ("stl", {"watertight": False, "boundary_edges": 12}, {}, False, "12 edges are open. Export it for"),
        (
            "stl",
            {"watertight": False, "boundary_edges": 12},
            {"simplify": "print"},
            False,
            "12 edges are open.",
        ),
        ("stl", {}, {}, False, "it was not checked"),
        ("glb", CLOSED, {}, True, "web browsers, game engines and Blender."),
        ("glb", CLOSED, {"quantize": True}, True, "not in Open3D"),
        ("glb", CLOSED, {"compress": "draco"}, False, "only in programs that read Draco"),
        ("usdz", CLOSED, {}, True, "Quick Look"),
    ],
)
def test_each_file_has_a_verdict(
    kind: str, report: dict[str, Any], settings: dict[str, Any], good: bool, words: str
) -> None:
    found = judge_file(kind, report, settings)
    assert (found.good, words in found.words) == (good, True), found


def test_a_file_without_textures_is_told_without_them() -> None:
    assert any("exture" in line for line in describe_report(CLOSED, kind="glb"))
    assert not any("exture" in line or "paque" in line for line in describe_report(CLOSED, kind="stl"))
