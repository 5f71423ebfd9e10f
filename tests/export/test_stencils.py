"""Slices in place of convolutions and resizes, for TensorRT: which, and that they compute the same.

Tolerance: nine float32 products added in another order, 1e-5 of the largest value; a weight or a neighbour that is
mistaken for another is above 1e-2.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from graphs import build, distance, noise, run
from onnx import ModelProto

from hiresvit.export.fp16 import to_fp16
from hiresvit.export.stencils import with_stencils

EXACT = 1e-5
CONV = "Conv<group=4, kernel_shape=[3,3], pads=[1,1,1,1]{}>"
NORM = """t = Transpose<perm=[0,2,3,1]>({})
    n = LayerNormalization<axis=-1>(t, one)"""
WEIGHTS = {"w": noise(4, 1, 3, 3), "b": noise(4), "one": np.ones(4, np.float32)}


def graph(body: str, size: str = "1,4,5,6", out: str = "n", **more: object) -> ModelProto:
    return build(f"g (float[{size}] x) => (float[d,e,f,g] {out}) {{ {body} }}", {**WEIGHTS, **more})


def operators(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def same(model: ModelProto, *shape: int) -> None:
    x = {"x": noise(*shape, seed=1)}
    assert distance(run(model, x)[0], run(with_stencils(model), x)[0]) < EXACT


@pytest.mark.parametrize("inputs", ["x, w, b", "x, w"])
@pytest.mark.parametrize("batch", ["1", "B"])
def test_a_convolution_in_front_of_a_norm(inputs: str, batch: str) -> None:
    model = graph(f"c = {CONV.format('')}({inputs})\n{NORM.format('c')}", f"{batch},4,5,6")
    assert "Conv" not in operators(with_stencils(model))
    same(model, 2 if batch == "B" else 1, 4, 5, 6)
    to_fp16(with_stencils(model))


@pytest.mark.parametrize("factor", [2, 3])
def test_a_resize_whose_sum_a_norm_reads(factor: int) -> None:
    scales = np.array([1, 1, factor, factor], np.float32)
    body = f'r = Resize<mode="linear">(x, , s)\na = Add(r, one_map)\n{NORM.format("a")}'
    model = graph(body, s=scales, one_map=noise(1, 4, 5 * factor, 6 * factor))
    assert "Resize" not in operators(with_stencils(model))
    same(model, 1, 4, 5, 6)


def test_two_resizes_that_are_added() -> None:
    body = "p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)\n"
    body += 'u = Resize<mode="linear">(x, , s2)\nv = Resize<mode="linear">(p, , s4)\nn = Add(u, v)'
    two, four = (np.array([1, 1, f, f], np.float32) for f in (2, 4))
    model = graph(body, "1,4,4,6", s2=two, s4=four)
    assert "Resize" not in operators(with_stencils(model))
    same(model, 1, 4, 4, 6)


LEFT = {
    "no norm": "n = " + CONV.format("") + "(x, w, b)",
    "stride": "c = " + CONV.format(", strides=[2,2]") + f"(x, w, b)\n{NORM.format('c')}",
    "a norm's reader": f"{NORM.format('x')}\nu = Transpose<perm=[0,3,1,2]>(n)\nc = {CONV.format('')}(u, w, b)\n"
    "v = Transpose<perm=[0,2,3,1]>(c)\nm = LayerNormalization<axis=-1>(v, one)",
    "one resize": 'n = Resize<mode="linear">(x, , s)',
    "nearest": f'r = Resize<mode="nearest">(x, , s)\na = Add(r, r)\n{NORM.format("a")}',
    "corners": 'r = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , s)\na = Add(r, r)\n'
    + NORM.format("a"),
}


@pytest.mark.parametrize("case", LEFT)
def test_all_else_stays(case: str) -> None:
    model = graph(LEFT[case], out="m" if "m = " in LEFT[case] else "n", s=np.array([1, 1, 2, 2], np.float32))
    assert operators(with_stencils(model)) == operators(model)
