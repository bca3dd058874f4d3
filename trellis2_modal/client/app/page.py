"""What is on the page of the desktop web app, and which event does what. The doing is in `actions`."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ...protocol.requests import (
    SAMPLER_FIELDS,
    SHAPE,
    STRUCTURE,
    TEXTURE,
    VIEWS,
    ExtractSettings,
    GenerateSettings,
)
from ..inputs.pictures import WHOLE, example_pictures
from . import forms
from . import html as views
from .actions import AUTOMATIC, BUSY_TICK, MODEL_TAB, PANES, Actions, pipeline_choices
from .file_routes import Mattes
from .history_view import ORDERS, HistoryView
from .icons import EMPTY
from .inputs.intake import CORRECTS, NOTHING, RECEIVES, picture_pane, sides_pane
from .tabs import texture
from .task_queue import TaskQueue
from .theme import DELEGATE, GOES_BACK

TITLE = "TRELLIS.2"
AUTO = '<p class="muted">Values left at Auto use the model\'s own settings, which are shown.</p>'
PROXY_TOKEN = {"proxy-key": "Modal key (wk-...)", "proxy-secret": "Modal secret (ws-...)"}
QUICK: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
POLL = {**QUICK, "queue": False}
"""Polls are answered directly, apart from Gradio's stream of events. One that joins the stream while that is
being closed (6.31) waits for the next event, and the timer sends none while its own waits: the page would
stand still until somebody pressed something.
"""

PRESSED = {**QUICK, "trigger_mode": "multiple"}
"""Two clicks are two requests: the second is not dropped because the first is still under way."""


def build(task_queue: TaskQueue, mattes: Mattes) -> gr.Blocks:
    """The page over a task queue."""
    page: gr.Blocks
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86_400)) as page:
        Page(task_queue, mattes)
    return page


class Page:
    """Lays out the page and wires it. What a tab shows is in its `gr.State`, never in here."""

    def __init__(self, task_queue: TaskQueue, mattes: Mattes) -> None:
        self.task_queue = task_queue
        self.actions = Actions(task_queue, mattes, example_pictures())
        self.chosen = gr.State(NOTHING)
        """The pictures of this tab's next generation."""

        self.shown = gr.State("")
        """What this tab shows: "" follows the work, else the id of an entry, or id/file for the 3D view."""

        self.view = gr.State(HistoryView())
        """Which entries History shows."""

        self.seen = gr.State({})
        """What this tab was last sent, so that only changes are sent."""

        self.auto = gr.State(None)
        """The values at which this tab's sliders are at Auto: the loaded weights' own; None until known."""

        self.asked = gr.State({})
        """The settings of this tab's form that the estimate goes by."""

        self.header = gr.HTML(views.header(task_queue.service), js_on_load=None)
        with gr.Tabs(elem_id="main-tabs") as self.tabs:
            with gr.Tab("Create", id="create"), gr.Row(equal_height=False, elem_id="create"):
                with (
                    gr.Column(scale=4, min_width=320, elem_id="inputs"),
                    gr.Tabs(elem_id="input-tabs") as inner,
                ):
                    with gr.Tab("From a picture", id="picture"):
                        self._inputs()
                    with gr.Tab(texture.NAME, id=texture.TAB):
                        tray = self.actions.intake.tray
                        self.texture = texture.TextureTab(task_queue, tray, DELEGATE + RECEIVES)
                self.input_tabs = inner
                with gr.Column(scale=7, min_width=320, elem_id="results"):
                    self._results()
            with gr.Tab("History", id="history"):
                with gr.Row(elem_id="history-tools"):
                    self.search = gr.Textbox(
                        label="Search", placeholder="Name, seed, date or format", elem_id="search", scale=3
                    )
                    self.order = gr.Dropdown(
                        [(title, name) for name, title in ORDERS.items()],
                        value="newest",
                        label="Order",
                        elem_id="order",
                        min_width=140,
                    )
                    self.favourites = gr.Checkbox(
                        False, label="Only favourites", elem_id="favourites", min_width=120
                    )
                self.comparison = gr.HTML("", js_on_load=DELEGATE, visible=False, elem_id="comparison")
                self.history = gr.HTML(js_on_load=DELEGATE, elem_id="history")
            with gr.Tab("Settings", id="settings"):
                self._settings()
        self.address = gr.HTML("", js_on_load=DELEGATE + GOES_BACK, elem_id="address")
        self.timer = gr.Timer(BUSY_TICK)
        self._wire()

    # --- layout ------------------------------------------------------------------------------------------

    def _inputs(self) -> None:
        self.picture = gr.HTML(picture_pane(NOTHING), js_on_load=DELEGATE + RECEIVES, elem_id="picture")
        self.matte = gr.HTML("", js_on_load=DELEGATE + CORRECTS, visible=False, elem_id="matte")
        pictures = example_pictures()
        self.examples = gr.HTML(
            views.examples([path.name for path in pictures]),
            js_on_load=DELEGATE,
            visible=bool(pictures),
            elem_id="examples",
        )
        self.generate = gr.Button("Generate", variant="primary", elem_id="generate")
        note = views.model_note(self.task_queue.service)
        self.model_note = gr.HTML(note, js_on_load=DELEGATE, visible=bool(note), elem_id="model-note")
        self.estimate = gr.HTML("", js_on_load=None, visible=False, elem_id="estimate")
        offered = pipeline_choices(self.task_queue)
        self.pipeline = gr.Radio(
            offered,
            value=AUTOMATIC,
            visible=len(offered) > 2,
            label="Quality",
            info="Automatic is the service's own choice; larger numbers are finer and slower.",
            elem_id="pipeline",
            elem_classes="segments",
        )
        with gr.Row(elem_id="makes"):
            makes = ["num_samples", "texture"]
            self.generation = forms.components(GenerateSettings, ["Basic"], only=makes, min_width=190)
        with gr.Row(elem_id="seed-row"):
            same = "Off: the same picture and settings give the same asset."
            self.seed, self.new_seed = forms.seed_fields(info=same)
        with gr.Column(elem_id="advanced"):
            with gr.Accordion("Picture", open=False):
                elsewhere = ["seed", "pipeline_type", "preview", *self.generation]
                self.generation |= forms.components(GenerateSettings, ["Basic"], leave_out=elsewhere)
                self.generation["keep_latents"].value = True
                gr.HTML(
                    '<p class="muted">Crop to one object, in percent of the picture:</p>', js_on_load=None
                )
                with gr.Row(elem_id="crop"):
                    self.crop = [
                        gr.Slider(0, 100, value=value, step=1, label=name, buttons=[], min_width=100)
                        for name, value in zip(("Left", "Top", "Right", "Bottom"), WHOLE, strict=True)
                    ]
            with gr.Accordion("More views of the object", open=False, elem_id="views") as self.views_pane:
                self.sides = gr.HTML(sides_pane(NOTHING), js_on_load=DELEGATE + RECEIVES, elem_id="sides")
                self.view_note = gr.HTML("", js_on_load=None, elem_id="view-note")
                self.generation |= forms.components(GenerateSettings, [VIEWS])
            with gr.Accordion("Advanced", open=False, elem_id="samplers"):
                gr.HTML(AUTO, js_on_load=None)
                for group in (STRUCTURE, SHAPE, TEXTURE):
                    with gr.Accordion(group, open=False):
                        self.generation |= forms.components(GenerateSettings, [group], interactive=False)
                self.use_auto = gr.Button("Reset all to Auto", size="sm", elem_id="use-auto")

    def _results(self) -> None:
        self.progress = gr.HTML("", js_on_load=DELEGATE, visible=False, elem_id="progress")
        self.strip = gr.HTML("", js_on_load=DELEGATE, visible=False, elem_id="strip")
        self.variants = gr.HTML("", js_on_load=DELEGATE, visible=False, elem_id="variants")
        with gr.Row(equal_height=False, elem_id="result-row"):
            with gr.Column(scale=6, min_width=320, elem_id="result"):
                with gr.Tabs(elem_id="result-tabs") as self.result_tabs:
                    with gr.Tab("3D model", id=MODEL_TAB):
                        self.model = gr.HTML(EMPTY, js_on_load=DELEGATE, elem_id="model")
                    with gr.Tab("Turntable", id="turntable"):
                        self.video = gr.HTML(js_on_load=DELEGATE, elem_id="turntable")
                    with gr.Tab("Render modes", id="stills"):
                        self.stills = gr.HTML(js_on_load=DELEGATE, elem_id="stills")
                self.facts = gr.HTML("", js_on_load=DELEGATE, visible=False, elem_id="facts")
            with gr.Column(scale=4, min_width=280, visible=False, elem_id="export-column") as self.export:
                self._export()

    def _export(self) -> None:
        with gr.Column(elem_id="export") as self.export_form:
            self.budget = gr.Radio(
                forms.budget_choices(),
                value="web",
                label="Export for",
                info=forms.budget_help("web"),
                elem_id="budget",
                elem_classes="segments",
            )
            sizes = forms.components(ExtractSettings, ["Size"], leave_out=["wall_mm", "flat_base", "pivot"])
            with gr.Accordion("Format and details", open=False, elem_id="export-details"):
                details = forms.components(
                    ExtractSettings,
                    ["Basic", "Size", "Textures", "Remeshing", "Game"],
                    leave_out=["simplify", *sizes],
                )
            self.extraction = details | sizes
            for name, value in forms.budget_values("web").items():
                self.extraction[name].value = value
            for name, field in self.extraction.items():
                field.visible = forms.fits(name, "glb")
            self.extract = gr.Button("Export", variant="primary", elem_id="extract")
        with gr.Row(visible=False, elem_id="shape-actions") as self.shape_actions:
            self.refine = gr.Button("Refine", size="sm", visible=False, elem_id="refine", min_width=120)
            self.again = gr.Button("Texture again", size="sm", elem_id="again", min_width=120)
        self.files = gr.HTML("", js_on_load=DELEGATE, visible=False, elem_id="files")

    def _settings(self) -> None:
        target, settings = self.task_queue.target(), self.task_queue.settings
        with gr.Column(elem_id="settings"):
            gr.Markdown(
                "## Where the model runs\nLeave the URL empty to run the model on this computer. "
                "To use a service on Modal or elsewhere, enter its URL and your API key."
            )
            self.url = gr.Textbox(
                target.url,
                label="Service URL",
                placeholder="Empty: this computer",
                info="For example https://example--trellis2.modal.run",
                elem_id="url",
            )
            self.key = gr.Textbox(
                "",
                label="API key",
                type="password",
                elem_id="key",
                placeholder=views.key_placeholder(bool(target.key)),
                info="Saved in a file that only you can read. It is not shown again.",
            )
            with gr.Accordion("Private deployment on Modal", open=bool(target.proxy_token)):
                self.proxy_key, self.proxy_secret = (
                    gr.Textbox(
                        "",
                        label=label,
                        type="password",
                        elem_id=name,
                        placeholder=views.key_placeholder(bool(target.proxy_token)),
                        info="One half of the proxy token that the operator gave you.",
                    )
                    for name, label in PROXY_TOKEN.items()
                )
            self.limit = gr.Slider(
                0.5,
                50,
                value=settings.history_limit_gb,
                step=0.5,
                label="Disk space for history (GB)",
                buttons=[],
                info="When it is used up, the oldest assets are deleted; favourites stay.",
                elem_id="limit",
            )
            with gr.Row():
                self.save = gr.Button("Save and test", variant="primary", elem_id="save")
                self.use_local = gr.Button("Run on this computer", elem_id="use-local")
            self.verdict = gr.HTML("", js_on_load=None, elem_id="verdict")

    # --- wiring ------------------------------------------------------------------------------------------

    def _wire(self) -> None:
        actions = self.actions
        self.export_estimate = self.extract
        self.texture_note, self.texture_types = self.texture.note, self.texture.resolution
        panes = [getattr(self, name) for name in PANES]
        samplers = [self.generation[name] for name in SAMPLER_FIELDS]
        look: dict[str, Any] = {
            "fn": actions.look,
            "inputs": [self.shown, self.seen, self.view, self.auto, self.asked, *samplers],
            "outputs": [*panes, self.auto, *samplers, self.timer, self.seen],
            **POLL,
        }
        self.timer.tick(**look)
        tools = [self.search, self.order, self.favourites]
        gr.on(
            [self.search.change, self.order.input, self.favourites.input],
            actions.set_view,
            [self.view, *tools],
            [self.view],
            trigger_mode="always_last",
            **QUICK,
        ).then(**look)
        subjects = self.generation["subjects"]
        for place in (self.picture, self.sides, self.matte):
            place.click(actions.take, [self.chosen], [self.chosen, self.views_pane, self.tabs], **PRESSED)
        self.chosen.change(
            lambda chosen: (picture_pane(chosen), sides_pane(chosen), gr.update(selected="picture")),
            [self.chosen],
            [self.picture, self.sides, self.input_tabs],
            **QUICK,
        )
        gr.on(
            [self.chosen.change, subjects.change, *(edge.release for edge in self.crop)],
            actions.show_matte,
            [self.chosen, subjects, *self.crop],
            [self.matte],
            trigger_mode="always_last",
            **QUICK,
        )
        asked = [self.pipeline, self.generation["num_samples"], self.generation["texture"]]
        changes = [component.change for component in asked]
        gr.on(changes, actions.ask, asked, [self.asked], trigger_mode="always_last", **QUICK).then(**look)
        recipe = [self.pipeline, self.seed, self.new_seed, *self.generation.values(), *self.crop]
        self.use_auto.click(actions.use_auto, [self.auto], samplers, **QUICK)
        actions.generation = list(self.generation)
        actions.extraction = list(self.extraction)
        self.generate.click(
            actions.generate,
            [self.shown, self.auto, self.chosen, *recipe],
            [self.seed, self.shown],
            **PRESSED,
        ).then(**look)
        self.again.click(
            actions.texture_again,
            [self.shown, self.auto, self.seed, self.new_seed, *samplers],
            [self.shown],
            **PRESSED,
        ).then(**look)
        self.refine.click(actions.refine, [self.shown, self.auto, *samplers], [self.shown], **PRESSED).then(
            **look
        )
        self.budget.input(
            actions.take_budget,
            [self.budget, self.extraction["format"]],
            [self.budget, *self.extraction.values()],
            **QUICK,
        )
        for name, control in self.extraction.items():
            if name not in forms.SIZES:
                control.input(actions.custom_budget, None, [self.budget], **QUICK)
        chosen = self.extraction["format"]
        chosen.input(actions.take_format, [chosen], [*self.extraction.values()], **QUICK)
        self.extract.click(
            actions.extract, [self.shown, self.budget, *self.extraction.values()], None, **PRESSED
        ).then(**look)
        changed = [self.shown, self.view, self.tabs, self.result_tabs, self.chosen, *recipe]
        results = (self.model, self.video, self.stills, self.facts, self.files)
        for pane in (
            self.examples,
            self.model_note,
            self.progress,
            self.strip,
            self.variants,
            *results,
            self.history,
            self.comparison,
            self.address,
        ):
            pane.click(actions.act, [self.shown, self.view, self.auto], changed, **PRESSED).then(**look)
        self.texture.wire(self.shown, [self.tabs, self.input_tabs], results, QUICK, look)
        self.save.click(
            actions.save,
            [self.url, self.key, self.limit, self.proxy_key, self.proxy_secret],
            [self.verdict, self.key, self.proxy_key, self.proxy_secret, self.seen],
            **QUICK,
        )
        self.use_local.click(
            actions.use_local,
            [self.limit],
            [self.verdict, self.url, self.key, self.proxy_key, self.proxy_secret, self.seen],
            **QUICK,
        )
