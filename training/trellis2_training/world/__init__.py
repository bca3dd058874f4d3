"""The procedural world: everyday objects as signed-distance tables with PBR materials. Imports torch and
numpy only.

Start reading in `families/vessels.py` (what an object is), then `builder.py`, `table.py`, `distance.py`.
"""

from __future__ import annotations

from .distance import attributes, distance, normals
from .patterns import ALL_PATTERNS, FIRST_PATTERNS, patterned
from .sample import (
    ALL_FAMILIES_SEED,
    HELD_OUT_ALL,
    HELD_OUT_SEED,
    family_of,
    held_out_tables,
    object_table,
    table_bank,
)
from .symmetry import is_symmetric

__all__ = [
    "ALL_FAMILIES_SEED",
    "ALL_PATTERNS",
    "FIRST_PATTERNS",
    "HELD_OUT_ALL",
    "HELD_OUT_SEED",
    "attributes",
    "distance",
    "family_of",
    "held_out_tables",
    "is_symmetric",
    "normals",
    "object_table",
    "patterned",
    "table_bank",
]
