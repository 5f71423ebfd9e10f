"""An FP16 graph as one in FP32 that rounds wherever FP16 would, and that tells the extremes of what it rounds.

ONNX Runtime's CPU computes an FP16 graph in FP32 and puts its own casts around each operator; two of those that meet
it takes out, so that between the operators nothing is rounded and nothing becomes infinite. Casts that a graph has
itself stay (tests/evaluation/test_exact.py holds that). So every result in FP16 is cast to FP16 and back here. Each
operator computes in FP32 from rounded operands and its result is rounded, infinity included: what a GPU does that sums
products in FP32. The extremes are those before the rounding, where 80,000 is not infinite yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hiresvit.errors import HiresvitError
from hiresvit.graph.dtypes import FLOAT, HALF
from hiresvit.graph.index import GraphIndex, array_of, graphs_of, index_graph, inline_functions, module_of
from hiresvit.graph.operators import LAYOUT, MOVES, OWN_DOMAINS, SPREADS
from hiresvit.runtime.onnxruntime_runner import open_session

_OURS = "hiresvit/exact"  # names of what we add to a graph begin with it
_TYPED = frozenset({"to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision"})
"""The attributes of operators that hold a type."""
_ROUNDED = MOVES - {"Cast", "Pad"} | SPREADS | {"Constant"}
"""What makes only numbers that have been rounded already."""
_TO_SCORES = LAYOUT | {"Add", "Concat", "Expand", "Gather", "Slice", "Split", "Sum", "Tile", "Where"}
_SOFTMAXES = frozenset({"LogSoftmax", "Softmax"})
_BOUNDS = frozenset({"Clip", "Max", "Min", "Where"})  # infinity is a fair constant there
_EXTREMES = ("Max", "Min", "Sum")


@dataclass(frozen=True)
class HalfTensor:
    """A result in FP16, and the module of the node that makes it ("" where nothing says).

    ``scores``: nothing but a softmax reads it, in which what is far below the largest vanishes, -inf included.
    """

    name: str
    module: str
    scores: bool = False

    @property
    def place(self) -> str:
        """How it is named in a sentence."""
        return f"{self.name!r} of module {self.module}" if self.module else repr(self.name)


Probe = tuple[HalfTensor, tuple[str, ...]]
"""A tensor, and the names of its maximum, minimum and sum, each a scalar: ``-inf``, ``inf`` and 0 if never computed."""


@dataclass(frozen=True, eq=False)
class ExactGraph:
    """``renamed`` are the graph's inputs in FP16 by the names they have here; the outputs' names stay.

    ``broken`` are constants in FP16 with NaN or infinity that are neither a softmax's mask nor a bound.
    """

    model: ModelProto
    probes: Sequence[Probe]
    renamed: dict[str, str]
    broken: Sequence[HalfTensor]


@dataclass
class _Rewriting:
    """What the rewriting of a graph and its bodies shares."""

    index: GraphIndex
    scores: frozenset[str]
    numbers: Iterator[int] = field(default_factory=count)

    def name(self, what: str) -> str:
        return f"{_OURS}/{next(self.numbers)}/{what}"

    def look(self, tensor: HalfTensor) -> tuple[list[NodeProto], Probe]:
        """What computes the extremes of what will be a tensor once it is rounded."""
        names = tuple(self.name(op) for op in _EXTREMES)
        # Over all axes without naming them, which is the same in every opset.
        nodes = [
            helper.make_node(f"Reduce{op}", [_raw(tensor.name)], [name], keepdims=0)
            for op, name in zip(_EXTREMES, names, strict=True)
        ]
        return nodes, (tensor, names)

    def round(self, name: str) -> list[NodeProto]:
        """From `_raw` to the tensor, by FP16."""
        half = self.name("half")
        casts = ((_raw(name), half, HALF), (half, name, FLOAT))
        return [helper.make_node("Cast", [source], [made], to=to) for source, made, to in casts]


def exact_graph(model: ModelProto) -> ExactGraph | None:
    """The graph with every FP16 type made FP32 and each result rounded; None if nothing of it is in FP16.

    The weights are inside ``model``, which stays as it is. Local functions are inlined; tensors of the bodies of If,
    Loop and Scan are rounded and looked at, too. Raises HiresvitError for a graph whose types cannot be had.
    """
    flat = inline_functions(model)
    index = index_graph(flat, {})
    if index.inner:
        try:
            flat = onnx.shape_inference.infer_shapes(flat)  # for the types inside bodies
        except (onnx.shape_inference.InferenceError, ValueError) as error:
            raise HiresvitError(f"the types of the graph cannot be inferred: {_line(error)}") from error
    exact = ModelProto()
    exact.CopyFrom(flat)
    halves = {name for name, kind in index.types.items() if kind == "float16"} | _asked(flat, index)
    rewriting = _Rewriting(index, _scores(index))
    del exact.graph.value_info[:]
    inputs = [v.name for v in exact.graph.input if v.name in halves and v.name in index.inputs]
    probes = _rewrite(exact.graph, halves, rewriting, inputs)
    for value in exact.graph.input:
        value.name = _raw(value.name) if value.name in inputs else value.name
    if not probes:
        return None
    for _, names in probes:
        exact.graph.output.extend(helper.make_tensor_value_info(name, FLOAT, []) for name in names)
    return ExactGraph(exact, probes, {name: _raw(name) for name in inputs}, _broken(index, rewriting.scores))


def _broken(index: GraphIndex, scores: Collection[str]) -> list[HalfTensor]:
    found = []
    for name, tensor in index.constants.items():
        if tensor.data_type != HALF or not (readers := index.reads(name)):
            continue
        values = index.array(name)
        assert values is not None  # FP16 is a number
        wrong = values[~np.isfinite(values)]
        fair = name in scores and bool((wrong == -np.inf).all())
        if wrong.size and not fair and not all(reader.op_type in _BOUNDS for reader, _ in readers):
            found.append(HalfTensor(name, _module(readers[0][0], index)))
    return found


def _raw(name: str) -> str:
    return f"{_OURS}/{name}"


def _rewrite(graph: GraphProto, halves: Collection[str], rewriting: _Rewriting, inputs: Sequence[str]) -> list[Probe]:
    """Round ``halves``, those of the ``inputs`` first, and make all types FP32; returns what is looked at."""
    for part in (*graph.initializer, *graph.sparse_initializer, *graph.input, *graph.output, *graph.value_info):
        _widen(part)
    nodes: list[NodeProto] = []
    probes: list[Probe] = []

    def rounded(tensor: HalfTensor) -> None:
        looks, probe = rewriting.look(tensor)
        probes.append(probe)
        nodes.extend((*looks, *rewriting.round(tensor.name)))

    for name in inputs:
        rounded(HalfTensor(name, ""))
    for node in graph.node:
        inside = [(body, _rewrite(body, _stated_halves(body), rewriting, ())) for body in graphs_of(node)]
        _widen(node)
        nodes.append(node)
        if inside:
            out, behind = _let_out(node, inside, rewriting)
            probes += out
            nodes += behind
        if node.domain in OWN_DOMAINS and node.op_type in _ROUNDED:
            continue
        module = _module(node, rewriting.index)
        for position, name in enumerate(node.output):
            if name in halves:
                node.output[position] = _raw(name)
                rounded(HalfTensor(name, module, name in rewriting.scores))
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return probes


def _let_out(
    node: NodeProto, inside: Sequence[tuple[GraphProto, list[Probe]]], rewriting: _Rewriting
) -> tuple[list[Probe], list[NodeProto]]:
    """Make what is known inside a node's bodies known outside: the probes there, and nodes behind it that they need."""
    if node.op_type not in ("If", "Loop", "Scan") or node.domain not in OWN_DOMAINS:
        return [], []
    own = len(inside[0][0].output) - (node.op_type == "Loop")  # the first of a Loop's body says whether to go on
    node.output.extend(rewriting.name("unused") for _ in range(own - len(node.output)))
    found: list[Probe] = []
    behind: list[NodeProto] = []
    for body, probes in inside:
        for tensor, scalars in probes:
            made = tuple(rewriting.name("inside") for _ in scalars)
            node.output.extend(made)
            for other, _ in inside:
                other.output.extend(_scalars(other, scalars, other is body, rewriting))
            if node.op_type == "If":
                found.append((tensor, made))
                continue
            names = tuple(rewriting.name(op) for op in _EXTREMES)  # over all rounds
            for op, each, name in zip(_EXTREMES, made, names, strict=True):
                behind.append(helper.make_node(f"Reduce{op}", [each], [name], keepdims=0))
            found.append((tensor, names))
    for attribute in node.attribute:  # of a Scan, which may have none
        if attribute.name in ("scan_output_axes", "scan_output_directions"):
            attribute.ints.extend([0] * (len(node.output) - own))
    return found, behind


def _scalars(body: GraphProto, names: Sequence[str], is_here: bool, rewriting: _Rewriting) -> list[onnx.ValueInfoProto]:
    """The outputs of a body that tell the extremes of a tensor; nothing's where that is in the other body."""
    if not is_here:
        nothing = [np.array(value, np.float32) for value in (-np.inf, np.inf, 0)]
        names = [rewriting.name("nothing") for _ in nothing]
        for value, name in zip(nothing, names, strict=True):
            body.node.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value)))
    return [helper.make_tensor_value_info(name, FLOAT, []) for name in names]


def _widen(part: Message) -> None:
    """FP32 wherever a part of a graph, but for the bodies in it, says FP16."""
    if isinstance(part, GraphProto):
        return
    if isinstance(part, TensorProto):
        if part.data_type == HALF:
            wide = numpy_helper.from_array(array_of(part).astype(np.float32), part.name)
            part.CopyFrom(wide)
        return
    if isinstance(part, AttributeProto) and part.name in _TYPED and part.i == HALF:
        part.i = FLOAT
    if isinstance(part, onnx.TypeProto.Tensor) and part.elem_type == HALF:
        part.elem_type = FLOAT
    for kind, value in part.ListFields():
        if kind.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                _widen(inner)


def _stated_halves(graph: GraphProto) -> set[str]:
    """What is said to be FP16 in a graph whose types have been inferred."""
    values = (*graph.value_info, *graph.output)
    return {value.name for value in values if value.type.tensor_type.elem_type == HALF}


def _asked(model: ModelProto, index: GraphIndex) -> set[str]:
    """The FP16 results among those of operators that ONNX does not define, as ONNX Runtime says."""
    unknown = [name for node in index.nodes for name in node.output if name and not index.types.get(name)]
    if not unknown:
        return set()
    asking = ModelProto()
    asking.CopyFrom(model)
    del asking.graph.output[:]
    for name in unknown:
        asking.graph.output.add(name=name)
    try:
        session = open_session(asking.SerializeToString(), threads=1)
    except Exception as error:  # its exception classes share no base
        raise HiresvitError(f"the types of the graph cannot be had from ONNX Runtime: {_line(error)}") from error
    return {value.name for value in session.get_outputs() if value.type == "tensor(float16)"}


def _scores(index: GraphIndex) -> frozenset[str]:
    """The tensors that only a softmax reads, with no more than masks and moves in between."""
    captured = {name for inner in index.inner for name in inner.input}
    found: set[str] = set()

    def is_way(reader: NodeProto) -> bool:
        return reader.op_type in _SOFTMAXES or (reader.op_type in _TO_SCORES and found.issuperset(reader.output))

    def leads_there(name: str) -> bool:
        readers = [reader for reader, _ in index.reads(name)]
        return bool(readers) and name not in captured and name not in index.outputs and all(map(is_way, readers))

    for node in reversed(index.nodes):
        found.update(name for name in node.output if leads_there(name))
    found.update(name for name in (*index.inputs, *index.constants) if leads_there(name))
    return frozenset(found)


def _module(node: NodeProto, index: GraphIndex) -> str:
    """Of a cast that of what it casts; the node's own name where that is no path."""
    while node.op_type == "Cast" and node.input[0] in index.producer:
        node = index.producer[node.input[0]]
    return module_of(node.name) or node.name


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
