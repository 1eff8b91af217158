"""Learnable weight clipping of OmniQuant in PyTorch, written anew from its published code: rounding and its gradients.

    Shao et al., ICLR 2024; OpenGVLab/OmniQuant at 95fae1b: quantize/quantizer.py

One difference: the range of a group always includes zero.
"""

import torch


def round_through(x):
    """Rounded; its gradient is that of x."""
    return (x.round() - x).detach() + x


def clip_and_round(weight, upper, lower, bits, group_size):
    """`weight` `[rows, cols]`, logits `[rows, groups]`; gives rounded weights, differentiable in all three."""
    rows, cols = weight.shape
    size = cols if group_size is None else group_size
    groups = weight.reshape(-1, size)
    zero = torch.zeros_like(groups[:, :1])
    high = torch.cat([groups, zero], 1).amax(1, keepdim=True) * torch.sigmoid(upper.reshape(-1, 1))
    low = torch.cat([groups, zero], 1).amin(1, keepdim=True) * torch.sigmoid(lower.reshape(-1, 1))
    max_code = 2**bits - 1
    scale = ((high - low) / max_code).clamp(min=1e-5, max=1e4)
    zero_point = (-low / scale).clamp(min=-1e4, max=1e4).round().detach()
    codes = (round_through(groups / scale) + zero_point).clamp(0, max_code)
    return ((codes - zero_point) * scale).reshape(rows, cols)
