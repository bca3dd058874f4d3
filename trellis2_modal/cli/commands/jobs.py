"""`trellis2-modal jobs`: list, watch, cancel and download your jobs."""

from __future__ import annotations

from pathlib import Path

import click

from ...client.results import EXTENSIONS, GenerateResult
from ...client.stages import status_text
from ...protocol.replies import FINAL_STATES, JobStatus
from ..asset import check_folder, print_document
from ..bars import Bars
from ..connection import json_option, remote, url_options
from ..exits import reported


@click.group()
def command() -> None:
    """List, watch, cancel and download your jobs."""


@command.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--before", default=None, help="Only jobs older than this one.")
@url_options
@json_option
def list_jobs(limit: int, before: str | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Your jobs, newest first."""
    with reported(as_json), remote(url, key) as client:
        found = client.jobs(limit, before)
    if as_json:
        print_document({"jobs": [job.model_dump(mode="json") for job in found]})
        return
    for job in found:
        click.echo(_line(job))


@command.command()
@click.argument("job_id")
@url_options
@json_option
def show(job_id: str, url: str | None, key: str | None, as_json: bool) -> None:
    """One job."""
    with reported(as_json), remote(url, key) as client:
        job = client.job(job_id).status
    if as_json:
        print_document(job.model_dump(mode="json"))
        return
    click.echo(_line(job))
    if job.problem:
        click.echo(f"  {job.problem.title}: {job.problem.detail}")
    for name, value in job.settings.items():
        click.echo(f"  {name:28} {value}")


@command.command()
@click.argument("job_id")
@url_options
def watch(job_id: str, url: str | None, key: str | None) -> None:
    """Follow a job to its end. An interrupt stops watching; the job goes on."""
    with reported(then="; the job goes on"), remote(url, key) as client:
        bars = Bars()
        job = client.job(job_id)
        for event in job.events():
            bars(event)
        click.echo(_line(job.refresh()))


@command.command()
@click.argument("job_id")
@url_options
@json_option
def cancel(job_id: str, url: str | None, key: str | None, as_json: bool) -> None:
    """Stop a job: a queued one at once, a running one at its next step."""
    with reported(as_json), remote(url, key) as client:
        status = client.job(job_id).cancel()
    if as_json:
        print_document(status.model_dump(mode="json"))
    elif status.status in FINAL_STATES:
        click.echo(f"{status.id} is {status.status}")
    else:
        click.echo(f"{status.id} stops at its next step")


@command.command()
@click.argument("job_id")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Folder.  [default: here]",
)
@url_options
@json_option
def download(job_id: str, output: Path, url: str | None, key: str | None, as_json: bool) -> None:
    """Fetch the files of a finished job."""
    with reported(as_json), remote(url, key) as client:
        check_folder(output)
        result = client.job(job_id).result()
        name = job_id[-8:]
        if isinstance(result, GenerateResult):
            paths = result.save(output, name)
        else:
            paths = [result.save(output / (name + EXTENSIONS[result.format]))]
    if as_json:
        print_document({"files": [str(path) for path in paths]})
    else:
        for path in paths:
            click.echo(path)


def _line(job: JobStatus) -> str:
    when = job.created.astimezone().strftime("%Y-%m-%d %H:%M")
    return f"{job.id}  {when}  {job.kind:8}  {status_text(job)}"
