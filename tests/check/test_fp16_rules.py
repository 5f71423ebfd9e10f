"""Where the rules about FP16 begin and end, and the advice about a compiler's bug."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from findings import found
from graphs import build
from onnx import ModelProto

F16, F32, I8 = np.float16, np.float32, np.int8
SMALLEST_NORMAL = F16(2.0**-14)
BELOW = np.nextafter(SMALLEST_NORMAL, F16(0))


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

    @pytest.mark.parametrize(("value", "hazard"), [(-65472, False), (-65504, True), (-np.inf, True), (65504, False)])
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
    def test_a_mask_in_place_of_scores_is_a_hazard_if_it_is_infinite(self, value: float, hazard: bool) -> None:
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
        (finding,) = found(graph(ROWS, "y = Mul(x, c)", {"c": np.array([np.inf, -np.inf] + [1] * 14, F16)}), "infinite")
        assert "2 of 16 values of 'c'" in finding.message

    def test_the_largest_number_and_an_infinite_scale_are_no_infinite_constant(self) -> None:
        """A scale is the concern of the rules about Q/DQ."""
        body = "m = Mul(x, c) q = QuantizeLinear(m, s, z) y = DequantizeLinear(q, s, z)"
        model = graph(ROWS, body, {"c": F16(65504), "s": F16(np.inf), "z": I8(0)})
        assert found(model, "infinite") == []

    @pytest.mark.parametrize(("kind", "hazard"), [(10, True), (1, False)])
    def test_sizes_in_half(self, kind: int, hazard: bool) -> None:
        body = f"s = Shape(x) c = Cast<to = {kind}>(s) d = Sqrt(c) n = Cast<to = 7>(d) y = Expand(x, n)"
        assert bool(found(graph("(float16[4,4] x) => (float16[N,M] y)", body), "half_sizes")) == hazard

    def test_a_number_in_half_that_is_data_is_no_size(self) -> None:
        model = graph("(float16[4] x) => (int64[4] y)", "d = Sqrt(x) y = Cast<to = 7>(d)")
        assert found(model, "half_sizes") == []

    def test_a_divided_square_root_is_no_norm(self) -> None:
        model = graph(ROWS, "p = Mul(x, x) e = Add(p, c) y = Sqrt(e)", {"c": F16(1)})
        assert found(model, "decomposed_norm") == []

    def test_a_norm_by_the_mean_of_squares_alone(self) -> None:
        body = "p = Mul(x, x) v = ReduceMean(p, a) e = Add(v, c) r = Sqrt(e) y = Div(x, r)"
        (finding,) = found(graph(ROWS, body, {"a": np.array([-1]), "c": F16(1)}), "decomposed_norm")
        assert finding.nodes == ("ReduceMean of v",)


class TestAdvice:
    SHARED = (
        "n = LayerNormalization(x, g) a = MatMul(n, w) t = Transpose(n) u = Transpose(t) b = MatMul(u, w) y = Add(a, b)"
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
