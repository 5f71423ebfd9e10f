"""Run a PyTorch module behind the same interface as every other runtime: the reference of each comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hiresvit.errors import MissingDependency, UsageError
from hiresvit.runtime.runner import About, Feeds, Runner, check_feeds, check_threads
from hiresvit.spec import TensorSpec


class TorchRunner(Runner):
    """A module that takes ``inputs`` by position and returns a tensor, or a tuple of them, named ``outputs``.

    The module is switched to eval mode and stays there. PyTorch's thread count belongs to the process: with
    ``threads`` it is set by a call and put back by `close`. ``compiled`` takes what `torch.compile` makes of the
    module: the first call with a shape compiles, which takes a C++ compiler and minutes. Raises UsageError for
    ``threads`` under 1.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        threads: int | None = None,
        *,
        compiled: bool = False,
    ) -> None:
        check_threads(threads)
        self.inputs = inputs
        self.outputs = outputs
        # as a function and not as a module, whose type is what errors name
        self._module: nn.Module | None = module.eval()
        self._compiled = torch.compile(self._module) if compiled else None
        self._threads = threads
        self._threads_before = torch.get_num_threads()
        self.about = About(
            "torch.compile" if compiled else "PyTorch", torch.__version__, "CPU", threads or self._threads_before
        )

    def __call__(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Run once in inference mode.

        Raises UsageError if the feeds or the number of outputs do not fit, MissingDependency if it cannot be compiled.
        """
        module = self.module
        check_feeds(feeds, self.inputs)
        if self._threads is not None and self._threads != torch.get_num_threads():
            torch.set_num_threads(self._threads)
        # from_numpy refuses read-only and byte-swapped arrays; "W" copies only those that need it.
        args = [torch.from_numpy(np.require(feeds[spec.name], spec.dtype, ["C", "W"])) for spec in self.inputs]
        with torch.inference_mode():
            result = module(*args) if self._compiled is None else _call_compiled(self._compiled, args)
        tensors = result if isinstance(result, tuple | list) else (result,)
        if len(tensors) != len(self.outputs):
            names = [spec.name for spec in self.outputs]
            raise UsageError(f"{type(module).__name__} returned {len(tensors)} tensors; declared are {names}")
        return {spec.name: t.numpy() for spec, t in zip(self.outputs, tensors, strict=True)}

    @property
    def module(self) -> nn.Module:
        """What is run. Raises UsageError when the runner is closed."""
        if self._module is None:
            raise UsageError("the runner is closed; make it again")
        return self._module

    def modules(self, feeds: Feeds) -> list[tuple[str, str, tuple[int, ...]]]:
        """The modules that compute something themselves: path, class, shape of the result, in the order they finish.

        One that only hands on what the last module in it gave, or what it was given, is left out; of several results
        the last counts, and of several calls.
        """
        found: dict[str, tuple[str, str, tuple[int, ...]]] = {}
        last: Tensor | None = None

        def see(name: str, module: nn.Module, given: Tensor | None, result: Tensor) -> None:
            nonlocal last
            if result is not given and result is not last:
                found.pop(name, None)
                found[name] = (name, type(module).__name__, tuple(result.shape))
                last = result

        self._watched(feeds, (name for name, _ in self.module.named_modules()), see)
        return list(found.values())

    def results_of(self, modules: Iterable[str], feeds: Feeds) -> list[NDArray[Any]]:
        """What each of `modules` gave in one run, in that order."""
        found: dict[str, NDArray[Any]] = {}
        names = list(modules)

        def keep(name: str, _module: nn.Module, _given: Tensor | None, result: Tensor) -> None:
            found[name] = result.numpy().copy()  # what comes may change it in place

        self._watched(feeds, names, keep)
        return [found[name] for name in names]

    def _watched(
        self,
        feeds: Feeds,
        names: Iterable[str],
        seen: Callable[[str, nn.Module, Tensor | None, Tensor], None],
    ) -> None:
        """Run once and show what each of the modules was given first and what it gave last."""

        def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
            def call(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
                tensors = result if isinstance(result, tuple | list) else (result,)
                if tensors and isinstance(tensors[-1], Tensor):
                    first = given[0] if given and isinstance(given[0], Tensor) else None
                    seen(name, module, first, tensors[-1])

            return call

        handles = [self.module.get_submodule(name).register_forward_hook(hook(name)) for name in names]
        try:
            self(feeds)
        finally:
            for handle in handles:
                handle.remove()

    def close(self) -> None:
        """Let go of the module and put PyTorch's thread count back."""
        if self._module is not None and self._threads is not None:
            torch.set_num_threads(self._threads_before)
        self._module = self._compiled = None


def _call_compiled(module: Any, args: list[torch.Tensor]) -> Any:
    from torch._dynamo.exc import TorchDynamoException  # takes a second, and `torch.compile` has it by now

    try:
        return module(*args)
    except TorchDynamoException as error:
        # several lines, the first of which says which backend it is and what it raised
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise MissingDependency(
            f"torch.compile does not compile this here ({said}); it takes a C++ compiler: leave --compile out, or"
            " install g++"
        ) from error
