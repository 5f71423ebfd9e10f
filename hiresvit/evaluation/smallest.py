"""The smallest graph that an engine computes otherwise than ONNX Runtime's CPU: what a report of its fault needs.

Delta debugging (Zeller and Hildebrandt: Simplifying and isolating failure-inducing input, IEEE TSE 28-2, 2002) over
the steps of a graph. Any of them are a graph of their own (`hiresvit.graph.cut`), whose inputs have the values that
ONNX Runtime computed in the larger one. What is left cannot lose one step more without losing the fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from hiresvit.errors import HiresvitError, IllegalGraphError, MissingDependency, UsageError
from hiresvit.evaluation.parity import compare_arrays
from hiresvit.files import scratch_folder
from hiresvit.graph.cut import Part, cut_out, find_steps, stand_alone, steps_before, without_step
from hiresvit.graph.index import index_graph
from hiresvit.progress import OnStep, silent
from hiresvit.runtime.onnxruntime_runner import open_session
from hiresvit.runtime.runner import About, Runner
from hiresvit.spec import Feed, Feeds

Kind = Literal["parts", "refused", "fails"]
Open = Callable[[Path], Runner]
"""What makes the engine ready to run a graph's file."""
_TRIALS = 8  # left, for each time that the number of steps is doubled: of hrvit_nano's 497 steps it took 68
_FIRST = 4  # steps before the tensor that is known to be wrong; then ever four times as many


@dataclass(frozen=True, eq=False)
class Fault:
    """A graph with its inputs, and what the engine does with it.

    ``kind``: its answer ``parts`` from ONNX Runtime's, it is ``refused`` when it is opened, or the run ``fails``. In
    the first, ``output`` is the worst, with its SQNR in dB (-inf for NaN or Inf, or a reference of 0) and largest
    absolute difference; in the others ``message`` is the engine's. ``expected`` and ``answer`` are of ONNX Runtime
    and of the engine; ``about`` is what ran it, None where it was refused.
    """

    model: ModelProto
    feeds: Feed
    kind: Kind
    expected: Feed
    output: str | None = None
    sqnr_db: float | None = None
    max_abs: float | None = None
    message: str | None = None
    answer: Feed = field(default_factory=dict)
    about: About | None = None


class _Judge:
    """Whether the engine parts from ONNX Runtime's CPU on a graph by more than ``tolerance`` dB; ``tried`` counts.

    ``steps`` are those of the smallest graph so far: it says about how many trials are left.
    """

    def __init__(self, open_engine: Open, tolerance: float, steps: int, on_step: OnStep) -> None:
        self.open, self.tolerance, self.on_step = open_engine, tolerance, on_step
        self.tried, self.steps = 0, steps

    def __call__(self, model: ModelProto, feeds: Feed) -> Fault | None:
        """None where it does not, or where ONNX Runtime does not compute the graph, or not in finite numbers.

        Raises UsageError and MissingDependency: they are about the engine, not the graph.
        """
        try:
            expected = _compute(model, feeds, [value.name for value in model.graph.output])
        except IllegalGraphError:
            return None
        if not all(np.isfinite(values).all() for values in expected.values()):
            return None
        self.on_step("smallest", self.tried / (self.tried + _TRIALS * math.log2(self.steps + 1)))
        self.tried += 1
        try:
            with scratch_folder() as folder:
                path = folder / "graph.onnx"
                path.write_bytes(model.SerializeToString())
                runner = self.open(path)
        except (UsageError, MissingDependency):
            raise
        except HiresvitError as error:
            return Fault(model, feeds, "refused", expected, message=_without_path(error))
        with runner:
            try:
                answer = runner({spec.name: feeds[spec.name].astype(spec.dtype) for spec in runner.inputs})
            except HiresvitError as error:
                return Fault(model, feeds, "fails", expected, message=_without_path(error), about=runner.about)
            return self._compared(Fault(model, feeds, "parts", expected, answer=answer, about=runner.about))

    def _compared(self, found: Fault) -> Fault | None:
        """The fault with its worst output, if that is beyond the tolerance; classes and indices do not count."""
        apart = {
            name: compare_arrays(values, found.answer[name])
            for name, values in found.expected.items()
            if np.issubdtype(values.dtype, np.floating) and values.size
        }
        if not apart:
            return None
        worst = min(apart, key=lambda name: apart[name].sqnr_db)
        if apart[worst].sqnr_db >= self.tolerance:
            return None
        return replace(found, output=worst, sqnr_db=apart[worst].sqnr_db, max_abs=apart[worst].max_abs)


@dataclass(frozen=True, eq=False)
class Smallest:
    """``fault`` is of the smallest graph: of ``steps`` nodes that compute something, ``tried`` graphs later."""

    fault: Fault
    steps: int
    tried: int


def find_smallest(
    model: ModelProto,
    feeds: Feeds,
    open_engine: Open,
    *,
    tolerance: float,
    tensor: str | None = None,
    on_step: OnStep = silent,
) -> Smallest | None:
    """The smallest part of a graph that an engine gets wrong on one of ``feeds``; None if it gets the graph right.

    ``tolerance`` is the least SQNR of an output in dB. ``tensor`` is one that is known to be wrong where it was an
    output: the parts that end there are tried first, of the nearest steps before it. Raises UsageError and
    MissingDependency if the engine cannot be had, and HiresvitError if ONNX Runtime cannot compute the graph.
    """
    steps = len(find_steps(index_graph(model, {})))
    judge = _Judge(open_engine, tolerance, steps, on_step)
    _compute(model, feeds[0], [value.name for value in model.graph.output])
    for image in range(len(feeds)):
        feed = feeds[image]
        begun = next(filter(None, _before(judge, model, feed, tensor)), None) or judge(model, feed)
        if begun is not None:
            return Smallest(_reduced(judge, begun), steps, judge.tried)
    return None


def _before(judge: _Judge, model: ModelProto, feeds: Feed, tensor: str | None) -> Iterator[Fault | None]:
    """Ever larger parts that end at a tensor."""
    if tensor is None:
        return
    found, length = steps_before(index_graph(model, {}), tensor), _FIRST
    while length < 4 * len(found):
        yield _judged(judge, model, feeds, found[:length])
        length *= 4


def _judged(judge: _Judge, model: ModelProto, feeds: Feed, steps: Collection[NodeProto]) -> Fault | None:
    """Some steps of a graph on their own, fed with what they get in it."""
    part = cut_out(index_graph(model, {}), steps)
    if part is None:
        return None
    values = _recorded(model, feeds, part)
    return judge(stand_alone(model, part, values), values)


def _reduced(judge: _Judge, fault: Fault) -> Fault:
    """The fault in as few steps as can be: none can be fed instead, none can be left out."""
    while True:
        fault = _fewer(judge, fault)
        shorter = _bridged(judge, fault)
        if shorter is None:
            return fault
        fault = shorter


def _fewer(judge: _Judge, fault: Fault) -> Fault:
    """The fault in a part that cannot lose one of its steps more: Zeller's ddmin."""
    pieces = 2
    while len(steps := find_steps(index_graph(fault.model, {}))) > 1:
        pieces, judge.steps = min(pieces, len(steps)), len(steps)
        chunks = [steps[len(steps) * k // pieces : len(steps) * (k + 1) // pieces] for k in range(pieces)]
        rests = [[step for step in steps if step not in chunk] for chunk in chunks] if pieces > 2 else []
        ways = [*chunks, *rests] if pieces < len(steps) else rests or chunks
        for way in ways:
            smaller = _judged(judge, fault.model, fault.feeds, way)
            if smaller is not None and smaller.kind == fault.kind:
                fault, pieces = smaller, 2 if len(way) <= len(steps) // pieces + 1 else max(pieces - 1, 2)
                break
        else:
            if pieces == len(steps):
                return fault
            pieces *= 2
    return fault


def _bridged(judge: _Judge, fault: Fault) -> Fault | None:
    """The fault without one of its steps, whose readers read what it read; None if each is needed."""
    index = index_graph(fault.model, {})
    for step in find_steps(index):
        model = without_step(fault.model, index, step)
        smaller = None if model is None else judge(model, fault.feeds)
        if smaller is not None and smaller.kind == fault.kind:
            return smaller
    return None


def _recorded(model: ModelProto, feeds: Feed, part: Part) -> dict[str, NDArray[Any]]:
    """What a part's inputs are in the whole."""
    wanted = [name for name in part.inputs if name not in feeds]
    return {**{name: feeds[name] for name in part.inputs if name in feeds}, **_compute(model, feeds, wanted)}


def _compute(model: ModelProto, feeds: Feed, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Tensors of a graph on ONNX Runtime's CPU. Raises IllegalGraphError if it does not compute them."""
    if not names:
        return {}
    marked = ModelProto()
    marked.CopyFrom(model)
    del marked.graph.output[:]
    for name in names:
        marked.graph.output.add(name=name)
    taken = {value.name for value in model.graph.input}
    try:
        session = open_session(marked.SerializeToString(), threads=1)
        values = session.run(list(names), {name: value for name, value in feeds.items() if name in taken})
    except Exception as error:  # its exception classes share no base
        reason = " ".join(str(error).split())
        raise IllegalGraphError(f"ONNX Runtime does not compute the graph ({reason})") from error
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def _without_path(error: HiresvitError) -> str:
    """Its message without the name of our own temporary file."""
    return str(error).partition("graph.onnx: ")[2] or str(error)
