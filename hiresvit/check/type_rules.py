"""Rules about types: which tensors there are, what an operator computes in, and which operands must agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from onnx import NodeProto
from onnx.defs import OpSchema

from hiresvit.check.rule import Spot, View, rule
from hiresvit.graph.dtypes import shown
from hiresvit.graph.index import first_output, schema_of
from hiresvit.graph.operators import OWN_DOMAINS, QUANTIZERS

_VARIADIC = OpSchema.FormalParameterOption.Variadic
_UINT8_READERS = frozenset({"Cast", "Equal", "Shape", "Size"})
_ARITHMETIC = frozenset({"Abs", "Add", "Div", "Max", "Min", "Mod", "Mul", "Neg", "Pow", "ReduceSum", "Sub", "Sum"})
# Which input is the data, where it is not the first.
_DATA_INPUT = {"OneHot": 2, "Where": 1}
# ONNX gives these inputs one type each, TensorRT wants one for all; run on RTX 1.7.
_ONE_TYPE = {"Attention": (0, 1, 2, 3), "GridSample": (0, 1)}
# Run: the parser converts bounds, places, the fill value and a BatchNormalization's parameters. Q/DQ have their own
# rules.
_CONVERTED = QUANTIZERS | {"BatchNormalization", "Clip", "Pad", "Slice"}


@rule("illegal", "{target} has no such tensors: convert it before the graph")
def tensor_type(view: View) -> Iterator[Spot]:
    """A type of tensor that there is not; those that only Q/DQ read are theirs."""
    for value in (*view.inputs.values(), *view.outputs.values()):
        kind = value.type.WhichOneof("value") or "tensor_type"
        if kind != "tensor_type":
            yield None, f"{value.name!r} is a {kind.removesuffix('_type')}, not a tensor"
    for name in view.sparse:
        yield None, f"{name!r} is a sparse constant"
    for name, kind in view.types.items():
        readers = [node for node, _ in view.reads(name)]
        theirs = bool(readers) and all(node.op_type in QUANTIZERS for node in readers)
        if not kind or kind in view.target.tensors or theirs:
            continue
        if name in view.inputs:
            yield None, f"input {name!r} in {shown(kind)}"
        elif name in view.constants:
            yield (readers[0] if readers else None), f"constants in {shown(kind)}"
        else:
            yield view.producer.get(name), f"tensors in {shown(kind)}"


@rule(
    "illegal",
    "{target} takes UINT8 only as the graph's input right into a Cast, or as its output: cast first, then move",
)
def uint8(view: View) -> Iterator[Spot]:
    """UINT8 anywhere but between the border of the graph and a Cast."""
    known = _UINT8_READERS | ({"DequantizeLinear"} if "uint8" in view.target.quantized else set())
    for name, kind in view.types.items():
        maker = view.producer.get(name)
        if kind != "uint8" or name in view.constants or (maker and maker.op_type == "QuantizeLinear"):
            continue
        if maker and name not in view.outputs:
            yield maker, f"{maker.op_type} makes UINT8 inside the graph"
        for node, _ in view.reads(name):
            given_out = node.op_type == "Identity" and first_output(node) in view.outputs
            if node.op_type not in known and not given_out:
                yield node, f"{node.op_type} reads UINT8"


@rule("illegal", "{target} does not compute it in this type: cast the operand")
def operand_type(view: View) -> Iterator[Spot]:
    """Data of a type that the operator does not compute in."""
    for node, kind, tried, documented in _data_types(view):
        if kind not in (tried or set()) | (documented or set()):
            yield node, f"{node.op_type} of {shown(kind)}"


@rule(
    lambda target: "illegal" if target.quantized_only else None,
    "to {target} it is a quantized type, which it takes from a QuantizeLinear alone: cast before the graph",
)
def unquantized(view: View) -> Iterator[Spot]:
    """Data of a quantized type that no QuantizeLinear made."""
    for name, kind in view.types.items():
        maker = view.producer.get(name)
        fed = name in view.inputs or (maker is not None and maker.op_type in ("Cast", "CastLike"))
        if kind in view.target.quantized_only and fed:
            for node, _ in view.reads(name):
                if node.op_type not in QUANTIZERS:
                    yield node, f"{node.op_type} of {shown(kind)}"


@rule(
    "illegal",
    "the network is strongly typed and {target} converts nothing: give all operands one type (a constant that "
    "FP16 and FP32 share has to be written twice)",
)
def mixed_types(view: View) -> Iterator[Spot]:
    """Operands of two types where the network needs one: it is strongly typed and converts nothing."""
    for node in view.nodes:
        if node.op_type in _CONVERTED or node.domain not in OWN_DOMAINS:
            continue
        for indices in _same_type(node, view.opset):
            kinds = list(dict.fromkeys(filter(None, (view.type_of(node, k) for k in indices))))
            if len(kinds) > 1 and not (node.op_type == "Attention" and kinds[1:] == ["bool"]):
                yield node, f"{node.op_type} of {' and '.join(map(shown, kinds))}"


@rule(
    lambda target: "hazard" if target.documented else None,
    "NVIDIA's list of operators has it and the parser of TensorRT-RTX refuses it; {target} was not tried: use "
    "FP32 or FP16 there",
)
def doubtful_type(view: View) -> Iterator[Spot]:
    """Data of a type that documents promise and TensorRT-RTX was seen to refuse."""
    for node, kind, tried, documented in _data_types(view):
        if tried is not None and kind not in tried and kind in (documented or ()):
            yield node, f"{node.op_type} of {shown(kind)}"


@rule(
    lambda target: "hazard" if target.documented else None,
    "the parser of TensorRT-RTX takes it, and NVIDIA's list of operators has no such type for {target}, which was not "
    "tried: cast the operand there",
)
def undocumented_type(view: View) -> Iterator[Spot]:
    """Data of a type that TensorRT-RTX was seen to take and documents do not promise."""
    for node, kind, tried, documented in _data_types(view):
        if documented is not None and kind not in documented and kind in (tried or ()):
            yield node, f"{node.op_type} of {shown(kind)}"


@rule("hazard", "{target} computes it, and takes and gives it, as FP32: export in FP32")
def double(view: View) -> Iterator[Spot]:
    """DOUBLE, which there is not."""
    for node in view.nodes:
        if any(view.types.get(name) == "double" for name in node.output):
            yield node, "DOUBLE"


@rule("hazard", "legal, but GPUs compute it with 32-bit instructions: cast data to INT32 and leave INT64 to sizes")
def int64(view: View) -> Iterator[Spot]:
    """Arithmetic in INT64 on data, not on sizes."""
    data = set(view.inputs)
    for node in view.nodes:
        if node.op_type in ("Shape", "Size") or data.isdisjoint(node.input):
            continue
        data.update(node.output)
        if node.op_type in _ARITHMETIC and view.type_of(node, 0) == "int64":
            yield node, f"{node.op_type} of INT64 data"


_Types = frozenset[str] | None


def _data_types(view: View) -> Iterator[tuple[NodeProto, str, _Types, _Types]]:
    """The nodes that the target has types for, with that of their data, where it is known and no other rule's; and the
    types that were tried and that are documented, where there are such.
    """
    for node in view.nodes:
        tried, documented = (table.get(node.op_type) for table in (view.target.types, view.target.documented))
        if tried is not None or documented is not None:  # whatever its domain: the parser goes by the name
            kind = view.type_of(node, _DATA_INPUT.get(node.op_type, 0))
            kind = "float" if kind == "double" else kind
            if kind in view.target.tensors - {"uint8"}:
                yield node, kind, tried, documented


def _same_type(node: NodeProto, version: int | None) -> list[list[int]]:
    """Inputs that must be of one type, as groups of their numbers."""
    if node.op_type in _ONE_TYPE:
        return [[k for k in _ONE_TYPE[node.op_type] if k < len(node.input)]]
    schema = schema_of(node, version)
    formals = schema.inputs if schema else []
    groups: dict[str, list[int]] = defaultdict(list)
    for k in range(len(node.input) if formals else 0):
        formal = formals[min(k, len(formals) - 1)]
        # ONNX names no type for it: axes, say, before they were an input. The parser reads them.
        surplus = k >= len(formals) and formal.option != _VARIADIC
        if formal.is_homogeneous and not surplus:  # what a Loop carries is not
            groups[formal.type_str].append(k)
    return list(groups.values())
