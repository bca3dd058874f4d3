from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from tests.trellis2_modal.client.service import photo, state
from tests.trellis2_modal.fake import SHEET, sheet
from trellis2_modal.client.history import (
    COVER,
    ENTRY,
    LIGHT,
    PICTURE,
    STATE,
    STILLS,
    THUMBNAIL,
    VIDEO,
    History,
    new_entry_id,
)
from trellis2_modal.client.results import ExtractResult, GenerateResult
from trellis2_modal.protocol.errors import NotFoundError

GLB = b"glTF" + bytes(60)


def result(job: str = "job_1", size: int = 0) -> GenerateResult:
    return GenerateResult(
        job, 7, 16, state() + bytes(size), b"video", sheet(), {"seed": 7}, {"preview": SHEET, "voxels": 3}
    )


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def test_everything_survives_a_restart(history: History) -> None:
    entry = history.add(photo(), "disc.png", {"seed": 7})
    history.keep_result(entry.id, result())
    history.keep_light(entry.id, GLB)
    entry = history.keep_export(
        entry.id, ExtractResult("job_2", GLB, settings={"a": 1}, stats={"report": {"faces": 5}}), "Web"
    )
    again = History(history.root)
    (found,) = again.entries()
    assert found == entry
    assert found.status == "finished"
    assert found.exports[0].file == "disc-web.glb"
    assert found.exports[0].report == {"faces": 5}
    for name in (PICTURE, THUMBNAIL, STATE, VIDEO, STILLS, COVER, LIGHT, "disc-web.glb"):
        assert again.file(entry.id, name), name
    assert sum(again.sizes().values()) > len(state())


def test_the_same_export_replaces_its_file_and_another_stands_beside_it(history: History) -> None:
    entry = history.add(photo(), "../Mein Stuhl!.png", {})
    for settings, data in (({"a": 1}, b"one"), ({"a": 2}, b"two"), ({"a": 1}, b"three")):
        entry = history.keep_export(entry.id, ExtractResult("j", data, "stl", settings), "3D print")
    assert [export.file for export in entry.exports] == [
        "mein-stuhl-3d-print-2.stl",
        "mein-stuhl-3d-print.stl",
    ]
    path = history.file(entry.id, "mein-stuhl-3d-print.stl")
    assert path is not None
    assert path.read_bytes() == b"three"


@pytest.mark.parametrize("damage", ["", "{", '{"id": 3}', '{"id": "x", "title": "t", "created": 1}', "[]"])
def test_a_damaged_entry_is_left_alone_and_harms_no_other(history: History, damage: str) -> None:
    good, bad = history.add(photo(), "good", {}), history.add(photo(), "bad", {})
    (history.root / bad.id / ENTRY).write_text(damage)
    again = History(history.root)
    assert [entry.id for entry in again.entries()] == [good.id]
    assert (history.root / bad.id / PICTURE).exists()


def test_an_entry_of_a_newer_version_can_be_read(history: History) -> None:
    entry = history.add(photo(), "disc", {})
    path = history.root / entry.id / ENTRY
    path.write_text(json.dumps(json.loads(path.read_text()) | {"added_later": [1]}))
    assert History(history.root).get(entry.id) == entry


@pytest.mark.parametrize("name", ["../settings.json", "/etc/passwd", ".hidden", "", "a/b", "..", "missing"])
def test_no_way_out_of_the_folder(history: History, name: str) -> None:
    entry = history.add(photo(), "disc", {})
    assert history.file(entry.id, name) is None
    assert history.file("..", "settings.json") is None
    assert history.file(f"{entry.id}/..", PICTURE) is None


def test_the_oldest_go_first_and_unfinished_ones_stay(history: History) -> None:
    ids = []
    for day in range(1, 5):
        entry = history.add(photo(), f"{day}", {})
        history.delete(entry.id)
        entry = replace(entry, id=f"2026010{day}-000000-0000000{day}")
        for name, data in ((PICTURE, photo()), (THUMBNAIL, photo())):
            (history.root / entry.id).mkdir(exist_ok=True, parents=True)
            (history.root / entry.id / name).write_bytes(data)
        history._write(entry)
        ids.append(entry.id)
    history = History(history.root)
    for entry_id in (ids[0], *ids[2:]):
        history.keep_result(entry_id, result(size=100_000))
    removed = history.prune(150_000, frozenset({ids[3]}))
    assert removed == [ids[0], ids[2]]
    assert {entry.id for entry in history.entries()} == {ids[1], ids[3]}, "the second is still to be made"
    assert history.prune(1 << 30) == []
    assert not (history.root / ids[0]).exists()


def test_a_picture_that_cannot_be_kept_leaves_nothing(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(entry: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history, "_write", full)
    with pytest.raises(OSError, match="No space"):
        history.add(photo(), "disc", {})
    assert list(history.root.iterdir()) == []
    with pytest.raises(OSError):
        history.add(b"not a picture", "disc", {})
    assert list(history.root.iterdir()) == []


def test_a_result_without_previews_is_kept_too(history: History) -> None:
    entry = history.add(photo(), "disc", {})
    history.keep_result(entry.id, GenerateResult("job", 1, 16, state()))
    assert history.file(entry.id, STATE)
    assert history.file(entry.id, VIDEO) is None
    assert history.file(entry.id, COVER) is None


def test_many_threads_change_entries_and_none_loses_a_change(history: History) -> None:
    entry = history.add(photo(), "disc", {})
    other = history.add(photo(), "deleted", {})

    def export(number: int) -> None:
        history.keep_export(entry.id, ExtractResult("j", GLB, "glb", {"n": number}), "Web")
        history.change(entry.id, seed=number)

    def delete() -> None:
        with contextlib.suppress(NotFoundError, OSError):
            for _ in range(20):
                history.keep_light(other.id, GLB)

    threads = [threading.Thread(target=export, args=(n,)) for n in range(12)]
    threads += [threading.Thread(target=delete), threading.Thread(target=history.delete, args=(other.id,))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = history.get(entry.id)
    assert found is not None
    assert sorted(export.settings["n"] for export in found.exports) == list(range(12))
    assert len({export.file for export in found.exports}) == 12
    assert [entry.id for entry in History(history.root).entries()] == [entry.id], "deleted is deleted"
    assert History(history.root).get(entry.id) == found
    with pytest.raises(FrozenInstanceError):
        found.seed = 1  # type: ignore[misc]


def test_an_entry_that_is_being_written_is_not_called_damaged(tmp_path: Path) -> None:
    history = History(tmp_path / "history")  # the folder comes with the first entry
    (tmp_path / "history" / new_entry_id()).mkdir(parents=True)
    history.refresh()
    assert history.damaged == []
