"""In which precision a plan really computes: by multiply-accumulates, by PyTorch module, against a requirement.

The graph says what is multiplied, the plan's kernels say in what: each names the ONNX nodes that it came from. An
attention kernel stands for both products; a product too small for a kernel of its own is in one that is pointwise.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from hiresvit.errors import GateError, UsageError
from hiresvit.export.layers import Kernel
from hiresvit.export.shapes import (
    Shapes,
    Tensors,
    attributes_of,
    constants_of,
    infer_tensors,
    matmul_sizes,
    module_of,
    name_of,
    sizes_of,
)

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Attention")
"""The operators that multiply and accumulate."""

_BITS = {"int8": 8, "fp8": 8, "fp16": 16, "bf16": 16, "fp32": 32}
# FP32 by design: an FP16 graph has casts around them, which their kernels take in (see `fp16.ISLAND_OPS`).
_ISLANDS = {"LayerNormalization", "Softmax"}
# What moves or converts data goes along with whatever it is fused to.
_MOVES = {
    "Cast",
    "Concat",
    "DequantizeLinear",
    "Expand",
    "Flatten",
    "Identity",
    "Pad",
    "QuantizeLinear",
    "Reshape",
}
_MOVES |= {"Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
_REQUIREMENT = re.compile(rf"({'|'.join(_BITS)}):(\d+(?:\.\d+)?)%")
_PRODUCT_KINDS = ("attention", "conv", "gemm")
_NAMED = 5  # modules in a message


@dataclass(frozen=True)
class Leftover:
    """What a module still computes in FP32: operators, multiply-accumulates, and kernels without a product."""

    module: str
    ops: tuple[str, ...]
    macs: int
    kernels: int


def node_macs(model: ModelProto, shapes: Shapes | None = None) -> dict[str, int]:
    """Multiply-accumulates of each product by node name, for a batch of 1 or the graph's own.

    ``shapes`` gives dynamic inputs the sizes to count for. A product of constants alone counts nothing, it is
    computed once and for all. Raises UsageError for a product of unknown size.
    """
    tensors, constants = infer_tensors(model, shapes), constants_of(model.graph)
    names = Counter(name_of(node) for node in model.graph.node)
    macs: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type not in PRODUCTS or constants.issuperset(name for name in node.input if name):
            continue
        name = name_of(node)
        count = _macs(node, tensors)
        if count is None:
            raise UsageError(f"the size of {node.op_type} {name!r} is not static: give the inputs' shapes")
        # a kernel that names one of two equals may be either: neither is found
        macs[name if names[name] == 1 else f"{name} of {node.output[0]}"] = count
    return macs


def realised_macs(
    model: ModelProto, kernels: Sequence[Kernel], shapes: Shapes | None = None
) -> dict[str, int]:
    """Multiply-accumulates by what they are computed in (``fp16``, ``int8``, ``fp32``, ...), the most first.

    ``unknown`` are those of nodes that no kernel names: see `unmatched_products`. Raises UsageError as `node_macs`.
    """
    found: dict[str, int] = defaultdict(int)
    makers = _makers(kernels)
    for name, macs in node_macs(model, shapes).items():
        found[makers[name].computed_in if name in makers else "unknown"] += macs
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def unmatched_products(
    model: ModelProto, kernels: Sequence[Kernel], shapes: Shapes | None = None
) -> list[str]:
    """The products that no kernel names, in the graph's order. Raises UsageError as `node_macs`."""
    makers = _makers(kernels)
    return [name for name in node_macs(model, shapes) if name not in makers]


def fp32_leftovers(
    model: ModelProto, kernels: Sequence[Kernel], shapes: Shapes | None = None
) -> list[Leftover]:
    """What is computed in FP32 by PyTorch module, the most multiply-accumulates first.

    Products, and pointwise kernels with FP32 all around. LayerNorm and softmax alone do not count: they are FP32 by
    design, in kernels that read and write FP16. Raises UsageError as `node_macs`.
    """
    nodes = {name_of(node): node for node in model.graph.node}
    makers = _makers(kernels)
    ops: dict[str, set[str]] = defaultdict(set)
    macs: dict[str, int] = defaultdict(int)
    count: dict[str, int] = defaultdict(int)
    for name, number in node_macs(model, shapes).items():
        if name in makers and makers[name].computed_in == "fp32":
            macs[module_of(name)] += number
            ops[module_of(name)].add(nodes[name].op_type)
    for kernel in filter(_is_wide, kernels):
        named = [nodes[name] for name in kernel.nodes if name in nodes]
        working = [node for node in named if node.op_type not in _ISLANDS.union(_MOVES, PRODUCTS)]
        for module in {module_of(name_of(node)) for node in working}:
            count[module] += 1
        for node in working:
            ops[module_of(name_of(node))].add(node.op_type)
    left = [Leftover(module, tuple(sorted(ops[module])), macs[module], count[module]) for module in ops]
    return sorted(left, key=lambda item: (-item.macs, -item.kernels, item.module))


def parse_requirement(text: str) -> tuple[str, float]:
    """``fp16:95%`` as ``("fp16", 0.95)``. Raises UsageError for anything else."""
    match = _REQUIREMENT.fullmatch(text.strip().lower())
    if match is None or not 0 < float(match[2]) <= 100:
        raise UsageError(
            f"{text!r} is no requirement: give one of {', '.join(_BITS)} and a share, as fp16:95%"
        )
    return match[1], float(match[2]) / 100


def check_requirement(
    required: tuple[str, float], macs: Mapping[str, int], leftovers: Iterable[Leftover] = ()
) -> None:
    """Raise GateError unless a share of the multiply-accumulates is in a precision or a narrower one.

    INT8 and FP8 meet a requirement of FP16: what is asked for is that nothing wider is left. BF16 does not, and
    FP16 does not meet one of BF16: as wide, but another format. ``unknown`` meets none.
    """
    precision, share = required
    total = sum(macs.values())
    good = sum(count for name, count in macs.items() if name == precision or _is_narrower(name, precision))
    if good >= share * total:
        return
    rest = ", ".join(f"{name} {_percent(count, total)}" for name, count in macs.items() if name != precision)
    names = [leftover.module or "the graph" for leftover in leftovers]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    wide = f"; FP32: {', '.join(names[:_NAMED])}{more}" if names else ""
    raise GateError(
        f"{precision}:{100 * share:g}% required, {_percent(good, total)} realised"
        f"{f' ({rest})' if rest else ''}{wide}"
    )


def _makers(kernels: Iterable[Kernel]) -> dict[str, Kernel]:
    """The kernel of each ONNX node; where several name it, the first that is a product."""
    makers: dict[str, Kernel] = {}
    for kernel in sorted(
        kernels, key=lambda kernel: kernel.kind not in _PRODUCT_KINDS
    ):  # stable: in launch order
        for name in kernel.nodes:
            makers.setdefault(name, kernel)
    return makers


def _is_wide(kernel: Kernel) -> bool:
    dtypes = [tensor.dtype for tensor in (*kernel.inputs, *kernel.outputs)]
    return kernel.kind == "pointwise" and bool(dtypes) and set(dtypes) == {"float32"}


def _is_narrower(name: str, precision: str) -> bool:
    return name in _BITS and _BITS[name] < _BITS[precision]


def _percent(part: int, total: int) -> str:
    """Rounded down, so that a share that is missed by little does not read as met."""
    return f"{math.floor(1000 * part / total) / 10:g} %"


def _macs(node: NodeProto, tensors: Tensors) -> int | None:
    if node.op_type in ("MatMul", "Einsum"):
        product = matmul_sizes(node, tensors)
        return product.macs if product else None
    inputs = [sizes_of(name, tensors) for name in node.input]
    out = sizes_of(node.output[0], tensors)
    if out is None or None in inputs[:2]:
        return None
    first, second = (size or () for size in inputs[:2])
    attributes = attributes_of(node)
    match node.op_type:
        case "Conv":
            return math.prod(out) * math.prod(second[1:])
        case "ConvTranspose":
            return math.prod(first) * math.prod(second[1:])
        case "Gemm":
            return math.prod(out) * first[0 if attributes.get("transA") else 1]
        case _:  # Attention: (batch, heads, length, width) or (batch, length, heads x width)
            return (math.prod(first) + math.prod(out)) * second[-2]
