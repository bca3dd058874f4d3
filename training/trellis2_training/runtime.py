"""Where a run happens: device, process group, precision, seeds and the log file."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

log = logging.getLogger(__name__)

LONGEST_WAIT = timedelta(days=7)
"""Of processes that wait while process 0 makes the bank, latents and views."""


@dataclass(frozen=True)
class Runtime:
    """One process of a run; `rank` of `world` processes, each with its own device and random stream."""

    device: torch.device
    rank: int = 0
    world: int = 1

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 autocast on CUDA, float32 elsewhere."""
        if self.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def average(self, tensors: list[torch.Tensor]) -> None:
        """Replace tensors by their mean over all processes: one all-reduce of a flat buffer."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(flat)
        flat /= self.world
        for t, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            t.copy_(mean.view_as(t))

    def agreed(self, value: float) -> float:
        """Process 0's number, for all: what clocks of different processes decide must be decided once."""
        if self.world == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64, device=self.device)
        self.broadcast([told])
        return float(told)

    def broadcast(self, tensors: list[torch.Tensor]) -> None:
        """Give every process the tensors of process 0."""
        if self.world > 1:
            for t in tensors:
                dist.broadcast(t, 0)

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Process 0 does what is inside, then the others do: they find its files whole."""
        if self.rank > 0:
            self.barrier()
        yield
        if self.rank == 0:
            self.barrier()


def start(device: str, seed: int) -> Runtime:
    """Pick the device, join the process group when launched by torchrun, seed this process."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(local)
        chosen = torch.device("cuda", local)
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
    else:
        chosen = torch.device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    torch.manual_seed(seed * 1000 + rank)
    return Runtime(chosen, rank, world)


class RunLog:
    """Appends one JSON line a record to a file, and passes it to logging."""

    def __init__(self, path: Path, stage: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._stage, self._started = path, stage, time.perf_counter()

    def write(self, **values: Any) -> None:
        """Record numbers (tensors are read here, so call it rarely)."""
        clean = {
            k: float(f"{float(v):.5g}") if not isinstance(v, (int, str)) else v for k, v in values.items()
        }
        record = {"stage": self._stage, "t": round(time.perf_counter() - self._started, 1), **clean}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        log.info("%s", " ".join(f"{k}={v}" for k, v in record.items()))
