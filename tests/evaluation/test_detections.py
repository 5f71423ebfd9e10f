"""Agreement of boxes: noise leaves it whole, and mistakes that a detector's graph can have do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import Array

from hiresvit.data.preprocess import Region
from hiresvit.evaluation.detections import boxes_agree, share_found
from hiresvit.evaluation.parity import GATES, check_gate, compare_runs
from hiresvit.runtime.boxes import find_boxes
from hiresvit.spec import AnchorSpec

ANCHORS = AnchorSpec(strides=(8, 16))
CLASSES = 5
Outputs = dict[str, Array]


def outputs(seed: int = 0, batch: int = 1) -> Outputs:
    generator = np.random.default_rng(seed)
    found = {}
    for kind, channels, mean, std in (("logits", CLASSES, -5.0, 1.0), ("deltas", 4, 0.0, 0.3)):
        for stride in ANCHORS.strides:
            shape = (batch, ANCHORS.per_cell * channels, 128 // stride, 128 // stride)
            found[f"{kind}_{stride}"] = generator.normal(mean, std, shape).astype(np.float32)
    return found


def noisy(of: Outputs, decibel: float) -> Outputs:
    generator = np.random.default_rng(9)
    level = 10 ** (-decibel / 20)
    return {
        name: (v + generator.normal(0, level * np.sqrt(np.mean(v.astype(np.float64) ** 2)), v.shape)).astype(np.float32)
        for name, v in of.items()
    }


def deltas(of: Outputs, order: list[int]) -> Outputs:
    """The channels of deltas in another order, of each anchor."""
    swapped = {}
    for name, values in of.items():
        swapped[name] = values
        if name.startswith("deltas"):
            four = values.reshape(len(values), -1, 4, *values.shape[2:])
            swapped[name] = four[:, :, order].reshape(values.shape)
    return swapped


def agreement(reference: Outputs, test: Outputs) -> float | None:
    return compare_runs(reference, test, "detect", ANCHORS).outputs[0].mean_agreement


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_of_a_gate_passes_it(seed: int) -> None:
    for stage, decibel in (("onnx", 90), ("fp16", 38)):  # that of integers, 20 dB, leaves a quarter: not gated
        found = agreement(outputs(seed), noisy(outputs(seed), decibel))
        assert found is not None
        assert found >= GATES[stage].min_agreement


def test_a_few_boxes_that_are_wrong_are_seen_where_the_sqnr_is_not() -> None:
    """One anchor's dx and dy swapped at one level: the classes, which come first, are exact."""
    one, other = outputs(), outputs()
    other["deltas_16"][:, [0, 1]] = other["deltas_16"][:, [1, 0]]
    assert compare_runs(one, other, "detect", ANCHORS).outputs[0].worst.exact
    found = agreement(one, other)
    assert found is not None
    assert 0.9 < found < GATES["onnx"].min_agreement


def test_swapped_deltas_miss_every_gate_of_boxes() -> None:
    for order in ([1, 0, 2, 3], [0, 1, 3, 2], [2, 3, 0, 1]):
        found = agreement(outputs(), deltas(outputs(), order))
        assert found is not None
        assert found < GATES["int8"].min_agreement
    missed = check_gate(compare_runs(outputs(), deltas(outputs(), [1, 0, 2, 3]), "detect", ANCHORS), GATES["onnx"], "x")
    assert any("agreement" in line for line in missed)
    assert any("deltas_8" in line for line in missed)  # the raw gates see it, too


def test_another_class_or_score_is_another_box() -> None:
    of = outputs()
    other = {n: np.roll(v, 1, 1) if n.startswith("logits") else v for n, v in of.items()}
    assert boxes_agree(of, other, ANCHORS) < 0.3
    certain = {n: v + np.float32(3) if n.startswith("logits") else v for n, v in of.items()}
    assert boxes_agree(of, certain, ANCHORS) < 0.3


def test_anchors_of_another_scale_are_other_boxes() -> None:
    region = Region(0, 0, 128, 128)
    boxes = find_boxes(outputs(), ANCHORS, (128, 128), region)
    assert share_found(boxes, outputs(), ANCHORS, (128, 128), region) == 1
    assert share_found(boxes, outputs(), replace(ANCHORS, base=5.0), (128, 128), region) < 0.3


def test_boxes_on_one_side_only() -> None:
    """Both ways: nothing found agrees with nothing, and with boxes it does not."""
    of = outputs()
    none = {n: v - np.float32(50) if n.startswith("logits") else v for n, v in of.items()}
    assert boxes_agree(none, none, ANCHORS) == 1
    assert boxes_agree(of, none, ANCHORS) == boxes_agree(none, of, ANCHORS) == 0


def test_the_worst_picture_of_a_batch() -> None:
    two, broken = outputs(batch=2), outputs(batch=2)
    for name in broken:
        broken[name][1] = np.roll(broken[name][1], 1, 0)
    assert boxes_agree(two, two, ANCHORS) == 1
    assert boxes_agree(two, broken, ANCHORS) < 0.3


def test_nan_is_no_box() -> None:
    broken = outputs()
    broken["deltas_8"][0, 0, 0, 0] = np.nan
    assert agreement(outputs(), broken) == 0
