"""From a graph and images to a table: each method against whole arrays, and what is no calibration set."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import environment
from graphs import Array, build
from onnx import ModelProto
from tiny import tiny_simplified, tiny_spec

from hiresvit.calibration.calibrate import calibrate
from hiresvit.calibration.collect import RunOptions
from hiresvit.calibration.observers import BINS, METHODS, Method, amax_of
from hiresvit.calibration.table import (
    CalibrationTable,
    graph_digest,
    load_table,
    preprocess_json,
    require_match,
)
from hiresvit.data.preprocess import preprocess
from hiresvit.data.scenes import sample_images
from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.export.onnx import export_onnx
from hiresvit.export.simplify import simplify
from hiresvit.models.create import create_model, enliven, model_spec
from hiresvit.models.fold import fold
from hiresvit.spec import Feeds, PreprocessSpec

# Exact on small multiples of 1/8, so that whole arrays in numpy are the same to the bit.
GRAPH = """g (float[1,3,64,64] image) => (float[1,3,64,64] y, float[1,3,64,64] none) {
  relu = Relu(image)
  twice = Mul(relu, two)
  none = Sub(twice, twice)
  y = Neg(twice)
}"""
TENSORS = ["image", "relu", "none", "twice"]
SPEC = PreprocessSpec()


def graph() -> ModelProto:
    return build(GRAPH, {"two": np.float32(2)})


def pictures(count: int = 6) -> list[dict[str, Array]]:
    """Mostly small values, and few large ones: each method chooses another range."""
    rng = np.random.default_rng(5)
    return [
        {"image": np.asarray(np.round(rng.laplace(0, 4, (1, 3, 64, 64)) * 8) / 8, np.float32)} for _ in range(count)
    ]


def calibrated(feeds: Feeds | None = None, method: Method = "entropy", **options: Any) -> CalibrationTable:
    run = RunOptions(threads=1, state=options.pop("state", None))
    given = {"data_digest": "d" * 64, "preprocess": SPEC, "run": run, **options}
    model, tensors = given.pop("model", None) or graph(), given.pop("tensors", TENSORS)
    return calibrate(model, tensors, pictures() if feeds is None else feeds, method=method, **given)


@pytest.mark.parametrize("method", METHODS)
def test_a_table_holds_what_the_observer_says_about_whole_arrays(method: Method) -> None:
    table = calibrated(method=method)
    image = np.concatenate([feed["image"].ravel() for feed in pictures()])
    relu = np.maximum(image, 0)
    for name, values in {"image": image, "relu": relu, "twice": 2 * relu}.items():
        amax = float(np.abs(values).max())
        counts = np.histogram(np.abs(values).astype(np.float64), BINS, (0, amax))[0]
        assert table.amax[name] == amax_of(counts, amax, method)
    assert list(table.amax) == TENSORS
    assert (table.dead, table.amax["none"]) == (("none",), 1.0)


def test_the_methods_differ() -> None:
    chosen = {method: calibrated(method=method).amax["image"] for method in METHODS}
    assert len(set(chosen.values())) == len(METHODS)
    assert max(chosen.values()) == chosen["minmax"]


def test_a_table_says_what_it_was_made_from(tmp_path: Path) -> None:
    table = calibrated()
    assert (table.method, table.images, table.graph) == ("entropy", 6, graph_digest(graph()))
    assert (table.data, table.preprocess) == ("d" * 64, preprocess_json(SPEC))
    assert set(table.tools) == {"hiresvit", "numpy", "onnx", "onnxruntime"}
    table.save(tmp_path / "table.json")
    read = load_table(tmp_path / "table.json")
    assert read == table
    require_match(read, graph=graph_digest(graph()), data="d" * 64, preprocess=SPEC)
    with pytest.raises(ArtefactError, match=r"preprocessing .* \(mean\); calibrate again"):
        require_match(read, graph=graph_digest(graph()), data=None, preprocess=PreprocessSpec(mean=(0, 0, 0)))
    other = build(GRAPH, {"two": np.float32(4)})
    with pytest.raises(ArtefactError, match=f"graph {table.graph[:12]} and not {graph_digest(other)[:12]};"):
        require_match(read, graph=graph_digest(other), data=None, preprocess=SPEC)


class Counted(Sequence[Mapping[str, Array]]):
    """Feeds that know how often they were read, and stop at one of the readings."""

    def __init__(self, feeds: Sequence[Mapping[str, Array]], stop: int | None = None) -> None:
        self.feeds, self.stop, self.reads = feeds, stop, 0

    def __len__(self) -> int:
        return len(self.feeds)

    def __getitem__(self, index: int) -> Mapping[str, Array]:  # type: ignore[override]
        self.reads += 1
        if self.reads == self.stop:
            raise KeyboardInterrupt
        return self.feeds[index]


@pytest.mark.parametrize(("method", "passes"), [("minmax", 1), ("percentile", 2), ("entropy", 2), ("mse", 2)])
def test_an_image_is_read_once_for_each_pass(method: Method, passes: int) -> None:
    feeds = Counted(pictures())
    calibrated(feeds, method)
    assert feeds.reads == 6 * passes + 1  # the first one is looked at, whether it is of one colour


def test_an_interrupted_calibration_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for stop in (5, 8):  # in the first pass, and in the second
        with pytest.raises(KeyboardInterrupt):
            calibrated(Counted(pictures(), stop), state=state)
        assert state.exists()
    rest = Counted(pictures())
    assert calibrated(rest, state=state) == calibrated()
    # One look at each start. 3 images, then 6 more, were done: 3 are left of the ranges and 3 of 6 histograms.
    assert rest.reads == 1 + 12 - 9
    assert not state.exists()


def test_progress_under_another_preprocessing_is_not_used(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        calibrated(Counted(pictures(), 8), state=state)
    feeds = Counted(pictures())
    calibrated(feeds, state=state, preprocess=PreprocessSpec(mean=(0, 0, 0)))
    assert feeds.reads == 1 + 12


def black(value: float = -2.0) -> dict[str, Array]:
    """One colour, which normalisation makes three different numbers of."""
    shade = np.array([value, value + 0.125, value + 0.25], np.float32).reshape(1, 3, 1, 1)
    return {"image": np.broadcast_to(shade, (1, 3, 64, 64)).copy()}


def test_what_is_no_calibration_set_is_refused() -> None:
    for few in (0, 1):
        with pytest.raises(UsageError, match=rf"{few} calibration image\(s\): .* at least 2"):
            calibrated(pictures(few))
    for feeds in ([black()] * 3, [black(shade / 8) for shade in range(8)]):
        with pytest.raises(HiresvitError, match=f"all {len(feeds)} calibration images are of one colour") as caught:
            calibrated(feeds)
        assert caught.value.exit_code == 1
        assert "\n" not in str(caught.value)
    assert calibrated([black(), black(), *pictures(1)]).images == 3


def test_what_an_image_is_filled_up_with_is_not_its_colour() -> None:
    """Nor are the zeros in a picture of black and white, where the mean is 0."""
    filled, lines = black(), black()
    filled["image"][..., 40:, :] = 0
    lines["image"][..., ::5] = 0
    with pytest.raises(HiresvitError, match="all 2 calibration images are of one colour"):
        calibrated([filled, filled])
    assert calibrated([filled, lines]).images == 2


def test_an_unknown_method_is_refused_before_anything_is_read() -> None:
    feeds = Counted(pictures())
    with pytest.raises(UsageError, match="method 'max': choose one of minmax, percentile, entropy, mse"):
        calibrated(feeds, "max")  # type: ignore[arg-type]
    assert feeds.reads == 0


def test_a_graph_in_which_everything_is_dead_is_refused() -> None:
    with pytest.raises(HiresvitError, match="all 1 tensors are 0 on every image, 'none' first"):
        calibrated(tensors=["none"])


def layers_of(model: ModelProto) -> list[str]:
    """The first input of each convolution and of each linear layer."""
    weights = {tensor.name for tensor in model.graph.initializer}
    readers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    return list(dict.fromkeys(node.input[0] for node in readers if node.input[1] in weights))


def test_a_network_is_calibrated_in_every_way() -> None:
    spec = tiny_spec()
    model = tiny_simplified(spec)
    feeds = [{"image": preprocess(image, spec.preprocess, spec.imgsz)} for image in sample_images(2, spec.imgsz)]
    tables = {method: calibrated(feeds, method, model=model, tensors=layers_of(model)) for method in METHODS}
    widest = tables["minmax"].amax
    for method, table in tables.items():
        assert table.dead == ()
        assert list(table.amax) == layers_of(model)
        ratios = np.array([table.amax[name] / widest[name] for name in widest])
        assert (ratios > 0).all()
        assert (ratios <= 1).all()
        assert (ratios < 1).any() == (method != "minmax")
    # A few thousand values of each tensor: nothing that clips half of the range can be right for most of them.
    assert np.median([tables["mse"].amax[name] / widest[name] for name in widest]) > 0.5


PROGRAM = """
import json, sys, onnx
from hiresvit.calibration.calibrate import calibrate
from hiresvit.calibration.collect import RunOptions
from hiresvit.data.scenes import sample_image
from hiresvit.process import peak_rss_bytes
from hiresvit.data.preprocess import preprocess
from hiresvit.spec import PreprocessSpec
path, count, tensors = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
class Feeds:
    def __len__(self):
        return count
    def __getitem__(self, index):
        return {"image": preprocess(sample_image(index, 512, 1024), PreprocessSpec(), (512, 1024))}
options = {"data_digest": "d", "preprocess": PreprocessSpec(), "run": RunOptions(threads=1)}
calibrate(onnx.load(path), tensors, Feeds(), method="entropy", **options)
print(peak_rss_bytes() // 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_hrvit_b1_at_512x1024_stays_below_3_gib(tmp_path: Path) -> None:
    spec = model_spec("hrvit_b1", "segment", (512, 1024))
    model = create_model("hrvit_b1", imgsz=spec.imgsz)
    enliven(model, spec)
    simple, _ = simplify(export_onnx(fold(model), spec))
    onnx.save(simple, tmp_path / "b1.onnx")
    peaks = []
    for count in (2, 5):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "b1.onnx"), str(count)]
        command.append(str(layers_of(simple)).replace("'", '"'))
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    # MiB of the whole process. 960 to 1040 were measured; 3 GiB is what the project promises.
    assert max(peaks) < 1.5 * 1024
    # Memory does not grow with the images, so 5 stand for 64: equal runs differ by up to 8 % (960 to 1040 MiB), while
    # one image's tensors are 968 MiB. test_collect.py holds smaller leaks.
    assert peaks[1] < 1.2 * peaks[0]
