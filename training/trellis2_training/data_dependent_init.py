"""How young voxel autoencoders begin: every block hands on the means of what its voxels hold.

As they are born, the blocks that change the resolution keep a few channels of their input and norm the rest
away: narrow networks then learn nothing for hundreds of steps. Here each layer in turn is fitted by least
squares on one batch, so that from the first step on a linear code of the mean input runs from the fine voxels
to the latent and back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trellis2.models.sparse_blocks import SparseConvNeXtBlock3d, SparseResBlockC2S3d, SparseResBlockS2C3d
from trellis2.models.sparse_unet_vae import SparseUnetVaeDecoder, SparseUnetVaeEncoder
from trellis2.nn.elementwise import layer_norm
from trellis2.sparse import SparseConv3d, SparseSpatial2Channel, SparseTensor
from trellis2.sparse.resample import CHILDREN, Expansion

_RIDGE = 1e-4  # of the mean square of the inputs
_RANDOM = 0.03  # share of the usual random start that stays in every convolution
_CONSTANT = 1.5  # amplitude of the constant part of a code: norms divide by it rather than by the content
_QUIET = 0.25  # amplitude of a child's content beside its constants: SiLU is nearly linear there
# Deviation e^-3 of a young posterior: with the unit noise of a plain start nothing is learnt for long.
_QUIET_LOG_VARIANCE = -6.0


def start_quiet(projection: nn.Linear | nn.Conv3d) -> None:
    """Let an untrained encoder's projection `[..., 2 * latent]` begin with little posterior noise."""
    assert projection.bias is not None
    latent = projection.bias.shape[0] // 2
    with torch.no_grad():
        projection.weight[latent:] *= 0.1
        projection.bias[latent:] = _QUIET_LOG_VARIANCE


@torch.no_grad()
def whiten(projection: nn.Linear, features: Tensor) -> None:
    """Start the latent's mean at the strongest principal components of `features` `[N, C]`, centred and of
    unit variance: one direction holds most of the variance, and gradients would follow it alone.
    """
    latent = projection.out_features // 2
    features = features.float()
    mean = features.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((features - mean).T))  # ascending
    rows = vectors[:, -latent:].T / values[-latent:, None].clamp(min=1e-6).sqrt()
    projection.weight[:latent] = rows
    projection.bias[:latent] = -rows @ mean


def means_by_level(x: SparseTensor, levels: int) -> list[Tensor]:
    """Means `[N_i, C]` of features over the voxels of 0, 1, ... `levels` halvings, rows as every network
    orders them; the finest first.
    """
    merge = SparseSpatial2Channel()
    channels = x.feats.shape[1] + 1
    sums = x.replace(torch.cat([x.feats, torch.ones_like(x.feats[:, :1])], 1))
    means = [x.feats]
    for _ in range(levels):
        stacked = merge(sums)
        sums = stacked.replace(stacked.feats.unflatten(1, (CHILDREN, channels)).sum(1))
        means.append(sums.feats[:, :-1] / sums.feats[:, -1:])
    return means


@torch.no_grad()
def start_encoder(encoder: SparseUnetVaeEncoder, x: SparseTensor, contents: Sequence[Tensor]) -> SparseTensor:
    """Fit an encoder to hand on `contents`; returns the latent's mean.

    `x` is what its first layer takes; `contents` `[N_i, K]` are what voxels hold at each level, the finest
    first.
    """
    contents = [_standard(c) for c in contents]
    _fit(encoder.input_layer, x.feats, _code(contents[0], encoder.input_layer.out_features))
    h = x.replace(encoder.input_layer(x.feats))
    for i, level in enumerate(encoder.blocks):
        for block in level:  # type: ignore[attr-defined]
            if isinstance(block, SparseResBlockS2C3d):
                _start_down(block, h, contents[i], contents[i + 1])
            else:
                _hush(block)
            h = block(h)
    last = layer_norm(h.feats)
    whiten(encoder.to_latent, last)
    start_quiet(encoder.to_latent)
    return h.replace(encoder.to_latent(last).chunk(2, dim=1)[0])


@torch.no_grad()
def start_decoder(
    decoder: SparseUnetVaeDecoder, z: SparseTensor, contents: Sequence[Tensor], outputs: Tensor
) -> None:
    """Fit a decoder to read `contents` from the latent and hand them on.

    `z` remembers the voxels that it came from; `outputs` `[N_0, D]` are what the first D outputs should be.
    """
    contents = [_standard(c) for c in reversed(contents)]
    _fit(decoder.from_latent, z.feats, _code(contents[0], decoder.from_latent.out_features))
    h = z.replace(decoder.from_latent(z.feats))
    for i, level in enumerate(decoder.blocks):
        for block in level:  # type: ignore[attr-defined]
            if isinstance(block, SparseResBlockC2S3d):
                h = _start_up(block, h, contents[i + 1])
            else:
                _hush(block)
                h = block(h)
    _fit(decoder.output_layer, layer_norm(h.feats), outputs)


def _start_down(block: SparseResBlockS2C3d, x: SparseTensor, fine: Tensor, coarse: Tensor) -> None:
    normed = block.norm1(x.feats, silu=True)
    share = block.out_channels // CHILDREN
    child = torch.cat([fine.new_tensor([[_CONSTANT, -_CONSTANT]]).expand(len(fine), 2), _QUIET * fine], 1)
    _fit_centre(block.conv1, normed, child[:, :share])
    h = block.downsample(block.conv1(x.replace(normed)))
    _fit_centre(block.conv2, block.norm2(h.feats, silu=True), _code(coarse, block.out_channels))


def _start_up(block: SparseResBlockC2S3d, x: SparseTensor, fine: Tensor) -> SparseTensor:
    """Every child has its own rows of the first convolution. Returns the block's output."""
    normed = block.norm1(x.feats, silu=True)
    code = _code(fine, block.out_channels)
    expansion = Expansion.of(x)
    parent, child = expansion.slots // CHILDREN, expansion.slots % CHILDREN
    solutions = [_solve(normed[parent[child == k]], code[child == k]) for k in range(CHILDREN)]
    weights, biases = zip(*solutions, strict=True)
    _set_centre(block.conv1, torch.cat(weights), torch.cat(biases))
    h = expansion.apply(block.conv1(x.replace(normed)).feats)
    _fit_centre(block.conv2, block.norm2(h.feats, silu=True), code)
    if not block.pred_subdiv:
        finer: SparseTensor = block(x)
        return finer
    exists = torch.zeros(len(x.feats) * CHILDREN, device=fine.device).index_fill_(0, expansion.slots, 1.0)
    _fit(block.to_subdiv, x.feats, 4 * exists.view(-1, CHILDREN) - 2)  # as logits
    finer = block(x)[0]
    return finer


def _hush(block: nn.Module) -> None:
    """A block that keeps the resolution begins as little more than the identity."""
    assert isinstance(block, SparseConvNeXtBlock3d)
    last: nn.Linear = block.mlp[-1]  # type: ignore[assignment]
    last.weight.mul_(_RANDOM)


def _standard(x: Tensor) -> Tensor:
    return (x.float() - x.mean(0)) / x.std(0).clamp(min=0.02)


def _code(contents: Tensor, width: int) -> Tensor:
    """Contents `[N, K]` and a constant as `[N, width]`, neighbouring channels opposite to each other.

    silu(a) - silu(-a) = a: pairs pass the activation undistorted, and cancel in the shortcuts, which average
    or repeat neighbours. The constant takes a quarter of the pairs, so that a norm hardly changes the rest.
    """
    pairs, size = width // 2, contents.shape[1]
    constants = max(pairs // 4, 1)
    turns = -(-(pairs - constants) // size)
    mixed = [contents @ nn.init.orthogonal_(contents.new_empty(size, size)) for _ in range(turns)]
    fixed = contents.new_full((len(contents), constants), _CONSTANT)
    single = torch.cat([fixed, *mixed], 1)[:, :pairs]
    return torch.stack([single, -single], 2).flatten(1)


def _solve(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Weight `[D, C]` and bias `[D]` of the ridge regression of targets `[N, D]` on inputs `[N, C]`."""
    known = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1).double()
    square = known.T @ known
    square.diagonal().add_(_RIDGE * square.diagonal().mean().clamp(min=1e-9))
    solution = torch.linalg.solve(square, known.T @ targets.double()).float()
    return solution[:-1].T, solution[-1]


def _fit(layer: nn.Linear, inputs: Tensor, targets: Tensor) -> None:
    """The layer's first outputs, as many as there are targets."""
    weight, bias = _solve(inputs, targets)
    layer.weight[: len(weight)] = weight
    layer.bias[: len(bias)] = bias


def _fit_centre(conv: SparseConv3d, inputs: Tensor, targets: Tensor) -> None:
    weight, bias = _solve(inputs, targets)
    _set_centre(conv, weight, bias)


def _set_centre(conv: SparseConv3d, weight: Tensor, bias: Tensor) -> None:
    """The taps at the voxel itself, on top of a faint random start."""
    conv.reset_parameters()
    conv.weight.mul_(_RANDOM)
    conv.weight[: len(weight), 1, 1, 1] += weight
    assert conv.bias is not None
    conv.bias.zero_()
    conv.bias[: len(bias)] = bias
