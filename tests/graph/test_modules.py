"""Where modules end in graphs by hand: inner tensors, casts, Q/DQ, and what rewrites put in their place."""

from __future__ import annotations

import math

import numpy as np
from graphs import build, indexed

from hiresvit.graph.modules import Boundary, find_boundaries, owner_of


def boundaries(text: str, names: list[str], **constants: object) -> dict[str, Boundary]:
    model = build(text, constants)
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    return {found.module: found for found in find_boundaries(indexed(model))}


def test_the_last_result_that_is_read_outside() -> None:
    found = boundaries(
        """g (float[1,4] image) => (float[1,4] y) {
          early = Relu(image)
          inner = Neg(early)
          handed = Abs(inner)
          kept = Exp(handed)
          b = Add(early, handed)
          y = Mul(b, kept)
        }""",
        ["a/Relu", "a/Neg", "a/Abs", "a.child/Exp", "b/Add", "output/Mul"],
    )
    assert list(found) == ["a", "a.child", "b", "output"]
    assert found["a"] == Boundary("a", "Abs", "handed", "handed", (1, 4), -math.inf)
    assert found["output"].tensor == "y"


def test_what_only_carries_a_tensor_is_no_module_and_no_reader() -> None:
    found = boundaries(
        """g (float[1,4] image) => (float[1,4] y) {
          half = Cast<to=10>(image)
          made = Neg(half)
          wide = Cast<to=1>(made)
          inner = Relu(wide)
          same = Identity(inner)
          last = Abs(same)
          back = Cast<to=10>(last)
          y0 = Neg(back)
          y = Cast<to=1>(y0)
        }""",
        ["half/Cast", "a/Neg", "wide/Cast", "a/Relu", "same/Identity", "a/Abs", "back/Cast", "b/Neg", "y/Cast"],
    )
    assert {name: one.tensor for name, one in found.items()} == {"a": "last", "b": "y0"}


def test_behind_a_quantizer_it_is_what_the_readers_get() -> None:
    found = boundaries(
        """g (float[1,4] image) => (float[1,4] y) {
          made = Neg(image)
          levels = QuantizeLinear(made, scale, zero)
          again = DequantizeLinear(levels, scale, zero)
          y = Relu(again)
        }""",
        ["a/Neg", "b/Relu/QuantizeLinear", "b/Relu/DequantizeLinear", "b/Relu"],
        scale=np.float32(0.1),
        zero=np.int8(0),
    )
    assert found["a"] == Boundary("a", "Neg", "made", "again", (1, 4), 0.0)
    assert list(found) == ["a", "b"]


def test_a_rewritten_node_is_of_its_module_and_constants_are_of_none() -> None:
    found = boundaries(
        """g (float[1,4] image) => (float[1,4] y) {
          shape = Shape(image)
          rows = Reshape(image, shape)
          first, second = Split<axis=1, num_outputs=2>(rows)
          y = Concat<axis=1>(second, second)
        }""",
        ["a/Shape", "a/Norm/Reshape_0", "a/Split", "output/Concat"],
    )
    assert found["a"] == Boundary("a", "Split", "second", "second", (1, 2), -math.inf)


def test_the_floor_is_what_its_readers_tell_apart() -> None:
    found = boundaries(
        """g (float[1,4] image) => (float[1,4] y, float[1,4] f) {
          a = Neg(image)
          b = Cast<to=1>(a)
          c = Relu(b)
          d = Neg(c)
          d0 = Relu(d)
          d1 = HardSwish(d)
          e = Add(d0, d1)
          f = Neg(e)
          g = Relu(f)
          h = Neg(g)
          h0 = Relu(h)
          y = Add(h0, h)
        }""",
        [
            "a/Neg",
            "b/Cast",
            "c/Relu",
            "d/Neg",
            "e/Relu",
            "e/HardSwish",
            "e/Add",
            "f/Neg",
            "g/Relu",
            "h/Neg",
            "y/Relu",
            "y/Add",
        ],
    )
    floors = {name: one.floor for name, one in found.items()}
    assert floors["a"] == 0, "in whatever type"
    assert floors["d"] == -3, "the lower"
    assert (floors["f"], floors["h"]) == (-math.inf, -math.inf), "read by the caller, or by an Add, too"


def test_labels_are_no_quantity() -> None:
    found = boundaries(
        """g (float[1,4] image) => (int64[1] y) {
          made = Neg(image)
          y = ArgMax<axis=1, keepdims=0>(made)
        }""",
        ["a/Neg", "contract/ArgMax"],
    )
    assert list(found) == ["a"]


def test_a_node_without_a_path_is_of_no_module() -> None:
    [node] = build("g (float[1] x) => (float[1] y) { y = Relu(x) }").graph.node
    assert owner_of(node) == ""
    node.name = "Relu_7"
    assert owner_of(node) == ""
    node.name = "a.b/Relu_7"
    assert owner_of(node) == "a.b"
