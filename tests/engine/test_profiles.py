"""Shapes of dynamic inputs: as they are typed, and against a graph."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphs import build

from hiresvit.engine.profiles import check_profiles, input_shapes, parse_shapes
from hiresvit.errors import UsageError

GRAPH = Path("g.onnx")
MODEL = build("g (float[N,3,H,8] x, float[2] s) => (float[N,3,H,8] y) { y = Relu(x) }")


def test_three_shapes_or_one() -> None:
    assert parse_shapes(["image=1x3x8x8:2x3x8x8:4x3x8x8", "a=b=2"]) == {
        "image": ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)),
        "a=b": ((2,), (2,), (2,)),  # an ONNX name may hold anything
    }


@pytest.mark.parametrize(
    "text",
    [
        "1x3x8x8",
        "x=",
        "=1x3",
        "x=1x3:2x3",
        "x=1x3:2x3:4x3:8x3",
        "x=1,3",
        "x=1x-1",
        "x=1xN",
        "x=1x",
        "x=1x9999999999",
        "x=²",
    ],
)
def test_what_is_no_profile(text: str) -> None:
    with pytest.raises(UsageError, match=r"give each dynamic input once, as NAME=MIN:OPT:MAX"):
        parse_shapes([text])


def test_an_input_is_given_once() -> None:
    with pytest.raises(UsageError, match="once"):
        parse_shapes(["x=1x3", "x=2x3"])


def test_inputs_without_the_weights() -> None:
    model = build("g (float[N,4] x, float[4] w) => (float[N,4] y) { y = Add(x, w) }", {"w": [1.0] * 4})
    assert input_shapes(model) == {"x": (None, 4)}
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert input_shapes(model) == {"x": (None, 4)}


def test_a_fitting_profile() -> None:
    """It is taken, and with one size of a static axis changed in any of its shapes it is not."""
    shapes = ["1x3x4x8", "2x3x8x8", "2x3x16x8"]
    check_profiles(GRAPH, MODEL, parse_shapes([f"x={':'.join(shapes)}"]))
    for shape in shapes:
        wrong = [other.replace("x3x", "x2x") if other == shape else other for other in shapes]
        with pytest.raises(UsageError, match=f"the shape {shape.replace('x3x', 'x2x')} does not fit"):
            check_profiles(GRAPH, MODEL, parse_shapes([f"x={':'.join(wrong)}"]))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            [],
            r"^g.onnx: axis 0, 2 of input 'x' \(\?x3x\?x8\) is dynamic; give its .* --shapes x=MIN:OPT:MAX$",
        ),
        (["z=1"], r"^g.onnx has no input 'z'; its inputs are 'x', 's'$"),
        (["x=1x3x8x8", "s=2"], r"^g.onnx: input 's' is 2, no axis is dynamic; leave its shapes out$"),
        (["x=1x3x8"], r"^g.onnx: the shape 1x3x8 does not fit input 'x', which is \?x3x\?x8$"),
        (["x=1x4x8x8"], r"the shape 1x4x8x8 does not fit"),
        (["x=2x3x8x8:1x3x8x8:4x3x8x8"], r"x=2x3x8x8:1x3x8x8:4x3x8x8 is no profile; give 1 <= MIN <= OPT"),
        (["x=0x3x8x8:1x3x8x8:4x3x8x8"], r"is no profile"),
    ],
    ids=["none", "unknown", "static", "rank", "size", "order", "zero"],
)
def test_what_does_not_fit(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_profiles(GRAPH, MODEL, parse_shapes(texts))
