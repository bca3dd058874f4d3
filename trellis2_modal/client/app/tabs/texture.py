"""The tab "Texture a mesh": a mesh and pictures of how it should look become that mesh with new textures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ....protocol.requests import MAX_SEED, TextureSettings
from ...history import Entry
from .. import forms
from .. import html as views
from ..actions import AUTOMATIC, errors_shown, shown_next
from ..inputs.intake import ARRIVES
from ..inputs.meshes import EMPTY, Given, mesh_pane, pictures_pane, taken
from ..inputs.presses import Presses, digest
from ..inputs.received import PictureTray
from ..task_queue import TaskQueue

TAB, NAME = "mesh", "Texture a mesh"
STEPS = "tex_slat_sampling_steps"


class TextureTab:
    """Made where the page is laid out. What the tab has chosen is in its `gr.State`, never in here."""

    def __init__(self, task_queue: TaskQueue, tray: PictureTray, receives: str) -> None:
        """`receives` is the script of panes that take files and presses."""
        self.task_queue, self._tray = task_queue, tray
        self._made: Presses[Entry] = Presses()
        self.given = gr.State(EMPTY)
        self.mesh = gr.HTML(mesh_pane(EMPTY), js_on_load=receives + ARRIVES, elem_id="texture-mesh")
        self.pictures = gr.HTML(pictures_pane(EMPTY), js_on_load=receives, elem_id="texture-pictures")
        self.press = gr.Button("Make the textures", variant="primary", elem_id="texture")
        self.note = gr.HTML(views.texture_note(task_queue), js_on_load=None, elem_id="texture-note")
        self.resolution = gr.Radio(
            [("Automatic", AUTOMATIC)],
            value=AUTOMATIC,
            visible=False,
            label="Resolution",
            info="Voxels along a side that carry the texture.",
            elem_id="texture-resolution",
            elem_classes="segments",
        )
        with gr.Row():
            self.seed, self.new_seed = forms.seed_fields("texture-")
        with gr.Accordion("Textures and picture", open=False, elem_id="texture-details"):
            self.settings = forms.components(
                TextureSettings,
                ["Basic", "Textures", "Views"],
                leave_out=["seed", "pipeline_type", "preview"],
                prefix="tex",
            )
            self.steps = gr.Number(
                0,
                label="Steps",
                info="More take longer and add detail up to a point. 0: the model's own.",
                precision=0,
                minimum=0,
                maximum=50,
                elem_id="texture-steps",
            )

    @property
    def form(self) -> list[Any]:
        """The components whose values a press brings along."""
        return [self.resolution, self.seed, self.new_seed, self.steps, *self.settings.values()]

    def wire(self, shown: Any, tabs: Sequence[Any], results: Sequence[Any], quick: Any, look: Any) -> None:
        """Connect the tab with the page: what it shows (`shown`), its `tabs` (outer and inner), the panes of
        `results` whose buttons may be about a mesh, how events run (`quick`), and what is called after one
        (`look`).
        """
        many = {**quick, "trigger_mode": "multiple"}
        for pane in (self.mesh, self.pictures):
            pane.click(self.take, [self.given], [self.given, *tabs], **many)
        self.given.change(
            lambda given: (mesh_pane(given), pictures_pane(given)),
            [self.given],
            [self.mesh, self.pictures],
            **quick,
        )
        self.press.click(self.texture, [shown, self.given, *self.form], [self.seed, shown], **many).then(
            **look
        )
        for pane in results:
            pane.click(self.act, [shown, self.given], [self.given, *tabs, *self.form], **many)

    # --- what people do ----------------------------------------------------------------------------------

    def take(self, given: Given, event: gr.EventData) -> list[Any]:
        """What is chosen after a drop or a press; a mesh that was dropped elsewhere opens the tab."""
        data = event._data or {}
        action = str(data.get("action", ""))
        given = taken(self._tray, given, action, str(data.get("target", "")))
        return [given, *(self._opened() if action == "received" else [gr.skip(), gr.skip()])]

    def texture(
        self,
        shown: str,
        given: Given,
        resolution: str,
        seed: float | None,
        new_seed: bool,
        steps: float | None,
        *values: Any,
    ) -> list[Any]:
        """Queue new textures; the tab follows the job unless it shows one that is still at work."""
        lacks = [] if given.mesh else ["a mesh"]
        lacks += [] if given.pictures else ["a picture of how it should look"]
        if lacks:
            gr.Info(f"Drop {' and '.join(lacks)} first.", duration=5, title="Nothing to texture yet")
            return [gr.skip(), gr.skip()]
        settings = forms.values_of(TextureSettings, list(self.settings), values)
        if resolution != AUTOMATIC:
            settings["pipeline_type"] = resolution
        if steps:
            settings[STEPS] = int(steps)
        if not new_seed and seed is not None:
            settings["seed"] = int(seed)
        with errors_shown():
            entry = self._queue(given, settings)
        return [entry.settings["seed"], shown_next(self.task_queue, shown, entry)]

    def _queue(self, given: Given, settings: dict[str, Any]) -> Entry:
        mesh = Path(given.mesh)
        asked = digest([], settings | {"files": [given.mesh, *given.pictures]})
        drawn = {"seed": random.randrange(MAX_SEED)} | settings
        pictures = [Path(picture) for picture in given.pictures]
        return self._made.once(
            asked, lambda: self.task_queue.texture(mesh.read_bytes(), pictures, mesh.name, drawn)
        )

    def act(self, shown: str, given: Given, event: gr.EventData) -> list[Any]:
        """What a button beside a result says of a mesh: use it again, or choose another mesh or picture."""
        data = event._data or {}
        action, target = str(data.get("action", "")), str(data.get("target", ""))
        form = [gr.skip()] * len(self.form)
        entry = self.task_queue.history.get(target if action == "reuse-mesh" else shown.partition("/")[0])
        if entry is None or not entry.mesh or action not in ("reuse-mesh", "mesh", "picture"):
            return [gr.skip()] * (3 + len(form))
        if action == "mesh":
            given = Given("", given.pictures)
        elif action == "picture":
            given = Given(given.mesh)
        else:
            with errors_shown():
                given, form = self._reused(entry)
        return [given, *self._opened(), *form]

    def _reused(self, entry: Entry) -> tuple[Given, list[Any]]:
        """The files and settings of an entry, put back into the form. Raises OSError or `ServiceError`."""
        folder, stem = self.task_queue.history.root / entry.id, Path(entry.title).stem

        def again(name: str) -> str:
            return str(self._tray.receive((folder / name).read_bytes(), f"{stem}{Path(name).suffix}").path)

        given = Given(again(entry.mesh), tuple(again(name) for name in entry.pictures))
        settings = entry.settings
        values = [settings.get(name, gr.skip()) for name in self.settings]
        kind = str(settings.get("pipeline_type") or AUTOMATIC)
        known = kind if kind in self.task_queue.texture_types() else AUTOMATIC
        seed = entry.seed if entry.seed is not None else settings.get("seed", 42)
        return given, [known, seed, False, settings.get(STEPS, 0), *values]

    def _opened(self) -> list[Any]:
        """The page's tabs when this one is opened."""
        return [gr.update(selected="create"), gr.update(selected=TAB)]
