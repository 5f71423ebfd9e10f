from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.evaluation import ranges
from hiresvit.evaluation.ranges import TensorRange, activation_ranges

Feed = Mapping[str, NDArray[Any]]

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


FEEDS = [feed([0, 1, -2, 0.5]), feed([0.25, 1, 1, 1], [-0.125, 2, 0, 0])]


def test_ranges_over_all_feeds_are_exact() -> None:
    model = build()
    before = model.SerializeToString(deterministic=True)
    found = activation_ranges(model, FEEDS)
    assert model.SerializeToString(deterministic=True) == before
    big, tiny = np.float32(1e5), np.float32(1e-6)
    two, eighth = np.float32(2), np.float32(0.125)
    assert found == [
        TensorRange("x", 2.0, 0.125, 0),
        TensorRange("wide", float(two * big), float(eighth * big), 0),
        TensorRange("narrow", float(two * tiny), float(eighth * tiny), 0),
        TensorRange("zero", 0.0, 0.0, 0),
        TensorRange("broken", 0.0, 0.0, 12),  # 0 / 0, everywhere
        TensorRange("counted", 1.0, 1.0, 0),
        TensorRange("y", float(1 + two * tiny), float(tiny / 4), 0),
    ]
    assert [r.hazard for r in found] == [None, "overflow", "underflow", None, "non-finite", None, None]
    assert found[1].to_json()["hazard"] == "overflow"


@pytest.mark.parametrize(
    ("magnitude", "hazard"),
    [(65504, None), (65505, "overflow"), (2.0**-14, None), (2.0**-15, "underflow"), (0, None)],
)
def test_hazards_begin_where_fp16_ends(magnitude: float, hazard: str | None) -> None:
    assert TensorRange("t", magnitude, 0.0, 0).hazard == hazard


def test_chunks_do_not_change_the_ranges() -> None:
    whole = activation_ranges(build(), FEEDS)
    for chunk_bytes in (1, 16, 40):  # single tensors, single tensors again, pairs of [1, 4] floats
        assert activation_ranges(build(), FEEDS, chunk_bytes=chunk_bytes) == whole


def test_a_chunk_stays_within_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[list[int]] = []
    results = ranges._results

    def spy(model: ModelProto, names: list[str], feeds: list[Feed]) -> Any:
        for values in results(model, names, feeds):
            fetched.append([value.nbytes for value in values])
            yield values

    monkeypatch.setattr(ranges, "_results", spy)
    activation_ranges(build(), FEEDS[1:], chunk_bytes=72)
    # Two rows: 32 bytes each but `counted`, which has one column.
    assert fetched == [[32, 32], [32, 32, 8], [32]]


def test_a_tensor_of_unknown_size_is_a_chunk_of_its_own() -> None:
    text = GRAPH.replace("broken = Div(zero, zero)", "at = NonZero(x) broken = Cast<to=1>(at)")
    found = {r.name: r for r in activation_ranges(build(text), FEEDS)}
    assert (found["broken"].max_abs, found["broken"].min_abs) == (3.0, 1.0)  # row and column numbers


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(UsageError, match="no feeds"):
        activation_ranges(build(), [])
    with pytest.raises(UsageError, match=r"feed 1 has \['x'\]: the graph's inputs are \['ids', 'x'\]"):
        activation_ranges(build(), [FEEDS[0], {"x": FEEDS[0]["x"]}])
    with pytest.raises(UsageError, match="chunk_bytes=0"):
        activation_ranges(build(), FEEDS, chunk_bytes=0)
    with pytest.raises(UsageError, match="no FP32 tensor"):
        activation_ranges(build("g (int64[2] x) => (int64[2] y) { y = Neg(x) }"), [{"x": np.arange(2)}])
    wrong: Feed = {"x": np.ones((1, 5), np.float32), "ids": np.arange(1)}
    with pytest.raises(HiresvitError, match="cannot run the graph on these inputs") as caught:
        activation_ranges(build(), [wrong])
    assert "\n" not in str(caught.value)
