"""What every runtime looks like from outside, and the one function that picks a runtime for a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hiresvit.errors import MissingDependency, UsageError
from hiresvit.spec import TensorSpec


class Runner(Protocol):
    """A loaded network: named arrays in, named arrays out. Close it, or use it in a ``with`` block."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the network takes, in the graph's order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the network returns, in the graph's order."""

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once. Raises UsageError if the feeds do not fit `inputs`."""

    def close(self) -> None:
        """Let go of the network; calling the runner afterwards is an error, closing it again is not."""

    def __enter__(self) -> Runner: ...

    def __exit__(self, *exc_info: object) -> None: ...


def open_runner(path: Path, *, threads: int | None = None) -> Runner:
    """Load a graph (.onnx) on the CPU with at most ``threads`` threads (default: the runtime's choice).

    Raises UsageError for another suffix or ``threads`` under 1, MissingDependency for a plan, HiresvitError
    for a missing file and ArtefactError for a damaged one.
    """
    suffix = Path(path).suffix.lower()
    if suffix in (".plan", ".engine"):
        raise MissingDependency(
            f"{path}: running a plan needs a GPU with TensorRT, and hiresvit has no TensorRT runner yet;"
            " run the plan with trtexec, or give the .onnx graph it was built from"
        )
    if suffix != ".onnx":
        raise UsageError(f"{path}: no runtime for the suffix {suffix!r}; give an .onnx graph")
    from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner

    return OnnxRuntimeRunner(path, threads=threads)


def check_feeds(feeds: Mapping[str, NDArray[Any]], inputs: tuple[TensorSpec, ...]) -> None:
    """Raise UsageError unless the feeds have exactly the inputs' names, dtypes and static dimensions."""
    names = [spec.name for spec in inputs]
    if set(feeds) != set(names):
        raise UsageError(f"feeds are {sorted(feeds)}; the network's inputs are {sorted(names)}")
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


def check_threads(threads: int | None) -> None:
    """Raise UsageError if a number of threads is given and is not positive."""
    if threads is not None and threads < 1:
        raise UsageError(f"threads {threads}: give at least 1, or leave it out for the runtime's own choice")


class Casting:
    """A runner that takes the reference's feeds whatever float type its own inputs have."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.inputs: tuple[TensorSpec, ...] = runner.inputs
        self.outputs: tuple[TensorSpec, ...] = runner.outputs

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once on the feeds, cast to what the network takes."""
        return self._runner({spec.name: feeds[spec.name].astype(spec.dtype) for spec in self.inputs})

    def close(self) -> None:
        """Close the runner inside."""
        self._runner.close()

    def __enter__(self) -> Casting:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
