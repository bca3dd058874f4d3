"""What `generate`, `extract` and `demo` share: formats by file name, and the words at the end."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from ..client.report import describe_costs, describe_report, judge_file
from ..client.results import EXTENSIONS, ExtractResult
from ..client.stats import AssetStats, Costs
from ..durable import write_atomically
from ..protocol.requests import AssetFormat
from ..protocol.stages import stage_title
from .exits import WriteError

STDOUT = Path("-")
FORMATS: dict[str, AssetFormat] = {ending: name for name, ending in EXTENSIONS.items()}  # type: ignore[misc]


def format_of(path: Path, chosen: str | None, preset: str | None = None) -> str:
    """The format that a file name asks for, unless one is chosen. Raises `click.UsageError`."""
    if chosen is not None:
        return chosen
    if path == STDOUT:
        return "glb"
    found = FORMATS.get(path.suffix.lower())
    if path.suffix.lower() == ".obj":
        raise click.UsageError("an obj comes as a zip with its textures: name it .zip")
    if found is None:
        raise click.UsageError(f"{path.name}: end it with one of {', '.join(FORMATS)}, or give --format")
    return found


def check_writable(*paths: Path | None) -> None:
    """Find out before the work, not after it. Raises `WriteError`; a missing folder is never made: it may be
    a typing error.
    """
    if sum(path == STDOUT for path in paths) > 1:
        raise click.UsageError("only one file can go to standard output (-)")
    for path in paths:
        if path is None or path == STDOUT:
            continue
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise WriteError("is a folder", path)
        if not target.parent.is_dir():
            raise WriteError(f"there is no folder {target.parent}; make it first", path)
        if not os.access(target if target.exists() else target.parent, os.W_OK):
            raise WriteError("must not be written here", path)


def check_folder(path: Path) -> None:
    """A folder to write into is made, but none above it: see `check_writable`. Raises `WriteError`."""
    if not path.is_dir():
        check_writable(path)


def write(path: Path, data: bytes) -> Path:
    """Write a file, or to standard output for "-". Raises `WriteError`."""
    try:
        if path == STDOUT:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return path
        return write_atomically(path, data)
    except OSError as error:
        raise WriteError(error.strerror or str(error), path) from error


def print_document(document: dict[str, Any], err: bool = False) -> None:
    click.echo(json.dumps(document, indent=1, default=str), err=err)


def print_asset(
    files: dict[str, Path], result: ExtractResult, facts: dict[str, Any], costs: Costs | None = None
) -> None:
    """Paths, facts, costs where there are any, and the mesh report for a person; on stderr when a file went
    to standard output."""
    if costs is not None and (words := describe_costs(costs)):
        facts = facts | {"costs": words}
    err = STDOUT in files.values()
    for name, path in files.items():
        click.echo(f"{name:9} {'standard output' if path == STDOUT else path}", err=err)
    for name, value in facts.items():
        click.echo(f"{name:9} {value}", err=err)
    verdict = judge_file(result.format, result.report, result.settings)
    for line in (verdict.words, *describe_report(result.report, len(result.data), result.format)):
        click.echo(f"  {line}", err=err)


def print_seconds(seconds: dict[str, float]) -> None:
    """A table of stages."""
    for name, value in seconds.items():
        click.echo(f"  {stage_title(name):28} {value:8.2f} s")
    click.echo(f"  {'In all':28} {sum(seconds.values()):8.2f} s")


def stage_seconds(stats: dict[str, Any], seen: dict[str, float]) -> dict[str, float]:
    """Seconds by stage as the service measured them, else as they were seen from here."""
    return AssetStats.of(stats).seconds or {name: round(value, 3) for name, value in seen.items()}
