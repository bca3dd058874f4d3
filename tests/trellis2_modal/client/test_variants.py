"""Variants and kept shapes in the app: one entry for several, one of them chosen; a shape that stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trellis2_modal.client.conftest import ended
from tests.trellis2_modal.client.service import Service, asset, photo, until
from trellis2_modal.client.app import history_view, html, result
from trellis2_modal.client.app.task_queue import TaskQueue
from trellis2_modal.client.estimates import Forecasts
from trellis2_modal.client.history import COVER, ENTRY, LIGHT, SHAPE, STATE, VIDEO, History, numbered
from trellis2_modal.client.results import GenerateResult
from trellis2_modal.protocol.errors import NotFoundError
from trellis2_modal.protocol.replies import Estimate, Health
from trellis2_modal.protocol.state import decompress_state, peek_state, unpack_state


def seed_of(path: Path | None) -> int:
    assert path is not None
    return int(peek_state(path.read_bytes())["info"]["seed"])


def test_variants_are_one_entry_of_which_one_is_chosen(
    open_task_queue: Callable[[], TaskQueue], service: Service
) -> None:
    task_queue = open_task_queue()
    wanted = {"seed": 5, "num_samples": 3}
    entry = ended(task_queue, task_queue.generate(photo(), "chair.png", wanted))
    assert (entry.variants, entry.variant, entry.seed) == ((5, 6, 7), 1, 5)
    for number in (1, 2, 3):
        for name in (STATE, VIDEO, COVER):
            assert task_queue.history.file(entry.id, numbered(name, number)), (name, number)
    assert task_queue.history.file(entry.id, numbered(LIGHT, 2)) is None, "made when it is looked at"
    task_queue.choose(entry.id, 2)
    entry = ended(task_queue, entry)
    assert (entry.variant, entry.seed) == (2, 6)
    assert result.viewed_file(task_queue, entry, "") == "light-2.glb"
    assert 'src="/kept/' + entry.id + "/turntable-2.mp4" in result.turntable(task_queue, entry)
    assert "variant 2 of 3" in result.facts(task_queue, entry)
    row = html.variants(task_queue, entry)
    assert row.count('type="radio"') == 3
    assert f'checked data-action="variant" data-target="{entry.id} 2" aria-label="Variant 2, seed 6"' in row
    task_queue.extract(entry.id, {"simplify": "web"}, "Web")
    (export,) = ended(task_queue, entry).exports
    assert (export.file, export.variant) == ("chair-2-web.glb", 2)
    kept = task_queue.history.file(entry.id, export.file)
    assert kept is not None
    assert kept.read_bytes() == asset(6)
    again = open_task_queue()
    (found,) = again.history.entries()
    assert (found.variant, found.exports) == (2, (export,)), "also after a restart"
    again.choose(entry.id, 1)
    again.extract(entry.id, {"simplify": "web"}, "Web")
    assert [e.file for e in ended(again, entry).exports] == ["chair-2-web.glb", "chair-1-web.glb"]
    names = [name for name, _ in history_view.archived(again.history, [])]
    assert [name.rpartition("/")[2] for name in names if "turntable" in name] == [
        "turntable.mp4", "turntable-2.mp4", "turntable-3.mp4",
    ]  # fmt: skip
    for number in (0, 4):
        with pytest.raises(NotFoundError):
            again.choose(entry.id, number)


def test_a_variant_is_exported_from_its_own_state_when_the_service_forgot_the_job(
    task_queue: TaskQueue, service: Service
) -> None:
    entry = ended(task_queue, task_queue.generate(photo(), "chair.png", {"seed": 5, "num_samples": 2}))
    service.forget(entry.job)
    task_queue.choose(entry.id, 2)
    ended(task_queue, entry)
    assert unpack_state(decompress_state(service.generator.payloads[-1])).info["seed"] == 6


def test_a_failed_export_is_tried_again_of_its_own_variant(task_queue: TaskQueue, service: Service) -> None:
    entry = ended(task_queue, task_queue.generate(photo(), "chair.png", {"seed": 5, "num_samples": 2}))
    service.plans.append("out-of-memory")
    task_queue.extract(entry.id, {"simplify": "web"}, "Web")
    ended(task_queue, entry)
    assert task_queue.export_problem(entry.id)
    task_queue.choose(entry.id, 2)
    ended(task_queue, entry)
    task_queue.retry_extract(entry.id)
    (export,) = ended(task_queue, entry).exports
    assert (export.file, export.variant) == ("chair-1-web.glb", 1)
    kept = task_queue.history.file(entry.id, export.file)
    assert kept is not None
    assert kept.read_bytes() == asset(5)


def test_damaged_numbers_of_variants_harm_nobody(task_queue: TaskQueue) -> None:
    entry = ended(task_queue, task_queue.generate(photo(), "chair.png", {"seed": 5, "num_samples": 2}))
    path = task_queue.history.root / entry.id / ENTRY
    document = json.loads(path.read_text())
    document["stats"]["variants"] = [3]
    path.write_text(json.dumps(document))
    history = History(task_queue.history.root)
    assert history.choose(entry.id, 2).seed == 6
    document["variant"] = 9
    path.write_text(json.dumps(document))
    assert History(task_queue.history.root).damaged == [entry.id]


def test_a_shape_is_textured_again_refined_and_survives_a_crash(
    open_task_queue: Callable[[], TaskQueue], service: Service
) -> None:
    service.generator.pipeline_types = ("512", "1024_cascade")
    task_queue = open_task_queue()
    until(lambda: "1024_cascade" in task_queue.pipeline_types(), "the offer")
    wanted = {"seed": 5, "num_samples": 2, "keep_latents": True, "texture": False, "pipeline_type": "512"}
    draft = ended(task_queue, task_queue.generate(photo(), "chair.png", wanted))
    assert task_queue.refinements(draft) == ["1024_cascade"]
    task_queue.choose(draft.id, 2)
    ended(task_queue, draft)
    service.plans.append("hang")
    made = task_queue.again(draft.id, {"seed": 9})
    assert (made.shape, seed_of(task_queue.history.file(made.id, SHAPE))) == (draft.id, 6)
    until(lambda: task_queue.tasks()[0].progress.stage, "the first step")
    again = open_task_queue()
    service.release()
    made = ended(again, made)
    assert (made.status, made.seed, made.settings["texture"]) == ("finished", 9, True)
    assert made.settings["num_samples"] == 1, "of the shape that was chosen"
    assert again.history.file(made.id, SHAPE) is None, "what was sent is not kept twice"
    assert "Show whose shape it has" in result.facts(again, made)
    fine = ended(again, again.again(made.id, {"seed": 9, "pipeline_type": "1024_cascade"}))
    assert fine.settings["pipeline_type"] == "1024_cascade"
    assert again.refinements(fine) == []
    assert len(service.jobs("generate")) == 3
    plain = ended(again, again.generate(photo(), "chair.png", {}))
    assert not again.keeps_shape(plain)
    again.delete(draft.id)
    assert "Show whose shape it has" not in result.facts(again, made)
    with pytest.raises(NotFoundError, match="Keep latents"):
        again.again(plain.id, {})


def test_a_forecast_goes_with_what_is_asked_for(tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    forecasts = Forecasts(history)
    health = Health(status="ok", version="1", model="m", device="cpu", default_pipeline_type="512")

    def seconds(**settings: object) -> float:
        found = forecasts.of("generate", settings, health).seconds
        assert found is not None
        return found

    typical = seconds()
    assert seconds(num_samples=4) == 4 * typical - 3 * 2, "the picture is read once"
    assert seconds(texture=False) == typical - 8
    stats = {"seconds": {"image": 1.0, "shape": 4.0, "texture": 2.0}, "price": 0.7, "gpu_seconds": 7.0}
    made = GenerateResult(
        "job_1", 1, 16, b"x", settings={"pipeline_type": "512", "num_samples": 2}, stats=stats
    )
    entry = history.add(photo(), "disc.png", {})
    history.keep_result(entry.id, made)
    assert seconds(num_samples=2) == 7
    assert seconds() == 4
    assert forecasts.of("generate", {}, health).price == pytest.approx(0.4)
    assert seconds(texture=False) == 3
    again = history.add(photo(), "disc.png", {}, shape=entry)
    history.keep_result(again.id, replace(made, stats={"seconds": {"texture": 1.0}}))
    assert seconds() == 4, "a shape that was kept took nothing"
    grey = history.add(photo(), "disc.png", {})
    history.keep_result(grey.id, replace(made, settings={"pipeline_type": "512", "texture": False}))
    assert seconds() == 4, "nobody knows what the texture of that one would have taken"


def test_a_forecast_is_of_the_quality_that_is_chosen(tmp_path: Path) -> None:
    health = Health(
        status="ok",
        version="1",
        model="m",
        device="cpu",
        pipeline_types=["512", "1024_cascade"],
        default_pipeline_type="1024_cascade",
    )
    measured = {"512": 4.0, "1024_cascade": 20.0}

    class Measured:
        """A service that has measured each quality."""

        def health(self) -> Health:
            return health

        def estimate(self, kind: str, **settings: str) -> Estimate:
            seconds = measured[settings["pipeline_type"]] if kind == "generate" else 2.0
            return Estimate.model_validate({"kind": kind, "seconds": seconds, "stages": {"shape": seconds}})

    forecasts = Forecasts(History(tmp_path / "history"))
    forecasts.ask(Measured())  # type: ignore[arg-type]
    for chosen, seconds in ({"pipeline_type": "512"}, 4.0), ({}, 20.0):
        assert forecasts.of("generate", chosen, health).seconds == seconds
    assert forecasts.of("extract", {}, health).seconds == 2.0
