"""`trellis2-modal doctor`: what is installed, which implementation each operation uses, and what can run."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from ...client.api import Client
from ...client.estimates import TYPICAL, estimate_of
from ...client.local import INSTALL_HINT, can_run_here
from ...client.options import Retry, Timeouts
from ...protocol.errors import ServiceError
from ..connection import chosen_target

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
GIB = 1 << 30
SMALL_MODEL_BYTES = 3 * GIB
"""Memory of the machine for the small model, whose generation peaks at 1.5 GiB."""

GPU_MODEL_BYTES = 20 * GIB
"""GPU memory for a 1536 asset in low-VRAM mode (README)."""

FREE_DISK_BYTES = 1 * GIB
SERVICE_SECONDS = 1.0
"""For the service's answer: this command is quick."""

BACKEND_TABLES = ("trellis2.backends", "o_voxel.backends")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def command(as_json: bool) -> None:
    """Say what is installed, which implementation each operation uses here and why, and what can run."""
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
    report["verdict"] = _verdict(report)
    return report


def _verdict(report: dict[str, dict[str, str]]) -> dict[str, str]:
    """Whether the small and a GPU model run here, and what a generation with them takes."""
    if not can_run_here():
        missing = f"no: {INSTALL_HINT}"
        return {"small model": missing, "GPU model": missing} | _saved_service()
    machine, device = report["machine"], report["machine"]["device"]
    weights = Path(report["service"].get("default weights", ""))
    fault = _weights_fault(weights)
    memory, disk = _memory(), shutil.disk_usage(tempfile.gettempdir()).free
    faults = [fault] if fault else []
    if memory is not None and memory < SMALL_MODEL_BYTES:
        faults.append(f"{memory / GIB:.1f} GiB of memory, {SMALL_MODEL_BYTES / GIB:.0f} are needed")
    if disk < FREE_DISK_BYTES:
        faults.append(f"{disk / GIB:.1f} GiB of disk are free, {FREE_DISK_BYTES / GIB:.0f} are needed")
    seconds = estimate_of("generate", TYPICAL["generate", "cpu"]).seconds
    video = _ffmpeg()
    if video != "yes":
        faults.append(f"videos need ffmpeg: {video}")
    return {
        "memory": "unknown" if memory is None else f"{memory / GIB:.1f} GiB",
        "cores": str(os.cpu_count()),
        "free disk": f"{disk / GIB:.0f} GiB",
        "ffmpeg": video,
        "weights whole": f"no: {fault}" if fault else "yes",
        "small model": f"no: {'; '.join(faults)}"
        if faults
        else f"yes, a generation takes about {seconds:.0f} s on two cores",
        "GPU model": _gpu_model(machine, device),
    } | _saved_service()


def _gpu_model(machine: dict[str, str], device: str) -> str:
    if device != "cuda":
        return "no: this machine has no GPU that torch can use; use a service (--url)"
    import torch

    found = torch.cuda.get_device_properties(0).total_memory
    if found < GPU_MODEL_BYTES:
        return f"no: {machine['accelerator']}; {GPU_MODEL_BYTES / GIB:.0f} GiB are needed"
    seconds = estimate_of("generate", TYPICAL["generate", "cuda"]).seconds
    return f"yes, a generation takes about {seconds:.0f} s on an H200"


def _memory() -> int | None:
    """Bytes of this machine's memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def _ffmpeg() -> str:
    from trellis2.errors import BackendError
    from trellis2.utils.video import ffmpeg_path

    try:
        ffmpeg_path()
    except BackendError as error:
        return f"no: {error}"
    return "yes"


def _weights_fault(folder: Path) -> str:
    """What is wrong with the weights, by the size that each file's header tells; "" when they are whole."""
    from trellis2.errors import CheckpointError
    from trellis2.models.streaming_loader import read_header

    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        return f"{folder} has no weights on this machine"
    try:
        for path in files:
            with path.open("rb") as file:
                read_header(file, path)
    except (CheckpointError, OSError) as error:
        return str(error)
    return ""


def _saved_service() -> dict[str, str]:
    """Whether the service that the client would use answers."""
    target = chosen_target(None, None)
    if not target.url:
        return {"saved service": "none; this machine is used"}
    patience = Timeouts(connect=SERVICE_SECONDS, read=SERVICE_SECONDS)
    try:
        with Client(
            target.url, proxy_token=target.proxy_token, timeouts=patience, retry=Retry(attempts=1)
        ) as client:
            found = client.health()
    except ServiceError as error:
        return {"saved service": f"{target.url} (from {target.origin}) cannot be used: {error.detail}"}
    return {"saved service": f"{target.url} (from {target.origin}): {found.status}, {found.model}"}


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
