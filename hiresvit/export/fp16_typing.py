"""Which tensors of a graph become FP16: what `hiresvit.export.fp16` decides before it rewrites anything.

The operator schemas say which inputs and outputs may be float16. An operator is pinned, that is kept in FP32,
if it is an island, if it adds up more values than FP16 can count, if it computes sizes, or if it only carries FP32
values from one island to the next.
A constant is there in every type, and so is what a Cast makes of an integer: both are called free here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from onnx.defs import OpSchema

from hiresvit.errors import UsageError

FLOAT, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)

Versions = dict[str, dict[int, str]]
"""{float tensor: {type: name}}: the types it is wanted in, the one it is made in first."""

MAX_TERMS = 2048
"""FP16 counts to here: beyond, adding 1 to a sum of ones changes nothing."""
_SUMS = frozenset({"GlobalAveragePool", "ReduceMean", "ReduceSum"})

_SUFFIX = {FLOAT: "fp32", HALF: "fp16"}
_ANY_TYPE = frozenset({"Shape", "Size"})  # indifferent to the type of what they read
_MOVEMENT = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice"}
    | {"SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)


@dataclass
class Op:
    """A node and the types of its inputs and outputs: FLOAT, HALF, or None for what is no float or absent."""

    node: NodeProto
    reads: list[int | None]
    writes: list[int | None]

    def pin(self) -> None:
        """Keep all of the node in FP32."""
        self.reads = [dtype and FLOAT for dtype in self.reads]
        self.writes = [dtype and FLOAT for dtype in self.writes]

    @property
    def inputs(self) -> Iterator[tuple[str, int]]:
        """The float inputs: (name, type)."""
        return ((name, dtype) for name, dtype in zip(self.node.input, self.reads, strict=True) if dtype)

    @property
    def outputs(self) -> Iterator[tuple[str, int]]:
        """The float outputs: (name, type)."""
        return ((name, dtype) for name, dtype in zip(self.node.output, self.writes, strict=True) if dtype)

    @property
    def makes_float(self) -> bool:
        """Whether it is a Cast from another type, whose result is to be had in FP32 and in FP16 alike."""
        return self.node.op_type == "Cast" and any(self.writes) and not any(self.reads)


def float_tensors(graph: GraphProto) -> set[str]:
    """Names of the FP32 tensors of an inferred graph.

    Raises UsageError when there is none, when one is FP16 or BF16 already, or when a type is unknown.
    """
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    types |= {t.name: t.data_type for t in graph.initializer}
    for node in graph.node:
        for name in node.output:
            if name and not types.get(name):
                raise UsageError(f"tensor {name!r} of a {node.op_type} node: its type cannot be inferred")
    for name, dtype in types.items():
        if dtype in (HALF, TensorProto.BFLOAT16):
            type_name = TensorProto.DataType.Name(dtype)
            raise UsageError(f"tensor {name!r} is {type_name} already: give the FP32 graph")
    floats = {name for name, dtype in types.items() if dtype == FLOAT}
    if not floats:
        raise UsageError("the graph has no FP32 tensor: there is nothing to convert")
    return floats


def decide(
    model: ModelProto, floats: Collection[str], islands: Collection[str], io_type: int
) -> tuple[list[Op], Versions]:
    """Type every node of an inferred graph, and name the versions of each of its ``floats``.

    Raises UsageError for an operator that ONNX does not define.
    """
    graph = model.graph
    opsets = {_domain(o.domain): o.version for o in model.opset_import}
    ops = [_typed(node, floats, opsets) for node in graph.node]
    sizes = _static_elements(graph)
    for op in ops:
        if op.node.op_type in islands or _adds_many(op.node, sizes):
            op.pin()
    free = {t.name for t in graph.initializer}
    free |= {name for op in ops if op.makes_float for name, _ in op.outputs}
    _pin_sizes(ops, graph)
    _pin_movement(ops, graph, free, io_type)
    return ops, _name_versions(ops, graph, floats, free, io_type)


def _static_elements(graph: GraphProto) -> dict[str, int]:
    """How many elements each tensor of an inferred graph has for a batch of 1; a symbolic size counts as 1."""
    values = (*graph.input, *graph.value_info, *graph.output)
    return {v.name: math.prod(d.dim_value or 1 for d in v.type.tensor_type.shape.dim) for v in values}


def _adds_many(node: NodeProto, sizes: Mapping[str, int]) -> bool:
    """Whether a mean or sum has more terms than FP16 can count; what is symbolic is in both sizes and cancels."""
    if node.op_type not in _SUMS or node.input[0] not in sizes:
        return False
    return sizes[node.input[0]] > MAX_TERMS * sizes.get(node.output[0], 1)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _typed(node: NodeProto, floats: Collection[str], opsets: dict[str, int]) -> Op:
    """FP16 wherever the schema allows it, for a start."""
    domain = _domain(node.domain)
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets[domain], domain)
    except (KeyError, onnx.defs.SchemaError) as error:
        raise UsageError(f"operator {node.op_type!r} of domain {domain!r} is unknown to ONNX") from error

    def types(names: Iterable[str], formals: Iterable[OpSchema.FormalParameter]) -> list[int | None]:
        allowed = [HALF if "tensor(float16)" in formal.types else FLOAT for formal in formals]
        # The last formal parameter of a variadic operator stands for all that follow.
        return [allowed[min(k, len(allowed) - 1)] if n in floats else None for k, n in enumerate(names)]

    op = Op(node, types(node.input, schema.inputs), types(node.output, schema.outputs))
    if node.op_type in _ANY_TYPE:
        op.reads = [None]
    if node.op_type == "Resize" and len(op.reads) > 1 and op.reads[1]:
        op.reads[1] = FLOAT  # roi may be float16 by its schema, but it is no data, like scales and sizes
    # An output type that no input decides is set by an attribute: LayerNormalization's statistics, EyeLike.
    made = {formal.type_str for formal, dtype in zip(schema.outputs, op.writes, strict=False) if dtype}
    if node.op_type != "Cast" and made - {formal.type_str for formal in schema.inputs}:
        op.pin()
    return op


def _pin_sizes(ops: list[Op], graph: GraphProto) -> None:
    """Pin arithmetic on sizes: from shapes and constants alone to an integer, or to the scales of a Resize.

    FP16 holds no odd number above 2048, and a rounded size is a wrong one.
    """
    data = {i.name for i in graph.input}
    for op in ops:
        if op.node.op_type not in _ANY_TYPE and not data.isdisjoint(op.node.input):
            data.update(op.node.output)
    sizes: set[str] = set()
    for op in reversed(ops):
        to_integer = op.node.op_type == "Cast" and not any(op.writes)
        if data.isdisjoint(op.node.input) and not sizes.isdisjoint(op.node.output):
            op.pin()
        sizes |= {n for n, dtype in op.inputs if n not in data and (to_integer or dtype == FLOAT)}


def _pin_movement(ops: list[Op], graph: GraphProto, free: Collection[str], io_type: int) -> None:
    """Pin what moves data from FP32 to FP32, and what ends in another type, like the ArgMax of an island."""
    fp32 = set(free)  # tensors to be had in FP32 without a cast
    wanted: set[str] = set()  # tensors that something reads in FP32
    if io_type == FLOAT:
        fp32.update(i.name for i in graph.input)
        wanted.update(o.name for o in graph.output)
    for op in ops:
        movable = op.node.op_type in _MOVEMENT and all(name in fp32 for name, _ in op.inputs)
        fp32.update(name for name, dtype in op.outputs if movable or dtype == FLOAT)
    for op in reversed(ops):
        saves_cast = op.node.op_type in _MOVEMENT and any(name in wanted for name, _ in op.outputs)
        if (saves_cast or not any(op.writes)) and all(name in fp32 for name, _ in op.inputs):
            op.pin()
        wanted.update(name for name, dtype in op.inputs if dtype == FLOAT)


def _name_versions(
    ops: list[Op], graph: GraphProto, floats: Collection[str], free: Collection[str], io_type: int
) -> Versions:
    """A tensor's own name goes to the type it is made in or, at the graph's border, to the border's type."""
    asked: dict[str, set[int]] = {name: set() for name in floats}
    for op in ops:
        for name, dtype in op.inputs:
            asked[name].add(dtype)
    for output in graph.output:
        if output.name in floats:
            asked[output.name].add(io_type)

    made = {name: dtype for op in ops for name, dtype in op.outputs} | {i.name: io_type for i in graph.input}
    made |= {name: HALF if HALF in asked[name] else FLOAT for name in free if name in floats}
    for op in ops:
        if op.makes_float:
            op.writes = [made[op.node.output[0]]]

    border = {v.name for v in (*graph.input, *graph.output)}
    taken = {v.name for v in (*graph.input, *graph.value_info, *graph.output, *graph.initializer)}
    versions: Versions = {}
    for name in sorted(floats):
        own = io_type if name in border else made[name]
        order = [made[name], *sorted(asked[name] - {made[name]})]
        versions[name] = {d: name if d == own else fresh(f"{name}_{_SUFFIX[d]}", taken) for d in order}
    return versions


def fresh(name: str, taken: Collection[str]) -> str:
    """``name``, numbered if it is taken."""
    candidate, k = name, 1
    while candidate in taken:
        candidate, k = f"{name}_{k}", k + 1
    return candidate
