"""Weights that leave nothing out: fresh ones have norms that do nothing and an attention path of zero."""

from __future__ import annotations

import torch
from torch import nn


def enliven(model: nn.Module, seed: int = 0) -> None:
    """Draw every norm's affine and statistics, and every bias, at random; other weights stay as they are."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        kind = name.rpartition(".")[2]
        if value.dim() != 1 or kind not in {"weight", "bias", "running_mean", "running_var"}:
            continue
        noise = torch.randn(value.shape, generator=generator)
        value.copy_({"weight": 1 + 0.1 * noise, "running_var": 0.5 + noise.abs()}.get(kind, 0.1 * noise))
