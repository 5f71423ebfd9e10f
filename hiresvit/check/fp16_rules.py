"""Rules about FP16: where a graph is legal and its numbers may still be wrong, and compiler bugs.

ONNX Runtime's CPU computes FP16 in FP32, so that none of this shows there. Limits are those of the format; which
kernels accumulate in FP32 was not run on a GPU here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from hiresvit.check.number_rules import fill_of
from hiresvit.check.rule import Spot, View, rule
from hiresvit.export.fp16_typing import MAX_TERMS
from hiresvit.graph.dtypes import LARGEST, SMALLEST_NORMAL
from hiresvit.graph.index import attributes, first_output, operand, reached
from hiresvit.graph.operators import LAYOUT, LINEARS, QUANTIZERS

# What a mask goes through on its way to the scores: cut, repeated, times 0 or 1, as many masks are made.
_MASK_MOVES = frozenset({"Concat", "Div", "Expand", "Gather", "Mul", "Slice", "Tile", "Trilu"})
_MASK_SUMS = frozenset({"Add", "Sum"})
_FIRST_ALONE = LAYOUT | {"Div", "Expand", "Gather", "Slice", "Tile", "Trilu"}
_MEANS = ("ReduceMean", "ReduceSum", "GlobalAveragePool", "AveragePool")
_FACTORS = {"Conv": (1,), "ConvTranspose": (1,), "Div": (0, 1), "Gemm": (0, 1), "MatMul": (0, 1), "Mul": (0, 1)}


@rule(
    "hazard",
    "a square is infinite from 256 on: export LayerNormalization as one operator (opset 17 or later), or keep it "
    "in FP32",
)
def decomposed_norm(view: View) -> Iterator[Spot]:
    """Mean of squares, then a root: a LayerNormalization or RMSNormalization in single operators."""
    for node in view.nodes:
        if node.op_type != "ReduceMean" or view.type_of(node, 0) != "float16":
            continue
        square = view.producer.get(node.input[0])
        if square is None or not _is_square(view, square):
            continue
        if any(reader.op_type == "Sqrt" for reader in _behind(view, node.output, {"Add"})):
            yield node, "the mean of squares of a decomposed norm in FP16"


@rule(
    "hazard",
    "FP16 makes -inf of what is below, and of -65504 plus a score of -16 or less; a row of nothing else becomes "
    "NaN: mask with -100 or -1e4",
)
def mask(view: View) -> Iterator[Spot]:
    """A mask at the end of what FP16 holds, added to the scores, or an infinite one in their place."""
    for node in view.nodes:
        for index, name in enumerate(node.input):
            values = _half(view, name)
            if values is None or not (values <= -LARGEST).any():
                continue
            if _masks(view, _after_mask(view, node, index, bool(values.min() < -LARGEST))):
                yield node, f"a softmax's mask of {values.min():g} in FP16"
        value = _half_fill(view, node)
        if value <= -LARGEST and _masks(view, {(first_output(node), value < -LARGEST)}):
            yield node, f"a softmax's mask of {value:g} in FP16"


@rule(
    "hazard",
    "FP16 keeps few of its bits, or none, so the root may divide by 0: keep it in FP32, or as the attribute of a "
    "LayerNormalization",
)
def epsilon(view: View) -> Iterator[Spot]:
    """What keeps a root from 0, and is itself 0 or nearly."""
    for node in view.nodes:
        if node.op_type == "Add" and any(reader.op_type == "Sqrt" for reader, _ in view.reads(first_output(node))):
            for name in node.input:
                values = _half(view, name)
                if values is not None and values.size == 1 and abs(values.item()) < SMALLEST_NORMAL:
                    yield node, f"an epsilon of {values.item():.2g} in FP16"
        if node.op_type == "BatchNormalization" and len(node.input) > 4:
            variance = _half(view, node.input[4])
            if variance is not None and (variance < SMALLEST_NORMAL).any():
                yield node, "a BatchNormalization of a variance below 6.1e-05 in FP16"


@rule(
    "hazard", "FP16 keeps few of its bits, some or all of it may be 0: fold it into another factor, or keep it in FP32"
)
def tiny_factor(view: View) -> Iterator[Spot]:
    """A factor of which FP16 keeps only some bits."""
    for name in view.constants:
        readers = [(node, k) for node, k in view.reads(name) if k in _FACTORS.get(node.op_type, ())]
        values = _half(view, name) if readers else None
        if values is not None and values.size and 0 < np.abs(values).max() < SMALLEST_NORMAL:
            for node, _ in readers:
                yield node, "a factor below 6.1e-05 in FP16"


@rule("hazard", "FP16 ends at 65504: clamp them, or keep the constant in FP32")
def infinite(view: View) -> Iterator[Spot]:
    """Constants that are infinite; those that are NaN are `not_a_number`'s."""
    for name in view.constants:
        values = _half(view, name)
        if values is not None and (lost := int(np.count_nonzero(np.isinf(values)))):
            for node, _ in view.reads(name):
                if node.op_type not in QUANTIZERS:  # a scale: see qdq_rules
                    yield node, f"{lost} of {values.size} values of {name!r} infinite"


@rule("hazard", f"FP16 counts to {MAX_TERMS}: reduce in steps, or keep it in FP32")
def long_sum(view: View) -> Iterator[Spot]:
    """A mean or sum over more elements than FP16 can count."""
    for node in view.nodes:
        if node.op_type in _MEANS and view.type_of(node, 0) == "float16":
            terms = _terms(view, node)
            if terms is not None and terms > MAX_TERMS:
                yield node, f"{node.op_type} over {terms} elements in FP16"


@rule("hazard", "FP16 has no odd number above 2048: keep sizes and scales in FP32 or INT64")
def half_sizes(view: View) -> Iterator[Spot]:
    """Sizes or scales that are computed in FP16."""
    sizes: set[str] = set()
    for node in view.nodes:
        fed = [name for name in node.input if name and name not in view.constants]
        if node.op_type in ("Shape", "Size") or (fed and sizes.issuperset(fed)):
            sizes.update(node.output)
        if node.op_type == "Resize":
            for k in (1, 2, 3):  # roi, scales, sizes
                if view.type_of(node, k) == "float16" and 0 not in view.shapes.get(node.input[k], ()):
                    yield node, "scales of a Resize in FP16"
        to_integer = node.op_type == "Cast" and view.types.get(first_output(node)) in ("int32", "int64")
        if to_integer and view.type_of(node, 0) == "float16" and node.input[0] in sizes:
            yield node, "a size computed in FP16"


@rule(
    lambda target: "advice" if target.miscompiles_shared_norm else None,
    "10.13.3.9 on Thor miscompiles it at batch 1 (TensorRT-Edge-LLM#151): make it one layer, or build with "
    "__LUNOWUD=-peep:fc_h_fusion=off, and compare the engine with ONNX Runtime",
)
def shared_norm(view: View) -> Iterator[Spot]:
    """Several linear layers that read one LayerNormalization."""
    for norm in view.nodes:
        if norm.op_type != "LayerNormalization":
            continue
        readers = _behind(view, norm.output[:1], LAYOUT | QUANTIZERS)
        if sum(_is_linear(view, node) for node in readers) > 1:
            yield norm, "linear layers that share a LayerNormalization (say q, k and v)"


def _half(view: View, name: str) -> NDArray[np.float32] | None:
    """The values of a constant in FP16; None for anything else."""
    values = view.array(name) if view.types.get(name) == "float16" else None
    return None if values is None else values.astype(np.float32)


def _is_square(view: View, node: NodeProto) -> bool:
    if node.op_type == "Pow":
        exponent = view.array(node.input[1])
        return exponent is not None and exponent.size == 1 and exponent.item() == 2
    return node.op_type == "Mul" and node.input[0] == node.input[1]


def _behind(view: View, names: Iterable[str], through: Set[str]) -> Iterator[NodeProto]:
    """Who reads tensors, or what nodes of the operators ``through`` make of them."""

    def onward(name: str) -> Iterator[str]:
        return (first_output(reader) for reader, _ in view.reads(name) if reader.op_type in through)

    return (reader for name in reached(names, onward) for reader, _ in view.reads(name))


def _half_fill(view: View, node: NodeProto) -> float:
    """What a ConstantOfShape fills a tensor of FP16 with; 0 for anything else."""
    return fill_of(node) if view.types.get(first_output(node)) == "float16" else 0.0


def _after_mask(view: View, node: NodeProto, index: int, infinite: bool) -> set[tuple[str, bool]]:
    """What a node makes of a mask that is its input, if that is still one, and whether it has become infinite."""
    op = node.op_type
    through = op in LAYOUT or op in _MASK_MOVES or (op == "Where" and index > 0) or op in _MASK_SUMS
    if not through or (op in _FIRST_ALONE and index):
        return set()
    added = op in _MASK_SUMS and view.types.get(first_output(node)) == "float16"
    return {(name, infinite or added) for name in node.output if name}


def _masks(view: View, starts: Iterable[tuple[str, bool]]) -> bool:
    """Whether a mask comes to a softmax, and infinite."""

    def onward(mask: tuple[str, bool]) -> Iterator[tuple[str, bool]]:
        for reader, index in view.reads(mask[0]):
            yield from _after_mask(view, reader, index, mask[1])

    infinite = (name for name, is_infinite in reached(starts, onward) if is_infinite)
    return any(reader.op_type == "Softmax" for name in infinite for reader, _ in view.reads(name))


def _is_linear(view: View, node: NodeProto) -> bool:
    """A product with a constant on the right, in floating point or dequantized."""
    if node.op_type not in LINEARS:  # whether the fusion also takes 1x1 convolutions is not known
        return False
    maker = view.producer.get(node.input[1])
    weight = maker.input[0] if maker is not None and maker.op_type == "DequantizeLinear" else node.input[1]
    return weight in view.constants


def _terms(view: View, node: NodeProto) -> int | None:
    """How many elements go into one result; None if that is not known."""
    shape, given = view.shapes.get(node.input[0]), attributes(node)
    if node.op_type == "AveragePool":
        return int(np.prod(given.get("kernel_shape", [1])))
    if shape is None:
        return None
    axes = list(range(2, len(shape)))
    if node.op_type != "GlobalAveragePool":
        constant = view.array(operand(node, 1))
        axes = given.get("axes", []) if constant is None else constant.tolist()
        axes = axes or ([] if given.get("noop_with_empty_axes") else list(range(len(shape))))
    sizes = [shape[axis] for axis in axes]
    return None if None in sizes else int(np.prod([size for size in sizes if size is not None]))
