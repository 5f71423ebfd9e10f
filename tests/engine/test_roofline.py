"""The lower bound of latency, worked out by hand on a device of round numbers."""

from __future__ import annotations

import pytest

from hiresvit.device.boards import Board
from hiresvit.engine.kernels import Kernel
from hiresvit.engine.roofline import describe, find_bound
from hiresvit.engine.traffic import Traffic, traffic
from hiresvit.spec import TensorSpec

# 1 GB/s is 1 MB a millisecond; 1 TFLOP/s is 5e8 multiply-accumulates a millisecond, in INT8 10e8.
DEVICE = Board("slow", "slow", 1, 1, 2, 1)
MIB = 2**20


def tensor(name: str, megabytes: float) -> TensorSpec:
    return TensorSpec(name, "int8", (round(1e6 * megabytes),))


def kernel(name: str, read: float, written: float, weights: float = 0) -> Kernel:
    constants = (tensor("w", weights),) if weights else ()
    return Kernel(name, "kgen", (tensor("x", read),), constants, (tensor("y", written),), "", ())


# 10 ms of bytes; 2 ms of bytes for 5 ms of FP16; 3 ms of bytes, of which 2.5 are weights.
PLAN = traffic(
    [kernel("a", 6, 4), kernel("b", 1, 1), kernel("c", 0.25, 0.25, 2.5)],
    [{}, {"fp16": 2_500_000_000}, {"int8": 1_000_000_000}],
)


def test_the_bound_by_hand() -> None:
    bound = find_bound(PLAN, DEVICE)
    assert bound.memory_ms == pytest.approx(15)
    assert bound.compute_ms == pytest.approx(5 + 1)
    assert bound.bound_ms == pytest.approx(10 + 5 + 3)
    assert bound.bounded_by_memory == 2
    assert bound.kernels_us == pytest.approx([10_000, 5_000, 3_000])


def test_kernels_beside_each_other() -> None:
    """Then one may compute while another waits for bytes: the longer sum is all that is certain."""
    bound = find_bound(PLAN, DEVICE, overlapped=True)
    assert bound.bound_ms == pytest.approx(15)
    assert bound.overlapped


def test_what_a_cache_saves_at_most() -> None:
    """1 MiB: of a 6 and 4 MB less one each; of b nothing is left but its products; of the weights one cache stays."""
    cache = MIB / 1e6
    bound = find_bound(PLAN, DEVICE)
    assert bound.cached_ms == pytest.approx((10 - 2 * cache) + 5 + 2.5 - cache)
    beside = find_bound(PLAN, DEVICE, overlapped=True)
    assert beside.cached_ms == pytest.approx((10 - 2 * cache) + 2.5 - cache)


def test_a_cache_that_holds_all() -> None:
    """Nothing is left but the operations."""
    bound = find_bound(PLAN, Board("large", "large", 1, 1, 2, 50))
    assert bound.cached_ms == pytest.approx(bound.compute_ms)
    assert find_bound(PLAN, Board("by hand", "by hand", 1, 1, 2, None)).cached_ms is None


def best_cache(found: Traffic, cache: float) -> float:
    """Megabytes that pass the memory under a cache that knows the future, of a chain in which each reads the last's."""
    moved = 0.0
    kept = 0.0
    for one in found.kernels:
        read, written = one.bytes.read / 1e6, one.bytes.written / 1e6
        moved += read - min(read, kept) + one.bytes.weights / 1e6
        kept = min(cache, written)
        moved += written - kept  # what is kept is read once and never written
    return moved


@pytest.mark.parametrize("cache", [0.5, 1, 3, 20])
def test_no_cache_is_below_the_bound(cache: float) -> None:
    """A cache that replaces nothing that is still read moves at least as much as the bound says."""
    chain = traffic([kernel(name, read, written) for name, read, written in (("a", 6, 4), ("b", 4, 2), ("c", 2, 8))])
    board = Board("slow", "slow", 1, 1, 2, cache * 1e6 / MIB)
    bound = find_bound(chain, board)
    assert bound.cached_ms is not None
    assert bound.cached_ms <= best_cache(chain, cache) + 1e-9  # a nanosecond
    assert bound.cached_ms <= bound.bound_ms


def test_the_document() -> None:
    values = describe(PLAN, DEVICE)
    assert values["activation_bytes"] == 12_500_000
    assert values["weight_bytes"] == 2_500_000
    assert values["macs"] == {"fp16": 2_500_000_000, "int8": 1_000_000_000}
    assert values["intensity"] == pytest.approx(2 * 3.5e9 / 15e6)
    assert [row["bound_us"] for row in values["kernels"]] == pytest.approx([10_000, 5_000, 3_000])
    assert values["roofline"]["device"] == "slow"
    assert values["roofline"]["bound_ms"] == pytest.approx(18)
    plain = describe(PLAN)
    assert plain["roofline"] is None
    assert "bound_us" not in plain["kernels"][0]


def test_without_products_the_bytes_are_the_bound() -> None:
    found = traffic([kernel("a", 6, 4)])
    assert describe(found, DEVICE)["macs"] is None
    assert describe(found, DEVICE)["intensity"] is None
    assert find_bound(found, DEVICE).bound_ms == pytest.approx(10)
