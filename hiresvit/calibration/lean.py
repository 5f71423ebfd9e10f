"""Which layers move fewer bytes in INT8 than in FP16, by their form: what `Policy.lean` leaves in INT8.

TensorRT-RTX computes an INT8 product in a kernel of its own, which writes FP16 (a convolution with a scale for each
channel even FP32) and takes nothing of what stands behind it, where an FP16 product takes bias, activation and residual
Add. So a byte is saved only where INT8 costs no map: its operand is written by a kernel that can as well write INT8,
for nobody else, and its result is read by a kernel that is there in FP16, too. Each form here is one that the plans of
all four families show so (docs/int8.md); what none of them has is left in FP16.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
from onnx import NodeProto

from hiresvit.engine.fusion import why_not_fused
from hiresvit.graph import attentions
from hiresvit.graph.index import GraphIndex
from hiresvit.graph.operators import CUTS, LAYOUT, RESHAPES

ONE_SCALE_DB = 30.0
"""The least SQNR of each channel of a weight with one scale for all: about a third of the largest range."""

# Kernels that are there in FP16 and write what INT8 reads. With a Concat, what is concatenated is not copied before.
_WRITERS = {"LayerNormalization", "Concat"}
# What is a kernel of its own, or a part of one, behind an FP16 product, too. A Reshape alone is none.
_APART = (CUTS - RESHAPES) | {"LayerNormalization"}


def mixes_of(index: GraphIndex) -> frozenset[str]:
    """The products with v of the attentions that TensorRT fuses in FP16: one kernel, which can write INT8."""
    found = (replace(item, dtypes=("float16", "float16")) for item in attentions.find_attentions(index))
    return frozenset(item.products[-1] for item in found if item.op == "Softmax" and why_not_fused(item) is None)


def moves_less(index: GraphIndex, node: NodeProto, operand: int, mixes: Collection[str]) -> bool:
    """Whether a product with the constant ``operand`` moves fewer bytes in INT8; ``mixes`` are those of `mixes_of`.

    A convolution does where it reads an attention and `bears_one_scale`: then it writes FP16, and takes bias and
    residual as in FP16. Behind a norm it makes two kernels of the norm, behind an activation it takes that out of the
    kernel in front. A linear layer that reads an attention saves nothing: INT8 puts a copy between them.
    """
    made = _writer(index, node.input[1 - operand])
    if made is None:
        return False
    readers = list(_readers(index, node.output[0]))
    if node.op_type == "Conv":
        return made.name in mixes and bears_one_scale(index, node) and _are_apart(readers, {"Add"})
    return made.op_type in _WRITERS and _are_apart(readers, {"Add"} if _is_normed(index, readers) else set())


def bears_one_scale(index: GraphIndex, node: NodeProto) -> bool:
    """Whether each channel of a convolution's weight keeps `ONE_SCALE_DB` with one scale; rounding is even noise."""
    weight = index.array(node.input[1])
    if weight is None or not weight.size:
        return False
    noise = (float(np.abs(weight).max()) / 127) ** 2 / 12
    least = float(np.square(weight.reshape(len(weight), -1), dtype=np.float64).mean(1).min())
    return least > 0 and 10 * math.log10(least / noise) >= ONE_SCALE_DB


def _writer(index: GraphIndex, tensor: str) -> NodeProto | None:
    """What makes a tensor, behind what only moves it; None if anyone else reads it on the way."""
    while tensor not in index.outputs and len(index.reads(tensor)) == 1 and tensor in index.producer:
        made = index.producer[tensor]
        if made.op_type not in LAYOUT:
            return made
        tensor = made.input[0]
    return None


def _readers(index: GraphIndex, tensor: str) -> Iterator[NodeProto]:
    """Who reads a tensor, behind reshapes and a bias."""
    for node, _ in index.reads(tensor):
        is_bias = node.op_type == "Add" and not index.constants.keys().isdisjoint(node.input)
        if node.op_type in RESHAPES or is_bias:
            yield from _readers(index, node.output[0])
        else:
            yield node


def _are_apart(readers: list[NodeProto], also: set[str]) -> bool:
    return bool(readers) and all(node.op_type in _APART or node.op_type in also for node in readers)


def _is_normed(index: GraphIndex, readers: list[NodeProto]) -> bool:
    """Whether the sum that an Add among them makes goes into a norm, whose kernel then adds, too."""
    sums = [node for node in readers if node.op_type == "Add"]
    return all(
        any(following.op_type == "LayerNormalization" for following in _readers(index, node.output[0])) for node in sums
    )
