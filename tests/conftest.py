"""What holds for every test: torch's threads, and how files are shared out to two processes;
and tiny checkpoints in the published layouts, each written once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

# Set before anything imports torch, for this process and those that tests start: threads yield while they
# wait; on shared cores spinning costs a hundredfold (benchmarks/NOTES.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

TOGETHER = "tests/trellis2_modal/browser/"
"""One walk through one app, in several files: they stay in one process, in order."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests stay in one process, as they share servers and models."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return TOGETHER if nodeid.startswith(TOGETHER) else str(super()._split_scope(nodeid))

    return ByFile(config, log)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.trellis2.pipelines.tiny_checkpoint import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def pixel_checkpoint(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pixel-aligned weights of both kinds: `pipeline.json` and `pipeline_mv.json`."""
    from tests.trellis2.pipelines.tiny_checkpoint import write_pixel_aligned

    return write_pixel_aligned(checkpoint, tmp_path_factory.mktemp("pixel_aligned"))
