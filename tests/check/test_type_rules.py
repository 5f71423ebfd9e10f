"""Rules about types: for each a graph that it is about, and its neighbour that is good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from findings import find_problems, found, names_of, problems_on
from graphs import build
from onnx import ModelProto, helper

from hiresvit.check import type_rules
from hiresvit.check.targets import JETPACK6, TRT11

F16, F32 = np.float16, np.float32


def graph(io: str, body: str, constants: Mapping[str, Any] | None = None) -> ModelProto:
    return build(f"g {io} {{ {body} }}", constants)


HALF, PICTURE = "(float16[4,4] x) => (float16[4,4] y)", "(uint8[4,4] x) => (float16[4,4] y)"
CHOICE = "(bool[4,4] c, float16[4,4] x) => (float16[4,4] y)"
WHOLE = "(int64[4] x) => (int64[4] y)"
PAIRS: dict[str, tuple[ModelProto, ModelProto]] = {
    "tensor_type": (
        graph("(bool[4,4] x) => (bool[4,4] y)", "y = Identity(x)"),
        graph("(int16[4,4] x) => (int16[4,4] y)", "y = Identity(x)"),
    ),
    "uint8": (
        graph(PICTURE, "c = Cast<to = 10>(x) y = Transpose(c)"),
        graph(PICTURE, "t = Transpose(x) y = Cast<to = 10>(t)"),
    ),
    "operand_type": (
        graph("(bfloat16[4] x) => (bfloat16[4] y)", "y = Gelu(x)"),
        graph("(bfloat16[4] x) => (bfloat16[4] y)", "y = Mish(x)"),
    ),
    "unquantized": (
        graph("(int8[4,4] x) => (float[4,4] y)", "y = DequantizeLinear(x, s)", {"s": F32(0.1)}),
        graph("(int8[4,4] x) => (float[4,4] y)", "y = Cast<to = 1>(x)"),
    ),
    "mixed_types": (
        graph(HALF, "y = Clip(x, m)", {"m": F32(0)}),
        graph(HALF, "y = Max(x, m)", {"m": F32(0)}),
    ),
    "doubtful_type": (
        graph("(int32[4] x) => (int32[4] y)", "y = Abs(x)"),
        graph("(int32[4] x) => (int32[4] y)", "y = Relu(x)"),
    ),
    "undocumented_type": (
        graph(WHOLE, "y = Identity(x)"),
        graph(WHOLE, "y = Clip(x, zero)", {"zero": np.array(0)}),
    ),
    "double": (
        graph("(float[4] x) => (float[4] y)", "y = Relu(x)"),
        graph("(double[4] x) => (double[4] y)", "y = Relu(x)"),
    ),
    "int64": (
        graph(WHOLE, "s = Shape(x) t = Add(s, s) y = Expand(one, t)", {"one": np.array([1])}),
        graph(WHOLE, "y = Add(x, x)"),
    ),
}


@pytest.mark.parametrize("rule", PAIRS)
def test_good_and_bad(rule: str) -> None:
    good, bad = PAIRS[rule]
    assert find_problems(good, "jetpack6") == []
    assert {finding.rule for finding in find_problems(bad, "jetpack6")} == {rule}


def test_every_rule_has_a_pair() -> None:
    assert list(PAIRS) == names_of(type_rules)


class TestTheDataOfAnOperator:
    """The type that counts is that of the data, which is not always the first input."""

    @pytest.mark.parametrize(
        ("io", "body"),
        [
            (CHOICE, "y = Where(c, x, x)"),
            ("(int64[4] i, float16[2] x) => (float16[4,3] y)", "y = OneHot(i, three, x)"),
        ],
        ids=["Where", "OneHot"],
    )
    def test_of_what_is_chosen_and_not_of_the_choice(self, io: str, body: str) -> None:
        model = graph(io, body, {"three": np.array(3)} if "three" in body else {})
        op = model.graph.node[0].op_type
        for kind, expected in (("float16", []), ("bool", [f"{op} of FP16"]), ("int64", [f"{op} of FP16"])):
            target = replace(JETPACK6, types={op: frozenset({kind})}, documented={})
            findings = problems_on(model, [target])[target.name]
            assert [finding.message.partition(":")[0] for finding in findings] == expected, kind

    def test_an_operator_that_was_not_tried_is_not_judged(self) -> None:
        target = replace(JETPACK6, types={}, documented={})
        _, bad = PAIRS["operand_type"]
        assert problems_on(bad, [target]) == {target.name: []}

    def test_double_is_judged_as_fp32(self) -> None:
        model = graph("(double[4] x) => (double[4] y)", "y = Mish(x)")
        assert found(model, "operand_type") == []
        target = replace(TRT11, types={"Mish": frozenset({"float16"})}, documented={})
        assert "operand_type" in {finding.rule for finding in problems_on(model, [target])["trt11"]}


def test_what_one_relation_refuses_and_documents_promise() -> None:
    _, bad = PAIRS["doubtful_type"]
    levels = {
        name: [(finding.rule, finding.level) for finding in findings] for name, findings in problems_on(bad).items()
    }
    doubtful, refused = [("doubtful_type", "hazard")], [("operand_type", "illegal")]
    assert levels == {"jetpack6": doubtful, "jetpack7": doubtful, "trt11": doubtful, "rtx": refused}


MAKES, READS = "makes UINT8 inside the graph", "Identity reads UINT8"


@pytest.mark.parametrize(
    ("io", "body", "what"),
    [
        ("(uint8[4] x) => (uint8[4] y)", "y = Identity(x)", []),
        ("(uint8[4] x) => (bool[4] y)", "y = Equal(x, x)", []),
        ("(float[4] x) => (uint8[4] y)", "y = Cast<to = 2>(x)", []),
        ("(float[4] x) => (float[4] y)", "c = Cast<to = 2>(x) y = Cast<to = 1>(c)", [f"Cast {MAKES}"]),
        ("(uint8[4] x) => (uint8[4] y)", "i = Identity(x) y = Identity(i)", [f"Identity {MAKES}", READS]),
    ],
)
def test_where_uint8_may_be(io: str, body: str, what: list[str]) -> None:
    findings = found(graph(io, body), "uint8", "jetpack6")
    assert sorted(finding.message.partition(":")[0] for finding in findings) == what


def test_a_sequence_and_a_sparse_constant_are_no_tensors() -> None:
    model = graph(HALF, "y = Relu(x)")
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [2]))
    model.graph.input.append(helper.make_value_info("many", kind))
    sparse = model.graph.sparse_initializer.add()
    sparse.values.name = "few"
    said = [finding.message.partition(":")[0] for finding in found(model, "tensor_type")]
    assert said == ["'many' is a sequence, not a tensor", "'few' is a sparse constant"]


def test_a_mask_of_truths_may_stand_beside_attention_in_fp16() -> None:
    io = "(float16[1,2,8,16] q, float16[1,2,8,16] k, float16[1,2,8,16] v, {}[1,1,8,8] m) => (float16[1,2,8,16] y)"
    for mask, rules in (("bool", []), ("float16", []), ("float", ["mixed_types"])):
        model = build(f"g {io.format(mask)} {{ y = Attention(q, k, v, m) }}", opset=23)
        assert [finding.rule for finding in find_problems(model, "trt11")] == rules, mask
