"""What was made, as HTML: the 3D view, the turntable, the stills, their facts, and the exported files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..history import LIGHT, STILLS, THUMBNAIL, VIDEO, Entry, Export
from ..report import describe_costs, describe_report, judge_file
from ..results import EXTENSIONS
from ..stages import duration, size_text
from ..stats import AssetStats, Costs
from .error_messages import ACTION_LABELS
from .html import button, headline, kept, progress_bar, sentence, text
from .icons import EMPTY
from .inputs import ready_made
from .task_queue import Task, TaskQueue

MODE_TITLES = {
    "shaded": "Shaded",
    "normal": "Normal",
    "base_color": "Base colour",
    "metallic": "Metallic",
    "roughness": "Roughness",
    "clay": "Clay",
}
VIEWABLE = (".glb", ".stl")


def viewable(export: Export) -> bool:
    """Whether the 3D view opens a file: Draco needs a decoder that the app does not carry."""
    return export.file.endswith(VIEWABLE) and export.settings.get("compress") != "draco"


def viewed_file(task_queue: TaskQueue, entry: Entry | None, wanted: str) -> str:
    """The file that the 3D view shows: the one asked for, the chosen variant's newest export, or its light
    mesh; or none."""
    if entry is None:
        return ""
    seen, light = [export for export in reversed(entry.exports) if viewable(export)], entry.own(LIGHT)
    own = [export.file for export in seen if export.variant == entry.variant]
    order = [wanted] if wanted in (*(export.file for export in seen), light) else []
    return next((n for n in (*order, *own, light) if task_queue.history.file(entry.id, n)), "")


def model(task_queue: TaskQueue, entry: Entry | None, viewed: str) -> str:
    """The 3D view of an entry's file, or how far its light mesh is."""
    if entry is None or entry.status not in ("finished", "running"):
        return unfinished(entry)
    if not viewed:
        return unfinished(entry) if entry.status == "running" else _light_is_made(task_queue, entry)
    words = "low-detail preview" if viewed == entry.own(LIGHT) else viewed
    address = kept(entry.id, viewed)
    return f'<asset-viewer src="{address}" name="{text(entry.title)}, {text(words)}"></asset-viewer>'


def _light_is_made(task_queue: TaskQueue, entry: Entry) -> str:
    kinds = ("light", "generate")  # a generation that has ended may still fetch it
    found = [task for task in task_queue.tasks() if task.kind in kinds and task.entry.id == entry.id]
    picture = f'<img src="{kept(entry.id, THUMBNAIL)}" alt="">'
    if not found:
        again = button("Make the 3D preview", "light", entry.id, "main")
        return f'<div class="empty">{picture}<p>There is no 3D preview of this asset yet.</p>{again}</div>'
    task: Task = found[0]
    words = f"Preparing the 3D preview: {headline(task).lower()}"
    return f'<div class="empty making">{picture}<p>{text(words)}</p>{progress_bar(task, "3D preview")}</div>'


def turntable(task_queue: TaskQueue, entry: Entry | None) -> str:
    """The video of an entry, or what there is to say about it instead."""
    if entry is None or entry.status != "finished":
        return unfinished(entry)
    if task_queue.history.file(entry.id, entry.own(VIDEO)) is None:
        picture = kept(entry.id, THUMBNAIL)
        words = "This asset was made without a turntable. See the 3D model."
        return f'<div class="empty"><img src="{picture}" alt="">{words}</div>'
    return (
        f'<div class="result"><video src="{kept(entry.id, entry.own(VIDEO))}" controls loop autoplay muted '
        f'playsinline preload="metadata" aria-label="Turntable of {text(entry.title)}"></video></div>'
    )


def stills(task_queue: TaskQueue, entry: Entry | None) -> str:
    """Every side in every render mode: drag or use the arrow keys to turn."""
    if entry is None or entry.status != "finished":
        return unfinished(entry)
    layout = AssetStats.of(entry.stats).preview
    if layout is None or task_queue.history.file(entry.id, entry.own(STILLS)) is None:
        return '<div class="empty">This asset was made without pictures of its sides.</div>'
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
        f'<div class="view" tabindex="0" role="img" aria-label="{text(entry.title)} from {views} sides. '
        f"Arrow keys turn it.\" style=\"background-image:url('{kept(entry.id, entry.own(STILLS))}');{size};"
        'background-position:0 0"></div><p class="muted">Drag, or use the arrow keys, to turn it.</p></div>'
    )


def unfinished(entry: Entry | None) -> str:
    """What stands in place of an asset that is not there: a start, a picture at work, or what went wrong."""
    if entry is None:
        look = button("See a finished example", "ready-made") if ready_made.is_there() else ""
        return EMPTY.replace("</ol>", f"</ol>{look}")
    if entry.status == "cancelled":
        return (
            f'<div class="card"><h2>Cancelled</h2>'
            f"<p>{text(entry.title)} was stopped. The picture is kept.</p>"
            f'<div class="row">{button("Generate again", "retry", entry.id, "main")}</div></div>'
        )
    if entry.status == "failed":
        return problem(entry.problem, "retry", entry.id)
    picture = kept(entry.id, THUMBNAIL)
    return f'<div class="empty making"><img src="{picture}" alt=""><span>{text(entry.title)}</span></div>'


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
        f'<div class="card bad" role="alert"><h2>{text(found.get("title", ""))}</h2>'
        f'<p>{text(found.get("detail", ""))}</p><div class="row">{step}</div></div>'
    )


def facts(task_queue: TaskQueue, entry: Entry | None) -> str:
    """Seed, resolution, time and costs of a finished entry in one quiet line, and its warnings."""
    if entry is None or entry.status != "finished":
        return ""
    stats = AssetStats.of(entry.stats)
    kind = str(entry.settings.get("pipeline_type") or "").replace("_", " ")
    found = [
        text(entry.title),
        f"variant {entry.variant} of {len(entry.variants)}" if entry.variants else "",
        f"seed {entry.seed}",
        f"resolution {text(kind)}" if kind else "",
        f"{stats.voxels:,} voxels" if stats.voxels is not None else "",
        f"made in {duration(sum(stats.seconds.values()))}" if stats.seconds else "",
        text(describe_costs(Costs.of(entry.stats))),
    ]
    words, action = ("mesh", "reuse-mesh") if entry.mesh else ("picture", "reuse")
    again = button(f"Use this {words} again", action, entry.id)
    if entry.shape and task_queue.history.get(entry.shape) is not None:
        again += button("Show whose shape it has", "open", entry.shape)
    again += '<a class="plain only-phone" href="#inputs">New picture</a>'
    rows = "".join(f"<span>{fact}</span>" for fact in found if fact)
    said = "".join(f'<p class="hint warn" role="status">{text(warning)}</p>' for warning in warnings(entry))
    return f'<div class="facts muted">{rows}{again}</div>{said}'


def warnings(entry: Entry) -> list[str]:
    """What a person should know of a generation, as sentences."""
    return [sentence(word) for word in AssetStats.of(entry.stats).warnings]


def files(task_queue: TaskQueue, entry: Entry | None, viewed: str = "") -> str:
    """The exported files with their reports, newest first, and why the last one failed.

    `viewed` is the file that the 3D view shows.
    """
    if entry is None:
        return ""
    failure = problem(task_queue.export_problem(entry.id), "extract", entry.id)
    rows = "".join(_file(entry, export, viewed) for export in reversed(entry.exports))
    light = entry.own(LIGHT)
    if entry.exports and task_queue.history.file(entry.id, light) is not None and viewed != light:
        back = button("Show the low-detail preview", "view", f"{entry.id}/{light}")
        rows += f'<div class="row">{back}</div>'
    return f'{failure}<div class="files">{rows}</div>' if failure or rows else ""


def _file(entry: Entry, export: Export, viewed: str) -> str:
    kind = next((kind for kind, ending in EXTENSIONS.items() if export.file.endswith(ending)), "")
    verdict = judge_file(kind, export.report, export.settings)
    lines = describe_report(export.report, None, kind)
    report = "".join(f"<li>{text(line)}</li>" for line in lines)
    which = f", variant {export.variant}" if entry.variants else ""
    view = ""
    if viewable(export):
        view = (
            '<span class="tag">in the 3D view</span>'
            if export.file == viewed
            else button("View in 3D", "view", f"{entry.id}/{export.file}")
        )
    return (
        f'<div class="card"><div class="file"><span class="name"><strong>{text(export.file)}</strong><br>'
        f'<span class="muted">{text(export.label)}{which}, {size_text(export.bytes)}</span></span>{view}'
        f'<a class="download" download href="{kept(entry.id, export.file)}">Download</a></div>'
        f'<p class="verdict {"good" if verdict.good else "warn"}">{text(verdict.words)}</p>'
        f'<details><summary>Mesh report</summary><ul class="report">{report}</ul></details></div>'
    )
