"""A history of the app in which some entries are damaged, each in another way."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trellis2_modal.client.history import ENTRY, ENTRY_ID, PICTURE, STATE, THUMBNAIL


def _changed(**changes: Any) -> Callable[[Path], None]:
    def change(entry: Path) -> None:
        entry.write_text(json.dumps(json.loads(entry.read_text()) | changes))

    return change


def _written(data: bytes) -> Callable[[Path], None]:
    def write(entry: Path) -> None:
        entry.write_bytes(data)

    return write


def _half(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])


def _folder(entry: Path) -> None:
    entry.unlink()
    entry.mkdir()


def _pipe(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry)


def _link(entry: Path) -> None:
    entry.unlink()
    entry.symlink_to("/dev/zero")


DAMAGES: list[Callable[[Path], None]] = [
    Path.unlink,
    _half,
    _folder,
    _pipe,
    _link,
    _written(b""),
    _written(os.urandom(1 << 16)),
    _written(b"\0" * 4096),
    _written(b"[" * 100_000),
    _written(b" " * (5 << 20)),
    _changed(id="20260101-000000-00000000"),
    _changed(title=None),
    _changed(status="asleep"),
    _changed(created=1e300),
    _changed(created="yesterday"),
    _changed(settings=[]),
    _changed(stats=7),
    _changed(problem={"title": 3}),
    _changed(exports=[{"file": "../../settings.json", "label": "x", "bytes": 1}]),
    _changed(exports={"a": 1}),
    _changed(seed="seven"),
]


def make_history(root: Path, count: int, damaged: int) -> list[str]:
    """Entries under `root`, with `damaged` ones at even distances; the ids of the others, oldest first.

    POSIX: among the damages is a pipe.
    """
    whole = []
    kept = {PICTURE: b"picture" * 200, THUMBNAIL: b"thumbnail" * 20, STATE: b"state" * 200}
    for number in range(count):
        entry_id = f"202601{1 + number // 1000 % 28:02d}-{number % 1000:06d}-{number:08x}"
        assert ENTRY_ID.fullmatch(entry_id)
        folder = root / entry_id
        folder.mkdir(parents=True)
        for name, data in kept.items():
            (folder / name).write_bytes(data)
        facts = {"id": entry_id, "title": f"chair {number}", "created": 1.75e9 + number, "status": "finished"}
        stats = {"seconds": {"shape": 3.5}, "voxels": 900, "preview": None}
        (folder / ENTRY).write_text(json.dumps(facts | {"seed": number, "stats": stats}))
        nth = number * damaged // count
        if nth < (number + 1) * damaged // count:
            DAMAGES[nth % len(DAMAGES)](folder / ENTRY)
        else:
            whole.append(entry_id)
    return whole
