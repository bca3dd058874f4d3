"""`train --config FILE`: stages one after another in this process, as a TOML file says.

    workdir = "run"
    objects = 8192                       # and the other fields of `Settings`
    stages = ["ss_vae:4000steps", "latents", "tex_flow:8000steps"]

A budget is steps, seconds (`tex_flow:600`) or both (`tex_flow:8000steps,600`). What the working folder holds
is gone on from. `torchrun` trains on several GPUs.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

from trellis2.errors import InvalidArgumentError

from .stage_runner import Settings, run_stages


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
    return values.pop("stages"), Settings(folder=Path(values.pop("workdir")), **values)


def train_by(path: Path) -> None:
    """Run the stages of a file."""
    run_stages(*read_run(path))
