"""Rules about operators and sizes: what there is, and what must be known when a plan is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import NodeProto

from hiresvit.check.forms import maker_of
from hiresvit.check.rule import Spot, View, rule
from hiresvit.graph.index import attributes, first_output, operand, reached
from hiresvit.graph.operators import OWN_DOMAINS, QUANTIZERS

# Names that the parser knows beside ONNX's: experimental operators of old.
_OLD_OPS = frozenset({"ImageScaler", "ParametricSoftplus", "ScaledTanh"})
_KNOWN_OPS = _OLD_OPS | {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}


@rule("illegal", "{target} builds no network without one: name the graph's outputs")
def outputs(view: View) -> Iterator[Spot]:
    """A graph that computes nothing."""
    if not view.outputs:
        yield None, "no outputs"


@rule(
    lambda target: "hazard" if target.takes_any_opset else "illegal",
    "not what {target} promises to read: export at opset 20",
)
def opset(view: View) -> Iterator[Spot]:
    """A version of ONNX's operators that the documents do not promise."""
    if view.opset is None:
        yield None, "no version of ONNX's own operators"
    elif not view.target.min_opset <= view.opset <= view.target.max_opset:
        yield None, f"opset {view.opset}, not {view.target.min_opset} to {view.target.max_opset}"


@rule("illegal", "{target} does not have it: write it in other operators, or run that part elsewhere")
def operator(view: View) -> Iterator[Spot]:
    """An operator that the parser cannot import, or the builder not build."""
    refused = view.target.unsupported | view.target.unbuildable
    for node in (*view.nodes, *view.inner):
        op = node.op_type
        if (op in _KNOWN_OPS and op not in refused) or op in view.target.own_ops:
            continue
        if view.target.folds_constants and view.fixed.issuperset(node.output):
            continue
        if op in view.target.unbuildable and node.domain in OWN_DOMAINS:
            yield node, f"operator {op}, which the parser knows and the builder has nothing for"
        elif node.domain == "com.microsoft":
            yield node, f"operator {op} of com.microsoft, ONNX Runtime's own"
        elif node.domain not in OWN_DOMAINS:
            yield node, f"operator {op} of domain {node.domain!r}"
        elif op in view.target.since:
            yield node, f"operator {op}, which TensorRT has since {view.target.since[op]}"
        else:
            yield node, f"operator {op}" if op in _KNOWN_OPS else f"operator {op}, which ONNX does not have"


@rule(
    lambda target: "hazard" if target.takes_any_domain else "illegal",
    "a parser that goes by the name alone takes it for ONNX's, which may compute something else, and others do not "
    "know it: export with ONNX's own operators (for ONNX Runtime's, use the graph from before its optimisation)",
)
def domain(view: View) -> Iterator[Spot]:
    """An operator of somebody's own with the name of one of ONNX's."""
    for node in (*view.nodes, *view.inner):
        quantizes = node.op_type in QUANTIZERS and node.domain in view.target.quantizer_domains
        if node.domain not in OWN_DOMAINS and node.op_type in _KNOWN_OPS and not quantizes:
            yield node, f"operator {node.op_type} of domain {node.domain!r}"


@rule("illegal", "{target} has tensors of up to {target.max_rank} axes: merge some")
def rank(view: View) -> Iterator[Spot]:
    """More axes than a tensor can have."""
    for name, shape in view.shapes.items():
        if len(shape) > view.target.max_rank and not (view.target.fuses_wide_moves and _is_inside_move(view, name)):
            yield view.producer.get(name), f"{len(shape)} axes"


@rule(
    "illegal",
    "{target} builds nothing without the sizes to expect: export at one size, or, for TensorRT, give their range "
    "(--shapes)",
)
def dynamic(view: View) -> Iterator[Spot]:
    """Sizes that are not known when the plan is built."""
    if view.profiled and view.target.takes_ranges:
        return
    for name in view.inputs:
        if axes := [str(k) for k, size in enumerate(view.shapes.get(name, ())) if size is None]:
            yield None, f"input {name!r} is dynamic ({'axis' if len(axes) == 1 else 'axes'} {', '.join(axes)})"


@rule(
    "illegal",
    "{target} builds no plan without these values, and --shapes gives none: make it a constant, or compute it "
    "from the shape of an input",
)
def fed_size(view: View) -> Iterator[Spot]:
    """A size, count, place or axis that is fed, or computed of what is fed."""
    for node in view.nodes:
        for index in view.target.host_inputs.get(node.op_type, ()):
            for name in _fed(view, operand(node, index)):
                yield node, f"the values of input {name!r} decide a size, a count or a place for {node.op_type}"


def _fed(view: View, name: str) -> list[str]:
    """The inputs whose values decide a tensor, in the order of the graph."""

    def above(made: str) -> Iterable[str]:
        maker = view.producer.get(made)
        return maker.input if maker is not None and maker.op_type in view.target.host_ops else ()

    sources = reached([name], above)
    return [fed for fed in view.inputs if fed in sources]


def _is_inside_move(view: View, name: str) -> bool:
    """Whether a tensor of six axes lies between a Reshape, a Transpose and a Reshape that one operator can do.

    That is so where an axis of size 1 stays in its place, and nothing else reads what lies between (run; so says
    onnxruntime-qnn, reshape_transpose_rank5.cc). Q/DQ may stand between.
    """
    around = (maker_of(view, name), _reader(view, name))
    turn = next((node for node in around if node is not None and node.op_type == "Transpose"), None)
    before = None if turn is None else maker_of(view, turn.input[0])
    after = None if turn is None else _reader(view, first_output(turn))
    if turn is None or before is None or after is None or {before.op_type, after.op_type} != {"Reshape"}:
        return False
    perm, shape = list(attributes(turn).get("perm", [])), view.shapes.get(turn.input[0], ())
    stays = any(size == 1 and perm[axis : axis + 1] == [axis] for axis, size in enumerate(shape))
    return len(shape) == 6 and stays and _reader(view, first_output(before)) is turn


def _reader(view: View, name: str) -> NodeProto | None:
    """Who alone reads a tensor, Q/DQ apart."""
    while len(readers := view.reads(name)) == 1 and name not in view.outputs:
        if readers[0][0].op_type not in QUANTIZERS:
            return readers[0][0]
        name = first_output(readers[0][0])
    return None
