"""New textures for a mesh in the app: what is received, the job in the queue, the entry that it leaves."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.trellis2_modal.client.conftest import ended
from tests.trellis2_modal.client.service import Service, answers, photo, problem, until
from tests.trellis2_modal.meshes import mesh_glb
from trellis2_modal.client.app import html, result
from trellis2_modal.client.app.inputs.meshes import EMPTY, Given, mesh_pane, pictures_pane, taken
from trellis2_modal.client.app.inputs.received import MAX_RECEIVED_BYTES, PictureTray, address
from trellis2_modal.client.app.task_queue import TaskQueue
from trellis2_modal.client.history import COVER, STATE, VIDEO, History
from trellis2_modal.client.stages import JobProgress, phases_of
from trellis2_modal.protocol.errors import InvalidImageError, InvalidMeshError
from trellis2_modal.protocol.replies import JobEvent

OBJ = b"o square\nv 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 3\n"


@pytest.fixture
def tray(tmp_path: Path) -> PictureTray:
    return PictureTray(tmp_path / "received")


def received(tray: PictureTray, *files: tuple[str, bytes], given: Given = EMPTY, slot: str = "mesh") -> Given:
    tokens = [tray.receive(data, name, slot).token for name, data in files]
    return taken(tray, given, "received", json.dumps({"slot": slot, "tokens": tokens, "said": []}))


def test_files_find_their_places_wherever_they_are_dropped(tray: PictureTray) -> None:
    given = received(tray, ("chair.glb", mesh_glb()), ("front.png", photo()), ("back.png", photo()))
    assert Path(given.mesh).name == "chair.glb"
    assert [Path(p).name for p in given.pictures] == ["front.png", "back.png"]
    assert f'src="{address(given.mesh)}?as=.glb"' in mesh_pane(given)
    other = received(tray, ("a.obj", OBJ), ("b.glb", mesh_glb()), given=given, slot="look")
    assert Path(other.mesh).name == "a.obj"
    assert "One mesh is textured at a time" in pictures_pane(other)
    assert "asset-viewer" not in mesh_pane(other), "the 3D view opens no OBJ"
    many = received(tray, *[(f"{n}.png", photo()) for n in range(9)])
    assert len(many.pictures) == 8
    assert "At most 8 pictures" in pictures_pane(many)
    assert taken(tray, given, "remove-look", "0").pictures == given.pictures[1:]
    assert taken(tray, given, "remove-look", "all").pictures == ()
    assert taken(tray, given, "remove-mesh", "").mesh == ""


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("empty.glb", b"", "“empty.glb” is empty"),
        ("cut.glb", mesh_glb()[:60], "“cut.glb” is a GLB that is cut short"),
        ("scene.gltf", b'{"asset": {"version": "2.0"}}', "send a .glb, which has all in one"),
        ("chair.zip", b"PK\x03\x04" + bytes(80), "is a zip archive; send the file inside it"),
        ("notes.txt", b"hello", "is none of GLB, OBJ, PLY, STL"),
        ("huge.ply", b"ply\nformat ascii 1.0\nelement face 10000000\nend_header\n", "has 10,000,000 faces"),
        ("big.glb", mesh_glb() + bytes(MAX_RECEIVED_BYTES), "larger than 100 MB. Simplify it"),
    ],
)
def test_what_is_no_mesh_gets_a_sentence(tray: PictureTray, name: str, data: bytes, says: str) -> None:
    with pytest.raises(InvalidMeshError) as refused:
        tray.receive(data, name, "mesh")
    assert says in refused.value.detail
    assert refused.value.detail.endswith(".")


def test_a_picture_form_says_what_pictures_are_and_takes_a_mesh(tray: PictureTray) -> None:
    with pytest.raises(InvalidImageError, match="no picture"):
        tray.receive(b"hello", "notes.txt")
    assert tray.receive(mesh_glb(), "chair.glb").kind == "mesh"
    assert tray.receive(photo(), "photo.png", "mesh").kind == "picture"


def test_a_mesh_becomes_an_entry_with_everything(
    open_task_queue: Callable[[], TaskQueue], service: Service
) -> None:
    task_queue = open_task_queue()
    mesh = mesh_glb()
    entry = task_queue.texture(mesh, [photo(), photo("WEBP")], "chair.glb", {"seed": 7, "texture_size": 512})
    entry = ended(task_queue, entry)
    assert (entry.status, entry.kind, entry.seed, entry.mesh) == ("finished", "texture", 7, "mesh.glb")
    (job,) = service.jobs()
    assert (job.kind, entry.job, job.settings["texture_size"]) == ("texture", job.id, 512)
    body = service.calls("POST", "/jobs")[0].content
    assert [body.count(part) for part in (b'; name="images"', photo(), photo("WEBP"), mesh)] == [2, 1, 1, 1]
    (export,) = entry.exports
    assert (export.file, export.report["faces"]) == ("chair-textured.glb", 2)
    for name in (VIDEO, COVER, "chair-textured.glb", "mesh.glb", "picture-2"):
        assert task_queue.history.file(entry.id, name), name
    assert task_queue.history.file(entry.id, STATE) is None
    assert result.viewed_file(task_queue, entry, "") == "chair-textured.glb"
    assert "chair-textured.glb" in result.files(task_queue, entry)
    assert 'data-action="reuse-mesh"' in result.facts(task_queue, entry)
    task_queue.make_light(entry.id)
    assert not task_queue.tasks(), "there is no state to make one from"
    (again,) = History(task_queue.history.root).entries()
    assert again == entry


def test_it_goes_on_after_the_app_was_closed(
    open_task_queue: Callable[[], TaskQueue], service: Service
) -> None:
    service.plans.append("hang")
    task_queue = open_task_queue()
    entry = task_queue.texture(mesh_glb(), [photo()], "chair.glb", {})
    until(lambda: task_queue.tasks()[0].progress.stage, "the first step")
    again = open_task_queue()
    service.release()
    assert ended(again, entry).status == "finished"
    assert len(service.calls("POST", "/jobs")) == 1


def test_cancelled_refused_and_tried_again(task_queue: TaskQueue, service: Service) -> None:
    until(lambda: task_queue.service.ready, "the service")
    service.plans.append("hang")
    entry = task_queue.texture(mesh_glb(), [photo()], "chair.glb", {})
    until(lambda: task_queue.tasks()[0].progress.stage, "the first step")
    assert "chair.glb" in html.progress(task_queue, entry)
    task_queue.cancel(task_queue.tasks()[0].id)
    assert ended(task_queue, entry).status == "cancelled"
    service.faults += answers(problem("invalid-mesh"))
    task_queue.retry(entry.id)
    found = ended(task_queue, entry)
    assert (found.problem["title"], found.problem["action"]) == ("The mesh cannot be used", "mesh")
    assert "Choose another mesh" in result.unfinished(found)
    task_queue.retry(entry.id)
    assert ended(task_queue, entry).status == "finished"
    with pytest.raises(InvalidMeshError):
        task_queue.texture(b"glTF", [photo()], "chair.glb", {})


def test_its_phases_are_those_of_new_textures() -> None:
    def seen(*stages: str) -> list[str]:
        progress = JobProgress()
        for number, stage in enumerate(stages):
            data: Any = {"stage": stage, "step": 0, "steps": 1}
            progress.feed(JobEvent(id=number, type="progress", time="2026-01-01T00:00:00Z", data=data))
        return [name for name, state in phases_of(progress) if state == "now"]

    assert seen("encode_shape") == ["Mesh and picture"]
    assert seen("encode_shape", "image", "texture") == ["Texture"]
    assert seen("encode_shape", "texture", "bake") == ["File"]
    assert seen("bake") == ["Textures"], "of an export"


def test_weights_that_cannot_do_it_say_so(task_queue: TaskQueue, service: Service) -> None:
    until(lambda: task_queue.service.ready, "the service")
    assert "Positions and UVs stay" in html.texture_note(task_queue)
    service.generator.texture_types = ()
    task_queue._poke.set()
    until(lambda: not task_queue.texture_types(), "the news")
    assert "cannot texture meshes" in html.texture_note(task_queue)


# --- the tab's handlers -------------------------------------------------------------------------------------


@pytest.fixture
def tab(task_queue: TaskQueue, tray: PictureTray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Gradio's own dependencies warn of
        import gradio as gr

        from trellis2_modal.client.app.tabs.texture import TextureTab

        async def make() -> TextureTab:  # in a loop: without one Gradio makes two and leaves them open
            with gr.Blocks():
                return TextureTab(task_queue, tray, "")

        return asyncio.run(make())


def press(action: str, target: str = "") -> Any:
    return SimpleNamespace(_data={"action": action, "target": target})


def values(tab: Any) -> list[Any]:
    return [component.value for component in tab.settings.values()]


def skipped(update: Any) -> bool:
    return isinstance(update, dict) and update == {"__type__": "update"}


def test_a_press_is_one_job_and_can_be_used_again(
    tab: Any, task_queue: TaskQueue, service: Service, tray: PictureTray
) -> None:
    assert all(skipped(update) for update in tab.texture("", EMPTY, "automatic", 1, True, 0, *values(tab)))
    until(lambda: task_queue.service.ready, "the service")
    given = received(tray, ("chair.glb", mesh_glb()), ("front.png", photo()))
    pressed = [tab.texture("", given, "512", 9, False, 3, *values(tab)) for _ in range(2)]
    assert pressed[0][0] == 9
    shown = pressed[0][1]
    entry = task_queue.history.get(shown)
    assert entry is not None
    entry = ended(task_queue, entry)
    (job,) = service.jobs()
    wanted = {"seed": 9, "pipeline_type": "512", "tex_slat_sampling_steps": 3, "preview": "frames"}
    assert job.settings.items() >= wanted.items()
    again, tabs, inner, kind, seed, new, steps, *_ = tab.act(shown, EMPTY, press("reuse-mesh", shown))
    assert Path(again.mesh).name == "chair.glb"
    assert Path(again.mesh).read_bytes() == mesh_glb()
    assert len(again.pictures) == 1
    assert (tabs["selected"], inner["selected"]) == ("create", "mesh")
    assert (kind, seed, new, steps) == ("512", 9, False, 3)
    assert tab.act(shown, given, press("mesh"))[0] == Given("", given.pictures)
    assert tab.act(shown, given, press("picture"))[0] == Given(given.mesh)
    assert all(skipped(update) for update in tab.act(shown, given, press("extract", shown)))
