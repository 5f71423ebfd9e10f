"""The least time that a plan can take on a device: of each kernel the longer of its bytes and its operations.

It is a bound and no prediction: no launch, no wait, no share of a bandwidth that nobody reaches is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hiresvit.device.boards import Board
from hiresvit.engine.traffic import Moved, Traffic


@dataclass(frozen=True)
class Roofline:
    """Lower bounds of one call in milliseconds.

    ``bound_ms`` holds where every kernel reads what it is given from the memory and writes what it makes there:
    ``memory_ms`` is that alone, ``compute_ms`` the operations alone. ``cached_ms`` is what is left if the L2 does all
    that it could, None where its size is not known. ``overlapped`` is
    whether kernels may run beside each other; then the larger of the two sums is the bound. ``bounded_by_memory`` is
    how many kernels' bytes take longer, ``kernels_us`` has the bound of each in microseconds.
    """

    bound_ms: float
    memory_ms: float
    compute_ms: float
    cached_ms: float | None
    overlapped: bool
    bounded_by_memory: int
    kernels_us: tuple[float, ...]


def find_bound(found: Traffic, board: Board, *, overlapped: bool = False) -> Roofline:
    """The bounds of a plan on a board.

    What the cache can save at most: at the start of a kernel it holds no more than its size, so of what the kernel
    reads at least the rest comes from the memory; of what it writes, at least the rest goes there; and of the weights
    one cache full, once a call, may still be there from the last call.
    """
    bandwidth = board.bandwidth * 1e9
    computing = [_computing(moved.macs, board) for moved in found.kernels]
    moving = [moved.bytes.total / bandwidth for moved in found.kernels]
    each = [max(pair) for pair in zip(moving, computing, strict=True)]
    cached = None
    if board.l2_bytes is not None:
        left = [_uncached(moved, board.l2_bytes) / bandwidth for moved in found.kernels]
        whole = _sum(left, computing, overlapped)
        stayed = min(board.l2_bytes, sum(moved.least.weights for moved in found.kernels))
        cached = max(whole - stayed / bandwidth, sum(computing))
    return Roofline(
        bound_ms=1e3 * _sum(moving, computing, overlapped),
        memory_ms=1e3 * sum(moving),
        compute_ms=1e3 * sum(computing),
        cached_ms=None if cached is None else 1e3 * cached,
        overlapped=overlapped,
        bounded_by_memory=sum(one > other for one, other in zip(moving, computing, strict=True)),
        kernels_us=tuple(1e6 * seconds for seconds in each),
    )


def describe(found: Traffic, board: Board | None = None, *, overlapped: bool = False) -> dict[str, Any]:
    """What a plan moves, and its bounds on a board, as JSON values; ``roofline`` is None without a board."""
    values = found.to_json()
    if board is None:
        return {**values, "roofline": None}
    bound = find_bound(found, board, overlapped=overlapped)
    for row, microseconds in zip(values["kernels"], bound.kernels_us, strict=True):
        row["bound_us"] = microseconds
    return {**values, "roofline": roofline_json(bound, board)}


def roofline_json(bound: Roofline, board: Board) -> dict[str, Any]:
    """The bounds with the numbers of the board that they are of."""
    device = {
        "device": board.name,
        "title": board.title,
        "bandwidth_gbs": board.bandwidth,
        "fp16_tflops": board.fp16,
        "int8_tops": board.int8,
        "l2_mib": board.l2_mib,
    }
    sums = {name: getattr(bound, name) for name in ("bound_ms", "memory_ms", "compute_ms", "cached_ms")}
    return {**device, **sums, "overlapped": bound.overlapped, "bounded_by_memory": bound.bounded_by_memory}


def _computing(macs: Mapping[str, int], board: Board) -> float:
    """Seconds; of a kernel that multiplies in two precisions the sum, since they share the tensor cores."""
    return sum(2 * count / board.rate(word) for word, count in macs.items())


def _sum(moving: list[float], computing: list[float], overlapped: bool) -> float:
    if overlapped:
        return max(sum(moving), sum(computing))
    return sum(max(pair) for pair in zip(moving, computing, strict=True))


def _uncached(moved: Moved, cache: int) -> int:
    """Bytes that pass the memory whatever a cache holds, but for weights that stayed from the last call."""
    least = moved.least
    return max(least.read - cache, 0) + max(least.written - cache, 0) + least.weights
