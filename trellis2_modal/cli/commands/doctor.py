"""`trellis2-modal doctor`: what is installed, which implementation each operation uses, and why."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import sys
from typing import Any

import click

PACKAGES = (
    "trellis2-modal",
    "o-voxel",
    "torch",
    "numpy",
    "warp-lang",
    "fastapi",
    "uvicorn",
    "modal",
    "gradio",
    "transformers",
    "opencv-python-headless",
)
BACKEND_TABLES = ("trellis2.backends", "o_voxel.backends")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def command(as_json: bool) -> None:
    """Say what is installed, which implementation each operation uses here, and why."""
    report = diagnose()
    if as_json:
        click.echo(json.dumps(report, indent=1))
        return
    for title, rows in report.items():
        click.secho(title, bold=True)
        for name, value in rows.items():
            click.echo(f"  {name:28} {value}")


def diagnose() -> dict[str, dict[str, str]]:
    """Sections of names and findings."""
    report = {"machine": _machine(), "packages": _packages()}
    device = "cuda" if report["machine"]["device"] == "cuda" else "cpu"
    for module in BACKEND_TABLES:
        report[module] = _backends(module, device)
    report["service"] = _service()
    return report


def _machine() -> dict[str, str]:
    rows = {"python": sys.version.split()[0], "system": platform.platform(), "device": "cpu"}
    try:
        import torch
    except ImportError:
        rows["accelerator"] = "torch is not installed: this is a client; the model needs [local]"
        return rows
    rows["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        rows["accelerator"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    else:
        rows["accelerator"] = "none: the CPU is used"
    return rows


def _packages() -> dict[str, str]:
    rows = {}
    for name in PACKAGES:
        try:
            rows[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            rows[name] = "not installed"
    return rows


def _backends(module: str, device: str) -> dict[str, str]:
    try:
        choices = importlib.import_module(module).describe(device)
    except ImportError as error:
        return {"not available": str(error)}
    return {choice.operation: f"{choice.backend}: {choice.reason}" for choice in choices}


def _service() -> dict[str, str]:
    rows: dict[str, str] = {}
    try:
        config: Any = importlib.import_module("trellis2_modal.service.config")
        auth: Any = importlib.import_module("trellis2_modal.service.auth")
    except ImportError as error:
        return {"not available": str(error)}
    try:
        data_dir = config.Settings.from_env().data_dir
    except config.SettingsError as error:
        return {"settings": str(error)}
    rows["data folder"] = str(data_dir)
    rows["default weights"] = config.default_weights()
    try:
        keys = auth.local_admin(data_dir).keys()
        rows["keys"] = f"{len(keys)} in {auth.keys_path(data_dir)}"
    except ValueError as error:
        rows["keys"] = f"unreadable: {error}"
    return rows
