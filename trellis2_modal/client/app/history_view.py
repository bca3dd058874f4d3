"""History as HTML: searched, sorted, selected; two assets side by side; the address of what is shown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from ..history import THUMBNAIL, VIDEO, Entry, History
from ..stages import duration, size_text
from ..stats import AssetStats
from . import result
from .html import button, cover, kept, text
from .task_queue import TaskQueue

PAGE = 60
"""Entries that History shows at first, and more at each press of its button."""

ORDERS = {"newest": "Newest first", "oldest": "Oldest first", "name": "By name", "size": "Largest first"}
NOTHING = '<div class="empty"><strong>Nothing here yet</strong>What you generate is kept here.</div>'
COMPARED = 2


@dataclass(frozen=True)
class HistoryView:
    """What a tab has set for its History: which entries, in which order, how many; and two to compare."""

    search: str = ""
    order: str = "newest"
    favourites: bool = False
    count: int = PAGE
    compared: tuple[str, ...] = ()


def chosen(task_queue: TaskQueue, view: HistoryView) -> list[Entry]:
    """The entries that a view shows, in its order: every word of the search is in what is known of them."""
    words = view.search.lower().split()
    found = [
        entry
        for entry in task_queue.history.entries()
        if (entry.favourite or not view.favourites) and all(word in _searched(entry) for word in words)
    ]
    if view.order == "oldest":
        found.reverse()
    elif view.order == "name":
        found.sort(key=lambda entry: entry.title.lower())
    elif view.order == "size":
        sizes = task_queue.history.sizes()
        found.sort(key=lambda entry: -sizes.get(entry.id, 0))
    return found


def _searched(entry: Entry) -> str:
    kind = str(entry.settings.get("pipeline_type", ""))
    exports = [f"{export.file} {export.label}" for export in entry.exports]
    day = time.strftime("%Y-%m-%d %d %b %B", time.localtime(entry.created))
    return " ".join([entry.title, entry.status, kind, f"seed {entry.seed}", day, *exports]).lower()


def history(task_queue: TaskQueue, view: HistoryView) -> str:
    """The first entries of a view as cards, what can be done with those selected, and a button for more."""
    everything = task_queue.history.entries()
    if not everything:
        return _damaged(task_queue.history) + NOTHING
    entries = chosen(task_queue, view)
    sizes = task_queue.history.sizes()
    used, limit = size_text(sum(sizes.values())), f"{task_queue.settings.history_limit_gb:g} GB"
    number = f"{len(everything)} asset{'' if len(everything) == 1 else 's'}"
    if len(entries) != len(everything):
        number = f"{len(entries)} of {number}"
    cards = "".join(_card(task_queue, entry, sizes.get(entry.id, 0)) for entry in entries[: view.count])
    if not entries:
        cards = '<p class="muted">No asset fits. Search for other words, or show all.</p>'
    more = len(entries) - view.count
    older = f'<div class="row">{button(f"Show more ({more})", "older")}</div>' if more > 0 else ""
    return (
        f'<p class="muted">{number}, {used} of {limit} on this computer. '
        f"When it is full the oldest are removed, favourites never.</p>{_damaged(task_queue.history)}"
        f'{_selection()}<div class="grid">{cards}</div>{older}'
    )


def _selection() -> str:
    """What can be done with the selected entries; the script of the page fills in which those are."""
    return (
        '<div class="selection" role="group" aria-label="Selected assets">'
        '<label><input type="checkbox" data-all> Select all</label><span class="muted" data-count></span>'
        '<button type="button" class="plain" data-action="compare" data-selected="2" disabled>Compare two'
        '</button><a class="plain" data-download href="/history.zip" download>Download</a>'
        '<button type="button" class="plain" data-action="delete" data-selected="1" disabled '
        'data-confirm="Delete the selected assets and their files?">Delete</button></div>'
    )


def _damaged(history: History) -> str:
    count = len(history.damaged)
    if not count:
        return ""
    words = "1 asset is damaged and not shown" if count == 1 else f"{count} assets are damaged and not shown"
    return f'<p class="hint warn" role="status">{words}. Their files are still in {text(history.root)}.</p>'


def _card(task_queue: TaskQueue, entry: Entry, size: int) -> str:
    picture, own, title = cover(task_queue, entry), kept(entry.id, THUMBNAIL), text(entry.title)
    inset = "" if picture == own else f'<img class="inset" src="{own}" alt="" loading="lazy">'
    when = time.strftime("%d %b, %H:%M", time.localtime(entry.created))
    delete = button("Delete", "delete", entry.id, confirm=f"Delete {entry.title} and its files?")
    state = "" if entry.status == "finished" else f'<span class="tag {entry.status}">{entry.status}</span>'
    seed = text(entry.seed if entry.seed is not None else entry.settings.get("seed", ""))
    seed += f" · {len(entry.variants)} variants" if entry.variants else ""
    star = str(entry.favourite).lower()
    return (
        f'<div class="item" data-entry="{entry.id}">'
        f'<label class="pick"><input type="checkbox" aria-label="Select {title}"></label>'
        f'<button type="button" class="star" data-action="favourite" data-target="{entry.id}" '
        f'aria-pressed="{star}" aria-label="Favourite: {title}">{"★" if entry.favourite else "☆"}</button>'
        f'<button type="button" class="cover" data-action="open" data-target="{entry.id}" '
        f'aria-label="Open {title}"><img src="{picture}" alt="" loading="lazy">{inset}</button>'
        f'<div class="body"><div class="title"><strong title="{title}">{title}</strong>'
        f'<button type="button" class="rename" data-rename="{entry.id}" '
        f'aria-label="Rename {title}">✎</button>'
        f'<button type="button" hidden data-action="rename"></button></div>'
        f'<span class="muted">{when} · seed {seed} · {size_text(size)}</span>{state}'
        f'<div class="row">{button("Open", "open", entry.id)}{delete}</div></div></div>'
    )


# --- two side by side ---------------------------------------------------------------------------------------


def comparison(task_queue: TaskQueue, view: HistoryView) -> str:
    """Two assets beside each other, with what is different marked; empty when none are compared."""
    entries = [entry for name in view.compared if (entry := task_queue.history.get(name)) is not None]
    if len(entries) != COMPARED:
        return ""
    facts = [_compared_facts(task_queue, entry) for entry in entries]
    rows = "".join(
        f'<tr{"" if one == two else " class=differs"}><th scope="row">{text(name)}</th>'
        f"<td>{text(one)}</td><td>{text(two)}</td></tr>"
        for (name, one), (_, two) in zip(*(found.items() for found in facts), strict=True)
    )
    cells = "".join(f"<td>{_sight(task_queue, entry)}</td>" for entry in entries)
    return (
        f'<div class="card comparison"><div class="top"><h2>Side by side</h2>'
        f"{button('Close', 'compare')}</div>"
        f'<table><tr class="sights"><th></th>{cells}</tr>{rows}</table></div>'
    )


def _sight(task_queue: TaskQueue, entry: Entry) -> str:
    """The turntable: two of them turn alike and need no graphics card. Else the 3D view, else a picture."""
    opener, name = button("Open", "open", entry.id), text(entry.title)
    if task_queue.history.file(entry.id, entry.own(VIDEO)) is not None:
        address = kept(entry.id, entry.own(VIDEO))
        return f'<video src="{address}" loop autoplay muted playsinline aria-label="{name}"></video>{opener}'
    if viewed := result.viewed_file(task_queue, entry, ""):
        return f'<asset-viewer src="{kept(entry.id, viewed)}" name="{name}"></asset-viewer>{opener}'
    return f'<img src="{cover(task_queue, entry)}" alt="">{opener}'


def _compared_facts(task_queue: TaskQueue, entry: Entry) -> dict[str, str]:
    stats = AssetStats.of(entry.stats)
    steps = [str(entry.settings[name]) for name in STEPS if name in entry.settings]
    return {
        "Name": entry.title,
        "Made": time.strftime("%d %b %Y, %H:%M", time.localtime(entry.created)),
        "Seed": str(entry.seed if entry.seed is not None else "-"),
        "Quality": str(entry.settings.get("pipeline_type") or "automatic").replace("_", " "),
        "Steps": " / ".join(steps) or "automatic",
        "Grid": f"{entry.resolution}³" if entry.resolution else "-",
        "Voxels": f"{stats.voxels:,}" if stats.voxels is not None else "-",
        "Time": duration(sum(stats.seconds.values())) if stats.seconds else "-",
        "Exported": ", ".join(export.file for export in entry.exports) or "-",
        "On disk": size_text(task_queue.history.sizes().get(entry.id, 0)),
    }


STEPS = ("ss_sampling_steps", "shape_slat_sampling_steps", "tex_slat_sampling_steps")


# --- the address of what is shown ---------------------------------------------------------------------------


def address_of(shown: str, view: HistoryView) -> str:
    """The query of the page's address: an asset, or two that are compared."""
    if len(view.compared) == COMPARED:
        return urlencode({"compare": " ".join(view.compared)})
    return urlencode({"asset": shown.partition("/")[0]}) if shown else ""


def read_address(query: str) -> tuple[str, tuple[str, ...], str]:
    """The asset, the compared assets and the tab that a query of the page's address names."""
    found = {name: values[-1] for name, values in parse_qs(query.removeprefix("?")).items()}
    compared = tuple(found.get("compare", "").split())
    tab = "history" if compared else found.get("tab", "create")
    return found.get("asset", ""), compared if len(compared) == COMPARED else (), tab


# --- files in one archive -----------------------------------------------------------------------------------


def archived(history: History, ids: Sequence[str]) -> list[tuple[str, Path]]:
    """Names in an archive and the files of some entries, or of all: what was exported, pictures, previews."""
    wanted = [
        entry for entry in history.entries() if entry.status == "finished" and (not ids or entry.id in ids)
    ]
    found: list[tuple[str, Path]] = []
    for entry in wanted:
        stem = (
            "".join(c if c.isalnum() or c in " .-_" else "-" for c in Path(entry.title).stem).strip()
            or "asset"
        )
        names = {export.file: export.file for export in entry.exports} | history.shareable(entry)
        for name, file in names.items():
            path = history.file(entry.id, file)
            if path is not None:
                found.append((f"{stem} {entry.id[-4:]}/{name}", path))
    return found
