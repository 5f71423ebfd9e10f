"""Weights that are no numbers: of every type, wherever they stand in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from findings import find_problems, found, names_of
from graphs import build
from onnx import ModelProto, helper, numpy_helper

from hiresvit.check import number_rules
from hiresvit.check.check import check_graph
from hiresvit.check.targets import JETPACK6

F16, F32, I8 = np.float16, np.float32, np.int8
TYPES = {"float": F32, "float16": F16, "bfloat16": ml_dtypes.bfloat16, "double": np.float64}


def product(kind: str, value: float) -> ModelProto:
    weight = np.ones((16, 16), TYPES[kind])
    weight[3, 4] = value
    return build(f"g ({kind}[4,16] x) => ({kind}[4,16] y) {{ y = MatMul(x, w) }}", {"w": weight})


def said(model: ModelProto, rule: str = "not_a_number") -> list[str]:
    return [finding.message.partition(":")[0] for finding in found(model, rule, "jetpack6")]


class TestNotANumber:
    @pytest.mark.parametrize("kind", TYPES)
    def test_of_every_type(self, kind: str) -> None:
        assert said(product(kind, 2)) == []
        assert said(product(kind, np.nan)) == ["1 of 256 values of 'w' NaN"]

    def test_of_a_weight_in_fp8_that_is_dequantized(self) -> None:
        weight = np.array([[1, np.nan]], ml_dtypes.float8_e4m3fn)
        body = "d = DequantizeLinear(w, s) y = Add(x, d)"
        model = build(f"g (float[1,2] x) => (float[1,2] y) {{ {body} }}", {"w": weight, "s": F32(1)})
        assert said(model) == ["1 of 2 values of 'w' NaN"]

    def test_of_a_scale_it_is_another_rule_that_says_so(self) -> None:
        body = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"
        model = build(f"g (float[4] x) => (float[4] y) {{ {body} }}", {"s": F32(np.nan), "z": I8(0)})
        assert {finding.rule for finding in find_problems(model, "rtx")} == {"scale_sign"}

    def test_in_constant_nodes(self) -> None:
        values: dict[str, Any] = {
            "value": numpy_helper.from_array(np.array([np.nan], F32)),
            "value_float": float("nan"),
            "value_floats": [1.0, float("nan")],
        }
        for name, value in values.items():
            model = build("g (float[4] x) => (float[4] y) { y = Add(x, c) }")
            model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], **{name: value}))
            assert len(said(model)) == 1, name

    def test_in_what_fills_a_shape(self) -> None:
        fill = "c = ConstantOfShape<value = float[1] {{{0}}}>(s) y = Add(x, c)"
        for value, count in (("1.0", 0), ("nan", 1)):
            text = "g (float[4] x) => (float[4] y) { " + fill.format("1.0") + " }"
            model = build(text, {"s": np.array([4])})
            model.graph.node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(np.array([float(value)], F32)))
            assert len(said(model)) == count

    def test_in_a_body_and_of_what_only_a_body_reads(self) -> None:
        """Each once: what a body reads from around it is no constant of its own."""
        branch = "() => (float[4] {0}) {{ {0} = Add(x, {1}) }}"
        body = f"y = If(c) <then_branch = t {branch.format('a', 'w')}, else_branch = e {branch.format('b', 'v')}>"
        for inside in (False, True):
            model = build(f"g (float[4] x, bool c) => (float[4] y) {{ {body} }}", {"w": np.full(4, np.nan, F32)})
            then, other = (a.g for a in model.graph.node[0].attribute)
            other.initializer.append(numpy_helper.from_array(np.ones(4, F32), "v"))
            if inside:
                then.initializer.append(model.graph.initializer.pop())
            assert said(model) == ["4 of 4 values of 'w' NaN"], inside

    @pytest.mark.parametrize("kind", ["float", "float16"])
    def test_in_external_data(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "graph.onnx"
        onnx.save_model(product(kind, np.nan), path, save_as_external_data=True, size_threshold=0, location="weights")
        (verdict,) = check_graph(path, [JETPACK6], build=False).verdicts
        assert [(finding.rule, finding.level) for finding in verdict.findings] == [("not_a_number", "hazard")]


class TestInfiniteWeight:
    @pytest.mark.parametrize(
        ("kind", "rules"),
        [("float", {"infinite_weight"}), ("bfloat16", {"infinite_weight"}), ("float16", {"infinite"})],
    )
    def test_of_every_type_one_rule(self, kind: str, rules: set[str]) -> None:
        assert {finding.rule for finding in find_problems(product(kind, np.inf), "jetpack6")} == rules

    @pytest.mark.parametrize("body", ["y = Clip(x, , c)", "y = Add(x, c)", "b = Less(x, c) y = Where(b, x, c)"])
    def test_a_bound_and_a_mask_may_be(self, body: str) -> None:
        model = build(f"g (float[4] x) => (float[4] y) {{ {body} }}", {"c": F32(np.inf)})
        assert find_problems(model, "jetpack6") == []


def test_both_are_tried() -> None:
    assert names_of(number_rules) == ["not_a_number", "infinite_weight"]
