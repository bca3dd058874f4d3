"""The whole training as phases of wall-clock time: which stages run side by side, and for how long.

Phase 0 makes everything once, roughly. Phase 1 trains the autoencoders and the image encoder, phase 2 (as
often as wanted) the flows on top of them, phase 3 the flows to their end, and the decoders for what they
make. Processes run side by side: small networks leave a large GPU idle between launches, and one that fails
takes no other with it. They take the GPUs in turn. A phase picks up whatever the working folder or the
imported slim weights hold.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from .checkpoint import export_slim, weights_path
from .data.batches import load_or_make_bank
from .export import import_weights
from .stage_runner import DONE, WAITS, Settings
from .stages.latents import Part

log = logging.getLogger(__name__)

# Seconds kept back for the last save, the export and (from phase 2) the evaluation.
_FINISH = 20.0
_LATENT_MAKERS = 9  # processes: their steps wait for launches
_LATENT_SHARE = 0.14
_ENCODER_SHARE = 0.12
_START = 12.0  # importing torch and starting CUDA in a process


def schedule_of(phase: int, seconds: float, folder: Path) -> list[list[str]]:
    """The stages of each process of a phase, given the seconds that training may take."""
    s = seconds - _START

    def stage(name: str, share: float) -> str:
        return f"{name}:{share * s:.0f}"

    structure = [stage("ss_vae", 0.14), stage("ss_joint", 0.46), stage("ss_flow", 0.38)]
    flows = [stage("slat_flows", 0.3), stage("shape_decoder", 0.04), stage("tex_decoder", 0.04)]
    if phase == 0:
        encoded = f"{WAITS}:{s:.0f}:{DONE}/ss_joint"
        autoencoders = [stage("shape_vae", 0.24), stage("tex_vae", 0.16)]
        return [[*autoencoders, stage("latents", 0.14), encoded, *flows], structure]
    if phase == 1:
        structure = [stage("ss_vae", 0.26), stage("ss_joint", 0.72)]
        return [[stage("shape_vae", 0.98)], structure, [stage("tex_vae", 0.98)]]
    return _flow_schedule(s, folder, phase == 3)


def _flow_schedule(s: float, folder: Path, last: bool) -> list[list[str]]:
    """Of two GPUs the first one is for the structured flows, the second one for the structure's; `last` with
    their decoders. On both there are processes that make latents, and end.
    """
    structured: list[str] = []
    structure: list[str] = []
    helpers: list[list[str]] = []
    left = of_structure = 0.98 * s
    if not weights_path(folder, "ss_enc").exists():  # a package lacks it
        structure.append(f"ss_encoder:{_ENCODER_SHARE * s:.0f}")
        of_structure -= _ENCODER_SHARE * s
    if not (folder / "latents.pt").exists():
        parts = [str(Part(i, _LATENT_MAKERS)) for i in range(_LATENT_MAKERS)]
        made = f"latents:{_LATENT_SHARE * s:.0f}"
        structured.append(f"{made}:{parts[0]}")
        helpers = [[f"{made}:{part}"] for part in parts[1:]]
        structured += [f"{WAITS}:{s:.0f}:{DONE}/latents{part}" for part in parts[1:]]
        left -= _LATENT_SHARE * s
    share = 0.72 if last else 1.0
    structured.append(f"slat_flows:{share * left:.0f}")
    structure.append(f"ss_flow:{share * of_structure:.0f}")
    if last:
        structured.append(f"shape_decoder:{(1 - share) * left:.0f}")
        structure += [
            f"{name}:{(1 - share) / 2 * of_structure:.0f}" for name in ("ss_decoder", "tex_decoder")
        ]
    return [structured, structure, *helpers]


def run_schedule(
    phase: int,
    seconds: float,
    settings: Settings,
    export: Path | None,
    resume: Sequence[Path],
    evaluate: int,
) -> bool:
    """Run one phase within `seconds`; True when every process ended well. What was trained is exported in any
    case.
    """
    began = time.monotonic()
    folder = settings.folder
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / DONE, ignore_errors=True)
    for source in resume:
        log.info("imported from %s: %s", source, ", ".join(import_weights(source, folder)) or "nothing new")
    load_or_make_bank(folder / "world.pt", settings.objects, settings.workers, settings.first)
    log.info("bank ready after %.0f s", time.monotonic() - began)
    measuring = (0.3 * evaluate + 35) if evaluate else 0
    left = seconds - (time.monotonic() - began) - _FINISH - measuring
    good = _run_side_by_side(schedule_of(phase, left, folder), settings, left + 20)
    if export is not None:
        for path in export_slim(folder, export):
            log.info("exported %s, %.1f MB", path.name, path.stat().st_size / 1e6)
        _pack_logs(folder, export)
    if evaluate:
        limit = seconds - (time.monotonic() - began)
        good &= _evaluate(settings, evaluate, export, limit)
    return good


def _command(stages: Sequence[str], settings: Settings) -> list[str]:
    options = {
        "--workdir": settings.folder,
        "--config": settings.config,
        "--device": settings.device,
        "--seed": settings.seed,
        "--first": settings.first,
        "--objects": settings.objects,
        "--latent-objects": settings.latent_objects,
        "--views": settings.views,
        "--workers": settings.workers,
        "--max-steps": settings.max_steps,
        "--batch": settings.batch,
        "--rate": settings.rate,
    }
    flags = [str(x) for k, v in options.items() if v is not None for x in (k, v)]
    flags += [] if settings.decay else ["--no-decay"]
    flags += ["--profile"] if settings.profile else []
    return [sys.executable, "-m", "trellis2_training", "stages", *stages, *flags]


def _run_side_by_side(processes: list[list[str]], settings: Settings, limit: float) -> bool:
    deadline = time.monotonic() + limit
    running = []
    # Several processes share the card: grow allocations in place of keeping fragments.
    environment = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", **os.environ}
    cards = torch.cuda.device_count()
    for i, stages in enumerate(processes):
        if cards > 1:
            environment["CUDA_VISIBLE_DEVICES"] = str(i % cards)
        path = settings.folder / f"stages{i}.log"
        output = path.open("a", encoding="utf-8")
        running.append(
            (
                stages,
                path,
                output,
                subprocess.Popen(_command(stages, settings), stdout=output, stderr=output, env=environment),
            )
        )
    good = True
    for stages, path, output, process in running:
        try:
            code = process.wait(max(deadline - time.monotonic(), 1.0))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            log.error("%s ran past its time and was ended; its last save stands", " ".join(stages))
        output.close()
        tail = path.read_text(encoding="utf-8").splitlines()[-(12 if code else 2) :]
        log.log(
            logging.ERROR if code else logging.INFO,
            "%s ended with %d\n%s",
            " ".join(stages),
            code,
            "\n".join(tail),
        )
        good &= code == 0
    return good


def _pack_logs(folder: Path, export: Path) -> None:
    lines = [(folder / "train.log").read_text(encoding="utf-8")] if (folder / "train.log").exists() else []
    others = [*folder.glob("stages*.log"), *folder.glob("profile_*.log")]
    lines += [f"--- {p.name}\n{p.read_text(encoding='utf-8')[-20_000:]}" for p in sorted(others)]
    (export / "train.log").write_text("\n".join(lines), encoding="utf-8")


def _run_within(command: list[str], seconds: float) -> bool:
    """Run a command and, past its time, end it with all that it started."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    if code:
        log.error("%s ended with %d", " ".join(command[2:5]), code)
    return code == 0


def _evaluate(settings: Settings, objects: int, export: Path | None, seconds: float) -> bool:
    """Of image to 3D."""
    target, out = settings.folder / "package", settings.folder / "evaluation.json"
    command = [sys.executable, "-m", "trellis2_training"]
    shared = ["--workdir", str(settings.folder), "--config", settings.config]
    limit = max(seconds - 30, 20)
    options = ["--objects", str(objects), "--device", settings.device, "--out", str(out)]
    options += ["--processes", str(min(settings.workers, 8)), "--seconds", f"{limit - 25:.0f}"]
    options += ["--sheet", str(settings.folder / "sheet.png")]
    good = _run_within([*command, "export", str(target), *shared], 60) and _run_within(
        [*command, "evaluate", str(target), *options], limit
    )
    if good and export is not None:
        shutil.copy(settings.folder / "sheet.png", export / "sheet.png")
        with (export / "train.log").open("a", encoding="utf-8") as file:
            file.write("\n--- evaluation.json\n" + out.read_text(encoding="utf-8"))
    return good
