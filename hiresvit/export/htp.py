"""A graph for Qualcomm's HTP only: what its compiler takes, and what it computes as it is written.

What is done here was measured with that compiler and its emulator (docs/htp.md). That no tensor has more than five
axes, and that no Transpose stands before a Concat that loses it, is the models' own doing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from hiresvit.device.chips import Chip
from hiresvit.errors import UsageError
from hiresvit.export.rewrites import replace_all, share_constants
from hiresvit.graph.index import GraphIndex, attributes, index_graph
from hiresvit.spec import HtpForm

MASK_FLOOR = {"a8w8": -20.0, "a16w8": -50.0}
"""The least value of a mask that is added to scores: one range holds both, and 256 levels of -1e4 leave none for them.

exp(-20) is 2e-9, far below what a weight of 8 bits tells from 0; exp(-50) is 2e-22.
"""
# From V73 on a GELU behind a product is drawn into its kernel and computed more coarsely: 44 to 52 dB, and 65 alone.
_COARSE_FROM = 73


@dataclass(frozen=True)
class HtpChanges:
    """How many nodes are written otherwise: GELUs as a tanh, masks clipped, BatchNormalizations as convolutions."""

    form: HtpForm
    gelus: int
    masks: int
    batch_norms: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Edit:
    """The graph, and the constants that it gets."""

    index: GraphIndex
    added: dict[str, NDArray[Any]] = field(default_factory=dict)

    def constant(self, name: str, value: Any) -> str:
        """Add one of a name that may be there already, with the same value."""
        self.added[name] = np.asarray(value, np.float32)
        return name


def for_htp(simple: ModelProto, form: HtpForm, chip: Chip) -> tuple[ModelProto, HtpChanges]:
    """A copy of a simplified FP32 graph as the HTP of ``chip`` takes it, and what is different in it.

    ``fp16`` is an FP32 graph that the HTP computes in FP16; Q/DQ is written into the other forms. A tensor that is left
    keeps its name. Raises UsageError for ``fp16`` on a chip that has integers only.
    """
    if form == "fp16" and not chip.fp16:
        raise UsageError(f"{chip} computes in integers only: make the form a16w8 or a8w8 for it")
    out = ModelProto()
    out.CopyFrom(simple)
    edit, count, nodes = _Edit(index_graph(out)), Counter[str](), list[NodeProto]()
    for node in out.graph.node:
        made = list(_rewritten(edit, node, form, chip)) or [node]
        count[node.op_type] += made[0] is not node
        nodes += made
    replace_all(out.graph.node, nodes)
    del out.graph.value_info[:]
    out.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in edit.added.items())
    share_constants(out.graph)
    changes = HtpChanges(form, gelus=count["Gelu"], masks=count["Add"], batch_norms=count["BatchNormalization"])
    return out, changes


def _rewritten(edit: _Edit, node: NodeProto, form: HtpForm, chip: Chip) -> Iterator[NodeProto]:
    """What stands in a node's place; nothing if it stays."""
    if form == "fp16":
        if node.op_type == "Gelu" and chip.arch >= _COARSE_FROM:
            yield from _as_tanh(edit, node)
    elif node.op_type == "BatchNormalization":
        yield from _as_convolution(edit, node)
    elif node.op_type == "Add":
        yield from _clipped(edit, node, MASK_FLOOR[form])


def _as_tanh(edit: _Edit, node: NodeProto) -> Iterator[NodeProto]:
    """GELU as 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), which is not drawn into a product's kernel.

    Hendrycks & Gimpel, "Gaussian Error Linear Units", section 2: at most 5e-4 from the exact one. In the emulator the
    two are as far from FP32 as FP16 is.
    """
    x, name = node.input[0], node.name or node.output[0]
    slope = math.sqrt(2 / math.pi)
    cubic, linear = edit.constant("htp/gelu_cubic", 0.044715 * slope), edit.constant("htp/gelu_linear", slope)
    one, half = edit.constant("htp/one", 1.0), edit.constant("htp/half", 0.5)
    steps = (
        ("Mul", x, x),
        ("Mul", "", cubic),
        ("Add", "", linear),
        ("Mul", "", x),
        ("Tanh", "", ""),
        ("Add", "", one),
        ("Mul", "", x),
        ("Mul", "", half),
    )
    last = ""
    for number, (op, left, right) in enumerate(steps):
        result = node.output[0] if number == len(steps) - 1 else f"{node.output[0]}/htp_{number}"
        read = [read for read in (left or last, right) if read]
        yield helper.make_node(op, read, [result], f"{name}/{op}_{number}")
        last = result


def _as_convolution(edit: _Edit, node: NodeProto) -> Iterator[NodeProto]:
    """A BatchNormalization of four axes, which integer chips refuse, as the depthwise convolution of 1x1 that it is."""
    shape = edit.index.shapes.get(node.input[0], ())
    given = [edit.index.array(name) for name in node.input[1:5]]
    if len(shape) != 4 or any(values is None for values in given):
        return
    scale, bias, mean, variance = (np.asarray(values, np.float64) for values in given)
    slope = scale / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    name = node.name or node.output[0]
    weight = edit.constant(f"{name}/htp_weight", slope.reshape(-1, 1, 1, 1))
    shift = edit.constant(f"{name}/htp_bias", bias - mean * slope)
    yield helper.make_node("Conv", [node.input[0], weight, shift], node.output[:1], name, group=len(slope))


def _clipped(edit: _Edit, node: NodeProto, floor: float) -> Iterator[NodeProto]:
    """An Add of a constant mask before a Softmax, with the mask's least values raised to a floor."""
    if not any(reader.op_type == "Softmax" for reader, _ in edit.index.reads(node.output[0])):
        return
    for place, name in enumerate(node.input):
        mask = edit.index.array(name)
        if mask is not None and mask.size and float(mask.min()) < floor:
            clipped = helper.make_node("Add", list(node.input), list(node.output), node.name)
            clipped.input[place] = edit.constant(f"{name}/htp_{floor:g}", np.maximum(mask, floor))
            yield clipped
            return
