"""Every stage's step with data on a simulated GPU: a stray tensor would cost a real one its time."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from torch import Tensor
from trellis2_training import world
from trellis2_training.checkpoint import save_weights
from trellis2_training.config import TINY
from trellis2_training.data.batches import TableBank
from trellis2_training.loop import Stage
from trellis2_training.runtime import Runtime
from trellis2_training.stages import conditioning
from trellis2_training.stages import structure as structure_stages
from trellis2_training.stages.aligned import BOTH, AlignedFlows
from trellis2_training.stages.autoencoders import MixedTexture, ShapeVae, SparseStructureVae, TextureVae
from trellis2_training.stages.conditioning import Conditioning
from trellis2_training.stages.decoders import DecoderOnFlow
from trellis2_training.stages.latents import encode_objects
from trellis2_training.stages.refiner import Refiner
from trellis2_training.stages.structure import AlignedStructureFlow, StructureDecoder, structure_latents

from tests.simulated_cuda import CUDA, simulated_cuda


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA would add (reduced precision, compiled blocks, Triton) needs a real one."""
    monkeypatch.setattr(Runtime, "autocast", lambda _: contextlib.nullcontext())
    for module in (conditioning, structure_stages):
        monkeypatch.setattr(module, "compile_blocks", lambda *_: None)
    monkeypatch.setattr(conditioning, "replayed", lambda networks, _: list(networks))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setenv("WORLD_BACKEND", "torch")
    monkeypatch.setenv("SPARSE_CONV_BACKEND", "torch")
    monkeypatch.setenv("ATTN_BACKEND", "sdpa")


def step(stage: Stage, folder: Path, progress: float = 0.0) -> dict[str, Tensor]:
    terms = stage.losses(progress)
    torch.stack([value for name, value in terms.items() if not name.startswith("_")]).sum().backward()
    for name, network in stage.networks.items():
        save_weights(folder, name, network)
    return terms


def test_every_stage_steps_on_the_gpu(tmp_path: Path) -> None:
    tables = world.table_bank(0, 8, 1)
    with simulated_cuda(networks=True):
        runtime, bank = Runtime(CUDA), TableBank(tables, CUDA, 0)
        for kind in (ShapeVae, TextureVae):
            voxels = kind(TINY, bank, runtime, budget=8_000, objects=2)
            for progress in (0.0, 0.5, 0.95):
                step(voxels, tmp_path, progress)
        structure = SparseStructureVae(TINY, bank, runtime, batch=2)
        step(structure, tmp_path)
        codes = structure_latents(bank, structure.encoder)
        joint = Conditioning(TINY, bank, runtime, codes, batch=2)
        step(joint, tmp_path)
        aligned = AlignedStructureFlow(TINY, bank, runtime, codes, joint.encoder, batch=2, most=4)
        step(aligned, tmp_path)
        step(StructureDecoder(TINY, bank, runtime, codes, joint.encoder, aligned.networks, batch=2), tmp_path)
        latents = encode_objects(TINY, bank, tmp_path, runtime, 99.0, 3)
        statistics = latents.statistics()
        flows = AlignedFlows(
            BOTH, TINY, latents, statistics, joint.encoder, runtime, 2, budget=200, every=1, batch=2
        )
        step(flows, tmp_path)
        frozen = {**aligned.networks, "ss_dec": structure.decoder, "pixel_map": flows.pixel_map}
        step(Refiner(TINY, bank, runtime, joint.encoder, frozen, batch=2, fresh=2, first=1, most=2), tmp_path)
        mixed = MixedTexture(TINY, bank, runtime, voxels.encoder, budget=8_000, objects=2)
        decoder = DecoderOnFlow(
            TINY,
            latents,
            flows.pictures,
            statistics,
            flows.flows["shape_flow"],
            flows.pixel_map,
            runtime,
            objects=2,
            side=32,
        )
        terms = [step(stage, tmp_path) for stage in (mixed, decoder)]
    assert all(bool(value.detach().isfinite()) for made in terms for value in made.values())
