"""Stages one after another in one process, each with its budget of steps or of the clock."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trellis2.errors import InvalidArgumentError

from . import checkpoint
from .config import CONFIGS, MiniConfig
from .data.batches import TableBank, load_or_make_bank
from .loop import Stage, train
from .runtime import Runtime, start
from .stages.aligned import BOTH, FLOWS, AlignedFlows
from .stages.autoencoders import MixedTexture, ShapeVae, SparseStructureVae, TextureVae
from .stages.base_color import BaseColor
from .stages.conditioning import Conditioning
from .stages.decoders import DecoderOnFlow
from .stages.latents import WHOLE, Part, encode_objects, gather, load_latents, save_part
from .stages.matting import Matting
from .stages.pictures import Pictures
from .stages.refiner import FROZEN, Refiner
from .stages.structure import AlignedStructureFlow, StructureDecoder, StructureEncoder, structure_latents

log = logging.getLogger(__name__)

STAGES = (
    "ss_vae",
    "shape_vae",
    "tex_vae",
    "encoder",
    "ss_encoder",
    "ss_joint",
    "ss_flow",
    "ss_decoder",
    "ss_refiner",
    "latents",
    "shape_flow",
    "tex_flow",
    "slat_flows",
    "shape_decoder",
    "tex_decoder",
    "matting",
    "base_color",
)
LATENTS = "latents"  # a file, made by process 0; the other stages train
WAITS = "wait"  # "wait:SECONDS:FILE" holds a process until another one has written FILE
DONE = "done"  # the folder in which a stage leaves a file of its name when it has ended


@dataclass(frozen=True)
class Settings:
    """What all stages of a run share."""

    folder: Path
    config: str = "mini"
    device: str = "auto"
    seed: int = 0
    first: int = 0  # number of the bank's first object
    objects: int = 49_152  # in the bank
    latent_objects: int = 10_000  # at most, in the latent set
    views: int = 4
    workers: int = 1
    decay: bool = True
    rate: float = 1.0  # of every recipe's learning rate
    max_steps: int | None = None  # a stage ends at whichever comes first; for dry runs
    profile: bool = False
    batch: int | None = None  # sizes of batches, as multiples of small ones


@dataclass(frozen=True)
class Budget:
    """How long a stage runs: so many steps or seconds, whichever comes first."""

    name: str
    steps: int | None = None
    seconds: float = math.inf
    detail: str = ""

    @classmethod
    def parse(cls, entry: str, steps: int | None = None) -> Budget:
        """`NAME`, `NAME:SECONDS`, `NAME:4000steps` or both, `NAME:4000steps,600`; also `latents:SECONDS:KofN`
        (one share of the objects) and `wait:SECONDS:FILE`. `steps` are those of a stage that names none.

        Raises `InvalidArgumentError`.
        """
        name, text, detail = (*entry.split(":"), "", "")[:3]
        seconds = math.inf
        try:
            for part in filter(None, text.split(",")):
                if part.endswith("steps"):
                    steps = int(part.removesuffix("steps"))
                else:
                    seconds = float(part)
        except ValueError as error:
            raise InvalidArgumentError(f"{entry}: a budget is seconds (600) or steps (4000steps)") from error
        return cls(name, steps, seconds, detail)


def run_stages(stages: list[str], settings: Settings, go_on: bool = False) -> None:
    """Run stages in order, each by its `Budget`.

    Without one a stage ends after `settings.max_steps`, latents after `settings.latent_objects`. To `go_on`
    with a run, stages that ended are passed over, and steps count from the very first one. Of several
    processes the first one alone makes the bank and latents.
    """
    runtime = start(settings.device, settings.seed)
    config = CONFIGS[settings.config]
    bank: TableBank | None = None
    ended = _ended(settings.folder) if go_on else {}
    runtime.barrier()  # nobody ends a stage before all have read what has ended
    for number, entry in enumerate(stages):
        budget = Budget.parse(entry, settings.max_steps)
        name, seconds, detail = budget.name, budget.seconds, budget.detail
        if name == WAITS:
            _wait(settings.folder / detail, seconds)
            continue
        if name not in STAGES:
            raise InvalidArgumentError(f"unknown stage {name!r}; known: {', '.join(STAGES)}, {WAITS}")
        if math.isinf(seconds) and budget.steps is None and name != LATENTS:
            raise InvalidArgumentError(f"{name} has no end: give it steps, {name}:4000steps, or seconds")
        if ended.get(name + detail) == entry:
            log.info("stage %s has ended before", entry)
            continue
        if bank is None:
            path = settings.folder / "world.pt"
            with runtime.first_alone():
                tables = load_or_make_bank(path, settings.objects, settings.workers, settings.first)
            bank = TableBank(tables, runtime.device, settings.seed * 977 + 31 * number + runtime.rank)
        started = time.perf_counter()
        if name != LATENTS:
            _run_stage(budget, config, bank, settings, runtime, go_on)
        elif runtime.rank == 0:
            part = Part.parse(detail) if detail else WHOLE
            _make_latents(part, seconds, config, bank, settings, runtime)
        runtime.barrier()  # the next stage reads what process 0 has written
        log.info("stage %s took %.0f s", name, time.perf_counter() - started)
        if runtime.rank == 0:
            (settings.folder / DONE).mkdir(exist_ok=True)
            (settings.folder / DONE / (name + detail)).write_text(entry, encoding="utf-8")
        if runtime.device.type == "cuda":
            torch.cuda.empty_cache()


def _ended(folder: Path) -> dict[str, str]:
    """Stages that ended in this folder, with the entries that they had."""
    return {path.name: path.read_text(encoding="utf-8") for path in (folder / DONE).glob("*")}


def _wait(path: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise InvalidArgumentError(
                f"{path} did not appear within {seconds:.0f} s; did another process fail?"
            )
        time.sleep(1)


def _make_latents(
    part: Part, seconds: float, config: MiniConfig, bank: TableBank, settings: Settings, runtime: Runtime
) -> None:
    most, folder = settings.latent_objects, settings.folder
    made = encode_objects(config, bank, folder, runtime, seconds, most, part)
    log.info("latents %s: %d objects", part, len(made))
    save_part(made, folder, part)


def _run_stage(
    budget: Budget, config: MiniConfig, bank: TableBank, settings: Settings, runtime: Runtime, in_total: bool
) -> None:
    started = time.perf_counter()
    name, folder = budget.name, settings.folder
    stage = _make_stage(name, config, bank, settings, runtime)
    left = budget.seconds - (time.perf_counter() - started)
    steps = train(
        stage,
        folder,
        max(left, 1.0),
        budget.steps,
        settings.decay,
        profile=settings.profile,
        rate=settings.rate,
        in_total=in_total,
    )
    log.info("%s: %d steps in total", name, steps)


def _make_stage(
    name: str, config: MiniConfig, bank: TableBank, settings: Settings, runtime: Runtime
) -> Stage:
    folder = settings.folder

    def sized(**shares: int) -> dict[str, Any]:
        """Sizes as multiples of the batch that was asked for; a stage's own otherwise."""
        return {} if settings.batch is None else {k: v * settings.batch for k, v in shares.items()}

    if name == "ss_vae":
        return SparseStructureVae(config, bank, runtime, **sized(batch=1))
    for kind in (ShapeVae, TextureVae):
        if name == kind.name:
            young = not checkpoint.weights_path(folder, kind.names[0]).exists()
            return kind(config, bank, runtime, young=young, **sized(budget=4000, objects=2))
    if name == MixedTexture.name:
        encoder = checkpoint.need_network(folder, config, "tex_enc", runtime.device)
        return MixedTexture(config, bank, runtime, encoder, **sized(budget=4000, objects=2))
    if name == Matting.name:
        return Matting(config, bank, runtime, **sized(batch=1))
    if name == "encoder":
        return Conditioning(config, bank, runtime, None, **sized(batch=1))
    if name == StructureEncoder.name:
        decoder = checkpoint.need_network(folder, config, "ss_dec", runtime.device)
        return StructureEncoder(config, bank, runtime, decoder, **sized(batch=1))
    if name == "ss_joint":
        structures = _structure_latents(config, bank, folder, runtime)
        return Conditioning(config, bank, runtime, structures, **sized(batch=1))
    encoder = checkpoint.need_network(folder, config, "encoder", runtime.device)
    if name == BaseColor.name:
        return BaseColor(config, bank, runtime, encoder, **sized(batch=1))
    if name == AlignedStructureFlow.name:
        structures = _structure_latents(config, bank, folder, runtime)
        return AlignedStructureFlow(
            config, bank, runtime, structures, encoder, folder=folder, **sized(batch=8)
        )
    if name == StructureDecoder.name:
        structures = _structure_latents(config, bank, folder, runtime)
        frozen = {
            n: checkpoint.need_network(folder, config, n, runtime.device)
            for n in ("ss_flow", "structure_map", "camera_head")
        }
        return StructureDecoder(config, bank, runtime, structures, encoder, frozen, **sized(batch=1))
    if name == Refiner.name:
        frozen = {n: checkpoint.need_network(folder, config, n, runtime.device) for n in FROZEN}
        return Refiner(config, bank, runtime, encoder, frozen, **sized(batch=1, fresh=4, first=1))
    with runtime.first_alone():
        grown = any(checkpoint.weights_path(folder, flow).exists() for flow in FLOWS)
        gather(folder, keep_statistics=grown)
    latents = load_latents(folder, runtime.device)
    statistics = checkpoint.load_statistics(folder)
    if name in (*FLOWS, BOTH):
        return AlignedFlows(
            name,
            config,
            latents,
            statistics,
            encoder,
            runtime,
            settings.views,
            seed=settings.seed,
            **sized(budget=4000, batch=4),
        )
    pictures = Pictures(config, latents, encoder, runtime, 1, 64, settings.seed)
    flow, pixel_map = (
        checkpoint.need_network(folder, config, n, runtime.device) for n in ("shape_flow", "pixel_map")
    )
    return DecoderOnFlow(
        config,
        latents,
        pictures,
        statistics,
        flow,
        pixel_map,
        runtime,
        seed=settings.seed,
        **sized(objects=1),
    )


def _structure_latents(config: MiniConfig, bank: TableBank, folder: Path, runtime: Runtime) -> Tensor:
    path = folder / f"ss_latents.{runtime.rank}.pt"
    if path.exists():
        kept: Tensor = torch.load(path, map_location=runtime.device, weights_only=True)
        if len(kept) == len(bank):
            return kept
    made = structure_latents(bank, checkpoint.need_network(folder, config, "ss_enc", runtime.device))
    torch.save(made.cpu(), path)
    return made
