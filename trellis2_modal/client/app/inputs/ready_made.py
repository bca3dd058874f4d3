"""A finished asset that comes with the repository, to look at before anything is generated."""

from __future__ import annotations

import json

from ...history import Entry, History
from ...inputs.pictures import EXAMPLES
from ...results import GenerateResult

FOLDER = EXAMPLES.parent / "ready_made"
TITLE = "ready-made {}"


def is_there() -> bool:
    """Whether the asset is: a wheel comes without it."""
    return (FOLDER / "asset.json").is_file()


def opened(history: History) -> Entry:
    """The asset in the history, put there unless it is. Raises OSError.

    It comes without its state, which is larger than the rest: to export it, generate it from its picture.
    """
    facts = json.loads((FOLDER / "asset.json").read_text("utf-8"))
    title = TITLE.format(facts["picture"])
    found = next((entry for entry in history.entries() if entry.title == title), None)
    if found is not None:
        return found
    files = {name: (FOLDER / name).read_bytes() for name in ("turntable.mp4", "stills.webp", "light.glb")}
    result = GenerateResult(
        "",
        facts["seed"],
        facts["resolution"],
        b"",
        video=files["turntable.mp4"],
        preview=files["stills.webp"],
        settings=facts["settings"],
        stats=facts["stats"],
    )
    entry = history.join((EXAMPLES / facts["picture"]).read_bytes(), title, result)
    history.keep_light(entry.id, files["light.glb"])
    return entry
