"""Differences of modules against whole arrays, in bounded memory, and planted faults, each with its kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from graphs import Array, noise

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.evaluation.layers import (
    Fetch,
    LayerDifference,
    Pair,
    compare_layers,
    first_beyond,
    in_chunks,
    match_modules,
)
from hiresvit.evaluation.parity import compare_arrays
from hiresvit.graph.modules import Boundary


def boundary(module: str, *shape: int | None) -> Boundary:
    known = None if None in shape or not shape else tuple(n for n in shape if n is not None)
    return Boundary(module, "Conv", f"{module}.out", f"{module}.out", known)


def side(tensors: dict[str, list[Array]], asked: list[list[str]] | None = None) -> Callable[[Sequence[str]], Fetch]:
    def ask(names: Sequence[str]) -> Fetch:
        if asked is not None:
            asked.append(list(names))
        return lambda image: [tensors[name][image] for name in names]

    return ask


def compared(reference: Array, test: Array, tolerance: float = 30.0) -> LayerDifference:
    """One module, each first axis a picture."""
    [found] = compare_layers(
        [Pair(boundary("a"), boundary("a"))],
        side({"a.out": list(reference)}),
        side({"a.out": list(test)}),
        images=len(reference),
        tolerance=tolerance,
    )
    return found


def test_the_sums_are_those_of_whole_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiresvit.evaluation.layers._BLOCK", 100)
    a = noise(3, 4, 71)
    b = np.asarray(1.1 * a + 0.2 * noise(3, 4, 71, seed=1), np.float32)
    found, whole = compared(a, b), compare_arrays(a, b)
    assert found.sqnr_db == pytest.approx(whole.sqnr_db)
    assert found.cosine == pytest.approx(whole.cosine)
    assert found.max_abs == pytest.approx(whole.max_abs)
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    assert found.scale == pytest.approx(np.linalg.lstsq(x[:, None], y, rcond=None)[0][0])
    errors = np.square(x - y).reshape(3, -1)
    assert found.outliers == pytest.approx(errors.max(1).sum() / errors.sum())  # one of 284 values a picture


def planted(values: Array, fault: str) -> Array:
    test = values.copy()
    match fault:
        case "scale":
            test *= 2
        case "saturation":
            np.clip(test, -2, 2, out=test)
        case "nan":
            test[1, 2, 3] = np.nan
        case "outliers":
            test[0, 1, 2] += 200
        case "everything":
            test = np.flip(test, 1)
    return np.asarray(test)


@pytest.mark.parametrize("fault", ["scale", "saturation", "nan", "outliers", "everything"])
@pytest.mark.parametrize("spread", [0.0, 0.5], ids=["alone", "and noise"])
def test_a_planted_fault_has_its_kind(fault: str, spread: float) -> None:
    values = noise(2, 8, 500)
    tolerance = 30.0
    if spread:  # as much as FP16 may leave; a clipped value loses its own at the bound
        values = np.asarray(values, np.float16).astype(np.float32)
    test = planted(values, fault)
    if spread and fault != "saturation":
        test = test + 0.01 * noise(2, 8, 500, seed=2)
    found = compared(values, test, tolerance)
    assert found.verdict == fault
    assert found.non_finite == (fault == "nan")
    if fault == "scale":
        assert found.scale == pytest.approx(2, rel=0.01)


def test_noise_within_the_tolerance_has_no_verdict_and_beyond_it_is_everything() -> None:
    values = noise(1, 8, 500)
    test = values + np.float32(0.01) * noise(1, 8, 500, seed=1)
    assert compared(values, test, 39).verdict is None
    assert compared(values, test, 41).verdict == "everything"


@pytest.mark.parametrize(("reference", "test", "seen"), [(None, 0.0, False), (0.0, -3.0, True), (-np.inf, 0.0, True)])
def test_what_no_reader_tells_apart_is_no_difference(reference: float | None, test: float, seen: bool) -> None:
    """8 bits of the HTP's form cut what only a Relu reads at 0; PyTorch's side does not say what reads it."""
    values = noise(1, 8, 500)
    ours, theirs = (replace(boundary("a"), floor=floor) for floor in (reference, test))
    sides = side({"a.out": [values[0]]}), side({"a.out": [np.maximum(values[0], 0)]})
    [found] = compare_layers([Pair(ours, theirs)], *sides, images=1, tolerance=30)
    assert (found.verdict is not None) == seen
    sides = side({"a.out": [values[0]]}), side({"a.out": [np.clip(values[0], 0, 1)]})
    [found] = compare_layers([Pair(ours, theirs)], *sides, images=1, tolerance=30)
    assert found.verdict == "saturation", "what they do tell apart"


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_equal_tensors_differ_in_nothing(value: float) -> None:
    values = np.full((2, 3), value, np.float32)
    found = compared(values, values)
    assert (found.sqnr_db, found.max_abs, found.cosine, found.scale, found.verdict) == (None, 0.0, 1.0, 1.0, None)


def test_a_reference_of_zeros_is_no_measure() -> None:
    found = compared(np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32))
    assert (found.sqnr_db, found.scale, found.verdict) == (None, None, "everything")
    json.dumps(found.to_json(), allow_nan=False)


def test_a_silenced_module_is_a_scale_of_zero() -> None:
    found = compared(noise(1, 40), np.zeros((1, 40), np.float32))
    assert (found.scale, found.verdict) == (0.0, "scale")


def test_half_precision_and_integers_are_compared_in_float64() -> None:
    values = np.array([[60000, -60000]], np.float16)
    assert compared(values, values / 2).sqnr_db == pytest.approx(20 * np.log10(2))
    labels = np.array([[1, 2, 3]], np.uint8)
    assert compared(labels, labels + 1).max_abs == 1


def test_chunks_hold_what_fits_and_each_tensor_comes_once() -> None:
    sizes = {"a": 10, "b": 20, "c": 100, "d": None, "e": 5, "f": 5}
    pairs = [Pair(boundary(name, size), boundary(name, size)) for name, size in sizes.items()]
    named = [[pair.reference.module for pair in chunk] for chunk in in_chunks(pairs, 4 * 30)]
    assert named == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    tensors = {f"{name}.out": [noise(size or 7, seed=k) for k in range(3)] for name, size in sizes.items()}
    asked: list[list[str]] = []
    steps: list[float | None] = []
    found = compare_layers(
        pairs,
        side(tensors, asked),
        side(tensors),
        images=3,
        tolerance=30,
        memory_bytes=4 * 30,
        on_step=lambda _, share: steps.append(share),
    )
    assert [one.module for one in found] == list(sizes)
    assert asked == [[f"{name}.out" for name in chunk] for chunk in named]
    assert steps == sorted(steps, key=float)  # type: ignore[arg-type]
    assert steps[-1] == 1.0


def test_the_first_beyond_is_the_first_in_order_and_not_the_worst() -> None:
    values = noise(1, 100)
    test = {"a.out": [values], "b.out": [values * 1.5], "c.out": [values * 9]}
    pairs = [Pair(boundary(name), boundary(name)) for name in "abc"]
    reference = {name: [values] for name in test}
    found = compare_layers(pairs, side(reference), side(test), images=1, tolerance=30)
    first = first_beyond(found)
    assert first is not None
    assert first.module == "b"
    assert first_beyond(found[:1]) is None


def test_channels_may_be_last_on_one_side() -> None:
    left = [boundary("a", 1, 8, 4, 6), boundary("b", 1, 8, 4, 6), boundary("c", 8, 4, 6), boundary("d", 8, 4)]
    right = [boundary("a", 4, 6, 8), boundary("b", 4, 8, 6), boundary("c", 1, 8, 4, 6), boundary("d", 4, 8)]
    assert [pair.reference.module for pair in match_modules(left, right).pairs] == ["a", "c"]
    for shape in ((1, 8, 4, 6), (1, 4, 4, 4)):  # the second does not tell them apart
        values = noise(*shape)
        assert compared(values, np.moveaxis(values, 1, -1).copy()).max_abs == 0
        assert compared(np.moveaxis(values, 1, -1), values).max_abs == 0
        assert compared(values, np.moveaxis(values, 1, -1)[..., ::-1]).verdict == "everything"
        assert compared(values, 2 * values).verdict == "scale"


def test_modules_are_matched_by_path_and_size() -> None:
    left = [boundary("a", 3), boundary("b", 4), boundary("c", 5), boundary("d", None)]
    right = [boundary("d", 9), boundary("b", 8), boundary("a", 3), boundary("e", 1)]
    found = match_modules(left, right)
    assert [pair.reference.module for pair in found.pairs] == ["a", "d"]
    assert (found.only_reference, found.only_test) == (("b", "c"), ("b", "e"))


def test_what_cannot_be_compared_is_refused() -> None:
    broken = noise(1, 5)
    broken[0, 2] = np.inf
    with pytest.raises(HiresvitError, match="the reference has 1 NaN or Inf values in module 'a'"):
        compared(broken, noise(1, 5))
    with pytest.raises(UsageError, match=r"module 'a' has \[5\] here and \[6\] there"):
        compared(noise(1, 5), noise(1, 6))
    with pytest.raises(UsageError, match="0 modules on 1 pictures"):
        compare_layers([], side({}), side({}), images=1, tolerance=30)
