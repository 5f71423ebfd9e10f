"""Rules about operators and sizes: for each a graph that it is about and its good neighbour, form by form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from findings import find_problems, found, names_of
from graphs import build
from onnx import ModelProto, helper

from hiresvit.check import operator_rules

F16 = np.float16
ROWS = "(float16[4,16] x) => (float16[4,16] y)"
QKV = "(float16[1,2,8,16] x, float16[1,2,8,16] z) => (float16[1,2,8,16] y)"


def graph(
    body: str,
    io: str = ROWS,
    constants: Mapping[str, Any] | None = None,
    opset: int = 20,
    domain: str | None = None,
) -> ModelProto:
    model = build(f"g {io} {{ {body} }}", constants, opset)
    if domain is not None:
        model.graph.node[0].domain = domain
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


def axes(count: int) -> str:
    shape = f"float16[{','.join('2' * count)}]"
    return f"({shape} x) => ({shape} y)"


TAKEN = "(float16[4,16] x, int64[1] k) => (float16[4,N] y)"
PAIRS: dict[str, tuple[ModelProto, ModelProto]] = {
    "outputs": (graph("y = Relu(x)"), graph("z = Relu(x)", "(float16[2] x) => ()")),
    "opset": (graph("y = Relu(x)", opset=9), graph("y = Relu(x)", opset=8)),
    "operator": (graph("y = Relu(x)"), graph("y = Swish(x)")),
    "domain": (graph("y = Relu(x)", domain="ai.onnx"), graph("y = Relu(x)", domain="my")),
    "rank": (graph("y = Relu(x)", axes(8)), graph("y = Relu(x)", axes(9))),
    "dynamic": (
        graph("y = Relu(x)", "(float16[2] x) => (float16[N] y)"),
        graph("y = Relu(x)", "(float16[N] x) => (float16[N] y)"),
    ),
    "fed_size": (graph("y = Gather<axis = 1>(x, k)", TAKEN), graph("y, i = TopK(x, k)", TAKEN)),
}


@pytest.mark.parametrize("rule", PAIRS)
def test_good_and_bad(rule: str) -> None:
    good, bad = PAIRS[rule]
    assert find_problems(good, "jetpack6") == []
    assert {finding.rule for finding in find_problems(bad, "jetpack6")} == {rule}


def test_every_rule_has_a_pair() -> None:
    assert list(PAIRS) == names_of(operator_rules)


def test_axes_are_counted_from_0() -> None:
    model = graph("y = Relu(x)", "(float16[N,4,M] x, float16[2,K] z) => (float16[N,4,M] y)")
    assert [finding.message.partition(":")[0] for finding in found(model, "dynamic")] == [
        "input 'x' is dynamic (axes 0, 2)",
        "input 'z' is dynamic (axis 1)",
    ]


def test_inside_a_body() -> None:
    branch = "() => (float16[4,16] {0}) {{ {0} = {1}(x) }}"
    body = f"y = If<then_branch = t {branch.format('a', 'Foo')}, else_branch = e {branch.format('b', 'Relu')}>(yes)"
    (finding,) = found(graph(body, constants={"yes": np.array(True)}), "operator")
    assert finding.message.startswith("operator Foo, which ONNX does not have: ")


@pytest.mark.parametrize(
    ("target", "version"), [("jetpack6", "10.14"), ("jetpack7", "10.14"), ("trt11", None), ("rtx", None)]
)
def test_since_when_an_operator_is_there(target: str, version: str | None) -> None:
    model = graph("y = Attention(x, x, z)", QKV, opset=23)
    said = [finding.message.partition(":")[0] for finding in found(model, "operator", target)]
    assert said == ([f"operator Attention, which TensorRT has since {version}"] if version else [])


class TestWhoRefuses:
    @pytest.mark.parametrize(
        ("op", "words"),
        [("NonZero", "which the parser knows and the builder has nothing for"), ("Det", "Det: ")],
    )
    def test_parser_or_builder(self, op: str, words: str) -> None:
        (finding,) = found(graph(f"y = {op}(x)", "(float[2,3,3] x) => (float y)"), "operator", "rtx")
        assert words in finding.message
        assert "cannot import" not in finding.message


class TestFedSizes:
    def test_all_inputs_that_decide_are_named(self) -> None:
        io = "(float16[4,4] x, int64[1] k, int32[1] m, float16[4] v) => (float16 y)"
        body = "c = Cast<to = 7>(m) s = Add(k, c) a = Add(x, v) y, i = TopK(a, s)"
        findings = found(graph(body, io), "fed_size", "jetpack6")
        assert [f.message.partition(" decide")[0] for f in findings] == [
            "the values of input 'k'",
            "the values of input 'm'",
        ]

    def test_a_weight_that_is_listed_as_an_input_is_not_fed(self) -> None:
        model = graph("y, i = TopK(x, k)", "(float16[4,4] x) => (float16 y)", {"k": np.array([2])})
        model.graph.input.append(helper.make_tensor_value_info("k", 7, [1]))
        assert found(model, "fed_size") == []

    def test_sizes_of_a_dynamic_input_are_not_its_values(self) -> None:
        io = "(float16[N,4] x) => (float16 y)"
        body = "s = Shape(x) t = Add(s, s) y = Expand(one, t)"
        assert found(graph(body, io, {"one": np.ones(1, F16)}), "fed_size") == []
