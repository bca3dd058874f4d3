"""The mesh that is to get new textures, and the pictures that show them.

What a tab has chosen is a `Given` in its `gr.State`; this module changes it and shows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ....protocol.meshes import MESH_KINDS
from ....protocol.views import MAX_VIEWS
from ...stages import size_text
from .. import html as views
from ..icons import MESH_SIGN, PICTURE_SIGN
from .intake import PICTURE_TYPES
from .received import PictureTray, address

MESH_SLOT, LOOK_SLOT = "mesh", "look"
ENDINGS = tuple(f".{kind}" for kind in MESH_KINDS)
SEEN = (".glb", ".stl")
"""What the 3D view opens."""


@dataclass(frozen=True)
class Given:
    """Paths of a mesh and of pictures of one object, and sentences about what was just received."""

    mesh: str = ""
    pictures: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


EMPTY = Given()


def taken(tray: PictureTray, given: Given, action: str, target: str) -> Given:
    """The choice after a drop or a press in one of the two panes."""
    if action == "received":
        return _received(tray, given, json.loads(target))
    if action == "remove-mesh":
        return replace(given, mesh="", said=())
    if action == "remove-look":
        number = int(target) if target.isdecimal() else None
        left = () if number is None else given.pictures[:number] + given.pictures[number + 1 :]
        return replace(given, pictures=left, said=())
    return given


def _received(tray: PictureTray, given: Given, found: Mapping[str, Any]) -> Given:
    paths = [str(path) for token in found.get("tokens", []) if (path := tray.path(str(token)))]
    said = [str(words) for words in found.get("said", [])]
    meshes = [path for path in paths if path.endswith(ENDINGS)]
    pictures = [*given.pictures, *(path for path in paths if path not in meshes)]
    if len(meshes) > 1:
        said.append(f"One mesh is textured at a time: “{Path(meshes[0]).name}” is used.")
    if len(pictures) > MAX_VIEWS:
        said.append(f"At most {MAX_VIEWS} pictures are used; the rest were left out.")
    return Given(meshes[0] if meshes else given.mesh, tuple(pictures[:MAX_VIEWS]), tuple(said))


# --- what the page shows ------------------------------------------------------------------------------------


def mesh_pane(given: Given) -> str:
    """The place of the mesh."""
    inner = _picked(Path(given.mesh)) if given.mesh else _no_mesh()
    return f'<div class="slot mesh" data-slot="{MESH_SLOT}">{inner}</div>'


def _input(label: str, types: str, several: bool) -> str:
    more = " multiple" if several else ""
    return f'<input type="file" accept="{types}"{more} aria-label="{views.text(label)}">'


def _no_mesh() -> str:
    return (
        f'<label class="drop">{_input("Mesh", ",".join(ENDINGS), False)}{MESH_SIGN}'
        "<strong>Drop a mesh</strong>"
        '<span class="muted">or click to choose: GLB, OBJ, PLY or STL, up to 100 MB</span></label>'
    )


def _picked(mesh: Path) -> str:
    name = views.text(mesh.name)
    seen = ""
    if mesh.suffix in SEEN:
        seen = f'<asset-viewer src="{address(mesh)}?as={mesh.suffix}" name="{name}"></asset-viewer>'
    size = size_text(mesh.stat().st_size) if mesh.is_file() else ""
    replaced = _input("Choose another mesh", ",".join(ENDINGS), False)
    return (
        f'{seen}<div class="under"><span class="name" title="{name}">{name}, {size}</span>'
        f'<label class="plain">{replaced}Replace</label>{views.button("Remove", "remove-mesh")}</div>'
    )


def pictures_pane(given: Given) -> str:
    """The place of the pictures that show how the mesh should look, and what was said of the last files."""
    inner = _pictures(given.pictures) if given.pictures else _no_picture()
    said = "".join(f'<p class="hint warn" role="alert">{views.text(words)}</p>' for words in given.said)
    return f'<div class="slot look" data-slot="{LOOK_SLOT}">{inner}</div>{said}'


def _no_picture() -> str:
    return (
        f'<label class="drop">{_input("Picture of how it should look", PICTURE_TYPES, True)}{PICTURE_SIGN}'
        "<strong>Drop or paste a picture of how it should look</strong>"
        '<span class="muted">or click to choose; several are views of one object</span></label>'
    )


def _pictures(pictures: Sequence[str]) -> str:
    cells = "".join(
        f'<li><img src="{address(path)}" alt="{views.text(Path(path).name)}">'
        f'<button type="button" class="round" data-action="remove-look" data-target="{number}" '
        f'aria-label="Remove {views.text(Path(path).name)}">×</button></li>'
        for number, path in enumerate(pictures)
    )
    more = ""
    if len(pictures) < MAX_VIEWS:
        more = f'<label class="plain">{_input("Add another view", PICTURE_TYPES, True)}Add a view</label>'
    return (
        f'<ul class="pile" aria-label="Pictures of how it should look">{cells}</ul>'
        f'<div class="under">{more}{views.button("Remove all", "remove-look", "all")}</div>'
    )
