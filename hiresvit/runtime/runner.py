"""What every runtime looks like from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hiresvit.errors import UsageError
from hiresvit.spec import TensorSpec

if TYPE_CHECKING:
    from typing_extensions import Self

Feeds = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class About:
    """Which library runs a network, in which version, on what: ``CPU`` or the name of a device or provider.

    ``threads`` are those that were asked for, or that the library says it takes; None where neither is known.
    ``emulated``: another machine stands in for the device. Its answers count, its time says nothing.
    """

    backend: str
    version: str
    device: str
    threads: int | None = None
    emulated: bool = False


@dataclass(frozen=True)
class GpuTimes:
    """How long the parts of one call took on the GPU, in milliseconds.

    Where host and GPU share memory nothing is copied, and the first and the last are next to nothing. ``enqueue_ms``
    is the host's own time in the call that queues the kernels, copies left out, as trtexec measures it.
    """

    h2d_ms: float
    compute_ms: float
    d2h_ms: float
    enqueue_ms: float | None = field(default=None, compare=False)  # the host's clock never says the same twice


class Runner(Protocol):
    """A loaded network: named arrays in, named arrays out. Close it, or use it in a ``with`` block.

    ``inputs`` and ``outputs`` are in the graph's order. ``warnings`` are what is to be said of the answers or the
    speed, in the library's words or ours. ``metadata`` is what the file says about itself. A backend inherits this
    class, and what is written here once.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    about: About
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, str] = MappingProxyType({})
    seconds_per_gmac: float | None = None
    """About how long an emulator takes, for who waits for it; None for what computes itself."""
    precision: str | None = None
    """``bfloat16`` where it was told to compute in that, whatever the file says; None: in what the file says."""

    @property
    def best_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of the inputs to measure with: what a plan was tuned for, and elsewhere 1 for an open size."""
        return {t.name: tuple(1 if isinstance(n, str) else n for n in t.shape) for t in self.inputs}

    def __call__(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Run once; the results are the caller's own.

        Raises UsageError if the feeds do not fit `inputs` and HiresvitError if the network fails on them.
        """

    def last_times(self) -> GpuTimes | None:
        """What the last call took by the device's own clock; None for a backend that has none."""
        return None

    def close(self) -> None:
        """Let go of the network; calling the runner afterwards is an error, closing it again is not."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def check_feeds(feeds: Feeds, inputs: tuple[TensorSpec, ...]) -> None:
    """Raise UsageError unless the feeds have exactly the inputs' names, dtypes and static dimensions."""
    _check_names(feeds, inputs)
    for spec in inputs:
        array = feeds[spec.name]
        fits = array.ndim == len(spec.shape) and all(
            isinstance(want, str) or have == want for have, want in zip(array.shape, spec.shape, strict=True)
        )
        if array.dtype != np.dtype(spec.dtype) or not fits:
            want = ", ".join(map(str, spec.shape))
            raise UsageError(
                f"input {spec.name!r} is {array.dtype} {array.shape}; the network takes {spec.dtype} ({want})"
            )


def _check_names(feeds: Feeds, inputs: tuple[TensorSpec, ...]) -> None:
    names = [spec.name for spec in inputs]
    if set(feeds) != set(names):
        raise UsageError(f"feeds are {sorted(feeds)}; the network's inputs are {sorted(names)}")


def numpy_dtype(kind: str, known: Mapping[str, str], path: Path, tensor: str) -> str:
    """A library's name of a type as numpy's. Raises UsageError for one that numpy cannot hold."""
    if kind not in known:
        raise UsageError(f"{path}: {tensor!r} is {kind}; only {', '.join(known)} can be fed from numpy")
    return known[kind]


def check_threads(threads: int | None) -> None:
    """Raise UsageError if a number of threads is given and is not positive."""
    if threads is not None and threads < 1:
        raise UsageError(f"threads {threads}: give at least 1, or leave it out for the runtime's own choice")


class Remembering(Runner):
    """A runner that runs once for each of a list's feeds, as long as its answers come to no more than ``most`` bytes.

    What it answers is its own: a caller must not write into it.
    """

    def __init__(self, runner: Runner, most: int) -> None:
        self.inner, self.left = runner, most
        self.inputs, self.outputs, self.about = runner.inputs, runner.outputs, runner.about
        self.known: dict[int, tuple[Feeds, dict[str, NDArray[Any]]]] = {}  # by identity, which the feed kept holds

    def __call__(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """The answer that is known, or a new one."""
        if id(feeds) in self.known:
            return self.known[id(feeds)][1]
        answer = self.inner(feeds)
        if (size := sum(values.nbytes for values in answer.values())) <= self.left:
            self.left -= size
            self.known[id(feeds)] = feeds, answer
        return answer

    def close(self) -> None:
        self.known.clear()
        self.inner.close()


class Casting(Runner):
    """A runner that takes the reference's feeds whatever float type the inputs of the ``inner`` one have."""

    def __init__(self, runner: Runner) -> None:
        self.inner = runner
        self.inputs, self.outputs, self.about = runner.inputs, runner.outputs, runner.about
        self.warnings, self.metadata = runner.warnings, runner.metadata
        self.seconds_per_gmac, self.precision = runner.seconds_per_gmac, runner.precision

    @property
    def best_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.inner.best_shapes

    def __call__(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Run once on the feeds, cast to what the network takes. Raises UsageError for other names and shapes."""
        _check_names(feeds, self.inputs)
        return self.inner({spec.name: feeds[spec.name].astype(spec.dtype) for spec in self.inputs})

    def last_times(self) -> GpuTimes | None:
        return self.inner.last_times()

    def close(self) -> None:
        self.inner.close()
