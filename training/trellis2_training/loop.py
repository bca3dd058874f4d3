"""The one training loop: any stage, a budget in seconds or steps, resumable, logged."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from . import checkpoint
from .optim import AdaptiveGradClipper, Ema, gradients, learning_rate, trainable
from .runtime import RunLog, Runtime


@dataclass(frozen=True)
class Recipe:
    """Optimiser settings of a stage."""

    lr: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    ema: float = 0.999
    warmup: int = 50


class Stage(Protocol):
    """What a stage must offer: networks to train, and a loss on a batch that it draws itself."""

    name: str
    recipe: Recipe
    networks: dict[str, nn.Module]
    runtime: Runtime

    def losses(self, progress: float) -> dict[str, Tensor]:
        """Weighted terms of one batch (their sum is minimised); `progress` runs 0..1 over the budget.

        Names that start with "_" are only logged.
        """
        ...


def train(
    stage: Stage,
    folder: Path,
    seconds: float,
    max_steps: int | None = None,
    decay: bool = True,
    save_every: float = 120.0,
    profile: bool = False,
    rate: float = 1.0,
    in_total: bool = False,
) -> int:
    """Train until the budget is spent; writes full state and averaged weights; returns the total steps so
    far. `rate` scales the recipe's learning rate. With `in_total`, `max_steps` counts the steps of earlier
    runs too, and the learning rate goes on where it was.

    Goes on from the folder's full state when there is one, else from its weights, else from scratch. With
    `profile` a few early steps are traced, and `profile_NAME.log` tells where their time goes.
    """
    runtime = stage.runtime
    for name, network in stage.networks.items():
        checkpoint.load_weights(folder, name, network)
        network.to(runtime.device).train()
    parameters = trainable(stage.networks.values())
    runtime.broadcast([p.data for p in parameters])
    r = stage.recipe
    optimizer = torch.optim.AdamW(
        parameters, lr=r.lr, betas=r.betas, weight_decay=r.weight_decay, fused=runtime.device.type == "cuda"
    )
    ema, clipper = Ema(parameters, r.ema), AdaptiveGradClipper()
    state_path = folder / "state" / f"{stage.name}.0.pt"  # process 0's, for all: they are at one step
    step = _restore(state_path, stage, optimizer, ema, runtime)
    record = RunLog(folder / "train.log", stage.name)
    started = saved = time.perf_counter()
    first, skipped = step, 0
    origin = 0 if in_total else first
    sums: dict[str, Tensor] = {}
    tracer = _tracer(folder / f"profile_{stage.name}.log", runtime) if profile else None
    progress = 1.0 if max_steps is not None and step - origin >= max_steps > 0 else 0.0
    while progress < 1.0:
        spent = time.perf_counter() - started
        progress = runtime.agreed(max(spent / seconds, (step - origin + 1) / max_steps if max_steps else 0.0))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(rate * r.lr, step - origin, progress, r.warmup, decay)
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast():
            terms = stage.losses(min(progress, 1.0))
        loss = torch.stack([v for k, v in terms.items() if not k.startswith("_")]).sum()
        loss.backward()
        runtime.average(gradients(parameters))
        norm = clipper.clip(parameters)
        step += 1
        if math.isfinite(norm):
            optimizer.step()
            ema.update()
        else:
            skipped += 1
        for k, v in {"loss": loss, **terms}.items():
            sums[k] = sums.get(k, 0.0) + v.detach()
        if runtime.rank == 0 and (_milestone(step - first) or progress >= 1.0):
            means = {k: float(v) / max(_since(step - first), 1) for k, v in sums.items()}
            per_second = (step - first) / (time.perf_counter() - started)
            record.write(
                step=step,
                **means,
                grad=norm,
                lr=optimizer.param_groups[0]["lr"],
                per_second=per_second,
                skipped=skipped,
            )
            sums = {}
        if tracer is not None:
            tracer.step()
        if time.perf_counter() - saved > save_every:
            _save(state_path, folder, stage, optimizer, ema, step)
            saved = time.perf_counter()
    if tracer is not None:
        tracer.stop()
    _save(state_path, folder, stage, optimizer, ema, step)
    return step


def _tracer(path: Path, runtime: Runtime) -> torch.profiler.profile:
    """A running profiler that writes a table of five steps, once the first ones have warmed up."""
    order = "self_cuda_time_total" if runtime.device.type == "cuda" else "self_cpu_time_total"

    def write(made: torch.profiler.profile) -> None:
        path.write_text(made.key_averages().table(sort_by=order, row_limit=40), encoding="utf-8")

    tracer = torch.profiler.profile(
        schedule=torch.profiler.schedule(wait=60, warmup=2, active=5, repeat=1), on_trace_ready=write
    )
    tracer.start()
    return tracer


def _milestone(steps: int) -> bool:
    return steps in (1, 10, 30) or steps % 100 == 0


def _since(steps: int) -> int:
    """Steps since the milestone before this one."""
    before = [m for m in (0, 1, 10, 30) if m < steps] + ([(steps - 1) // 100 * 100] if steps > 100 else [])
    return steps - max(before)


def _save(
    path: Path, folder: Path, stage: Stage, optimizer: torch.optim.Optimizer, ema: Ema, step: int
) -> None:
    if stage.runtime.rank > 0:
        return
    state = {
        "networks": {k: v.state_dict() for k, v in stage.networks.items()},
        "shadow": ema.shadow,
        "ema_steps": ema.steps,
        "optimizer": optimizer.state_dict(),
        "step": step,
        "random": torch.get_rng_state(),
    }
    checkpoint.save_state(path, state)
    ema.swap()
    for name, network in stage.networks.items():
        checkpoint.save_weights(folder, name, network)
    ema.swap()


def _restore(path: Path, stage: Stage, optimizer: torch.optim.Optimizer, ema: Ema, runtime: Runtime) -> int:
    state = checkpoint.load_state(path, runtime.device)
    if state is None:
        return 0
    for name, network in stage.networks.items():
        network.load_state_dict(state["networks"][name])
    for shadow, kept in zip(ema.shadow, state["shadow"], strict=True):
        shadow.copy_(kept)
    ema.steps = state["ema_steps"]
    optimizer.load_state_dict(state["optimizer"])
    step = int(state["step"])
    if runtime.rank == 0:
        torch.set_rng_state(state["random"].cpu())
    else:  # numbers of its own, which it has not drawn yet
        torch.manual_seed(torch.initial_seed() + 1_000_003 * step)
    return step
