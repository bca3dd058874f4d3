"""What was made, kept on disk: one folder an asset, so that a refresh, a crash or a restart loses nothing.

An entry's folder holds entry.json, the picture, a thumbnail, the state, the previews and the exported files.
The state never leaves it but to the service.
"""

from __future__ import annotations

import io
import json
import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from ..durable import write_atomically
from ..protocol.errors import NotFoundError, in_one_line
from ..protocol.meshes import MESH_KINDS, mesh_kind
from ..protocol.requests import MAX_SAMPLES
from ..protocol.views import MAX_VIEWS
from .inputs.pictures import picture_format
from .results import EXTENSIONS, ExtractResult, GenerateResult, TextureResult, first_still

logger = logging.getLogger(__name__)

EntryStatus = Literal["queued", "running", "finished", "failed", "cancelled"]
ENTRY_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
ENTRY, PICTURE, THUMBNAIL, MESH = "entry.json", "picture", "thumbnail.webp", "mesh"
STATE, VIDEO, STILLS, LIGHT = "state.lz4", "turntable.mp4", "stills.webp", "light.glb"
COVER = "cover.webp"
"""A small view of the asset itself."""

SHAPE = "shape.lz4"
"""The state whose shape an asset keeps, until it is made."""

HISTORY = "history"
"""Its folder under `settings.home()`."""

THUMBNAIL_SIDE = 320


MAX_ENTRY_BYTES = 4 << 20
"""A record that is larger is not ours."""


@dataclass(frozen=True)
class Export:
    """A file made from the entry's state."""

    file: Annotated[str, Field(pattern=r"^[^./\\][^/\\]*$")]
    label: str
    bytes: Annotated[int, Field(ge=0)]
    settings: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    """What it took: seconds by stage, costs."""

    variant: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = 1
    """Of the entry's variants the one that it was made from."""


@dataclass(frozen=True)
class Entry:
    """One asset, as it was at a moment. `key` is the idempotency key of its job: submitting it again never
    makes a second job.
    """

    id: Annotated[str, Field(pattern=f"^{ENTRY_ID.pattern}$")]
    title: str
    created: Annotated[float, Field(ge=0, le=253_402_300_799, allow_inf_nan=False)]
    status: EntryStatus = "queued"
    settings: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    url: str = ""
    job: str = ""
    seed: int | None = None
    resolution: int | None = None
    stats: dict[str, Any] = field(default_factory=dict)
    problem: dict[str, str] = field(default_factory=dict)
    exports: tuple[Export, ...] = ()
    favourite: bool = False
    mesh: Annotated[str, Field(pattern=rf"^({MESH}\.({'|'.join(MESH_KINDS)}))?$")] = ""
    """The file of the mesh that gets new textures; empty where an asset is made from pictures alone."""

    picture_count: Annotated[int, Field(ge=1, le=MAX_VIEWS)] = 1
    shape: str = ""
    """The entry whose shape this asset keeps; empty where it has one of its own."""

    variants: tuple[int, ...] = ()
    """The seeds of its variants where it has several; `seed` and `stats` are of the chosen one."""

    variant: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = 1
    """The chosen one, counted from 1."""

    def own(self, name: str) -> str:
        """The chosen variant's file of a name: turntable.mp4, or turntable-2.mp4 of the second one."""
        return numbered(name, self.variant)

    @property
    def kind(self) -> Literal["generate", "texture"]:
        """Of its job."""
        return "texture" if self.mesh else "generate"

    @property
    def pictures(self) -> list[str]:
        """The names of its picture's file, or of its several views' files."""
        return picture_names(max(self.picture_count, len(self.views)))

    @property
    def views(self) -> list[Any]:
        """What its several pictures show; empty for one picture of which nothing is said."""
        found = self.settings.get("views")
        return found[:MAX_VIEWS] if isinstance(found, list) else []

    @property
    def over(self) -> bool:
        return self.status in ("finished", "failed", "cancelled")

    @classmethod
    def load(cls, folder: Path) -> Entry:
        """The entry in a folder; members that a newer version wrote are left out.

        Raises OSError or ValueError when it is no whole entry.
        """
        path = folder / ENTRY
        if folder.is_symlink() or not path.is_file() or path.stat().st_size > MAX_ENTRY_BYTES:
            raise ValueError(f"{ENTRY} is no file of ours")
        entry = _stored().validate_json(path.read_bytes())
        if entry.id != folder.name:
            raise ValueError(f"{ENTRY} belongs to {entry.id}")
        return entry


@cache
def _stored() -> TypeAdapter[Entry]:
    """Built when the first entry is read: an import stays light."""
    return TypeAdapter(Entry)


class History:
    """The entries under a folder, newest first: values, which it alone replaces, under its lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self.version = 0
        """Grows with every change, for those who show the history."""

        self.damaged: list[str] = []
        """Folders whose entry cannot be read; they are left alone."""

        self._seen, self._first = 0, True
        self.refresh()

    def refresh(self) -> None:
        """Take up entries that another process has added (see `join`); cheap while there are none."""
        with self._lock:
            first, self._first = self._first, False  # later, a folder without its entry is one being written
            if not self.root.is_dir() or (changed := self.root.stat().st_mtime_ns) == self._seen:
                return
            self._seen = changed
            known = len(self._entries)
            self._load(first)
            self.version += len(self._entries) > known

    def _load(self, first: bool) -> None:
        for folder in sorted(self.root.iterdir()):
            if not ENTRY_ID.fullmatch(folder.name) or folder.name in (*self._entries, *self.damaged):
                continue
            if not first and not (folder / ENTRY).exists():
                continue  # this process is about to write it
            try:
                self._entries[folder.name] = Entry.load(folder)
            except (OSError, ValueError) as error:
                reason = in_one_line(error)
                logger.warning("history: %s cannot be read (%s); it is left alone", folder.name, reason)
                self.damaged.append(folder.name)

    # --- reading -----------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        with self._lock:
            return sorted(self._entries.values(), key=lambda entry: entry.id, reverse=True)

    def get(self, entry_id: str) -> Entry | None:
        with self._lock:
            return self._entries.get(entry_id)

    def file(self, entry_id: str, name: str) -> Path | None:
        """A file of an entry when it is there; only plain names, never a way out of the folder."""
        if not ENTRY_ID.fullmatch(entry_id) or name != Path(name).name or name.startswith("."):
            return None
        path = self.root / entry_id / name
        linked = path.is_symlink() or path.parent.is_symlink()
        return path if path.is_file() and not linked else None

    def sizes(self) -> dict[str, int]:
        """Bytes on disk by entry."""
        return dict(self._sizes())

    def shareable(self, entry: Entry) -> dict[str, str]:
        """Names to give away and the entry's files beside its exports: never the state."""
        with (self.root / entry.id / PICTURE).open("rb") as file:
            ending = {"JPEG": ".jpg", "WEBP": ".webp"}.get(picture_format(file.read(16)) or "", ".png")
        found = {f"picture{ending}": PICTURE}
        for number in range(1, 1 + max(1, len(entry.variants))):
            given = {VIDEO: VIDEO, STILLS: STILLS, "low-detail.glb": LIGHT}
            found |= {numbered(to, number): numbered(name, number) for to, name in given.items()}
        return found

    def _sizes(self) -> Iterator[tuple[str, int]]:
        for entry in self.entries():
            folder = self.root / entry.id
            yield entry.id, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    # --- writing -----------------------------------------------------------------------------------------

    def add(
        self,
        picture: bytes,
        title: str,
        settings: Mapping[str, Any],
        others: Sequence[bytes] = (),
        mesh: bytes = b"",
        shape: Entry | None = None,
    ) -> Entry:
        """Keep a picture that waits for its turn, and other views of its object; a mesh that is to get its
        textures, or an entry whose shape is to stay. Raises OSError.
        """
        entry_id = new_entry_id()
        entry = Entry(
            entry_id,
            title[:80],
            time.time(),
            settings=dict(settings),
            key=secrets.token_hex(16),
            mesh=f"{MESH}.{mesh_kind(mesh)}" if mesh else "",
            picture_count=1 + len(others),
            shape=shape.id if shape else "",
        )
        folder = self.root / entry_id
        try:
            folder.mkdir(parents=True)
            for name, data in zip(picture_names(1 + len(others)), (picture, *others), strict=True):
                write_atomically(folder / name, data)
            if mesh:
                write_atomically(folder / entry.mesh, mesh)
            if shape:
                shutil.copyfile(self.root / shape.id / shape.own(STATE), folder / SHAPE)
            write_atomically(folder / THUMBNAIL, thumbnail(picture))
            self._write(entry)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with self._lock:
            self._entries[entry.id] = entry
            self.version += 1
        return entry

    def join(
        self,
        picture: bytes,
        title: str,
        result: GenerateResult,
        exports: Sequence[tuple[ExtractResult, str]] = (),
        others: Sequence[bytes] = (),
    ) -> Entry:
        """Keep an asset that was made elsewhere, such as by the command, with its files and their labels;
        `others` are further views of its object.

        It appears at once and whole, so that an app which has this history open can take it up. Raises
        OSError.
        """
        inside = History(self.root / f".joining-{secrets.token_hex(8)}")
        try:
            entry = inside.add(picture, title, result.settings, others)
            inside.keep_result(entry.id, replace(result, job=""))
            for made, label in exports:
                entry = inside.keep_export(entry.id, made, label)
            (inside.root / entry.id).rename(self.root / entry.id)
        finally:
            shutil.rmtree(inside.root, ignore_errors=True)
        self.refresh()
        return entry

    def _write(self, entry: Entry) -> None:
        write_atomically(self.root / entry.id / ENTRY, json.dumps(asdict(entry), indent=1).encode())

    def change(self, entry_id: str, **changes: Any) -> Entry:
        """Change facts of an entry and write them. Raises OSError, `NotFoundError` for a deleted one."""
        with self._lock:
            if entry_id not in self._entries:
                raise NotFoundError("this asset was deleted")
            entry = self._entries[entry_id] = replace(self._entries[entry_id], **changes)
            self.version += 1
            self._write(entry)
        return entry

    def keep_result(self, entry_id: str, result: GenerateResult) -> Entry:
        """Keep what a generation gave, all variants of it: states first, for they are what was paid for.

        Raises OSError, or `NotFoundError` when the entry was deleted.
        """
        folder, made = self._folder(entry_id), result.variants or (result,)
        for number, variant in enumerate(made, 1):
            if variant.state:
                write_atomically(folder / numbered(STATE, number), variant.state)
        for number, variant in enumerate(made, 1):
            self._keep_previews(folder, variant, number)
        (folder / SHAPE).unlink(missing_ok=True)
        seeds = tuple(variant.seed for variant in result.variants)
        return self._finish(entry_id, result, resolution=result.resolution, variants=seeds, variant=1)

    def keep_textured(self, entry_id: str, result: TextureResult) -> Entry:
        """Keep a mesh with its new textures, the file first. Raises as `keep_result`."""
        self.keep_export(entry_id, result, "Textured")
        self._keep_previews(self._folder(entry_id), result)
        return self._finish(entry_id, result)

    def _keep_previews(self, folder: Path, result: GenerateResult | TextureResult, number: int = 1) -> None:
        for name, data in ((VIDEO, result.video), (STILLS, result.preview)):
            if data:
                write_atomically(folder / numbered(name, number), data)
        cover = first_still(result, "shaded")
        if cover is not None:
            write_atomically(folder / numbered(COVER, number), thumbnail(cover))

    def _finish(self, entry_id: str, result: GenerateResult | TextureResult, **facts: Any) -> Entry:
        if result.settings:
            facts["settings"] = dict(result.settings)
        return self.change(
            entry_id,
            status="finished",
            problem={},
            job=result.job,
            seed=result.seed,
            stats={**result.stats, "warnings": [notice.message for notice in result.warnings]},
            **facts,
        )

    def _folder(self, entry_id: str) -> Path:
        if self.get(entry_id) is None:
            raise NotFoundError("this asset was deleted")
        return self.root / entry_id

    def choose(self, entry_id: str, number: int) -> Entry:
        """Another of an entry's variants is the one that is shown and exported. Raises OSError, or
        `NotFoundError` when there is no such one.
        """
        with self._lock:
            entry = self._entries.get(entry_id)
            if entry is None or not 1 <= number <= len(entry.variants):
                raise NotFoundError("this asset has no such variant")
            of_each = entry.stats.get("variants")
            found = of_each[number - 1 : number] if isinstance(of_each, list) else []
            own = found[0] if found and isinstance(found[0], dict) else {}
            seed = entry.variants[number - 1]
            return self.change(entry_id, variant=number, seed=seed, stats={**entry.stats, **own})

    def keep_light(self, entry_id: str, data: bytes, variant: int = 1) -> None:
        """Keep the light mesh of a variant for the viewer. Raises as `keep_result`."""
        write_atomically(self._folder(entry_id) / numbered(LIGHT, variant), data)
        self.change(entry_id)

    def keep_export(self, entry_id: str, result: ExtractResult, label: str, variant: int = 1) -> Entry:
        """Keep a file exported from a variant beside earlier ones. Raises as `keep_result`."""
        with self._lock:
            folder = self._folder(entry_id)
            entry = self._entries[entry_id]
            which = f"-{variant}" if entry.variants else ""
            title = f"{asset_name(entry.title)}{which}-{label}".lower()
            stem = re.sub(r"[^a-z0-9]+", "-", title).strip("-") or "asset"
            name = stem + EXTENSIONS[result.format]
            same = [
                other
                for other in entry.exports
                if (other.settings, other.variant) == (result.settings, variant)
            ]
            taken = {export.file for export in entry.exports}
            number = 2
            while not same and name in taken:
                name = f"{stem}-{number}{EXTENSIONS[result.format]}"
                number += 1
            name = same[0].file if same else name
            write_atomically(folder / name, result.data)
            facts = {name: value for name, value in result.stats.items() if name != "report"}
            settings, report = dict(result.settings), dict(result.report)
            export = Export(name, label, len(result.data), settings, report, facts, variant)
            others = tuple(other for other in entry.exports if other.file != name)
            return self.change(entry_id, exports=(*others, export))

    def delete(self, entry_id: str) -> None:
        """Remove an entry with all its files."""
        with self._lock:
            if self._entries.pop(entry_id, None) is not None:
                self.version += 1
                shutil.rmtree(self.root / entry_id, ignore_errors=True)

    def prune(self, limit: int, keep: frozenset[str] = frozenset()) -> list[str]:
        """Remove the oldest finished entries until all fit into `limit` bytes; `keep`, favourites and
        unfinished ones stay.
        """
        sizes = dict(self._sizes())
        total, removed = sum(sizes.values()), []
        for entry in reversed(self.entries()):
            if total <= limit:
                break
            if entry.over and entry.id not in keep and not entry.favourite:
                self.delete(entry.id)
                total -= sizes[entry.id]
                removed.append(entry.id)
        return removed


def asset_name(title: str) -> str:
    """What a picture's asset is called, in files and inside them: the picture's name without its ending."""
    return Path(title).stem.strip()[:80] or "asset"


def numbered(name: str, variant: int) -> str:
    """The name of a variant's file: that of the first one, or with the variant's number."""
    stem, dot, ending = name.partition(".")
    return name if variant == 1 else f"{stem}-{variant}{dot}{ending}"


def new_entry_id() -> str:
    return time.strftime("%Y%m%d-%H%M%S") + "-" + secrets.token_hex(4)


def picture_names(count: int) -> list[str]:
    """The files of an entry's pictures, the main one first."""
    return [PICTURE, *(f"{PICTURE}-{i}" for i in range(2, count + 1))]


def thumbnail(picture: bytes) -> bytes:
    """A small WebP of a picture. Raises OSError when it cannot be decoded."""
    from trellis2_pictures import UnreadablePictureError, read_picture

    buffer = io.BytesIO()
    try:
        small = read_picture(picture)
    except UnreadablePictureError as error:
        raise OSError(str(error)) from error
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    small.convert("RGBA").save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
