"""How much a model computes and holds: multiply-accumulates and parameters, as the papers count them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

ATTENTION = ("bmm", "baddbmm")  # a linear layer is a convolution, mm or addmm


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one image; one is a multiplication and an addition, so half of the FLOPs.

    ``products`` are those with weights (convolutions and linear layers), ``attention`` those of the two
    matmuls between activations, q k^T and the product with v. Norms, activations, resizes are not counted.
    """

    products: int
    attention: int

    @property
    def total(self) -> int:
        """Ours: everything."""
        return self.products + self.attention

    @property
    def paper(self) -> int:
        """HRViT's convention: its tables come out, to 1 %, with one of the two attention matmuls left out."""
        return self.products + self.attention // 2


def count_macs(model: nn.Module, imgsz: tuple[int, int]) -> Macs:
    """Count the multiply-accumulates of one image of ``imgsz`` (H, W), exactly, without computing anything.

    The model runs on the meta device, where tensors have shapes and no data; its own weights stay where they
    are. Count a model before `fold`, which trades multiplications for fewer kernels.
    """
    return count_by_module(model, imgsz)[""]


def count_by_module(model: nn.Module, imgsz: tuple[int, int]) -> dict[str, Macs]:
    """`count_macs` of every module that multiplies, by its name in the model, with what is in it; "" is the model."""
    values = chain(model.named_parameters(), model.named_buffers())
    tables = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    # By weights that need a gradient PyTorch multiplies rows, which tells it from an attention's product; of a part of
    # one, which is what an embedding is read for, its counter cannot keep track.
    trained = {name for name, value in model.named_parameters() if value.requires_grad} - tables
    state = {name: value.detach().to("meta").requires_grad_(name in trained) for name, value in values}
    image = torch.empty(1, 3, *imgsz, device="meta", dtype=next(model.parameters()).dtype)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(model, state, (image,))
    found = counter.get_flop_counts()
    return {"" if name == "Global" else name.partition(".")[2]: _macs(flops) for name, flops in found.items()}


def _macs(flops: Mapping[Any, int]) -> Macs:
    counts = {str(op).rpartition(".")[2]: count for op, count in flops.items()}
    attention = sum(counts.get(op, 0) for op in ATTENTION)
    return Macs(products=(sum(counts.values()) - attention) // 2, attention=attention // 2)


def count_params(model: nn.Module) -> int:
    """Trainable numbers in the model: its parameters, without BatchNorm's statistics and other buffers."""
    return sum(parameter.numel() for parameter in model.parameters())
