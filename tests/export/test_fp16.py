from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hiresvit.device.tensorrt_api import INSTALL_HINT, installed
from hiresvit.engine.build import BuildSettings, build_engine
from hiresvit.engine.profiles import parse_shapes
from hiresvit.errors import ArtefactError, HiresvitError, IllegalGraphError, UsageError
from hiresvit.export.fp16 import ValueLoss, to_fp16
from hiresvit.graph.operators import ISLANDS
from hiresvit.graph.precision import LOWEST_KEY
from hiresvit.process import run_child

FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
Io = Literal["fp32", "fp16"]
Array = NDArray[Any]

# One block as the models have them: `zero` is a bias of both convolutions and of both norms.
BLOCK = """
block (float[N,32,8,8] image) => (float[N,32,16,16] map) {
  [stem] c = Conv<kernel_shape=[1,1]>(image, w_stem, zero)
  [act] a = HardSwish(c)
  [dw] d = Conv<group=32, kernel_shape=[3,3], pads=[1,1,1,1]>(a, w_dw, zero)
  [skip] r = Add(d, c)
  [flat] f = Reshape(r, to_tokens)      [tokens] t = Transpose<perm=[0,2,1]>(f)
  [norm1] n = LayerNormalization<axis=-1>(t, gamma, zero)
  [q] q = MatMul(n, w_q)                [scale] qs = Mul(q, quarter)
  [q_split] q4 = Reshape(qs, to_heads)  [q_heads] qh = Transpose<perm=[0,2,1,3]>(q4)
  [k] k = MatMul(n, w_k)
  [k_split] k4 = Reshape(k, to_heads)   [k_heads] kh = Transpose<perm=[0,2,3,1]>(k4)
  [v] v = MatMul(n, w_v)
  [v_split] v4 = Reshape(v, to_heads)   [v_heads] vh = Transpose<perm=[0,2,1,3]>(v4)
  [scores] s = MatMul(qh, kh)
  [softmax] p = Softmax<axis=-1>(s)
  [mix] oh = MatMul(p, vh)
  [o_heads] o4 = Transpose<perm=[0,2,1,3]>(oh)   [merge] o3 = Reshape(o4, to_joined)
  [proj] o = MatMul(o3, w_o)            [attn] t1 = Add(t, o)
  [norm2] n2 = LayerNormalization<axis=-1>(t1, gamma, zero)
  [fc1] h = MatMul(n2, w_1)             [root] hr = Div(h, sqrt2)
  [erf] he = Erf(hr)                    [one] one = Constant<value_float=1.0>()
  [plus] hp = Add(he, one)              [times] hm = Mul(h, hp)
  [fc2] h2 = MatMul(hm, w_2)            [mlp] t2 = Add(t1, h2)
  [back] b = Transpose<perm=[0,2,1]>(t2)         [unflat] m = Reshape(b, to_map)
  [up] map = Resize<mode="linear">(m, , twice)
}"""


def block_weights() -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def weight(fan_in: int, *shape: int) -> Array:
        return np.asarray(rng.standard_normal(shape) / np.sqrt(fan_in), np.float32)

    weights: dict[str, Any] = {name: weight(32, 32, 32) for name in ("w_q", "w_k", "w_v", "w_o")}
    weights |= {"w_stem": weight(32, 32, 32, 1, 1), "w_dw": weight(9, 32, 1, 3, 3)}
    weights |= {"w_1": weight(32, 32, 64), "w_2": weight(64, 64, 32)}
    weights |= {"zero": np.zeros(32, np.float32), "gamma": np.ones(32, np.float32)}
    weights |= {"quarter": np.array(0.25, np.float32), "sqrt2": np.array(2**0.5, np.float32)}
    weights |= {"to_tokens": [0, 32, -1], "to_heads": [0, 64, 2, 16]}
    weights |= {"to_joined": [0, 64, 32], "to_map": [0, 32, 8, 8]}
    return weights | {"twice": np.array([1, 1, 2, 2], np.float32)}


def build(text: str, constants: Mapping[str, Any], opset: int = 17) -> ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]>\n{text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    return model


def run(model: ModelProto, **feeds: Array) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns about constants that a small graph does not use
    graph = model.SerializeToString()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def types(model: ModelProto) -> dict[str, int]:
    """The element type of every tensor, as the graph says it, after a full check."""
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    known = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    known |= {t.name: t.data_type for t in graph.initializer}
    assert all(name in known for node in graph.node for name in node.output if name)
    return known


def added_casts(model: ModelProto) -> list[str]:
    """Names of the Casts that `to_fp16` added, none of them twice, for nothing, or next to another one."""
    nodes = [node for node in model.graph.node if node.op_type == "Cast"]
    added = [node for node in nodes if node.name]  # those in the texts here have no name
    read = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
    dtype = types(model)
    between_floats = {n.output[0] for n in nodes if {dtype[n.input[0]], dtype[n.output[0]]} == {FLOAT, HALF}}
    assert between_floats <= {n.output[0] for n in added} <= read
    assert between_floats.isdisjoint(n.input[0] for n in nodes)
    assert len({(n.input[0], dtype[n.output[0]]) for n in added}) == len(added)
    assert all(dtype[n.input[0]] != dtype[n.output[0]] for n in added)
    return [node.name for node in added]


@pytest.mark.parametrize("opset", [17, 20, 22])
@pytest.mark.parametrize("io", ["fp32", "fp16"])
def test_block_agrees_with_fp32_at_every_opset(io: Io, opset: int) -> None:
    model = build(BLOCK, block_weights(), opset)
    before = model.SerializeToString(deterministic=True)
    half, report = to_fp16(model, io=io)
    assert model.SerializeToString(deterministic=True) == before

    dtype = types(half)
    assert dtype["image"] == dtype["map"] == (HALF if io == "fp16" else FLOAT)
    assert half.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    border = ["image_fp16/Cast", "map/Cast"] if io == "fp32" else []
    inner = ["t_fp32/Cast", "n_fp16/Cast", "s_fp32/Cast", "p_fp16/Cast", "t1_fp32/Cast", "n2_fp16/Cast"]
    assert added_casts(half) == border[:1] + inner + border[1:]
    # Neither the islands nor Constant, which is an initializer now.
    assert report.nodes_fp16 == len(model.graph.node) - 4
    assert (report.nodes_fp32, report.casts) == (3, len(inner + border))

    image = np.random.default_rng(1).standard_normal((2, 32, 8, 8)).astype(np.float32)
    (reference,) = run(model, image=image)
    (result,) = run(half, image=image.astype(np.float16 if io == "fp16" else np.float32))
    # About 30 roundings of up to 2**-11 in a row add up like a random walk: sqrt(30) * 2**-11 < 2**-8.
    assert np.abs(result - reference).max() < 2**-8 * np.abs(reference).max()
    assert result.dtype == (np.float16 if io == "fp16" else np.float32)


def test_an_initializer_of_an_island_and_of_a_convolution_is_split() -> None:
    half, _ = to_fp16(build(BLOCK, block_weights()))
    dtype = types(half)
    assert (dtype["zero"], dtype["zero_fp32"], dtype["gamma"], dtype["w_stem"]) == (HALF, FLOAT, FLOAT, HALF)
    assert "gamma_fp16" not in dtype
    inputs = {node.name: list(node.input) for node in half.graph.node}
    assert (inputs["norm1"][2], inputs["stem"][2], inputs["dw"][2]) == ("zero_fp32", "zero", "zero")
    assert inputs["attn"][0] == "t"  # the residual goes around the island without a cast


def test_names_that_are_taken_are_not_taken_again() -> None:
    model = build(BLOCK.replace("t1", "t_fp32"), block_weights())
    model.graph.node[0].name = "t_fp32_1/Cast"
    assert {"t_fp32_1/Cast_1", "t_fp32_fp32/Cast"} <= set(added_casts(to_fp16(model)[0]))


@pytest.mark.parametrize("islands", [(), ("Conv", "Resize", "HardSwish"), ISLANDS | {"Erf", "MatMul"}])
def test_islands_can_be_chosen(islands: Collection[str]) -> None:
    model = build(BLOCK, block_weights())
    half, _ = to_fp16(model, islands=islands)
    dtype = types(half)
    assert added_casts(half)
    for node in half.graph.node:
        if node.op_type in islands or node.op_type in ISLANDS | {"Conv", "Erf"}:
            expected = FLOAT if node.op_type in islands else HALF
            assert {dtype[node.input[0]], dtype[node.output[0]]} == {expected}, node.name
    image = np.ones((1, 32, 8, 8), np.float32)
    (reference,), (result,) = run(model, image=image), run(half, image=image)
    assert np.abs(result - reference).max() < 2**-8 * np.abs(reference).max()  # as above


def test_islands_that_touch_are_not_cast_between() -> None:
    text = """g (float[N,4,8] x) => (float[N,8,4] y, int64[N,8] best, float[N,8,4] z) {
      a = LayerNormalization(x, gamma)
      b = LayerNormalization(a, gamma)
      c = Transpose<perm=[0,2,1]>(b)
      d = Cast<to=1>(c)
      y = Softmax(d)
      best = ArgMax<axis=2, keepdims=0>(y)
      z = Relu(y)
    }"""
    model = build(text, {"gamma": np.full(8, 3, np.float32)})
    half, report = to_fp16(model)
    assert added_casts(half) == ["y_fp16/Cast", "z/Cast"]  # all for Relu
    assert (report.nodes_fp32, report.nodes_fp16) == (6, 1)
    assert not any(node.op_type == "Cast" and node.output[0] == "d" for node in half.graph.node)
    x = np.random.default_rng(0).standard_normal((2, 4, 8)).astype(np.float32)
    (y, best, z), (y_half, best_half, z_half) = run(model, x=x), run(half, x=x)
    assert np.array_equal(y, y_half)
    assert np.array_equal(best, best_half)
    assert np.abs(z - z_half).max() <= 2**-12  # half the distance of FP16 numbers below 1


def test_integers_are_cast_straight_to_each_type() -> None:
    text = """g (int64[3] ids, float[3,3] x) => (float[3,3] y, int64[3] again, int64[2] size) {
      f = Cast<to=1>(ids)
      even = Equal(ids, two)
      picked = Where(even, x, f)
      row = Gather(table, ids)
      sum = Add(picked, row)
      column = Unsqueeze(f, one)
      ones = Softmax(column)
      y = Mul(sum, ones)
      again = Cast<to=7>(f)
      size = Shape(table)
    }"""
    model = build(text, {"one": [1], "two": 2, "table": np.eye(4, 3, dtype=np.float32)})
    half, _ = to_fp16(model)
    dtype = types(half)
    read = {name: node.input[0] for node in half.graph.node for name in node.output}
    assert (read["f"], read["f_fp32"], read["column"], read["again"]) == ("ids", "ids", "f_fp32", "f_fp32")
    assert (dtype["f"], dtype["f_fp32"], dtype["table"], dtype["ids"]) == (HALF, FLOAT, HALF, INT64)
    assert "table_fp32" not in dtype  # Shape takes it as it is
    assert added_casts(half) == ["x_fp16/Cast", "f_fp32/Cast", "ones_fp16/Cast", "y/Cast"]
    ids, x = np.array([3, 2, 1]), np.ones((3, 3), np.float32)
    for reference, result in zip(run(model, ids=ids, x=x), run(half, ids=ids, x=x), strict=True):
        assert np.array_equal(reference, result)  # small integers, and a Softmax over one column


def test_sizes_computed_in_floats_stay_exact() -> None:
    text = """g (float[N,1,H,W] x) => (float[N,1,P,Q] y, float[N,1,R,S] z) {
      s = Shape(x)
      nc = Slice(s, from, mid)
      hw = Slice(s, mid, to)
      f = Cast<to=1>(hw)
      p = Mul(f, ones)
      i = Cast<to=7>(p)
      sizes = Concat<axis=0>(nc, i)
      u = Relu(x)
      y = Resize<mode="nearest">(u, , , sizes)
      ratio = Div(f, f)
      scales = Concat<axis=0>(ones, ratio)
      z = Resize<mode="nearest">(u, , scales)
    }"""
    constants = {"from": [0], "mid": [2], "to": [4], "ones": np.ones(2, np.float32)}
    model = build(text, constants, 18)
    half, _ = to_fp16(model, io="fp16")
    dtype = types(half)
    assert {dtype[name] for name in ("f", "p", "ratio", "scales", "ones")} == {FLOAT}
    assert (dtype["u"], dtype["y"]) == (HALF, HALF)
    assert added_casts(half) == []
    for result in run(half, x=np.ones((1, 1, 1, 2049), np.float16)):
        assert result.shape == (1, 1, 1, 2049)  # 2048 if the size had gone through FP16


@pytest.mark.parametrize(
    ("op", "side", "dtype"),
    [
        ("GlobalAveragePool(h)", 45, HALF),  # 2025 values in each mean
        ("GlobalAveragePool(h)", 46, FLOAT),  # 2116
        ("ReduceMean(h, axes)", 46, FLOAT),
        ("ReduceSum<keepdims=0>(h, axes)", 46, FLOAT),
        ("ReduceMax(h, axes)", 46, HALF),  # adds nothing up
    ],
)
def test_sums_of_more_than_fp16_can_count_stay_fp32(op: str, side: int, dtype: int) -> None:
    shape, reduced = f"N,4,{side},{side}", "N,4" if "keepdims" in op else "N,4,1,1"
    model = build(
        f"g (float[{shape}] x) => (float[{reduced}] y) {{ h = Relu(x) s = {op} y = Relu(s) }}",
        {"axes": np.array([2, 3])} if "axes" in op else {},
        20,
    )
    half, _ = to_fp16(model)
    types = {v.name: v.type.tensor_type.elem_type for v in half.graph.value_info}
    [node] = [node for node in half.graph.node if node.op_type == op.partition("(")[0].partition("<")[0]]
    assert types[node.input[0]] == types[node.output[0]] == dtype


@pytest.mark.parametrize(
    ("lowest", "pinned"),
    [
        ({}, set()),
        ({"head": "fp16"}, set()),
        ({"head.sum": "fp32"}, {"s"}),
        ({"head": "fp32"}, {"p", "s"}),
        ({"head": "fp32", "head.sum": "fp16"}, {"p"}),  # the innermost decides
        ({"he": "fp32", "head.su": "fp32"}, set()),  # names of modules, and no beginnings of names
    ],
)
def test_what_modules_say_of_precision_is_obeyed(lowest: dict[str, str], pinned: set[str]) -> None:
    text = """g (float[1,64] x) => (float[1,1] y) {
      [stem] a = Relu(x)
      [head] p = Mul(a, a)
      [sum] s = MatMul(p, ones)
      [end] y = Abs(s)
    }"""
    model = build(text, {"ones": np.ones((64, 1), np.float32)}, 20)
    for node, module in zip(model.graph.node, ("stem", "head", "head.sum", "end"), strict=True):
        node.name = f"{module}/{node.op_type}"
    helper.set_model_props(model, {LOWEST_KEY: json.dumps(lowest)} if lowest else {})
    half, report = to_fp16(model, io="fp16")
    dtype = types(half)
    made = {n.op_type: dtype[n.output[0]] for n in half.graph.node}
    assert {name for name, op in (("p", "Mul"), ("s", "MatMul")) if made[op] == FLOAT} == pinned
    assert report.nodes_fp32 == len(pinned)
    assert half.metadata_props == model.metadata_props


@pytest.mark.parametrize("said", ["[]", "{", '{"head": "int8"}', '{"head": []}'])
def test_what_is_damaged_of_what_modules_say_is_named(said: str) -> None:
    model = build(PLAIN, {})
    helper.set_model_props(model, {LOWEST_KEY: said})
    with pytest.raises(ArtefactError, match=r"lowest_precision metadata is damaged"):
        to_fp16(model)


def test_what_has_no_float16_stays_fp32() -> None:
    text = """g (float[1,4,8,8] x) => (float[1,4,8,8] y, float[1,4,8,1] mean) {
      crop = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize">(x, roi, scales)
      n, mean = LayerNormalization(crop, gamma)
      seed = ConstantOfShape<value: tensor = float[1] {0.5}>(shape)
      y = Add(n, seed)
    }"""
    constants = {"roi": np.array([0, 0, 0.1, 0.1, 1, 1, 0.9, 0.9], np.float32), "shape": np.array([8])}
    constants |= {"scales": np.ones(4, np.float32), "gamma": np.ones(8, np.float32)}
    half, _ = to_fp16(build(text, constants), islands=())
    dtype = types(half)
    assert {dtype[name] for name in ("roi", "scales", "seed", "mean")} == {FLOAT}
    assert {dtype[name] for name in ("crop", "seed_fp16")} == {HALF}
    assert [o.name for o in half.graph.output] == ["y", "mean"]


def test_report_of_overflow_and_flush_is_exact() -> None:
    wide = np.array([1.0, 65504.0, 65505.0, -7e4, 1e9, -2e9, np.inf, -np.inf, np.nan], np.float32)
    tiny = np.array([0.0, 2.0**-25, -(2.0**-26), 1e-30, 1.5 * 2.0**-25, 2.0**-15, 2.0**-14], np.float32)
    text = """g (float[N,1] x) => (float[N,9] y, float[N,7] z, float[N,7] w) {
      y = Add(x, wide)
      z = Add(x, tiny)
      deep = Constant<value: tensor = float[1] {1e-9}>()
      w = Softmax(z)
      v = Mul(x, deep)
    }"""
    half, report = to_fp16(build(text, {"wide": wide, "tiny": tiny}))
    values = {t.name: numpy_helper.to_array(t) for t in half.graph.initializer}
    low, high = np.float16(-65504), np.float16(65504)
    expected = np.array([1, high, high, low, high, low, np.inf, -np.inf, np.nan], np.float16)
    assert np.array_equal(values["wide"], expected, equal_nan=True)
    # 2**-25 lies halfway between 0 and the smallest subnormal, 2**-24, and goes to the even one, 0.
    assert np.array_equal(values["tiny"], np.array([0, 0, 0, 0, 2**-24, 2**-15, 2**-14], np.float16))
    assert report.overflow == (ValueLoss("wide", 4, 9, -2e9),)
    deep = float(np.float32(1e-9))
    assert report.flushed == (ValueLoss("tiny", 3, 7, 2.0**-25), ValueLoss("deep", 1, 1, deep))
    assert report.subnormal == 2
    assert json.loads(json.dumps(report.to_json()))["overflow"][0]["extreme"] == -2e9


def test_names_metadata_and_doc_strings_stay() -> None:
    model = build(BLOCK, block_weights())
    model.doc_string, model.graph.doc_string, model.graph.node[0].doc_string = "model", "graph", "node"
    model.graph.initializer[0].doc_string = "weight"
    helper.set_model_props(model, {"task": "segment"})
    half, _ = to_fp16(model)
    docs = [half.doc_string, half.graph.doc_string, half.graph.node[1].doc_string]
    assert docs == ["model", "graph", "node"]
    assert "weight" in {t.doc_string for t in half.graph.initializer}
    assert {p.key: p.value for p in half.metadata_props} == {"task": "segment"}
    kept = [n.name for n in half.graph.node if not n.name.endswith("/Cast")]
    assert kept == [n.name for n in model.graph.node if n.op_type != "Constant"]


def test_equal_graphs_give_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, copy = tmp_path / "block.onnx", tmp_path / "half.onnx"
    onnx.save(build(BLOCK, block_weights()), source)
    script = (
        "import onnx; from hiresvit.export.fp16 import to_fp16;"
        f"onnx.save(to_fp16(onnx.load({str(source)!r}))[0], {str(copy)!r})"
    )
    monkeypatch.setenv("PYTHONHASHSEED", "7")  # another order of all sets
    child = run_child(["-c", script])
    assert child.returncode == 0, child.stderr
    half, _ = to_fp16(onnx.load(source))
    assert onnx.load(copy).SerializeToString(deterministic=True) == half.SerializeToString(deterministic=True)


PLAIN = "g (float[2] x) => (float[2] y) { y = Relu(x) }"
BRANCH = """g (float[2] x, bool c) => (float[2] y) {
  y = If(c) <then_branch = a () => (float[2] p) { p = Relu(x) },
             else_branch = b () => (float[2] q) { q = Neg(x) }>
}"""


def refused_graphs() -> Iterator[tuple[ModelProto, type[HiresvitError], str]]:
    yield to_fp16(build(PLAIN, {}), io="fp16")[0], UsageError, "FLOAT16 already"
    yield build(PLAIN.replace("float", "double"), {}), UsageError, "no FP32 tensor"
    yield build(BRANCH, {}), UsageError, "subgraph"
    yield build(PLAIN, {"x": np.ones(2, np.float32)}), UsageError, "default value"
    yield build(PLAIN.replace("float[2] y", "int64[2] y"), {}), IllegalGraphError, "not valid ONNX"
    external = build(PLAIN.replace("Relu(x)", "Add(x, w)"), {"w": np.ones(2, np.float32)})
    external.graph.initializer[0].data_location = TensorProto.EXTERNAL
    yield external, UsageError, "outside the proto"
    damaged = build(PLAIN.replace("Relu(x)", "Add(x, w)"), {"w": np.ones(2, np.float32)})
    damaged.graph.initializer[0].raw_data = bytes(12)
    yield damaged, IllegalGraphError, "constant 'w' does not decode|not valid ONNX"
    function = build(PLAIN, {})
    function.functions.add(name="f", domain="here")
    yield function, UsageError, "local functions"
    unknown = build(PLAIN, {})
    unknown.graph.node[0].domain = "com.example"
    unknown.opset_import.add(domain="com.example", version=1)
    yield unknown, IllegalGraphError, "'Relu' of domain 'com.example'"


def test_what_cannot_be_converted_is_refused() -> None:
    for model, error, message in refused_graphs():
        with pytest.raises(error, match=message) as caught:
            to_fp16(model)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="'LayerNorm' is no ONNX operator"):
        to_fp16(build(PLAIN, {}), islands=["LayerNorm"])
    with pytest.raises(UsageError, match="io='int8'"):
        to_fp16(build(PLAIN, {}), io="int8")  # type: ignore[arg-type]


# Operators that are exact on small integers in FP16 too, so that any graph of them must agree bit for bit.
_STEPS = {
    "Relu": "{y} = Relu({a})",
    "Neg": "{y} = Neg({a})",
    "Add": "{y} = Add({a}, {b})",
    "Constant": "{y} = Add({a}, c)",
    "Max": "{y} = Max({a}, {b}, c)",
    "Where": "{y}_more = Greater({a}, {b})\n {y} = Where({y}_more, {a}, c)",
    "Transpose": "{y} = Transpose<perm=[1,0]>({a})",
    "Reshape": "{y} = Reshape({a}, shape)",
    "Concat": "{y}_both = Concat<axis=0>({a}, {b}, c)\n {y}, {y}_rest = Split<axis=0>({y}_both, cut)",
    "Identity": "{y} = Cast<to=1>({a})",
    "Cast": "{y}_int = Cast<to=7>({a})\n {y} = Cast<to=1>({y}_int)",
}


@given(data=st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_random_graphs_agree_bit_for_bit(data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.sampled_from(sorted(_STEPS)), min_size=1, max_size=9))
    lines, names = [], ["x"]
    for k, step in enumerate(steps):
        a, b = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
        lines.append(_STEPS[step].format(y=f"t{k}", a=a, b=b))
        names.append(f"t{k}")
    outputs = data.draw(st.lists(st.sampled_from(names[1:]), min_size=1, max_size=3, unique=True))
    islands = data.draw(st.sets(st.sampled_from(["Relu", "Add", "Max", "Where", "Split", "Reshape"])))
    io = data.draw(st.sampled_from(["fp32", "fp16"]))

    header = ", ".join(f"float[3,3] {name}" for name in outputs)
    constants = {"c": np.diag([1, -2, 3]).astype(np.float32), "shape": [3, 3], "cut": [3, 6]}
    text = f"g (float[3,3] x) => ({header}) {{\n" + "\n".join(lines) + "\n}"
    x = np.arange(-4, 5, dtype=np.float32).reshape(3, 3)  # at most 9 doublings: 2048, which FP16 holds
    model = build(text, constants)
    half, _ = to_fp16(model, io="fp16" if io == "fp16" else "fp32", islands=islands)
    added_casts(half)
    expected = np.float16 if io == "fp16" else np.float32
    for reference, result in zip(run(model, x=x), run(half, x=x.astype(expected)), strict=True):
        assert result.dtype == expected
        assert np.array_equal(reference, result)


@pytest.mark.skipif(not installed("tensorrt_rtx"), reason=INSTALL_HINT)
@pytest.mark.parametrize("io", ["fp32", "fp16"])
def test_tensorrt_rtx_fuses_the_attention_and_the_islands_cost_no_kernel(tmp_path: Path, io: Io) -> None:
    kernels, shapes = [], parse_shapes(["image=1x32x8x8:2x32x8x8:4x32x8x8"])
    for islands in (ISLANDS, frozenset[str]()):
        onnx.save(to_fp16(build(BLOCK, block_weights(), 20), io=io, islands=islands)[0], tmp_path / "g.onnx")
        report = build_engine(tmp_path / "g.onnx", tmp_path / "g.plan", BuildSettings(shapes=shapes))
        assert (report.attentions_fused, report.attentions_total) == (1, 1)
        assert set(report.precision) == {"fp16"}
        assert report.warnings == ()  # like the one about overflow in a norm
        kernels.append(report.kernel_total)
    assert kernels[0] == kernels[1]
