"""Cold start and warm generation of a deployment, for its operator.

`python -m trellis2_modal.service.deploy.measure photo.png` calls the deployed GPU class itself, with the
Modal account of this machine; it costs a few GPU minutes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from ..config import DeploySettings, SettingsError
from .start_budget import BUDGET, TARGET

T = TypeVar("T")

WARM_TARGET = 60.0
"""Seconds of a warm generation at 1024."""

MEGABYTE = 1e6


class MeasureError(Exception):
    """Something that is to be measured failed; the text says what to do."""


class Deployment(Protocol):
    """What is measured."""

    def containers(self) -> int | None:
        """How many containers of the GPU class run; None when that cannot be seen."""

    def health(self) -> dict[str, Any]: ...

    def generate(self, picture: bytes, settings: dict[str, Any]) -> dict[str, Any]: ...


class ModalDeployment:
    """The deployed class. Raises `MeasureError` when there is none."""

    def __init__(self, settings: DeploySettings) -> None:
        import modal

        self._errors = modal.exception
        self._service = modal.Cls.from_name(settings.app, "TRELLIS2Service")()

    def containers(self) -> int | None:
        try:
            return self._call(lambda: int(self._service.health.get_current_stats().num_total_runners))
        except self._errors.Error:  # what is seen of a class may change with the platform
            return None

    def health(self) -> dict[str, Any]:
        return self._call(lambda: self._service.health.remote())

    def generate(self, picture: bytes, settings: dict[str, Any]) -> dict[str, Any]:
        return self._call(lambda: self._service.generate.remote(picture, settings))

    def _call(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except self._errors.NotFoundError as error:
            raise MeasureError(f"{error}; run: modal deploy -m trellis2_modal.service.service") from error
        except self._errors.AuthError as error:
            raise MeasureError(f"{error}; run: modal setup") from error


@dataclass(frozen=True)
class Figure:
    """One measured time in seconds; `target` is the most it should be."""

    name: str
    seconds: float
    target: float | None = None
    note: str = ""

    def line(self) -> str:
        verdict = ""
        if self.target is not None:
            verdict = f"target {self.target:g} s: {'met' if self.seconds <= self.target else 'MISSED'}"
        return f"{self.name:28} {self.seconds:8.2f} s   {verdict:24} {self.note}".rstrip()


def wait_until_cold(
    deployment: Deployment,
    most: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until no container runs; False when that cannot be seen. Raises `MeasureError` after `most`."""
    end = clock() + most
    while (running := deployment.containers()) is not None:
        if running == 0:
            return True
        if clock() > end:
            raise MeasureError(
                f"{running} containers still run after {most:.0f} s: somebody uses the service; "
                "try later, or measure warm figures only with --skip-cold"
            )
        sleep(5.0)
    return False


def cold_figures(deployment: Deployment, clock: Callable[[], float] = time.monotonic) -> list[Figure]:
    """One cold start: from the call to the answer of a container that did not exist, and its stages."""
    start = clock()
    health = deployment.health()
    total = clock() - start
    stages = dict(health["cold_start"])
    age = stages.pop("since_load", 0.0)
    restored = age > total
    inside = ["to_device"] if restored else ["import", "load", "to_device"]
    if restored and health["loading"] == "stream":
        inside.append("load")
    figures = [Figure("cold start", total, TARGET, f"loading={health['loading']}, image={health['image']}")]
    figures += [
        Figure(f"  {name}", seconds, BUDGET.get(name), "" if name in inside else "in the snapshot")
        for name, seconds in stages.items()
    ]
    outside = total - sum(stages.get(name, 0.0) for name in inside)
    note = "scheduling, image and restore" if restored else "no snapshot was used: run again"
    return [*figures, Figure("  before our code", outside, BUDGET["restore"], note)]


def warm_figures(
    deployment: Deployment,
    picture: bytes,
    pipeline_type: str,
    runs: int,
    clock: Callable[[], float] = time.monotonic,
) -> list[Figure]:
    """Median of `runs` generations after one that warms up. Raises `MeasureError` when one fails."""
    times, gpu = [], []
    size = 0
    for number in range(runs + 1):
        start = clock()
        outcome = deployment.generate(picture, {"pipeline_type": pipeline_type, "seed": number})
        seconds = clock() - start
        if outcome["status"] != "finished":
            raise MeasureError(f"a generation failed: {outcome['problem']['detail']}")
        if number > 0:
            times.append(seconds)
            gpu.append(float(outcome["seconds"]))
        size = len(outcome["files"]["state"]["data"])
    target = WARM_TARGET if pipeline_type == "1024" else None
    return [
        Figure(f"warm {pipeline_type}", statistics.median(times), target, f"median of {runs}"),
        Figure("  on the GPU", statistics.median(gpu), None, f"state {size / MEGABYTE:.1f} MB"),
    ]


@click.command()
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--pipeline-type", default="1024", show_default=True)
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True)
@click.option("--skip-cold", is_flag=True, help="Do not wait for the containers to end.")
def command(photo: Path, pipeline_type: str, runs: int, skip_cold: bool) -> None:
    """Measure the deployment that the environment's settings name, with PHOTO."""
    try:
        settings = DeploySettings.from_env()
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    try:
        deployment = ModalDeployment(settings)
        figures: list[Figure] = []
        if not skip_cold:
            if not wait_until_cold(deployment, settings.gpu_scaledown_window + 180.0):
                click.echo("Whether a container runs cannot be seen: this start may not be cold.", err=True)
            figures += cold_figures(deployment)
        figures += warm_figures(deployment, photo.read_bytes(), pipeline_type, runs)
    except MeasureError as error:
        raise click.ClickException(str(error)) from error
    for figure in figures:
        click.echo(figure.line())


if __name__ == "__main__":
    command()
