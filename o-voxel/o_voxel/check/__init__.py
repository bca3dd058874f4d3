"""How sound a 3D file is, ours or another's: `check_file` reads it as a viewer would and measures it.

Imports `mesh` and `raster` of this package. Start reading in `judge`.
"""

from __future__ import annotations

from .judge import FileCheck, check_file
from .reading import load
from .scene import Part, Scene

__all__ = ["FileCheck", "Part", "Scene", "check_file", "load"]
