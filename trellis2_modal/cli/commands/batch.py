"""`trellis2-modal batch`: a folder or a CSV of pictures to files, some at a time, resumable."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ...client.batch import Batch, Outcome, read_items
from ...client.report import describe_costs
from ...client.stages import duration
from ...client.stats import Costs
from ...protocol.requests import ExtractSettings, GenerateSettings
from ..asset import check_folder, print_document
from ..connection import connected, json_option, local_options, url_options
from ..exits import Exit, reported
from ..flags import given, settings_options

WORDS = {"made": "made", "there": "already there", "failed": "FAILED", "unbegun": "not begun"}

GO_ON = "; jobs that were begun go on, and the next run takes their files"
LOST = "; jobs that were begun ended with the server of this command, and the next run begins them again"


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out", "folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="Target folder."
)
@click.option(
    "-n", "--at-once", type=click.IntRange(1, 64), default=4, show_default=True, help="Pictures on their way."
)
@settings_options(GenerateSettings, leave_out=("preview", "num_samples"))
@settings_options(ExtractSettings)
@url_options
@local_options
@json_option
def command(
    source: Path,
    folder: Path,
    at_once: int,
    url: str | None,
    key: str | None,
    weights: str | None,
    device: str | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Make a file of every picture in SOURCE: a folder, or a CSV with the columns picture, name, settings.

    Run it again after an interrupt, a power cut or a failure: what is there stays, jobs that were begun on a
    service that goes on are found again, and only what is missing is made.
    """
    values = given(values)
    settings = [
        {k: v for k, v in values.items() if k in model.model_fields}
        for model in (GenerateSettings, ExtractSettings)
    ]
    own: list[bool] = []  # whether the server is this command's, whose jobs end with it
    with reported(as_json, lambda: LOST if own else GO_ON):
        check_folder(folder)
        items = read_items(source, *settings)
        done = 0

        def told(outcome: Outcome) -> None:
            nonlocal done
            done += 1
            if not as_json:
                rest = f": {outcome.problem}" if outcome.problem else ""
                click.echo(f"[{done}/{len(items)}] {outcome.name} {WORDS[outcome.state]}{rest}", err=True)

        with connected(url, key, weights, device, lambda: own.append(True)) as client:
            outcomes = Batch(client, items, folder, told).run(at_once)
    if as_json:
        rows = [asdict(o) | {"costs": o.costs.model_dump()} for o in outcomes]
        print_document({"folder": str(folder), "pictures": rows})
    else:
        _print_table(outcomes, folder)
    if any(outcome.state in ("failed", "unbegun") for outcome in outcomes):
        sys.exit(Exit.FAILED)


def _print_table(outcomes: list[Outcome], folder: Path) -> None:
    width = max(len(outcome.name) for outcome in outcomes)
    for o in outcomes:
        time = duration(o.seconds) if o.state == "made" else ""
        click.echo(f"{o.name:{width}}  {WORDS[o.state]:13}  {time:>12}  {o.file or o.problem}".rstrip())
    counts = [sum(o.state == state for o in outcomes) for state in WORDS]
    words = ", ".join(f"{count} {WORDS[s]}" for s, count in zip(WORDS, counts, strict=True) if count)
    made = [o.costs.model_dump() for o in outcomes if o.state == "made"]
    costs = describe_costs(Costs.of_all(*made)) if made else ""
    click.echo(f"{len(outcomes)} pictures in {folder}: {words}" + (f"; {costs}" if costs else ""))
