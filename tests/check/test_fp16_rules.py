"""Where the rules about numbers begin and end, the advice, and what their messages say of TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import build, content
from onnx import ModelProto

from hiresvit.check.rule import Finding
from hiresvit.check.rules import find_problems
from hiresvit.check.targets import TARGETS
from hiresvit.device.tensorrt_api import installed
from hiresvit.engine.build import BuildSettings, build_engine

needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason="TensorRT-RTX is not installed")

F16, F32, I8 = np.float16, np.float32, np.int8
SMALLEST_NORMAL = F16(2.0**-14)
BELOW = np.nextafter(SMALLEST_NORMAL, F16(0))


def found(model: ModelProto, rule: str, target: str = "rtx") -> list[Finding]:
    return [f for f in find_problems(model, TARGETS[target], profiled=False) if f.rule == rule]


def graph(io: str, body: str, constants: Mapping[str, Any] | None = None) -> ModelProto:
    return build(f"g {io} {{ {body} }}", constants)


ROWS = "(float16[4,16] x) => (float16[4,16] y)"


class TestLimits:
    @pytest.mark.parametrize(("value", "hazard"), [(SMALLEST_NORMAL, False), (BELOW, True), (-BELOW, True)])
    def test_epsilon_and_factor(self, value: np.float16, hazard: bool) -> None:
        root = graph(ROWS, "e = Add(x, c) y = Sqrt(e)", {"c": value})
        factor = graph(ROWS, "y = Mul(x, c)", {"c": np.full(16, value)})
        assert bool(found(root, "epsilon")) == hazard
        assert bool(found(factor, "tiny_factor")) == hazard

    def test_one_normal_value_makes_a_factor(self) -> None:
        values = np.full(16, BELOW)
        values[3] = SMALLEST_NORMAL
        assert found(graph(ROWS, "y = Mul(x, c)", {"c": values}), "tiny_factor") == []

    def test_a_factor_of_zeros_is_what_it_says(self) -> None:
        assert found(graph(ROWS, "y = Mul(x, c)", {"c": np.zeros(16, F16)}), "tiny_factor") == []

    @pytest.mark.parametrize(
        ("value", "hazard"), [(-65472, False), (-65504, True), (-np.inf, True), (65504, False)]
    )
    def test_mask(self, value: float, hazard: bool) -> None:
        model = graph(ROWS, "a = Add(x, m) y = Softmax(a)", {"m": np.array([0] * 15 + [value], F16)})
        assert bool(found(model, "mask")) == hazard

    def test_what_the_mask_message_says(self) -> None:
        """Sums of FP16 round: the last below -65504 is halfway to -65536, where infinity begins."""
        least = F16(-65504)
        with np.errstate(over="ignore"):
            assert np.isinf(least + F16(-16))
            assert np.isinf(F16(-1e9))
        assert least + np.nextafter(F16(-16), F16(0)) == least
        scores = np.array([least, least], F32)
        assert np.exp(scores - scores.max()).sum() == 2  # a row that is masked whole with it is no NaN
        (finding,) = found(graph(ROWS, "a = Add(x, m) y = Softmax(a)", {"m": np.full(16, least)}), "mask")
        for claim in ("-inf of what is below", "-65504 plus a score of -16 or less", "a row of nothing else"):
            assert claim in finding.message

    @pytest.mark.parametrize(
        ("mask", "hazard"),
        [
            ("m = Where(c, least, zero)", True),
            ("m = Where(c, zero, least)", True),
            ("m = Where(c, few, zero)", False),
            ("w = Where(c, least, zero) t = Expand(w, s) m = Unsqueeze(t, first)", True),
            ("f = Cast<to = 10>(c) m = Mul(f, least)", True),
            ("f = ConstantOfShape<value = float16[1] {64511}>(s) m = Trilu(f, one)", True),
            ("f = ConstantOfShape<value = float16[1] {48128}>(s) m = Trilu(f, one)", False),
            ("w = Where(c, least, zero) m = Clip(w, few)", False),
            ("w = Where(c, least, zero) m = Relu(w)", False),
        ],
    )
    def test_masks_that_the_graph_makes(self, mask: str, hazard: bool) -> None:
        """ONNX's text has a number of FP16 by its bits: 64511 is -65504, 48128 is -1."""
        constants = {
            **{"least": F16(-65504), "few": F16(-100), "zero": F16(0), "s": np.array([4, 4])},
            **{"first": np.array([0]), "one": np.array(1)},
        }
        io = "(float16[2,4,4] x, bool[4,4] c) => (float16[2,4,4] y)"
        assert bool(found(graph(io, f"{mask} a = Add(x, m) y = Softmax(a)", constants), "mask")) == hazard

    @pytest.mark.parametrize(("value", "hazard"), [(-65504, False), (-np.inf, True)])
    def test_a_mask_in_place_of_scores_is_a_hazard_if_it_is_infinite(
        self, value: float, hazard: bool
    ) -> None:
        io, constants = "(float16[4,4] x, bool[4,4] c) => (float16[4,4] y)", {"m": F16(value)}
        assert bool(found(graph(io, "s = Where(c, m, x) y = Softmax(s)", constants), "mask")) == hazard
        added = "s = Where(c, m, x) t = Add(s, x) y = Softmax(t)"
        assert found(graph(io, added, constants), "mask")

    def test_a_mask_that_is_added_in_fp32_is_none(self) -> None:
        io = "(float[4,4] x, bool[4,4] c) => (float[4,4] y)"
        body = "m = Where(c, least, zero) w = Cast<to = 1>(m) a = Add(x, w) y = Softmax(a)"
        constants = {"least": F16(-65504), "zero": F16(0)}
        assert found(graph(io, body, constants), "mask") == []

    @pytest.mark.parametrize("between", ["Reshape(a, s)", "Cast<to = 1>(a)", "Transpose(a)", "Identity(a)"])
    def test_mask_through_layout(self, between: str) -> None:
        constants = {"m": np.full(16, -65504, F16), "s": np.array([4, 16])}
        body = f"a = Add(x, m) b = {between} c = Softmax(b) y = Cast<to = 10>(c)"
        (finding,) = found(graph(ROWS, body, constants), "mask")
        assert "-65504" in finding.message

    @pytest.mark.parametrize(("side", "hazard"), [((32, 64), False), ((3, 683), True)])
    def test_long_sum(self, side: tuple[int, int], hazard: bool) -> None:
        shape = f"float16[1,2,{side[0]},{side[1]}]"  # 2048 and 2049 elements
        for op in ("GlobalAveragePool(x)", "ReduceMean(x, a)", "ReduceSum(x, a)"):
            model = graph(f"({shape} x) => (float16[1,2,1,1] y)", f"y = {op}", {"a": np.array([-1, 2])})
            assert bool(found(model, "long_sum")) == hazard, op
        window = f"y = AveragePool<kernel_shape = [{side[0]}, {side[1]}]>(x)"
        assert bool(found(graph(f"({shape} x) => (float16[1,2,1,1] y)", window), "long_sum")) == hazard

    def test_a_sum_of_unknown_length_is_no_hazard(self) -> None:
        model = graph("(float16[1,2,H,W] x) => (float16[1,2,1,1] y)", "y = GlobalAveragePool(x)")
        assert found(model, "long_sum") == []

    def test_no_axes_that_mean_none(self) -> None:
        body = "y = ReduceMean<noop_with_empty_axes = 1>(x)"
        model = graph("(float16[64,64] x) => (float16[64,64] y)", body)
        assert found(model, "long_sum") == []

    def test_infinite_counts(self) -> None:
        (finding,) = found(
            graph(ROWS, "y = Mul(x, c)", {"c": np.array([np.inf, np.nan] + [1] * 14, F16)}), "infinite"
        )
        assert "2 of 16 values of 'c'" in finding.message

    def test_a_divided_square_root_is_no_norm(self) -> None:
        model = graph(ROWS, "p = Mul(x, x) e = Add(p, c) y = Sqrt(e)", {"c": F16(1)})
        assert found(model, "decomposed_norm") == []

    def test_a_norm_by_the_mean_of_squares_alone(self) -> None:
        body = "p = Mul(x, x) v = ReduceMean(p, a) e = Add(v, c) r = Sqrt(e) y = Div(x, r)"
        (finding,) = found(graph(ROWS, body, {"a": np.array([-1]), "c": F16(1)}), "decomposed_norm")
        assert finding.nodes == ("ReduceMean of v",)


Q = "q = QuantizeLinear(r, s, z) d = DequantizeLinear(q, s, z)"
W = "dw = DequantizeLinear<axis = 1>(w, ws)"
QUANTIZED: dict[str, Any] = {
    "s": F16(0.1),
    "z": I8(0),
    "w": np.arange(-64, 64, dtype=I8).repeat(32).reshape(64, 64),
    "ws": np.full(64, 0.01, F16),
    "s32": F32(0.1),
}


def product(before: str, result: str = "float16") -> ModelProto:
    body = f"r = Relu(x) {before} t = MatMul(d, dw) y = Relu(t)"
    return build(f"g (float16[64,64] x) => ({result}[64,64] y) {{ {body} }}", QUANTIZED, 23)


# What is said of TensorRT-RTX: which forms it computes in INT8 and which not.
WIDENED = (
    "q = QuantizeLinear(r, s, z) e = DequantizeLinear(q, s, z) d = Cast<to = 1>(e) "
    "f = DequantizeLinear<axis = 1>(w, ws) dw = Cast<to = 1>(f)"
)
REALISED = [
    ("plain", f"{Q} {W}", "float16", None, "int8"),
    ("axis", f"{Q} dw = DequantizeLinear<axis = 0>(w, ws)", "float16", "weight_axis", "fp16"),
    (
        "channels",
        f"q = QuantizeLinear<axis = 1>(r, ws) d = DequantizeLinear<axis = 1>(q, ws) {W}",
        "float16",
        "channel_activation",
        "fp16",
    ),
    ("widened", WIDENED, "float", "widened", "fp32"),
    (
        "narrowed",
        f"q = QuantizeLinear(r, s, z) e = DequantizeLinear(q, s32, z) d = Cast<to = 10>(e) {W}",
        "float16",
        None,
        "int8",
    ),
    (
        "computed",
        f"m = ReduceMax<keepdims = 0>(r) c = Mul(m, s) q = QuantizeLinear(r, c, z) d = DequantizeLinear(q, c, z) {W}",
        "float16",
        "scale_dynamic",
        "fp16",
    ),
    (
        "wide-scale",
        f"q = QuantizeLinear(r, s32, z) d = DequantizeLinear<output_dtype = 10>(q, s32, z) {W}",
        "float16",
        None,
        "int8",
    ),
]


@needs_rtx
@pytest.mark.parametrize("form", REALISED, ids=[form[0] for form in REALISED])
def test_what_rtx_makes_of_it(form: tuple[str, str, str, str | None, str], tmp_path: Path) -> None:
    _, before, result, rule, precision = form
    model = product(before, result)
    path = tmp_path / "graph.onnx"
    path.write_bytes(content(model))
    report = build_engine(path, tmp_path / "plan", BuildSettings("tensorrt_rtx"))
    assert report.precision == {precision: 1}
    told = {f.rule for f in find_problems(model, TARGETS["rtx"], profiled=False) if f.level == "hazard"}
    assert (rule in told) == (precision != "int8")


class TestAdvice:
    SHARED = (
        "n = LayerNormalization(x, g) a = MatMul(n, w) "
        "t = Transpose(n) u = Transpose(t) b = MatMul(u, w) y = Add(a, b)"
    )
    WEIGHTS: Mapping[str, Any] = {"g": np.ones(16, F16), "w": np.ones((16, 16), F16)}

    def test_linear_layers_that_share_a_norm(self) -> None:
        model = graph(ROWS, self.SHARED, self.WEIGHTS)
        (finding,) = found(model, "shared_norm", "jetpack7")
        assert (finding.level, finding.count) == ("advice", 1)
        assert "__LUNOWUD=-peep:fc_h_fusion=off" in finding.message
        assert "TensorRT-Edge-LLM#151" in finding.message
        for other in ("jetpack6", "trt11", "rtx"):
            assert found(model, "shared_norm", other) == []

    @pytest.mark.parametrize(
        "body",
        [
            "n = LayerNormalization(x, g) a = MatMul(n, w) y = Add(a, n)",
            "n = LayerNormalization(x, g) a = MatMul(n, w) t = Transpose(n) y = MatMul(a, t)",
            "n = Relu(x) a = MatMul(n, w) b = MatMul(n, w) y = Add(a, b)",
        ],
        ids=["one-linear", "a-product-of-activations", "no-norm"],
    )
    def test_what_does_not_share_one(self, body: str) -> None:
        assert (
            found(
                graph("(float16[16,16] x) => (float16[16,16] y)", body, self.WEIGHTS),
                "shared_norm",
                "jetpack7",
            )
            == []
        )

    def test_quantized_layers_that_share_one(self) -> None:
        body = (
            "r = LayerNormalization(x, g) q = QuantizeLinear(r, s, z) d = DequantizeLinear(q, s, z) "
            "e = DequantizeLinear(q, s, z) f = DequantizeLinear(i, ws) h = DequantizeLinear(i, ws) "
            "a = MatMul(d, f) b = MatMul(e, h) y = Add(a, b)"
        )
        constants = {
            **self.WEIGHTS,
            "s": F16(1),
            "z": I8(0),
            "i": np.ones((16, 16), I8),
            "ws": np.ones(16, F16),
        }
        assert len(found(graph(ROWS, body, constants), "shared_norm", "jetpack7")) == 1

    def test_quantized_graphs_on_orin(self) -> None:
        model = product(f"{Q} {W}")
        (finding,) = found(model, "orin_qdq", "jetpack7")
        assert finding.count == 3
        assert "TensorRT#4832" in finding.message
        assert found(model, "orin_qdq", "jetpack6") == []
        assert found(graph(ROWS, "y = Relu(x)"), "orin_qdq", "jetpack7") == []

    def test_int8_convolutions_on_rtx(self) -> None:
        constants = {**QUANTIZED, "w": np.ones((4, 4, 1, 1), I8), "ws": np.ones(4, F16)}
        io = "(float16[1,4,8,8] r) => (float16[1,4,8,8] y)"
        model = graph(io, f"{Q} dw = DequantizeLinear<axis = 0>(w, ws) y = Conv(d, dw)", constants)
        assert len(found(model, "int8_conv", "rtx")) == 1
        weight_only = graph(io, "dw = DequantizeLinear<axis = 0>(w, ws) y = Conv(r, dw)", constants)
        assert found(weight_only, "int8_conv", "rtx") == []
