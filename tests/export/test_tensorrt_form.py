"""FP16 graphs for TensorRT: what is rewritten, that the numbers stay, and that its kernels then move less."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Array, build, content, noise, run
from onnx import ModelProto

from hiresvit.device.tensorrt_api import INSTALL_HINT, installed
from hiresvit.engine.build import build_engine
from hiresvit.evaluation.exact import exact_graph
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.tensorrt import for_tensorrt
from hiresvit.export.tensorrt_image import of_cells

C = 8
needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason=f"TensorRT-RTX is not installed: {INSTALL_HINT}")

# A pre-normed block of two branches, as HIRI-ViT has; `deep` is what reads the low branch.
BRANCHES = """g (float[N,8,6,10] x) => (float[N,8,6,10] y) {
  n = BatchNormalization(x, gamma, beta, mean, var)
  low = Conv<group=8, pads=[1,1,1,1], strides=[2,2]>(n, wl, bl)
  deep = Conv(low, wd)
  up = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(deep, , , size)
  high = Conv<group=8, pads=[1,1,1,1]>(n, wh)
  both = Add(high, up)
  y = Add(x, both)
}"""
# A norm of the rows that a depthwise convolution reads as a map, as MixFormer has.
CONVOLVED = """g (float[30,8] x) => (float[1,8,5,6] y) {
  h = Relu(x)
  n = LayerNormalization(h, gamma, beta)
  r = Reshape(n, map)
  t = Transpose<perm=[0,3,1,2]>(r)
  y = Conv<group=8, pads=[1,1,1,1]>(t, wh, bl)
}"""
JOINED = """g (float[30,8] x, float[30,4] a, float[30,2] b) => (float[30,14] y) {
  h = Relu(x)
  n = LayerNormalization(h, gamma, beta)
  left = Relu(a)
  right = Relu(b)
  j = Concat<axis=1>(left, n, right)
  y = Relu(j)
}"""
IMAGE = """g (float[1,3,6,8] x) => (float[1,8,3,4] y) {
  y = Conv<pads=[1,1,1,1], strides=[2,2], kernel_shape=[3,3]>(x, wi, bl)
}"""
# A norm in front of two products, of rows that a third reads and that are added to the result: HRViT's block.
PRODUCTS = """g (float[30,8] x) => (float[30,8] y) {
  h = Relu(x)
  n = LayerNormalization(h, gamma, beta)
  p = Gemm<transB=1>(n, wp, bl)
  q = Gemm<transB=1>(n, wq, mean)
  r = Gemm<transB=1>(h, wq, beta)
  s = Mul(p, q)
  k = Sigmoid(r)
  t = Mul(s, k)
  y = Add(t, h)
}"""
# A norm of the rows of a map that is added to the result, as HIRI-ViT has in front of its attentions.
KEPT = """g (float[1,5,6,8] x) => (float[1,5,6,8] y) {
  m = Relu(x)
  h = Reshape(m, rows)
  n = LayerNormalization(h, gamma, beta)
  p = Gemm<transB=1>(n, wp, bl)
  t = Reshape(p, map)
  y = Add(t, m)
}"""
LONE = """g (float[1,8,6,10] x) => (float[1,8,6,10] y) {
  a = HardSwish(x)
  c = Conv<group=8, pads=[1,1,1,1]>(a, wh, bl)
  y = Add(x, c)
}"""
# The end of SegFormer's head: three of four maps are enlarged, by two, three and six, before their sum.
RESIZES = """g (float[1,8,6,12] x, float[1,8,3,6] a, float[1,8,2,4] b, float[1,8,1,2] c) => (float[1,8,6,12] y) {
  f = Conv(x, wd)
  u = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(a, , , large)
  v = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(b, , , large)
  w = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(c, , , large)
  some = Add(u, v)
  coarse = Add(some, w)
  both = Add(f, coarse)
  y = Relu(both)
}"""
CASES = {"branches": BRANCHES.replace("float[N,", "float[1,"), "convolved": CONVOLVED, "joined": JOINED, "image": IMAGE}
CASES |= {"products": PRODUCTS, "kept": KEPT, "lone": LONE, "resizes": RESIZES}
GONE = {
    "branches": Counter(Resize=1, Conv=2),
    "convolved": Counter(LayerNormalization=1, Conv=1),
    "joined": Counter(LayerNormalization=1),
    "image": Counter(),
    "products": Counter(LayerNormalization=1),
    "kept": Counter(LayerNormalization=1),
    "lone": Counter(Conv=1),
    "resizes": Counter(Resize=3),
}


def constants() -> dict[str, Array]:
    """Norms shift by as much as they scale, so that a border which is padded before the shift is seen."""
    found: dict[str, Array] = {"gamma": 1 + noise(C, seed=1) / 2, "beta": noise(C, seed=2), "mean": noise(C, seed=3)}
    found |= {"var": 1 + noise(C, seed=4) ** 2, "wl": noise(C, 1, 3, 3, seed=5), "bl": noise(C, seed=6)}
    found |= {"wd": noise(C, C, 1, 1, seed=7), "wh": noise(C, 1, 3, 3, seed=8), "wi": noise(C, 3, 3, 3, seed=9)}
    found |= {"wp": noise(C, C, seed=10), "wq": noise(C, C, seed=11)}
    return found | {
        "size": np.array([1, C, 6, 10]),
        "map": np.array([1, 5, 6, C]),
        "rows": np.array([30, C]),
        "large": np.array([1, C, 6, 12]),
    }


def made(text: str, opset: int = 20) -> ModelProto:
    read = {name: value for name, value in constants().items() if f" {name})" in text or f" {name}," in text}
    model = build(text, read, opset)
    for node in model.graph.node:
        node.name = f"net.{node.output[0]}/{node.op_type}"
    return model


def feeds(model: ModelProto) -> dict[str, Array]:
    return {
        value.name: noise(*(dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim), seed=20 + k)
        for k, value in enumerate(model.graph.input)
    }


def operators(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def far(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("case", CASES)
def test_the_numbers_stay(case: str, opset: int) -> None:
    """FP16 keeps 11 bits: a few roundings are 5e-4 of the largest; a border that is shifted is 0.1 and more."""
    model = made(CASES[case], opset)
    half, _ = to_fp16(model)
    before = content(half)
    written = for_tensorrt(half)
    assert content(half) == before
    given = feeds(model)
    (expected,), (found,) = (run(m, given, optimise=False) for m in (model, written))
    assert far(found, expected) < 1e-3
    assert operators(half) - operators(written) >= GONE[case]
    assert len({node.name for node in written.graph.node}) == len(written.graph.node)
    modules = {node.name.rpartition("/")[0] for node in half.graph.node}
    assert {node.name.rpartition("/")[0] for node in written.graph.node} <= modules
    assert content(for_tensorrt(half)) == content(written)


@pytest.mark.parametrize("case", ["convolved", "joined", "products", "kept"])
def test_rows_whose_squares_fp16_cannot_hold(case: str) -> None:
    """1,000 squared is beyond 65,504: a deviation that was summed in FP16 would be infinite, and the rows 0.

    Rounded as FP16 rounds, since ONNX Runtime computes FP16 in FP32 and takes casts that meet for nothing.
    """
    model = made(CASES[case])
    given = feeds(model) | {"x": 1000 * feeds(model)["x"]}
    half, _ = to_fp16(model)
    exact = exact_graph(for_tensorrt(half))
    assert exact is not None
    (expected,), (found,) = (run(m, given, optimise=False)[:1] for m in (half, exact.model))
    assert np.isfinite(expected).all()
    assert far(found, expected) < 2e-3  # both round


def test_a_dynamic_batch() -> None:
    text = BRANCHES.replace("N,8,6,10", "batch,8,6,10").replace("(deep, , , size)", "(deep, , twice)")
    model = made(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"))
    half, _ = to_fp16(model)
    written = for_tensorrt(half)
    assert not operators(written)["Resize"]
    given = {"x": noise(3, 8, 6, 10)}
    (expected,), (found,) = (run(m, given) for m in (half, written))
    assert far(found, expected) < 2e-3  # both round


@pytest.mark.parametrize(
    ("case", "old", "new"),
    [
        ("branches", "group=8, pads=[1,1,1,1]>(n, wh)", "pads=[0,0,0,0]>(n, wd)"),  # dense
        ("convolved", "pads=[1,1,1,1]>(t", "pads=[1,1,1,1], strides=[2,2]>(t"),
        ("joined", "axis=1>(left, n, right)", "axis=1>(n, n, left, right)"),  # the norm is read twice
        ("image", "strides=[2,2]", "strides=[1,1]"),
        ("image", "x, wi, bl", "r, wi, bl"),  # not the image
        ("products", "Gemm<transB=1>(h, wq, beta)", "Relu(h)"),  # the rows are there anyway, and nothing is joined
        ("products", "q = Gemm<transB=1>(n, wq, mean)", "q = Relu(n)"),  # the norm is wanted itself
        ("products", "p = Gemm<transB=1>(n", "p = Gemm<transA=0>(n"),
        ("kept", "y = Add(t, m)", "y = Relu(t)"),  # nobody else reads the map, so the norm's rows are written for it
        ("lone", "y = Add(x, c)", "y = Conv(c, wd)"),  # a product reads it
        ("resizes", 'half_pixel">(b', 'asymmetric">(b'),  # and one Resize is joined by TensorRT itself
        ("resizes", "some = Add(u, v)", "q = Relu(u)\n z = Add(q, v)\n some = Add(z, u)"),  # u is read twice
        ("resizes", "float[1,8,2,4] b", "float[1,8,4,8] b"),  # by one and a half
        ("lone", "pads=[1,1,1,1]>(a", "pads=[2,2,2,2], dilations=[2,2]>(a"),
    ],
)
def test_what_is_left_alone(case: str, old: str, new: str) -> None:
    text = CASES[case].replace(old, new)
    assert text != CASES[case]
    text = (
        text.replace("[1,8,5,6] y", "[a,b,c,d] y").replace("[1,8,3,4] y", "[a,b,c,d] y").replace("[30,14]", "[30,22]")
    )
    if "r, wi" in text:
        text = text.replace("{\n", "{\n  r = Relu(x)\n")
    half, _ = to_fp16(made(text))
    assert content(for_tensorrt(half)) == content(half)


@pytest.mark.parametrize(
    ("case", "old", "new", "stays"),
    [
        (
            "branches",
            "both = Add(high, up)",
            "h = Relu(n)\n more = Add(high, h)\n both = Add(more, up)",
            "BatchNormalization",
        ),
        ("convolved", "r = Reshape(n, map)", "m = Relu(n)\n r = Reshape(m, map)", "LayerNormalization"),
    ],
)
def test_a_norm_that_something_else_reads_stays(case: str, old: str, new: str, stays: str) -> None:
    """The convolution by itself is written anew."""
    half, _ = to_fp16(made(CASES[case].replace(old, new)))
    written = for_tensorrt(half)
    assert operators(written)[stays] == 1
    (expected,), (found,) = (run(m, feeds(half)) for m in (half, written))
    assert far(found, expected) < 2e-3


def test_an_enlargement_that_something_else_reads_stays() -> None:
    text = CASES["branches"].replace("y = Add(x, both)", "also = Relu(up)\n z = Add(x, both)\n y = Add(z, also)")
    half, _ = to_fp16(made(text))
    written = for_tensorrt(half)
    assert operators(written)["Resize"] == 1
    (expected,), (found,) = (run(m, feeds(half)) for m in (half, written))
    assert far(found, expected) < 2e-3


def test_a_kernel_of_cells_has_the_kernel_and_zeros() -> None:
    weight = noise(2, 3, 3, 3)
    cells = of_cells(weight)
    assert cells.shape == (2, 12, 2, 2)
    np.testing.assert_equal(np.sort(cells[cells != 0]), np.sort(weight.ravel()))
    np.testing.assert_equal(cells[:, :4, 1, 1].reshape(2, 2, 2), weight[:, 0, 1:, 1:])  # the cell at the place itself


@pytest.mark.slow
@needs_rtx
def test_tensorrt_needs_fewer_kernels(tmp_path: Path) -> None:
    """Without the norm and the enlargement; the convolution and the sums are in one."""
    half, _ = to_fp16(made(CASES["branches"]))
    kernels = []
    for name, model in (("before", half), ("after", for_tensorrt(half))):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content(model))
        kernels.append(build_engine(path, path.with_suffix(".plan")).kernel_total)
    assert kernels[1] < kernels[0]
