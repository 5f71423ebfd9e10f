"""The FP16 graph that really rounds: held to ONNX's reference evaluator, to PyTorch's half precision, and to numpy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import Array, build, content, noise
from onnx import ModelProto, TensorProto
from onnx.reference import ReferenceEvaluator
from tiny import build_tiny

from hiresvit.bundle.folder import read_bundle
from hiresvit.data.preprocess import preprocess
from hiresvit.data.scenes import sample_images
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.evaluation.exact import exact_graph
from hiresvit.evaluation.headroom import ExactHalf, open_exact
from hiresvit.evaluation.parity import compare_arrays
from hiresvit.export.deployed import Deployed
from hiresvit.graph.file import load_graph
from hiresvit.models.create import enliven
from hiresvit.models.fold import fold
from hiresvit.runtime.onnxruntime_runner import open_session

X = noise(3, 5)


def exact(model: ModelProto) -> ExactHalf:
    runner = open_exact(model, 1)
    assert runner is not None
    return runner


def rounded(model: ModelProto, **feeds: Array) -> list[Array]:
    return list(exact(model)(feeds).values())


# Each result is rounded once, and numpy rounds it so as well.
CHAIN = """g (float16[3,5] x) => (float16[3,5] y) {
  a = Mul(x, c) b = Add(a, x) d = Div(b, c) e = Sqrt(d) f = Where(on, d, e)
  h = Sub(f, a) t = Transpose<perm=[1,0]>(h) u = Reshape(t, shape) y = Mul(u, u)
}"""


def chain() -> ModelProto:
    on = np.arange(15).reshape(3, 5) % 2 == 0
    return build(CHAIN, {"c": np.float16(1.234), "on": on, "shape": np.array([3, 5])})


def test_every_result_is_rounded_as_onnx_says() -> None:
    x = np.abs(X)
    [expected] = list(ReferenceEvaluator(chain()).run(None, {"x": x.astype(np.float16)}))
    [found] = rounded(chain(), x=x)
    np.testing.assert_array_equal(found.astype(np.float16), expected)
    assert found.dtype == np.float32
    plain = open_session(content(chain()), threads=1).run(None, {"x": x.astype(np.float16)})[0]
    assert not np.array_equal(plain, expected), "if ONNX Runtime rounds everywhere this module is not needed"


def test_what_fp16_cannot_hold_is_infinite_or_nothing_from_there_on() -> None:
    text = "g (float16[4] x) => (float16[4] y) { a = Mul(x, x) y = Mul(a, c) }"
    [found] = rounded(build(text, {"c": np.float16(2**-10)}), x=np.array([300, 255.875, 1e-4, -3], np.float32))
    np.testing.assert_array_equal(found, np.array([np.inf, 65472 / 1024, 0, 9 / 1024], np.float32))


def test_a_tiny_network_has_the_decibels_of_pytorchs_half_precision(tiny_bundle: Path) -> None:
    spec = read_bundle(tiny_bundle).manifest.spec
    model = build_tiny(spec).eval()
    enliven(model, spec)
    half = load_graph(tiny_bundle / "fp16.onnx", weights=True)
    image = preprocess(sample_images(1, spec.imgsz)[0], spec.preprocess, spec.imgsz)
    with torch.no_grad():
        expected = Deployed(model, spec)(torch.from_numpy(image)).numpy()
        deployed = Deployed(fold(model), spec).half()
        pytorch = compare_arrays(expected, deployed(torch.from_numpy(image).half()).float().numpy()).sqnr_db
    ours = compare_arrays(expected, exact(half)({"image": image})["logits"]).sqnr_db
    [plain] = open_session(content(half), threads=1).run(None, {"image": image})
    assert ours == pytest.approx(pytorch, abs=1)  # norms and softmaxes in FP32 here, in FP16 by PyTorch's own kernels
    assert ours < compare_arrays(expected, plain).sqnr_db - 1, "ONNX Runtime keeps more than FP16 has"


def test_the_given_graph_stays_and_nothing_of_ours_is_in_fp16_but_the_casts() -> None:
    model = chain()
    before = content(model)
    made = exact_graph(model)
    assert made is not None
    assert content(model) == before
    assert all(tensor.data_type != TensorProto.FLOAT16 for tensor in made.model.graph.initializer)
    assert [tensor.name for tensor, _ in made.probes] == ["x", "a", "b", "d", "e", "f", "h", "y"], "no mere moves"


def test_a_graph_without_fp16_is_none() -> None:
    assert open_exact(build("g (float[3] x) => (float[3] y) { y = Relu(x) }")) is None


BODIES = {
    "If": """g (float16[4] x, bool on) => (float16[4] y) {
      y = If(on) <then_branch = t () => (float16[4] a) { q = Mul(x, x) a = Relu(q) },
                  else_branch = e () => (float16[4] b) { b = Neg(x) }>
    }""",
    "If in a Loop": """g (float16[4] x, bool on, int64 n) => (float16[4] y) {
      y = Loop(n, on, x) <body = t (int64 i, bool k, float16[4] a) => (bool l, float16[4] b) {
        l = Identity(k)
        b = If(k) <then_branch = u () => (float16[4] c) { q = Mul(a, a) c = Relu(q) },
                   else_branch = e () => (float16[4] d) { d = Neg(a) }>
      }>
    }""",
    "Scan": """g (float16[4] x, bool on, float16[2,4] rows) => (float16[4] y, float16[2,4] z) {
      y, z = Scan<num_scan_inputs = 1, scan_output_axes = [0], body =
        t (float16[4] a, float16[4] row) => (float16[4] b, float16[4] c) {
        q = Mul(a, row) b = Abs(q) c = Identity(q) }>(x, rows)
    }""",
    "a function": """g (float16[4] x, bool on) => (float16[4] y) { y = own.square(x) }
    <domain: "own", opset_import: ["" : 20]>
    square (v) => (r) { q = Mul(v, v) r = Relu(q) }""",
}


@pytest.mark.parametrize("where", list(BODIES))
def test_what_is_inside_a_body_is_seen(where: str) -> None:
    text = BODIES[where]
    model = build(text)
    if where == "a function":
        model.opset_import.add(domain="own", version=1)
    others: dict[str, Array] = {"on": np.array(True), "n": np.array(2), "rows": np.full((2, 4), 17, np.float32)}
    feeds = {value.name: others[value.name] for value in model.graph.input if value.name != "x"}
    failures: list[str] = []
    for size in (5, 300):
        runner = exact(model)
        runner(feeds | {"x": np.array([size, 1, -2, 0], np.float32)})
        failures = runner.found.failures("g")
        assert bool(failures) == (size == 300)
    first = "q__1" if where == "a function" else "q"  # the inliner numbers them
    assert re.match(rf"g: '{first}' (reaches (90000|86700)|becomes NaN or infinite) on image 0", failures[0])


def test_a_branch_that_is_not_taken_counts_for_nothing() -> None:
    runner = exact(build(BODIES["If"]))
    runner({"on": np.array(False), "x": np.full(4, 300, np.float32)})
    assert runner.found.failures("g") == []
    assert runner.found.to_json()["headroom"]["max_abs"] == 300


def test_types_of_operators_that_onnx_does_not_know_are_asked_of_the_runtime() -> None:
    text = "g (float16[1,4] x) => (float16[1,4] y) { a = com.microsoft.FusedMatMul<alpha=2.0>(x, w) y = Relu(a) }"
    model = build(text, {"w": np.eye(4, dtype=np.float16) * np.float16(100)})
    model.opset_import.add(domain="com.microsoft", version=1)
    runner = exact(model)
    runner({"x": np.full((1, 4), 400, np.float32)})
    assert "'a' reaches 80000" in runner.found.failures("g")[0]


def test_what_cannot_be_run_is_one_line() -> None:
    model = build("g (float16[4] x) => (float16[4] y) { a = own.Thing(x) y = Relu(a) }")
    model.opset_import.add(domain="own", version=1)
    with pytest.raises(HiresvitError, match="the types of the graph cannot be had from ONNX Runtime") as caught:
        open_exact(model)
    assert "\n" not in str(caught.value)
    runner = exact(chain())
    with pytest.raises(UsageError, match="input 'x' is float64"):
        runner({"x": np.zeros((3, 5))})
    runner.close()
    with pytest.raises(UsageError, match="closed"):
        runner({"x": X})
