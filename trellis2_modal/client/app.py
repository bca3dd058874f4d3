"""The desktop web app: what is on the page, and which event does what. The work itself is in `desk`.

`run` serves it; `build` makes the page over a desk. Gradio is imported here only when one of them is called.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..protocol.errors import ServiceError
from ..protocol.requests import MAX_SEED, SHAPE, STRUCTURE, TEXTURE, ExtractSettings, GenerateSettings
from . import forms, views
from .desk import Desk
from .explain import explain
from .history import LIGHT, Entry
from .kept import Mattes, make_routes
from .matte import judge
from .settings import ClientSettings
from .theme import CSS, DELEGATE, head, make_theme

logger = logging.getLogger(__name__)

TITLE = "TRELLIS.2"
TICK = 0.7
EXAMPLES = Path(__file__).parents[2] / "assets" / "example_image"
AUTOMATIC = "automatic"
MAX_UPLOAD = "32mb"


def run(
    host: str = "127.0.0.1",
    port: int = 7860,
    browser: bool = True,
    url: str | None = None,
    key: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    listening: Callable[[str], None] = lambda address: print(f"The app is at {address}", flush=True),
) -> None:
    """Serve the app until a signal; `listening` is told its address."""
    import uvicorn

    desk = Desk(url=url, key=key, weights=weights, device=device)
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(128)
            address = f"http://{host}:{listener.getsockname()[1]}"
            config = uvicorn.Config(
                make_app(desk, host),
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=3,
            )
            listening(address)
            if browser:
                threading.Timer(0.5, webbrowser.open, (address,)).start()
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        desk.close()


def make_app(desk: Desk, host: str = "127.0.0.1") -> Any:
    """The ASGI app: the page, and the files that it shows."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("GRADIO_TEMP_DIR", str(desk.root / "cache"))
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    mattes = Mattes()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.router.routes += make_routes(desk.history, mattes)
    if host in ("127.0.0.1", "localhost"):
        # another site must not reach this app under a name of its own (DNS rebinding)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    return gr.mount_gradio_app(
        app,
        build(desk, mattes),
        path="/",
        theme=make_theme(),
        css_paths=CSS,
        head=head(),
        allowed_paths=[str(desk.history.root), str(EXAMPLES)],
        max_file_size=MAX_UPLOAD,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=True,
    )


def build(desk: Desk, mattes: Mattes) -> Any:
    """The page."""
    import gradio as gr

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86_400)) as page:
        Page(desk, mattes, gr)
    return page


class Page:
    """Lays out the page and wires it to the desk. What a tab shows is in its `gr.State`, never in here."""

    def __init__(self, desk: Desk, mattes: Mattes, gr: Any) -> None:
        self.desk, self.mattes, self.gr = desk, mattes, gr
        self.shown = gr.State("")
        """Id of the entry that this tab shows; empty follows the newest."""

        self.seen = gr.State({})
        """What this tab was last sent, so that only changes are sent."""

        self.header = gr.HTML(views.header(desk.service), js_on_load=None)
        with gr.Tabs() as self.tabs:
            with gr.Tab("Create", id="create"), gr.Row(equal_height=False):
                with gr.Column(scale=4, min_width=320):
                    self._inputs()
                with gr.Column(scale=6, min_width=320):
                    self._results()
            with gr.Tab("History", id="history"):
                self.history = gr.HTML(js_on_load=DELEGATE, elem_id="history")
            with gr.Tab("Settings", id="settings"):
                self._settings()
        self.timer = gr.Timer(TICK)
        self._wire()

    # --- layout ------------------------------------------------------------------------------------------

    def _inputs(self) -> None:
        gr = self.gr
        self.picture = gr.Image(
            label="Picture of one object",
            type="filepath",
            image_mode=None,
            format="png",
            sources=["upload", "clipboard", "webcam"],
            height=270,
            elem_id="picture",
            buttons=[],
        )
        self.matte = gr.HTML("", js_on_load=None, elem_id="matte")
        examples = _examples()
        if examples:
            self.examples = gr.Gallery(
                [(str(path), path.stem.replace("_", " ")) for path in examples],
                label="Examples",
                columns=6,
                height=112,
                allow_preview=False,
                object_fit="contain",
                buttons=[],
                interactive=False,
                elem_id="examples",
            )
        self.pipeline = gr.Radio(
            self._pipeline_choices(),
            value=AUTOMATIC,
            label="Quality",
            info="Automatic is the service's own choice; larger numbers are finer and slower.",
            elem_id="pipeline",
        )
        with gr.Row():
            self.seed = gr.Number(
                42, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed", min_width=120
            )
            self.new_seed = gr.Checkbox(
                True, label="New seed each time", info="Off: the same picture gives the same asset."
            )
        self.generate = gr.Button("Generate", variant="primary", elem_id="generate")
        self.generation: dict[str, Any] = {}
        for group in (STRUCTURE, SHAPE, TEXTURE):
            with gr.Accordion(f"Advanced: {group.lower()}", open=False):
                self.generation |= forms.components(GenerateSettings, [group])

    def _results(self) -> None:
        gr = self.gr
        self.progress = gr.HTML("", js_on_load=DELEGATE, elem_id="progress")
        with gr.Tabs():
            with gr.Tab("Turntable"):
                self.video = gr.HTML(views.EMPTY, js_on_load=DELEGATE, elem_id="turntable")
            with gr.Tab("3D"):
                self.model = gr.Model3D(
                    label="Light preview mesh", height=480, clear_color=(0.0, 0.0, 0.0, 0.0), elem_id="model"
                )
            with gr.Tab("Every side"):
                self.stills = gr.HTML(js_on_load=None, elem_id="stills")
        with gr.Group(visible=False, elem_id="export") as self.export:
            self.budget = gr.Radio(
                forms.budget_choices(), value="web", label="What is it for?", info=forms.budget_help("web"),
                elem_id="budget",
            )  # fmt: skip
            with gr.Accordion("Size, format and material", open=False):
                self.extraction = forms.components(
                    ExtractSettings, ["Basic", "Material", "Remeshing"], leave_out=["simplify"]
                )
            self.extract = gr.Button("Make the file", variant="primary", elem_id="extract")
        self.files = gr.HTML("", js_on_load=DELEGATE, elem_id="files")

    def _settings(self) -> None:
        gr, settings = self.gr, self.desk.settings
        with gr.Column(elem_classes="narrow"):
            gr.Markdown(
                "### Where the model runs\nLeave the address empty to run it on this machine. "
                "For a service on Modal, enter its address and your key."
            )
            self.url = gr.Textbox(
                settings.url,
                label="Address",
                placeholder="https://example--trellis2.modal.run",
                elem_id="url",
            )
            self.key = gr.Textbox(
                "",
                label="API key",
                type="password",
                elem_id="key",
                placeholder="saved; type to replace it" if settings.key else "sk_...",
                info="Kept in a file that only you can read, and never shown again.",
            )
            self.limit = gr.Slider(
                0.5, 50, value=settings.history_limit_gb, step=0.5, label="History on disk (GB)", buttons=[],
                info="The oldest assets are removed when there are more.",
            )  # fmt: skip
            with gr.Row():
                self.save = gr.Button("Save and test", variant="primary", elem_id="save")
                self.use_local = gr.Button("Use this machine", elem_id="use-local")
            self.verdict = gr.HTML("", js_on_load=None, elem_id="verdict")

    # --- wiring ------------------------------------------------------------------------------------------

    def _wire(self) -> None:
        quick: dict[str, Any] = {
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": None,
        }
        panes = [
            self.header, self.progress, self.video, self.model, self.stills, self.export, self.files,
            self.history, self.pipeline, self.seen,
        ]  # fmt: skip
        look = {"fn": self._look, "inputs": [self.shown, self.seen], "outputs": panes, **quick}
        self.timer.tick(**look)
        self.picture.change(self._show_matte, [self.picture], [self.matte], **quick)
        if hasattr(self, "examples"):
            self.examples.select(self._take_example, None, [self.picture], **quick)
        self.generate.click(
            self._generate,
            [self.picture, self.pipeline, self.seed, self.new_seed, *self.generation.values()],
            [self.seed, self.shown],
            **quick,
        ).then(**look)
        self.budget.change(
            self._take_budget, [self.budget], [self.budget, *self.extraction.values()], **quick
        )
        for control in self.extraction.values():
            control.input(
                lambda: self.gr.update(value=forms.CUSTOM, info=forms.budget_help(forms.CUSTOM)),
                None,
                [self.budget],
                **quick,
            )
        self.extract.click(
            self._extract, [self.shown, self.budget, *self.extraction.values()], None, **quick
        ).then(**look)
        for pane in (self.progress, self.video, self.files, self.history):
            pane.click(self._act, [self.shown], [self.shown, self.tabs, self.picture], **quick).then(**look)
        self.save.click(
            self._save, [self.url, self.key, self.limit], [self.verdict, self.key, self.seen], **quick
        )
        self.use_local.click(
            self._use_local, [self.limit], [self.verdict, self.url, self.key, self.seen], **quick
        )

    # --- events ------------------------------------------------------------------------------------------

    def _entry(self, shown: str) -> Entry | None:
        """What a tab shows: what was opened, else what is in work, else the newest."""
        entry = self.desk.history.get(shown) if shown else None
        if entry is not None:
            return entry
        tasks = self.desk.tasks()
        if tasks:
            return tasks[0].entry
        entries = self.desk.history.entries()
        return entries[0] if entries else None

    def _look(self, shown: str, seen: dict[str, Any]) -> list[Any]:
        """Everything that changed since this tab last looked."""
        desk, gr = self.desk, self.gr
        entry = self._entry(shown)
        light = desk.history.file(entry.id, LIGHT) if entry else None
        state = entry is not None and entry.status == "finished"
        version = desk.history.version if seen.get("version") != desk.history.version else None
        current: dict[str, Any] = {
            "header": views.header(desk.service),
            "progress": views.progress(desk),
            "video": views.turntable(desk, entry),
            "model": str(light) if light else None,
            "stills": views.stills(desk.history, entry),
            "export": state,
            "files": views.files(desk, entry),
            "history": seen.get("history") if version is None else views.history(desk),
            "pipeline": desk.pipeline_types(),
        }
        now = {**current, "version": desk.history.version}
        if now == seen:
            return [gr.skip()] * (len(current) + 1)

        def changed(name: str) -> Any:
            value = current[name]
            if name in seen and seen[name] == value:
                return gr.skip()
            if name == "export":
                return gr.update(visible=value)
            if name == "pipeline":
                return gr.update(choices=self._pipeline_choices())
            return gr.update(value=value)

        return [*(changed(name) for name in current), now]

    def _pipeline_choices(self) -> list[tuple[str, str]]:
        titles = {"1024_cascade": "1024 cascade", "1536_cascade": "1536 cascade"}
        offered = [(titles.get(name, name), name) for name in self.desk.pipeline_types()]
        return [("Automatic", AUTOMATIC), *offered]

    def _show_matte(self, picture: str | None) -> str:
        """The matte of a picture that was just dropped, with a hint."""
        if not picture:
            return ""
        try:
            png = self.desk.matte(Path(picture))
        except ServiceError as error:
            found = explain(error)
            return views.matte("", f"{found.title}. {found.detail}", warn=True)
        if png is None:
            return views.matte("", "This service shows no preview of the cut-out.", warn=False)
        return views.matte(self.mattes.add(png), *judge(png))

    def _take_example(self, event: Any) -> str:
        return str(_examples()[event.index])

    def _generate(
        self, picture: str | None, pipeline: str, seed: float | None, new_seed: bool, *values: Any
    ) -> list[Any]:
        if not picture:
            raise self.gr.Error("Drop a picture first, or pick an example.", duration=6, title="No picture")
        chosen = random.randrange(MAX_SEED) if new_seed or seed is None else int(seed)
        settings = forms.values_of(GenerateSettings, list(self.generation), values) | {"seed": chosen}
        if pipeline != AUTOMATIC:
            settings["pipeline_type"] = pipeline
        with self._told():
            entry = self.desk.generate(Path(picture), Path(picture).name, settings)
            busy = len([task for task in self.desk.tasks() if task.kind == "generate"]) > 1
            return [chosen, self.gr.skip() if busy else entry.id]
        return [self.gr.skip(), self.gr.skip()]

    def _take_budget(self, budget: str) -> list[Any]:
        values = forms.budget_values(budget)
        updates = [
            self.gr.update(value=values[n]) if n in values else self.gr.skip() for n in self.extraction
        ]
        return [self.gr.update(info=forms.budget_help(budget)), *updates]

    def _extract(self, shown: str, budget: str, *values: Any) -> None:
        entry = self._entry(shown)
        if entry is None:
            return
        settings = forms.values_of(ExtractSettings, list(self.extraction), values)
        label = {name: title for title, name in forms.budget_choices()}[budget]
        if budget != forms.CUSTOM:
            settings["simplify"] = budget
        with self._told():
            self.desk.extract(entry.id, settings, label)

    def _act(self, shown: str, event: Any) -> list[Any]:
        """What a button inside an HTML pane does."""
        gr, data = self.gr, event._data or {}
        action, target = data.get("action"), str(data.get("target", ""))
        tabs, picture = gr.skip(), gr.skip()
        with self._told():
            if action == "cancel":
                self.desk.cancel(target)
            elif action == "retry":
                self.desk.retry(target)
                shown = target
            elif action == "delete":
                self.desk.delete(target)
                shown = "" if shown == target else shown
            elif action == "open":
                shown, tabs = target, gr.update(selected="create")
            elif action == "settings":
                tabs = gr.update(selected="settings")
            elif action == "picture":
                picture = None
        return [shown, tabs, picture]

    def _save(self, url: str, key: str, limit: float) -> list[Any]:
        """Save the settings, then say whether the service answers."""
        saved = self.desk.settings
        url = url.strip()
        same_place = url.rstrip("/") == saved.url.rstrip("/")
        settings = ClientSettings(url, key.strip() or (saved.key if same_place else ""), float(limit))
        try:
            words = self.desk.test_connection(url, settings.key) if url else "The model runs on this machine."
        except ServiceError as error:
            found = explain(error)
            return [
                views.matte("", f"Not saved. {found.title}. {found.detail}", warn=True),
                self.gr.skip(),
                {},
            ]
        with self._told():
            self.desk.change_settings(settings)
        field = self.gr.update(
            value="", placeholder="saved; type to replace it" if settings.key else "sk_..."
        )
        return [views.matte("", f"Saved. {words}", warn=False), field, {}]

    def _use_local(self, limit: float) -> list[Any]:
        with self._told():
            self.desk.change_settings(replace(ClientSettings(), history_limit_gb=float(limit)))
        words = "Saved. The model runs on this machine."
        return [views.matte("", words, warn=False), "", self.gr.update(value="", placeholder="sk_..."), {}]

    @contextlib.contextmanager
    def _told(self) -> Any:
        """Errors of the desk become a message with the next step."""
        try:
            yield
        except (ServiceError, OSError) as error:
            found = explain(error)
            raise self.gr.Error(found.detail, duration=10, title=found.title) from error


def _examples() -> list[Path]:
    """Example pictures of the repository, if it is there."""
    if not EXAMPLES.is_dir():
        return []
    endings = (".png", ".jpg", ".jpeg", ".webp")
    return sorted(path for path in EXAMPLES.iterdir() if path.suffix.lower() in endings)


__all__ = ["Page", "build", "make_app", "run"]
