"""Rules about operators and sizes: what there is, in which form, and what must be known when a plan is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import NodeProto

from hiresvit.check.nvidia_parser import names
from hiresvit.check.rule import Spot, View, rule
from hiresvit.graph.index import attributes, operand, reached
from hiresvit.graph.operators import OWN_DOMAINS

# Names that the parser knows beside ONNX's: experimental operators of old.
_OLD_OPS = frozenset({"ImageScaler", "ParametricSoftplus", "ScaledTanh"})
_KNOWN_OPS = _OLD_OPS | {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
_LEAST_AXES = {
    **dict.fromkeys(("ArgMax", "ArgMin", "Hardmax", "LogSoftmax", "Softmax"), 2),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization"), 3),
}
_AXES_AS_OPERAND = names(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum",
    "ReduceSumSquare Squeeze Unsqueeze",
)


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
    "the parser goes by the name alone and takes it for ONNX's, which may compute something else: export with "
    "ONNX's own operators (for ONNX Runtime's, use the graph from before its optimisation)",
)
def domain(view: View) -> Iterator[Spot]:
    """An operator of somebody's own with the name of one of ONNX's."""
    for node in (*view.nodes, *view.inner):
        if node.domain not in OWN_DOMAINS and node.op_type in _KNOWN_OPS:
            yield node, f"operator {node.op_type} of domain {node.domain!r}"


@rule("illegal", "{target} does not take this form of the operator: choose another")
def form(view: View) -> Iterator[Spot]:
    """A form of an operator that the parser's importer refuses."""
    for node in view.nodes:
        if what := _refused_attributes(view, node) or _refused_operands(view, node):
            yield node, f"{node.op_type} with {what}"


@rule("illegal", "{target} has tensors of up to {target.max_rank} axes: merge some")
def rank(view: View) -> Iterator[Spot]:
    """More axes than a tensor can have."""
    for name, shape in view.shapes.items():
        if len(shape) > view.target.max_rank:
            yield view.producer.get(name), f"{len(shape)} axes"


@rule(
    "illegal", "{target} builds no plan without the sizes to expect: give their range (--shapes), or export at one size"
)
def dynamic(view: View) -> Iterator[Spot]:
    """Sizes that are not known when the plan is built."""
    if view.profiled:
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


def _refused_attributes(view: View, node: NodeProto) -> str:
    """What is refused of an operator's form, or "". Run on RTX 1.7; the restrictions are operators.md's of 10.15."""
    given = attributes(node)
    match node.op_type:
        case "Resize":
            mode: str = given.get("coordinate_transformation_mode", b"half_pixel").decode()
            policy: str = given.get("keep_aspect_ratio_policy", b"stretch").decode()
            if given.get("antialias"):
                return "antialias"
            if mode in ("half_pixel_symmetric", "tf_crop_and_resize"):
                return mode
            return "" if policy == "stretch" else f"keep_aspect_ratio_policy={policy}"
        case "AveragePool" | "LpPool" | "MaxPool":
            if any(size != 1 for size in given.get("dilations", [])):
                return "dilations"
            return "Indices as output" if node.op_type == "MaxPool" and any(node.output[1:]) else ""
        case "BatchNormalization" | "LayerNormalization":
            return "training outputs" if given.get("training_mode") or any(node.output[1:]) else ""
        case "ScatterElements" | "ScatterND":
            reduction = given.get("reduction", b"none").decode()
            return "" if reduction == "none" else f"reduction={reduction}"
    return ""


def _refused_operands(view: View, node: NodeProto) -> str:
    op, shapes = node.op_type, [view.shapes.get(name) for name in node.input]
    match op:
        case "Conv" | "ConvTranspose":
            axes = len(shapes[1] or ()) - 2
            return f"{axes} spatial axes" if axes > 3 else ""
        case "TopK":
            return _refused_k(view, node)
        case "Dropout":
            training = view.array(operand(node, 2))
            if training is None:
                return "a training_mode that is no initializer" if operand(node, 2) else ""
            return "training_mode" if training.any() else ""
        case "STFT":
            constant = all(name in view.constants for name in (operand(node, 1), operand(node, 3)) if name)
            return "" if constant else "a step or length that is no initializer"
        case "Slice":
            data, starts = shapes[:2]
            if operand(node, 3) or data is None or len(shapes) < 3 or not starts or starts[0] is None:
                return ""
            return f"{starts[0]} starts for {len(data)} axes and no axes" if starts[0] < len(data) else ""
        case "Attention":
            same = view.target.needs_separate_qkv and len(node.input) > 2 and len(set(node.input[:3])) == 1
            return "q, k and v in one tensor" if same else ""
    if op in _AXES_AS_OPERAND:
        return "axes that are not constant" if operand(node, 1) and node.input[1] not in view.fixed else ""
    few = op in _LEAST_AXES and shapes[0] is not None and len(shapes[0]) < _LEAST_AXES[op]
    return f"an operand of less than {_LEAST_AXES[op]} axes" if few else ""


def _refused_k(view: View, node: NodeProto) -> str:
    k = view.array(operand(node, 1))
    if k is None or k.size != 1:
        return ""
    shape, axis = view.shapes.get(node.input[0], ()), attributes(node).get("axis", -1)
    size = shape[axis] if -len(shape) <= axis < len(shape) else None
    if size is not None and k.max() > size:
        return f"K = {k.max()} of {size} elements"
    most = view.target.max_topk
    return f"K above {most}" if k.max() > most else ""
