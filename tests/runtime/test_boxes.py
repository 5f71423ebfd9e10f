"""Boxes from raw outputs: against a second implementation that takes one number at a time, and mmdet's own examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from graphs import Array
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from hiresvit.data.preprocess import Region
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.runtime.boxes import anchor_boxes, decode_boxes, find_boxes, keep_best
from hiresvit.spec import AnchorSpec

SMALL = AnchorSpec(strides=(8, 16), scales=(1.0, 1.3), ratios=(0.5, 1.0, 2.0), base=2.0, per_level=60, max_boxes=25)
IMGSZ, CLASSES = (40, 64), 3
WHOLE = Region(0, 0, *IMGSZ)


def outputs_of(anchors: AnchorSpec, seed: int = 0, shift: float = -3.0) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    found = {}
    for stride in anchors.strides:
        size = tuple(-(-side // stride) for side in IMGSZ)
        logits = generator.normal(shift, 1.5, (1, anchors.per_cell * CLASSES, *size))
        found[f"logits_{stride}"] = logits.astype(np.float32)
        deltas = generator.normal(0, 0.5, (1, anchors.per_cell * 4, *size))
        found[f"deltas_{stride}"] = deltas.astype(np.float32)
    return found


Found = tuple[float, int, tuple[float, float, float, float]]


def one_by_one(outputs: dict[str, Array], anchors: AnchorSpec, size: tuple[int, int], region: Region) -> list[Found]:
    """The same in plain Python: loops over cells, anchors, classes, and over all pairs of boxes."""
    candidates: list[Found] = []
    for stride in anchors.strides:
        level: list[Found] = []
        logits, deltas = outputs[f"logits_{stride}"][0], outputs[f"deltas_{stride}"][0]
        for y in range(logits.shape[1]):
            for x in range(logits.shape[2]):
                for a in range(anchors.per_cell):
                    ratio, scale = divmod(a, len(anchors.scales))
                    side = anchors.base * stride * anchors.scales[scale]
                    wide, high = side / math.sqrt(anchors.ratios[ratio]), side * math.sqrt(anchors.ratios[ratio])
                    dx, dy, dw, dh = (
                        float(deltas[4 * a + i, y, x]) * anchors.stds[i] + anchors.means[i] for i in range(4)
                    )
                    most = -math.log(anchors.size_clamp)
                    middle = (x * stride + dx * wide, y * stride + dy * high)
                    wide *= math.exp(min(max(dw, -most), most))
                    high *= math.exp(min(max(dh, -most), most))
                    corners = (middle[0] - wide / 2, middle[1] - high / 2, middle[0] + wide / 2, middle[1] + high / 2)
                    for k in range(CLASSES):
                        score = 1 / (1 + math.exp(-float(logits[a * CLASSES + k, y, x])))
                        if score > anchors.score_threshold:
                            level.append((score, k, corners))
        candidates += sorted(level, key=lambda one: -one[0])[: anchors.per_level]
    seen: list[Found] = []
    for score, k, (left, top, right, bottom) in candidates:
        xs = [min(max(x - region.left, 0), region.width) * size[1] / region.width for x in (left, right)]
        ys = [min(max(y - region.top, 0), region.height) * size[0] / region.height for y in (top, bottom)]
        if xs[0] < xs[1] and ys[0] < ys[1]:
            seen.append((score, k, (xs[0], ys[0], xs[1], ys[1])))
    kept: list[Found] = []
    for one in sorted(seen, key=lambda one: -one[0]):
        if not any(one[1] == other[1] and iou(one[2], other[2]) > anchors.iou_threshold for other in kept):
            kept.append(one)
    return kept[: anchors.max_boxes]


def iou(a: Any, b: Any) -> float:
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(across, 0) * max(down, 0)
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


@pytest.mark.parametrize(
    ("anchors", "size", "region"),
    [
        (SMALL, IMGSZ, WHOLE),
        (SMALL, (333, 201), WHOLE),
        (SMALL, (100, 90), Region(4, 10, 30, 27)),
        (AnchorSpec(strides=(8, 16), means=(0.1, 0, 0, 0.2), stds=(0.1, 0.1, 0.2, 0.2)), IMGSZ, WHOLE),
        (AnchorSpec(strides=(8,), score_threshold=0.4, iou_threshold=0.2, max_boxes=500), IMGSZ, WHOLE),
        (AnchorSpec(strides=(16,), stds=(1, 1, 40, 40), size_clamp=0.1), IMGSZ, WHOLE),
    ],
    ids=["plain", "stretched", "letterbox", "means", "thresholds", "clamped"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_one_number_at_a_time(anchors: AnchorSpec, size: tuple[int, int], region: Region, seed: int) -> None:
    outputs = outputs_of(anchors, seed)
    expected = one_by_one(outputs, anchors, size, region)
    found = find_boxes(outputs, anchors, size, region)
    assert len(expected) > 10
    assert found.classes.tolist() == [k for _, k, _ in expected]
    # float64 stored in float32
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], rtol=1e-6)
    np.testing.assert_allclose(found.boxes, [box for _, _, box in expected], rtol=1e-6, atol=1e-4)
    assert [values.dtype.name for values in (found.boxes, found.scores, found.classes)] == [
        "float32",
        "float32",
        "int32",
    ]


def test_the_example_of_mmdet_s_coder() -> None:
    """The numbers in the docstring of mmdet 3.3's ``delta2bbox``, which cuts at 32x32."""
    rois = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [5, 5, 5, 5]], float)
    deltas = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 2, -1], [0.7, -1.9, -0.5, 0.3]])
    boxes = np.clip(decode_boxes(rois, deltas, AnchorSpec()), 0, 32)
    expected = np.array([[0, 0, 1, 1], [0.1409, 0.1409, 2.8591, 2.8591], [0, 0.3161, 4.1945, 0.6839], [5, 5, 5, 5]])
    np.testing.assert_allclose(boxes, expected, atol=5e-5)


def test_the_example_of_mmdet_s_anchors() -> None:
    """The numbers in the docstring of mmdet 3.3's ``AnchorGenerator``: stride 16, one square anchor of side 9."""
    boxes = anchor_boxes(16, (2, 2), AnchorSpec(scales=(1.0,), ratios=(1.0,), base=9 / 16)).reshape(-1, 4)
    expected = [[-4.5, -4.5, 4.5, 4.5], [11.5, -4.5, 20.5, 4.5], [-4.5, 11.5, 4.5, 20.5], [11.5, 11.5, 20.5, 20.5]]
    np.testing.assert_allclose(boxes, expected)


def test_retinanet_s_anchors() -> None:
    """Lin et al. 2017, section 4: areas of 32 to 512 squared at levels 3 to 7, in three sizes and three ratios."""
    for level, stride in enumerate(AnchorSpec().strides):
        boxes = anchor_boxes(stride, (1, 1), AnchorSpec())[0, 0]
        wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        areas = np.tile([(32 * 2 ** (level + octave / 3)) ** 2 for octave in range(3)], 3)
        np.testing.assert_allclose(wide * high, areas)
        np.testing.assert_allclose(high / wide, np.repeat([0.5, 1, 2], 3))


def test_ties_go_by_place() -> None:
    """The finer level first, then row by row, the anchor, the class."""
    anchors = AnchorSpec(strides=(8, 16), scales=(1.0,), ratios=(1.0, 2.0), base=0.5, iou_threshold=0.9)
    outputs = {name: np.zeros_like(values) for name, values in outputs_of(anchors).items()}
    found = find_boxes(outputs, anchors, IMGSZ, WHOLE)
    assert set(found.scores.tolist()) == {0.5}
    assert found.classes[:12].tolist() == [0, 1, 2] * 4
    # The first cell's anchors are cut by the corner: 4 wide of ratio 1, 4 times sqrt(2) high of ratio 2.
    np.testing.assert_allclose(found.boxes[0], [0, 0, 2, 2])
    np.testing.assert_allclose(found.boxes[3], [0, 0, 2 / 2**0.5, 2 * 2**0.5], rtol=1e-6)
    np.testing.assert_allclose(found.boxes[6], [6, 0, 10, 2])
    assert len(found.scores) == 100


def test_nothing_is_an_answer() -> None:
    found = find_boxes(outputs_of(SMALL, shift=-40.0), SMALL, IMGSZ, WHOLE)
    assert (found.boxes.shape, found.scores.shape, found.classes.shape) == ((0, 4), (0,), (0,))


def test_the_threshold_itself_is_not_above_it() -> None:
    outputs = outputs_of(SMALL, shift=-40.0)
    outputs["logits_8"][0, 1, 2, 3] = 0.0
    half = AnchorSpec(**{**vars(SMALL), "score_threshold": 0.5})
    assert not len(find_boxes(outputs, half, IMGSZ, WHOLE).scores)
    outputs["logits_8"][0, 1, 2, 3] = 1e-6
    assert find_boxes(outputs, half, IMGSZ, WHOLE).classes.tolist() == [1]


def test_an_overlap_of_the_threshold_stays() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 1], [0, 0, 2, 1.01], [0, 0, 2, 1.01]], float)
    assert keep_best(boxes, np.array([0, 0, 0, 1]), 0.5, 9).tolist() == [0, 1, 3]
    assert keep_best(boxes, np.array([0, 0, 0, 1]), 0.5, 2).tolist() == [0, 1]


@pytest.mark.parametrize("seed", range(8))
def test_nms_of_onnx_runtime(seed: int) -> None:
    """ONNX's NonMaxSuppression, class by class: another's arithmetic, in float32; random boxes do not tie."""
    generator = np.random.default_rng(seed)
    corner, side = generator.uniform(0, 90, (300, 2)), generator.uniform(5, 40, (300, 2))
    boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    classes, scores = generator.integers(0, 3, 300), np.sort(generator.uniform(0, 1, 300))[::-1].astype(np.float32)
    threshold = float(generator.uniform(0.1, 0.7))
    by_class = np.where(np.arange(3)[:, None] == classes, scores, -1)[None].astype(np.float32)
    names = ("boxes", "scores", "most", "iou", "least")
    node = helper.make_node("NonMaxSuppression", names, ["chosen"])
    kinds = {"boxes": (TensorProto.FLOAT, [1, 300, 4]), "scores": (TensorProto.FLOAT, [1, 3, 300])}
    constants = (np.array([300]), np.array([threshold], np.float32), np.array([0.0], np.float32))
    graph = helper.make_graph(
        [node],
        "nms",
        [helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()],
        [helper.make_tensor_value_info("chosen", TensorProto.INT64, ["n", 3])],
        [numpy_helper.from_array(value, name) for name, value in zip(names[2:], constants, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [chosen] = session.run(None, {"boxes": boxes[None], "scores": by_class})
    kept = keep_best(boxes.astype(np.float64), classes, threshold, 300)
    assert 10 < len(kept) < 290
    assert kept.tolist() == sorted(chosen[:, 2].tolist())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["logits_8", "deltas_16"])
def test_nan_and_inf_are_no_boxes(name: str, value: float) -> None:
    outputs = outputs_of(SMALL)
    outputs[name][0, 0, 1, 1] = value
    with pytest.raises(HiresvitError, match=rf"1 of \d+ values of {name} are NaN or Inf; compare with fp32"):
        find_boxes(outputs, SMALL, IMGSZ, WHOLE)


def test_large_logits_have_scores() -> None:
    outputs = outputs_of(SMALL, shift=-40.0)
    outputs["logits_8"][0, 1, 2, 3] = 1e4
    assert find_boxes(outputs, SMALL, IMGSZ, WHOLE).scores.tolist() == [1.0]


def test_outputs_of_another_graph() -> None:
    outputs = outputs_of(SMALL)
    with pytest.raises(UsageError, match="no output logits_32 among logits_8, deltas_8"):
        find_boxes(outputs, AnchorSpec(**{**vars(SMALL), "strides": (8, 32)}), IMGSZ, WHOLE)
    with pytest.raises(UsageError, match="9 anchors a cell need"):
        find_boxes(outputs, AnchorSpec(strides=(8, 16)), IMGSZ, WHOLE)
    two = {name: np.concatenate([values, values]) for name, values in outputs.items()}
    with pytest.raises(UsageError, match="boxes are of one picture"):
        find_boxes(two, SMALL, IMGSZ, WHOLE)
