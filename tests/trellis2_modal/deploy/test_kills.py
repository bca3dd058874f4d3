from __future__ import annotations

from tests.trellis2_modal.deploy.kills import storm


def test_no_job_is_lost_and_none_runs_to_its_end_twice() -> None:
    """A smaller run of `python -m tests.trellis2_modal.deploy.kills`."""
    found = storm(jobs=40, kills=8)
    assert (found.lost, found.ends) == (0, 0)
    assert found.twice <= found.orphans
    assert found.finished + found.cancelled == found.jobs == 40
    assert (found.container_kills, found.gateway_kills) == (6, 2)
    assert found.attempts > found.finished, "a killed container costs an attempt"
