"""A file of this package that Modal's command imported by its path becomes the module of the package."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any


def become(name: str, namespace: dict[str, Any]) -> None:
    """Rename the module with these globals, which is being imported, to its full name.

    Modal imports `folder/file.py` as the module `file`, in which relative imports fail, and would ship that
    one file. Under the full name the imports work, containers import the same, and the whole package goes
    along.
    """
    package, _, leaf = name.rpartition(".")
    parent = importlib.import_module(package)
    spec = importlib.util.find_spec(name)
    module = sys.modules[name] = sys.modules.pop(namespace["__name__"])
    setattr(parent, leaf, module)
    namespace |= {"__name__": name, "__package__": package, "__spec__": spec}
