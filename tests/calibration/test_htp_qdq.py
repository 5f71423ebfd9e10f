"""Q/DQ for the HTP: what is written, what it computes, and that every fault in a form is noticed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import Array, build, content, named_graph, noise, run
from onnx import ModelProto, NodeProto, numpy_helper

from hiresvit.calibration.collect import collect
from hiresvit.calibration.htp_audit import check_htp
from hiresvit.calibration.htp_plan import Bits, Width
from hiresvit.calibration.htp_qdq import encoding, htp_groups, htp_tensors, quantize_htp
from hiresvit.device.chips import CHIPS, Chip
from hiresvit.errors import ArtefactError, GateError, HiresvitError, UsageError
from hiresvit.runtime.qnn_runner import QnnRunner

AR1, XR2 = CHIPS["ar1"], CHIPS["xr2-gen2"]
SHAPE = (1, 4, 8, 8)


@cache
def block() -> bytes:
    """Every form there is: a convolution, a norm, an attention with a mask, a GELU, a Resize, and a bilinear sum."""
    body = """
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
        t = Transpose<perm=[0,2,3,1]>(a)
        r = Reshape(t, rows)
        n = LayerNormalization<axis=-1>(r, gain, shift)
        q = MatMul(n, wq)
        k = Transpose<perm=[0,2,1]>(n)
        s = MatMul(q, k)
        m = Add(s, mask)
        p = Softmax<axis=-1>(m)
        o = MatMul(p, q)
        f = Reshape(o, flat)
        g = Gemm<transB=0>(f, wg, bg)
        h = Gelu(g)
        v = Reshape(h, picture)
        c = Transpose<perm=[0,3,1,2]>(v)
        u = Resize<mode="linear", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(c, , scales)
        d = Concat<axis=1>(u, u)
        y = Relu(d)
    """
    generator = np.random.default_rng(1)

    def weight(*shape: int) -> Array:
        return generator.normal(0, 0.5, shape).astype(np.float32)

    mask = np.zeros((1, 64, 64), np.float32)
    mask[..., 50:] = -20
    model = named_graph(
        body,
        "float[1,4,8,8] x",
        "float[1,16,16,16] y",
        w=weight(8, 4, 3, 3),
        b=weight(8),
        gain=1 + weight(8),
        shift=weight(8),
        wq=weight(8, 8),
        wg=weight(8, 8),
        bg=weight(8),
        mask=mask,
        rows=np.array([1, 64, 8]),
        flat=np.array([64, 8]),
        picture=np.array([1, 8, 8, 8]),
        scales=np.array([1, 1, 2, 2], np.float32),
    )
    for node in model.graph.node:
        node.name = f"m.{node.output[0]}.layer/{node.op_type}"
    return content(model)


def plain() -> ModelProto:
    return onnx.load_from_string(block())


FEEDS = [{"x": noise(*SHAPE, seed=seed)} for seed in range(4)]


@cache
def ranges() -> dict[str, tuple[float, float]]:
    found = collect(plain(), htp_tensors(plain()), FEEDS, look="ranges")
    return {name: (statistics.lowest, statistics.highest) for name, statistics in found.items()}


@cache
def _made(bits: Bits, chip: Chip) -> bytes:
    return content(quantize_htp(plain(), ranges(), bits, chip)[0])


def made(bits: Bits, chip: Chip = AR1) -> ModelProto:
    return onnx.load_from_string(_made(bits, chip))


MIXED = Bits(8, frozenset({"m.n", "m.m", "m.g"}))
ALL = [(Bits(8), AR1), (Bits(16), AR1), (MIXED, AR1), (Bits(16), XR2), (MIXED, XR2)]


def decibels(reference: Array, test: Array) -> float:
    return float(20 * np.log10(np.linalg.norm(reference) / np.linalg.norm(reference - test)))


def test_what_is_moved_has_no_range_of_its_own() -> None:
    """It has that of what made its numbers."""
    assert htp_tensors(plain()) == ["x", "a", "n", "q", "s", "m", "p", "o", "g", "h", "d", "y"]


@pytest.mark.parametrize(("bits", "chip"), ALL)
def test_the_second_look_finds_nothing_and_equal_arguments_give_equal_bytes(bits: Bits, chip: Chip) -> None:
    graph, report = quantize_htp(plain(), ranges(), bits, chip)
    assert content(graph) == _made(bits, chip)
    assert check_htp(graph, plain(), ranges(), {}, chip) > 30
    assert [layer.node for layer in report.layers] == ["m.a.layer/Conv", "m.q.layer/MatMul", "m.g.layer/Gemm"]
    assert (report.converts > 0) == (bits != Bits(8))


@pytest.mark.parametrize(("bits", "least"), [(Bits(8), 23), (MIXED, 23), (Bits(16), 32)])
def test_how_near_fp32_it_is(bits: Bits, least: float) -> None:
    """Weights of 8 bits are the limit of the last; a wrong zero point or scale leaves a few dB."""
    found = decibels(run(plain(), FEEDS[0])[0], run(made(bits), FEEDS[0])[0])
    assert least < found < 60


@pytest.mark.parametrize(("bits", "chip"), ALL)
def test_the_compiler_takes_it_whole_and_the_emulator_agrees(bits: Bits, chip: Chip, tmp_path: Path) -> None:
    """Fallback is forbidden. The two round alike but for single steps: 27 dB of 8 bits, 38 of 16. A wrong scale or zero
    point leaves 10 and less.
    """
    pytest.importorskip("onnxruntime_qnn")
    path = tmp_path / "graph.onnx"
    onnx.save(made(bits, chip), path)
    with QnnRunner(path, detail=chip.name) as runner:
        found = [runner(feed)["y"] for feed in FEEDS[:2]]
    for feed, answer in zip(FEEDS, found, strict=False):
        assert decibels(run(made(bits, chip), feed)[0], answer) > (30 if bits == Bits(16) and chip is AR1 else 20)


# Faults, each in the form that a writer could have by mistake.


def node_of(graph: ModelProto, name: str) -> NodeProto:
    found: NodeProto = next(node for node in graph.graph.node if node.name == name)
    return found


def maker_of(graph: ModelProto, name: str) -> NodeProto:
    found: NodeProto = next(node for node in graph.graph.node if name in node.output)
    return found


def reader_of(graph: ModelProto, name: str) -> NodeProto:
    """The first of them."""
    found: NodeProto = next(node for node in graph.graph.node if name in node.input)
    return found


def changed(graph: ModelProto, node: NodeProto, place: int, change: Callable[[Array], Any]) -> None:
    """Give a node a constant of its own, and whoever reads it as this node does."""
    tensor = next(t for t in graph.graph.initializer if t.name == node.input[place])
    value = np.asarray(change(numpy_helper.to_array(tensor)))
    name = f"{tensor.name}/changed/{node.name}"
    graph.graph.initializer.append(numpy_helper.from_array(value, name))
    node.input[place] = name


def pair(graph: ModelProto, result: str, change: Callable[[Array], Any], place: int) -> None:
    """Change scale (1) or zero point (2) of a result's pair, on both sides."""
    quantizer = reader_of(graph, result)
    for node in (quantizer, *(n for n in graph.graph.node if quantizer.output[0] in n.input)):
        changed(graph, node, place, change)


def own_range_behind_resize(graph: ModelProto) -> None:
    pair(graph, "u", lambda scale: scale * np.float32(1.1), 1)


def signed_softmax(graph: ModelProto) -> None:
    pair(graph, "p", lambda zero: zero.astype(np.int8), 2)
    pair(graph, "p", lambda _: np.float32(1 / 127), 1)


def wider_softmax(graph: ModelProto) -> None:
    pair(graph, "p", lambda scale: scale * np.float32(1.5), 1)


def signed_gain(graph: ModelProto) -> None:
    node = maker_of(graph, node_of(graph, "m.n.layer/LayerNormalization").input[1])
    changed(graph, node, 0, lambda levels: (levels.astype(int) // 2).astype(np.int8))
    changed(graph, node, 1, lambda scale: scale * np.float32(2))
    changed(graph, node, 2, lambda zero: (zero.astype(int) // 2).astype(np.int8))


def bias_of_another_scale(graph: ModelProto) -> None:
    changed(graph, maker_of(graph, node_of(graph, "m.a.layer/Conv").input[2]), 1, lambda scale: scale * np.float32(2))


def swapped_zero_point(graph: ModelProto) -> None:
    pair(graph, "a", lambda zero: np.asarray(255 - zero, np.uint8), 2)


def zero_point_of_one_side(graph: ModelProto) -> None:
    changed(graph, reader_of(graph, reader_of(graph, "a").output[0]), 2, lambda zero: np.asarray(zero + 9, np.uint8))


def weight_of_a_neighbour(graph: ModelProto) -> None:
    changed(graph, maker_of(graph, node_of(graph, "m.a.layer/Conv").input[1]), 1, lambda scale: np.roll(scale, 1))


def activation_in_float(graph: ModelProto) -> None:
    node_of(graph, "m.g.layer/Gemm").input[0] = "f"


FAULTS: dict[Callable[[ModelProto], None], str] = {
    own_range_behind_resize: "Resize must have one scale and zero point on both sides",
    signed_softmax: "it reads uint8 and makes int8",
    wider_softmax: "the scale of 'p'",
    signed_gain: "its gain is int8, and the HTP takes uint8 here",
    bias_of_another_scale: "the integers of its input 2 are not 'b'",
    swapped_zero_point: "the zero point of 'a' is",
    zero_point_of_one_side: "reads it with another scale or zero point|the zero point of 'a'",
    weight_of_a_neighbour: "the integers of its input 1 are not 'w'",
    activation_in_float: "its result 0 is not quantized, and the HTP computes in integers",
}


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_the_second_look_finds_a_fault(plant: Callable[[ModelProto], None]) -> None:
    graph = made(Bits(8))
    plant(graph)
    with pytest.raises(GateError, match=FAULTS[plant]):
        check_htp(graph, plain(), ranges(), {}, AR1)


@pytest.mark.parametrize("plant", [own_range_behind_resize, signed_softmax, signed_gain], ids=lambda f: f.__name__)
def test_why_it_is_a_fault(plant: Callable[[ModelProto], None], tmp_path: Path) -> None:
    """The compiler refuses it, or what it makes answers wrongly."""
    pytest.importorskip("onnxruntime_qnn")
    graph = made(Bits(8))
    plant(graph)
    path = tmp_path / "graph.onnx"
    onnx.save(graph, path)
    try:
        with QnnRunner(path, detail="ar1") as runner:
            answer = runner(FEEDS[0])["y"]
    except HiresvitError:
        return
    assert decibels(run(plain(), FEEDS[0])[0], answer) < 20


def test_the_range_that_is_asked_for_is_what_is_held() -> None:
    wider = {**ranges(), "a": (-100.0, 100.0)}
    with pytest.raises(GateError, match=r"the scale of 'a' is .*asks for 0\.7843: calibrate again"):
        check_htp(made(Bits(8)), plain(), wider, {}, AR1)


def test_the_wrong_chip_is_noticed() -> None:
    with pytest.raises(GateError, match="its second is int16, and the HTP takes uint8 here"):
        check_htp(made(Bits(16)), plain(), ranges(), {}, XR2)


def test_8_bits_are_cut_and_16_are_not() -> None:
    """And what a GELU makes next to nothing of is not kept: below -4 in 8 bits."""
    widths: tuple[tuple[Width, float | None], ...] = ((8, 0.5), (16, None))
    for width, cut in widths:
        graph, _ = quantize_htp(plain(), ranges(), Bits(width), AR1, cuts={"x": 0.5, "p": 1e-3})
        scale = numpy_helper.to_array(
            next(t for t in graph.graph.initializer if t.name == reader_of(graph, "x").input[1])
        )
        low, high = (-cut, cut) if cut else ranges()["x"]
        assert float(scale) == pytest.approx((high - low) / (2**width - 1))
    graph, _ = quantize_htp(plain(), ranges(), Bits(8), AR1, cuts={"p": 1e-3})
    check_htp(graph, plain(), ranges(), {}, AR1)  # what weighs is not cut
    wide = {**ranges(), "g": (-40.0, 4.0)}
    graph, _ = quantize_htp(plain(), wide, Bits(8), AR1)
    check_htp(graph, plain(), wide, {}, AR1)
    pairs = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    assert float(pairs[reader_of(graph, "g").input[1]]) == pytest.approx(8 / 255)


def test_a_mask_that_was_clipped_since_does_not_widen_its_sum() -> None:
    before = {**ranges(), "m": (-1e4, ranges()["m"][1])}
    graph, _ = quantize_htp(plain(), before, Bits(16), AR1)
    scale = next(t for t in graph.graph.initializer if t.name == reader_of(graph, "m").input[1])
    assert float(numpy_helper.to_array(scale)) < 100 / 65535


@pytest.mark.parametrize("ends", [(-1.0, 3.0), (0.0, 1e-30), (-5.0, 0.0), (-1e30, 1e30), (0.0, 1.0)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_an_encoding_holds_its_range_and_zero_exactly(ends: tuple[float, float], dtype: str) -> None:
    scale, zero = encoding(ends, dtype)
    limits = np.iinfo(dtype)
    assert scale.dtype == np.float32
    assert zero.dtype == dtype
    step = float(scale)
    assert (limits.min - int(zero)) * step <= ends[0] + 0.51 * step
    assert (limits.max - int(zero)) * step >= ends[1] - 0.51 * step


def test_a_bias_that_is_too_large_for_its_weights_lifts_their_scale() -> None:
    model = named_graph(
        "y = Gemm<transB=1>(x, w, b)",
        "float[1,2] x",
        "float[1,2] y",
        w=np.array([[1e-9, 0], [1, 1]], np.float32),
        b=np.array([1000, 0], np.float32),
    )
    graph, report = quantize_htp(model, {"x": (-1e-3, 1e-3), "y": (0.0, 1000.0)}, Bits(16), AR1)
    assert (report.channels, report.channels_lifted, report.channels_zero) == (2, 1, 0)
    assert run(graph, {"x": np.zeros((1, 2), np.float32)})[0][0, 0] == pytest.approx(1000, rel=1e-4)


def test_modules_that_hold_others_are_the_groups() -> None:
    model = named_graph("a = Relu(x) b = Relu(a) c = Relu(b) y = Relu(c)", "float[1] x", "float[1] y")
    for node, name in zip(model.graph.node, ("net.block.attn.q", "net.block.attn", "net.block", "out"), strict=True):
        node.name = f"{name}/Relu"
    assert [group.module for group in htp_groups(model)] == ["net.block.attn", "net.block", "out"]


def test_what_is_refused() -> None:
    with pytest.raises(ArtefactError, match=r"no range for tensor 'a' \(and 9 more\)|no range for tensor 'a'"):
        quantize_htp(plain(), {"x": (-1.0, 1.0)}, Bits(8), AR1)
    with pytest.raises(UsageError, match="the graph is opset 17; the HTP needs 20 or later: export with --opset 20"):
        htp_tensors(build("g (float[1] x) => (float[1] y) { y = Relu(x) }", opset=17))
    broken = named_graph("y = MatMul(x, w)", "float[1,2] x", "float[1,1] y", w=np.array([[np.nan], [1]], np.float32))
    with pytest.raises(HiresvitError, match="the constant 'w' has NaN or Inf: repair the checkpoint"):
        quantize_htp(broken, {"x": (-1.0, 1.0), "y": (-1.0, 1.0)}, Bits(8), AR1)
