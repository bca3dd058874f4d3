"""--device: refused at once, with what to install, where this machine has no such device."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..client.local import INSTALL_HINT

F = TypeVar("F", bound=Callable[..., Any])
DEVICE = re.compile(r"auto|cpu|cuda(?::(\d{1,3}))?")
PROBE = """
import json
try:
    import torch
except ImportError:
    print(json.dumps(None))
else:
    print(json.dumps([torch.__version__, torch.version.cuda, torch.cuda.device_count()]))
"""


def device_option(default: str | None) -> Callable[[F], F]:
    """--device of the commands that can run the model on this machine."""
    return click.option(
        "--device",
        default=default,
        callback=_checked,
        metavar="DEVICE",
        help="cpu, cuda, cuda:1 or auto, when this machine runs the model.  [default: auto]",
    )


def _checked(context: click.Context, option: click.Parameter, device: str | None) -> str | None:
    if device is None:
        return None
    match = DEVICE.fullmatch(device)
    if match is None:
        raise click.BadParameter(f"{device!r} is none of cpu, cuda, cuda:1, auto")
    fault = cuda_fault(probe(), int(match[1] or 0)) if device.startswith("cuda") else None
    if fault is not None:
        raise click.BadParameter(f"{fault}; or use --device cpu")
    return device


def probe() -> tuple[str, str | None, int] | None:
    """torch's version, the CUDA that it was built for, and the GPUs that it finds; None without torch.

    In a process of its own: this one needs neither torch nor its memory.
    """
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    return None if found is None else (found[0], found[1], found[2])


def cuda_fault(found: tuple[str, str | None, int] | None, index: int) -> str | None:
    """Why the GPU of this index cannot be used, and what to do about it; None when it can."""
    if found is None:
        return f"torch is not installed here; {INSTALL_HINT}"
    version, cuda, count = found
    if cuda is None:
        return (
            f"torch {version} is built without CUDA; install a build for CUDA as pytorch.org/get-started says"
        )
    if count == 0:
        return f"torch {version} finds no GPU; install NVIDIA's driver, so that nvidia-smi lists the GPU"
    return None if index < count else f"there is no cuda:{index}; the last GPU here is cuda:{count - 1}"
