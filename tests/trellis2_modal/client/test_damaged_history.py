"""Damaged files of the app, and numbers that are not what they say: one of them stops nothing else."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.trellis2_modal.attacks.histories import DAMAGES, make_history
from trellis2_modal.client.app import history_view, result
from trellis2_modal.client.app.file_routes import Mattes
from trellis2_modal.client.app.history_view import HistoryView
from trellis2_modal.client.app.task_queue import TaskQueue
from trellis2_modal.client.history import PICTURE, STILLS, Entry, Export, History
from trellis2_modal.client.report import describe_report
from trellis2_modal.client.results import GenerateResult, first_still
from trellis2_modal.protocol.requests import SAMPLER_FIELDS

NOWHERE = "http://127.0.0.1:9"


@pytest.mark.skipif(sys.platform == "win32", reason="makes pipes and links")
def test_the_app_starts_and_shows_the_rest(data_home: Path, caplog: pytest.LogCaptureFixture) -> None:
    damaged = len(DAMAGES)
    whole = make_history(data_home / "history", 40, damaged)
    task_queue = TaskQueue(data_home, NOWHERE, "sk_x")
    try:
        assert [entry.id for entry in task_queue.history.entries()] == whole[::-1]
        assert len(task_queue.history.damaged) == damaged
        assert caplog.text.count("it is left alone") == damaged
        page = history_view.history(task_queue, HistoryView(count=100))
        assert page.count('class="item"') == len(whole)
        assert f"{damaged} assets are damaged and not shown" in page
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from trellis2_modal.client.app.actions import PANES, Actions
        shown = Actions(task_queue, Mattes(), []).look("", {}, HistoryView(), None, {}, *SAMPLER_FIELDS)
        assert len(shown) == len(PANES) + len(SAMPLER_FIELDS) + 3
        assert "chair" in str(shown)
        for name in task_queue.history.damaged:
            assert (data_home / "history" / name / PICTURE).exists()
    finally:
        task_queue.close()


ODD: list[Any] = [
    None,
    3,
    -1,
    1e400,
    float("nan"),
    "x",
    [],
    {},
    [1],
    {"a": 1},
    {"a": "b"},
    [[1]],
    True,
    "9" * 5000,
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_numbers_of_any_kind_are_shown_or_left_out(tmp_path: Path, odd: Any) -> None:
    entry = Entry("20260101-000000-00000000", "chair", 1.0, "finished", seed=1)
    history = History(tmp_path)
    (tmp_path / entry.id).mkdir()
    (tmp_path / entry.id / STILLS).write_bytes(b"x")
    for preview in (odd, {"modes": odd, "views": 2, "size": 3}, {"modes": ["a"], "views": odd, "size": odd}):
        stats = {"seconds": odd, "voxels": odd, "warnings": odd, "preview": preview}
        stats |= {"gpu_seconds": odd, "price": odd, "currency": odd}
        entry = replace(entry, stats=stats)
        assert "chair" in result.facts(SimpleNamespace(history=history), entry)
        assert "<div" in result.stills(SimpleNamespace(history=history), entry)
        first_still(GenerateResult("job", 1, 16, b"", preview=None, stats=entry.stats), "a")
    counts = ("faces", "vertices", "components", "source_faces", "boundary_edges", "non_manifold_edges")
    others = ("watertight", "inside_out", "size", "bounding_box", "textures", "alpha_mode", "notes")
    for wrapped in (odd, {"a": odd}, [odd, odd], {"a": [odd, odd]}):
        report = dict.fromkeys(counts + others, wrapped)
        lines = describe_report(report)
        assert all(isinstance(line, str) for line in lines)
        assert "a.glb" in result._file(entry, Export("a.glb", "Web", 9, report=report), "")
