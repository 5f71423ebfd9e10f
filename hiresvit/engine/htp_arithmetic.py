"""In which arithmetic an HTP really computes: each product of a graph, found in the graph that the compiler is given.

That one is what Qualcomm's provider writes as JSON: nodes that are called as ours, with the types of what they read.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiresvit.device.context import Departed, HtpReport
from hiresvit.engine.precision import count_all, read_requirement, realised_text, some_of
from hiresvit.errors import GateError
from hiresvit.graph.dtypes import FLOATS
from hiresvit.graph.index import GraphIndex, module_of, parser_name
from hiresvit.graph.products import Products
from hiresvit.runtime.qnn_log import node_name
from hiresvit.spec import HTP_FORMS

# Qualcomm's numbers of types (QnnTypes.h of its SDK): quantized, plain and floating point. What floats is computed in
# FP16: that is what the session asks for, and the answers have its errors (measured).
_TYPES = {
    **{0x408: "u8", 0x416: "u16", 0x308: "s8", 0x316: "s16", 0x332: "s32"},
    **{0x108: "u8", 0x116: "u16", 0x132: "u32", 0x008: "s8", 0x016: "s16", 0x032: "s32", 0x064: "s64"},
    **{0x216: "fp16", 0x232: "fp16"},
}
_STATED = {"uint8": "u8", "uint16": "u16", "int8": "s8", "int16": "s16"}
_MULTIPLY = ("Conv2d", "DepthWiseConv2d", "TransposeConv2d", "FullyConnected", "MatMul")
_BITS = {"u8": 8, "s8": 8, "u16": 16, "s16": 16}


@dataclass(frozen=True)
class QnnNode:
    """A node of the graph that the compiler is given: ``types`` are those of the tensors that it reads."""

    name: str
    kind: str
    types: tuple[str, ...]

    @property
    def word(self) -> str:
        """``u16,s8`` of a product's two operands."""
        return ",".join(self.types[:2])


def read_qnn_graphs(folder: Path) -> list[QnnNode]:
    """The nodes of all graphs that the provider wrote into a folder; an FP16 graph may be several."""
    nodes = []
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith("_tensor_log.json"):
            continue
        graph: dict[str, Any] = json.loads(path.read_bytes())["graph"]
        for name, node in graph["nodes"].items():
            tensors = (graph["tensors"].get(tensor, {}) for tensor in node["input_names"])
            kinds = tuple(_TYPES.get(tensor.get("data_type"), "unknown") for tensor in tensors)
            nodes.append(QnnNode(node_name(name), node["type"], kinds))
    return nodes


def count_operators(nodes: Iterable[QnnNode]) -> tuple[dict[str, int], dict[str, int]]:
    """How often each operator is there, and each that multiplies by what it reads; the most first."""
    operators = Counter(node.kind for node in nodes)
    arithmetic = Counter(f"{node.kind}({node.word})" for node in nodes if node.kind in _MULTIPLY)
    return dict(operators.most_common()), dict(arithmetic.most_common())


def find_arithmetic(
    products: Products, index: GraphIndex, nodes: Iterable[QnnNode]
) -> tuple[dict[str, int], tuple[Departed, ...]]:
    """Multiply-accumulates by the types of their operands, and the products that are computed in other types than the
    graph states; ``unknown`` is a product that the compiler's graph does not name.
    """
    makers: dict[str, set[str]] = defaultdict(set)
    for node in nodes:
        if node.kind in _MULTIPLY:
            makers[node.name].add(node.word)
    ours = {parser_name(node): node for node in index.nodes}
    macs: Counter[str] = Counter()
    departed = []
    for name, number in products.macs.items():
        computed = "+".join(sorted(makers.get(name) or _parts(name, makers, ours))) or "unknown"
        macs[computed] += number
        stated = ",".join(_stated(index, operand) for operand in ours[name].input[:2]) if name in ours else ""
        if computed != stated:
            departed.append(Departed(name, module_of(name), stated, computed, number))
    return dict(macs.most_common()), tuple(departed)


def _parts(name: str, makers: Mapping[str, set[str]], ours: Mapping[str, Any]) -> set[str]:
    """Of a node that the provider splits, whose parts are called ``NAME_something``."""
    parts = (words for part, words in makers.items() if part.startswith(f"{name}_") and part not in ours)
    return {word for words in parts for word in words}


def _stated(index: GraphIndex, tensor: str) -> str:
    """The type of a tensor in its graph, that of the integers where it comes out of a DequantizeLinear."""
    node = index.producer.get(tensor)
    if node is not None and node.op_type == "DequantizeLinear":
        return _STATED.get(index.types.get(node.input[0], ""), "unknown")
    return "fp16" if index.types.get(tensor) in FLOATS else "unknown"


def parse_form_requirement(text: str) -> tuple[str, float]:
    """``a16w8:95%`` as ``("a16w8", 0.95)``. Raises UsageError for anything else."""
    return read_requirement(text, HTP_FORMS, "a16w8:95%")


def check_form_requirement(required: tuple[str, float], report: HtpReport) -> None:
    """Raise GateError unless a share of the multiply-accumulates is in a form or a narrower one.

    ``a8w8`` are two operands of 8 bits, ``a16w8`` integers of at most 16, ``fp16`` anything that is known. What is
    computed in other types than the graph states meets nothing: 8 bits in place of 16 lose what the graph was made for.
    """
    form, share = required
    wanted = f"{form}:{100 * share:g}% required"
    total = count_all(wanted, report.macs, report.uncounted)
    good = sum(count for word, count in report.macs.items() if _meets(word, form))
    good -= sum(one.macs for one in report.departed if _meets(one.computed, form))
    if good >= round(share * total, 6):
        return
    others = {word: count for word, count in report.macs.items() if not _meets(word, form)}
    named = some_of([f"{one.node} ({one.stated} computed in {one.computed})" for one in report.departed])
    departed = f"; not as stated: {named}" if named else ""
    raise GateError(f"{wanted}, {realised_text(good, total, others)}{departed}")


def kinds_of(word: str) -> list[str]:
    """The types in a word of `HtpReport.macs`, as ``u16,s8`` or, of a product in parts, ``u16,s8+u8,s8``."""
    return word.replace("+", ",").split(",")


def _meets(word: str, form: str) -> bool:
    kinds = kinds_of(word)
    if form == "fp16":
        return "unknown" not in kinds
    bits = [_BITS.get(kind, 99) for kind in kinds]
    return max(bits) <= (8 if form == "a8w8" else 16)
