"""`train --config FILE`: stages one after another in this process, as a TOML file says.

    workdir = "run"
    objects = 8192                       # and the other fields of `Settings`
    stages = ["ss_vae:4000steps", "latents", "tex_flow:8000steps"]

A budget is steps, seconds (`tex_flow:600`) or both (`tex_flow:8000steps,600`). Run again after an interrupt,
it passes over the stages that ended with the same budget, and counts the steps saved of the next one.
`torchrun` trains on several GPUs of one machine; process 0 makes bank, latents and views for all.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections import Counter
from pathlib import Path

from trellis2.errors import InvalidArgumentError

from .stage_runner import WAITS, Budget, Settings, run_stages


def read_run(path: Path) -> tuple[list[str], Settings]:
    """The stages and settings of a file. Raises `InvalidArgumentError` naming what is wrong."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"{path} cannot be read: {error}") from error
    known = {field.name for field in dataclasses.fields(Settings)} - {"folder"} | {"workdir", "stages"}
    if unknown := values.keys() - known:
        told = f"unknown {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}"
        raise InvalidArgumentError(f"{path}: {told}")
    if missing := {"workdir", "stages"} - values.keys():
        raise InvalidArgumentError(f"{path} lacks {', '.join(sorted(missing))}")
    names = [(budget.name, budget.detail) for budget in map(Budget.parse, values["stages"])]
    if twice := [name for name, count in Counter(names).items() if count > 1 and name[0] != WAITS]:
        raise InvalidArgumentError(f"{path} lists {twice[0][0]} twice; give it one budget")
    return values.pop("stages"), Settings(folder=Path(values.pop("workdir")), **values)


def train_by(path: Path) -> None:
    """Run the stages of a file, or what is left of them."""
    run_stages(*read_run(path), go_on=True)
