"""How much of FP16's range a graph uses, on every picture that it is run on, and whether that is enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from hiresvit.errors import GateError, HiresvitError, UsageError
from hiresvit.evaluation.exact import ExactGraph, HalfTensor, exact_graph
from hiresvit.graph.dtypes import LARGEST, SMALLEST_NORMAL
from hiresvit.process import trim_memory
from hiresvit.progress import OnStep, silent
from hiresvit.runtime.onnxruntime_runner import open_session, tensor_spec
from hiresvit.runtime.runner import About, Runner, check_feeds
from hiresvit.spec import Feed, Feeds

_MEND = "no option lifts this: scale the weights so that it stays below, or leave the graph in FP32"
_NAME = Path("the graph rounded to FP16")


@dataclass(frozen=True, eq=False)
class Headroom:
    """The FP16 results of a graph in its order, and what they were before they were rounded, over ``images``.

    ``amax`` is the largest magnitude of each, NaN if it had one; of a softmax's scores only what is above 0, since
    below nothing is lost; ``magnitude`` has both. ``beyond`` is the first image on which FP16 did not hold it, -1 for
    none. ``broken`` are constants that are not finite.
    """

    tensors: Sequence[HalfTensor]
    amax: NDArray[np.float64]
    magnitude: NDArray[np.float64]
    beyond: NDArray[np.int64]
    images: int
    broken: Sequence[HalfTensor] = ()

    @property
    def worst(self) -> int:
        """The first of those that FP16 does not hold, else the one that comes nearest to its end."""
        over = np.flatnonzero(self.beyond >= 0)
        return int(over[0] if over.size else self.amax.argmax())

    def joined(self, other: Headroom) -> Headroom:
        """Of one graph over the images of both."""
        return replace(
            self,
            amax=np.maximum(self.amax, other.amax),
            magnitude=np.maximum(self.magnitude, other.magnitude),
            beyond=np.where(self.beyond < 0, other.beyond, self.beyond),
            images=self.images + other.images,
        )

    def failures(self, what: str) -> list[str]:
        """Say in one line each what FP16 cannot hold: the first constant, and the first result with its image."""
        lines = []
        if self.broken:
            more = f" (and {len(self.broken) - 1} more)" if len(self.broken) > 1 else ""
            lines.append(f"{what}: the FP16 constant {self.broken[0].place} has NaN or infinite values{more}; {_MEND}")
        if (over := np.flatnonzero(self.beyond >= 0)).size:
            amax, image = float(self.amax[over[0]]), int(self.beyond[over[0]])
            became = f"reaches {amax:.6g}" if math.isfinite(amax) else "becomes NaN or infinite"
            more = f" (and {over.size - 1} more behind it)" if over.size > 1 else ""
            lines.append(
                f"{what}: {self.tensors[over[0]].place} {became} on image {image} of {self.images} (counted from 0),"
                f" FP16 ends at {LARGEST:g}{more}; {_MEND}"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """``headroom``, the share of FP16's range that is used and by what; ``underflow``, what lies below that range.

        Plain JSON values, in which NaN and infinity are null.
        """
        worst, amax = self.tensors[self.worst], float(self.amax[self.worst])
        finite = math.isfinite(amax)
        low = np.flatnonzero((self.magnitude > 0) & (self.magnitude < SMALLEST_NORMAL))
        return {
            "headroom": {
                "share": amax / LARGEST if finite else None,
                "max_abs": amax if finite else None,
                "tensor": worst.name,
                "module": worst.module,
                "images": self.images,
            },
            "underflow": [
                {"tensor": self.tensors[k].name, "module": self.tensors[k].module, "max_abs": float(self.magnitude[k])}
                for k in low.tolist()
            ],
        }


class ExactHalf(Runner):
    """Runs a graph rounded as FP16 rounds it (see `hiresvit.evaluation.exact`) and remembers how large it became.

    Its inputs and outputs are FP32 where the graph's are FP16. Raises HiresvitError if ONNX Runtime cannot run it.
    """

    def __init__(self, exact: ExactGraph, threads: int | None = None) -> None:
        self._renamed, self._broken = exact.renamed, exact.broken
        self._tensors = [tensor for tensor, _ in exact.probes]
        self._probes = [name for _, names in exact.probes for name in names]
        try:
            session = open_session(exact.model.SerializeToString(), threads=threads, low_memory=True)
        except Exception as error:  # its exception classes share no base
            raise HiresvitError(f"ONNX Runtime cannot run the graph rounded to FP16 ({_line(error)})") from error
        self._session: onnxruntime.InferenceSession | None = session
        given = {made: name for name, made in exact.renamed.items()}
        specs = (tensor_spec(node, _NAME) for node in session.get_inputs())
        self.inputs = tuple(replace(spec, name=given.get(spec.name, spec.name)) for spec in specs)
        known = {*self._probes}
        self.outputs = tuple(tensor_spec(node, _NAME) for node in session.get_outputs() if node.name not in known)
        self.about = About("ONNX Runtime", "rounded to FP16", "CPU", threads)
        count = len(self._tensors)
        nothing = np.zeros(count)
        self.found = Headroom(self._tensors, nothing, nothing, np.full(count, -1), 0, self._broken)

    def __call__(self, feeds: Feed) -> dict[str, NDArray[Any]]:
        if self._session is None:
            raise UsageError("the runner is closed; open it again")
        check_feeds(feeds, self.inputs)
        wanted = [spec.name for spec in self.outputs]
        try:
            values = self._session.run(
                [*wanted, *self._probes], {self._renamed.get(name, name): value for name, value in feeds.items()}
            )
        except Exception as error:
            raise HiresvitError(f"ONNX Runtime failed on the graph rounded to FP16 ({_line(error)})") from error
        self._add(np.array(values[len(wanted) :], np.float64).reshape(-1, 3))
        return dict(zip(wanted, values, strict=False))

    def close(self) -> None:
        self._session = None

    def _add(self, extremes: NDArray[np.float64]) -> None:
        highest, lowest, _ = extremes.T
        scores = np.array([tensor.scores for tensor in self._tensors])
        nan = np.isnan(extremes).any(1)  # a maximum may lose a NaN, a sum never does
        magnitude = np.maximum(np.maximum(highest, -lowest), 0)
        amax = np.where(nan, np.nan, np.where(scores, np.maximum(highest, 0), magnitude))
        beyond = np.where(np.isnan(amax) | (amax > LARGEST), self.found.images, -1)
        self.found = self.found.joined(replace(self.found, amax=amax, magnitude=magnitude, beyond=beyond, images=1))


def open_exact(model: ModelProto, threads: int | None = None) -> ExactHalf | None:
    """`ExactHalf` of a graph with its weights; None if nothing of it is in FP16. Raises HiresvitError as both do."""
    exact = exact_graph(model)
    return None if exact is None else ExactHalf(exact, threads)


def enforce_headroom(found: Headroom, what: str) -> None:
    """Raise GateError if there is anything that FP16 cannot hold."""
    if failures := found.failures(what):
        raise GateError("; ".join(failures))


def measure_headroom(
    model: ModelProto, feeds: Feeds, what: str, *, threads: int | None = None, on_step: OnStep = silent
) -> Headroom:
    """Run a graph with FP16 in it over all of ``feeds``, one at a time.

    Raises GateError at the first that FP16 cannot hold, with ``what`` to call the graph, and HiresvitError as
    `open_exact` does.
    """
    runner = open_exact(model, threads)
    assert runner is not None  # only a graph with FP16 in it is asked about
    for number in range(len(feeds)):
        runner(feeds[number])
        enforce_headroom(replace(runner.found, images=len(feeds)), what)
        on_step(f"range: {what}", (number + 1) / len(feeds))
        trim_memory()
    return runner.found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
