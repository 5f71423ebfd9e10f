from __future__ import annotations

import itertools
import json
import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto
from synthetic import BASELINE, Loss, Synthetic

from hiresvit.calibration import fallback
from hiresvit.calibration.fallback import TRIES, Fallback, check_drop, find_fallback
from hiresvit.calibration.sensitivity import Judgement, Sensitivity
from hiresvit.errors import GateError, UsageError

MARGIN = 1e-6  # points: sums of a dozen losses in float64 are right to 1e-13, and losses are drawn 0.1 apart

# One MAC count and one loss for each module; losses are multiples of 0.1 and so further apart than the noise.
modules = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20)), min_size=1, max_size=8)
limits = st.integers(0, 30).map(lambda tenth: tenth / 10)


def additive(drawn: list[tuple[int, int]]) -> Synthetic:
    losses = {f"m{i}": tenth / 10 for i, (_, tenth) in enumerate(drawn)}
    return Synthetic(names(drawn), lambda chosen: sum(losses[name] for name in chosen))


def names(drawn: list[tuple[int, int]]) -> dict[str, int]:
    return {f"m{i}": macs for i, (macs, _) in enumerate(drawn)}


def growing(kind: str, drawn: list[tuple[int, int]], seed: int) -> Synthetic:
    """A loss that is not a sum, and never falls when one more module is quantized."""
    losses = {f"m{i}": tenth / 10 for i, (_, tenth) in enumerate(drawn)}
    rng = np.random.default_rng(seed)
    pairs = {pair: rng.uniform(0, 1) for pair in itertools.combinations(sorted(losses), 2)}
    kinds: dict[str, Loss] = {
        "worst": lambda chosen: max((losses[name] for name in chosen), default=0.0),
        "noise": lambda chosen: math.sqrt(sum(losses[name] ** 2 for name in chosen)),
        "saturated": lambda chosen: 2 * math.tanh(sum(losses[name] for name in chosen)),
        "pairs": lambda chosen: (
            sum(losses[name] for name in chosen)
            + sum(value for pair, value in pairs.items() if chosen.issuperset(pair))
        ),
    }
    return Synthetic(names(drawn), kinds[kind])


def erratic(count: int, seed: int) -> Synthetic:
    """Any loss at all for each set, gains included; none for the empty set."""
    drawn: dict[frozenset[str], float] = {frozenset(): 0.0}
    rng = np.random.default_rng(seed)
    return Synthetic(
        {f"m{i}": int(rng.integers(1, 10)) for i in range(count)},
        lambda chosen: drawn.setdefault(chosen, float(rng.uniform(-0.3, 1.5))),
    )


def search(whole: Synthetic, limit: float, tries: int = TRIES) -> tuple[Fallback, Sensitivity]:
    sensitivity = whole.sensitivity()
    whole.asked.clear()
    with mock.patch.object(fallback, "TRIES", tries):
        return find_fallback(sensitivity, whole.quantize, whole.judge, BASELINE, limit), sensitivity


def check(found: Fallback, whole: Synthetic, limit: float) -> None:
    """What holds whatever the loss is like."""
    kept = frozenset(found.kept)
    assert len(kept) == len(found.kept)
    assert found.drop == pytest.approx(whole.drop(kept))
    assert whole.drop(kept) <= limit + MARGIN
    assert found.metric == pytest.approx(BASELINE.metric - found.drop)
    assert found.full_drop == pytest.approx(whole.drop(frozenset()))
    assert (not kept) == (found.full_drop <= limit + MARGIN)
    assert found.minimal
    for name in kept:
        assert whole.drop(kept - {name}) > limit - MARGIN, f"{name} is not needed"
    in_int8 = sum(macs for name, macs in whole.macs.items() if name not in kept)
    assert found.int8_share == pytest.approx(in_int8 / sum(whole.macs.values()))


def shortest_prefix(whole: Synthetic, sensitivity: Sensitivity, limit: float) -> int:
    """How many of the most sensitive modules must be kept, tried one after the other."""
    order = [row.module for row in sensitivity.modules]
    return next(
        n for n in range(len(order) + 1) if whole.drop(frozenset(order[:n])) <= limit + MARGIN
    )  # the last is the whole graph in FP16, which loses nothing


@given(modules, limits)
@settings(max_examples=150, deadline=None)
def test_if_losses_add_up_no_smaller_set_exists(drawn: list[tuple[int, int]], limit: float) -> None:
    whole = additive(drawn)
    found, _ = search(whole, limit)
    check(found, whole, limit)
    smallest = next(
        size
        for size in range(len(whole.macs) + 1)
        if any(whole.drop(frozenset(kept)) <= limit + MARGIN for kept in itertools.combinations(whole.macs, size))
    )
    assert len(found.kept) == smallest


@pytest.mark.parametrize("kind", ["worst", "noise", "saturated", "pairs"])
@given(modules, limits, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_losses_that_do_not_add_up(kind: str, drawn: list[tuple[int, int]], limit: float, seed: int) -> None:
    whole = growing(kind, drawn, seed)
    found, sensitivity = search(whole, limit)
    check(found, whole, limit)
    assert len(found.kept) <= shortest_prefix(whole, sensitivity, limit)


@given(st.integers(1, 9), limits, st.integers(0, 100_000))
@settings(max_examples=150, deadline=None)
def test_losses_without_any_order(count: int, limit: float, seed: int) -> None:
    whole = erratic(count, seed)
    found, _ = search(whole, limit, tries=10_000)
    check(found, whole, limit)


@given(modules, limits)
@settings(max_examples=50, deadline=None)
def test_no_graph_is_judged_twice(drawn: list[tuple[int, int]], limit: float) -> None:
    whole = growing("noise", drawn, 0)
    found, _ = search(whole, limit)
    assert len(whole.asked) == len(set(whole.asked)) == found.tried


def test_full_int8_that_is_good_enough_is_judged_once() -> None:
    found, _ = search(additive([(1, 1), (1, 2)]), 0.3)
    assert (found.kept, found.tried, found.minimal, found.int8_share) == ((), 1, True, 1.0)
    assert found.drop == found.full_drop == pytest.approx(0.3)


def test_exactly_the_limit_is_within_it() -> None:
    assert 64.4 - 63.9 > 0.5  # in binary
    check_drop(63.9, 64.4, 0.5, "mIoU")
    with pytest.raises(GateError, match=r"mIoU is 63\.88 %, 0\.52 points below 64\.40 %: --max-drop 0\.5 allows less"):
        check_drop(63.88, 64.4, 0.5, "mIoU")


def test_the_costly_one_of_two_goes_back() -> None:
    """c and d cost 0.6 more together, so that the prefix is a, b, c; with c kept, a or b can go back, but not both."""
    alone = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.0}
    for macs, kept, share in (((90, 5, 3, 2), ("b", "c"), 0.92), ((5, 90, 3, 2), ("a", "c"), 0.92)):
        whole = Synthetic(
            dict(zip(alone, macs, strict=True)),
            lambda chosen: sum(alone[name] for name in chosen) + 0.6 * ({"c", "d"} <= chosen),
        )
        found, _ = search(whole, 0.45)
        assert found.kept == kept
        assert found.int8_share == pytest.approx(share)


def test_it_takes_a_few_graphs_for_many_modules() -> None:
    # 100 modules, of which 10 lose 1 point each and the others 0.001.
    losses = {f"m{i:02}": 1.0 if i % 10 == 3 else 0.001 for i in range(100)}
    whole = Synthetic(dict.fromkeys(losses, 1), lambda chosen: sum(losses[name] for name in chosen))
    found, _ = search(whole, 0.5)
    assert found.kept == tuple(name for name, loss in losses.items() if loss == 1)
    # Full INT8, 7 halvings of 100, and each of the ten once, of which one was judged in the search.
    assert found.tried <= 1 + 7 + 10


def test_when_the_tries_run_out_the_limit_still_holds() -> None:
    losses = {f"m{i}": 1.0 for i in range(20)}
    whole = Synthetic(dict.fromkeys(losses, 1), lambda chosen: float(len(chosen)))
    found, _ = search(whole, 4.0, tries=7)
    assert len(found.kept) == 16
    assert (found.drop, found.minimal) == (4, False)
    assert found.tried == len(whole.asked) <= 7
    patient, _ = search(whole, 4.0, tries=40)
    assert (patient.kept, patient.minimal) == (found.kept, True)


def test_the_binary_search_is_finished_whatever_the_tries() -> None:
    whole = Synthetic({f"m{i}": 1 for i in range(20)}, lambda chosen: float(len(chosen)))
    found, _ = search(whole, 4.0, tries=1)
    assert (len(found.kept), found.drop, found.minimal) == (16, 4, False)
    assert found.tried <= 2 + math.ceil(math.log2(20))


def test_a_limit_out_of_reach_is_an_error_with_numbers() -> None:
    whole = Synthetic({"a": 1, "b": 1}, lambda chosen: 2.0 + len(chosen))
    with pytest.raises(GateError) as caught:
        search(whole, 0.5)
    assert str(caught.value) == (
        "the graph with all 2 modules in FP16 is 83.00 %, 2.00 points below 85.00 %: --max-drop 0.5 allows less;"
        " allow more, or calibrate with more and better pictures"
    )
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("limit", [-0.1, math.nan, math.inf, -math.inf])
def test_a_limit_that_is_none_is_refused(limit: float) -> None:
    with pytest.raises(UsageError, match=r"max_drop .*: give percentage points from 0"):
        search(additive([(1, 1)]), limit)


def test_the_limit_holds_for_the_judge_of_the_search() -> None:
    """The sensitivity is of other pictures, where the order is another and the baseline too."""
    whole = additive([(1, 4), (1, 1), (1, 2)])
    sensitivity = whole.sensitivity()
    shift = 10.0

    def judge(graph: ModelProto) -> Judgement:
        losses = {"m0": 0.1, "m1": 0.6, "m2": 0.2}
        chosen = filter(None, graph.doc_string.split(","))
        return Judgement(BASELINE.metric - shift - sum(losses[name] for name in chosen), 40)

    there = Judgement(BASELINE.metric - shift, 60)
    found = find_fallback(sensitivity, whole.quantize, judge, there, 0.3)
    assert found.kept == ("m1",)
    assert found.drop == pytest.approx(0.3)


def test_progress_says_how_many_are_kept() -> None:
    steps: list[tuple[str, float | None]] = []
    whole = additive([(1, 4), (1, 1)])
    found = find_fallback(
        whole.sensitivity(), whole.quantize, whole.judge, BASELINE, 0.1, on_step=lambda *s: steps.append(s)
    )
    assert steps == [("fallback: 0 of 2 modules in FP16", None), ("fallback: 1 of 2 modules in FP16", None)]
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["kept"] == ["m0"]
