from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from graphs import build
from onnx import ModelProto
from synthetic import BASELINE, Synthetic

from hiresvit.calibration.sensitivity import (
    NOISE,
    Group,
    Judgement,
    by_running,
    measure_sensitivity,
)
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.runtime.runner import Runner

LOSS = {"head": 0.4, "stem": 2.0, "stage.0": -0.1, "stage.1": 0.6}
MACS = {"head": 10, "stem": 30, "stage.0": 40, "stage.1": 20}


def network() -> Synthetic:
    return Synthetic(MACS, lambda modules: sum(LOSS[name] for name in modules))


def test_each_module_is_quantized_alone_and_the_most_sensitive_comes_first() -> None:
    whole = network()
    found = whole.sensitivity()
    assert whole.asked == [{name} for name in MACS]
    assert [row.module for row in found.modules] == ["stem", "stage.1", "head", "stage.0"]
    assert {row.module: row.drop for row in found.modules} == pytest.approx(LOSS)
    assert {row.module: row.metric for row in found.modules} == pytest.approx(
        {name: BASELINE.metric - loss for name, loss in LOSS.items()}
    )
    assert {row.module: row.share for row in found.modules} == pytest.approx(
        {name: macs / 100 for name, macs in MACS.items()}
    )
    assert {row.module: row.macs for row in found.modules} == MACS
    assert found.baseline == BASELINE


def test_drops_within_the_noise_are_ordered_by_sqnr() -> None:
    answers = {
        "a": Judgement(BASELINE.metric - 0.2 * NOISE, 50),
        "b": Judgement(BASELINE.metric + 0.4 * NOISE, 20),
        "c": Judgement(BASELINE.metric - 3 * NOISE, 55),
        "d": Judgement(BASELINE.metric, math.inf),
    }
    found = measure_sensitivity(
        [Group(name, 1) for name in answers],
        lambda modules: ModelProto(doc_string=min(modules)),
        lambda graph: answers[graph.doc_string],
        BASELINE,
    )
    assert [row.module for row in found.modules] == ["c", "b", "a", "d"]


def test_equal_losses_are_ordered_by_name() -> None:
    found = Synthetic({"c": 1, "a": 1, "b": 1}, lambda _: 1.0).sensitivity()
    assert [row.module for row in found.modules] == ["a", "b", "c"]


def test_json_is_plain_and_an_exact_module_has_no_sqnr() -> None:
    found = measure_sensitivity(
        [Group("a", 3)], lambda _: ModelProto(), lambda _: Judgement(84.5, math.inf), Judgement(85, math.inf)
    )
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == {
        "baseline": {"metric": 85, "sqnr_db": None},
        "modules": [{"module": "a", "macs": 3, "share": 1.0, "metric": 84.5, "drop": 0.5, "sqnr_db": None}],
    }


def test_progress_ends_at_one() -> None:
    steps: list[tuple[str, float | None]] = []
    whole = network()
    groups = [Group("stem", 1), Group("head", 1)]
    measure_sensitivity(groups, whole.quantize, whole.judge, BASELINE, lambda *step: steps.append(step))
    assert steps == [("sensitivity: stem", 0.0), ("sensitivity: head", 0.5), ("sensitivity", 1.0)]


def test_modules_without_arithmetic_have_no_share() -> None:
    found = Synthetic({"a": 0, "b": 0}, lambda _: 1.0).sensitivity()
    assert [row.share for row in found.modules] == [0, 0]


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([], "0 groups"),
        ([Group("a", 1), Group("b", 1), Group("a", 2)], r"given twice \['a'\]"),
        ([Group("a", 1), Group("b", -1)], "group 'b' has -1"),
    ],
)
def test_groups_that_make_no_sense_are_refused(groups: list[Group], words: str) -> None:
    whole = network()
    with pytest.raises(UsageError, match=words):
        measure_sensitivity(groups, whole.quantize, whole.judge, BASELINE)


@pytest.mark.parametrize(("metric", "sqnr_db"), [(math.nan, 40), (math.inf, 40), (80, math.nan)])
def test_a_judgement_is_a_number(metric: float, sqnr_db: float) -> None:
    with pytest.raises(HiresvitError, match="a finite metric is needed"):
        Judgement(metric, sqnr_db)


def test_a_graph_is_judged_by_running_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    graph = build("t (float[2] x) => (float[2] y) { y = Mul (x, k) }", {"k": np.float32(3)})
    runners: list[Runner] = []

    def score(runner: Runner) -> Judgement:
        runners.append(runner)
        assert len(list(tmp_path.iterdir())) == 1
        return Judgement(float(runner({"x": np.array([1, 2], np.float32)})["y"].sum()), 30)

    assert by_running(score, threads=1)(graph) == Judgement(9.0, 30)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="closed"):
        runners[0]({"x": np.zeros(2, np.float32)})
