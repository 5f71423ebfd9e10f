"""What a plan moves: the bytes that each of its kernels reads and writes, by kernel, by PyTorch module and in all.

A kernel's inputs and outputs are *activations*: they count once for each kernel that reads or writes them, whole, as
TensorRT lists them, whatever a cache keeps. Its constants are *weights*. At batch 1 a network for high resolutions
waits for these bytes and not for arithmetic.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hiresvit.engine.kernels import PRODUCT_KINDS, Kernel
from hiresvit.errors import ArtefactError
from hiresvit.graph.operators import PRODUCTS
from hiresvit.spec import TensorSpec

# Of one element, in bytes.
_BYTES = {
    **{"float32": 4, "int32": 4, "uint32": 4, "int64": 8, "float64": 8},
    **{"float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "bool": 1, "float8_e4m3fn": 1, "float8_e5m2": 1},
}
_NAMED = 3  # tensors in a message

# What reads a part of a tensor, by its operator and by the letters of a generated kernel's name, which "Etc" cuts off.
_PARTIAL = frozenset({"Gather", "GatherElements", "GatherND", "Resize", "Slice", "Split", "Upsample"})
_PARTIAL_NAME = re.compile(r"__myl_\w*(Slic|Sli|Gath|Resi|Etc)")


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
    """What one kernel moves, and its multiply-accumulates by what they are computed in.

    ``modules`` are those that it is counted for, see `modules_of`. ``least`` is what it moves for certain: once a
    tensor that is listed twice, and nothing of what a slice reads, which may be a part.
    """

    kernel: str
    kind: str
    modules: tuple[str, ...]
    bytes: Bytes
    least: Bytes
    macs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Traffic:
    """What a plan moves for one call, kernel by kernel in launch order.

    ``untold`` names the tensors that are not in it, since TensorRT does not say their shape or type, or an axis is
    dynamic. ``counted`` is whether multiply-accumulates are known.
    """

    kernels: tuple[Moved, ...]
    untold: tuple[str, ...]
    counted: bool

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

    @property
    def macs(self) -> dict[str, int]:
        """Multiply-accumulates by what they are computed in, the most first; empty where they are not known."""
        found: Counter[str] = Counter()
        for moved in self.kernels:
            found.update(moved.macs)
        return dict(found.most_common())

    @property
    def intensity(self) -> float | None:
        """Operations a byte, two for a multiply-accumulate; None where these are not known."""
        return 2 * sum(self.macs.values()) / self.total.total if self.counted and self.total.total else None

    def by_module(self) -> dict[str, tuple[Bytes, int]]:
        """Bytes and multiply-accumulates by PyTorch module, the most bytes first; "" is what is of none.

        The modules of one kernel have equal parts of it.
        """
        found: defaultdict[str, Bytes] = defaultdict(Bytes)
        macs: Counter[str] = Counter()
        for moved in self.kernels:
            modules = moved.modules or ("",)
            products = _split(sum(moved.macs.values()), len(modules))
            for module, share, product in zip(modules, moved.bytes.split(len(modules)), products, strict=True):
                found[module] += share
                macs[module] += product
        rows = sorted(found.items(), key=lambda item: (-item[1].total, item[0]))
        return {module: (share, macs[module]) for module, share in rows}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the sums, a row for each kernel and for each module, and what is not counted."""
        kernels = [
            {
                "name": moved.kernel,
                "kind": moved.kind,
                "modules": list(moved.modules),
                **_bytes_json(moved.bytes),
                "macs": dict(moved.macs) if self.counted else None,
            }
            for moved in self.kernels
        ]
        modules = [
            {"module": module, **_bytes_json(share), "macs": macs if self.counted else None}
            for module, (share, macs) in self.by_module().items()
        ]
        macs = self.macs if self.counted else None
        rest = {"intensity": self.intensity, "kernels": kernels, "modules": modules, "untold": list(self.untold)}
        return {**_bytes_json(self.total), "macs": macs, **rest}


def traffic(kernels: Sequence[Kernel], macs: Sequence[Mapping[str, int]] | None = None) -> Traffic:
    """What the kernels of a plan move, in bytes; ``macs`` are those of `hiresvit.engine.precision.macs_by_kernel`.

    Raises ArtefactError without kernels, and where TensorRT says neither shape nor type of any tensor: a plan that was
    built without detailed profiling verbosity has a list of names.
    """
    if not kernels:
        raise ArtefactError(
            "the plan has no layer list, so nobody knows what it moves: build it with hiresvit build, which keeps the"
            " list in the sidecar beside the plan"
        )
    moved, untold, told = [], [], 0
    for number, kernel in enumerate(kernels):
        sides = [[(tensor, tensor_bytes(tensor)) for tensor in side] for side in _sides(kernel)]
        known = [[size for _, size in side if size is not None] for side in sides]
        untold += [tensor.name for side in sides for tensor, size in side if size is None]
        untold += _unlisted(kernel)
        told += sum(map(len, known))
        least = [sum({tensor.name: size or 0 for tensor, size in side}.values()) for side in sides]
        if _reads_a_part(kernel):
            least[0] = 0
        products = macs[number] if macs else {}
        row = Moved(kernel.name, kernel.kind, modules_of(kernel), Bytes(*map(sum, known)), Bytes(*least), products)
        moved.append(row)
    if not told:
        raise ArtefactError(
            f"the plan's layer list says no shapes and types of tensors (as of {', '.join(untold[:_NAMED])}): build it"
            " with detailed profiling verbosity, as hiresvit build does"
        )
    return Traffic(tuple(moved), tuple(dict.fromkeys(untold)), macs is not None)


def with_counts(
    listed: Sequence[Kernel], sized: Sequence[Kernel], macs: Sequence[Mapping[str, int]]
) -> list[dict[str, Any]]:
    """The layers of a sidecar: kernels as they are ``listed``, what each multiplies, and its dynamic tensors' sizes."""
    layers = []
    for kernel, same, products in zip(listed, sized, macs, strict=True):
        pairs = zip((*kernel.inputs, *kernel.outputs), (*same.inputs, *same.outputs), strict=True)
        best = {tensor.name: list(other.shape) for tensor, other in pairs if tensor != other}
        layers.append({**kernel.to_json(), "macs": dict(products), **({"best": best} if best else {})})
    return layers


def read_layers(layers: Sequence[Mapping[str, Any]]) -> tuple[list[Kernel], list[dict[str, int]] | None]:
    """The kernels of a sidecar's layers at their best shapes, and what each multiplies.

    That is None in a sidecar of a version that did not count it. Raises ArtefactError for what is no such list.
    """
    kernels, macs = [], []
    try:
        for layer in layers:
            kernel = Kernel.from_json(layer)
            best = {name: tuple(shape) for name, shape in layer.get("best", {}).items()}
            kernels.append(replace(kernel, inputs=_filled(kernel.inputs, best), outputs=_filled(kernel.outputs, best)))
            if "macs" in layer:
                macs.append({str(word): int(count) for word, count in layer["macs"].items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"the sidecar's layer list is damaged ({error!r}); build the plan again") from error
    return kernels, macs if len(macs) == len(kernels) else None


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


def _unlisted(kernel: Kernel) -> list[str]:
    """What a kernel must have and TensorRT does not list: the inspector of 10 has no weights of Myelin's kernels."""
    if not (kernel.inputs or kernel.outputs or kernel.constants):
        return [f"all of {kernel.name}"]
    alone = kernel.kind in PRODUCT_KINDS and len(kernel.inputs) + len(kernel.constants) < 2
    return [f"weights of {kernel.name}"] if alone else []


def _reads_a_part(kernel: Kernel) -> bool:
    """Whether it reads, or may read, only a part of a tensor."""
    operators = {name.partition("/")[2].partition("/")[0].partition("_")[0] for name in kernel.nodes}
    return not _PARTIAL.isdisjoint(operators) or _PARTIAL_NAME.match(kernel.name) is not None


def _filled(side: Sequence[TensorSpec], best: Mapping[str, tuple[int, ...]]) -> tuple[TensorSpec, ...]:
    return tuple(replace(tensor, shape=best[tensor.name]) if tensor.name in best else tensor for tensor in side)


def _bytes_json(share: Bytes) -> dict[str, int]:
    return {
        "read_bytes": share.read,
        "written_bytes": share.written,
        "activation_bytes": share.activations,
        "weight_bytes": share.weights,
    }


def _sides(kernel: Kernel) -> Iterable[tuple[TensorSpec, ...]]:
    return kernel.inputs, kernel.outputs, kernel.constants


def _split(value: int, parts: int) -> list[int]:
    share, rest = divmod(value, parts)
    return [share + (part < rest) for part in range(parts)]
