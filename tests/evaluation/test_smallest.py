"""The smallest graph that an engine gets wrong, with ONNX Runtime for the engine and a fault in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import build, indexed, noise
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from hiresvit.errors import HiresvitError, IllegalGraphError, MissingDependency
from hiresvit.evaluation.smallest import Smallest, find_smallest
from hiresvit.graph.index import first_output, reached
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.runner import Feeds, Runner

GRAPH = """g (float[4,4] x) => (float[4,4] y) {
    a = Mul(x, w)
    b = Relu(a)
    c = MatMul(b, w)
    d = Tanh(c)
    e = Add(d, w)
    f = Abs(e)
    s = Softmax<axis = 1>(f)
    h = MatMul(s, x)
    i = Sigmoid(h)
    j = Sub(i, a)
    k = Exp(j)
    y = Mul(k, w)
}"""
Broken = Callable[[ModelProto], bool]


def graph() -> ModelProto:
    return build(GRAPH, {"w": noise(4, 4, seed=1)})


class Wrong(OnnxRuntimeRunner):
    """What it answers is off by ``factor``; the factor None fails."""

    def __init__(self, path: Path, factor: float | None) -> None:
        super().__init__(path, threads=1)
        self.factor = factor

    def __call__(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        if self.factor is None:
            raise HiresvitError("graph.onnx: error 1100")
        return {name: value * np.float32(self.factor) for name, value in super().__call__(feeds).items()}


def search(broken: Broken, factor: float | None = 1.5, **options: Any) -> Smallest | None:
    """With an engine that is wrong where a graph is broken."""

    def open_engine(path: Path) -> Runner:
        return Wrong(path, factor if broken(onnx.load(path)) else 1.0)

    return find_smallest(graph(), [{"x": noise(4, 4)}], open_engine, tolerance=40, **options)


def leads_to(model: ModelProto, first: str, second: str) -> bool:
    """Whether a result of an operator goes into another, however far away."""
    index = indexed(model)

    def onward(name: str) -> list[str]:
        return [first_output(reader) for reader, _ in index.reads(name)]

    starts = [first_output(node) for node in index.nodes if node.op_type == first]
    return any(node.op_type == second for name in reached(starts, onward) if (node := index.producer.get(name)))


def kinds(model: ModelProto) -> list[str]:
    def op(node: NodeProto) -> str:
        return node.op_type

    return list(map(op, model.graph.node))


@pytest.mark.parametrize("tensor", [None, "f", "y"])
def test_two_steps_that_follow_each_other_are_what_is_left(tensor: str | None) -> None:
    found = search(lambda model: any(n.op_type == "Add" for n in model.graph.node) and "Tanh" in kinds(model))
    assert found is not None
    assert kinds(found.fault.model) == ["Tanh", "Add"]
    assert found.fault.kind == "parts"
    assert found.fault.sqnr_db == pytest.approx(6.02, abs=0.01)
    assert found.steps == 12
    assert found.fault.feeds.keys() == {"c"}


def test_what_is_only_between_is_left_out() -> None:
    found = search(lambda model: leads_to(model, "Tanh", "Softmax"), tensor="s")
    assert found is not None
    assert kinds(found.fault.model) == ["Tanh", "Softmax"]


def test_what_its_engine_refuses_is_found() -> None:
    def open_engine(path: Path) -> Runner:
        if "Sigmoid" in kinds(onnx.load(path)):
            raise IllegalGraphError(f"{path}: 1 of its nodes is not taken")
        return OnnxRuntimeRunner(path, threads=1)

    found = find_smallest(graph(), [{"x": noise(4, 4)}], open_engine, tolerance=40)
    assert found is not None
    assert (found.fault.kind, kinds(found.fault.model)) == ("refused", ["Sigmoid"])
    assert found.fault.message == "1 of its nodes is not taken", "and not where our temporary file was"


def test_what_fails_when_it_runs_is_found() -> None:
    found = search(lambda model: "Exp" in kinds(model), None)
    assert found is not None
    assert (found.fault.kind, found.fault.message, kinds(found.fault.model)) == ("fails", "error 1100", ["Exp"])


def test_nan_is_as_wrong_as_can_be() -> None:
    found = search(lambda model: "Exp" in kinds(model), float("nan"))
    assert found is not None
    assert found.fault.sqnr_db == -np.inf


def test_an_engine_that_is_right_has_no_such_graph() -> None:
    assert search(lambda _: False) is None
    assert search(lambda _: True, 1.0001, tensor="f") is None, "80 dB"


def test_the_picture_that_shows_it_is_taken() -> None:
    class Picky(OnnxRuntimeRunner):
        def __call__(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
            wrong = any(np.any(values > 5) for values in feeds.values())
            return {name: value * (1 + wrong) for name, value in super().__call__(feeds).items()}

    feeds = [{"x": noise(4, 4)}, {"x": 10 + noise(4, 4)}]
    found = find_smallest(graph(), feeds, lambda path: Picky(path, threads=1), tolerance=40)
    assert found is not None
    assert all(values.max() > 5 for values in found.fault.feeds.values())


def test_an_engine_that_is_not_there_is_no_fault_of_the_graph() -> None:
    def open_engine(path: Path) -> Runner:
        raise MissingDependency("no such library")

    with pytest.raises(MissingDependency):
        find_smallest(graph(), [{"x": noise(4, 4)}], open_engine, tolerance=40)
