"""What a job takes is told by what the last jobs like it took."""

from __future__ import annotations

from typing import Any

import pytest

from trellis2_modal.jobs.estimates import COMPARED, Measurements
from trellis2_modal.jobs.job import Job

HERE = {"model": "m", "device": "cpu"}
SAMPLERS = {"ss_sampling_steps": 10.0, "shape_slat_sampling_steps": 10.0, "tex_slat_sampling_steps": 10.0}
STAGES = {"sparse_structure": 10.0, "shape": 20.0, "texture": 30.0, "decode_texture": 4.0, "preview": 6.0}
ASKED = {"pipeline_type": "512", "quality": "exact", "texture": True, "preview": "video"}


def finished(
    settings: dict[str, Any], stages: dict[str, float], seconds: float, kind: Any = "generate", **changes: Any
) -> Job:
    place = changes.pop("place", HERE)
    result = {"stats": {"seconds": stages} | place}
    return Job(
        *("job_1", "key_1", kind, settings, "digest", 1.0),
        **({"status": "finished", "result": result, "seconds": seconds, "finished": 2.0} | changes),
    )


def measured(*jobs: Job) -> Measurements:
    found = Measurements()
    found.add(jobs)
    return found


def seconds(jobs: Measurements, kind: Any = "generate", **settings: Any) -> float | None:
    asked = ASKED | settings if kind == "generate" else settings
    found = jobs.estimate(kind, asked, HERE, SAMPLERS)
    return None if found is None else found.seconds


def test_the_same_again_takes_as_long() -> None:
    jobs = measured(*(finished(ASKED, STAGES, 71.0 + n) for n in range(3)))
    found = jobs.estimate("generate", ASKED, HERE, SAMPLERS)
    assert found is not None
    assert (found.seconds, found.low, found.high, found.jobs) == (72.0, 71.0, 73.0, 3)
    assert found.stages == STAGES


def test_what_is_left_out_takes_nothing_and_steps_take_their_share() -> None:
    jobs = measured(finished(ASKED, STAGES, 71.0))
    assert seconds(jobs, texture=False) == 37.0
    assert seconds(jobs, preview="none") == 65.0
    assert seconds(jobs, shape_slat_sampling_steps=20) == 91.0
    halved = measured(finished(ASKED | {"ss_sampling_steps": 5}, STAGES, 71.0))
    assert seconds(halved) == 81.0, "a job of half the steps"


def test_the_second_pass_of_a_cascade_grows_from_the_steps_that_it_had() -> None:
    asked = ASKED | {"pipeline_type": "1024_cascade"}
    place = HERE | {"samplers": {"shape_slat": {"steps": 10}, "shape_fine": {"steps": 5}}}
    jobs = measured(finished(asked, STAGES | {"shape_fine": 8.0}, 79.0, place=place))
    assert seconds(jobs, pipeline_type="1024_cascade") == 79.0
    more = seconds(jobs, pipeline_type="1024_cascade", shape_slat_sampling_steps=20)
    assert more == 79.0 + 20.0 + 24.0, "twice the first pass's steps, four times the second's"


def test_what_was_never_measured_is_not_estimated() -> None:
    assert seconds(Measurements()) is None
    jobs = measured(finished(ASKED, STAGES, 71.0))
    assert seconds(jobs, pipeline_type="1024") is None
    assert seconds(jobs, quality="fast") is None
    assert seconds(jobs, kind="extract") is None
    assert seconds(jobs, preview="frames") is None, "stills were never made"
    plain = {name: STAGES[name] for name in ("sparse_structure", "shape")}
    assert seconds(measured(finished(ASKED | {"texture": False, "preview": "none"}, plain, 30.0))) is None


@pytest.mark.parametrize(
    "other",
    [
        finished(ASKED, STAGES, 900.0, place={"model": "m", "device": "cuda"}),
        finished(ASKED, STAGES, 900.0, place={"model": "other", "device": "cpu"}),
        finished(ASKED, STAGES, 900.0, attempt=2),
        finished(ASKED, STAGES, 900.0, status="failed", result=None),
    ],
    ids=["device", "model", "crashed", "failed"],
)
def test_jobs_that_are_not_alike_say_nothing(other: Job) -> None:
    assert seconds(measured(finished(ASKED, STAGES, 71.0), other)) == 71.0


def test_the_nearest_extractions_count_and_the_latest() -> None:
    def extraction(faces: int, took: float) -> Job:
        settings = {"decimation_target": faces, "texture_size": 1024, "remesh": "auto", "format": "glb"}
        return finished(settings, {"bake": took}, took, "extract")

    jobs = measured(extraction(50_000, 5.0), *(extraction(15_000, 1.0 + n) for n in range(COMPARED + 10)))
    near = {"decimation_target": 50_000, "texture_size": 1024, "remesh": "auto", "format": "glb"}
    assert seconds(jobs, "extract", **near) == 5.0
    assert seconds(jobs, "extract", **near | {"format": "stl"}) == 5.0
    latest = [11.0 + n for n in range(COMPARED)]
    assert seconds(jobs, "extract", **near | {"decimation_target": 99_000}) == sum(latest) / len(latest)
