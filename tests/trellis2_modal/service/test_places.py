"""Who waits sees how many are ahead: through a real server, the client, and the lines of the command."""

from __future__ import annotations

import io
import threading
from pathlib import Path

from tests.trellis2_modal.server import picture, running, wait_for
from trellis2_modal.cli.bars import Bars
from trellis2_modal.client.api import Client
from trellis2_modal.client.stages import JobProgress
from trellis2_modal.protocol.events import Queued, payload_of


def test_the_fourth_of_four_jobs_sees_the_others_go(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    places: list[int | None] = []
    lines, progress = io.StringIO(), JobProgress()
    bars = Bars(lines)
    with (
        running(tmp_path / "data", options={"gate": str(gate)}) as live,
        Client(live.url, live.key) as client,
    ):
        jobs = [client.submit(picture(seed=n)) for n in range(4)]
        wait_for(lambda: client.job(jobs[0].id).status.status == "running", "the first job")
        assert [client.job(job.id).status.position for job in jobs] == [None, 0, 1, 2]

        def follow() -> None:
            for event in jobs[3].events():
                bars(event)
                progress.feed(event)
                if isinstance(payload := payload_of(event), Queued):
                    places.append(payload.position)

        follower = threading.Thread(target=follow)
        follower.start()
        wait_for(lambda: progress.position == 2, "the third place")
        jobs[1].cancel()
        wait_for(lambda: progress.position == 1, "the second place")
        jobs[2].cancel()
        wait_for(lambda: progress.position == 0, "the first place")
        gate.touch()
        follower.join(20)
    assert progress.state == "finished"
    assert places[-3:] == [2, 1, 0]
    assert "Waiting: 2 ahead\nWaiting: 1 ahead\n" in lines.getvalue()
