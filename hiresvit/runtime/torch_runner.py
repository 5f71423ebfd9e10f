"""Run a PyTorch module behind the same interface as every other runtime: the reference of each comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hiresvit.errors import UsageError
from hiresvit.runtime.runner import About, Feeds, Runner, check_feeds, check_threads
from hiresvit.spec import TensorSpec


class TorchRunner(Runner):
    """A module that takes ``inputs`` by position and returns a tensor, or a tuple of them, named ``outputs``.

    The module is switched to eval mode and stays there. PyTorch's thread count belongs to the process: with
    ``threads`` it is set by a call and put back by `close`. Raises UsageError for ``threads`` under 1.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        threads: int | None = None,
    ) -> None:
        check_threads(threads)
        self.inputs = inputs
        self.outputs = outputs
        self._module: nn.Module | None = module.eval()
        self._threads = threads
        self._threads_before = torch.get_num_threads()
        self.about = About("PyTorch", torch.__version__, "CPU", threads or self._threads_before)

    def __call__(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Run once in inference mode. Raises UsageError if the feeds or the number of outputs do not fit."""
        if self._module is None:
            raise UsageError("the runner is closed; make it again")
        check_feeds(feeds, self.inputs)
        if self._threads is not None and self._threads != torch.get_num_threads():
            torch.set_num_threads(self._threads)
        # from_numpy refuses read-only and byte-swapped arrays; "W" copies only those that need it.
        args = [torch.from_numpy(np.require(feeds[spec.name], spec.dtype, ["C", "W"])) for spec in self.inputs]
        with torch.inference_mode():
            result = self._module(*args)
        tensors = result if isinstance(result, tuple | list) else (result,)
        if len(tensors) != len(self.outputs):
            names = [spec.name for spec in self.outputs]
            raise UsageError(f"{type(self._module).__name__} returned {len(tensors)} tensors; declared are {names}")
        return {spec.name: t.numpy() for spec, t in zip(self.outputs, tensors, strict=True)}

    def close(self) -> None:
        """Let go of the module and put PyTorch's thread count back."""
        if self._module is not None and self._threads is not None:
            torch.set_num_threads(self._threads_before)
        self._module = None
