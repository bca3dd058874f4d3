"""The pictures of the next generation: one, several that become a queue, or several views of one object.

What a tab has chosen is a `Chosen` in its `gr.State`; this module changes it and shows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import html as views
from ..icons import PICTURE_SIGN
from .received import PictureTray, address

SIDES = ("left", "back", "right")
"""The directions of further views: the picture itself shows the front."""

DIRECTIONS = ("front", *SIDES)
TITLES = {"front": "Front", "left": "Its left", "back": "Its back", "right": "Its right"}
SIDE_WORDS = {"rear": "back"}
PICTURE_TYPES = "image/*,.heic,.heif,.avif"

RECEIVES = """
element.addEventListener('received', (event) => {
  trigger('click', { action: 'received', target: event.detail });
});
element.addEventListener('change', (event) => {
  const list = event.target.closest('select[data-action]');
  if (!list) return;
  trigger('click', { action: list.dataset.action, target: `${list.dataset.target} ${list.value}` });
});
"""
"""For the HTML components that take pictures, beside `DELEGATE`: files that were sent, and lists."""

ARRIVES = """
if (window.droppedMesh) {
  trigger('click', { action: 'received', target: window.droppedMesh });
  window.droppedMesh = null;
}
"""
"""For the pane of the mesh: one that was dropped before there was such a pane."""


@dataclass(frozen=True)
class Chosen:
    """Paths of pictures: by direction, or a `queue` of several of which each becomes an asset.

    `said` are sentences about what was just received. A queue's first picture is also the front. `cut` is the
    front's cut-out where that was corrected: a picture with transparency.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    queue: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    cut: str = ""

    @classmethod
    def of(cls, sides: Mapping[str, str], said: Sequence[str] = ()) -> Chosen:
        """Pictures by the side that they show."""
        return cls(tuple(sides.items()), (), tuple(said))

    @classmethod
    def row(cls, paths: Sequence[str], said: Sequence[str] = ()) -> Chosen:
        """Several pictures of which each becomes an asset."""
        return cls((("front", paths[0]),), tuple(paths), tuple(said))

    @property
    def sides(self) -> dict[str, str]:
        return dict(self.pairs)

    @property
    def front(self) -> str | None:
        return self.sides.get("front")

    @property
    def used(self) -> str | None:
        """The front as it is generated from."""
        return self.cut or self.front

    @property
    def others(self) -> dict[str, Path]:
        """The pictures of the other sides; none beside a queue."""
        return {} if self.queue else {k: Path(v) for k, v in self.pairs if k != "front"}


NOTHING = Chosen()


class Intake:
    """What happens to a tab's `Chosen` when a person drops, removes or arranges pictures."""

    def __init__(self, tray: PictureTray) -> None:
        self.tray = tray

    def take(self, chosen: Chosen, action: str, target: str) -> Chosen:
        """The choice after a press in one of the picture panes."""
        if action == "received":
            return self._received(chosen, json.loads(target))
        if action == "as-views":
            return as_views(chosen)
        if action == "remove-picture":
            return removed(chosen, target)
        if action == "move-picture":
            here, _, there = target.partition(" ")
            return swapped(chosen, here, there)
        return chosen

    def _received(self, chosen: Chosen, found: Mapping[str, Any]) -> Chosen:
        """Pictures that arrived for a side; several for the front become a queue."""
        paths = [str(path) for token in found.get("tokens", []) if (path := self.tray.path(str(token)))]
        said = tuple(str(words) for words in found.get("said", []))
        slot = str(found.get("slot", "front"))
        if not paths:
            return replace(chosen, said=said)
        if slot == "front" and len(paths) > 1:
            return Chosen.row(paths, said)
        if slot not in DIRECTIONS:
            return chosen
        free = [slot, *(side for side in SIDES if side != slot and side not in chosen.sides)]
        sides = chosen.sides | dict(zip(free, paths, strict=False))
        return replace(Chosen.of(sides, said), cut="" if slot == "front" else chosen.cut)


def single(path: str) -> Chosen:
    """One picture, of the front."""
    return Chosen.of({"front": path})


def as_views(chosen: Chosen) -> Chosen:
    """A queue's pictures as views of one object: by what their names say, else in order."""
    left = list(chosen.queue)
    sides: dict[str, str] = {}
    for path in chosen.queue:
        words = re.findall(r"[a-z]+", Path(path).stem.lower())
        named = next((SIDE_WORDS.get(w, w) for w in words if SIDE_WORDS.get(w, w) in DIRECTIONS), None)
        if named and named not in sides:
            sides[named] = path
            left.remove(path)
    free = [side for side in ("front", "back", "left", "right") if side not in sides]
    sides |= dict(zip(free, left, strict=False))
    more = len(left) - len(free)
    said = (f"Four views are used: front, left, back and right. {more} more left out.",) if more > 0 else ()
    return Chosen.of(sides, said)


def removed(chosen: Chosen, target: str) -> Chosen:
    """Without the picture of a side, or without one of the queue (by its number)."""
    if target.isdecimal():
        queue = chosen.queue[: int(target)] + chosen.queue[int(target) + 1 :]
        return Chosen.row(queue) if len(queue) > 1 else single(queue[0]) if queue else NOTHING
    if target == "all":
        return NOTHING
    left = Chosen.of({side: path for side, path in chosen.pairs if side != target})
    return replace(left, cut="" if target == "front" else chosen.cut)


def swapped(chosen: Chosen, here: str, there: str) -> Chosen:
    """With the pictures of two sides exchanged."""
    other = {here: there, there: here}
    moved = Chosen.of({other.get(side, side): path for side, path in chosen.pairs})
    return replace(moved, cut="" if "front" in other else chosen.cut)


CORRECTS = """
element.addEventListener('corrected', (event) => {
  trigger('click', { action: 'cutout', target: event.detail });
});
"""
"""For the HTML component of the cut-out, beside `DELEGATE`: what was settled on in the panel."""


# --- what the page shows ------------------------------------------------------------------------------------


def picture_pane(chosen: Chosen) -> str:
    """The place of the picture, or of the pictures that wait in a row."""
    if chosen.queue:
        inner = _queue(chosen)
    elif chosen.front:
        inner = _picked(chosen.front)
    else:
        inner = _empty("front")
    said = "".join(f'<p class="hint warn" role="alert">{views.text(words)}</p>' for words in chosen.said)
    return f'<div class="slot main" data-slot="front">{inner}</div>{said}'


def sides_pane(chosen: Chosen) -> str:
    """The places of the other sides' pictures."""
    cells = "".join(_side(side, None if chosen.queue else chosen.sides.get(side)) for side in SIDES)
    return f'<div class="sides">{cells}</div>'


def _input(label: str, multiple: bool = True) -> str:
    several = " multiple" if multiple else ""
    return f'<input type="file" accept="{PICTURE_TYPES}"{several} aria-label="{views.text(label)}">'


def _empty(slot: str) -> str:
    if slot != "front":
        return f'<label class="drop">{_input(TITLES[slot], False)}<span>{TITLES[slot]}</span></label>'
    return (
        f'<label class="drop">{_input("Picture of one object")}{PICTURE_SIGN}'
        "<strong>Drop or paste a picture of one object</strong>"
        '<span class="muted">or click to choose a file; several become a queue or views</span></label>'
        '<button type="button" class="plain camera" data-camera>Take a photo</button>'
    )


def _picked(picture: str) -> str:
    name = views.text(Path(picture).name)
    remove = views.button("Remove", "remove-picture", "front")
    return (
        f'<img class="picked" src="{address(picture)}" alt="{name}">'
        f'<div class="under"><span class="name" title="{name}">{name}</span>'
        f'<label class="plain">{_input("Choose another picture")}Replace</label>{remove}</div>'
    )


def _queue(chosen: Chosen) -> str:
    cells = "".join(
        f'<li><img src="{address(path)}" alt="{views.text(Path(path).name)}">'
        f'<button type="button" class="round" data-action="remove-picture" data-target="{number}" '
        f'aria-label="Remove {views.text(Path(path).name)}">×</button></li>'
        for number, path in enumerate(chosen.queue)
    )
    count = len(chosen.queue)
    views_button = views.button("They are views of one object", "as-views")
    return (
        f'<ul class="pile" aria-label="Pictures">{cells}</ul>'
        f"<p><strong>{count} pictures: {count} assets, one after the other.</strong></p>"
        f'<div class="under">{views_button}'
        f'<label class="plain">{_input("Choose other pictures")}Replace</label>'
        f"{views.button('Remove all', 'remove-picture', 'all')}</div>"
    )


def _side(side: str, path: str | None) -> str:
    if path is None:
        return f'<div class="slot" data-slot="{side}">{_empty(side)}</div>'
    options = "".join(
        f'<option value="{other}"{" selected" if other == side else ""}>{TITLES[other]}</option>'
        for other in DIRECTIONS
    )
    return (
        f'<div class="slot" data-slot="{side}"><img class="picked" src="{address(path)}" '
        f'alt="{TITLES[side]}"><div class="under"><select data-action="move-picture" data-target="{side}" '
        f'aria-label="This picture shows">{options}</select>'
        f"{views.button('Remove', 'remove-picture', side)}</div></div>"
    )
