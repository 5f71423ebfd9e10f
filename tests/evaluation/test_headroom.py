"""What FP16 cannot hold is found and named wherever it is, and what it can hold is not called a fault."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from graphs import Array, build, named_graph
from onnx import ModelProto

from hiresvit.errors import GateError
from hiresvit.evaluation.headroom import Headroom, measure_headroom, open_exact
from hiresvit.runtime.runner import Casting

MANY = 7


def feed(*values: float) -> dict[str, Array]:
    return {"x": np.array(values, np.float32)}


def looked(model: ModelProto, *feeds: dict[str, Array]) -> Headroom:
    runner = open_exact(model, 1)
    assert runner is not None
    for one in feeds:
        Casting(runner)(one)
    return runner.found


def fp16(body: str, output: str = "float16[2] y", **weights: Any) -> ModelProto:
    halves: dict[str, Any] = {name: np.asarray(value, np.float16) for name, value in weights.items()}
    return named_graph(body, "float16[2] x", output, **halves)


def test_one_picture_of_many_is_enough() -> None:
    model = fp16("a = Mul(x, big) b = Relu(a) y = Mul(b, small)", big=256, small=2**-8)
    feeds = [feed(1, k) for k in range(MANY)]
    found = measure_headroom(model, feeds, "g", threads=1)
    share = 256 * (MANY - 1) / 65504
    assert found.to_json()["headroom"] == {
        "share": pytest.approx(share),
        "max_abs": 256.0 * (MANY - 1),
        "tensor": "a",
        "module": "m.a",
        "images": MANY,
    }
    feeds[4] = feed(1, 300)
    with pytest.raises(GateError) as caught:
        measure_headroom(model, feeds, "g", threads=1)
    assert caught.value.exit_code == 4
    assert str(caught.value).startswith(
        "g: 'a' of module m.a reaches 76800 on image 4 of 7 (counted from 0), FP16 ends at 65504 (and 2 more"
    )


@pytest.mark.parametrize("value", [65504.0, -65504.0])
def test_it_begins_where_fp16_ends(value: float) -> None:
    model = fp16("a = Add(x, one) y = Relu(a)", one=0)
    assert looked(model, feed(value, 0)).failures("g") == []
    [said] = looked(model, feed(value + np.sign(value), 0)).failures("g")
    assert said.startswith("g: 'x' reaches 65505"), "an input, too"


FAULTS = {
    "a product that is made small again": (
        "a = MatMul(x, big) y = Mul(a, small)",
        "'a' of module m.a reaches",
    ),
    "a weight that is cast": ("a = Cast<to=10>(wide) y = Mul(x, a)", "'a' of module m.a reaches 80000"),
    "a constant that became infinite": ("y = Div(x, infinite)", "constant 'infinite' of module m.y has NaN or inf"),
    "a division by what was flushed": ("a = Mul(tiny, tiny) y = Div(x, a)", "'y' of module m.y becomes NaN or inf"),
    "a NaN that a maximum loses": ("a = Log(x) b = Concat<axis=0>(a, x) y = Abs(b)", "'a' of module m.a becomes NaN"),
    "below the end as well": ("a = Mul(x, down) y = Relu(a)", "'a' of module m.a reaches 80000"),
    "a cast at the end": ("a = Mul(x, down) y = Cast<to=1>(a)", "'a' of module m.a reaches 80000"),
    "a cast at the border": (
        "a = Cast<to=1>(x) b = Mul(a, wide) y = Cast<to=10>(b)",
        "'y' of module m.b reaches 80000",
    ),
    "what grows twice": ("a = Exp(x) b = Exp(a) y = Reciprocal(b)", "'b' of module m.b becomes NaN or infinite"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_named(fault: str) -> None:
    body, said = FAULTS[fault]
    halves = {"small": 1e-3, "infinite": np.inf, "tiny": 1e-4, "down": -8e3, "big": np.full((2, 2), 8e3)}
    weights: dict[str, Any] = {name: np.asarray(value, np.float16) for name, value in halves.items() if name in body}
    if "wide" in body:
        weights["wide"] = np.float32(8e4 if "Cast<to=10>(wide)" in body else 8e3)
    model = named_graph(body, "float16[2] x", f"float{'' if 'y = Cast<to=1>' in body else '16'}[N] y", **weights)
    value = -1.0 if "Log" in body else 10.0
    failures = looked(model, feed(value, value)).failures("g")
    assert said in failures[0], failures
    json.dumps(looked(model, feed(value, value)).to_json(), allow_nan=False)


FAIR = {
    "a mask of minus infinity": "a = Add(x, mask) y = Softmax(a)",
    "a mask that a score makes infinite": "a = Add(x, low) b = Cast<to=1>(a) c = Softmax(b) y = Cast<to=10>(c)",
    "a bound": "y = Clip(x, down, up)",
}


@pytest.mark.parametrize("what", list(FAIR))
def test_what_loses_nothing_is_no_fault(what: str) -> None:
    body = FAIR[what]
    values: dict[str, Any] = {"mask": [0, -np.inf], "low": [0, -65504], "down": -np.inf, "up": np.inf}
    found = looked(fp16(body, **{k: v for k, v in values.items() if k in body}), feed(3, -40))
    assert found.failures("g") == []
    assert found.to_json()["headroom"]["max_abs"] == 40


def test_a_row_that_is_masked_as_a_whole_is_one() -> None:
    failures = looked(fp16("a = Add(x, mask) y = Softmax(a)", mask=[-np.inf, -np.inf]), feed(3, 4)).failures("g")
    assert "'y' of module m.y becomes NaN" in failures[0]


def test_a_mask_that_something_else_reads_is_one() -> None:
    failures = looked(fp16("a = Add(x, mask) b = Softmax(a) y = Add(a, b)", mask=[0, -np.inf]), feed(3, 4)).failures(
        "g"
    )
    assert "'mask'" in failures[0]


def test_underflow_is_noted_and_no_fault() -> None:
    model = fp16("a = Mul(x, tiny) b = Mul(x, zero) y = Add(a, x)", tiny=1e-5, zero=0)
    found = looked(model, feed(1, 2), feed(-3, 0))
    assert found.failures("g") == []
    [row] = found.to_json()["underflow"]
    assert row == {"tensor": "a", "module": "m.a", "max_abs": pytest.approx(3e-5, rel=0.02)}
    assert looked(model, feed(1, 2), feed(7, 0)).to_json()["underflow"] == [], "once it was large enough"


def test_two_runs_count_as_one() -> None:
    model = fp16("y = Mul(x, x)")
    both = looked(model, feed(1, 2), feed(3, 1)).joined(looked(model, feed(20, 1)))
    assert both.to_json() == looked(model, feed(1, 2), feed(3, 1), feed(20, 1)).to_json()


def test_a_graph_of_text_has_no_module() -> None:
    model = build("g (float16[2] x) => (float16[2] y) { y = Mul(x, x) }")
    assert "g: 'y' reaches 90000" in looked(model, feed(300, 0)).failures("g")[0]


def test_a_nan_that_a_maximum_loses_is_seen_wherever_it_is() -> None:
    model = build("g (float16[7,11] x) => (float16[7,11] y) { y = Neg(x) }")
    for place in range(0, 77, 8):
        values = np.ones((7, 11), np.float32)
        values.ravel()[place] = np.nan
        found = looked(model, {"x": np.ones((7, 11), np.float32)}, {"x": values})
        assert "g: 'x' becomes NaN or infinite on image 1 of 2" in found.failures("g")[0], place
        assert found.to_json()["headroom"]["share"] is None
