"""Weights that leave nothing out: fresh ones have norms that do nothing and attention paths of zero, or next to it."""

from __future__ import annotations

import torch
from torch import nn


def enliven(model: nn.Module, seed: int = 0) -> None:
    """Draw every norm's affine and statistics, every bias and layer scale at random; other weights stay as they are."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        kind = name.rpartition(".")[2]
        if value.dim() != 1 or kind == "num_batches_tracked":
            continue
        noise = torch.randn(value.shape, generator=generator)
        around = {"weight": 1 + 0.1 * noise, "running_var": 0.5 + noise.abs()}
        scale = noise if kind.startswith("layer_scale") else 0.1 * noise
        value.copy_(around.get(kind, scale))
