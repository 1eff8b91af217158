"""The published compression algorithms in PyTorch, each written anew from its published code, operation by operation.

    rounding, GPTQ   Frantar et al., ICLR 2023; IST-DASLab/gptq at 2d65066: quant.py, gptq.py
    SparseGPT        Frantar and Alistarh, ICML 2023; IST-DASLab/sparsegpt at 147d215: sparsegpt.py
    magnitude, Wanda Sun et al., ICLR 2024; locuslab/wanda at 8e8fc87: lib/prune.py, lib/layerwrapper.py

They do the same arithmetic with the same tensor operations in the same order, so they give the same numbers and take
the same time. What is left out: moving tensors between devices, printing, layers other than linear ones.

Weights are `[rows, cols]` = `[outputs, inputs]`, float32. Statistics are those of one linear's inputs.
"""

import math
from dataclasses import dataclass

import torch


class HessianSum:
    """2 / n times the sum of x x^T over all tokens of n sequences, kept as a running mean in float32."""

    def __init__(self, cols):
        self.value = torch.zeros((cols, cols))
        self.sequences = 0

    def add(self, inputs):
        """Takes in one sequence, `[tokens, cols]`."""
        self.value *= self.sequences / (self.sequences + 1)
        self.sequences += 1
        columns = math.sqrt(2 / self.sequences) * inputs.t().float()
        self.value += columns.matmul(columns.t())


class SquareSum:
    """The sum of x^2 over all tokens, over the number of sequences, kept as a running mean in float32."""

    def __init__(self, cols):
        self.value = torch.zeros(cols)
        self.sequences = 0

    def add(self, inputs):
        """Takes in one sequence, `[tokens, cols]`."""
        self.value *= self.sequences / (self.sequences + 1)
        self.sequences += 1
        self.value += torch.norm(inputs.t().float(), p=2, dim=1) ** 2 / self.sequences


@dataclass
class GridOptions:
    bits: int = 4
    symmetric: bool = False
    mse: bool = False
    norm: float = 2.4
    steps: int = 100
    max_shrink: float = 0.8


@dataclass
class Grid:
    """One scale and zero per row, `[rows, 1]`."""

    scale: torch.Tensor
    zero: torch.Tensor
    max_code: torch.Tensor

    def codes(self, x):
        return torch.clamp(torch.round(x / self.scale) + self.zero, 0, self.max_code)

    def nearest(self, x):
        return self.scale * (self.codes(x) - self.zero)


def fit_grid(x, options):
    """The grid of every row of x."""
    max_code = torch.tensor(2**options.bits - 1)
    none = torch.zeros(x.shape[0])
    low = torch.minimum(x.min(1)[0], none)
    high = torch.maximum(x.max(1)[0], none)
    if options.symmetric:
        high = torch.maximum(torch.abs(low), high)
        negative = low < 0
        if torch.any(negative):
            low[negative] = -high[negative]
    empty = (low == 0) & (high == 0)
    low[empty] = -1
    high[empty] = 1
    scale = (high - low) / max_code
    if options.symmetric:
        zero = torch.full_like(scale, (max_code + 1) / 2)
    else:
        zero = torch.round(-low / scale)
    if options.mse:
        least = torch.full([x.shape[0]], float("inf"))
        for i in range(int(options.max_shrink * options.steps)):
            shrink = 1 - i / options.steps
            tried = (shrink * high - shrink * low) / max_code
            tried_zero = zero if options.symmetric else torch.round(-(shrink * low) / tried)
            error = Grid(tried.unsqueeze(1), tried_zero.unsqueeze(1), max_code).nearest(x)
            error -= x
            error.abs_()
            error.pow_(options.norm)
            error = torch.sum(error, 1)
            better = error < least
            if torch.any(better):
                least[better] = error[better]
                scale[better] = tried[better]
                zero[better] = tried_zero[better]
    return Grid(scale.unsqueeze(1), zero.unsqueeze(1), max_code)


@dataclass
class Rounded:
    weight: torch.Tensor
    codes: torch.Tensor
    """`[rows, groups]`"""
    scales: torch.Tensor
    """`[rows, groups]`"""
    zeros: torch.Tensor
    """Group of each column."""
    groups: torch.Tensor
    loss: float = 0.0


def round_to_nearest(weight, options, group_size=-1):
    """Every weight to the nearest point of its group's grid."""
    cols = weight.shape[1]
    size = cols if group_size == -1 else group_size
    parts = [weight[:, start : start + size] for start in range(0, cols, size)]
    grids = [fit_grid(part, options) for part in parts]
    return Rounded(
        torch.cat([g.nearest(p) for g, p in zip(grids, parts)], 1),
        torch.cat([g.codes(p) for g, p in zip(grids, parts)], 1),
        torch.cat([g.scale for g in grids], 1),
        torch.cat([g.zero for g in grids], 1),
        torch.arange(cols) // size,
    )


def inverse_factor(hessian, damping):
    """The upper Cholesky factor of the damped Hessian's inverse. Overwrites `hessian`."""
    diagonal = torch.arange(hessian.shape[0])
    hessian[diagonal, diagonal] += damping * torch.mean(torch.diag(hessian))
    factor = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    return torch.linalg.cholesky(factor, upper=True)


def gptq(
    weight,
    hessian,
    options,
    group_size=-1,
    act_order=False,
    static_groups=False,
    block_size=128,
    damping=0.01,
):
    """GPTQ's solver. Overwrites `hessian`."""
    weight = weight.clone()
    rows, cols = weight.shape
    # Before dead columns are cleared: that is where whole rows get their grid.
    grid = fit_grid(weight, options)
    grids = [grid]
    dead = torch.diag(hessian) == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    if group_size != -1:
        grids = []
        if static_groups:
            for start in range(0, cols, group_size):
                grids.append(fit_grid(weight[:, start : start + group_size], options))
    if act_order:
        order = torch.argsort(torch.diag(hessian), descending=True)
        weight = weight[:, order]
        hessian = hessian[order][:, order]
    losses = torch.zeros_like(weight)
    quantized = torch.zeros_like(weight)
    factor = inverse_factor(hessian, damping)

    group_of_step = torch.zeros(cols, dtype=torch.long)
    for start in range(0, cols, block_size):
        stop = min(start + block_size, cols)
        block = weight[:, start:stop].clone()
        block_quantized = torch.zeros_like(block)
        errors = torch.zeros_like(block)
        block_losses = torch.zeros_like(block)
        block_factor = factor[start:stop, start:stop]
        for i in range(stop - start):
            column = block[:, i]
            pivot = block_factor[i, i]
            step = start + i
            if group_size != -1:
                if static_groups:
                    place = order[step] if act_order else step
                    group_of_step[step] = place // group_size
                    grid = grids[place // group_size]
                else:
                    if step % group_size == 0:
                        # From `weight`, which lacks the feedback of this block's own columns.
                        grid = fit_grid(weight[:, step : step + group_size], options)
                        grids.append(grid)
                    group_of_step[step] = step // group_size
            nearest = grid.nearest(column.unsqueeze(1)).flatten()
            block_quantized[:, i] = nearest
            block_losses[:, i] = (column - nearest) ** 2 / pivot**2
            error = (column - nearest) / pivot
            block[:, i:] -= error.unsqueeze(1).matmul(block_factor[i, i:].unsqueeze(0))
            errors[:, i] = error
        quantized[:, start:stop] = block_quantized
        losses[:, start:stop] = block_losses / 2
        weight[:, stop:] -= errors.matmul(factor[start:stop, stop:])

    loss = torch.sum(losses).item()
    groups = group_of_step
    if act_order:
        back = torch.argsort(order)
        quantized = quantized[:, back]
        groups = groups[back]
    scales = torch.cat([g.scale for g in grids], 1)
    zeros = torch.cat([g.zero for g in grids], 1)
    return Rounded(quantized, None, scales, zeros, groups, loss)


def codes_of(rounded):
    """The codes of a result of `gptq`, which keeps values only, as published."""
    return torch.round(rounded.weight / rounded.scales[:, rounded.groups]) + rounded.zeros[:, rounded.groups]


def lowest_in_groups(scores, prune, of):
    """A mask of the `prune` lowest in every `of` neighbours of a row."""
    mask = torch.zeros_like(scores) == 1
    for start in range(0, scores.shape[1], of):
        lowest = torch.topk(scores[:, start : start + of], prune, dim=1, largest=False)[1]
        mask.scatter_(1, start + lowest, True)
    return mask


def sparsegpt(weight, hessian, ratio, prune=0, of=0, block_size=128, damping=0.01):
    """SparseGPT's solver: the new weight, the mask of what was removed, the loss. Overwrites `hessian`."""
    weight = weight.clone()
    rows, cols = weight.shape
    dead = torch.diag(hessian) == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    losses = torch.zeros(rows)
    factor = inverse_factor(hessian, damping)

    masks = []
    for start in range(0, cols, block_size):
        stop = min(start + block_size, cols)
        block = weight[:, start:stop].clone()
        kept = torch.zeros_like(block)
        errors = torch.zeros_like(block)
        block_losses = torch.zeros_like(block)
        block_factor = factor[start:stop, start:stop]
        if of == 0:
            scores = block**2 / (torch.diag(block_factor).reshape((1, -1))) ** 2
            threshold = torch.sort(scores.flatten())[0][int(scores.numel() * ratio)]
            mask = scores <= threshold
        else:
            mask = torch.zeros_like(block) == 1
        for i in range(stop - start):
            column = block[:, i]
            pivot = block_factor[i, i]
            if of != 0 and i % of == 0:
                scores = block[:, i : i + of] ** 2 / (
                    torch.diag(block_factor)[i : i + of].reshape((1, -1))
                ) ** 2
                mask.scatter_(1, i + torch.topk(scores, prune, dim=1, largest=False)[1], True)
            new = column.clone()
            new[mask[:, i]] = 0
            kept[:, i] = new
            block_losses[:, i] = (column - new) ** 2 / pivot**2
            error = (column - new) / pivot
            block[:, i:] -= error.unsqueeze(1).matmul(block_factor[i, i:].unsqueeze(0))
            errors[:, i] = error
        weight[:, start:stop] = kept
        losses += torch.sum(block_losses, 1) / 2
        weight[:, stop:] -= errors.matmul(factor[start:stop, stop:])
        masks.append(mask)
    return weight, torch.cat(masks, 1), torch.sum(losses).item()


def mask_lowest(scores, ratio, prune=0, of=0):
    """A mask of each row's lowest scores."""
    if of != 0:
        return lowest_in_groups(scores, prune, of)
    mask = torch.zeros_like(scores) == 1
    order = torch.sort(scores, dim=-1, stable=True)[1]
    mask.scatter_(1, order[:, : int(scores.shape[1] * ratio)], True)
    return mask


def wanda_scores(weight, squares):
    return torch.abs(weight) * torch.sqrt(squares.reshape((1, -1)))


def mask_same_share(scores, ratio):
    """Wanda's variant: every row loses its lowest scores up to the same share of their sum."""
    ordered = torch.sort(scores, dim=-1, stable=True)[0]
    sums = torch.cumsum(ordered, dim=1)
    whole = scores.sum(dim=1)

    def at(alpha):
        count = (sums <= (whole * alpha).reshape((-1, 1))).sum(dim=1, keepdims=True)
        # A row whose lowest score is already too much keeps all; published code would fail.
        threshold = torch.gather(ordered, 1, (count - 1).clamp(min=0))
        mask = (scores <= threshold) & (count > 0)
        return mask, mask.sum() / mask.numel()

    low, alpha, high = 0.0, 0.4, 0.8
    mask, found = at(alpha)
    while torch.abs(found - ratio) > 0.001 and high - low >= 0.001:
        if found > ratio:
            alpha, high = (alpha + low) / 2.0, alpha
        else:
            alpha, low = (alpha + high) / 2.0, alpha
        mask, found = at(alpha)
    return mask
