"""Mistakes that leave a graph which runs: each is caught, on the nano with its trained weights, by what it answers.

Others are caught by what the graph is: a scale off by 2 in tests/calibration/test_audit.py, one product of an attention
quantized alone in test_qdq_engine.py beside it, a table of something else in tests/workflows/test_quantize.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from graphs import indexed
from onnx import ModelProto
from tiny import export_once, simplify_once

from hiresvit.calibration.calibrate import calibrate
from hiresvit.calibration.collect import RunOptions
from hiresvit.calibration.fallback import check_drop
from hiresvit.calibration.qdq import calibration_tensors, quantize
from hiresvit.calibration.sites import Site, find_sites
from hiresvit.calibration.table import CalibrationTable, graph_digest, require_match
from hiresvit.data.dataset import Kept
from hiresvit.data.pictures import Feeds, open_pictures
from hiresvit.data.scenes import Scenes
from hiresvit.errors import ArtefactError, GateError
from hiresvit.export.fp16 import to_fp16
from hiresvit.models.create import build_model, load_model_weights, model_spec
from hiresvit.models.fold import fold
from hiresvit.spec import ModelSpec, PreprocessSpec
from hiresvit.workflows.yardstick import METRICS, Yardstick, references

WEIGHTS = Path(__file__).parents[2] / "examples" / "hrvit_nano.safetensors"
LIMIT = 0.5  # points of mIoU, the --max-drop that the documents advise


@dataclass(frozen=True, eq=False)
class Nano:
    spec: ModelSpec
    simple: ModelProto
    half: ModelProto
    sites: list[Site]
    yardstick: Yardstick
    fp32: float


@cache
def nano() -> Nano:
    """At half the side that it was trained at: 75 % mIoU on these eight scenes."""
    spec = model_spec("hrvit_nano", imgsz=(128, 128))
    model = build_model(spec)
    load_model_weights(model, spec, WEIGHTS)
    simple, _ = simplify_once(export_once(fold(model), spec))
    feed = Feeds(open_pictures("scenes", spec.imgsz, 1), spec, "image")[0]
    scenes = Kept(Scenes(8, spec.imgsz))
    yardstick = Yardstick(spec, scenes, METRICS["segment"], references(simple, [feed], 1))
    fp32 = yardstick.judge(1)(simple).metric
    assert fp32 > 70
    return Nano(spec, simple, to_fp16(simple)[0], find_sites(indexed(simple)), yardstick, fp32)


def calibrated(preprocess: PreprocessSpec) -> CalibrationTable:
    """Ranges of pictures that were prepared like this."""
    n = nano()
    feeds = Feeds(open_pictures("scenes", n.spec.imgsz, 6), replace(n.spec, preprocess=preprocess), "image")
    tensors = calibration_tensors(n.sites)
    return calibrate(
        n.simple,
        tensors,
        feeds,
        method="mse",
        data_digest="six scenes",
        preprocess=preprocess,
        run=RunOptions(threads=1),
    )


def miou(table: CalibrationTable, factor: float = 1.0) -> float:
    """Of the INT8 graph with the table's ranges times ``factor``."""
    n = nano()
    graph, _ = quantize(n.half, n.sites, {name: factor * value for name, value in table.amax.items()})
    return n.yardstick.judge(1)(graph).metric


def test_without_a_mistake() -> None:
    """INT8 costs 0.01 points here."""
    check_drop(miou(calibrated(nano().spec.preprocess)), nano().fp32, LIMIT, "mIoU")


def test_scales_off_by_two() -> None:
    """Half the range cuts off the largest values: 1.1 points."""
    wrong = miou(calibrated(nano().spec.preprocess), 0.5)
    with pytest.raises(GateError, match="points below"):
        check_drop(wrong, nano().fp32, LIMIT, "mIoU")


def test_pictures_that_were_not_normalised() -> None:
    """From 0 to 1 and not from -2 to 2.6: 2.3 points, and the table says so before anything is made from it."""
    wrong = PreprocessSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    table = calibrated(wrong)
    with pytest.raises(GateError, match="points below"):
        check_drop(miou(table), nano().fp32, LIMIT, "mIoU")
    with pytest.raises(ArtefactError, match=r"preprocessing .* \(mean, std\)"):
        require_match(table, graph=graph_digest(nano().simple), data=None, preprocess=nano().spec.preprocess)
