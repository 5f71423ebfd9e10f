"""What a plan moves: the bytes that each of its kernels reads and writes, by kernel, by PyTorch module and in all.

A kernel's inputs and outputs are *activations*: they count once for each kernel that reads or writes them, whole, as
TensorRT lists them, whatever a cache keeps. Its constants are *weights*. At batch 1 a network for high resolutions
waits for these bytes and not for arithmetic.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hiresvit.engine.kernels import Kernel
from hiresvit.errors import ArtefactError
from hiresvit.graph.operators import PRODUCTS
from hiresvit.spec import TensorSpec

# Of one element, in bytes.
_BYTES = {
    **{"float32": 4, "int32": 4, "uint32": 4, "int64": 8, "float64": 8},
    **{"float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "bool": 1, "float8_e4m3fn": 1, "float8_e5m2": 1},
}
_NAMED = 3  # tensors in a message


@dataclass(frozen=True)
class Bytes:
    """Bytes of one frame: activations that are read and written, weights that are read."""

    read: int = 0
    written: int = 0
    weights: int = 0

    @property
    def activations(self) -> int:
        """What is read and written without the weights."""
        return self.read + self.written

    @property
    def total(self) -> int:
        """All of it."""
        return self.activations + self.weights

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.read + other.read, self.written + other.written, self.weights + other.weights)

    def split(self, parts: int) -> list[Bytes]:
        """As many parts, equal but for what does not divide: that goes to the first; their sum is exact."""
        shares = [_split(value, parts) for value in (self.read, self.written, self.weights)]
        return [Bytes(*share) for share in zip(*shares, strict=True)]


@dataclass(frozen=True)
class Moved:
    """What one kernel moves; ``modules`` are those that it is counted for, see `modules_of`."""

    kernel: str
    kind: str
    modules: tuple[str, ...]
    bytes: Bytes


@dataclass(frozen=True)
class Traffic:
    """What a plan moves for one call, kernel by kernel in launch order.

    ``untold`` names the tensors that are not in it, since TensorRT does not say their shape or type.
    """

    kernels: tuple[Moved, ...]
    untold: tuple[str, ...]

    @property
    def total(self) -> Bytes:
        """The sum over all kernels."""
        return sum((moved.bytes for moved in self.kernels), Bytes())

    @property
    def activation_bytes(self) -> int:
        """What all kernels together read and write, without weights."""
        return self.total.activations

    @property
    def weight_bytes(self) -> int:
        """What all kernels together read of weights; what two of them read counts twice."""
        return self.total.weights

    def by_module(self) -> dict[str, Bytes]:
        """The same by PyTorch module, the most first: equal parts for the modules of one kernel, "" if it has none."""
        found: defaultdict[str, Bytes] = defaultdict(Bytes)
        for moved in self.kernels:
            modules = moved.modules or ("",)
            for module, share in zip(modules, moved.bytes.split(len(modules)), strict=True):
                found[module] += share
        return dict(sorted(found.items(), key=lambda item: (-item[1].total, item[0])))


def traffic(kernels: Sequence[Kernel]) -> Traffic:
    """What the kernels of a plan move, in bytes.

    Raises ArtefactError without kernels, and where TensorRT says neither shape nor type of any tensor: a plan that was
    built without detailed profiling verbosity has a list of names.
    """
    if not kernels:
        raise ArtefactError(
            "the plan has no layer list, so nobody knows what it moves: build it with hiresvit build, which keeps the"
            " list in the sidecar beside the plan"
        )
    moved, untold, told = [], [], 0
    for kernel in kernels:
        sides = [[(tensor, tensor_bytes(tensor)) for tensor in side] for side in _sides(kernel)]
        known = [[size for _, size in side if size is not None] for side in sides]
        untold += [tensor.name for side in sides for tensor, size in side if size is None]
        untold += [] if any(sides) else [f"all of {kernel.name}"]
        told += sum(map(len, known))
        moved.append(Moved(kernel.name, kernel.kind, modules_of(kernel), Bytes(*map(sum, known))))
    if not told:
        raise ArtefactError(
            f"the plan's layer list says no shapes and types of tensors (as of {', '.join(untold[:_NAMED])}): build it"
            " with detailed profiling verbosity, as hiresvit build does"
        )
    return Traffic(tuple(moved), tuple(dict.fromkeys(untold)))


def tensor_bytes(tensor: TensorSpec) -> int | None:
    """The bytes of a tensor; None if its type is not known here or an axis is dynamic."""
    width = _BYTES.get(tensor.dtype)
    sizes = [size for size in tensor.shape if isinstance(size, int)]
    return None if width is None or len(sizes) < len(tensor.shape) else math.prod(sizes) * width


def modules_of(kernel: Kernel) -> tuple[str, ...]:
    """The PyTorch modules that a kernel is counted for, in the order of its nodes.

    Those of its products, if it has any: what is fused to a convolution or an attention is no kernel of its own.
    Else those of all its nodes but casts, which are named after a tensor and no module.
    """
    named = [(name.partition("/")[0], name.partition("/")[2].partition("/")[0]) for name in kernel.nodes if "/" in name]
    kinds = [(module, operator.partition("_")[0]) for module, operator in named]
    products = [module for module, operator in kinds if operator in PRODUCTS]
    return tuple(dict.fromkeys(products or (module for module, operator in kinds if operator != "Cast")))


def _sides(kernel: Kernel) -> Iterable[tuple[TensorSpec, ...]]:
    return kernel.inputs, kernel.outputs, kernel.constants


def _split(value: int, parts: int) -> list[int]:
    share, rest = divmod(value, parts)
    return [share + (part < rest) for part in range(parts)]
