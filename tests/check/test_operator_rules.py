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
IMAGE = "(float16[1,4,8,8] x) => (float16[1,4,8,8] y)"


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
    "form": (
        graph("y = MaxPool<kernel_shape = [1, 1]>(x)", IMAGE),
        graph("y = MaxPool<kernel_shape = [1, 1], dilations = [2, 1]>(x)", IMAGE),
    ),
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


POOL = "(float16[1,4,8,8] x) => (float16[1,4,N,N] y)"
RESIZE = "y = Resize<{}>(x, , s)"
REDUCED = "(float16[4,16] x, int64[1] a) => (float16[N,M] y)"
LONG = "(float16[1,4000] x) => (float16[1,N] y)"
SPECTRUM = "(float[1,64,1] x, int64 n) => (float[1,A,B,2] y)"
QKV = "(float16[1,2,8,16] x, float16[1,2,8,16] z) => (float16[1,2,8,16] y)"
CONSTANTS = {
    **{"s": np.ones(4, np.float32), "row": np.ones(16, F16), "two": np.array([2]), "last": np.array([1])},
    **{"most": np.array([3840]), "over": np.array([3841]), "all": np.array([16]), "more": np.array([17])},
    **{
        "half": F16(0.5),
        "yes": np.array(True),
        "no": np.array(False),
        "step": np.array(8),
        "no4": np.zeros((4, 16), np.int64),
    },
    "w": np.ones((4, 4, 1, 1), F16),
    "w4": np.ones((1, 1, 1, 1, 1, 1), F16),
}
# A form that is taken, one that is not, and what is said of it.
FORMS: dict[str, tuple[str, str, str, str]] = {
    "Resize, antialias": (IMAGE, RESIZE.format("antialias = 0"), RESIZE.format("antialias = 1"), "antialias"),
    "Resize, mode": (
        IMAGE,
        RESIZE.format('coordinate_transformation_mode = "align_corners"'),
        RESIZE.format('coordinate_transformation_mode = "tf_crop_and_resize"'),
        "tf_crop_and_resize",
    ),
    "Resize, policy": (
        IMAGE,
        RESIZE.format('keep_aspect_ratio_policy = "stretch"'),
        RESIZE.format('keep_aspect_ratio_policy = "not_larger"'),
        "keep_aspect_ratio_policy=not_larger",
    ),
    "MaxPool": (
        POOL,
        "y = MaxPool<kernel_shape = [2, 2]>(x)",
        "y, i = MaxPool<kernel_shape = [2, 2]>(x)",
        "Indices as output",
    ),
    "LayerNormalization": (
        ROWS,
        "y = LayerNormalization(x, row)",
        "y, m = LayerNormalization(x, row)",
        "training outputs",
    ),
    "ScatterElements": (
        ROWS,
        "y = ScatterElements(x, no4, x)",
        'y = ScatterElements<reduction = "add">(x, no4, x)',
        "reduction=add",
    ),
    "Conv": (IMAGE, "y = Conv(x, w)", "y = Conv(x, w4)", "4 spatial axes"),
    "ReduceSum": (REDUCED, "y = ReduceSum(x, last)", "y = ReduceSum(x, a)", "axes that are not constant"),
    "TopK, of too few": (ROWS, "y, i = TopK(x, all)", "y, i = TopK(x, more)", "K = 17 of 16 elements"),
    "TopK, too many": (LONG, "y, i = TopK(x, most)", "y, i = TopK(x, over)", "K above 3840"),
    "Dropout": (ROWS, "y = Dropout(x, half, no)", "y = Dropout(x, half, yes)", "training_mode"),
    "STFT": (SPECTRUM, "y = STFT(x, step)", "y = STFT(x, n)", "a step or length that is no initializer"),
    "Slice": (
        REDUCED,
        "y = Slice(x, last, two, last)",
        "y = Slice(x, last, two)",
        "1 starts for 2 axes and no axes",
    ),
    "Softmax": (
        ROWS,
        "y = Softmax(x)",
        "z = Reshape(x, one) y = Softmax(z)",
        "an operand of less than 2 axes",
    ),
    "Attention": (QKV, "y = Attention(x, x, z)", "y = Attention(x, x, x)", "q, k and v in one tensor"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    """On TensorRT-RTX, which has all of these operators."""
    io, good, bad, what = FORMS[form]
    constants = {**CONSTANTS, "one": np.array([64])}
    assert found(graph(good, io, constants, 23), "form") == []
    (finding,) = found(graph(bad, io, constants, 23), "form")
    assert finding.message.startswith(f"{form.partition(',')[0]} with {what}: ")


def test_attention_of_one_tensor_is_only_refused_where_it_was_seen_to_be() -> None:
    io, _, bad, _ = FORMS["Attention"]
    assert found(graph(bad, io, opset=23), "form", "trt11") == []


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
    io, good, _, _ = FORMS["Attention"]
    said = [finding.message.partition(":")[0] for finding in found(graph(good, io, opset=23), "operator", target)]
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
