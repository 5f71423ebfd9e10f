"""The ranges of every FP32 tensor of a graph, and what FP16 cannot hold of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from hiresvit.calibration import collect as collecting
from hiresvit.calibration import probes
from hiresvit.calibration.collect import RunOptions, Statistics, activation_ranges
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.spec import Feed

GRAPH = """g (float[N,4] x, int64[N] ids) => (float[N,4] y, int64[N] best) {
  wide = Mul(x, big)
  narrow = Mul(x, tiny)
  zero = Sub(x, x)
  broken = Div(zero, zero)
  half = Constant<value_float=0.5>()
  column = Unsqueeze(ids, one)
  counted = Cast<to=1>(column)
  y = Add(narrow, counted)
  best = ArgMax<axis=1, keepdims=0>(wide)
}"""


def build(text: str = GRAPH) -> ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]>\n{text}')
    constants = {"big": np.float32(1e5), "tiny": np.float32(1e-6), "one": np.array([1])}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    return model


def feed(*rows: list[float]) -> Feed:
    return {"x": np.array(rows, np.float32), "ids": np.arange(len(rows))}


FEEDS = [feed([0, 1, -2, 0.5], [0.125, 0, 0, 0]), feed([0.25, 1, 1, 1])]


def facts(found: dict[str, Statistics]) -> dict[str, tuple[float, float, float, int, str | None]]:
    """Lowest, highest, smallest, how many not finite, hazard."""
    return {name: (one.lowest, one.highest, one.smallest, one.non_finite, one.hazard) for name, one in found.items()}


def test_ranges_over_all_feeds_are_exact() -> None:
    model = build()
    before = model.SerializeToString(deterministic=True)
    found = activation_ranges(model, FEEDS)
    assert model.SerializeToString(deterministic=True) == before
    big, tiny = np.float32(1e5), np.float32(1e-6)
    assert facts(found) == {
        "x": (-2.0, 1.0, 0.0, 0, None),
        # The smallest is in the first picture, the second one's are larger.
        "wide": (float(-2 * big), float(big), float(np.float32(0.125) * big), 0, "overflow"),
        "narrow": (float(-2 * tiny), float(tiny), float(np.float32(0.125) * tiny), 0, "underflow"),
        "zero": (0.0, 0.0, 0.0, 0, None),
        "broken": (0.0, 0.0, 0.0, 12, "non-finite"),  # 0 / 0, everywhere
        "counted": (0.0, 1.0, 0.0, 0, None),
        "y": (float(-2 * tiny), float(1 + np.float32(0.125) * tiny), 0.0, 0, None),
    }
    assert found["wide"].counts is None


def test_what_is_finite_of_a_tensor_has_a_range() -> None:
    model = build("g (float[N,4] x) => (float[N,4] y) { y = Log(x) }")
    rows = [1, 0, -1, np.e], [1, 1, np.inf, 1], [1, 1 + 2**-10, 1, 1]
    [_, y] = activation_ranges(model, [{"x": np.array([row], np.float32)} for row in rows]).values()
    # Logarithms of different processors differ in the last bit of 24.
    assert (y.lowest, y.non_finite, y.hazard) == (0, 3, "non-finite")
    assert (y.highest, y.smallest) == pytest.approx((1, np.log(1 + 2**-10)), rel=1e-6)


@pytest.mark.parametrize(
    ("magnitude", "hazard"),
    [(65504, None), (65505, "overflow"), (2.0**-14, None), (2.0**-15, "underflow"), (0, None)],
)
def test_hazards_begin_where_fp16_ends(magnitude: float, hazard: str | None) -> None:
    model = build("g (float[2] x) => (float[2] y) { y = Identity(x) }")
    for sign in (1, -1):
        found = activation_ranges(model, [{"x": np.array([0, sign * magnitude], np.float32)}])
        assert (found["y"].hazard, found["y"].amax) == (hazard, magnitude)
        assert found["y"].smallest == (magnitude if hazard else 0)


def test_large_values_overflow_and_are_finite() -> None:
    """Their sums are not: one is infinite, the other a NaN."""
    model = build("g (float[4] x) => (float[4] y) { y = Identity(x) }")
    for row in ([3e38] * 4, [3e38, 3e38, -3e38, -3e38]):
        found = activation_ranges(model, [{"x": np.array(row, np.float32)}])["y"]
        assert (found.hazard, found.amax, found.non_finite) == ("overflow", np.float32(3e38), 0)


def test_a_nan_that_a_maximum_loses_is_counted() -> None:
    model = build("g (float[7,11] x) => (float[7,11] y) { y = Neg(x) }")
    for place in range(0, 77, 8):
        values = np.ones((7, 11), np.float32)
        values.ravel()[place] = np.nan
        found = activation_ranges(model, [{"x": np.ones((7, 11), np.float32)}, {"x": values}])["y"]
        assert (found.lowest, found.highest, found.non_finite) == (-1, -1, 1), place


def test_chunks_do_not_change_the_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = facts(activation_ranges(build(), FEEDS))
    fetched: list[list[str]] = []
    cut = probes.tensor_graph

    def spy(model: ModelProto, names: list[str]) -> ModelProto:
        fetched.append(names)
        return cut(model, names)

    monkeypatch.setattr(collecting, "tensor_graph", spy)
    for memory_bytes in (1, 16, 40):  # single tensors, single tensors again, pairs of [1, 4] floats
        assert facts(activation_ranges(build(), FEEDS, RunOptions(memory_bytes))) == whole
    single = [["wide"], ["narrow"], ["broken"]]
    assert fetched == [*single, *single, ["wide", "narrow"], ["broken"]], "none but what FP16 cannot hold"


def test_a_tensor_of_unknown_size_has_a_range() -> None:
    text = GRAPH.replace("broken = Div(zero, zero)", "at = NonZero(x) broken = Cast<to=1>(at)")
    found = activation_ranges(build(text), FEEDS)["broken"]
    assert (found.lowest, found.highest) == (0.0, 3.0)  # row and column numbers


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(UsageError, match="no feeds"):
        activation_ranges(build(), [])
    with pytest.raises(UsageError, match=r"feeds are \['x'\]; the network's inputs are \['ids', 'x'\]"):
        activation_ranges(build(), [FEEDS[0], {"x": FEEDS[0]["x"]}])
    with pytest.raises(UsageError, match="memory_bytes=0"):
        activation_ranges(build(), FEEDS, RunOptions(0))
    with pytest.raises(UsageError, match="0 tensors"):
        activation_ranges(build("g (int64[2] x) => (int64[2] y) { y = Neg(x) }"), [{"x": np.arange(2)}])
    wrong: Feed = {"x": np.ones((1, 5), np.float32), "ids": np.arange(1)}
    with pytest.raises(HiresvitError, match=r"input 'x' is float32 \(1, 5\); the network takes") as caught:
        activation_ranges(build(), [wrong])
    assert "\n" not in str(caught.value)
