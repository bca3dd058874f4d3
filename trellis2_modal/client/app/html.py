"""What the app shows, as HTML made from the task queue: header, progress, result, files, history."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ...protocol.replies import DEMO_MODEL
from ...protocol.stages import EXPORT_STAGES, stage_title
from ..history import COVER, LIGHT, STILLS, THUMBNAIL, VIDEO, Entry, Export, History
from ..report import describe_costs, describe_report
from ..stages import JobProgress, duration, phases_of, size_text
from ..stats import AssetStats, Costs
from .error_messages import ACTION_LABELS
from .icons import EMPTY, LIGHT_OR_DARK, LOGO
from .task_queue import ServiceState, Task, TaskQueue

MODE_TITLES = {
    "shaded": "Shaded",
    "normal": "Normal",
    "base_color": "Base colour",
    "metallic": "Metallic",
    "roughness": "Roughness",
    "clay": "Clay",
}
STRIP = 12
COLD_START_AFTER = 6.0
"""Seconds in an empty queue after which a remote service is probably waking a GPU."""


def text(value: object) -> str:
    """Any text, safe in HTML and in the templates of an HTML component."""
    escaped = html.escape(str(value), quote=True)
    return escaped.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def kept(entry_id: str, name: str) -> str:
    """The address of a kept file."""
    return f"/kept/{text(entry_id)}/{text(name)}"


def button(label: str, action: str, target: str = "", kind: str = "plain", confirm: str = "") -> str:
    ask = f' data-confirm="{text(confirm)}"' if confirm else ""
    return (
        f'<button type="button" class="{kind}" data-action="{action}" data-target="{text(target)}"{ask}>'
        f"{text(label)}</button>"
    )


def header(service: ServiceState) -> str:
    """Name, the state of the service, and the switch between light and dark."""
    kind, words = service_words(service)
    return (
        f'<div id="header"><span class="logo">{LOGO}</span><h1>TRELLIS.2</h1>'
        f'<span class="pill {kind}" role="status" title="{text(words)}"><i class="dot"></i>'
        f"<span>{text(words)}</span></span>"
        '<button type="button" class="round" id="theme-switch" aria-label="Switch between light and dark" '
        f'title="Light or dark">{LIGHT_OR_DARK}</button></div>'
    )


def service_words(service: ServiceState) -> tuple[str, str]:
    """ok, wait or bad; and the state in words."""
    place = "This machine" if service.local else service.url.partition("://")[2] or service.url
    health = service.health
    if health is None:
        if not service.problem:
            return "wait", f"{place}: connecting"
        return "bad", f"{place}: {service.problem}"
    if health.status == "starting":
        return "wait", f"{place}: loading the model; the first start takes a moment"
    if health.status != "ok":
        return "bad", f"{place}: {health.status}, the model cannot be used now"
    busy = f", {health.queued} waiting" if health.queued else ""
    return "ok", f"{place}: {health.model} is ready{busy}"


# --- progress -----------------------------------------------------------------------------------------------


def progress(task_queue: TaskQueue, now: float | None = None) -> str:
    """The running task with its Cancel button, and those that wait; empty when nothing is to be done."""
    tasks = [task for task in task_queue.tasks() if task.kind != "light"]
    if not tasks:
        return ""
    running, waiting = tasks[0], tasks[1:]
    rows = "".join(_waiting_row(task) for task in waiting)
    queue = f'<ul class="queue" aria-label="Waiting">{rows}</ul>' if rows else ""
    return f'<div class="card progress">{_running(running, task_queue.service)}{queue}</div>'


def _running(task: Task, service: ServiceState) -> str:
    tracker = task.tracker
    unsure = "" if tracker.stage else " unsure"
    percent = round(100 * tracker.overall(), 1)
    left = tracker.left()
    numbers = duration(tracker.elapsed) + (f", about {duration(left)} left" if left is not None else "")
    label = "Cancelling" if task.cancelled.is_set() else "Cancel"
    phases = "".join(f'<li class="{state}">{text(name)}</li>' for name, state in phases_of(tracker))
    strip = f'<ol class="phases" aria-hidden="true">{phases}</ol>' if phases else ""
    return (
        f'<div class="top"><h3>{text(headline(task))}</h3><span class="muted numbers">{numbers}</span></div>'
        f'<div class="bar{unsure}" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent:.0f}" aria-label="{text(task.entry.title)}">'
        f'<i style="width:{percent}%"></i></div>{strip}'
        f'<div class="row"><span class="muted" style="flex:1">{text(detail(task, service))}</span>'
        f"{button(label, 'cancel', task.id)}</div>"
    )


def headline(task: Task) -> str:
    """What happens now, in a few words."""
    if task.cancelled.is_set():
        return "Cancelling at the next step"
    if task.status_text:
        return task.status_text
    tracker = task.tracker
    if tracker.state == "queued":
        ahead = tracker.position
        return f"Waiting: {ahead} ahead on the service" if ahead else "Waiting for the service"
    if tracker.state == "finished":
        return "Fetching the result"
    return stage_title(tracker.stage) if tracker.stage else "Starting"


def detail(task: Task, service: ServiceState) -> str:
    """The line under the bar: which picture, which step, and a warning before a long wait."""
    tracker: JobProgress = task.tracker
    parts = [task.entry.title if task.kind == "generate" else f"{task.entry.title}, {task.label}"]
    if tracker.stage and tracker.steps > 1 and tracker.stage not in EXPORT_STAGES:
        parts.append(f"step {tracker.step} of {tracker.steps}")
    if (
        not tracker.stage
        and not service.local
        and tracker.elapsed > COLD_START_AFTER
        and not tracker.position
    ):
        parts.append("the service wakes a GPU; the first start after a pause can take a few minutes")
    if tracker.message and not tracker.stage:
        parts.append(tracker.message)
    return " · ".join(parts)


def _waiting_row(task: Task) -> str:
    picture = kept(task.entry.id, THUMBNAIL)
    words = task.entry.title if task.kind == "generate" else f"{task.entry.title}, {task.label}"
    remove = button("Remove", "cancel", task.id)
    return f'<li><img src="{picture}" alt=""><span>{text(words)}</span>{remove}</li>'


# --- the result ---------------------------------------------------------------------------------------------

NO_MODEL = '<div class="empty">The 3D model appears here after a generation.</div>'
LIGHT_LABEL = "Light preview mesh; make a file below for the full one"


def model_note(service: ServiceState) -> str:
    """What to expect of the small bundled weights; nothing for others."""
    if service.health is None or service.health.model != DEMO_MODEL:
        return ""
    return (
        '<p class="muted"><strong>Small demo model:</strong> simple toy-like objects only. '
        "For real photos connect a GPU service, under Settings.</p>"
    )


def view_note(service: ServiceState) -> str:
    """What the loaded weights make of several views."""
    health = service.health
    if health is None or health.status != "ok":
        return ""
    seen = health.views
    if not seen.cameras:
        words = "The loaded model knows one view: it uses more of them one after another, an approximation."
    elif seen.most == 1:
        words = "The loaded model was trained on one view. For several, pixal3d-mv does better."
    else:
        count = f"{seen.least} to {seen.most}"
        words = f"The loaded model was trained on {count} views. For one, pixal3d does better."
    return f'<p class="muted">{text(words)} Sides are the object\'s own: its left is on your right.</p>'


def examples(names: Sequence[str]) -> str:
    """Pictures to try, as small buttons."""
    cells = "".join(
        f'<button type="button" class="thumb whole" data-action="example" data-target="{text(name)}" '
        f'title="{text(title)}" aria-label="Example: {text(title)}">'
        f'<img src="/example/{text(quote(name))}" alt="" loading="lazy"></button>'
        for name in names
        for title in [name.rpartition(".")[0].replace("_", " ")]
    )
    return f'<p class="muted">Or try one of these</p><div class="thumbs" role="group">{cells}</div>'


def cover(task_queue: TaskQueue, entry: Entry) -> str:
    """The address of a small view of the asset, or of its picture while there is none."""
    made = task_queue.history.file(entry.id, COVER) is not None
    return kept(entry.id, COVER if made else THUMBNAIL)


def strip(task_queue: TaskQueue, entry: Entry | None) -> str:
    """The newest assets as small pictures to switch between; empty while there is only one."""
    entries = task_queue.history.entries()[:STRIP]
    if len(entries) < 2:
        return ""
    cells = "".join(
        f'<button type="button" class="thumb {other.status}" data-action="open" data-target="{other.id}" '
        f'title="{text(other.title)}" aria-label="Show {text(other.title)}" '
        f'aria-pressed="{str(entry is not None and other.id == entry.id).lower()}">'
        f'<img src="{cover(task_queue, other)}" alt="" loading="lazy"></button>'
        for other in entries
    )
    return f'<div class="thumbs" role="group" aria-label="Newest assets">{cells}</div>'


def no_model(entry: Entry | None) -> str:
    """What stands in the 3D view's place while there is no mesh to show."""
    if entry is not None and entry.status == "finished":
        return '<div class="empty">The light preview mesh is being made.</div>'
    return NO_MODEL


def turntable(task_queue: TaskQueue, entry: Entry | None) -> str:
    """The video of an entry, or what there is to say about it instead."""
    if entry is None:
        return EMPTY
    if entry.status in ("failed", "cancelled"):
        return ended(entry)
    if entry.status != "finished" or task_queue.history.file(entry.id, VIDEO) is None:
        picture = kept(entry.id, THUMBNAIL)
        if entry.status == "finished":
            words = "This asset was made without a turntable. See the 3D model."
            return f'<div class="empty"><img src="{picture}" alt="">{words}</div>{facts(entry)}'
        return f'<div class="empty making"><img src="{picture}" alt=""><span>{text(entry.title)}</span></div>'
    return (
        f'<div class="result"><video src="{kept(entry.id, VIDEO)}" controls loop autoplay muted playsinline '
        f'preload="metadata" aria-label="Turntable of {text(entry.title)}"></video>{facts(entry)}</div>'
    )


def facts(entry: Entry) -> str:
    """Seed, resolution and time in one quiet line."""
    stats = AssetStats.of(entry.stats)
    found = [
        text(entry.title),
        f"seed {entry.seed}",
        f"{text(entry.settings.get('pipeline_type') or 'automatic').replace('_', ' ')}",
        f"{entry.resolution}&#179; grid" if entry.resolution else "",
        f"{stats.voxels:,} voxels" if stats.voxels is not None else "",
        f"made in {duration(sum(stats.seconds.values()))}" if stats.seconds else "",
        text(describe_costs(Costs.of(entry.stats))),
    ]
    again = button("Use this picture again", "reuse", entry.id)
    rows = "".join(f"<span>{fact}</span>" for fact in found if fact)
    said = "".join(f'<p class="hint warn" role="status">{text(warning)}</p>' for warning in warnings(entry))
    return f'<div class="facts muted">{rows}{again}</div>{said}'


def warnings(entry: Entry) -> list[str]:
    """What a person should know of a generation, as sentences."""
    return [sentence(word) for word in AssetStats.of(entry.stats).warnings]


def sentence(words: str) -> str:
    """A notice as a sentence of its own."""
    return f"{words[:1].upper()}{words[1:]}."


def ended(entry: Entry) -> str:
    """A failed or cancelled entry: what happened and one next step."""
    if entry.status == "cancelled":
        return (
            f'<div class="card"><h3>Cancelled</h3>'
            f"<p>{text(entry.title)} was stopped. The picture is kept.</p>"
            f'<div class="row">{button("Generate again", "retry", entry.id, "main")}</div></div>'
        )
    return problem(entry.problem, "retry", entry.id)


def problem(found: Mapping[str, str], retry: str, target: str) -> str:
    """An explanation with its one button."""
    if not found:
        return ""
    action: Any = found.get("action", "retry")
    label = ACTION_LABELS.get(action, "")
    step = button(label, retry if action == "retry" else action, target, "main") if label else ""
    if action == "settings":
        step += button(ACTION_LABELS["retry"], retry, target)  # for when they are put right
    return (
        f'<div class="card bad" role="alert"><h3>{text(found.get("title", ""))}</h3>'
        f'<p>{text(found.get("detail", ""))}</p><div class="row">{step}</div></div>'
    )


def stills(history: History, entry: Entry | None) -> str:
    """Every side in every render mode: drag or use the arrow keys to turn."""
    layout = AssetStats.of(entry.stats).preview if entry else None
    if entry is None or layout is None or history.file(entry.id, STILLS) is None:
        return '<div class="empty">Views of every side appear here after a generation.</div>'
    modes, views = layout.modes, layout.views
    buttons = "".join(
        f'<button type="button" class="plain" data-mode="{i}" aria-pressed="{str(i == 0).lower()}">'
        f"{text(MODE_TITLES.get(mode, mode))}</button>"
        for i, mode in enumerate(modes)
    )
    size = f"background-size:{views * 100}% {len(modes) * 100}%"
    return (
        f'<div class="stills" data-views="{views}" data-modes="{len(modes)}" data-x="0" data-y="0">'
        f'<div class="modes" role="group" aria-label="Render mode">{buttons}</div>'
        f'<div class="view" tabindex="0" role="img" aria-label="Drag, or use the arrow keys, to turn it" '
        f"style=\"background-image:url('{kept(entry.id, STILLS)}');{size};background-position:0 0\"></div>"
        '<p class="muted" style="text-align:center">Drag, or use the arrow keys, to turn it</p></div>'
    )


def files(task_queue: TaskQueue, entry: Entry | None, viewed: str = "") -> str:
    """The exported files with their reports, newest first, and why the last one failed.

    `viewed` is the path that the 3D view shows.
    """
    if entry is None:
        return ""
    failure = problem(task_queue.export_problem(entry.id), "extract", entry.id)
    seen = viewed.replace("\\", "/").rpartition("/")[2]
    rows = "".join(_file(entry, export, seen) for export in reversed(entry.exports))
    if entry.exports and task_queue.history.file(entry.id, LIGHT) is not None and seen != LIGHT:
        rows += f'<div class="row">{button("View the light mesh", "view", f"{entry.id}/{LIGHT}")}</div>'
    return f'{failure}<div class="files">{rows}</div>' if failure or rows else ""


def _file(entry: Entry, export: Export, seen: str) -> str:
    report = "".join(f"<li>{text(line)}</li>" for line in describe_report(export.report, export.bytes))
    view = ""
    if export.file.endswith((".glb", ".stl")):
        view = (
            '<span class="tag">in the 3D view</span>'
            if export.file == seen
            else button("View in 3D", "view", f"{entry.id}/{export.file}")
        )
    return (
        f'<div class="card"><div class="file"><span class="name"><strong>{text(export.file)}</strong><br>'
        f'<span class="muted">{text(export.label)}, {size_text(export.bytes)}</span></span>{view}'
        f'<a class="download" download href="{kept(entry.id, export.file)}">Download</a></div>'
        f'<ul class="report">{report}</ul></div>'
    )


# --- history and matte --------------------------------------------------------------------------------------


def history(task_queue: TaskQueue, count: int) -> str:
    """The newest `count` entries as cards, and a button for older ones."""
    entries = task_queue.history.entries()
    if not entries:
        nothing = '<div class="empty"><strong>Nothing here yet</strong>What you generate is kept here.</div>'
        return _damaged(task_queue.history) + nothing
    used = size_text(task_queue.history.size())
    limit = f"{task_queue.settings.history_limit_gb:g} GB"
    cards = "".join(_card(task_queue, entry) for entry in entries[:count])
    older = len(entries) - count
    more = f'<div class="row">{button(f"Show older ones ({older})", "older")}</div>' if older > 0 else ""
    number = f"{len(entries)} asset{'' if len(entries) == 1 else 's'}"
    return (
        f'<p class="muted">{number}, {used} of {limit} on this computer. '
        f"The oldest go first when it is full.</p>{_damaged(task_queue.history)}"
        f'<div class="grid">{cards}</div>{more}'
    )


def _damaged(history: History) -> str:
    count = len(history.damaged)
    if not count:
        return ""
    words = "1 asset is damaged and not shown" if count == 1 else f"{count} assets are damaged and not shown"
    return f'<p class="hint warn" role="status">{words}. Their files are still in {text(history.root)}.</p>'


def _card(task_queue: TaskQueue, entry: Entry) -> str:
    picture, own = cover(task_queue, entry), kept(entry.id, THUMBNAIL)
    inset = "" if picture == own else f'<img class="inset" src="{own}" alt="" loading="lazy">'
    when = time.strftime("%d %b, %H:%M", time.localtime(entry.created))
    delete = button("Delete", "delete", entry.id, confirm=f"Delete {entry.title} and its files?")
    state = "" if entry.status == "finished" else f'<span class="tag {entry.status}">{entry.status}</span>'
    kind = str(entry.settings.get("pipeline_type") or "automatic").replace("_", " ")
    seed = entry.seed if entry.seed is not None else entry.settings.get("seed", "")
    return (
        f'<div class="item"><button type="button" class="cover" data-action="open" data-target="{entry.id}" '
        f'aria-label="Open {text(entry.title)}"><img src="{picture}" alt="" loading="lazy">{inset}'
        f'</button><div class="body">'
        f'<strong title="{text(entry.title)}">{text(entry.title)}</strong>'
        f'<span class="muted">{when} · {text(kind)} · seed {text(seed)}</span>{state}'
        f'<div class="row">{button("Open", "open", entry.id)}{delete}</div></div></div>'
    )


def matte(address: str, hint: str, warn: bool) -> str:
    """The cut-out subject on black, as the model sees it, and a word about it."""
    kind = "hint warn" if warn else "hint muted"
    words = f'<p class="{kind}" role="status">{text(hint)}</p>'
    if not address:
        return words
    return (
        f'<div class="cutout"><button type="button" class="matte" aria-label="Enlarge the cut-out" '
        f'aria-expanded="false"><img src="{address}" alt="The subject as the model will see it"></button>'
        f"{words}</div>"
    )


def verdict(title: str, words: str, good: bool) -> str:
    """What came of saving the settings."""
    kind = "good" if good else "bad"
    return f'<div class="card {kind}" role="status"><h3>{text(title)}</h3><p>{text(words)}</p></div>'


def key_placeholder(saved: bool) -> str:
    """What the empty key field says; the key itself never comes back to the page."""
    return "saved; type to replace it" if saved else "sk_..."
