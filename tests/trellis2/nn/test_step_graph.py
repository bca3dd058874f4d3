from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from trellis2.nn import step_graph
from trellis2.nn.step_graph import MOST_GRAPHS, Pieces, StepGraphs, in_one_go


class Recording:
    """Stands for a recorded graph: counts replays instead of launching kernels."""

    made: list[Recording]

    def __init__(self, call: Any, inputs: Any, keep: Any) -> None:
        self.call, self.replays = call, 0
        self.output = in_one_go(call(*inputs))
        self.made.append(self)

    def result(self) -> torch.Tensor:
        return self.output

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        self.replays += 1
        return in_one_go(self.call(*inputs))


def negative(x: torch.Tensor) -> Pieces:
    yield
    return -x


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    Recording.made = []
    monkeypatch.setattr(step_graph, "StepGraph", Recording)
    return Recording.made


def test_the_first_call_records_and_all_replay(recordings: list[Recording]) -> None:
    graphs, warmed = StepGraphs(), []

    def warm_up(x: torch.Tensor) -> Pieces:
        warmed.append(x)
        return negative(x)

    results = [
        graphs.run(negative, [torch.full((3,), float(i))], lambda: ("weights",), warm_up=warm_up)
        for i in range(4)
    ]
    assert [float(r[0]) for r in results] == [0, -1, -2, -3]
    assert [len(warmed), len(recordings), recordings[0].replays] == [1, 1, 3]


def test_other_shapes_and_keys_are_other_recordings(recordings: list[Recording]) -> None:
    graphs = StepGraphs()
    for rows, key in ((3, "a"), (3, "a"), (4, "a"), (4, "a"), (3, "b"), (3, "b")):
        graphs.run(negative, [torch.ones(rows)], lambda key=key: (key,))
    assert len(recordings) == 3
    graphs.run(negative, [torch.ones(3)], lambda: ("b",))
    assert recordings[-1].replays == 2


def test_only_a_few_are_kept(recordings: list[Recording]) -> None:
    graphs = StepGraphs()
    for rows in range(1, 6):
        for _ in range(2):
            graphs.run(negative, [torch.ones(rows)], tuple)
    assert len(graphs._seen) == MOST_GRAPHS


def test_a_recording_that_fails_is_logged_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(step_graph, "StepGraph", refuse)
    graphs = StepGraphs()
    with caplog.at_level(logging.WARNING):
        results = [graphs.run(negative, [torch.ones(2)], tuple) for _ in range(2)]
    assert torch.equal(results[1], -torch.ones(2))
    assert "cannot be recorded" in caplog.text
    assert not graphs.serve(torch.ones(2))


def test_cpu_calls_are_not_recorded() -> None:
    with torch.no_grad():
        assert not StepGraphs().serve(torch.ones(2))
