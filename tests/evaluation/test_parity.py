from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from hiresvit.errors import GateError, HiresvitError, UsageError
from hiresvit.evaluation import parity
from hiresvit.evaluation.parity import (
    GATES,
    NEAR_TIE,
    Gate,
    ParityReport,
    check_gate,
    compare,
    compare_arrays,
    compare_runs,
    enforce,
    gate_of_runner,
    gates_for,
)
from hiresvit.models.create import model_spec
from hiresvit.runtime.runner import About, Runner
from hiresvit.spec import HTP_FORMS, Task, TensorSpec


class Table(Runner):
    """A runner that looks its answer up: feed i gives answer i."""

    inputs = (TensorSpec("i", "int64", ()),)
    about = About("table", "1", "CPU")

    def __init__(self, *answers: Any, name: str = "y") -> None:
        self.answers = answers
        self.outputs = (TensorSpec(name, "float32", ()),)

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {self.outputs[0].name: np.asarray(self.answers[int(feeds["i"])])}

    def close(self) -> None: ...


def report(reference: list[Any], test: list[Any], task: Task = "features") -> ParityReport:
    feeds = ({"i": np.array(i)} for i in range(len(reference)))  # a generator: it is consumed only once
    return compare(Table(*reference), Table(*test), feeds, task)


def test_hand_computed_distances() -> None:
    found = compare_arrays(np.array([3.0, 4.0]), np.array([3.0, 3.5]))
    assert found.max_abs == 0.5
    assert found.sqnr_db == pytest.approx(20.0)  # 20 log10(5 / 0.5)
    assert found.cosine == pytest.approx((9 + 14) / (5 * math.hypot(3, 3.5)))
    assert (found.agreement, found.flip_margin, found.exact, found.non_finite) == (None, None, False, 0)


def test_blocks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((2, 5, 7))
    b = a + 0.01 * rng.standard_normal(a.shape)
    whole = compare_arrays(a, b)
    monkeypatch.setattr(parity, "_BLOCK", 8)
    parts = compare_arrays(a, b)
    # float64 sums in another order
    assert (parts.max_abs, parts.cosine, parts.sqnr_db) == pytest.approx((whole.max_abs, whole.cosine, whole.sqnr_db))


def test_sums_are_kept_in_float64() -> None:
    a = np.full(2**22, 1000, np.float16)  # in float16 the sum of squares is Inf, in float32 it loses the ones
    b = a.copy()
    b[::2] += 1
    assert compare_arrays(a, b).sqnr_db == pytest.approx(10 * math.log10(1e6 / 0.5))


def test_segmentation_agrees_by_pixel() -> None:
    reference = np.zeros((1, 3, 2, 2))
    reference[0, 0] = 1
    test = reference.copy()
    test[0, 2, 0, 1] = 2
    found = compare_arrays(reference, test, "segment")
    assert found.agreement == 0.75
    # A gap of 1 - 0 where the three logits 1, 0, 0 have the standard deviation sqrt(2) / 3.
    assert found.flip_margin == pytest.approx(3 / math.sqrt(2))


def test_masks_agree_by_sign_and_their_classes_by_distance_alone() -> None:
    masks, classes = np.array([[[[3.0, -2.0], [-0.5, 0.0]]]]), np.array([[[1.0, 2.0]]])
    other = np.array([[[[2.0, -3.0], [0.5, -1.0]]]])
    found = compare_runs({"classes": classes, "masks": masks}, {"classes": -classes, "masks": other}, "masks")
    by_name = {output.name: output for output in found.outputs}
    assert (by_name["masks"].worst.agreement, by_name["classes"].worst.agreement) == (0.75, None)
    missed = check_gate(found, Gate(-100, -2, 0.8), "onnx")
    assert missed == ["onnx: output 'masks' has agreement 0.75, at least 0.8 is needed; --min-agreement sets it"]
    broken = compare_runs({"masks": masks}, {"masks": np.full_like(masks, np.nan)}, "masks")
    assert broken.outputs[0].worst.agreement == 0


def test_a_head_of_queries_has_room_for_a_sign() -> None:
    plus, other = model_spec("lrformer_t_plus", "masks"), model_spec("lrformer_t")
    asked = {**GATES, "cpu": Gate(70, 0.9, 0.9)}
    found = gates_for(plus, asked)
    assert {name for name in GATES if found[name] != asked[name]} == {"onnx", "simplified", "fp16", "fp16 exact"}
    assert all(found[name].min_sqnr_db == GATES[name].min_sqnr_db for name in ("fp16", "fp16 exact"))
    assert (found["onnx"].min_agreement, found["fp16"].min_agreement) == (0.99, 0.9)
    assert gates_for(other, asked) == asked


def test_a_runner_in_bfloat16_has_a_gate_of_its_own() -> None:
    """The lower in each measure, so that INT8 keeps its own; one picture's class and few boxes are no share."""
    spec = model_spec("hrvit_b1", "segment", (64, 64))
    whole, lowered = type("Whole", (Runner,), {}), type("Lowered", (Runner,), {"precision": "bfloat16"})
    assert gate_of_runner(GATES["cpu"], whole(), spec) == GATES["cpu"]
    assert gate_of_runner(GATES["cpu"], lowered(), spec) == Gate(15.0, 0.98, 0.7)
    assert gate_of_runner(GATES["int8"], lowered(), spec) == GATES["int8"]
    classes = model_spec("hrvit_b1", "classify", (64, 64))
    assert gate_of_runner(GATES["cpu"], lowered(), classes) == Gate(15.0, 0.98, 0.0)


def test_classification_agrees_by_row() -> None:
    found = compare_arrays(np.array([[1.0, 0], [0, 1]]), np.array([[1.0, 0], [1, 0]], np.float16), "classify")
    assert found.agreement == 0.5


def test_flips_between_equal_logits_have_no_margin() -> None:
    found = compare_arrays(np.array([[1.0, 1.0]]), np.array([[1.0, 1.1]]), "classify")
    assert (found.agreement, found.flip_margin) == (0.0, 0.0)


def test_near_ties_have_a_small_margin_and_mistakes_a_large_one() -> None:
    logits = np.random.default_rng(0).standard_normal((1, 19, 100, 100))
    noise = np.random.default_rng(1).standard_normal(logits.shape)
    found = compare_arrays(logits, logits + noise * 10 ** (-45 / 20), "segment")
    assert found.sqnr_db == pytest.approx(45, abs=0.1)  # 190,000 samples: the noise's power is known to 0.3 %
    assert found.agreement is not None
    assert found.flip_margin is not None
    assert 0.99 < found.agreement < 0.998  # the module's docstring says 0.6 % flip
    assert 0 < found.flip_margin < NEAR_TIE
    wrong = logits.copy()
    wrong[:, :, :2] = wrong[:, ::-1, :2]  # two rows get another class's logits
    mistake = compare_arrays(logits, wrong, "segment")
    assert mistake.flip_margin is not None
    assert mistake.flip_margin > 1


def test_equal_arrays_are_exact_also_in_json() -> None:
    found = report([[1.0, 2.0]], [[1.0, 2.0]])
    assert found.outputs[0].worst.sqnr_db == math.inf
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    (output,) = values["outputs"]
    assert (output["exact"], output["sqnr_db"], output["max_abs"], output["cosine"]) == (True, None, 0, 1)
    assert check_gate(found, GATES["onnx"], "onnx") == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_fail_every_gate(bad: float) -> None:
    logits = [[[[1.0]], [[0.0]]]]
    broken = [[[[1.0]], [[bad]]]]
    found = report([logits, logits], [logits, broken], "segment")
    worst = found.outputs[0].worst
    assert (worst.non_finite, worst.agreement, worst.exact) == (1, 0.0, False)
    assert found.outputs[0].mean_agreement == 0.5
    output = json.loads(json.dumps(found.to_json(), allow_nan=False))["outputs"][0]
    assert (output["max_abs"], output["cosine"], output["sqnr_db"], output["non_finite"]) == (
        None,
        None,
        None,
        1,
    )
    (failure,) = check_gate(found, Gate(-math.inf, -1, 0), "fp16")
    assert "1 NaN or Inf" in failure


def test_fp16_that_overflowed_is_seen() -> None:
    with np.errstate(over="ignore"):
        test = np.array([1e5], np.float32).astype(np.float16)
    assert compare_arrays(np.array([1e5]), test).non_finite == 1


def test_zeros_in_the_reference_fail_and_do_not_divide() -> None:
    found = report([[0.0, 0.0]], [[0.0, 1e-9]])
    assert found.outputs[0].worst.sqnr_db == -math.inf
    assert len(check_gate(found, GATES["fp16"], "fp16")) == 2
    json.dumps(found.to_json(), allow_nan=False)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\(2,\), test is \(3,\)"):
        compare_arrays(np.zeros(2), np.zeros(3))
    with pytest.raises(UsageError, match="not empty"):
        compare_arrays(np.zeros((0, 2)), np.zeros((0, 2)))
    with pytest.raises(UsageError, match="not segment: that needs 4 dimensions"):
        compare_arrays(np.zeros((1, 2)), np.zeros((1, 2)), "segment")
    with pytest.raises(HiresvitError, match="the reference has 1 NaN"):
        compare_arrays(np.array([np.nan]), np.zeros(1))
    with pytest.raises(UsageError, match="no images"):
        report([], [])
    with pytest.raises(UsageError, match=r"\['y'\], the test \['z'\]"):
        compare(Table([1.0]), Table([1.0], name="z"), [{"i": np.array(0)}], "features")


def test_the_worst_image_counts() -> None:
    good, bad = np.array([1.0, 1.0]), np.array([1.0, 1.5])
    found = report([good, good, good], [good, bad, good])
    assert found.images == 3
    assert found.outputs[0].worst == compare_arrays(good, bad)


def test_segmentation_is_gated_on_the_worst_image_and_classification_on_the_mean() -> None:
    gate = Gate(min_sqnr_db=-math.inf, min_cosine=-1, min_agreement=0.7)
    right, wrong = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    found = report([right] * 4, [right] * 3 + [wrong], "classify")
    assert found.outputs[0].mean_agreement == 0.75
    assert check_gate(found, gate, "fp16") == []
    maps = [a.reshape(1, 2, 1, 1) for a in (right, wrong)]
    (failure,) = check_gate(report([maps[0]] * 4, [maps[0]] * 3 + [maps[1]], "segment"), gate, "fp16")
    assert "agreement 0," in failure


def test_a_near_tie_does_not_fail_a_classification() -> None:
    gate = Gate(min_sqnr_db=45, min_cosine=0.9999, min_agreement=0.99)
    reference, test = np.array([[1.0, 0.999, -1.0]]), np.array([[0.999, 1.0, -1.0]])
    found = report([reference], [test], "classify")
    assert found.outputs[0].worst.agreement == 0
    assert check_gate(found, gate, "fp16") == []
    pixel = report([reference.reshape(1, 3, 1, 1)], [test.reshape(1, 3, 1, 1)], "segment")
    assert len(check_gate(pixel, gate, "fp16")) == 1


def test_a_failed_gate_says_what_where_and_how_to_change_it() -> None:
    found = report([[3.0, 4.0]], [[3.0, 3.5]])
    assert check_gate(found, GATES["fp16"], "fp16") == [
        "fp16: output 'y' has sqnr_db 20, at least 38 is needed; --min-sqnr sets it",
        "fp16: output 'y' has cosine 0.99788, at least 0.9995 is needed; --min-cosine sets it",
    ]
    with pytest.raises(GateError, match=r"fp16: output 'y' has sqnr_db 20, .* sets it \(and 1 more\)$") as caught:
        enforce(found, GATES["fp16"], "fp16")
    assert caught.value.exit_code == 4
    enforce(found, replace(GATES["fp16"], min_sqnr_db=20 - 1e-9, min_cosine=0.9), "fp16")


def test_every_stage_has_a_gate_that_means_something() -> None:
    htp = {f"htp_{form}" for form in HTP_FORMS}
    plain = {"onnx", "simplified", "cpu", "fp16", "int8", "fp16 exact"}
    assert set(GATES) == plain | htp | {f"{stage} emulated" for stage in htp}
    for gate in GATES.values():
        noise = 10 ** (-gate.min_sqnr_db / 20)
        # White noise of that SQNR has cosine 1 / sqrt(1 + noise^2): the cosine gate must not bite first.
        assert gate.min_cosine < 1 / math.sqrt(1 + noise**2)
        assert 1.7 * noise < 1 - gate.min_agreement  # the near-ties of 150 classes, as simulated


finite = arrays(np.float32, (1, 3, 2, 2), elements=st.floats(-1e6, 1e6, width=32))


@settings(max_examples=50, deadline=None)
@given(finite, finite)
def test_measures_stay_in_their_ranges(a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    found = compare_arrays(a, b, "segment")
    back = compare_arrays(b, a, "segment")
    assert -1 - 1e-12 <= found.cosine <= 1
    assert found.max_abs == back.max_abs
    assert found.agreement is not None
    assert 0 <= found.agreement <= 1
    assert found.exact == np.array_equal(a, b)
    assert found.flip_margin is None or found.flip_margin >= 0


def test_importing_evaluation_loads_no_torch() -> None:
    script = "import sys, hiresvit.evaluation.parity, hiresvit.evaluation.latency; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
