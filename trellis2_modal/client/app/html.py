"""What the app shows, as HTML made from the task queue: header, progress, matte, history (see `result`)."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ...protocol.replies import DEMO_MODEL, Estimate
from ...protocol.stages import EXPORT_STAGES, stage_title
from ..history import COVER, THUMBNAIL, Entry, numbered
from ..report import money
from ..stages import JobProgress, duration, phases_of
from .icons import LIGHT_OR_DARK, LOGO
from .task_queue import ServiceState, Task, TaskQueue

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
    place = "This computer" if service.local else service.url.partition("://")[2] or service.url
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


def progress(task_queue: TaskQueue, entry: Entry | None) -> str:
    """The work for the entry that the tab shows, else what runs; then the rest of the queue, as rows.

    Empty when nothing is to be done.
    """
    tasks = [task for task in task_queue.tasks() if task.kind != "light"]
    if not tasks:
        return ""
    own = next((task for task in tasks if entry is not None and task.entry.id == entry.id), tasks[0])
    ahead = tasks.index(own)
    rows = "".join(_row(task, task is tasks[0]) for task in tasks if task is not own)
    queue = f'<ul class="queue" aria-label="Other jobs">{rows}</ul>' if rows else ""
    return f'<div class="card progress">{_running(own, task_queue.service, ahead)}{queue}</div>'


def _running(task: Task, service: ServiceState, ahead: int) -> str:
    progress = task.progress
    left = progress.left()
    numbers = duration(progress.elapsed) + (f", about {duration(coarse(left))} left" if left else "")
    label = "Cancelling" if task.cancelled.is_set() else "Remove" if ahead else "Cancel"
    words = f"Waiting: {ahead} job{'s' if ahead > 1 else ''} ahead in this app" if ahead else headline(task)
    phases = "".join(f'<li class="{state}">{text(name)}</li>' for name, state in phases_of(progress))
    strip = f'<ol class="phases" aria-hidden="true">{phases}</ol>' if phases else ""
    return (
        f'<div class="top"><h2>{text(words)}</h2><span class="muted numbers">{numbers}</span></div>'
        f"{progress_bar(task, task.entry.title)}{strip}"
        f'<div class="row"><span class="muted" style="flex:1">{text(detail(task, service))}</span>'
        f"{button(label, 'cancel', task.id)}</div>"
    )


def progress_bar(task: Task, label: str) -> str:
    """How far a task is; a bar that moves to and fro while that is not known."""
    unsure = "" if task.progress.stage else " unsure"
    percent = round(100 * task.progress.overall(), 1)
    return (
        f'<div class="bar{unsure}" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent:.0f}" aria-label="{text(label)}"><i style="width:{percent}%"></i></div>'
    )


def headline(task: Task) -> str:
    """What happens now, in a few words."""
    if task.cancelled.is_set():
        return "Cancelling at the next step"
    if task.status_text:
        return task.status_text
    progress = task.progress
    if progress.state == "queued":
        ahead = progress.position
        return f"Waiting: {ahead} ahead on the service" if ahead else "Waiting for the service"
    if progress.state == "finished":
        return "Fetching the result"
    return stage_title(progress.stage) if progress.stage else "Starting"


def detail(task: Task, service: ServiceState) -> str:
    """The line under the bar: which picture, which step, and a warning before a long wait."""
    progress: JobProgress = task.progress
    parts = [task.entry.title if task.makes_entry else f"{task.entry.title}, {task.label}"]
    if progress.stage and progress.steps > 1 and progress.stage not in EXPORT_STAGES:
        parts.append(f"step {progress.step} of {progress.steps}")
    if (
        not progress.stage
        and not service.local
        and progress.elapsed > COLD_START_AFTER
        and not progress.position
    ):
        parts.append("the service wakes a GPU; the first start after a pause can take a few minutes")
    if progress.message and not progress.stage:
        parts.append(progress.message)
    if task.note:
        parts.append(task.note)
    return " · ".join(parts)


def _row(task: Task, runs: bool) -> str:
    picture = kept(task.entry.id, THUMBNAIL)
    words = task.entry.title if task.makes_entry else f"{task.entry.title}, {task.label}"
    words += f": {100 * task.progress.overall():.0f} %" if runs else ""
    end = button("Cancel" if runs else "Remove", "cancel", task.id)
    return f'<li><img src="{picture}" alt=""><span>{text(words)}</span>{end}</li>'


# --- beside the picture, and above the result -------------------------------------------------------------


def model_note(service: ServiceState) -> str:
    """What to expect of the small bundled weights; nothing for others."""
    if service.health is None or service.health.model != DEMO_MODEL:
        return ""
    return (
        '<p class="muted"><strong>Small demo model:</strong> simple toy-like objects only. '
        "For real photos connect a GPU service.</p>" + button("Connect a GPU service", "settings")
    )


def estimate_note(task_queue: TaskQueue, settings: Mapping[str, Any]) -> str:
    """What a generation with these settings will take, and cost where that is known."""
    words, count = short_estimate(task_queue.forecast("generate", settings)), settings.get("num_samples", 1)
    several = f" for {count} variants" if count > 1 else ""
    return f'<p class="muted">Takes {text(words)}{several}.</p>' if words else ""


def texture_note(task_queue: TaskQueue) -> str:
    """What new textures keep, and what they will take; or that the loaded weights cannot make them."""
    health = task_queue.service.health
    if health is not None and health.status == "ok" and not health.texture_types:
        words = (
            "The loaded weights cannot texture meshes: their texturing pipeline or its encoder is missing."
        )
        return f'<p class="hint warn" role="status">{words}</p>'
    words = "Positions and UVs stay as they are; a mesh without UVs is unwrapped."
    takes = short_estimate(task_queue.forecast("texture", {}))
    return f'<p class="muted">{words}{f" Takes {text(takes)}." if takes else ""}</p>'


def short_estimate(found: Estimate) -> str:
    """About how long, and the price where there is one; empty where nothing is known."""
    if found.seconds is None:
        return ""
    price = f", {money(found.price, found.currency)}" if found.price else ""
    return f"about {duration(coarse(found.seconds))}{price}"


def coarse(seconds: float) -> float:
    """Seconds as exact as a forecast can be: two digits' worth."""
    for least, step in ((600, 60), (120, 30), (60, 10), (20, 5)):
        if seconds >= least:
            return round(seconds / step) * step
    return max(1, round(seconds))


def view_note(service: ServiceState) -> str:
    """What the loaded weights make of several views."""
    health = service.health
    if health is None or health.status != "ok":
        return ""
    seen = health.views
    if not seen.cameras:
        words = "The loaded model learnt from one view: what it makes of more is an approximation."
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
    made = task_queue.history.file(entry.id, entry.own(COVER)) is not None
    return kept(entry.id, entry.own(COVER) if made else THUMBNAIL)


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


def variants(task_queue: TaskQueue, entry: Entry | None) -> str:
    """An entry's variants side by side, to choose one of; empty where there are none."""
    if entry is None or entry.status != "finished" or not entry.variants:
        return ""
    cells = []
    for number, seed in enumerate(entry.variants, 1):
        name = numbered(COVER, number)
        made = task_queue.history.file(entry.id, name) is not None
        chosen = " checked" if number == entry.variant else ""
        cells.append(
            f'<label class="variant"><input type="radio" name="variant"{chosen} data-action="variant" '
            f'data-target="{entry.id} {number}" aria-label="Variant {number}, seed {seed}">'
            f'<img src="{kept(entry.id, name if made else THUMBNAIL)}" alt=""><span>{number}</span></label>'
        )
    name = f"Variants of {text(entry.title)}"
    return f'<div class="variants" role="radiogroup" aria-label="{name}">{"".join(cells)}</div>'


def sentence(words: str) -> str:
    """A notice as a sentence of its own."""
    return f"{words[:1].upper()}{words[1:]}."


# --- the matte, and settings -----------------------------------------------------------------------------


def matte(address: str, hint: str, warn: bool, token: str = "", corrected: bool = False) -> str:
    """The cut-out subject on black, as the model sees it, and a word about it.

    `token` is that of the received picture, where the cut-out can be corrected.
    """
    kind = "hint warn" if warn else "hint muted"
    doubt = "<strong>Doubtful cut.</strong> " if warn and address else ""
    words = f'<p class="{kind}" role="status">{doubt}{text(hint)}</p>'
    if not address:
        return words
    return (
        f'<div class="cutout"><button type="button" class="matte" aria-label="Enlarge the cut-out" '
        f'aria-expanded="false"><img src="{address}" alt="The subject as the model will see it"></button>'
        f'<div class="words">{words}{_correction(token, corrected)}</div></div>'
    )


def _correction(token: str, corrected: bool) -> str:
    if not token:
        return ""
    undo = button("Undo the correction", "cutout") if corrected else ""
    return (
        f'<div class="row"><button type="button" class="plain" data-cutout="{text(token)}" '
        f'aria-haspopup="dialog">Correct the cut-out</button>{undo}</div>'
    )


def address(query: str) -> str:
    """For the page's script: the query of the address of what is shown."""
    return f'<i hidden data-address="{text(query)}"></i>'


def verdict(title: str, words: str, good: bool) -> str:
    """What came of saving the settings."""
    kind = "good" if good else "bad"
    return f'<div class="card {kind}" role="status"><h2>{text(title)}</h2><p>{text(words)}</p></div>'


def key_placeholder(saved: bool) -> str:
    """What the empty key field says; the key itself never comes back to the page."""
    return "saved; type to replace it" if saved else "sk_..."
