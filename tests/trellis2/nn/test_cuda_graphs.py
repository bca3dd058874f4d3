from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from trellis2.nn import cuda_graphs
from trellis2.nn.cuda_graphs import MAX_RECORDINGS, Recordings, SegmentedCall


class Recording:
    """Stands for a recorded graph: counts replays instead of launching kernels."""

    made: list[Recording]

    def __init__(self, call: Any, inputs: Any, keep: Any) -> None:
        self.call, self.replays = call, 0
        self.output = call(*inputs)
        self.made.append(self)

    def result(self) -> torch.Tensor:
        return self.output

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        self.replays += 1
        return self.call(*inputs)


NEGATIVE = SegmentedCall((lambda x: x + 1, lambda y: 1 - y))


def test_segments_pass_on_what_they_return() -> None:
    assert float(NEGATIVE(torch.tensor(3.0))) == -3


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    Recording.made = []
    monkeypatch.setattr(cuda_graphs, "RecordedCall", Recording)
    return Recording.made


def test_the_first_call_records_and_all_replay(recordings: list[Recording]) -> None:
    graphs, warmed = Recordings(), []

    def warm_up(x: torch.Tensor) -> torch.Tensor:
        warmed.append(x)
        return NEGATIVE(x)

    results = [
        graphs.run(NEGATIVE, [torch.full((3,), float(i))], "lengths", warm_up=warm_up) for i in range(4)
    ]
    assert [float(r[0]) for r in results] == [0, -1, -2, -3]
    assert [len(warmed), len(recordings), recordings[0].replays] == [1, 1, 3]


def test_other_shapes_and_keys_are_other_recordings(recordings: list[Recording]) -> None:
    graphs = Recordings()
    for rows, key in ((3, "a"), (3, "a"), (4, "a"), (4, "a"), (3, "b"), (3, "b")):
        graphs.run(NEGATIVE, [torch.ones(rows)], key)
    assert len(recordings) == 3
    graphs.run(NEGATIVE, [torch.ones(3)], "b")
    assert recordings[-1].replays == 2


def test_only_a_few_are_kept(recordings: list[Recording]) -> None:
    graphs = Recordings()
    for rows in range(1, 6):
        for _ in range(2):
            graphs.run(NEGATIVE, [torch.ones(rows)])
    assert len(graphs) == MAX_RECORDINGS


def test_a_recording_that_fails_is_logged_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graphs, "RecordedCall", refuse)
    graphs = Recordings()
    with caplog.at_level(logging.WARNING):
        results = [graphs.run(NEGATIVE, [torch.ones(2)]) for _ in range(2)]
    assert torch.equal(results[1], -torch.ones(2))
    assert "cannot be recorded" in caplog.text
    assert not graphs.serve(torch.ones(2))


def test_cpu_calls_are_not_recorded() -> None:
    with torch.no_grad():
        assert not Recordings().serve(torch.ones(2))
