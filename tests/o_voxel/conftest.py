from __future__ import annotations

from collections.abc import Generator

import pytest


def _skipping_without_warp(item: pytest.Item) -> Generator[None, object, object]:
    """A test on the GPU that turns out to need Warp is skipped where Warp is not installed."""
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if error.name != "warp" or item.get_closest_marker("gpu") is None:
            raise
        pytest.skip("needs Warp: pip install warp-lang")


pytest_runtest_setup = pytest.hookimpl(wrapper=True)(_skipping_without_warp)
pytest_runtest_call = pytest.hookimpl(wrapper=True)(_skipping_without_warp)
