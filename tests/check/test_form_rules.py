"""Rules about forms of operators: form by form one that is taken and one that is not, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from findings import find_problems, found, names_of, rules_at
from graphs import build
from onnx import ModelProto

from hiresvit.check import form_rules

F16 = np.float16
ROWS = "(float16[4,16] x) => (float16[4,16] y)"
IMAGE = "(float16[1,4,8,8] x) => (float16[1,4,8,8] y)"


def graph(body: str, io: str = ROWS, constants: Mapping[str, Any] | None = None, opset: int = 20) -> ModelProto:
    return build(f"g {io} {{ {body} }}", constants, opset)


NOISE = "n = RandomNormalLike{}(x) y = Add(x, n)"
PAIRS: dict[str, tuple[ModelProto, ModelProto]] = {
    "form": (
        graph("y = MaxPool<kernel_shape = [1, 1]>(x)", IMAGE),
        graph("y = MaxPool<kernel_shape = [1, 1], dilations = [2, 1]>(x)", IMAGE),
    ),
    "ruled_out": (
        graph("y = MaxPool<kernel_shape = [1, 1]>(x)", IMAGE),
        graph("y = MaxPool<kernel_shape = [1]>(x)", "(float16[1,4,8] x) => (float16[1,4,8] y)"),
    ),
    "doubted": (
        graph('y = Einsum<equation = "ij,jk->ik">(x, x)', "(float16[4,4] x) => (float16[4,4] y)"),
        graph('y = Einsum<equation = "ii->i">(x)', "(float16[4,4] x) => (float16[4] y)"),
    ),
    "ignored": (graph(NOISE.format("")), graph(NOISE.format("<seed = 1.0>"))),
}


@pytest.mark.parametrize("rule", PAIRS)
def test_good_and_bad(rule: str) -> None:
    good, bad = PAIRS[rule]
    assert find_problems(good, "jetpack6") == []
    assert {finding.rule for finding in find_problems(bad, "jetpack6")} == {rule}


def test_every_rule_has_a_pair() -> None:
    assert list(PAIRS) == names_of(form_rules)


def test_what_is_ruled_out_is_said_of_whom() -> None:
    _, bad = PAIRS["ruled_out"]
    (finding,) = found(bad, "ruled_out", "jetpack6")
    assert finding.message.startswith(
        "MaxPool with 1 spatial axis: documented as unsupported by the parser of TensorRT 10.3 of JetPack 6 "
    )
    assert found(bad, "ruled_out", "rtx") == []


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
    "STFT": (SPECTRUM, "y = STFT(x, step)", "y = STFT(x, n)", "a step, window or length that is no initializer"),
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


class TestBodies:
    """What stands in a body is asked as what stands around it, and knows what it reads from there."""

    LOOP = "body = b (int64 i, bool p, float16[4,16] v) => (bool q, float16[4,16] w) {{ q = Identity(p) {} }}"

    def loop(self, inner: str, **constants: Any) -> ModelProto:
        return graph(
            f"y = Loop(n, c, x) <{self.LOOP.format(inner)}>",
            constants={"n": np.array(3), "c": np.array(True), **constants},
        )

    @pytest.mark.parametrize(
        ("inner", "constants", "illegal"),
        [
            ("w = Resize<antialias = 1>(v, , s)", {"s": np.ones(2, np.float32)}, {"form"}),
            ("w = Resize(v, , s)", {"s": np.ones(2, np.float32)}, set()),
            ("r = ReduceMax(v, a) w = Add(v, r)", {"a": np.array([1])}, set()),
            ("a = Cast<to = 7>(e) r = ReduceMax(v, a) w = Add(v, r)", {"e": np.array([1], np.int32)}, {"ruled_out"}),
            ("r = ReduceMax(v, a) w = Add(v, r)", {"a": np.ones(4096, np.int64)}, set()),  # too large to be copied
        ],
    )
    def test_what_a_body_reads(self, inner: str, constants: Mapping[str, Any], illegal: set[str]) -> None:
        assert rules_at("illegal", find_problems(self.loop(inner, **constants), "jetpack6")) - {"invalid"} == illegal

    def test_a_body_in_a_body(self) -> None:
        branch = "() => (float16[4,16] {0}) {{ {0} = {1} }}"
        worst = branch.format("a", "Resize<antialias = 1>(v, , s)")
        inner = f"w = If(c) <then_branch = t {worst}, else_branch = e {branch.format('b', 'Neg(v)')}>"
        (finding,) = found(self.loop(inner, s=np.ones(2, np.float32)), "form", "jetpack6")
        assert finding.message.startswith("Resize with antialias")
