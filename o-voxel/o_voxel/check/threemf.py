"""3MF as a printer takes it: the objects of the build, each where its item and its components put it.

After the 3MF Core Specification 1.3, and the paths of its Production Extension, which slicers write. Python's
own zip and XML readers do; documents with a DTD, which 3MF forbids, are refused.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from xml.etree import ElementTree

import numpy as np

from ..errors import FormatError
from .scene import UNITS, Part, Scene

_MODEL = "http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"
_CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
_MILLIMETRES = {
    "micron": 1e-3, "millimeter": 1.0, "centimeter": 10.0, "inch": 25.4, "foot": 304.8, "meter": 1000.0,
}  # fmt: skip
_MOST_BYTES = 1 << 30
_MOST_FACES = 50_000_000
_MOST_PLACED = 100_000
_MOST_DEPTH = 16
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, ElementTree.ParseError, KeyError, ValueError, EOFError, RuntimeError,
)  # fmt: skip
"""What Python's readers raise at damaged, encrypted or strangely compressed packages."""

Place = tuple[str, str, np.ndarray]
"""An object's path and id, and the transform [4, 3] of its points."""


@dataclass
class _Object:
    vertices: list[tuple[float, float, float]] = field(default_factory=list)
    faces: list[tuple[int, int, int]] = field(default_factory=list)
    components: list[Place] = field(default_factory=list)


def read_3mf(data: bytes) -> Scene:
    """Raises FormatError when the bytes are no sound 3MF or hold no triangles."""
    try:
        package = _Package(zipfile.ZipFile(BytesIO(data)))
        parts = list(package.parts())
    except _DAMAGE as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"the 3MF is invalid or corrupted: {type(error).__name__} {error}") from error
    if not parts:
        raise FormatError("the 3MF builds no triangles")
    return Scene(parts, UNITS[".3mf"])


class _Package:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._objects: dict[tuple[str, str], _Object] = {}
        self._items: dict[str, list[Place]] = {}
        self._scales: dict[str, float] = {}
        self._faces = self._placed = 0

    def parts(self) -> Iterator[Part]:
        root = self._start()
        self._read(root)
        for path, number, transform in self._items[root]:
            yield from self._parts_of(path, number, transform * self._scales[root], 0)

    def _parts_of(self, path: str, number: str, transform: np.ndarray, depth: int) -> Iterator[Part]:
        if depth > _MOST_DEPTH:
            raise FormatError(f"objects are nested more than {_MOST_DEPTH} deep, or in a circle")
        self._placed += 1
        if self._placed > _MOST_PLACED:
            raise FormatError(f"more than {_MOST_PLACED:,} objects are placed")
        self._read(path)
        made = self._objects[path, number]
        if made.faces:
            self._faces += len(made.faces)
            if self._faces > _MOST_FACES:
                raise FormatError(f"more than {_MOST_FACES:,} faces")
            points, faces = np.array(made.vertices), np.array(made.faces, dtype=np.int64)
            if faces.min() < 0 or faces.max() >= len(points):
                raise FormatError(f"index {faces.max()} of an object with {len(points)} vertices")
            if np.linalg.det(transform[:3]) < 0:
                faces = faces[:, [0, 2, 1]]
            yield Part(points @ transform[:3] + transform[3], faces)
        for inner_path, inner, move in made.components:
            joined = np.concatenate([move[:3] @ transform[:3], move[3:] @ transform[:3] + transform[3:]])
            yield from self._parts_of(inner_path, inner, joined, depth + 1)

    def _start(self) -> str:
        for element in ElementTree.fromstring(self._bytes("_rels/.rels")):
            if element.get("Type") == _MODEL:
                return element.attrib["Target"].lstrip("/")
        raise FormatError("the package names no 3D model")

    def _bytes(self, name: str) -> bytes:
        entry = self._archive.getinfo(name)
        if entry.file_size > _MOST_BYTES:
            raise FormatError(f"{name} holds {entry.file_size:,} bytes")
        data = self._archive.read(entry)
        if b"<!DOCTYPE" in data:
            raise FormatError(f"{name} has a document type, which 3MF forbids")
        return data

    def _read(self, path: str) -> None:
        if path in self._items:
            return
        items: list[Place] = []
        now = _Object()
        for event, element in ElementTree.iterparse(BytesIO(self._bytes(path)), events=("start", "end")):
            namespace, _, name = element.tag.rpartition("}")
            if namespace != "{" + _CORE:  # of an extension: slices have vertices too
                continue
            if event == "start":
                if name == "object":
                    now = self._objects[path, element.attrib["id"]] = _Object()
                elif name == "model":
                    self._scales[path] = _MILLIMETRES[element.get("unit", "millimeter")]
                continue
            if name == "vertex":
                x, y, z = (float(element.attrib[axis]) for axis in "xyz")
                now.vertices.append((x, y, z))
            elif name == "triangle":
                a, b, c = (int(element.attrib[corner]) for corner in ("v1", "v2", "v3"))
                now.faces.append((a, b, c))
            elif name == "component":
                now.components.append(_place(element, path))
            elif name == "item":
                items.append(_place(element, path))
            element.clear()
        self._items[path] = items


def _place(element: ElementTree.Element, path: str) -> Place:
    named = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    numbers = [float(number) for number in named.get("transform", "1 0 0 0 1 0 0 0 1 0 0 0").split()]
    return named.get("path", path).lstrip("/"), named["objectid"], np.array(numbers).reshape(4, 3)
