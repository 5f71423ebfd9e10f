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

from hiresvit.engine.kernels import PRODUCT_KINDS, Kernel
from hiresvit.errors import GateError, UsageError
from hiresvit.graph.index import GraphIndex, module_of, parser_name
from hiresvit.graph.operators import ISLANDS, MOVES, PRODUCTS, QUANTIZERS
from hiresvit.graph.products import Products, find_products

_BITS = {"int8": 8, "fp8": 8, "int16": 16, "fp16": 16, "bf16": 16, "fp32": 32}
# FP32 by design, and what moves or converts data goes along with whatever it is fused to.
_IDLE = ISLANDS | MOVES | QUANTIZERS | {"Expand"}
_NAMED = 5  # modules in a message


@dataclass(frozen=True)
class Leftover:
    """What a module still computes in FP32: operators, multiply-accumulates, and kernels without a product."""

    module: str
    ops: tuple[str, ...]
    macs: int
    kernels: int


@dataclass(frozen=True)
class Realised:
    """What a plan computes in. ``macs`` counts multiply-accumulates of one call by precision, the most first.

    ``leftovers`` is what is computed in FP32, the most multiply-accumulates first. ``unmatched`` are the products that
    no kernel names, ``unknown`` in ``macs``; ``uncounted`` are not in it at all (see `Products`).
    """

    macs: dict[str, int]
    leftovers: tuple[Leftover, ...]
    unmatched: tuple[str, ...]
    uncounted: tuple[str, ...]


def realise(index: GraphIndex, kernels: Sequence[Kernel]) -> Realised:
    """Find each product of a graph in the kernels of its plan."""
    products, makers = find_products(index), _makers(kernels)
    computed = {name: _computed_in(name, products, makers) for name in products.macs}
    macs: Counter[str] = Counter()
    for name, number in products.macs.items():
        macs[computed[name]] += number
    wide = {name: products.macs[name] for name, word in computed.items() if word == "fp32"}
    return Realised(
        macs=dict(macs.most_common()),
        leftovers=_leftovers(index, kernels, wide),
        unmatched=tuple(name for name in products.macs if name not in makers),
        uncounted=products.uncounted,
    )


def macs_by_kernel(index: GraphIndex, kernels: Sequence[Kernel]) -> list[dict[str, int]]:
    """The multiply-accumulates of each kernel by what they are computed in; of products that no kernel names nothing.

    A product that several kernels name is counted for the one that `realise` finds.
    """
    products, makers = find_products(index), _makers(kernels)
    place = {id(kernel): number for number, kernel in enumerate(kernels)}
    found: list[Counter[str]] = [Counter() for _ in kernels]
    for name, number in products.macs.items():
        if name in makers:
            found[place[id(makers[name])]][_computed_in(name, products, makers)] += number
    return [dict(counts) for counts in found]


def _leftovers(index: GraphIndex, kernels: Sequence[Kernel], wide: Mapping[str, int]) -> tuple[Leftover, ...]:
    """What is computed in FP32 by PyTorch module: ``wide``, and pointwise kernels with FP32 all around.

    LayerNorm and softmax alone do not count: they are FP32 by design, in kernels that read and write FP16.
    """
    nodes = {parser_name(node): node for node in index.nodes}
    ops: dict[str, set[str]] = defaultdict(set)
    macs: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for name, number in wide.items():
        macs[module_of(name)] += number
        ops[module_of(name)].add(nodes[name].op_type)
    for kernel in kernels:
        if kernel.kind != "pointwise" or {tensor.dtype for tensor in (*kernel.inputs, *kernel.outputs)} != {"float32"}:
            continue
        named = [name for name in kernel.nodes if name in nodes]
        working = [name for name in named if nodes[name].op_type not in _IDLE | PRODUCTS]
        count.update({module_of(name) for name in working})
        for name in working:
            ops[module_of(name)].add(nodes[name].op_type)
    left = [Leftover(module, tuple(sorted(ops[module])), macs[module], count[module]) for module in ops]
    return tuple(sorted(left, key=lambda item: (-item.macs, -item.kernels, item.module)))


def parse_requirement(text: str) -> tuple[str, float]:
    """``fp16:95%`` as ``("fp16", 0.95)``. Raises UsageError for anything else."""
    return read_requirement(text, _BITS, "fp16:95%")


def read_requirement(text: str, words: Iterable[str], example: str) -> tuple[str, float]:
    """One of some words with a share of 1. Raises UsageError for anything else."""
    match = re.fullmatch(rf"({'|'.join(words)}):(\d+(?:\.\d+)?)%", text.strip().lower())
    if match is None or not 0 < float(match[2]) <= 100:
        raise UsageError(f"{text!r} is no requirement: give one of {', '.join(words)} and a share, as {example}")
    return match[1], float(match[2]) / 100


def check_requirement(
    required: tuple[str, float],
    macs: Mapping[str, int],
    leftovers: Iterable[Leftover] = (),
    uncounted: Sequence[str] = (),
) -> None:
    """Raise GateError unless a share of the multiply-accumulates is in a precision or a narrower one.

    INT8 and FP8 meet a requirement of FP16: what is asked for is that nothing wider is left. BF16 does not, and
    FP16 does not meet one of BF16: as wide, but another format. ``unknown`` meets none, nor does a graph with
    products that cannot be counted, or with none.
    """
    precision, share = required
    wanted = f"{precision}:{100 * share:g}% required"
    total = count_all(wanted, macs, uncounted)
    good = sum(count for name, count in macs.items() if name == precision or _BITS.get(name, 64) < _BITS[precision])
    if good >= round(share * total, 6):  # 7 of 100 are 7 %, whatever 0.07 times 100 is
        return
    others = {name: count for name, count in macs.items() if name != precision}
    wide = some_of([leftover.module or "the graph" for leftover in leftovers])
    raise GateError(f"{wanted}, {realised_text(good, total, others)}{f'; FP32: {wide}' if wide else ''}")


def count_all(wanted: str, macs: Mapping[str, int], uncounted: Sequence[str]) -> int:
    """The sum. Raises GateError for what is ``wanted`` of products that cannot be counted, or of none."""
    if uncounted:
        raise GateError(
            f"{wanted}, and how much is multiplied in {some_of(uncounted)} cannot be counted: write it in ONNX's own"
            " operators, without a body and of fixed sizes (--shapes)"
        )
    total = sum(macs.values())
    if total <= 0:
        raise GateError(f"{wanted}, and the graph has no products: leave the requirement out")
    return total


def realised_text(good: int, total: int, others: Mapping[str, int]) -> str:
    """Rounded down, so that a share that is missed by little does not read as met."""
    rest = ", ".join(f"{name} {round(100 * count / total, 1):g} %" for name, count in others.items())
    return f"{math.floor(1000 * good / total) / 10:g} % realised{f' ({rest})' if rest else ''}"


def some_of(names: Sequence[str]) -> str:
    """The first, and how many more."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _computed_in(name: str, products: Products, makers: Mapping[str, Kernel]) -> str:
    """What a product is computed in: what its kernel reads, unless that converts it first.

    Such a kernel, or one in which the product ends as additions, computes in the graph's type: the network is
    strongly typed.
    """
    if name not in makers:
        return "unknown"
    kernel = makers[name]
    return products.types.get(name, kernel.computed_in) if kernel.converts else kernel.computed_in


def _makers(kernels: Iterable[Kernel]) -> dict[str, Kernel]:
    """The kernel of each ONNX node; where several name it, the first that is a product."""
    makers: dict[str, Kernel] = {}
    for kernel in sorted(kernels, key=lambda kernel: kernel.kind not in PRODUCT_KINDS):  # stable: in launch order
        for name in kernel.nodes:
            makers.setdefault(name, kernel)
    return makers
