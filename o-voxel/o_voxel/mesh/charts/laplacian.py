"""Linear systems of the charts' cotangent Laplacian: exactly by factors, or on a GPU by conjugate gradients.

Every chart is a component of its own, so the system is singular by one translation a chart; solvers keep the
one that they are given to start from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...kernels import repeatable
from ..arrays.groups import (
    argsort_deterministic,
    expand_counts,
    group_sizes,
    group_sums,
    nonzero_1d,
    rank_of_true,
    run_starts,
)
from ..arrays.vectors import length, triangle_cross


@dataclass(frozen=True)
class Laplacian:
    """`weights` [3, F] > 0 of the edges opposite to the corners of `faces` [3, F] over vertices `positions`
    [3, W] in charts `owner` [W], ascending; sum of w (x_a - x_b)^2 over all edges is its quadratic form."""

    faces: Tensor
    weights: Tensor
    owner: Tensor
    positions: Tensor

    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both ends [3 F] and the weight [3 F] of every edge of every triangle."""
        return self.faces.roll(-1, 0).reshape(-1), self.faces.roll(1, 0).reshape(-1), self.weights.reshape(-1)


class Solver(Protocol):
    def __init__(self, system: Laplacian) -> None: ...

    def solve(self, target: Tensor, guess: Tensor) -> Tensor:
        """x [2, W] with L x = target [2, W], which sums to 0 in each chart; near `guess` [2, W] already."""


def chosen_solver(device: torch.device) -> type[Solver]:
    """Factors on the CPU, where they are several times faster, and conjugate gradients elsewhere."""
    return Factors if device.type == "cpu" else ConjugateGradients


class Factors:
    """SuperLU's factors, made once and used for every right-hand side."""

    def __init__(self, system: Laplacian) -> None:
        from scipy.sparse import coo_matrix
        from scipy.sparse.linalg import splu

        count = len(system.owner)
        a, b, weights = system.edges()
        diagonal = group_sums(torch.cat([a, b]), weights.repeat(2), count)
        self._anchors = nonzero_1d(run_starts(system.owner))  # one vertex a chart fixes its translation
        diagonal[self._anchors] += 1.0
        nodes = torch.arange(count)
        values = torch.cat([-weights, -weights, diagonal]).numpy()
        ends = torch.cat([a, b, nodes]).numpy(), torch.cat([b, a, nodes]).numpy()
        matrix = coo_matrix((values, ends), shape=(count, count)).tocsc()
        self._factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})

    def solve(self, target: Tensor, guess: Tensor) -> Tensor:
        pinned = target.clone()
        pinned[:, self._anchors] += guess[:, self._anchors]
        solved = self._factors.solve(np.asfortranarray(pinned.numpy().T))
        return torch.from_numpy(np.ascontiguousarray(solved.T))


class _SparseMatrix:
    """A matrix [R, C] of `values` float64 at ascending `rows` and at `columns`, all [N]; `source` [C, 2] is
    what `multiply` multiplies it with, into `product` [R, 2]."""

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, count: int, source: Tensor) -> None:
        from .laplacian_kernels import sparse_product_kernel

        sizes = group_sizes(rows, count).cumsum(0)
        offsets = torch.cat([sizes.new_zeros(1), sizes]).int()
        self.product = source.new_empty(count, 2)
        inputs = [offsets, columns.int(), values.contiguous(), source, self.product]
        self.multiply = repeatable(sparse_product_kernel, count, inputs, source.device)


class ConjugateGradients:
    """Conjugate gradients in torch and one kernel, with two levels of preconditioning and few waits for a
    GPU.

    The fine level is the diagonal. The coarse one gives each chart's patches (what of it lies in one cell of
    a grid in space) one unknown each and solves for those exactly by a dense inverse, which spares the many
    iterations that a change takes to cross a large chart. Charts are scaled to edges about 1 long, so that
    each of them counts by its vertices, whatever its size. What `most_iterations` leave is left: flattening
    checks each chart anyway.
    """

    tolerance = 1e-3  # root mean square error of the edges, of their length
    check_every = 5
    most_iterations = 500
    patches = 1024
    summed_at_once = 16  # members of a patch

    def __init__(self, system: Laplacian) -> None:
        count = len(system.owner)
        a, b, weights = system.edges()
        keys = torch.cat([a * count + b, b * count + a])
        order = argsort_deterministic(keys)
        keys = keys.index_select(0, order)
        opens = run_starts(keys)
        weights = weights.repeat(2).index_select(0, order)
        entry = nonzero_1d(opens & (torch.div(keys, count, rounding_mode="floor") != keys % count))
        total = group_sums(opens.cumsum(0) - 1, weights, len(keys))
        weights = total.index_select(0, (opens.cumsum(0) - 1).index_select(0, entry))
        keys = keys.index_select(0, entry)
        row = torch.div(keys, count, rounding_mode="floor")
        columns = keys - row * count
        diagonal = group_sums(row, weights, count)
        self._inverse = torch.where(diagonal > 0, 1.0 / diagonal.clamp_min(1e-30), 0.0)[:, None]
        self._scale = _edge_lengths(system)[:, None]
        self._direction, self._residual = diagonal.new_empty(2, count, 2)
        nodes = torch.arange(count, device=row.device)
        rows, order = torch.cat([row, nodes]).sort(stable=True)
        columns_and_own = torch.cat([columns, nodes]).index_select(0, order)
        values = torch.cat([-weights, diagonal]).index_select(0, order)
        self._laplacian = _SparseMatrix(rows, columns_and_own, values, count, self._direction)
        self._patch, self._coarse = self._coarse_level(system, row, columns, weights, diagonal)
        order = argsort_deterministic(self._patch)
        patches = self._patch.index_select(0, order)
        _, place = expand_counts(group_sizes(patches, len(self._coarse)))
        opens = place % self.summed_at_once == 0
        part = opens.cumsum(0) - 1
        self._patch_of_part = patches.index_select(0, nonzero_1d(opens))
        parts = len(self._patch_of_part)
        self._parts = _SparseMatrix(part, order, torch.ones_like(diagonal), parts, self._residual)

    def _coarse_level(
        self, system: Laplacian, row: Tensor, columns: Tensor, weights: Tensor, diagonal: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The patch [W] of each vertex, and the inverse [P + 1, P + 1] of the system between patches; the
        last patch, of charts too small to need one, is left alone."""
        patch, count = _patches(system, self.patches)
        coarse = diagonal.new_zeros((count + 1) ** 2)
        columns, row = patch.index_select(0, columns), patch.index_select(0, row)
        coarse -= group_sums(row * (count + 1) + columns, weights, len(coarse))
        coarse += group_sums(patch * (count + 2), diagonal, len(coarse))
        coarse = coarse.reshape(count + 1, count + 1)
        inner = coarse[:count, :count]
        chart = system.owner.new_zeros(count + 1).index_copy_(0, patch, system.owner)[:count]
        typical = inner.diagonal().mean().clamp_min(1e-9)
        # The system is singular: give each chart's translation a cost, which changes no other solution.
        inner += (chart[:, None] == chart) * typical
        inner.diagonal().add_(1e-9 * typical)
        whole = torch.zeros_like(coarse)
        whole[:count, :count] = torch.cholesky_inverse(torch.linalg.cholesky(inner))
        return patch, whole

    def _precondition(self) -> Tensor:
        """Of the residual."""
        self._parts.multiply()
        shares = self._inverse.new_zeros(2, len(self._coarse))
        shares.index_add_(1, self._patch_of_part, self._parts.product.T)
        corrections = torch.stack([torch.mv(self._coarse, axis) for axis in shares], dim=1)
        return torch.addcmul(corrections.index_select(0, self._patch), self._inverse, self._residual)

    def solve(self, target: Tensor, guess: Tensor) -> Tensor:
        direction, residual, ahead = self._direction, self._residual, self._laplacian.product
        x = guess.T / self._scale
        direction.copy_(x)
        self._laplacian.multiply()
        torch.sub(target.T / self._scale, ahead, out=residual)
        step = self._precondition()
        direction.copy_(step)
        left = (residual * step).sum(dim=0)
        enough = self.tolerance**2 * len(x)
        for iteration in range(self.most_iterations):
            if iteration % self.check_every == 0 and float(left.sum()) <= enough:
                break
            self._laplacian.multiply()
            curvature = (direction * ahead).sum(dim=0)
            pace = torch.where(left > 1e-3 * enough, left / curvature, 0.0)  # far below it is only rounding
            x.addcmul_(pace, direction)
            residual.addcmul_(pace, ahead, value=-1.0)
            step = self._precondition()
            now = (residual * step).sum(dim=0)
            torch.addcmul(step, now / left.clamp_min(1e-300), direction, out=direction)
            left = now
        return (x * self._scale).T.contiguous()


def _edge_lengths(system: Laplacian) -> Tensor:
    """About the mean length of an edge [W] of each vertex's chart."""
    areas = length(triangle_cross(system.positions, system.faces))
    charts = int(system.owner[-1]) + 1
    of_charts = group_sums(system.owner.index_select(0, system.faces[0]), areas, charts)
    mean = (of_charts / group_sizes(system.owner, charts).clamp_min(1)).sqrt_()
    return torch.where(mean > 0, mean, 1.0).index_select(0, system.owner)


def _patches(system: Laplacian, wanted: int) -> tuple[Tensor, int]:
    """The patch [W] of each vertex, about `wanted` of them and at most twice as many, and their number."""
    count = len(system.owner)
    charts = int(system.owner[-1]) + 1
    large = (group_sizes(system.owner, charts) * wanted >= count).index_select(0, system.owner)
    low = system.positions.min(dim=1, keepdim=True).values
    area = 0.5 * length(triangle_cross(system.positions, system.faces)).sum()
    span = (system.positions - low).max()
    cell = float((area / wanted).sqrt().maximum(span / 2**14).clamp_min(1e-12))
    while True:
        x, y, z = ((system.positions - low) / cell).long()
        keys = ((system.owner << 15 | x) << 15 | y) << 15 | z
        order = argsort_deterministic(torch.where(large, keys, torch.iinfo(torch.int64).max))
        rank, found = rank_of_true(run_starts(keys.index_select(0, order)) & large.index_select(0, order))
        if found <= 2 * wanted:
            break
        cell *= 2.0**0.5
    patch = torch.empty_like(rank).index_copy_(0, order, rank)
    return torch.where(large, patch, found), found
