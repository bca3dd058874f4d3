"""What a run leaves: full state for going on with the same machine, and slim averaged weights that travel."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trellis2.conditioning.pixel_map import CameraHead
from trellis2.errors import CheckpointError

from .config import MiniConfig

# Which networks travel in one file (file stem: network names).
SLIM_FILES = {
    "front": ("ss_enc", "ss_dec", "ss_heads", "encoder", "dense_head"),
    "shape": ("shape_enc", "shape_dec"),
    "tex": ("tex_enc", "tex_dec"),
    "ss_flow": ("ss_flow",),
    "shape_flow": ("shape_flow",),
    "tex_flow": ("tex_flow",),
    "pixel": ("pixel_map", "pixel_head"),
    "structure": ("structure_map", "camera_head", "structure_head"),
    "refiner": ("structure_refiner",),
    "matting": ("matting",),
    "base_color": ("base_color",),
}


def weights_path(folder: Path, network: str) -> Path:
    """Averaged weights of one network in a working folder."""
    return folder / "weights" / f"{network}.pt"


def save_weights(folder: Path, network: str, module: nn.Module) -> None:
    """Write a network's weights (float32) for the stages after it; the write is atomic."""
    path = weights_path(folder, network)
    path.parent.mkdir(parents=True, exist_ok=True)
    _atomic_save({k: v.detach().cpu() for k, v in module.state_dict().items()}, path)


def _atomic_save(value: Any, path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(value, partial)
    partial.replace(path)


def save_statistics(folder: Path, statistics: dict[str, torch.Tensor]) -> None:
    """Write the latents' means and spreads, which the flows and the export need."""
    path = statistics_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    _atomic_save(statistics, path)


def load_statistics(folder: Path) -> dict[str, torch.Tensor]:
    """`shape_mean`, `shape_std`, `texture_mean`, `texture_std`, each `[C]` float32."""
    statistics: dict[str, torch.Tensor] = torch.load(statistics_path(folder), weights_only=True)
    return statistics


def statistics_path(folder: Path) -> Path:
    """The latents' statistics in a working folder."""
    return folder / "weights" / "shape_stats.pt"


def load_weights(folder: Path, network: str, module: nn.Module) -> bool:
    """Fill a network from the working folder; False when nothing was saved there."""
    path = weights_path(folder, network)
    if not path.exists():
        return False
    fixed = {k: v for k, v in module.state_dict().items() if v.is_complex()}  # tables, which do not travel
    stored = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict({**fixed, **_with_window(_as_pixel_aligned(stored, module), module)})
    return True


def _as_pixel_aligned(stored: dict[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of a plain flow for a pixel-aligned `module`, which makes the same of them: it reads nothing of
    its features yet. Others as they are.
    """
    new = {k: torch.zeros_like(v) for k, v in module.state_dict().items() if ".proj_linear." in k}
    if not new or any(k in stored for k in new):
        return stored
    return {k.replace(".cross_attn.", ".cross_attn.cross_attn_block."): v for k, v in stored.items()} | new


def _with_window(stored: dict[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of a camera head that knew no window yet, or had fewer blocks: what it lacks is fresh."""
    if not isinstance(module, CameraHead):
        return stored
    new = module.state_dict()
    return new | {
        k: torch.cat([v, new[k][len(v) :].cpu()]) if len(v) < len(new[k]) else v for k, v in stored.items()
    }


def need_network(folder: Path, config: MiniConfig, network: str, device: torch.device) -> Any:
    """A trained, frozen network on a device. Raises CheckpointError when the working folder lacks it."""
    module = config.build(network)
    if not load_weights(folder, network, module):
        raise CheckpointError(
            f"{weights_path(folder, network)} is missing; train the stage that makes {network} first"
        )
    return module.to(device).eval().requires_grad_(False)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Full state of a stage (networks, averages, optimiser, counters, random streams)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _atomic_save(state, path)


def load_state(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The full state, or None when there is none."""
    return torch.load(path, map_location=device, weights_only=True) if path.exists() else None


def export_slim(folder: Path, out: Path, stems: Collection[str] = tuple(SLIM_FILES)) -> list[Path]:
    """Gather what has been trained into fp16 files of at most 16 MiB, latent statistics included."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    written = []
    for stem, networks in SLIM_FILES.items():
        if stem not in stems:
            continue
        tensors: dict[str, torch.Tensor] = {}
        for network in networks:
            path = weights_path(folder, network)
            if path.exists():
                state = torch.load(path, map_location="cpu", weights_only=True)
                tensors |= {
                    f"{network}/{k}": v.half().contiguous() for k, v in state.items() if not v.is_complex()
                }
        stats = folder / "weights" / f"{stem}_stats.pt"
        if stats.exists():
            tensors |= {f"stats/{k}": v for k, v in torch.load(stats, weights_only=True).items()}
        if tensors:
            save_file(tensors, out / f"{stem}.safetensors")
            written.append(out / f"{stem}.safetensors")
    return written


def import_slim(source: Path, folder: Path) -> list[str]:
    """The way back: slim files into a working folder, as float32. Returns the networks found."""
    from safetensors.torch import load_file

    found: list[str] = []
    for stem in SLIM_FILES:
        path = source / f"{stem}.safetensors"
        if not path.exists():
            continue
        tensors = load_file(path)
        for name in sorted({key.split("/", 1)[0] for key in tensors}):
            part = {k.split("/", 1)[1]: v.float() for k, v in tensors.items() if k.startswith(f"{name}/")}
            if not part:
                continue
            target = (
                folder / "weights" / f"{stem}_stats.pt" if name == "stats" else weights_path(folder, name)
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                _atomic_save(part, target)
                found.append(f"{stem} {name}" if name == "stats" else name)
    return found
