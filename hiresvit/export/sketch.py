"""Nodes and constants that are put together by hand, each with a name of its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

PREFIX = "contract"


class Sketch:
    """A part of a graph while it is drawn. Nodes and tensors are called ``contract/OPERATOR``, numbered from 2 on."""

    def __init__(self, opset: int, batch: int | str, *, for_cpu: bool) -> None:
        self.opset = opset
        self.batch = batch
        """How many pictures there are, or the name of the axis."""
        self.for_cpu = for_cpu
        """Whether ONNX Runtime's CPU kernels are all that will run it."""
        self.nodes: list[NodeProto] = []
        self._used: Counter[str] = Counter()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], TensorProto] = {}

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """A node that reads tensors ("" where an operand is left out); the name of its last output."""
        name = self._name(op)
        made = [name if index == outputs - 1 else f"{name}:{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), made, name, **attributes))
        return name

    def give(self, result: str, op: str, *inputs: str, **attributes: Any) -> None:
        """A node that makes an output of the graph."""
        self.nodes.append(helper.make_node(op, list(inputs), [result], self._name(op), **attributes))

    def constant(self, values: ArrayLike, dtype: DTypeLike = np.float32) -> str:
        """An initializer, one for all who want these values."""
        array: NDArray[Any] = np.ascontiguousarray(np.asarray(values, dtype))
        shape = np.shape(values)
        key = (array.dtype.str, shape, array.tobytes())
        if key not in self._constants:
            tensor = numpy_helper.from_array(array.reshape(shape), self._name("constant"))
            self._constants[key] = tensor
        return str(self._constants[key].name)

    def ints(self, *values: int) -> str:
        """A list of places, axes or sizes."""
        return self.constant(values, np.int64)

    def cast(self, source: str, kind: int) -> str:
        """To a type, by ONNX's number of it."""
        return self.add("Cast", source, to=kind)

    def slice(self, source: str, start: int, stop: int, axis: int) -> str:
        """A part along an axis."""
        return self.add("Slice", source, self.ints(start), self.ints(stop), self.ints(axis))

    def gather(self, source: str, places: ArrayLike, axis: int) -> str:
        """Places along an axis."""
        return self.add("Gather", source, self.constant(places, np.int64), axis=axis)

    def reduce(self, op: str, source: str, axis: int) -> str:
        """Along an axis, which is kept; opset 18 made it an input of all but ReduceSum, where it was one before."""
        if op == "ReduceSum" or self.opset >= 18:
            return self.add(op, source, self.ints(axis), keepdims=1)
        return self.add(op, source, axes=[axis], keepdims=1)

    def put_into(self, model: ModelProto) -> None:
        """Add the constants to a graph."""
        model.graph.initializer.extend(self._constants.values())

    def _name(self, kind: str) -> str:
        self._used[kind] += 1
        return f"{PREFIX}/{kind}" if self._used[kind] == 1 else f"{PREFIX}/{kind}_{self._used[kind]}"
