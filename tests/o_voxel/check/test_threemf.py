"""3MF packages: where items and components put their objects, in which unit, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from o_voxel.check import check_file, load
from o_voxel.errors import FormatError
from o_voxel.postprocess.writers.threemf import CORE, write_3mf

RELATIONSHIPS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship '
    'Target="/3D/3dmodel.model" Id="r" Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/>'
    "</Relationships>"
)
PRODUCTION = "http://schemas.microsoft.com/3dmanufacturing/production/2015/06"
TETRAHEDRON = (
    '<object id="1"><mesh><vertices><vertex x="0" y="0" z="0"/><vertex x="1" y="0" z="0"/>'
    '<vertex x="0" y="1" z="0"/><vertex x="0" y="0" z="1"/></vertices><triangles>'
    '<triangle v1="0" v2="2" v3="1"/><triangle v1="0" v2="1" v3="3"/><triangle v1="1" v2="2" v3="3"/>'
    '<triangle v1="2" v2="0" v3="3"/></triangles></mesh></object>'
)
ITEM = '<item objectid="1"/>'


def model(resources: str, build: str, unit: str = "millimeter") -> str:
    return (
        f'<model unit="{unit}" xmlns="{CORE}" xmlns:p="{PRODUCTION}"><resources>{resources}</resources>'
        f"<build>{build}</build></model>"
    )


def package(file: Path, text: str, **others: str) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_rels/.rels", RELATIONSHIPS)
        archive.writestr("3D/3dmodel.model", text)
        for name, other in others.items():
            archive.writestr(f"3D/{name}.model", other)
    return file


def test_our_own_file(tmp_path: Path) -> None:
    points = np.array([[0.0, 0, 0], [10, 0, 0], [0, 20, 0], [0, 0, 30]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    (tmp_path / "own.3mf").write_bytes(write_3mf(points, faces, np.full((4, 3), 200, np.uint8)))
    found = check_file(tmp_path / "own.3mf")
    assert found.quality.solid
    assert found.quality.size == (10.0, 20.0, 30.0)
    assert found.quality.volume == pytest.approx(1000)
    assert found.scene.unit == "mm"


def test_items_and_components_are_placed(tmp_path: Path) -> None:
    """Twice the size and moved inside an assembly, the assembly mirrored, all of it in centimetres."""
    twice = '<component objectid="1" transform="2 0 0 0 2 0 0 0 2 5 0 0"/>'
    mirrored = '<item objectid="2" transform="-1 0 0 0 1 0 0 0 1 0 0 7"/>'
    text = model(
        f'{TETRAHEDRON}<object id="2"><components>{twice}</components></object>', mirrored, "centimeter"
    )
    (part,) = load(package(tmp_path / "placed.3mf", text)).parts
    np.testing.assert_allclose(part.vertices[[0, 1, 3]], [[-50, 0, 70], [-70, 0, 70], [-50, 0, 90]])
    found = check_file(tmp_path / "placed.3mf").quality
    assert found.solid
    assert found.volume == pytest.approx(20**3 / 6)


def test_objects_in_files_of_their_own(tmp_path: Path) -> None:
    outer = (
        '<object id="7"><components><component objectid="1" p:path="/3D/part.model"/></components></object>'
    )
    text = model(outer, '<item objectid="7"/><item objectid="7" transform="1 0 0 0 1 0 0 0 1 4 0 0"/>')
    found = load(package(tmp_path / "parts.3mf", text, part=model(TETRAHEDRON, "")))
    assert [float(part.vertices[:, 0].min()) for part in found.parts] == [0.0, 4.0]


def test_what_extensions_add_is_passed_over(tmp_path: Path) -> None:
    """Slices, whose vertices have no z, and an item of somebody's own."""
    slices = (
        '<s:slicestack xmlns:s="http://schemas.microsoft.com/3dmanufacturing/slice/2015/07" id="9">'
        '<s:slice ztop="1"><s:vertices><s:vertex x="0" y="0"/><s:vertex x="1" y="0"/></s:vertices>'
        '<s:polygon startv="0"><s:segment v2="1"/></s:polygon></s:slice></s:slicestack>'
    )
    text = model(slices + TETRAHEDRON, ITEM + '<o:item xmlns:o="urn:own" name="x"/>')
    found = check_file(package(tmp_path / "slices.3mf", text))
    assert found.quality.solid
    assert found.quality.faces == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<model", "invalid or corrupted"),
        (model(TETRAHEDRON, ""), "no triangles"),
        (model(TETRAHEDRON, '<item objectid="9"/>'), "invalid or corrupted"),
        (model(TETRAHEDRON, ITEM, "furlong"), "furlong"),
        (model(TETRAHEDRON.replace('v1="2"', 'v1="4"'), ITEM), "index 4"),
        (model(TETRAHEDRON, '<item objectid="1" transform="1 0 0"/>'), "invalid or corrupted"),
        ('<!DOCTYPE a [<!ENTITY b "bb">]>' + model(TETRAHEDRON, ITEM), "document type"),
        (model('<object id="1"><components><component objectid="1"/></components></object>', ITEM), "circle"),
    ],
)
def test_what_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=words):
        check_file(package(tmp_path / "bad.3mf", text))


def test_more_objects_than_a_build_has(tmp_path: Path) -> None:
    """Ten components of ten components and so on: a few lines that stand for 10 ** 8 objects."""
    levels = "".join(
        f'<object id="{k + 1}"><components>' + f'<component objectid="{k}"/>' * 10 + "</components></object>"
        for k in range(1, 9)
    )
    with pytest.raises(FormatError, match="100,000 objects"):
        check_file(package(tmp_path / "many.3mf", model(TETRAHEDRON + levels, '<item objectid="9"/>')))


def test_a_damaged_package(tmp_path: Path) -> None:
    file = package(tmp_path / "cut.3mf", model(TETRAHEDRON, ITEM))
    data = bytearray(file.read_bytes())
    at = data.index(b"3D/3dmodel.model") + 40
    data[at : at + 8] = b"\xff" * 8
    file.write_bytes(bytes(data))
    with pytest.raises(FormatError, match="invalid or corrupted"):
        check_file(file)
    file.write_bytes(b"PK\3\4")
    with pytest.raises(FormatError, match="invalid or corrupted"):
        check_file(file)
