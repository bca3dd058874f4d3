"""The page without a browser: every event's handler on a task queue, and what each tab is sent."""

from __future__ import annotations

import asyncio
import io
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.trellis2_modal.client.conftest import QUICK
from tests.trellis2_modal.client.service import KEY, URL, Service, answers, passes, photo, problem, until
from tests.trellis2_modal.meshes import mesh_glb
from trellis2_modal.client.app import forms, html, result
from trellis2_modal.client.app.file_routes import Mattes
from trellis2_modal.client.app.history_view import HistoryView
from trellis2_modal.client.app.inputs import ready_made
from trellis2_modal.client.app.inputs.intake import NOTHING, Chosen, single, swapped
from trellis2_modal.client.app.task_queue import ServiceState, TaskQueue
from trellis2_modal.client.options import ProxyToken
from trellis2_modal.client.results import Matte
from trellis2_modal.client.settings import ClientSettings
from trellis2_modal.protocol.controls import controls
from trellis2_modal.protocol.presets import PRESETS
from trellis2_modal.protocol.replies import Health, ViewSupport
from trellis2_modal.protocol.requests import SAMPLER_FIELDS, ExtractSettings, GenerateSettings

SKIPPED = {"__type__": "update"}
GENERATION = [c.name for c in controls(GenerateSettings) if c.group != "Basic"]
EXTRACTION = [c.name for c in controls(ExtractSettings) if c.name != "simplify"]


@pytest.fixture
def task_queue(data_home: Path, service: Service) -> Iterator[TaskQueue]:
    options = {"transport": service.transport, "retry": QUICK}
    task_queue = TaskQueue(data_home, URL, KEY, client_options=options)
    yield task_queue
    service.release()
    task_queue.close()


@pytest.fixture
def actions(task_queue: TaskQueue) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Gradio's own dependencies warn of
        from trellis2_modal.client.app.actions import Actions

    class Tab(Actions):
        """Looks as a tab whose sliders nobody has touched, unless a test says otherwise."""

        def look(self, *arguments: Any) -> list[Any]:
            untouched = ("", {}, HistoryView(), None, {}, *values(GenerateSettings, list(SAMPLER_FIELDS)))
            return super().look(*arguments, *untouched[len(arguments) :])

    actions = Tab(task_queue, Mattes(), [])
    actions.generation, actions.extraction = GENERATION, EXTRACTION
    return actions


def values(model: type[GenerateSettings] | type[ExtractSettings], names: list[str]) -> list[Any]:
    return [model.model_fields[name].default for name in names]


def press(action: str, target: str = "") -> Any:
    return SimpleNamespace(_data={"action": action, "target": target})


def generate(
    actions: Any,
    picture: Path,
    seed: int = 7,
    new_seed: bool = False,
    auto: dict[str, float] | None = None,
    **moved: float,
) -> list[Any]:
    shown = dict(zip(GENERATION, values(GenerateSettings, GENERATION), strict=True)) | (auto or {}) | moved
    found: list[Any] = actions.generate(
        "", auto, single(str(picture)), "automatic", seed, new_seed, *shown.values()
    )
    return found


def looked(actions: Any, auto: dict[str, float] | None, sliders: list[Any]) -> list[Any]:
    """What a look does to the values at Auto and to the sliders of the samplers."""
    found: list[Any] = actions.look("", {}, HistoryView(), auto, {}, *sliders)
    return found[-3 - len(SAMPLER_FIELDS) : -2]


def idle(task_queue: TaskQueue) -> None:
    until(lambda: not task_queue.tasks(), "the end of the work")


def skipped(update: Any) -> bool:
    return isinstance(update, dict) and update == SKIPPED


def test_remesh_has_three_positions_under_every_budget() -> None:
    control = next(c for c in controls(ExtractSettings) if c.name == "remesh")
    shown = forms.component(control)
    assert [value for _, value in shown.choices] == ["auto", "true", "false"]
    assert {forms.budget_values(name)["remesh"] for name in PRESETS} == {shown.value} == {"auto"}


def test_an_export_asks_for_what_means_something_for_its_format() -> None:
    shown = values(ExtractSettings, EXTRACTION)
    field = dict(zip(EXTRACTION, shown, strict=True)) | {"size_mm": 60.0, "size_m": 0.5, "lods": 3}

    def asked(budget: str, **own: Any) -> dict[str, Any]:
        return forms.export_settings(budget, EXTRACTION, list((field | own).values()))

    assert asked("web") == {"simplify": "web", "size_m": 0.5}
    assert asked("print", flat_base=True) == {"simplify": "print", "size_mm": 60.0, "flat_base": True}
    custom = asked("custom", format="stl")
    assert custom["size_mm"] == 60.0
    assert not {"texture_size", "normal_map", "lods", "compress", "size_m"} & custom.keys()
    assert asked("custom", format="glb")["lods"] == 3


def test_the_page_is_laid_out_and_wired(task_queue: TaskQueue) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trellis2_modal.client.app.page import build

    async def make() -> Any:
        return build(task_queue, Mattes())  # in a loop: without one Gradio makes two and leaves them open

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        page = asyncio.run(make())
    assert not [w for w in said if "Expected" in str(w.message)], (
        "a handler takes other arguments than it gets"
    )
    config = page.get_config_file()
    labels = {c["props"].get("label") for c in config["components"]}
    assert {
        "Quality",
        "Random seed",
        "Guidance strength",
        "Time rescale",
        "Faces",
        "Transparency",
        "API key",
    } <= labels
    ids = {c["props"].get("elem_id") for c in config["components"]}
    assert {f"set-{name}" for name in [*GENERATION, *EXTRACTION, "remove_background"]} <= ids
    assert KEY not in str(config), "the key is never in the page"
    assert all(d["api_visibility"] == "private" for d in config["dependencies"])


def test_generate_follows_the_job_and_sends_only_changes(
    actions: Any, task_queue: TaskQueue, picture: Path
) -> None:
    chosen, shown = generate(actions, picture)
    assert chosen == 7
    idle(task_queue)
    *_, seen = actions.look(shown, {})
    assert "turntable.mp4" in seen["video"]
    assert seen["export"] is True
    assert f'src="/kept/{shown}/light.glb"' in seen["model"]
    again = actions.look(shown, seen)
    assert all(skipped(update) for update in again)
    picked = actions.act("", HistoryView(), None, press("view", f"{shown}/light.glb"))[0]
    *updates, seen = actions.look(picked, seen)
    panes = updates[: -2 - len(SAMPLER_FIELDS)]
    assert all(skipped(update) for update in panes), "it shows that already"


def test_the_light_mesh_is_made_with_progress_and_again_when_it_failed(
    actions: Any, task_queue: TaskQueue, service: Service, picture: Path
) -> None:
    service.plans += ["finish", "hang"]
    _, shown = generate(actions, picture)
    until(lambda: [t for t in task_queue.tasks() if t.kind == "light" and t.progress.stage], "the light mesh")
    *_, seen = actions.look(shown)
    assert "Preparing the 3D preview" in seen["model"]
    assert 'role="progressbar"' in seen["model"]
    task_queue.cancel(task_queue.tasks()[0].id)
    idle(task_queue)
    *_, seen = actions.look(shown)
    assert f'data-action="light" data-target="{shown}"' in seen["model"]
    actions.act(shown, HistoryView(), None, press("light", shown))
    actions.act(shown, HistoryView(), None, press("light", shown))
    assert len(task_queue.tasks()) <= 1, "two presses are one mesh"
    idle(task_queue)
    *_, seen = actions.look(shown)
    assert "<asset-viewer" in seen["model"]


def test_an_asset_shows_what_it_cost_where_a_rate_is_set(
    actions: Any, task_queue: TaskQueue, service: Service, picture: Path
) -> None:
    generate(actions, picture)
    idle(task_queue)
    (entry,) = task_queue.history.entries()
    assert "GPU time" not in result.facts(task_queue, entry)
    service.charges(gpu_price_per_hour=3.6e6, currency="EUR")
    generate(actions, picture, seed=8)
    idle(task_queue)
    newest = max(task_queue.history.entries(), key=lambda found: found.created)
    assert re.search(r"about [\d.]+ EUR for 0 s of GPU time", result.facts(task_queue, newest))


def test_two_tabs_see_the_same(actions: Any, task_queue: TaskQueue, service: Service, picture: Path) -> None:
    service.plans.append("hang")
    _, shown = generate(actions, picture)
    until(lambda: task_queue.tasks()[0].progress.stage, "the first step")
    *_, one = actions.look(shown, {})
    *_, two = actions.look("", {})
    assert "Generating the shape" in one["progress"]
    assert "Generating the shape" in two["progress"]
    task = re.search(r'data-action="cancel" data-target="([^"]+)"', two["progress"])
    assert task is not None
    actions.act("", HistoryView(), None, press("cancel", task[1]))
    idle(task_queue)
    *_, one = actions.look(shown, one)
    assert "Cancelled" in one["video"]
    actions.act("", HistoryView(), None, press("delete", shown))
    *_, one = actions.look(shown, one)
    assert "From a photo to a 3D asset" in one["video"], "what the other tab deleted is gone here too"


def test_each_tab_follows_its_own_job(
    actions: Any, task_queue: TaskQueue, service: Service, picture: Path, tmp_path: Path
) -> None:
    """Not another tab's, and a job that is removed before its turn hides nothing."""
    service.plans.append("hang")
    _, first = generate(actions, picture)
    until(lambda: task_queue.tasks()[0].progress.stage, "the first step")
    _, second = generate(actions, picture, seed=8)  # in another tab: there nothing is at work yet
    *_, seen = actions.look(second, {})
    assert "Waiting: 1 job ahead in this app" in seen["progress"]
    assert re.search(r"red disc.png: \d+ %.*Cancel", seen["progress"]), "the other tab's job is a row"
    *_, seen = actions.look(first, {})
    assert "Remove" in seen["progress"]
    assert skipped(
        actions.generate(
            first, {}, single(str(picture)), "automatic", 9, False, *values(GenerateSettings, GENERATION)
        )[1]
    ), "a tab stays with its job while that is at work"
    *_, fresh = actions.look("", {})
    assert "From a photo to a 3D asset" in fresh["video"], "a tab without a job shows nobody else's"
    third = task_queue.tasks()[-1]
    assert actions.act(first, HistoryView(), None, press("cancel", third.id))[0] == first
    waiting = task_queue.tasks()[-1]
    assert waiting.entry.id == second
    assert actions.act(second, HistoryView(), None, press("cancel", waiting.id))[0] == ""
    service.release()
    idle(task_queue)
    *_, seen = actions.look("", {})
    assert f"/kept/{first}/turntable.mp4" in seen["video"], "the finished one, not the removed ones"


def test_a_finished_example_opens_before_anything_is_made(actions: Any, task_queue: TaskQueue) -> None:
    if not ready_made.is_there():
        pytest.skip("a wheel comes without the example")
    *_, seen = actions.look("", {})
    assert 'data-action="ready-made"' in seen["video"]
    shown = actions.act("", HistoryView(), None, press("ready-made"))[0]
    *_, seen = actions.look(shown, {})
    assert "turntable.mp4" in seen["video"]
    assert "light.glb" in seen["model"]
    assert "stills.webp" in seen["stills"]
    assert seen["export"] is False, "there is no state to export from"
    assert actions.act("", HistoryView(), None, press("ready-made"))[0] == shown, "it is kept once"


def test_a_press_is_one_job(
    actions: Any, task_queue: TaskQueue, service: Service, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {generate(actions, picture, new_seed=new)[1] for new in (True, True, False, False)}
    assert len(entries) == 2, "with a new seed each time, and with this one"
    _, other = generate(actions, picture, seed=8)
    idle(task_queue)
    for _ in range(2):
        actions.extract(other, "web", *values(ExtractSettings, EXTRACTION))
    idle(task_queue)
    assert len(service.jobs("generate")) == 3
    assert len([job for job in service.jobs("extract") if job.settings["simplify"] == "web"]) == 1
    monkeypatch.setattr("trellis2_modal.client.app.inputs.presses.SAME_PRESS", 0.0)
    assert generate(actions, picture)[1] not in entries, "later it is a wish of its own"


def test_a_new_seed_each_time_or_the_same(
    actions: Any, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trellis2_modal.client.app.inputs.presses.SAME_PRESS", 0.0)
    seeds = {generate(actions, picture, new_seed=True)[0] for _ in range(4)}
    assert len(seeds) == 4
    assert generate(actions, picture, seed=11)[0] == 11


def test_the_sliders_show_what_runs_and_what_is_moved_is_sent(
    actions: Any, task_queue: TaskQueue, service: Service, picture: Path
) -> None:
    """Also where it is moved to the protocol's default, which is not what these weights use."""
    until(lambda: task_queue.service.ready, "the service")
    before = values(GenerateSettings, list(SAMPLER_FIELDS))
    auto, *sliders = looked(actions, None, before)
    assert auto == {"ss_guidance_strength": 2.0, "ss_sampling_steps": 12.0}
    shown = dict(zip(SAMPLER_FIELDS, sliders, strict=True))
    assert shown["ss_guidance_strength"]["value"] == 2.0
    assert "Auto: 2." in shown["ss_guidance_strength"]["info"]
    generate(actions, picture, auto=auto, ss_guidance_strength=7.5)
    idle(task_queue)
    settings = service.jobs("generate")[-1].settings
    assert settings["ss_guidance_strength"] == 7.5
    assert "ss_sampling_steps" not in settings, "it is at Auto"
    assert settings["tex_slat_guidance_strength"] == 1.0, "the weights have no setting of their own: as shown"
    moved = [7.5 if name == "ss_guidance_strength" else 12 for name in SAMPLER_FIELDS]
    assert all(skipped(update) for update in looked(actions, auto, moved))
    service.generator.samplers = {"ss_guidance_strength": 3.0, "ss_sampling_steps": 9.0}
    task_queue.change_settings(ClientSettings(URL, KEY))
    until(lambda: task_queue.samplers() == service.generator.samplers, "the other weights")
    _, *others = looked(actions, auto, moved)
    after = dict(zip(SAMPLER_FIELDS, others, strict=True))
    assert "value" not in after["ss_guidance_strength"], "what was moved stays"
    assert after["ss_sampling_steps"]["value"] == 9
    assert actions.use_auto(auto)[:2] == [12.0, 2.0]


def test_before_the_weights_are_known_all_is_at_auto(
    actions: Any, task_queue: TaskQueue, service: Service, picture: Path
) -> None:
    service.state_is("starting")
    task_queue.change_settings(ClientSettings(URL, KEY))
    until(lambda: task_queue.service.health and not task_queue.service.ready, "the service that starts")
    assert all(skipped(update) for update in looked(actions, None, []))
    generate(actions, picture)
    service.state_is("ready")
    idle(task_queue)
    assert not SAMPLER_FIELDS.keys() & service.jobs("generate")[-1].settings.keys()


def test_nothing_happens_without_a_picture(actions: Any, task_queue: TaskQueue) -> None:
    assert all(skipped(update) for update in actions.generate("", None, NOTHING, "automatic", 1, True))
    assert not task_queue.tasks()


def test_extract_view_and_reuse(actions: Any, task_queue: TaskQueue, picture: Path) -> None:
    _, shown = generate(actions, picture, seed=11)
    idle(task_queue)
    actions.extract(shown, "web", *values(ExtractSettings, EXTRACTION))
    idle(task_queue)
    entry = task_queue.history.get(shown)
    assert entry is not None
    settings = entry.exports[0].settings
    assert (settings["simplify"], settings["decimation_target"]) == ("web", 50_000), "whatever is shown"
    assert settings["name"] == "red disc", "also inside the file"
    *_, seen = actions.look(shown, {})
    assert "red-disc-web.glb" in seen["model"]
    assert " faces" in seen["files"]
    light = actions.act(shown, HistoryView(), None, press("view", f"{shown}/light.glb"))[0]
    *_, seen = actions.look(light, seen)
    assert "light.glb" in seen["model"]
    _, _, tabs, _, copy, pipeline, seed, new_seed, *_ = actions.act(
        shown, HistoryView(), None, press("reuse", shown)
    )
    assert Path(copy.front).name == "red disc.png"
    assert Path(copy.front).read_bytes() == photo()
    assert (pipeline, seed, new_seed) == ("1024", 11, False)
    assert tabs["selected"] == "create"


def test_variants_are_used_again_from_their_first_seed(
    actions: Any, task_queue: TaskQueue, picture: Path
) -> None:
    shown = task_queue.generate(picture, "chair.png", {"seed": 11, "num_samples": 3}).id
    idle(task_queue)
    task_queue.choose(shown, 3)
    entry = task_queue.history.get(shown)
    assert entry is not None
    assert entry.seed == 13
    *_, seed, new_seed = actions.act(shown, HistoryView(), None, press("reuse", shown))[5:8]
    assert (seed, new_seed) == (11, False), "the same set once more"


def test_what_was_deleted_is_told_and_what_is_shown_stays(
    actions: Any, task_queue: TaskQueue, picture: Path
) -> None:
    _, gone = generate(actions, picture, seed=1)
    _, shown = generate(actions, picture, seed=2)
    idle(task_queue)
    assert actions.act(shown, HistoryView(), None, press("open", gone))[0] == gone
    task_queue.delete(gone)
    with pytest.warns(UserWarning, match="may have been deleted"):
        after, _, tabs, *_ = actions.act(shown, HistoryView(), None, press("open", gone))
    assert after == shown
    assert skipped(tabs)


def test_another_picture_for_a_mesh_leaves_the_chosen_picture(
    actions: Any, task_queue: TaskQueue, service: Service, picture: Path
) -> None:
    service.plans += ["invalid-image"] * 2
    textured = task_queue.texture(mesh_glb(), [photo()], "chair.glb", {})
    _, generated = generate(actions, picture)
    idle(task_queue)
    for entry_id, chosen in ((textured.id, SKIPPED), (generated, NOTHING)):
        entry = task_queue.history.get(entry_id)
        assert entry is not None
        assert f'data-action="picture" data-target="{entry_id}"' in result.unfinished(entry)
        assert actions.act(entry_id, HistoryView(), None, press("picture", entry_id))[4] == chosen


def test_a_corrected_front_stays_while_other_sides_change_places() -> None:
    chosen = replace(Chosen.of({"front": "f", "left": "l", "back": "b"}), cut="corrected")
    moved = swapped(chosen, "left", "back")
    assert (moved.sides, moved.cut) == ({"front": "f", "back": "l", "left": "b"}, "corrected")
    assert swapped(chosen, "left", "right").cut == "corrected"
    assert [swapped(chosen, *sides).cut for sides in (("left", "front"), ("front", "back"))] == ["", ""]


def test_other_sides_go_along_and_come_back(
    actions: Any, task_queue: TaskQueue, service: Service, picture: Path, tmp_path: Path
) -> None:
    back = tmp_path / "back.png"
    back.write_bytes(photo("WEBP"))
    settings = values(GenerateSettings, GENERATION)
    chosen = Chosen.of({"front": str(picture), "back": str(back)})
    _, shown = actions.generate("", {}, chosen, "automatic", 7, False, *settings)
    idle(task_queue)
    body = service.calls("POST", "/jobs")[0].content
    assert [body.count(part) for part in (b'; name="images"', photo(), photo("WEBP"))] == [2, 1, 1]
    entry = task_queue.history.get(shown)
    assert entry is not None
    assert entry.settings["views"] == ["front", "back"]
    again = actions.act(shown, HistoryView(), {}, press("reuse", shown))[4]
    assert sorted(again.sides) == ["back", "front"]
    assert Path(again.sides["back"]).read_bytes() == photo("WEBP")


def test_an_empty_number_is_not_zero() -> None:
    assert forms.values_of(GenerateSettings, ["fov", "seed"], [0, 0]) == {"seed": 0}
    assert forms.values_of(GenerateSettings, ["fov", "seed"], [20, 7.0]) == {"fov": 20, "seed": 7}


def test_a_crop_is_what_is_sent_kept_and_shown(actions: Any, task_queue: TaskQueue, picture: Path) -> None:
    settings = values(GenerateSettings, GENERATION)
    half = (0, 0, 50, 100)
    _, shown = actions.generate("", {}, single(str(picture)), "automatic", 7, False, *settings, *half)
    kept = task_queue.history.file(shown, "picture")
    assert kept is not None
    with Image.open(kept) as cut, Image.open(picture) as whole:
        assert cut.size == (whole.width // 2, whole.height)
    *_, left, top, right, bottom = actions.act(shown, HistoryView(), {}, press("reuse", shown))
    assert (left, top, right, bottom) == (0, 0, 100, 100), "the kept picture is cropped already"
    assert "percent in order" in list(actions.show_matte(single(str(picture)), "auto", 60, 0, 50, 100))[-1]


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (ViewSupport(), "learnt from one view"),
        (ViewSupport(cameras=True), "pixal3d-mv does better"),
        (ViewSupport(least=2, most=8, cameras=True), "trained on 2 to 8 views"),
    ],
)
def test_what_the_model_makes_of_several_views_is_said(seen: ViewSupport, says: str) -> None:
    health = Health(status="ok", version="1", model="m", views=seen)
    assert says in html.view_note(ServiceState(True, "", health))
    assert html.view_note(ServiceState(True, "")) == ""


def test_a_long_history_is_sent_in_pages(actions: Any, task_queue: TaskQueue) -> None:
    for number in range(70):
        entry = task_queue.history.add(photo(), f"{number}.png", {})
        task_queue.history.change(entry.id, status="cancelled")
    *_, seen = actions.look("", {})
    assert seen["history"].count('class="item') == 60
    assert "Show more (10)" in seen["history"]
    assert len(seen["history"]) < 100_000
    count = actions.act("", HistoryView(), None, press("older"))[1]
    *_, seen = actions.look("", seen, count)
    assert seen["history"].count('class="item') == 70


def test_a_wrong_key_leads_to_the_settings_and_back(
    actions: Any, task_queue: TaskQueue, service: Service
) -> None:
    until(lambda: task_queue.service.ready, "the service")
    service.faults += answers(problem("unauthenticated"))
    entry = task_queue.generate(photo(), "disc.png", {})
    idle(task_queue)
    *_, seen = actions.look(entry.id, {})
    assert 'class="main" data-action="settings"' in seen["video"]
    assert f'class="plain" data-action="retry" data-target="{entry.id}"' in seen["video"]
    assert actions.act(entry.id, HistoryView(), None, press("settings"))[2]["selected"] == "settings"
    actions.act(entry.id, HistoryView(), None, press("retry", entry.id))
    idle(task_queue)
    found = task_queue.history.get(entry.id)
    assert found is not None
    assert found.status == "finished"


def test_an_example_is_taken_by_name(task_queue: TaskQueue, actions: Any, picture: Path) -> None:
    from trellis2_modal.client.app import html as views

    actions.examples = [picture]
    assert "/example/red%20disc.png" in views.examples([picture.name])
    _, _, _, _, chosen, _, seed, new_seed, *_ = actions.act(
        "", HistoryView(), None, press("example", "red disc.png")
    )
    assert Path(chosen.front).read_bytes() == picture.read_bytes()
    assert (seed, new_seed) == (42, False)
    assert skipped(actions.act("", HistoryView(), None, press("example", "../settings.json"))[4])


def test_budgets_fill_the_fields(actions: Any) -> None:
    radio, *fields = actions.take_budget("print", "glb")
    filled = dict(zip(EXTRACTION, fields, strict=True))
    assert filled["format"]["value"] == "stl"
    assert filled["decimation_target"]["value"] == 300_000
    assert "closed" in radio["info"]
    assert "value" not in filled["size_mm"], "a size stays as it is"
    told = [name for name, update in filled.items() if update["visible"] and "texture" in name]
    assert not told, "a shape alone has no textures"
    assert not any("value" in field for field in actions.take_budget("custom", "stl")[1:])
    assert actions.custom_budget()["value"] == "custom"


def test_the_matte_is_shown_with_a_hint_and_failures_in_words(
    actions: Any, service: Service, task_queue: TaskQueue, picture: Path
) -> None:
    until(lambda: task_queue.service.ready, "the service")
    assert "Cutting out" in next(actions.show_matte(single(str(picture))))["value"]
    assert "/matte/" in list(actions.show_matte(single(str(picture))))[-1]
    assert (
        "2 objects stand out; largest kept." in list(actions.show_matte(single(str(picture)), "largest"))[-1]
    )
    service.faults += [passes, *answers(problem("invalid-image"))]
    assert "cannot be used" in list(actions.show_matte(single(str(picture))))[-1]
    service.app.state.matter = None
    assert "no preview of the cut-out" in list(actions.show_matte(single(str(picture))))[-1]
    assert list(actions.show_matte(NOTHING))[-1]["visible"] is False


def test_settings_are_saved_only_when_they_work(
    actions: Any, task_queue: TaskQueue, service: Service
) -> None:
    verdict, *_ = actions.save(URL, "sk_wrong", 3)
    assert "Not saved" in verdict
    assert task_queue.settings.url == ""
    verdict, field, *_ = actions.save(URL + "/", "", 3)
    assert "anna" in verdict, "the key in use is tested when none is typed"
    assert (task_queue.settings.key, field["value"]) == (KEY, "")
    verdict, *_ = actions.save("https://elsewhere.test", "", 3)
    assert "Not saved" in verdict, "the key is not sent to another address"
    assert {r.headers.get("x-api-key") for r in service.requests if r.url.host == "elsewhere.test"} <= {None}
    actions.use_local(2)
    assert (task_queue.settings.url, task_queue.settings.key, task_queue.settings.history_limit_gb) == (
        "",
        "",
        2.0,
    )


def test_a_proxy_token_is_kept_with_its_address(
    actions: Any, task_queue: TaskQueue, service: Service
) -> None:
    service.proxy_token = ("wk-1", "ws-1")
    verdict, *_ = actions.save(URL, KEY, 3)
    assert "Not saved: this address asks for a proxy token" in verdict
    verdict, _, first, second, _ = actions.save(URL, KEY, 3, "wk-1", " ws-1")
    assert "anna" in verdict
    assert (first["value"], second["value"]) == ("", "")
    assert task_queue.settings.proxy_token == ProxyToken("wk-1", "ws-1")
    verdict, *_ = actions.save(URL, "", 3)
    assert "anna" in verdict, "the token in use stays when none is typed"
    until(lambda: task_queue.service.ready, "the service, asked with the token")
    actions.use_local(2)
    assert not task_queue.settings.proxy_token


@pytest.mark.parametrize(
    "title", ["<b>x</b>.png", "${alert(1)}.png", "`x`.png", "{{x}}.png", '"onload=".png']
)
def test_a_pictures_name_is_only_text(actions: Any, task_queue: TaskQueue, title: str) -> None:
    entry = task_queue.generate(photo(), title, {})
    idle(task_queue)
    *_, seen = actions.look(entry.id, {})
    for name in ("model", "video", "facts", "files", "history", "strip", "progress"):
        for raw in ("<b>", "${", "`", "{{", '"onload'):
            assert raw not in seen[name], name


def test_files_of_the_app_by_address(task_queue: TaskQueue, actions: Any, picture: Path) -> None:
    """States never leave this way, and nothing outside an entry does."""
    from starlette.applications import Starlette

    from trellis2_modal.client.app.file_routes import make_routes

    _, shown = generate(actions, picture)
    idle(task_queue)
    mattes = Mattes()
    address = mattes.add(b"png")
    transport = httpx.ASGITransport(Starlette(routes=make_routes(task_queue.history, mattes, [picture])))

    async def look() -> None:
        async with httpx.AsyncClient(transport=transport, base_url="http://app.test") as http:
            video = await http.get(f"/kept/{shown}/turntable.mp4", headers={"Range": "bytes=0-3"})
            assert (video.status_code, video.headers["content-type"]) == (206, "video/mp4")
            assert video.content == bytes(3) + b"\x18"
            for name in ("state.lz4", "entry.json", "..%2f..%2fsettings.json", "%2e%2e", "nothing"):
                assert (await http.get(f"/kept/{shown}/{name}")).status_code == 404
            assert (await http.get(address)).content == b"png"
            assert (await http.get("/example/red%20disc.png")).content == photo()
            assert (await http.get("/example/settings.json")).status_code == 404
            assert (await http.get("/matte/guess")).status_code == 404

    asyncio.run(look())


def test_only_the_last_mattes_stay_in_memory() -> None:
    mattes = Mattes()
    names = [mattes.add(bytes([i])).rpartition("/")[2] for i in range(40)]
    assert mattes.get(names[0]) is None
    assert mattes.get(names[-1]) == bytes([39])


def test_the_app_opens_once(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trellis2_modal.client.app import launch as app
    from trellis2_modal.client.errors import AppRunsError

    with app._listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(AppRunsError, match=str(port)):
            app.run(port=port, browser=False)
    lock = app.FileLock(data_home / app.LOCK)
    lock.acquire()
    try:
        (data_home / app.ADDRESS).write_text("http://127.0.0.1:7860")
        with pytest.raises(AppRunsError, match="already open at http://127"):
            app.run(port=0, browser=False)
    finally:
        lock.release()


@pytest.mark.parametrize(("model", "warned"), [("trellis2-mini", True), ("microsoft/TRELLIS.2-4B", False)])
def test_the_demo_model_is_called_one(model: str, warned: bool) -> None:
    note = html.model_note(ServiceState(True, "", Health(status="ok", version="1", model=model)))
    assert ("simple toy-like objects only" in note) is warned
    assert html.model_note(ServiceState(True, "")) == ""


def test_what_it_will_take_is_said_before_pressing(
    actions: Any, task_queue: TaskQueue, service: Service, picture: Path
) -> None:
    """First by the table, for the service has measured nothing; then as the last one took."""
    until(lambda: task_queue.service.ready, "the service")
    *_, seen = actions.look("", {})
    assert "Takes about 55 s." in seen["estimate"], "the table's seconds on a CPU"
    assert seen["export_estimate"] == "about 18 s"
    service.charges(gpu_price_per_hour=3.6e6, currency="EUR")
    service.plans.append("hang")
    _, shown = generate(actions, picture)
    until(lambda: task_queue.tasks()[0].progress.stage, "the first step")
    *_, seen = actions.look("", seen)
    assert re.search(r"about \d+ s left", seen["progress"]), "from the first run on"
    service.release()
    idle(task_queue)
    actions.extract(shown, "web", *values(ExtractSettings, EXTRACTION))
    idle(task_queue)
    *_, seen = actions.look("", seen)
    assert re.search(r"Takes about 3 s, [\d.]+ EUR\.", seen["estimate"]), "what the fake model says it took"


def test_a_corrected_cut_out_is_what_is_generated_from(
    actions: Any, task_queue: TaskQueue, service: Service, picture: Path
) -> None:
    until(lambda: task_queue.service.ready, "the service")
    received = actions.intake.tray.receive(picture.read_bytes(), "chair.png")
    chosen = single(str(received.path))
    shown = list(actions.show_matte(chosen))[-1]
    assert f'data-cutout="{received.token}"' in shown
    assert "Undo" not in shown
    cut = Image.new("RGBA", (64, 64), (200, 80, 40, 255))
    cut.paste((0, 0, 0, 0), (0, 0, 64, 40))
    buffer = io.BytesIO()
    cut.save(buffer, "PNG")
    name = actions.mattes.add(buffer.getvalue()).rpartition("/")[2]
    chosen = actions.take(chosen, press("cutout", name))[0]
    assert Path(chosen.used).name == "chair.png"
    assert Path(chosen.used).read_bytes() == buffer.getvalue()
    assert "Undo the correction" in list(actions.show_matte(chosen))[-1]
    inside = actions._cropped(chosen, chosen.used, (0, 70, 100, 100))
    alpha = Image.open(io.BytesIO(inside)).getchannel("A")
    assert alpha.getextrema() == (0, 255), "a crop within the subject is a cut-out still"

    def arrived(slot: str) -> Any:
        return press("received", json.dumps({"slot": slot, "tokens": [received.token]}))

    assert actions.take(chosen, arrived("left"))[0].cut == chosen.cut, "another side's picture leaves it"
    assert actions.take(chosen, press("cutout", ""))[0].used == str(received.path)
    assert actions.take(chosen, arrived("front"))[0].cut == ""
    with pytest.warns(UserWarning, match="Correct it once more"):
        assert actions.take(chosen, press("cutout", "gone"))[0].cut == chosen.cut


def test_a_cut_that_looks_the_same_is_passed_over() -> None:
    from trellis2_modal.client.app.inputs.cutouts import cut_out, framed, judge_whole

    def png(clear: int) -> bytes:
        image = Image.new("RGBA", (50, 50), (200, 80, 40, 255))
        image.paste((0, 0, 0, 0), (0, 0, 50, clear))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    made = {1: png(10), 2: png(10), 3: png(20), 4: png(50)}

    def cut(picture: bytes, trimap: bytes | None, attempt: int, **said: Any) -> Matte:
        assert said == {"crop": False, "box": [0.1, 0.1, 0.9, 0.9]}
        return Matte(made[attempt])

    box = [0.1, 0.1, 0.9, 0.9]
    assert cut_out(cut, b"", b"", box, 2, before=made[1])[1] == 3
    assert cut_out(cut, b"", b"", box, 2, before=made[3])[1] == 2
    assert judge_whole(Matte(made[4])) == (
        "Nothing is left of the picture. Paint over what is to be kept.",
        True,
    )
    assert framed(made[3]) == made[3]
    with Image.open(io.BytesIO(framed(png(0)))) as image:
        assert image.getpixel((0, 0)) == (0, 0, 0, 0)
        assert image.size == (66, 66)
