"""Which tensors of a graph become FP16: what `hiresvit.export.fp16` decides before it rewrites anything.

The operator schemas say which inputs and outputs may be float16. An operator is pinned, that is kept in FP32,
if it is an island, if its module says so (`hiresvit.graph.precision`), if it adds up more values than FP16 can count,
if it computes sizes, or if it only carries FP32 values from one island to the next.
A constant is there in every type, and so is what a Cast makes of an integer: both are called free here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import NodeProto
from onnx.defs import OpSchema

from hiresvit.errors import IllegalGraphError, UsageError
from hiresvit.graph.dtypes import FLOAT, HALF
from hiresvit.graph.index import GraphIndex, plain_domain
from hiresvit.graph.operators import MOVES, SPREADS
from hiresvit.graph.precision import lowest_of, read_lowest

Versions = dict[str, dict[int, str]]
"""{float tensor: {type: name}}: the types it is wanted in, the one it is made in first."""

MAX_TERMS = 2048
"""FP16 counts to here: beyond, adding 1 to a sum of ones changes nothing."""
_SUMS = frozenset({"GlobalAveragePool", "ReduceMean", "ReduceSum"})

_SUFFIX = {FLOAT: "fp32", HALF: "fp16"}
_ANY_TYPE = frozenset({"Shape", "Size"})  # indifferent to the type of what they read
_MOVEMENT = MOVES - {"Cast", "Pad"} | SPREADS


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


def float_tensors(index: GraphIndex) -> set[str]:
    """Names of the FP32 tensors of an inferred graph.

    Raises UsageError when there is none, when one is FP16 or BF16 already, or when a type is unknown.
    """
    for node in index.nodes:
        for name in node.output:
            if name and not index.types.get(name):
                raise UsageError(f"tensor {name!r} of a {node.op_type} node: its type cannot be inferred")
    for name, kind in index.types.items():
        if kind in ("float16", "bfloat16"):
            raise UsageError(f"tensor {name!r} is {kind.upper()} already: give the FP32 graph")
    floats = {name for name, kind in index.types.items() if kind == "float"}
    if not floats:
        raise UsageError("the graph has no FP32 tensor: there is nothing to convert")
    return floats


def decide(index: GraphIndex, islands: Collection[str], io_type: int) -> tuple[list[Op], Versions]:
    """Type every node of an inferred graph, and name the versions of each of its FP32 tensors.

    Float constants are initializers. Raises UsageError as `float_tensors` does, and for an operator that ONNX does
    not define.
    """
    floats = float_tensors(index)
    ops = [_typed(node, floats, index.opsets) for node in index.nodes]
    lowest = read_lowest(index.metadata)
    for op in ops:
        said = lowest_of(op.node.name, lowest)
        if op.node.op_type in islands or said == "fp32" or _adds_many(op.node, index):
            op.pin()
    free = {t.name for t in index.graph.initializer}
    free |= {name for op in ops if op.makes_float for name, _ in op.outputs}
    _pin_sizes(ops, index)
    _pin_movement(ops, index, free, io_type)
    return ops, _name_versions(ops, index, floats, free, io_type)


def _adds_many(node: NodeProto, index: GraphIndex) -> bool:
    """Whether a mean or sum has more terms than FP16 can count; what is symbolic is in both sizes and cancels."""
    if node.op_type not in _SUMS or node.input[0] not in index.shapes:
        return False
    terms, sums = (
        math.prod(size or 1 for size in index.shapes.get(name, ())) for name in (node.input[0], node.output[0])
    )
    return terms > MAX_TERMS * sums


def _typed(node: NodeProto, floats: Collection[str], opsets: Mapping[str, int]) -> Op:
    """FP16 wherever the schema allows it, for a start."""
    domain = plain_domain(node.domain)
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets[domain], domain)
    except (KeyError, onnx.defs.SchemaError) as error:
        raise IllegalGraphError(f"operator {node.op_type!r} of domain {domain!r} is unknown to ONNX") from error

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


def _pin_sizes(ops: list[Op], index: GraphIndex) -> None:
    """Pin arithmetic on sizes: from shapes and constants alone to an integer, or to the scales of a Resize.

    FP16 holds no odd number above 2048, and a rounded size is a wrong one.
    """
    data = set(index.inputs)
    for op in ops:
        if op.node.op_type not in _ANY_TYPE and not data.isdisjoint(op.node.input):
            data.update(op.node.output)
    sizes: set[str] = set()
    for op in reversed(ops):
        to_integer = op.node.op_type == "Cast" and not any(op.writes)
        if data.isdisjoint(op.node.input) and not sizes.isdisjoint(op.node.output):
            op.pin()
        sizes |= {n for n, dtype in op.inputs if n not in data and (to_integer or dtype == FLOAT)}


def _pin_movement(ops: list[Op], index: GraphIndex, free: Collection[str], io_type: int) -> None:
    """Pin what moves data from FP32 to FP32, and what ends in another type, like the ArgMax of an island."""
    fp32 = set(free)  # tensors to be had in FP32 without a cast
    wanted: set[str] = set()  # tensors that something reads in FP32
    if io_type == FLOAT:
        fp32.update(index.inputs)
        wanted.update(index.outputs)
    for op in ops:
        movable = op.node.op_type in _MOVEMENT and all(name in fp32 for name, _ in op.inputs)
        fp32.update(name for name, dtype in op.outputs if movable or dtype == FLOAT)
    for op in reversed(ops):
        saves_cast = op.node.op_type in _MOVEMENT and any(name in wanted for name, _ in op.outputs)
        if (saves_cast or not any(op.writes)) and all(name in fp32 for name, _ in op.inputs):
            op.pin()
        wanted.update(name for name, dtype in op.inputs if dtype == FLOAT)


def _name_versions(ops: list[Op], index: GraphIndex, floats: set[str], free: Collection[str], io_type: int) -> Versions:
    """A tensor's own name goes to the type it is made in or, at the graph's border, to the border's type."""
    asked: dict[str, set[int]] = {name: set() for name in floats}
    for op in ops:
        for name, dtype in op.inputs:
            asked[name].add(dtype)
    for name in floats & index.outputs.keys():
        asked[name].add(io_type)

    made = {name: dtype for op in ops for name, dtype in op.outputs} | dict.fromkeys(index.inputs, io_type)
    made |= {name: HALF if HALF in asked[name] else FLOAT for name in free if name in floats}
    for op in ops:
        if op.makes_float:
            op.writes = [made[op.node.output[0]]]

    border = index.inputs.keys() | index.outputs.keys()
    taken = set(index.types)
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
