"""What a size costs a model: multiply-accumulates, the share of them that is spent on padding, memory of activations.

All of it comes from the model itself, run without its data on the meta device. Which products run on padding says the
module that pads, by a method ``real_shares() -> dict[str, Fraction]``: of the products of each submodule the share that
is of real positions. ``""`` are its own two attention matmuls, ``"*"`` is the whole model. A module without it pads
nothing. The border of zeros of a convolution is none: it makes no position more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hiresvit.models.macs import Macs, count_by_module
from hiresvit.spec import ModelSpec


@dataclass(frozen=True)
class Work:
    """Of one image: all multiply-accumulates, and those that have padding for one of their two factors' positions.

    A position is a token or a pixel of a map. A product of q and k counts as padding if either of them is.
    """

    macs: Macs
    padded: int

    @property
    def padding(self) -> float:
        """The share, from 0 to 1."""
        return self.padded / self.macs.total


def build_meta(build: Callable[[ModelSpec], nn.Module], spec: ModelSpec) -> nn.Module:
    """A spec's model for shapes only, without weights, in evaluation mode."""
    with torch.device("meta"):
        return build(spec).eval()


def count_work(model: nn.Module, imgsz: tuple[int, int]) -> Work:
    """Count what one image of ``imgsz`` (H, W) takes of a model that is not folded."""
    counts = count_by_module(model, imgsz)
    return Work(counts[""], padded_macs(model, counts))


def padded_macs(model: nn.Module, counts: Mapping[str, Macs]) -> int:
    """Those of `count_by_module` that are spent on padding.

    With the counts of another size it is near enough to order sizes by, and takes no run of the model.
    """
    padded, given = Fraction(0), Fraction(1)
    for name, module in model.named_modules():
        shares: dict[str, Fraction] = getattr(module, "real_shares", dict)()
        for part, share in shares.items():
            if part == "*":
                given = share
            elif share < 1:
                inside = counts[f"{name}.{part}"].total if part else counts[name].attention
                padded += (1 - share) * inside
    return round(padded * given + counts[""].total * (1 - given))


def peak_elements(model: nn.Module, imgsz: tuple[int, int]) -> int:
    """The most numbers of activations that are there at once while PyTorch computes one image without gradients.

    The image and the outputs count, weights and the scratch memory of kernels do not. An engine plans its memory in
    its own way, and mostly needs less.
    """
    image = torch.empty(1, 3, *imgsz, device="meta")
    with torch.no_grad(), _Live() as live:
        live.add(image)
        model(image)
    return int(live.peak) // image.element_size()


class _Live(TorchDispatchMode):
    """Counts the bytes of the storages that operators make, from their making to their end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.known: WeakKeyDictionary[Any, None] = WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        for tensor in given:  # weights: they are there already
            self.known.setdefault(tensor.untyped_storage())
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.add(tensor)
        return made

    def add(self, tensor: Tensor) -> None:
        """Take in a tensor, unless it is a view of what is known."""
        storage = tensor.untyped_storage()
        if storage in self.known:
            return
        self.known[storage] = None
        count = storage.nbytes()
        self.now += count
        self.peak = max(self.peak, self.now)
        finalize(storage, self._end, count)

    def _end(self, count: int) -> None:
        self.now -= count


def saved_elements(model: nn.Module, imgsz: tuple[int, int]) -> int:
    """Numbers that PyTorch keeps of one image for the backward pass, each once; without parameters and gradients.

    Counted in training mode on two images, for BatchNorm wants more than one value, and halved.
    """
    own = [value.untyped_storage() for value in (*model.parameters(), *model.buffers())]
    weights = set(map(id, own))
    kept: dict[int, Any] = {}
    images = torch.empty(2, 3, *imgsz, device="meta")

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in weights:
            kept[id(storage)] = storage  # held, so that no other gets its id
        return tensor

    training = model.training
    model.train()
    try:
        with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = model(images)
    finally:
        model.train(training)
    del outputs
    return int(sum(storage.nbytes() for storage in kept.values())) // images.element_size() // 2
