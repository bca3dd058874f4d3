"""What happens when a person does something on the page, and what each tab is sent when it polls."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from ...protocol.errors import ServiceError
from ...protocol.requests import MAX_SEED, SAMPLER_FIELDS, GenerateSettings
from ..history import PICTURE, STATE, Entry, asset_name
from ..inputs.pictures import WHOLE, Crop, crop_picture, read_picture
from ..options import ProxyToken
from ..settings import ClientSettings, Target
from . import forms, history_view, result
from . import html as views
from .error_messages import explain
from .file_routes import Mattes
from .history_view import HistoryView
from .inputs import ready_made
from .inputs.cutouts import framed
from .inputs.intake import NOTHING, Chosen, Intake, single
from .inputs.matte import judge
from .inputs.presses import Presses, digest
from .inputs.received import FOLDER, PictureTray
from .task_queue import TaskQueue

AUTOMATIC, DRAFT = "automatic", "draft"
MODEL_TAB = "model"
BUSY_TICK, IDLE_TICK = 0.7, 2.5
EXAMPLE_SEED = 42
"""The small model's assets of the examples, as `assets/contact_sheet.webp` shows them, were made with it."""

PANES = (
    "header", "progress", "strip", "variants", "model", "video", "stills", "facts", "export", "export_form",
    "shape_actions", "again", "refine",
    "files", "history", "comparison", "address", "pipeline", "view_note", "model_note", "estimate",
    "export_estimate", "texture_note", "texture_types",
)  # fmt: skip
"""The parts of the page that follow the task queue, by the names of their components."""


def pipeline_choices(task_queue: TaskQueue) -> list[tuple[str, str]]:
    """Titles and values of the choice of quality; a draft is one where a cascade can refine it."""
    offered = task_queue.pipeline_types()
    drafts = "512" in offered and any(name.endswith("_cascade") for name in offered)
    return [
        ("Automatic", AUTOMATIC),
        *([("Draft first", DRAFT)] if drafts else []),
        *((name.replace("_", " "), name) for name in offered),
    ]


def texture_choices(task_queue: TaskQueue) -> list[tuple[str, str]]:
    """Titles and values of the choice of a texture's resolution."""
    return [("Automatic", AUTOMATIC), *((name, name) for name in task_queue.texture_types())]


class Actions:
    """See the module. `generation` and `extraction` name the settings whose values events bring along."""

    def __init__(self, task_queue: TaskQueue, mattes: Mattes, examples: Sequence[Path]) -> None:
        self.task_queue, self.mattes, self.examples = task_queue, mattes, list(examples)
        self.intake = Intake(PictureTray(task_queue.root / FOLDER))
        self.generation: list[str] = []
        self.extraction: list[str] = []
        self._generated: Presses[Entry] = Presses()
        self._extracted: Presses[None] = Presses()

    # --- looking -----------------------------------------------------------------------------------------

    def entry(self, shown: str) -> Entry | None:
        """What a tab shows: its own work or what was opened in it, else the newest asset that is finished."""
        entry = self.task_queue.history.get(shown.partition("/")[0]) if shown else None
        if entry is not None:
            return entry
        return next((e for e in self.task_queue.history.entries() if e.status == "finished"), None)

    def look(
        self,
        shown: str,
        seen: dict[str, Any],
        view: HistoryView,
        auto: dict[str, float] | None,
        asked: dict[str, Any],
        *samplers: Any,
    ) -> list[Any]:
        """Everything that changed since this tab last looked, the pace of its timer, and what it has seen.

        When the weights are known, or are others, sliders at Auto (`auto`) show their settings. What a
        generation takes is told for the settings in `asked`.
        """
        task_queue = self.task_queue
        task_queue.history.refresh()
        entry = self.entry(shown)
        viewed = result.viewed_file(task_queue, entry, shown.partition("/")[2])
        finer = task_queue.refinements(entry) if entry is not None else []
        extracts = entry is not None and task_queue.history.file(entry.id, entry.own(STATE)) is not None
        version = (task_queue.history.version, task_queue.settings.history_limit_gb, view)
        known = seen.get("version") == version
        current: dict[str, Any] = {
            "header": views.header(task_queue.service),
            "progress": views.progress(task_queue, entry),
            "strip": views.strip(task_queue, entry),
            "variants": views.variants(task_queue, entry),
            "model": result.model(task_queue, entry, viewed),
            "video": result.turntable(task_queue, entry),
            "stills": result.stills(task_queue, entry),
            "facts": result.facts(task_queue, entry),
            "export": entry is not None and (extracts or bool(entry.exports)),
            "export_form": extracts,
            "shape_actions": entry is not None and task_queue.keeps_shape(entry),
            "again": "Texture again"
            if entry is None or entry.settings.get("texture", True)
            else "Add a texture",
            "refine": f"Refine to {finer[0].partition('_')[0]}" if finer else "",
            "files": result.files(task_queue, entry, viewed),
            "history": seen["history"] if known else history_view.history(task_queue, view),
            "comparison": seen["comparison"] if known else history_view.comparison(task_queue, view),
            "address": views.address(history_view.address_of(shown, view)),
            "pipeline": pipeline_choices(task_queue),
            "estimate": views.estimate_note(task_queue, asked),
            "export_estimate": views.short_estimate(task_queue.forecast("extract", {})),
            "view_note": views.view_note(task_queue.service),
            "model_note": views.model_note(task_queue.service),
            "texture_note": views.texture_note(task_queue),
            "texture_types": texture_choices(task_queue),
        }
        own = auto if (told := task_queue.samplers()) is None else told
        calm = not task_queue.tasks() and task_queue.service.health is not None
        now = {**current, "version": version, "own": own, "tick": IDLE_TICK if calm else BUSY_TICK}
        if now == seen:
            return [gr.skip()] * (len(PANES) + len(SAMPLER_FIELDS) + 3)
        updates = [
            gr.skip() if name in seen and seen[name] == current[name] else _update(name, current[name])
            for name in PANES
        ]
        tick = gr.skip() if now["tick"] == seen.get("tick") else gr.Timer(now["tick"])
        if own is None or own == auto:
            sliders = [gr.skip()] * (1 + len(SAMPLER_FIELDS))
        else:
            sliders = [own, *forms.sampler_updates(own, auto, samplers)]
        return [*updates, *sliders, tick, now]

    # --- before a generation -----------------------------------------------------------------------------

    def take(self, chosen: Chosen, event: gr.EventData) -> list[Any]:
        """What is chosen after a press, a drop or a paste; the accordion of views; the tab of the form."""
        data = event._data or {}
        action = str(data.get("action", ""))
        if action == "cutout":
            with errors_shown():
                chosen = self._corrected(chosen, str(data.get("target", "")))
        else:
            chosen = self.intake.take(chosen, action, str(data.get("target", "")))
        views_open = gr.update(open=True) if action == "as-views" else gr.skip()
        tabs = gr.update(selected="create") if action == "received" else gr.skip()
        return [chosen, views_open, tabs]

    def show_matte(self, chosen: Chosen, subjects: str = "auto", *crop: float) -> Iterator[Any]:
        """The matte of the front's picture, with what a person should know of it, or a hint."""
        if chosen.queue or not chosen.front:
            yield gr.update(value="", visible=False)
            return
        yield gr.update(value=views.matte("", "Cutting out the subject ...", warn=False), visible=True)
        yield self._matte(chosen, subjects, crop_of(crop))

    def _matte(self, chosen: Chosen, subjects: str, crop: Crop) -> str:
        try:
            found = self.task_queue.matte(self._cropped(chosen, chosen.used, crop), subjects=subjects)
        except ServiceError as error:
            why = explain(error, local=self.task_queue.service.local)
            return views.matte("", f"{why.title}. {why.detail}", warn=True)
        if found is None:
            return views.matte("", "This service shows no preview of the cut-out.", warn=False)
        told = " ".join(views.sentence(notice.message) for notice in found.warnings)
        hint, warn = (told, True) if told else judge(found.png)
        token = Path(chosen.front or "").parent.name
        return views.matte(self.mattes.add(found.png), hint, warn, token, bool(chosen.cut))

    def _cropped(self, chosen: Chosen, picture: Path | str | None, crop: Crop) -> bytes:
        """The part of a picture that is used; of a corrected cut-out still one, wherever the crop lies."""
        data = crop_picture(picture, crop)
        return framed(data) if crop != WHOLE and str(picture) == chosen.cut else data

    def _corrected(self, chosen: Chosen, name: str) -> Chosen:
        """With the cut-out of the front that was settled on; without a name with none. Raises OSError."""
        if not name or not chosen.front:
            return replace(chosen, cut="")
        png = self.mattes.get(name)
        if png is None:
            gr.Warning("Correct it once more.", title="The cut-out is no longer here")
            return chosen
        kept = self.intake.tray.receive(framed(png), Path(chosen.front).stem + ".png")
        return replace(chosen, cut=str(kept.path))

    def ask(self, pipeline: str, count: float, texture: bool) -> dict[str, Any]:
        """The settings of the form that an estimate goes by."""
        return {"num_samples": int(count), "texture": bool(texture), **_kind(pipeline)}

    def use_auto(self, auto: dict[str, float] | None) -> list[Any]:
        """Every slider back to Auto."""
        return [(auto or {}).get(name, gr.skip()) for name in SAMPLER_FIELDS]

    def generate(
        self,
        shown: str,
        auto: dict[str, float] | None,
        chosen: Chosen,
        pipeline: str,
        seed: float | None,
        new_seed: bool,
        *values: Any,
    ) -> list[Any]:
        """Queue a generation. The tab follows it, unless it shows one that is still at work.

        A sampler field is sent unless it is at Auto; before the weights are known all are.
        `values`: of the settings, then how the picture is cropped. Of a queue of pictures each is a job.
        """
        if not chosen.front:
            gr.Info("Drop a picture first, or pick an example.", duration=5, title="No picture yet")
            return [gr.skip(), gr.skip()]
        count = len(self.generation)
        crop = crop_of(values[count:])
        settings = forms.values_of(GenerateSettings, self.generation, values[:count])
        settings = {
            name: value
            for name, value in settings.items()
            if name not in SAMPLER_FIELDS or (auto is not None and value != auto.get(name))
        }
        settings |= _kind(pipeline)
        if pipeline == DRAFT:
            settings["keep_latents"] = True
            if settings.get("num_samples", 1) == 1 and not self.task_queue.service.local:
                settings["preview"] = "video"  # stills take a quarter of a draft's time on a GPU
        if not new_seed and seed is not None:
            settings["seed"] = int(seed)
        with errors_shown():
            made = [
                self._queue(Path(path), self._cropped(chosen, path, crop), chosen.others, settings)
                for path in chosen.queue or (chosen.used or chosen.front,)
            ]
        return [made[0].settings["seed"], shown_next(self.task_queue, shown, made[0])]

    def _queue(self, picture: Path, data: bytes, others: dict[str, Path], settings: dict[str, Any]) -> Entry:
        """Queue one picture; a repeated press gets the job that is there. Without a seed one is drawn."""
        sides = {side: read_picture(path) for side, path in others.items()}
        asked = digest([data, *sides.values()], settings | {"sides": list(sides)})
        drawn = {"seed": random.randrange(MAX_SEED)} | settings
        return self._generated.once(asked, lambda: self.task_queue.generate(data, picture.name, drawn, sides))

    def texture_again(
        self, shown: str, auto: dict[str, float] | None, seed: float | None, new_seed: bool, *samplers: Any
    ) -> Any:
        """Queue another texture of the shown asset's shape, with the form's seed and steps; shows it."""
        wanted = random.randrange(MAX_SEED) if new_seed or seed is None else int(seed)
        return self._again(shown, {"seed": wanted}, auto, samplers)

    def refine(self, shown: str, auto: dict[str, float] | None, *samplers: Any) -> Any:
        """Queue the fine asset of a draft's shape, with its seed; shows it."""
        entry = self.entry(shown)
        finer = self.task_queue.refinements(entry) if entry is not None else []
        if entry is None or not finer:
            return gr.skip()
        return self._again(shown, {"seed": entry.seed, "pipeline_type": finer[0]}, auto, samplers)

    def _again(
        self, shown: str, settings: dict[str, Any], auto: dict[str, float] | None, samplers: Sequence[Any]
    ) -> Any:
        entry = self.entry(shown)
        if entry is None:
            return gr.skip()
        moved = forms.values_of(GenerateSettings, list(SAMPLER_FIELDS), samplers)
        settings = settings | {
            name: value
            for name, value in moved.items()
            if auto is not None and value != auto.get(name) and not name.startswith("ss_")
        }
        asked = digest([], {"entry": entry.id, "variant": entry.variant} | settings)
        with errors_shown():
            return self._generated.once(asked, lambda: self.task_queue.again(entry.id, settings)).id

    # --- exporting ---------------------------------------------------------------------------------------

    def take_budget(self, budget: str, kind: str) -> list[Any]:
        """The numbers behind a use, put into the fields; only fields that mean something for it are shown."""
        values = forms.budget_values(budget)
        updates = self.take_format(forms.format_of(budget, kind))
        for name, update in zip(self.extraction, updates, strict=True):
            update |= {"value": values[name]} if name in values else {}
        return [gr.update(info=forms.budget_help(budget)), *updates]

    def take_format(self, kind: str) -> list[Any]:
        """Show the fields that mean something for a format."""
        return [gr.update(visible=forms.fits(name, kind)) for name in self.extraction]

    def custom_budget(self) -> Any:
        """A field was changed by hand."""
        return gr.update(value=forms.CUSTOM, info=forms.budget_help(forms.CUSTOM))

    def extract(self, shown: str, budget: str, *values: Any) -> None:
        """Queue an export of the shown entry."""
        entry = self.entry(shown)
        if entry is None:
            return
        label = {name: title for title, name in forms.budget_choices()}[budget]
        settings = forms.export_settings(budget, self.extraction, values)
        with errors_shown():
            named = settings | {"name": asset_name(entry.title)}
            self._extracted.once(
                digest([], {"entry": entry.id, "label": label} | named),
                lambda: self.task_queue.extract(entry.id, named, label),
            )

    # --- buttons inside HTML panes -----------------------------------------------------------------------

    def act(
        self, shown: str, view: HistoryView, auto: dict[str, float] | None, event: gr.EventData
    ) -> list[Any]:
        """Do what a button says; returns what is shown, the tabs, the pictures and recipe."""
        data = event._data or {}
        action, target = str(data.get("action", "")), str(data.get("target", ""))
        tabs = results = chosen = gr.skip()
        recipe = self._untouched()
        with errors_shown():
            if action == "cancel":
                waited = self.task_queue.cancel(target)
                shown = "" if waited and target.startswith(f"{shown}.") else shown
            elif action == "retry":
                self.task_queue.retry(target)
                shown = target
            elif action == "extract":
                self.task_queue.retry_extract(target)
            elif action == "variant":
                shown, _, number = target.partition(" ")
                self.task_queue.choose(shown, int(number) if number.isdecimal() else 0)
            elif action == "light":
                self.task_queue.make_light(target)
            elif action == "delete":
                for name in target.split():
                    self.task_queue.delete(name)
                    shown = "" if shown.partition("/")[0] == name else shown
            elif action == "favourite":
                kept = self.task_queue.history.get(target)
                self.task_queue.history.change(target, favourite=not (kept and kept.favourite))
            elif action == "rename":
                name, _, title = target.partition(" ")
                if title.strip():
                    self.task_queue.history.change(name, title=title.strip()[:80])
            elif action == "compare":
                view = replace(view, compared=tuple(target.split()))
            elif action in ("address", "arrive"):
                shown, view, tabs = self.go_to(target, shown, view)
                if action == "arrive" and "tab=" not in target:
                    tabs = gr.skip()  # a person may have opened another one meanwhile
            elif action == "open" and self._is_here(target):
                shown, tabs = target, gr.update(selected="create")
                view = replace(view, compared=())
            elif action == "view":
                shown, results = target, gr.update(selected=MODEL_TAB)
            elif action == "settings":
                tabs = gr.update(selected="settings")
            elif action == "picture":
                named = self.task_queue.history.get(target or shown.partition("/")[0])
                if named is None or not named.mesh:  # that of a mesh lies in the mesh's own form
                    chosen = NOTHING
            elif action == "example":
                for path in [path for path in self.examples if path.name == target]:
                    chosen, recipe[1:3] = self._received(path), [EXAMPLE_SEED, False]
            elif action == "ready-made":
                shown = ready_made.opened(self.task_queue.history).id
            elif action == "older":
                view = replace(view, count=view.count + history_view.PAGE)
            elif action == "reuse":
                chosen, recipe = self._reuse(target, auto or {})
                tabs = gr.update(selected="create")
        return [shown, view, tabs, results, chosen, *recipe]

    def go_to(self, query: str, shown: str, view: HistoryView) -> tuple[str, HistoryView, Any]:
        """What the page's address names: shown, compared, and the tab; says so where that is not here."""
        asset, compared, tab = history_view.read_address(query)
        for name in filter(None, (asset, *compared)):
            if not self._is_here(name):
                asset, compared = "", ()
        shown = asset if asset or tab == "create" else shown
        return shown, replace(view, compared=compared), gr.update(selected=tab)

    def _is_here(self, name: str) -> bool:
        """Whether there is such an asset; says so where there is none."""
        if self.task_queue.history.get(name) is not None:
            return True
        gr.Warning("It may have been deleted, or is on another computer.", title="No such asset here")
        return False

    def set_view(self, view: HistoryView, search: str, order: str, favourites: bool) -> HistoryView:
        """Which entries History shows, in which order."""
        return HistoryView(search, order, favourites, compared=view.compared)

    def _reuse(self, entry_id: str, auto: dict[str, float]) -> tuple[Any, list[Any]]:
        """The picture and the settings of an entry, put back into the form. Raises OSError."""
        entry = self.task_queue.history.get(entry_id)
        kept = self.task_queue.history.file(entry_id, PICTURE)
        if entry is None or kept is None:
            return gr.skip(), self._untouched()
        stem, settings = Path(entry.title).stem, entry.settings
        named = zip(entry.views, entry.pictures, strict=False)
        names = {view: name for view, name in named if isinstance(view, str)} or {"front": PICTURE}
        files = {side: self.task_queue.history.file(entry_id, name) for side, name in names.items()}
        chosen = Chosen.of({side: self._copied(file, stem) for side, file in files.items() if file})
        values = [settings.get(name, auto.get(name, gr.skip())) for name in self.generation]
        first = entry.variants[0] if entry.variants else entry.seed  # the seeds of all follow from it
        seed = first if first is not None else settings.get("seed", 42)
        pipeline = settings.get("pipeline_type") or AUTOMATIC
        known = pipeline in (AUTOMATIC, *self.task_queue.pipeline_types())
        return chosen, [pipeline if known else AUTOMATIC, seed, False, *values, *WHOLE]

    def _untouched(self) -> list[Any]:
        return [gr.skip()] * (3 + len(self.generation) + len(WHOLE))

    def _received(self, picture: Path) -> Chosen:
        return single(self._copied(picture, picture.stem))

    def _copied(self, picture: Path, stem: str) -> str:
        """A copy of a picture, received anew under a name. Raises OSError or `InvalidImageError`."""
        return str(self.intake.tray.receive(picture.read_bytes(), stem + ".png").path)

    # --- settings ----------------------------------------------------------------------------------------

    def save(
        self, url: str, key: str, limit: float, proxy_key: str = "", proxy_secret: str = ""
    ) -> list[Any]:
        """Save the settings when the service answers to them; says so, or why not."""
        target = self.task_queue.target()
        url = url.strip().rstrip("/")
        kept = target if url == target.url.rstrip("/") else Target("", "", "")
        token = ProxyToken(proxy_key.strip(), proxy_secret.strip()) or kept.proxy_token
        settings = ClientSettings(history_limit_gb=float(limit))
        if url:
            settings = ClientSettings(url, key.strip() or kept.key, float(limit), token.key, token.secret)
        words = "The model runs on this computer."
        try:
            if url:
                words = self.task_queue.test_connection(url, settings.key, settings.proxy_token)
        except ServiceError as error:
            found = explain(error)
            verdict = views.verdict(f"Not saved: {found.title.lower()}", found.detail, good=False)
            return [verdict, *[gr.skip()] * 4]
        with errors_shown():
            self.task_queue.change_settings(settings)
        return [views.verdict("Saved", words, good=True), *_emptied(settings), {}]

    def use_local(self, limit: float) -> list[Any]:
        """Forget address, key and proxy token."""
        settings = ClientSettings(history_limit_gb=float(limit))
        with errors_shown():
            self.task_queue.change_settings(settings)
        verdict = views.verdict("Saved", "The model runs on this computer.", good=True)
        return [verdict, "", *_emptied(settings), {}]


def _emptied(settings: ClientSettings) -> list[Any]:
    """The fields of the key and of the proxy token's parts, which say whether there is one."""
    known = (settings.key, settings.modal_key, settings.modal_secret)
    return [gr.update(value="", placeholder=views.key_placeholder(bool(secret))) for secret in known]


def _kind(pipeline: str) -> dict[str, str]:
    """The pipeline type that a choice of quality asks for."""
    if pipeline == AUTOMATIC:
        return {}
    return {"pipeline_type": "512" if pipeline == DRAFT else pipeline}


def shown_next(task_queue: TaskQueue, shown: str, queued: Entry) -> Any:
    """What a tab shows after a press: what was queued, unless it shows work that is still under way."""
    followed = task_queue.history.get(shown.partition("/")[0])
    return gr.skip() if followed is not None and not followed.over else queued.id


def crop_of(values: Sequence[float]) -> Crop:
    """Left, top, right and bottom as the sliders have them; the whole picture where there are none."""
    return (values[0], values[1], values[2], values[3]) if len(values) == 4 else WHOLE


def _update(name: str, value: Any) -> Any:
    if name in ("export", "export_form", "shape_actions"):
        return gr.update(visible=value)
    if name == "refine":
        return gr.update(value=value or "Refine", visible=bool(value))
    if name in ("pipeline", "texture_types"):
        return gr.update(choices=value, visible=len(value) > 2)
    if name == "export_estimate":
        return gr.update(value=f"Export ({value})" if value else "Export")
    if name in ("progress", "strip", "variants", "facts", "files", "model_note", "comparison", "estimate"):
        return gr.update(value=value, visible=bool(value))
    return gr.update(value=value)


@contextlib.contextmanager
def errors_shown() -> Iterator[None]:
    """Errors of the task queue become a message with the next step."""
    try:
        yield
    except (ServiceError, OSError) as error:
        found = explain(error)
        raise gr.Error(f"{found.title}. {found.detail}", duration=10, print_exception=False) from error
