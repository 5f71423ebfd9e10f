"""Forms of what moves, counts and repeats: axes, places and sizes, and the bodies of If and Loop."""

from __future__ import annotations

from onnx import NodeProto

from hiresvit.check.forms import form_of, is_computed, rank_of, text_of
from hiresvit.check.nvidia_parser import names
from hiresvit.check.rule import View
from hiresvit.graph.dtypes import shown
from hiresvit.graph.index import GraphIndex, attributes, first_output, graphs_of, operand

_REDUCTIONS = names(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum",
    "ReduceSumSquare",
)
_LEAST_AXES = {
    **dict.fromkeys(("ArgMax", "ArgMin", "Hardmax", "LogSoftmax", "Softmax"), 2),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization"), 3),
}


# Axes, places and sizes


@form_of("Rank.least", *_LEAST_AXES)
def _least(view: View, node: NodeProto) -> str:
    rank, least = rank_of(view, node, 0), _LEAST_AXES[node.op_type]
    return f"an operand of less than {least} axes" if rank is not None and rank < least else ""


@form_of("Reduce.fed", *_REDUCTIONS, "Squeeze", "Unsqueeze")
def _fed_axes(view: View, node: NodeProto) -> str:
    return "axes that are not constant" if operand(node, 1) and node.input[1] not in view.fixed else ""


@form_of("Reduce.computed", *_REDUCTIONS)
def _reduced_axes(view: View, node: NodeProto) -> str:
    return "axes that are no initializer" if is_computed(view, node, 1) else ""


@form_of("Squeeze.computed")
def _squeezed(view: View, node: NodeProto) -> str:
    return _reduced_axes(view, node)


@form_of("CumSum.computed")
def _summed(view: View, node: NodeProto) -> str:
    return "an axis that is no initializer" if is_computed(view, node, 1) else ""


@form_of("Pad.computed")
def _padded(view: View, node: NodeProto) -> str:
    axes = operand(node, 3)
    return "axes that are no initializer" if axes and axes not in view.constants else ""


@form_of("Slice.starts")
def _starts(view: View, node: NodeProto) -> str:
    data, starts = rank_of(view, node, 0), view.shapes.get(operand(node, 1))
    if operand(node, 3) or data is None or not starts or starts[0] is None:
        return ""
    return f"{starts[0]} starts for {data} axes and no axes" if starts[0] < data else ""


@form_of("TopK.k")
def _places(view: View, node: NodeProto) -> str:
    k = view.array(operand(node, 1))
    if k is None or k.size != 1:
        return ""
    shape, axis = view.shapes.get(node.input[0], ()), attributes(node).get("axis", -1)
    size = shape[axis] if -len(shape) <= axis < len(shape) else None
    if size is not None and k.max() > size:
        return f"K = {k.max()} of {size} elements"
    most = view.target.max_topk
    return f"K above {most}" if k.max() > most else ""


@form_of("TopK.sorted")
def _unsorted(_: View, node: NodeProto) -> str:
    return "sorted=0" if attributes(node).get("sorted", 1) == 0 else ""


@form_of("EyeLike.dynamic")
def _dynamic_eye(view: View, node: NodeProto) -> str:
    return "sizes that are not static" if None in view.shapes.get(node.input[0], ()) else ""


@form_of("Hardmax.dynamic")
def _dynamic_classes(view: View, node: NodeProto) -> str:
    shape, axis = view.shapes.get(node.input[0], ()), attributes(node).get("axis", -1)
    return "an axis of no static size" if -len(shape) <= axis < len(shape) and shape[axis] is None else ""


@form_of("Scatter.reduction", "ScatterElements", "ScatterND")
def _reduction(_: View, node: NodeProto) -> str:
    reduction = text_of(node, "reduction", "none")
    return "" if reduction == "none" else f"reduction={reduction}"


@form_of("ScatterND.opset_18")
def _scatter_of_late(view: View, node: NodeProto) -> str:
    return "opset 18 or later" if (view.opset or 0) >= 18 else ""


@form_of("TensorScatter.rank")
def _cache(view: View, node: NodeProto) -> str:
    rank = rank_of(view, node, 0)
    return "" if rank in (None, 4) else f"{rank} axes"


@form_of("TensorScatter.axis")
def _cache_axis(_: View, node: NodeProto) -> str:
    axis = attributes(node).get("axis", -2)
    return "" if axis in (-2, 2) else f"axis={axis}"


@form_of("STFT.fed")
def _spectrum(view: View, node: NodeProto) -> str:
    constant = all(name in view.constants for name in node.input[1:] if name)
    return "" if constant else "a step, window or length that is no initializer"


@form_of("STFT.complex")
def _complex(view: View, node: NodeProto) -> str:
    shape = view.shapes.get(node.input[0], ())
    return "complex numbers" if len(shape) == 3 and shape[2] == 2 else ""


@form_of("Pow.integers")
def _integers(view: View, node: NodeProto) -> str:
    base, exponent = (view.type_of(node, k).startswith("int") for k in range(2))
    return "a base or an exponent of integers" if base or exponent else ""


@form_of("Pow.types")
def _exponent(view: View, node: NodeProto) -> str:
    kinds = {view.type_of(node, k) for k in range(2)} - {""}
    return "an exponent of another type than its base" if len(kinds) > 1 else ""


@form_of("RandomLike.constant", "RandomNormalLike", "RandomUniformLike")
def _random(view: View, node: NodeProto) -> str:
    return "a constant for its shape" if node.input[0] in view.constants else ""


@form_of("Einsum.repeated")
def _einsum(view: View, node: NodeProto) -> str:
    terms = text_of(node, "equation", "").replace(" ", "").partition("->")[0].split(",")
    if any("." in term for term in terms):
        return "an ellipsis"
    if any(len(set(term)) < len(term) for term in terms):
        return "a diagonal"
    sizes: dict[str, set[int | None]] = {}
    for term, name in zip(terms, node.input, strict=False):
        for letter, size in zip(term, view.shapes.get(name, ()), strict=False):
            sizes.setdefault(letter, set()).add(size)
    return "sizes of 1 that are spread" if any(len(found - {None}) > 1 for found in sizes.values()) else ""


@form_of("Cast.uint8", "Cast", "CastLike")
def _bytes(view: View, node: NodeProto) -> str:
    kinds = [view.type_of(node, 0), view.types.get(first_output(node), "")]
    others = set(kinds) - {"uint8", "float", "float16", ""}
    return " to ".join(map(shown, kinds)) if "uint8" in kinds and others else ""


# Bodies


@form_of("If.ranks")
def _ranks(view: View, node: NodeProto) -> str:
    return "" if operand(node, 0) in view.fixed else _branches(view, node)


@form_of("If.ranks_ever", "If")
def _ranks_ever(view: View, node: NodeProto) -> str:
    return _branches(view, node) if operand(node, 0) in view.fixed else ""


@form_of("If.names")
def _names(_: View, node: NodeProto) -> str:
    results = [[value.name for value in graph.output] for graph in graphs_of(node)]
    return (
        "one name for the results of both branches"
        if any(len(set(pair)) == 1 for pair in zip(*results, strict=False))
        else ""
    )


@form_of("Loop.carried")
def _carried(view: View, node: NodeProto) -> str:
    body = view.bodies_of(node).get("body")
    if body is None:
        return ""
    for name, value in zip(node.input[2:], list(body.graph.output)[1:], strict=False):
        first, next_ = view.shapes.get(name), body.shapes.get(value.name)
        if first is None or next_ is None:
            continue
        if len(first) != len(next_) or any(a != b for a, b in zip(first, next_, strict=True) if None not in (a, b)):
            return f"{_sizes(first)} that it carries on as {_sizes(next_)}"
    return ""


@form_of("Loop.scan")
def _scan(view: View, node: NodeProto) -> str:
    stacked = [name for name in node.output[max(len(node.input) - 2, 0) :] if name]
    if not any(view.reads(name) or name in view.outputs for name in stacked):
        return ""
    count, goes_on = operand(node, 0), operand(node, 1)
    known = count in view.fixed and (not goes_on or goes_on in view.fixed)
    body = view.bodies_of(node).get("body")
    if known and (body is None or _always_goes_on(body)):
        return ""
    return "results of every round, and a number of rounds that is not fixed"


def _always_goes_on(body: GraphIndex) -> bool:
    """Whether a loop's body gives its condition on as it came, or a constant."""
    name = body.graph.output[0].name
    while (maker := body.producer.get(name)) is not None and maker.op_type in ("Cast", "Identity"):
        name = maker.input[0]
    return name in body.fixed or (len(body.graph.input) > 1 and name == body.graph.input[1].name)


def _branches(view: View, node: NodeProto) -> str:
    ranks = []
    for body in view.bodies_of(node).values():
        shapes = [body.shapes.get(value.name) for value in body.graph.output]
        ranks.append([None if shape is None else len(shape) for shape in shapes])
    for pair in zip(*ranks, strict=False):
        if len(set(pair) - {None}) > 1:
            return f"branches whose results have {' and '.join(map(str, pair))} axes"
    return ""


def _sizes(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
