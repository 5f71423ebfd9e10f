"""What every runtime looks like from outside, and the one function that picks a runtime for a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hiresvit.device.plan import is_plan_file
from hiresvit.errors import UsageError
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


def open_runner(path: Path, *, threads: int | None = None, cuda_graph: bool = False) -> Runner:
    """Load a graph (.onnx) on the CPU, or a plan (.plan, .engine) on an NVIDIA GPU.

    ``threads`` is the most a graph may use (default: the runtime's choice); ``cuda_graph`` launches a plan's kernels
    as one. Raises UsageError for another suffix, an option that does not apply and ``threads`` under 1,
    HiresvitError for a missing file, ArtefactError for a damaged one and for a plan that does not fit this machine,
    MissingDependency for a plan where TensorRT, a CUDA binding or a GPU is missing.
    """
    path = Path(path)
    if is_plan_file(path):
        if threads is not None:
            raise UsageError(
                f"{path}: threads {threads} are for a graph on the CPU; leave them out for a plan"
            )
        from hiresvit.runtime.tensorrt_runner import TensorRTRunner

        return TensorRTRunner(path, cuda_graph=cuda_graph)
    if path.suffix.lower() != ".onnx":
        raise UsageError(f"{path}: no runtime for the suffix {path.suffix!r}; give an .onnx graph or a .plan")
    if cuda_graph:
        raise UsageError(
            f"{path}: a CUDA graph is for a plan on a GPU; leave the option out for an .onnx graph"
        )
    from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner

    return OnnxRuntimeRunner(path, threads=threads)


def check_feeds(feeds: Mapping[str, NDArray[Any]], inputs: tuple[TensorSpec, ...]) -> None:
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


def _check_names(feeds: Mapping[str, NDArray[Any]], inputs: tuple[TensorSpec, ...]) -> None:
    names = [spec.name for spec in inputs]
    if set(feeds) != set(names):
        raise UsageError(f"feeds are {sorted(feeds)}; the network's inputs are {sorted(names)}")


def check_threads(threads: int | None) -> None:
    """Raise UsageError if a number of threads is given and is not positive."""
    if threads is not None and threads < 1:
        raise UsageError(f"threads {threads}: give at least 1, or leave it out for the runtime's own choice")


class Casting:
    """A runner that takes the reference's feeds whatever float type the inputs of the ``inner`` one have."""

    def __init__(self, runner: Runner) -> None:
        self.inner = runner
        self.inputs: tuple[TensorSpec, ...] = runner.inputs
        self.outputs: tuple[TensorSpec, ...] = runner.outputs

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once on the feeds, cast to what the network takes. Raises UsageError for other names and shapes."""
        _check_names(feeds, self.inputs)
        return self.inner({spec.name: feeds[spec.name].astype(spec.dtype) for spec in self.inputs})

    def close(self) -> None:
        """Close the runner inside."""
        self.inner.close()

    def __enter__(self) -> Casting:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
