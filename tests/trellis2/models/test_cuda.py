"""The networks on CUDA: against the CPU, fast implementations against torch's own, recorded against not."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

from tests.trellis2.sparse.voxels import random_voxels
from trellis2.models import MODELS, RecordedFlow, recorded_flow
from trellis2.nn.tokens import PixelTokens
from trellis2.samplers import FlowEulerGuidanceIntervalSampler
from trellis2.sparse import SparseTensor, neighbor_table

from .configs import TINY

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# Heads of 64 channels, as every kernel takes.
FLOW = {"model_channels": 192, "num_heads": 3, "num_blocks": 4}
# A decoder whose widths reach the block shapes of large convolutions.
WIDE = {"model_channels": [256, 128, 64]}
LIMIT = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 2e-2}
PARAMETERS = {"steps": 8, "guidance_strength": 5.0, "guidance_rescale": 0.5, "guidance_interval": (0.4, 1.0)}


def network(name: str, dtype: torch.dtype = torch.float32, **overrides: Any) -> Any:
    """A model on the CPU whose zero-initialised layers are random too."""
    torch.manual_seed(3)
    model = MODELS[name](**{**TINY[name], **overrides}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model.convert_to(dtype).requires_grad_(False)


def error(out: torch.Tensor, expected: torch.Tensor) -> float:
    out, expected = out.double().cpu(), expected.double().cpu()
    return float((out - expected).norm() / expected.norm())


def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELEMENTWISE_BACKEND", "torch")
    monkeypatch.setenv("SPARSE_CONV_BACKEND", "torch")
    monkeypatch.setenv("ATTN_BACKEND", "sdpa")
    monkeypatch.setenv("TRELLIS2_CUDA_GRAPHS", "0")


@pytest.mark.parametrize("counts", [[300], [200, 200], [90, 140]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_flow_forward(dtype: torch.dtype, counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("SLatFlowModel", dtype, **FLOW)
    x, t = random_voxels(counts, 8, size=8), torch.full((len(counts),), 700.0)
    cond = torch.randn(len(counts), 37, 20)
    expected = model(x, t, cond).feats
    model.cuda()
    inputs = x.cuda(), t.cuda(), cond.cuda()
    assert error(model(*inputs).feats, expected) < LIMIT[dtype]
    without_kernels(monkeypatch)
    assert error(model(*inputs).feats, expected) < LIMIT[dtype]


@pytest.mark.parametrize("blocks", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_replayed_steps_equal_direct_ones(
    dtype: torch.dtype, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_flow, "SEGMENT_BLOCKS", blocks)
    model = network("SparseStructureFlowModel", dtype, **FLOW).cuda()
    recorded = RecordedFlow(model)
    context = recorded.prepare_cond(torch.randn(1, 9, 20, device="cuda"))
    for step in range(4):
        x, t = torch.randn(1, 2, 4, 4, 4, device="cuda"), torch.full((1,), 1000.0 - step, device="cuda")
        assert torch.equal(recorded(x, t, context), model(x, t, context.cache))
    assert len(context.recordings) == 1


@torch.no_grad()
def test_weights_that_moved_are_recorded_anew() -> None:
    model = network("SparseStructureFlowModel", **FLOW).cuda()
    recorded = RecordedFlow(model)
    x, t = torch.randn(1, 2, 4, 4, 4, device="cuda"), torch.full((1,), 500.0, device="cuda")
    cond = torch.randn(1, 9, 20, device="cuda")
    recorded(x, t, recorded.prepare_cond(cond))
    model.out_layer.weight = torch.nn.Parameter(2 * model.out_layer.weight, requires_grad=False)
    context = recorded.prepare_cond(cond)
    for _ in range(3):
        assert torch.equal(recorded(x, t, context), model(x, t, cond))


@torch.no_grad()
def test_the_structures_recording_serves_the_next_run() -> None:
    model = network("SparseStructureFlowModel", **FLOW).cuda()
    recorded = RecordedFlow(model)
    x, t = torch.randn(1, 2, 4, 4, 4, device="cuda"), torch.full((1,), 500.0, device="cuda")
    recordings = []
    for _ in range(3):
        cond = torch.randn(1, 9, 20, device="cuda")
        context = recorded.prepare_cond(cond)
        replayed = recorded(x, t, context)
        recordings += context.recordings._recorded.values()
        assert torch.equal(replayed, model(x, t, cond)), "a context of no earlier run"
        del context
    assert len(set(map(id, recordings))) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_recording_reads_the_features_of_each_run(dtype: torch.dtype) -> None:
    model = network(
        "SparseStructureFlowModel", dtype, **FLOW, image_attn_mode="proj", proj_in_channels=8
    ).cuda()
    recorded = RecordedFlow(model)
    x, t = torch.randn(1, 2, 4, 4, 4, device="cuda"), torch.full((1,), 500.0, device="cuda")
    recordings = []
    for _ in range(3):
        cond = PixelTokens(torch.randn(1, 5, 20), torch.randn(1, 64, 8)).to("cuda")
        for seen in (cond, cond.null()):
            context = recorded.prepare_cond(seen)
            for _ in range(2):
                assert torch.equal(recorded(x, t, context), model(x, t, seen))
            recordings += context.recordings._recorded.values()
            del context
    assert len(set(map(id, recordings))) == 2


@torch.no_grad()
def test_memory_does_not_grow_with_runs() -> None:
    recorded = RecordedFlow(network("SparseStructureFlowModel", **FLOW).cuda())
    x, t = torch.randn(1, 2, 4, 4, 4, device="cuda"), torch.full((1,), 500.0, device="cuda")
    after = []
    for _ in range(3):
        context = recorded.prepare_cond(torch.randn(1, 9, 20, device="cuda"))
        for _ in range(3):
            recorded(x, t, context)
        assert len(context.recordings) == 1
        del context
        gc.collect()
        after.append(torch.cuda.memory_allocated())
    assert after[1] == after[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batched", [True, False])
@torch.no_grad()
def test_a_whole_sampling_run(dtype: torch.dtype, batched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = RecordedFlow(network("SLatFlowModel", dtype, **FLOW).cuda())
    noise = random_voxels([400], 4, size=10).cuda()
    shape = noise.replace(torch.randn_like(noise.feats))
    cond = torch.randn(1, 37, 20, device="cuda")

    def run() -> torch.Tensor:
        sampler = FlowEulerGuidanceIntervalSampler(1e-5, batched_guidance=batched)
        result = sampler.sample(model, noise, cond, torch.zeros_like(cond), **PARAMETERS, concat_cond=shape)
        feats: torch.Tensor = result.samples.feats
        return feats

    fast = run()
    without_kernels(monkeypatch)
    assert error(fast, run()) < LIMIT[dtype]


@torch.no_grad()
def test_neighbour_table_equals_the_cpus() -> None:
    coords = random_voxels([500, 1200], 1, size=14).coords
    assert torch.equal(neighbor_table(coords.cuda()).cpu(), neighbor_table(coords))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.no_grad()
def test_decoders(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = network("FlexiDualGridVaeDecoder", dtype, **WIDE)
    texture = network("SparseUnetVaeDecoder", dtype, **WIDE)
    z = random_voxels([40, 25], 4, size=6)
    h, _, subs = shape.decode(z)
    colours = texture(SparseTensor(z.feats, z.coords), guide_subs=subs)
    shape.cuda()
    texture.cuda()

    def on_cuda() -> tuple[torch.Tensor, torch.Tensor]:
        # The CPU's subdivision decides both: a logit next to zero may fall to either side.
        guides = [s.cuda() for s in subs]
        fresh = SparseTensor(z.feats.cuda(), z.coords.cuda())
        logits = shape.decode(fresh)[2][0]
        return logits.feats, texture(SparseTensor(z.feats.cuda(), z.coords.cuda()), guide_subs=guides).feats

    for _ in range(2):
        logits, decoded = on_cuda()
        assert error(logits, subs[0].feats) < LIMIT[dtype]
        assert error(decoded, colours.feats) < LIMIT[dtype]
        without_kernels(monkeypatch)
    assert h.feats.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.no_grad()
def test_encoders_and_structure_codec(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    x = random_voxels([150, 90], 6, size=12)
    encoder = network("SparseUnetVaeEncoder", dtype)
    expected = encoder(x)
    fresh = SparseTensor(x.feats.cuda(), x.coords.cuda())
    z = encoder.cuda()(fresh)
    assert torch.equal(z.coords.cpu(), expected.coords)
    assert error(z.feats, expected.feats) < LIMIT[dtype]
    for name, volume in (
        ("SparseStructureDecoder", torch.randn(1, 2, 4, 4, 4)),
        ("SparseStructureEncoder", (torch.rand(1, 1, 16, 16, 16) > 0.7).float()),
    ):
        model = network(name, dtype)
        expected_volume = model(volume)
        assert error(model.cuda()(volume.cuda()), expected_volume) < LIMIT[dtype]


def test_training_on_cuda_reaches_every_parameter() -> None:
    model = network("FlexiDualGridVaeEncoder", model_channels=[16, 32, 64]).requires_grad_(True).train()
    x = random_voxels([60, 40], 3, size=10)
    gradients = []
    for device in ("cpu", "cuda"):
        model = model.to(device)
        model.zero_grad()
        vertices = SparseTensor(x.feats.sigmoid().to(device), x.coords.to(device))
        model(vertices, vertices.replace(vertices.feats > 0.5)).feats.square().mean().backward()
        gradients.append([p.grad.cpu() for p in model.parameters()])
    for cpu, cuda in zip(*gradients, strict=True):
        assert error(cuda, cpu) < 1e-2
