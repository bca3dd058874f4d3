"""3MF for printers and slicers: millimetres, z up, a colour at each corner.

A zip of three XML parts after the 3MF Core Specification 1.3 and the colour groups of its Materials and
Properties Extension 1.2.
"""

from __future__ import annotations

import zipfile
from io import BytesIO

import numpy as np

CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
MATERIAL = "http://schemas.microsoft.com/3dmanufacturing/material/2015/02"
_COLOURS = 4096
"""Most different colours of a file; slicers slow down over tens of thousands."""

_TYPES = """<?xml version="1.0" encoding="UTF-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/>
</Types>
"""
_RELATIONSHIPS = """<?xml version="1.0" encoding="UTF-8"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Target="/3D/3dmodel.model" Id="rel0" Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/>
</Relationships>
"""


def write_3mf(vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray) -> bytes:
    """3MF bytes of vertices [V, 3] in millimetres, z up, faces [F, 3] and sRGB colours [V, 3] uint8.

    The object stands on z = 0 with positive coordinates, as printers want it. Faces with two equal corners
    are invalid there: leave them out before.
    """
    placed = vertices - vertices.min(axis=0)
    palette, of_vertex = _palette(colours)
    shades = of_vertex[faces]
    corner = np.concatenate([faces, shades], axis=1)
    text = "".join(
        (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<model unit="millimeter" xml:lang="en-US" xmlns="{CORE}" xmlns:m="{MATERIAL}">\n',
            '<metadata name="Application">o-voxel</metadata>\n<resources>\n<m:colorgroup id="1">\n',
            _lines('<m:color color="#%02X%02X%02XFF"/>', palette),
            '</m:colorgroup>\n<object id="2" type="model" pid="1" pindex="0">\n<mesh>\n<vertices>\n',
            _lines('<vertex x="%.6g" y="%.6g" z="%.6g"/>', placed),
            "</vertices>\n<triangles>\n",
            _lines('<triangle v1="%d" v2="%d" v3="%d" pid="1" p1="%d" p2="%d" p3="%d"/>', corner),
            "</triangles>\n</mesh>\n</object>\n</resources>\n",
            '<build>\n<item objectid="2"/>\n</build>\n</model>\n',
        )
    )
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as archive:
        for name, part in (
            ("[Content_Types].xml", _TYPES),
            ("_rels/.rels", _RELATIONSHIPS),
            ("3D/3dmodel.model", text),
        ):
            archive.writestr(zipfile.ZipInfo(name), part, zipfile.ZIP_DEFLATED, compresslevel=4)
    return target.getvalue()


def _palette(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different colours [C, 3], at most _COLOURS, and each vertex's index of one [V]."""
    shown = colours
    for bits in range(8):  # coarser until they fit
        step = 1 << bits
        shown = np.minimum(colours // step * step + step // 2, 255).astype(np.uint8)
        palette, of_vertex = np.unique(shown, axis=0, return_inverse=True)
        if len(palette) <= _COLOURS:
            break
    return palette, of_vertex.reshape(-1)


def _lines(pattern: str, rows: np.ndarray) -> str:
    if not len(rows):
        return ""
    return "\n".join([pattern] * len(rows)) % tuple(rows.reshape(-1).tolist()) + "\n"
