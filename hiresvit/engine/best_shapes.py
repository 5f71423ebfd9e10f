"""The sizes of a dynamic plan's tensors at the best shapes of its profiles.

TensorRT lists a dynamic axis as -1 and names tensors as it likes, so a size is looked for in the graph, indexed at
those shapes: among the tensors that the kernel's ONNX nodes read and make. One is taken where it is the only one that
fits; a tensor that another kernel shows the size of has it in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hiresvit.engine.kernels import Kernel
from hiresvit.graph.index import GraphIndex, parser_name
from hiresvit.spec import TensorSpec

Size = tuple[int, ...]


def at_best_shapes(kernels: Sequence[Kernel], index: GraphIndex) -> list[Kernel]:
    """The kernels with a number for each dynamic axis whose size is certain; ``index`` is at the best shapes."""
    unknown = {name: tensor for kernel in kernels for name, tensor in _dynamic(kernel)}
    if not unknown:
        return list(kernels)
    nodes = {parser_name(node): node for node in index.nodes}
    found: dict[str, Size] = {}
    for name, tensor in unknown.items():
        if (size := index.sizes(name)) is not None and _fits(tensor, size):
            found[name] = size  # an input or output of the plan has its own name
    for kernel in kernels:
        near = [nodes[name] for name in kernel.nodes if name in nodes]
        around = [size for node in near for name in (*node.input, *node.output) if (size := index.sizes(name))]
        for name, tensor in _dynamic(kernel):
            if name not in found and (size := _only(tensor, around)):
                found[name] = size
    while more := dict(_carried(kernels, found)):
        found |= more
    return [_sized(kernel, found) for kernel in kernels]


def _dynamic(kernel: Kernel) -> Iterator[tuple[str, TensorSpec]]:
    for tensor in (*kernel.inputs, *kernel.outputs):
        if _static(tensor) is None:
            yield tensor.name, tensor


def _only(tensor: TensorSpec, around: Sequence[Size]) -> Size | None:
    """The one size that fits axis by axis; else, of one dynamic axis, that of the one number of elements that fits."""
    exact = {size for size in around if _fits(tensor, size)}
    if exact:
        return exact.pop() if len(exact) == 1 else None
    known = math.prod(size for size in tensor.shape if isinstance(size, int))
    counts = {math.prod(size) for size in around if known and math.prod(size) % known == 0}
    return _filled(tensor, counts.pop()) if len(counts) == 1 else None


def _carried(kernels: Sequence[Kernel], found: Mapping[str, Size]) -> Iterator[tuple[str, Size]]:
    """What a kernel of no node has, which changes the layout of one tensor: as many elements on both sides."""
    for kernel in kernels:
        if kernel.kind != "copy" or kernel.nodes or len(kernel.inputs) != 1:
            continue
        pairs = [(kernel.inputs[0], output) for output in kernel.outputs]
        for one, other in (*pairs, *((output, given) for given, output in pairs)):
            shape = found.get(one.name) or _static(one)
            if shape is not None and other.name not in found and _static(other) is None:
                size = shape if _fits(other, shape) else _filled(other, math.prod(shape))
                if size:
                    yield other.name, size


def _static(tensor: TensorSpec) -> Size | None:
    sizes = tuple(size for size in tensor.shape if isinstance(size, int))
    return sizes if len(sizes) == len(tensor.shape) else None


def _filled(tensor: TensorSpec, elements: int) -> Size | None:
    """The shape with its one dynamic axis worked out; None if it has several, or they do not divide."""
    known = math.prod(size for size in tensor.shape if isinstance(size, int))
    if sum(isinstance(size, str) for size in tensor.shape) != 1 or not known or elements % known:
        return None
    return tuple(size if isinstance(size, int) else elements // known for size in tensor.shape)


def _fits(tensor: TensorSpec, size: Size) -> bool:
    return len(size) == len(tensor.shape) and all(
        isinstance(axis, str) or axis == other for axis, other in zip(tensor.shape, size, strict=True)
    )


def _sized(kernel: Kernel, found: Mapping[str, Size]) -> Kernel:
    def fill(side: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(
            replace(tensor, shape=found[tensor.name])
            if tensor.name in found and _fits(tensor, found[tensor.name])
            else tensor
            for tensor in side
        )

    return replace(kernel, inputs=fill(kernel.inputs), outputs=fill(kernel.outputs))
