"""Our own rules about an ONNX graph: what a target refuses, and what can go wrong on it, with nothing installed.

A rule looks at the graph for one thing. Those about types are in `type_rules`, about Q/DQ in `qdq_rules`, about FP16 in
`hazards`. For TensorRT-RTX
a rule says what was seen when such a graph was built there; a graph that RTX builds and another target is documented,
or known, to refuse is illegal for that one alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx
from onnx import ModelProto, NodeProto

from hiresvit.check.fp16_rules import HAZARDS
from hiresvit.check.qdq_rules import QDQ_RULES
from hiresvit.check.targets import ARRIVED, HOST_INPUTS, HOST_OPS, NVIDIA_OPS, Target
from hiresvit.check.type_rules import TYPE_RULES
from hiresvit.check.validity_rules import VALIDITY_RULES
from hiresvit.check.view import Level, Rule, Spot, View, common_module, look, name_of, printable
from hiresvit.graph.index import attributes, schema_of
from hiresvit.graph.operators import OWN_DOMAINS

MAX_RANK = 8
"""Axes that a tensor may have in TensorRT."""
MAX_TOPK = 3840
"""The largest K of a TopK."""

_NAMED = 5  # nodes that a finding names
# Names that the parser knows beside ONNX's: experimental operators of old.
_OLD_OPS = frozenset({"ImageScaler", "ParametricSoftplus", "ScaledTanh"})
_KNOWN_OPS = _OLD_OPS | {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}


@dataclass(frozen=True)
class Finding:
    """What a rule found: ``message`` is one line for the user.

    ``nodes`` names the first of the ``count`` nodes; there are none where the graph as a whole is meant. ``module`` is
    the PyTorch module that they all are in, or "". What cannot be printed in their names is spelled out.
    """

    rule: str
    level: Level
    nodes: tuple[str, ...]
    count: int
    module: str
    message: str

    def __post_init__(self) -> None:
        for name in ("module", "message"):
            object.__setattr__(self, name, printable(getattr(self, name)))
        object.__setattr__(self, "nodes", tuple(map(printable, self.nodes)))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def find_problems(model: ModelProto, target: Target, *, profiled: bool) -> list[Finding]:
    """What `RULES` find in a graph, in their order; nodes with the same trouble are one finding.

    ``profiled``: the build gets the sizes of dynamic axes. The graph stays as it is. Where a node lacks operands that
    is the only thing said. Raises UsageError for weights outside the proto, since the rules read constants,
    HiresvitError for constants and functions that are damaged.
    """
    return problems_of(look(model, target, profiled))


def problems_of(view: View) -> list[Finding]:
    """`find_problems` of a graph that was looked at; a view with another target saves looking again."""
    if any(True for _ in operands(view)):
        return _findings(view, RULES[:1])  # the other rules count on them
    return _findings(view, RULES)


def _findings(view: View, rules: Sequence[Rule]) -> list[Finding]:
    target = view.target
    advice: dict[str, str] = dict(target.advice)
    findings = []
    for rule in rules:
        level = rule.elsewhere.get(target.name, rule.level)
        if level is None or (level == "advice" and rule.name not in advice):
            continue
        reason = advice.get(rule.name, rule.reason).format(target=target.title)
        spots: dict[str, list[str]] = defaultdict(list)
        for node, what in rule.find(view):
            spots[what].extend([] if node is None else [name_of(node)])
        for what, nodes in spots.items():
            named = tuple(nodes[:_NAMED])
            findings.append(
                Finding(rule.name, level, named, len(nodes), common_module(nodes), f"{what}: {reason}")
            )
    return findings


def operands(view: View) -> Iterator[Spot]:
    """An operator of ONNX with fewer operands or results than it has to have."""
    for node in view.nodes:
        schema = schema_of(node, view.opset)  # of any domain: the parser goes by the name
        if schema is None:
            continue
        # The parser reads axes in their older form, an attribute, too.
        least = 1 if any(a.name == "axes" for a in node.attribute) else schema.min_input
        if len(node.input) < min(least, schema.min_input) or len(node.output) < schema.min_output:
            yield node, f"{node.op_type} with {len(node.input)} operands and {len(node.output)} results"


def outputs(view: View) -> Iterator[Spot]:
    """A graph that computes nothing."""
    if not view.outputs:
        yield None, "no outputs"


def opset(view: View) -> Iterator[Spot]:
    """A version of ONNX's operators that the documents do not promise."""
    if view.opset is None:
        yield None, "no version of ONNX's own operators"
    elif not view.target.min_opset <= view.opset <= view.target.max_opset:
        yield None, f"opset {view.opset}, not {view.target.min_opset} to {view.target.max_opset}"


def operator(view: View) -> Iterator[Spot]:
    """An operator that the parser cannot import, or the builder not build."""
    refused = view.target.unsupported | view.target.unbuildable
    for node in (*view.nodes, *view.inner):
        op = node.op_type
        if (op in _KNOWN_OPS and op not in refused) or op in NVIDIA_OPS:
            continue
        if op in view.target.unbuildable and node.domain in OWN_DOMAINS:
            yield node, f"operator {op}, which the parser knows and the builder has nothing for"
        elif node.domain == "com.microsoft":
            yield node, f"operator {op} of com.microsoft, ONNX Runtime's own"
        elif node.domain not in OWN_DOMAINS:
            yield node, f"operator {op} of domain {node.domain!r}"
        elif op in ARRIVED and op in refused:
            yield node, f"operator {op}, which TensorRT has since 10.{ARRIVED[op]}"
        else:
            yield node, f"operator {op}" if op in _KNOWN_OPS else f"operator {op}, which ONNX does not have"


def domain(view: View) -> Iterator[Spot]:
    """An operator of somebody's own with the name of one of ONNX's."""
    for node in (*view.nodes, *view.inner):
        if node.domain not in OWN_DOMAINS and node.op_type in _KNOWN_OPS:
            yield node, f"operator {node.op_type} of domain {node.domain!r}"


def form(view: View) -> Iterator[Spot]:
    """A form of an operator that the parser's importer refuses."""
    for node in view.nodes:
        for ops, refused in _FORMS:
            if node.op_type in ops and (what := refused(view, node, attributes(node))):
                yield node, f"{node.op_type} with {what}"


def rank(view: View) -> Iterator[Spot]:
    """More axes than a tensor can have."""
    for name, shape in view.shapes.items():
        if len(shape) > MAX_RANK:
            yield view.producer.get(name), f"{len(shape)} axes"


def dynamic(view: View) -> Iterator[Spot]:
    """Sizes that are not known when the plan is built."""
    if view.profiled:
        return
    for name in view.inputs:
        axes = [k for k, size in enumerate(view.shapes.get(name, ())) if size is None]
        if axes:
            yield (
                None,
                f"input {name!r} is dynamic ({'axis' if len(axes) == 1 else 'axes'} {', '.join(map(str, axes))})",
            )


def fed_size(view: View) -> Iterator[Spot]:
    """A size, count, place or axis that is fed, or computed of what is fed."""
    for node in view.nodes:
        for index in HOST_INPUTS.get(node.op_type, ()):
            for name in _fed(view, node.input[index]) if index < len(node.input) else ():
                yield (
                    node,
                    f"the values of input {name!r} decide a size, a count or a place for {node.op_type}",
                )


def _fed(view: View, name: str) -> list[str]:
    """The inputs whose values decide a tensor, in the order of the graph."""
    pending, seen = [name], {name}
    while pending:
        maker = view.producer.get(pending.pop())
        if maker is not None and maker.op_type in HOST_OPS:
            new = set(maker.input) - seen - view.fixed
            seen |= new
            pending.extend(new)
    return [fed for fed in view.inputs if fed in seen]


_Attributes = dict[str, Any]


def _resize(view: View, node: NodeProto, given: _Attributes) -> str:
    mode: str = given.get("coordinate_transformation_mode", b"half_pixel").decode()
    policy: str = given.get("keep_aspect_ratio_policy", b"stretch").decode()
    if given.get("antialias"):
        return "antialias"
    if mode in ("half_pixel_symmetric", "tf_crop_and_resize"):
        return mode
    return "" if policy == "stretch" else f"keep_aspect_ratio_policy={policy}"


def _pool(view: View, node: NodeProto, given: _Attributes) -> str:
    if any(size != 1 for size in given.get("dilations", [])):
        return "dilations"
    return "Indices as output" if node.op_type == "MaxPool" and any(node.output[1:]) else ""


def _norm(view: View, node: NodeProto, given: _Attributes) -> str:
    return "training outputs" if given.get("training_mode") or any(node.output[1:]) else ""


def _scatter(view: View, node: NodeProto, given: _Attributes) -> str:
    reduction = given.get("reduction", b"none").decode()
    return "" if reduction == "none" else f"reduction={reduction}"


def _conv(view: View, node: NodeProto, given: _Attributes) -> str:
    axes = len(view.shapes.get(node.input[1], ())) - 2
    return f"{axes} spatial axes" if axes > 3 else ""


def _axes(view: View, node: NodeProto, given: _Attributes) -> str:
    absent = len(node.input) < 2 or not node.input[1]
    return "" if absent or node.input[1] in view.fixed else "axes that are not constant"


def _topk(view: View, node: NodeProto, given: _Attributes) -> str:
    k = view.array(node.input[1]) if len(node.input) > 1 else None
    if k is None or k.size != 1:
        return ""
    shape, axis = view.shapes.get(node.input[0], ()), given.get("axis", -1)
    size = shape[axis] if -len(shape) <= axis < len(shape) else None
    if size is not None and k.max() > size:
        return f"K = {k.max()} of {size} elements"
    return f"K above {MAX_TOPK}" if k.max() > MAX_TOPK else ""


def _dropout(view: View, node: NodeProto, given: _Attributes) -> str:
    if len(node.input) < 3 or not node.input[2]:
        return ""
    training = view.array(node.input[2])
    if training is None:
        return "a training_mode that is no initializer"
    return "training_mode" if training.any() else ""


def _stft(view: View, node: NodeProto, given: _Attributes) -> str:
    named = [node.input[k] for k in (1, 3) if k < len(node.input) and node.input[k]]
    return "" if all(name in view.constants for name in named) else "a step or length that is no initializer"


def _slice(view: View, node: NodeProto, given: _Attributes) -> str:
    shapes = [view.shapes.get(name) for name in node.input[:2]]
    absent = len(node.input) < 4 or not node.input[3]
    if not absent or shapes[0] is None or len(node.input) < 3 or not shapes[1] or shapes[1][0] is None:
        return ""
    return (
        f"{shapes[1][0]} starts for {len(shapes[0])} axes and no axes"
        if shapes[1][0] < len(shapes[0])
        else ""
    )


def _few_axes(view: View, node: NodeProto, given: _Attributes) -> str:
    shape = view.shapes.get(node.input[0])
    few = shape is not None and len(shape) < _LEAST_AXES[node.op_type]
    return f"an operand of less than {_LEAST_AXES[node.op_type]} axes" if few else ""


def _attention(view: View, node: NodeProto, given: _Attributes) -> str:
    """Run: the builder of TensorRT-RTX 1.7 dies of it, and not if one of the three is another tensor."""
    same = view.target.name == "rtx" and len(node.input) > 2 and len(set(node.input[:3])) == 1
    return "q, k and v in one tensor" if same else ""


_LEAST_AXES = {
    **dict.fromkeys(("ArgMax", "ArgMin", "Hardmax", "LogSoftmax", "Softmax"), 2),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization"), 3),
}
_REDUCTIONS = {
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
}
# Run on RTX 1.7; the restrictions are those of operators.md of 10.15.
_FORMS: tuple[tuple[set[str], Callable[[View, NodeProto, _Attributes], str]], ...] = (
    ({"Resize"}, _resize),
    ({"AveragePool", "LpPool", "MaxPool"}, _pool),
    ({"BatchNormalization", "LayerNormalization"}, _norm),
    ({"ScatterElements", "ScatterND"}, _scatter),
    ({"Conv", "ConvTranspose"}, _conv),
    ({*_REDUCTIONS, "ReduceProd", "ReduceSum", "ReduceSumSquare", "Squeeze", "Unsqueeze"}, _axes),
    ({"TopK"}, _topk),
    ({"Dropout"}, _dropout),
    ({"STFT"}, _stft),
    ({"Slice"}, _slice),
    ({"Attention"}, _attention),
    (set(_LEAST_AXES), _few_axes),
)

GRAPH_RULES = (
    Rule("operands", "illegal", "ONNX wants more: the graph is damaged, export it again", operands),
    Rule("outputs", "illegal", "{target} builds no network without one: name the graph's outputs", outputs),
    Rule(
        "opset",
        "illegal",
        "not what {target} promises to read: export at opset 20",
        opset,
        {"rtx": "hazard"},  # run: it reads the operators as it knows them, whatever the number
    ),
    Rule(
        "operator",
        "illegal",
        "{target} does not have it: write it in other operators, or run that part elsewhere",
        operator,
    ),
    Rule(
        "domain",
        "illegal",
        "the parser goes by the name alone and takes it for ONNX's, which may compute something else: export with "
        "ONNX's own operators (for ONNX Runtime's, use the graph from before its optimisation)",
        domain,
        {"rtx": "hazard"},  # run: it builds foo.Relu as Relu
    ),
    Rule("form", "illegal", "{target} does not take this form of the operator: choose another", form),
    Rule("rank", "illegal", f"{{target}} has tensors of up to {MAX_RANK} axes: merge some", rank),
    Rule(
        "dynamic",
        "illegal",
        "{target} builds no plan without the sizes to expect: give their range (--shapes), or export at one size",
        dynamic,
    ),
    Rule(
        "fed_size",
        "illegal",
        "{target} builds no plan without these values, and --shapes gives none: make it a constant, or compute it "
        "from the shape of an input",
        fed_size,
    ),
)
"""About operators and sizes."""

RULES: tuple[Rule, ...] = (
    *GRAPH_RULES[:1],
    *VALIDITY_RULES,
    *GRAPH_RULES[1:],
    *TYPE_RULES,
    *QDQ_RULES,
    *HAZARDS,
)
"""All of them, in the order in which they are asked."""
