"""Which convolutions and linear layers become INT8: one list of rules, asked in turn.

A site is a node of the simplified FP32 graph that multiplies by a constant. The first rule that holds leaves it
in FP16. A constant is an initializer here, as it is in every simplified graph.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from onnx import NodeProto

from hiresvit.calibration.lean import mixes_of, moves_less
from hiresvit.errors import UsageError
from hiresvit.graph.index import GraphIndex, attributes, module_of
from hiresvit.graph.operators import LINEARS, MOVES
from hiresvit.graph.precision import lowest_of, read_lowest

SITE_OPS = LINEARS | {"Conv"}
# What may stand behind the classifier of a dense prediction: its logits are only enlarged and cropped.
_BEHIND_CLASSIFIER = MOVES | {"Resize", "Softmax"}


@dataclass(frozen=True)
class Policy:
    """What is asked for beyond, or against, the rules.

    ``keep`` names modules that stay in FP16, with all that is in them. ``first``, ``depthwise`` and ``last``
    lift the rule of that name. ``min_width`` is the least reduction length and number of outputs of an INT8
    product. ``residual`` and ``int8_attention`` ask for more points: see `find_skips` and `find_attentions`. ``lean``
    leaves in FP16 what costs TensorRT-RTX more bytes than it saves: see `hiresvit.calibration.lean`.
    """

    keep: frozenset[str] = frozenset()
    first: bool = False
    depthwise: bool = False
    last: bool = False
    min_width: int = 16
    residual: bool = False
    int8_attention: bool = False
    lean: bool = False

    def keeps(self, module: str) -> bool:
        """Whether a module, or one that it is in, is named in ``keep``."""
        return any(module == name or module.startswith(f"{name}.") for name in self.keep)


@dataclass(frozen=True)
class Layer:
    """A product with a constant as the rules see it.

    ``width`` is the smaller side of the matrix: reduction length or number of outputs. ``lowest`` is what its module
    says of the least precision that it bears (`hiresvit.graph.precision`), ``costs_bytes`` that INT8 moves no less,
    for a policy that asks.
    """

    module: str
    is_weight: bool
    reads_input: bool
    is_classifier: bool
    group: int
    width: int
    lowest: str | None = None
    costs_bytes: bool = False


RULES: dict[str, Callable[[Layer, Policy], bool]] = {
    # The constant is no weight but a pooling or resizing matrix: left of the product, or with batch axes.
    "pooling": lambda layer, policy: not layer.is_weight,
    # It reads the picture: few channels, so little to gain, and everything behind it inherits its error.
    "first": lambda layer, policy: layer.reads_input and not policy.first,
    # Bound by memory, not by arithmetic, so there is error to lose by and little time to win.
    "depthwise": lambda layer, policy: layer.group > 1 and not policy.depthwise,
    # It makes the logits: its error is the answer's, with nothing behind it to absorb it.
    "last": lambda layer, policy: layer.is_classifier and not policy.last,
    # INT8 tensor cores multiply in blocks of 16 and 32.
    "narrow": lambda layer, policy: layer.group == 1 and layer.width < policy.min_width,
    # Its module bears no integers: a place that is rounded is another place, a mask's sign another mask.
    "precise": lambda layer, policy: layer.lowest is not None,
    # Asked for where memory is the limit: in INT8 the plan would move more for this layer, or no less.
    "lean": lambda layer, policy: policy.lean and layer.costs_bytes,
    "kept": lambda layer, policy: policy.keeps(layer.module),
}
"""Why a layer stays in FP16, in the order in which it is asked. What remains is quantized."""


@dataclass(frozen=True)
class Site:
    """A node that multiplies ``tensor``, by its FP32 name, by a constant.

    ``module`` is the PyTorch module, ``macs`` the multiply-accumulates of one picture, ``excluded`` the name of
    the rule that leaves it in FP16. Its weight has ``one_scale`` or, as a rule, one for each output channel.
    """

    node: str
    module: str
    op: str
    tensor: str
    macs: int
    excluded: str | None
    one_scale: bool = False


@dataclass(frozen=True)
class Skip:
    """Input number ``index`` of the Add ``node``, beside one that a quantized Conv makes; an FP32 name."""

    node: str
    index: int
    tensor: str


def find_sites(simple: GraphIndex, policy: Policy = Policy()) -> list[Site]:
    """Every Conv, Gemm and MatMul with a constant in a simplified FP32 graph, in order, for the sizes of its index.

    Raises UsageError for a name in ``policy.keep`` that is no module of a site, ``min_width`` below 1, and a
    graph whose nodes have no names of their own or whose shapes are not static.
    """
    if policy.min_width < 1:
        raise UsageError(f"min_width={policy.min_width}: give at least 1, which excludes nothing")
    _check_names(simple)
    pictures = _moved_inputs(simple)
    classifiers = _classifiers(simple)
    lowest = read_lowest(simple.metadata)
    mixes = mixes_of(simple) if policy.lean else frozenset()
    sites = []
    for node in simple.nodes:
        operand = _constant_operand(simple, node)
        if operand is None:
            continue
        tensor = node.input[1 - operand]
        dims = static_shape(simple, node.input[operand])
        group, reduction, outputs = _sizes(node, operand, dims)
        layer = Layer(
            module=module_of(node.name),
            is_weight=operand == 1 and (node.op_type == "Conv" or len(dims) == 2),
            reads_input=tensor in pictures,
            is_classifier=node.name in classifiers,
            group=group,
            width=min(reduction, outputs),
            lowest=lowest_of(node.name, lowest),
            costs_bytes=policy.lean and not moves_less(simple, node, operand, mixes),
        )
        excluded = next((rule for rule, holds in RULES.items() if holds(layer, policy)), None)
        macs = reduction * math.prod(static_shape(simple, node.output[0]))
        one_scale = policy.lean and node.op_type == "Conv" and excluded is None
        sites.append(Site(node.name, layer.module, node.op_type, tensor, macs, excluded, one_scale))
    _check_kept(policy, sites)
    return sites


def find_skips(simple: GraphIndex, sites: Collection[Site], policy: Policy) -> list[Skip]:
    """Where ``policy.residual`` puts pairs: beside a quantized Conv that goes into an Add of equal shapes.

    There the full TensorRT computes convolution and addition in one INT8 kernel. Where both inputs come from such
    a Conv, the earlier one is the skip. A constant and a graph input are none.
    """
    if not policy.residual:
        return []
    convs = {site.node for site in sites if site.op == "Conv" and site.excluded is None}
    made = {node.output[0]: at for at, node in enumerate(simple.nodes) if node.name in convs}
    outside = simple.constants.keys() | simple.inputs.keys()
    skips = []
    for node in simple.nodes:
        if node.op_type != "Add" or made.keys().isdisjoint(node.input):
            continue
        index = min((0, 1), key=lambda k: made.get(node.input[k], -1))
        tensor = node.input[index]
        if tensor not in outside and simple.sizes(tensor) == simple.sizes(node.input[1 - index]):
            skips.append(Skip(node.name, index, tensor))
    return skips


def static_shape(index: GraphIndex, tensor: str) -> tuple[int, ...]:
    """Its shape. Raises UsageError if that is not known before a run."""
    if (sizes := index.sizes(tensor)) is None:
        raise UsageError(f"the shape of {tensor!r} is not static: export the graph at one size (--imgsz)")
    return sizes


def _check_names(index: GraphIndex) -> None:
    for name, count in Counter(node.name for node in index.nodes).items():
        if not name or count > 1:
            raise UsageError(
                f"{count} nodes of the graph are named {name!r}: ranges and modules go by node, name each once"
            )


def _check_kept(policy: Policy, sites: Collection[Site]) -> None:
    for name in sorted(policy.keep):
        if not any(Policy(keep=frozenset({name})).keeps(site.module) for site in sites):
            raise UsageError(f"keep={name!r} is no module with a convolution or linear layer in this graph")


def _constant_operand(index: GraphIndex, node: NodeProto) -> int | None:
    """Which of the two operands is constant; None if both are, or none, or if it is no product."""
    if node.op_type not in SITE_OPS:
        return None
    constant = [operand for operand in (0, 1) if node.input[operand] in index.constants]
    return constant[0] if len(constant) == 1 else None


def _sizes(node: NodeProto, operand: int, dims: tuple[int, ...]) -> tuple[int, int, int]:
    """Groups, reduction length of one output, number of outputs (channels, not pixels)."""
    given = attributes(node)
    if node.op_type == "Conv":
        return given.get("group", 1), math.prod(dims[1:]), dims[0]
    transposed = bool(given.get("transA" if operand == 0 else "transB", 0))
    rows, columns = (1, *dims)[-2:]
    if operand == 0:  # (outputs, reduction)
        rows, columns = columns, rows
    return (1, columns, rows) if transposed else (1, rows, columns)


def _moved_inputs(index: GraphIndex) -> set[str]:
    """The graph's inputs, and what is made of them by moving pixels only."""
    moved = set(index.inputs)
    for node in index.nodes:
        if node.op_type in MOVES and not moved.isdisjoint(node.input):
            moved.update(node.output)
    return moved


def _classifiers(index: GraphIndex) -> set[str]:
    """Nodes with a constant whose result leaves the graph with nothing but layout changes in between.

    Feature maps leave a backbone through a norm or a residual Add, so that a graph of features has none.
    """
    answers = set(index.outputs)
    found = set()
    for node in reversed(index.nodes):
        if answers.isdisjoint(node.output):
            continue
        adds_bias = node.op_type == "Add" and not index.constants.keys().isdisjoint(node.input)
        if _constant_operand(index, node) is not None:
            found.add(node.name)
        elif node.op_type in _BEHIND_CLASSIFIER or adds_bias:
            answers.update(node.input)
    return found
