"""Which attentions TensorRT computes in one kernel, and in words why not the others.

What TensorRT-RTX 1.7 takes was measured: tests/graph/test_attentions.py builds each case, and each was also built for
compute capabilities 7.5 (which has no FP32 products at all), 8.0, 8.6, 8.9 and 12.0, with the same outcome. What
TensorRT 10 promises stands apart: its guide is narrower, and was not run here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hiresvit.engine.kernels import Kernel
from hiresvit.graph.attentions import POINTS, Attention
from hiresvit.graph.operators import BARRIERS, SCALE_OR_MASK

_INT8_WIDTHS = (16, 32, 64)
_LONGEST_INT8 = 512


@dataclass(frozen=True)
class Explained:
    """An attention in a plan: ``reason`` says why it was not fused."""

    attention: Attention
    fused: bool
    reason: str | None


def explain_attentions(attentions: Sequence[Attention], kernels: Sequence[Kernel]) -> list[Explained]:
    """Which attentions of a graph are one kernel of its plan, and why not the others.

    A fused kernel names its ONNX nodes. Those that name none are taken to be attentions that nothing is known
    against, in order.
    """
    fused = [kernel for kernel in kernels if kernel.kind == "attention"]
    named = {node for kernel in fused for node in kernel.nodes}
    nameless = sum(not kernel.nodes for kernel in fused)
    explained = []
    for attention in attentions:
        reason = why_not_fused(attention)
        is_fused = not named.isdisjoint((attention.node, *attention.products))
        if not is_fused and nameless and reason is None:
            is_fused, nameless = True, nameless - 1
        if not is_fused and reason is None:
            reason = "no known reason: TensorRT may decide against it"
        explained.append(Explained(attention, is_fused, None if is_fused else reason))
    return explained


def why_not_fused(attention: Attention, *, documented: bool = False) -> str | None:
    """Why TensorRT computes an attention in separate kernels, in words; None if nothing is known against one kernel.

    What TensorRT-RTX 1.7 was seen to refuse; with ``documented`` also what the guide of TensorRT 10 does not promise:
    other widths of a head, longer INT8 sequences, other operators than scale and mask.
    """
    reasons = [*_refused(attention), *(_undocumented(attention) if documented else ())]
    return "; ".join(dict.fromkeys(reasons)) or None


def _refused(attention: Attention) -> Iterator[str]:
    width, values, int8 = attention.width, attention.value_width, "int8" in attention.dtypes
    yield from attention.flaws
    if attention.op == "Sigmoid":
        yield "a sigmoid stands where the softmax should"
    for op in attention.between:
        if op in BARRIERS or (op == "QuantizeLinear" and int8):
            yield f"{op} stands between its products"
    if "float32" in attention.dtypes:
        yield "its products are in FP32: FP16, BF16 and INT8 are fused"
    if attention.batch == 1:
        yield "batch x heads is 1: it is two plain products"
    if attention.keys == 1 and attention.op != "Attention":
        yield "it has one key"
    if width is not None and values is not None and width != values:
        yield f"its values are {values} wide, queries and keys {width}: make them equal"
    if not int8 and width is not None and not 8 < width <= 256:
        yield f"its heads are {width} wide: 9 to 256 are fused"
    if int8:
        yield from _refused_int8(attention)


def _refused_int8(attention: Attention) -> Iterator[str]:
    missing = [point for point in POINTS if point not in attention.points]
    if missing:
        yield f"INT8 without Q/DQ on its {', '.join(missing)}: all five points or none"
    if attention.width is not None and attention.width not in _INT8_WIDTHS:
        yield f"its heads are {attention.width} wide: in INT8 {', '.join(map(str, _INT8_WIDTHS))} are fused"
    if attention.keys is not None and attention.keys > _LONGEST_INT8:
        yield f"it has {attention.keys} keys: in INT8 up to {_LONGEST_INT8} are fused"
    if attention.queries == 1:
        yield "it has one query, in INT8"


def _undocumented(attention: Attention) -> Iterator[str]:
    """Not run here: the guide of TensorRT 10.x, as quoted in NVIDIA/TensorRT#2981, #4167 and #3724."""
    width, int8 = attention.width, "int8" in attention.dtypes
    for op in attention.between:
        if op not in SCALE_OR_MASK and op != "QuantizeLinear":
            yield f"{op} stands between its products"
    if not int8 and width is not None and not (16 <= width <= 256 and width % 8 == 0):
        yield f"its heads are {width} wide: documented are 16 to 256 in steps of 8"
    if int8 and (attention.queries or 0) > _LONGEST_INT8:
        yield f"it has {attention.queries} queries: documented for INT8 are up to {_LONGEST_INT8}"
