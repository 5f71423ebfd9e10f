"""Q/DQ in a graph: by hand against numpy, and its form on whole networks."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import Array, build, constants_of, content, copied, indexed, magnitudes, noise, run
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import ModelProto, NodeProto, TensorProto
from tiny import tiny_simplified, tiny_spec

from hiresvit.calibration.attention import find_attentions
from hiresvit.calibration.qdq import (
    SMALLEST_SCALE,
    calibration_tensors,
    quantize,
    quantize_weight,
    scales_of,
)
from hiresvit.calibration.sites import Policy, Site, find_sites, find_skips
from hiresvit.data.preprocess import preprocess
from hiresvit.data.scenes import sample_images
from hiresvit.errors import ArtefactError, HiresvitError, IllegalGraphError, UsageError
from hiresvit.evaluation.parity import compare_arrays
from hiresvit.export.contract import INPUT
from hiresvit.export.fp16 import to_fp16

HALF = np.dtype(np.float16)
# 53 layers of 8 bits each on random weights leave 26.5 dB; the rest is room for other versions and processors.
PARITY_DB = 23.0
EVERYTHING = Policy(first=True, depthwise=True, last=True, min_width=1)
ALL_POINTS = Policy(residual=True, int8_attention=True)


def named(model: ModelProto) -> ModelProto:
    """Each node named after what it makes."""
    for node in model.graph.node:
        node.name = f"{node.output[0]}/{node.op_type}"
    return model


def inserted(simple: ModelProto, half: ModelProto, amax: Mapping[str, float], policy: Policy) -> tuple[ModelProto, Any]:
    sites = find_sites(indexed(simple), policy)
    skips, attentions = find_skips(indexed(simple), sites, policy), find_attentions(indexed(simple), policy)
    return quantize(half, sites, amax, skips=skips, attentions=attentions)


# Numpy's own fake quantization. Nothing here calls the code under test.


def step_of(amax: float) -> float:
    """The least FP16 number whose 127 fold reaches amax."""
    halves = np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16)  # all that are positive and finite, in order
    return float(halves[np.searchsorted(halves.astype(np.float64), amax / 127)])


def levels(x: Array, step: float) -> Array:
    """What QuantizeLinear makes of FP16 values: the nearest step, halves to even, saturated."""
    return np.clip(np.rint(x.astype(np.float64) / step), -128, 127)


def faked(x: Array, amax: float) -> Array:
    """FP16 values after Q and DQ, not rounded to FP16."""
    return levels(x, step_of(amax)) * step_of(amax)


def faked_rows(weight: Array) -> Array:
    """FP16 weights (outputs, ...) after INT8, each output by itself."""
    return np.stack([faked(row, float(np.abs(row).max())) for row in weight])


def even_weight(*shape: int, seed: int) -> Array:
    """Values that are no multiples of anything; the largest of each output is 127 * 2**-7 or -8 or -9."""
    weight = np.clip(noise(*shape, seed=seed) / 4, -0.2, 0.2)
    for index, row in enumerate(weight):
        row.flat[index % row.size] = 127 * 2.0 ** -(7 + index % 3)
    return weight


def rounded_alike(result: Array, exact: Array) -> bool:
    """Whether results are exact sums but for one rounding to FP16, or none.

    INT8 numbers times a power of two are exact in FP16, and a few dozen products of those in FP32, so that half a
    spacing of FP16 is all that may be between the two.
    """
    spacing = np.spacing(np.abs(exact).astype(np.float16)).astype(np.float64)
    return bool((np.abs(result.astype(np.float64) - exact) <= spacing / 2).all())


@cache
def segment() -> tuple[ModelProto, ModelProto, dict[str, float], Array]:
    """The tiny segmentation network in FP32 and FP16, its ranges on two pictures, and another one."""
    spec = tiny_spec()
    pictures = [preprocess(image, spec.preprocess, spec.imgsz) for image in sample_images(3, spec.imgsz)]
    simple = tiny_simplified(spec)
    return simple, to_fp16(simple)[0], magnitudes(simple, *({INPUT: p} for p in pictures[:2])), pictures[2]


class TestScales:
    @given(st.floats(0, 127 * 65504))
    def test_reach_and_are_the_least_that_do(self, amax: float) -> None:
        scale = scales_of(np.array(amax), HALF)
        assert scale.dtype == HALF
        # Rounded to a float, amax / 127 may be a hair off; 1e-15 of it decides nothing in FP16.
        assert 127 * float(scale) >= amax * (1 - 1e-15)
        assert SMALLEST_SCALE <= float(scale) < math.inf
        below = float(np.nextafter(scale, HALF.type(0)))
        assert 127 * below < amax or float(scale) == SMALLEST_SCALE

    def test_that_fp16_cannot_tell_from_0_are_the_smallest_it_can(self) -> None:
        scales = scales_of(np.array([0, 1e-30, 127 * 2.0**-24, 1.0]), HALF)
        assert scales[:3].tolist() == [2.0**-24] * 3
        assert scales[3] > 2.0**-24
        # FP32 could go lower, where the reciprocal overflows
        assert float(scales_of(np.array(0.0), np.dtype(np.float32))) == 2.0**-24


WEIGHTS = arrays(
    np.float16,
    array_shapes(min_dims=2, max_dims=4, max_side=5),
    elements=st.floats(-1000, 1000, width=16),
)


class TestWeights:
    @given(WEIGHTS, st.integers(0, 3))
    def test_every_channel_by_itself(self, weight: Array, axis: int) -> None:
        axis %= weight.ndim
        made = quantize_weight(weight, axis)
        assert made.values.dtype == np.int8
        assert made.values.shape == weight.shape
        assert made.scales.shape == (weight.shape[axis],)
        for channel in range(weight.shape[axis]):
            exact = weight.take(channel, axis)
            scale = step_of(max(float(np.abs(exact).max()), 127 * 2.0**-24))
            assert made.scales[channel] == scale
            assert np.array_equal(made.values.take(channel, axis), levels(exact, scale))
            # nothing is clipped: at most half a step from what it was
            back = made.values.take(channel, axis) * float(scale)
            assert np.abs(back - exact.astype(np.float64)).max() <= float(scale) / 2

    def test_channels_of_zeros_and_of_next_to_nothing(self) -> None:
        weight = np.array([[0, 0], [6e-8, -1.2e-7], [0.5, -1], [2e-5, 0]], np.float16)
        made = quantize_weight(weight, 0)
        assert (made.zero, made.floored) == (1, 1)
        assert made.values.tolist()[:2] == [[0, 0], [1, -2]]
        # A scale that is no power of two would lose bits that FP16 still had.
        assert np.array_equal(made.values[:2] * made.scales[:2, None].astype(np.float64), weight[:2])

    def test_sqnr(self) -> None:
        weight = noise(64, 256).astype(np.float16)
        made = quantize_weight(weight, 0)
        assert made.sqnr_db is not None
        back = made.values * made.scales.astype(np.float64)[:, None]
        expected = 20 * np.log10(np.linalg.norm(weight.astype(np.float64)) / np.linalg.norm(back - weight))
        assert made.sqnr_db == pytest.approx(float(expected))
        assert quantize_weight(np.zeros((2, 2), np.float16), 0).sqnr_db is None


# As steps powers of two. Values go up to 3.3 or so: the first clips none of them, the second a third.
RANGES = (127 * 2.0**-5, 127 * 2.0**-7)


class TestByHand:
    """One layer each, in FP16 from end to end, against numpy."""

    def quantized(self, text: str, weights: dict[str, Array], amax: float) -> ModelProto:
        simple = named(build(text, weights))
        half, _ = to_fp16(simple)  # FP32 inputs: the cast is a node in front of the pair
        result, report = inserted(simple, half, {"x": amax}, EVERYTHING)
        assert report.sites_int8 == 1
        return result

    @pytest.mark.parametrize("amax", RANGES)
    def test_conv(self, amax: float) -> None:
        w, b, x = even_weight(24, 8, 3, 3, seed=1), noise(24, seed=2), noise(1, 8, 6, 5, seed=3)
        text = "g (float[1,8,6,5] x) => (float[1,24,4,3] y) { y = Conv<kernel_shape=[3,3]>(x, w, b) }"
        (result,) = run(self.quantized(text, {"w": w, "b": b}, amax), {"x": x}, optimise=False)
        xq, wq = faked(x.astype(np.float16), amax), faked_rows(w.astype(np.float16))
        windows = np.lib.stride_tricks.sliding_window_view(xq, (3, 3), (2, 3))  # (1, 8, 4, 3, 3, 3)
        bias = b.astype(np.float16).astype(np.float64)
        assert rounded_alike(result, np.einsum("bchwij,ocij->bohw", windows, wq) + bias[:, None, None])

    @pytest.mark.parametrize("amax", RANGES)
    @pytest.mark.parametrize("transposed", [0, 1])
    def test_gemm(self, transposed: int, amax: float) -> None:
        w, b, x = even_weight(24, 40, seed=1), noise(24, seed=2), noise(7, 40, seed=3)
        text = f"g (float[7,40] x) => (float[7,24] y) {{ y = Gemm<transB={transposed}>(x, w, b) }}"
        model = self.quantized(text, {"w": w if transposed else w.T.copy(), "b": b}, amax)
        (result,) = run(model, {"x": x}, optimise=False)
        xq, wq = faked(x.astype(np.float16), amax), faked_rows(w.astype(np.float16))
        assert rounded_alike(result, xq @ wq.T + b.astype(np.float16).astype(np.float64))

    @pytest.mark.parametrize("amax", RANGES)
    def test_matmul(self, amax: float) -> None:
        w, x = even_weight(24, 40, seed=1), noise(2, 7, 40, seed=3)
        text = "g (float[2,7,40] x) => (float[2,7,24] y) { y = MatMul(x, w) }"
        (result,) = run(self.quantized(text, {"w": w.T.copy()}, amax), {"x": x}, optimise=False)
        assert rounded_alike(result, faked(x.astype(np.float16), amax) @ faked_rows(w.astype(np.float16)).T)

    def test_the_skip_of_a_residual(self) -> None:
        text = """g (float[1,8,4,4] x) => (float[1,8,4,4] y) {
          r = Relu(x) c = Conv<kernel_shape=[1,1]>(r, w) y = Add(c, r) }"""
        w, x = even_weight(8, 8, 1, 1, seed=1), noise(1, 8, 4, 4, seed=3)
        simple = named(build(text, {"w": w}))
        policy = replace(EVERYTHING, residual=True)
        model, report = inserted(simple, to_fp16(simple)[0], {"r": RANGES[1]}, policy)
        assert (report.sites_int8, report.skips) == (1, 1)
        (result,) = run(model, {"x": x}, optimise=False)
        r = faked(np.maximum(x.astype(np.float16), 0), RANGES[1])
        conv = np.einsum("bchw,oc->bohw", r, faked_rows(w.astype(np.float16))[:, :, 0, 0])
        # two roundings: of the product, and of the sum
        assert np.abs(result - (conv + r)).max() <= np.spacing(np.float16(max(np.abs(conv).max(), result.max())))

    def test_attention_of_five_points(self) -> None:
        text = """g (float[2,7,16] x) => (float[2,7,16] y) {
          q = Relu(x) k0 = Neg(x) k = Transpose<perm=[0,2,1]>(k0) s = MatMul(q, k) p = Softmax<axis=-1>(s)
          o = MatMul(p, x) y = Neg(o) }"""
        x = noise(2, 7, 16, seed=3)
        simple = named(build(text))
        amax = magnitudes(simple, {"x": x})
        half = to_fp16(simple)[0]
        model, report = inserted(simple, half, amax, Policy(int8_attention=True))
        assert (report.attentions_int8, report.attentions_fp16) == (1, {})
        assert Counter(node.op_type for node in model.graph.node)["QuantizeLinear"] == 5
        (result,) = run(model, {"x": x}, optimise=False)
        x16 = x.astype(np.float16)
        q, k = faked(np.maximum(x16, 0), amax["q"]), faked(-x16, amax["k"])
        power = np.exp(q @ k.swapaxes(1, 2))
        p = (power / power.sum(-1, keepdims=True)).astype(np.float16)
        mixed = (faked(p, amax["p"]) @ faked(x16, amax["x"])).astype(np.float16)
        expected = -faked(mixed, amax["o"])
        # Roundings to FP16 on the way, of which there are some here and none in numpy, tip a few of the INT8 roundings
        # of p and o over. That is one step of o, or a part of it; a pair that lacks or is wrong moves all values.
        off = np.abs(result - expected)
        assert off.max() <= 1.05 * step_of(amax["o"])
        assert np.count_nonzero(off > 0.05 * step_of(amax["o"])) <= 0.05 * off.size


class TestSharedWeights:
    TEXT = """g (float[8,16] x) => (float[8,16] y) {
      a = Gemm<transB=1>(x, w) b = Relu(a) c = Gemm<transB=1>(b, w) d = Relu(c) y = MatMul(d, w) }"""

    def layers(self, *int8: str) -> tuple[ModelProto, ModelProto, Array]:
        """The graph in FP32, in FP16 with these layers in INT8, and an input."""
        simple = named(build(self.TEXT, {"w": noise(16, 16, seed=1) / 4}))
        x = noise(8, 16, seed=2)
        sites = [
            site if site.node in int8 else replace(site, excluded="kept")
            for site in find_sites(indexed(simple), EVERYTHING)
        ]
        made, report = quantize(to_fp16(simple)[0], sites, magnitudes(simple, {"x": x}))
        assert report.sites_int8 == len(int8)
        return simple, made, x

    def weights(self, model: ModelProto) -> Counter[int]:
        """How many initializers of the weight's shape there are of each type."""
        return Counter(t.data_type for t in model.graph.initializer if list(t.dims) == [16, 16])

    @pytest.mark.parametrize(
        ("int8", "stored"),
        [
            (("a/Gemm", "c/Gemm"), {TensorProto.INT8: 1, TensorProto.FLOAT16: 1}),
            (("a/Gemm",), {TensorProto.INT8: 1, TensorProto.FLOAT16: 1}),
            # the same numbers, but another axis counts the outputs
            (("a/Gemm", "c/Gemm", "y/MatMul"), {TensorProto.INT8: 2}),
            ((), {TensorProto.FLOAT16: 1}),
        ],
    )
    def test_each_reader_gets_its_own_form(self, int8: tuple[str, ...], stored: dict[int, int]) -> None:
        simple, model, x = self.layers(*int8)
        assert self.weights(model) == stored
        check_form(model, dict.fromkeys(int8, True))
        (expected,) = run(simple, {"x": x})
        (result,) = run(model, {"x": x}, optimise=False)
        # A step of INT8 is 1/254 of the range; of three layers the errors of 16 terms each leave over 30 dB.
        assert compare_arrays(expected, result).sqnr_db > (30 if int8 else 55)


def check_form(model: ModelProto, int8: Mapping[str, bool]) -> None:
    """Assert all that TensorRT wants of a Q/DQ graph, node by node; ``int8``: which products are quantized."""
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    values = constants_of(model)
    dtypes = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    made = {name: node for node in graph.node for name in node.output}
    read = Counter(name for node in graph.node for name in node.input)
    border = {v.name for v in (*graph.input, *graph.output)}
    assert len({node.name for node in graph.node}) == len(graph.node)
    assert set(values) <= set(read)

    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale = values[node.input[1]]
        assert ((scale > 0) & np.isfinite(scale)).all()
        assert len(node.input) == 2 or (values[node.input[2]] == 0).all()
        if node.op_type == "QuantizeLinear":
            assert node.input[0] not in border
            assert scale.shape == ()
            assert values[node.input[2]].dtype == np.int8
            assert onnx.helper.np_dtype_to_tensor_dtype(scale.dtype) == dtypes[node.input[0]]
            assert read[node.output[0]] == 1
        elif node.input[0] in values:  # a weight
            axis = next(a.i for a in node.attribute if a.name == "axis")
            assert values[node.input[0]].dtype == np.int8
            assert scale.shape == (values[node.input[0]].shape[axis],)
            assert read[node.output[0]] == 1
        else:
            assert node.input[1:] == made[node.input[0]].input[1:]
            assert node.output[0] not in border

    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.name not in int8:
            continue
        sources = [made.get(name) for name in node.input]
        kinds = [source.op_type if source else None for source in sources]
        if not int8[node.name]:
            assert "DequantizeLinear" not in kinds
            continue
        assert kinds[:2] == ["DequantizeLinear", "DequantizeLinear"]
        assert all(name in values and values[name].dtype.kind == "f" for name in node.input[2:])
        assert sources[1] is not None
        axis = next(a.i for a in sources[1].attribute if a.name == "axis")
        assert axis == (1 if node.op_type == "MatMul" or not transposed(node) else 0)


def transposed(node: NodeProto) -> bool:
    """Whether the outputs are the first axis of the weight."""
    return node.op_type == "Conv" or any(a.name == "transB" and a.i for a in node.attribute)


def int8_of(sites: list[Site]) -> dict[str, bool]:
    return {site.node: site.excluded is None for site in sites}


class TestOnANetwork:
    @pytest.mark.parametrize("policy", [Policy(), ALL_POINTS, EVERYTHING], ids=["default", "points", "all"])
    def test_form(self, policy: Policy) -> None:
        simple, half, amax, _ = segment()
        sites = find_sites(indexed(simple), policy)
        model, report = inserted(simple, half, amax, policy)
        check_form(model, int8_of(sites))
        pairs = Counter(node.op_type for node in model.graph.node)["QuantizeLinear"]
        assert pairs == report.sites_int8 + report.skips + 5 * report.attentions_int8
        assert (report.skips > 0) == (report.attentions_int8 > 0) == (policy is ALL_POINTS)

    def test_all_that_was_there_is_there(self) -> None:
        simple, half, amax, _ = segment()
        before = copied(half)
        model, _ = inserted(simple, half, amax, Policy())
        assert half == before
        pairs = ("QuantizeLinear", "DequantizeLinear")
        rest = [(n.name, n.op_type, n.attribute) for n in model.graph.node if n.op_type not in pairs]
        assert rest == [(n.name, n.op_type, n.attribute) for n in half.graph.node]
        assert (model.graph.input, model.graph.output) == (half.graph.input, half.graph.output)
        assert (model.metadata_props, model.opset_import) == (half.metadata_props, half.opset_import)

    def test_the_same_bytes_again(self) -> None:
        simple, half, amax, _ = segment()
        first, again = (inserted(simple, half, amax, ALL_POINTS)[0] for _ in range(2))
        assert content(first) == content(again)

    def test_nothing_to_quantize_is_the_fp16_graph(self) -> None:
        simple, half, _, picture = segment()
        sites = [replace(site, excluded="kept") for site in find_sites(indexed(simple))]
        assert calibration_tensors(sites) == []
        model, report = quantize(half, sites, {})
        assert (report.sites_int8, report.macs_share, report.channels) == (0, 0.0, 0)
        assert np.array_equal(run(model, {INPUT: picture})[0], run(half, {INPUT: picture})[0])

    def test_names_for_calibration(self) -> None:
        simple, _, amax, _ = segment()
        sites = find_sites(indexed(simple), ALL_POINTS)
        skips, attentions = (
            find_skips(indexed(simple), sites, ALL_POINTS),
            find_attentions(indexed(simple), ALL_POINTS),
        )
        plain, more = calibration_tensors(sites), calibration_tensors(sites, skips, attentions)
        assert len(set(more)) == len(more) > len(plain)
        assert plain == list(dict.fromkeys(site.tensor for site in sites if site.excluded is None))
        assert {skip.tensor for skip in skips} < set(more) <= set(amax)
        legal = [attention for attention in attentions if attention.illegal is None]
        assert {point for attention in legal for point in attention.points} < set(more)

    def test_report(self) -> None:
        simple, half, amax, _ = segment()
        sites = find_sites(indexed(simple))
        _, report = inserted(simple, half, amax, Policy())
        assert json.loads(json.dumps(report.to_json()))["macs_share"] == report.macs_share
        assert report.sites_int8 + sum(report.sites_fp16.values()) == len(report.layers) == len(sites)
        assert report.macs_int8 + sum(report.macs_fp16.values()) == report.macs_total
        assert report.macs_total == sum(site.macs for site in sites)
        assert set(report.sites_fp16) == set(report.macs_fp16) == {"first", "depthwise", "last"}
        shape = {tensor.name: tensor.dims for tensor in simple.graph.initializer}
        weight = {node.name: shape[node.input[1]] for node in simple.graph.node if node.name in int8_of(sites)}
        assert report.channels == sum(weight[s.node][0] for s in sites if s.excluded is None)
        # Uniform weights of one channel lose 20 log10(2 * 127) = 48 dB, and normal ones some 10 dB more.
        for layer, site in zip(report.layers, sites, strict=True):
            assert (layer.node, layer.module, layer.op, layer.macs) == (
                site.node,
                site.module,
                site.op,
                site.macs,
            )
            assert (layer.weight_sqnr_db is None) == (site.excluded is not None)
            assert layer.weight_sqnr_db is None or 35 < layer.weight_sqnr_db < 55

    def sqnr(self, model: ModelProto) -> float:
        simple, _, _, picture = segment()
        (expected,), (result,) = run(simple, {INPUT: picture}), run(model, {INPUT: picture}, optimise=False)
        return compare_arrays(expected, result, "segment").sqnr_db

    def test_parity_and_what_a_wrong_scale_does_to_it(self) -> None:
        simple, half, amax, _ = segment()
        right = self.sqnr(inserted(simple, half, amax, Policy())[0])
        assert right > PARITY_DB
        # Half the range clips the largest values, which costs nearly everything (-2 dB are left). Twice the range has
        # steps twice as large: 6 dB if all noise were the activations', 5 here.
        for factor, lost in ((0.5, 15.0), (2.0, 3.0)):
            wrong = {name: factor * value for name, value in amax.items()}
            assert self.sqnr(inserted(simple, half, wrong, Policy())[0]) < right - lost

    def test_every_point_in_int8_is_still_the_same_network(self) -> None:
        simple, half, amax, _ = segment()
        assert self.sqnr(inserted(simple, half, amax, ALL_POINTS)[0]) > PARITY_DB - 3

    def test_the_fp32_graph_gets_fp32_scales(self) -> None:
        simple, _, amax, _ = segment()
        model, _ = inserted(simple, simple, amax, Policy())
        check_form(model, int8_of(find_sites(indexed(simple))))
        assert not any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer)
        assert self.sqnr(model) > PARITY_DB

    def test_a_symbolic_batch(self) -> None:
        _, _, amax, picture = segment()
        simple = tiny_simplified(tiny_spec(), dynamic_batch=True)
        # The exporter names tensors alike whatever the batch is, so that the ranges fit.
        model, _ = inserted(simple, to_fp16(simple)[0], amax, Policy())
        single = run(model, {INPUT: picture})[0]
        both = run(model, {INPUT: np.concatenate([picture, -picture])})[0]
        # ONNX Runtime may sum a batch of two in another order, and a rounding may be tipped over.
        assert compare_arrays(single, both[:1], "segment").sqnr_db > 40


class TestRefusals:
    TEXT = """g (float[1,32,4,4] x) => (float[1,32,4,4] y) {
      a = Conv<kernel_shape=[1,1]>(x, w) b = Relu(a) c = Conv<kernel_shape=[1,1]>(b, w) y = Relu(c) }"""

    def graph(self, opset: int = 20) -> ModelProto:
        return named(build(self.TEXT, {"w": noise(32, 32, 1, 1)}, opset))

    def test_opset_18(self) -> None:
        simple = self.graph(opset=18)
        with pytest.raises(UsageError, match=r"opset 18; .* need 19 or later: export with --opset 20"):
            inserted(simple, to_fp16(simple)[0], {"x": 1.0, "b": 1.0}, Policy())

    @pytest.mark.parametrize(
        ("amax", "said"),
        [
            ({}, r"no range for tensor 'b' of 'c/Conv': calibrate"),
            ({"b": math.nan}, "range of tensor 'b' of 'c/Conv' is nan: allowed is 0 to"),
            ({"b": math.inf}, "is inf"),
            ({"b": -1.0}, "is -1.0"),
            ({"b": 1e7}, "is 10000000.0"),
        ],
    )
    def test_ranges(self, amax: dict[str, float], said: str) -> None:
        simple = self.graph()
        with pytest.raises(ArtefactError, match=said):
            inserted(simple, to_fp16(simple)[0], amax, Policy())

    def test_a_table_without_several_of_them(self) -> None:
        simple = self.graph()
        with pytest.raises(ArtefactError, match=r"tensor 'x' of 'a/Conv' \(and 1 more\)"):
            inserted(simple, to_fp16(simple)[0], {}, Policy(first=True))

    def test_a_graph_input(self) -> None:
        simple = self.graph()
        amax = {"x": 1.0, "b": 1.0}
        assert inserted(simple, to_fp16(simple)[0], amax, Policy(first=True))[1].sites_int8 == 2
        with pytest.raises(UsageError, match="'a/Conv' reads the graph input 'x', which must not be quantized"):
            inserted(simple, to_fp16(simple, io="fp16")[0], amax, Policy(first=True))
        assert inserted(simple, to_fp16(simple, io="fp16")[0], amax, Policy())[1].sites_int8 == 1

    def test_a_graph_of_something_else(self) -> None:
        simple, other = self.graph(), self.graph()
        other.graph.node[2].name = "d/Conv"
        with pytest.raises(UsageError, match="no node 'c/Conv' with input 0: give the FP16 form"):
            quantize(to_fp16(other)[0], find_sites(indexed(simple)), {"b": 1.0})

    def test_a_weight_that_is_computed(self) -> None:
        simple, other = self.graph(), to_fp16(self.graph())[0]
        other.graph.node.insert(0, onnx.helper.make_node("Identity", ["w"], ["w_copy"], "w/Identity"))
        next(node for node in other.graph.node if node.name == "c/Conv").input[1] = "w_copy"
        with pytest.raises(UsageError, match="weight of 'c/Conv' is not constant"):
            quantize(other, find_sites(indexed(simple)), {"b": 1.0})

    def test_weights_that_are_no_numbers(self) -> None:
        weights = noise(32, 32, 1, 1)
        weights[3, 4] = np.nan
        simple = named(build(self.TEXT, {"w": weights}))
        with pytest.raises(HiresvitError, match="weight 'w' of 'c/Conv' has NaN or Inf"):
            inserted(simple, to_fp16(simple)[0], {"b": 1.0}, Policy())

    def test_an_illegal_graph(self) -> None:
        simple = self.graph()
        half = to_fp16(simple)[0]
        half.graph.node[1].input[1] = "nothing"
        with pytest.raises(IllegalGraphError, match="the graph to quantize is not valid ONNX"):
            quantize(half, find_sites(indexed(simple)), {"b": 1.0})

    def test_a_tensor_that_is_always_0(self) -> None:
        simple = self.graph()
        model, report = inserted(simple, to_fp16(simple)[0], {"b": 0.0}, Policy())
        assert report.activations_floored == ("b",)
        (result,) = run(model, {"x": noise(1, 32, 4, 4)})
        assert np.isfinite(result).all()
