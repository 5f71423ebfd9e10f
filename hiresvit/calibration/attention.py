"""The attentions of a graph, and which of them TensorRT can compute in INT8.

TensorRT fuses an INT8 attention only with Q/DQ on all five points: both operands of the scores, both of the mix,
and the mix's result. With fewer it computes the two products one by one, slower than in FP16. So it is all or none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hiresvit.calibration.sites import Policy
from hiresvit.engine.fusion import why_not_fused
from hiresvit.errors import UsageError
from hiresvit.graph import attentions
from hiresvit.graph.attentions import POINTS
from hiresvit.graph.index import GraphIndex

KEPT = "a part of its module is kept in FP16"
OUTPUT = "its result is the graph's"


@dataclass(frozen=True)
class Attention:
    """A softmax between two products of activations, by the names of the FP32 graph.

    ``scores`` and ``mix`` are the nodes of the two products. ``points`` are the tensors that INT8 quantizes: both
    operands of ``scores``, both of ``mix`` (the softmax's first), and its result. ``illegal`` says in words why
    it stays in FP16: what TensorRT does not fuse in INT8, or `KEPT`.
    """

    module: str
    scores: str
    mix: str
    points: tuple[str, str, str, str, str]
    illegal: str | None


def find_attentions(simple: GraphIndex, policy: Policy) -> list[Attention]:
    """The attentions of a simplified FP32 graph, in order, if ``policy.int8_attention`` asks for them.

    Raises UsageError if it does and none of them can be INT8, and for shapes that are not static.
    """
    if not policy.int8_attention:
        return []
    nodes = {node.name: node for node in simple.nodes}
    found = []
    for item in attentions.find_attentions(simple):
        if item.op == "Softmax":
            scores, mix = (nodes[name] for name in item.products)
            points = (*scores.input, *mix.input, mix.output[0])
            reason = OUTPUT if mix.output[0] in simple.outputs else _illegal(item, policy)
            found.append(Attention(item.module, scores.name, mix.name, points, reason))
    if all(attention.illegal not in (None, KEPT) for attention in found):
        reasons = "; ".join(sorted({str(attention.illegal) for attention in found})) or "there is none"
        raise UsageError(
            f"int8 attention: none of the {len(found)} attentions can be INT8 ({reasons}): leave the option out"
        )
    return found


def _illegal(item: attentions.Attention, policy: Policy) -> str | None:
    """Why an attention cannot be INT8, or is not to be."""
    if item.width is None or item.value_width is None or item.queries is None or item.keys is None:
        raise UsageError(f"the sizes of {item.node!r} are not static: export the graph at one size (--imgsz)")
    quantized = replace(item, dtypes=("int8", "int8"), points=POINTS)
    if reason := why_not_fused(quantized, documented=True):
        return reason
    kept = policy.keeps(item.module) or any(name.startswith(f"{item.module}.") for name in policy.keep)
    return KEPT if kept else None
