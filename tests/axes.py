"""Five axes are the most that a tensor of a deployed model may have: Qualcomm's HTP takes no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MOST_AXES = 5


class Axes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered: how many tensors were made, and which operators made one of more than `MOST_AXES`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made, self.too_many = 0, set[str]()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        self.made += len(tensors)
        if any(tensor.ndim > MOST_AXES for tensor in tensors):
            self.too_many.add(str(func))
        return result
