"""Each rewrite on small graphs by hand: the same numbers to the last bit, and what must not be touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import Array, build, constants_of, content, copied, noise, run
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, helper

from hiresvit.errors import IllegalGraphError
from hiresvit.export.rewrites import (
    drop_identities,
    lower_to_opset_17,
    rewrite,
    share_constants,
)


def ops(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def assert_equal(before: ModelProto, after: ModelProto, feeds: Mapping[str, Array]) -> None:
    """To the last bit, with and without ONNX Runtime's own optimisations."""
    for optimise in (False, True):
        found = [run(model, feeds, optimise=optimise) for model in (before, after)]
        for reference, test in zip(*found, strict=True):
            np.testing.assert_array_equal(test, reference, strict=True)


class TestIdentities:
    def test_a_chain_of_them_is_gone(self) -> None:
        model = build("""g (float[2,3] x) => (float[2,3] y) {
            a = Identity(x)  b = Identity(a)  c = Identity(b)  r = Relu(c)  d = Identity(r)  y = Neg(d) }""")
        after = copied(model)
        drop_identities(after.graph)
        assert ops(after) == ["Relu", "Neg"]
        assert_equal(model, after, {"x": noise(2, 3)})

    def test_one_that_names_an_output_stays(self) -> None:
        model = build("""g (float[2,3] x) => (float[2,3] y, float[2,3] x2, float[2,3] w) {
            r = Relu(x)  a = Identity(r)  y = Identity(a)  x2 = Identity(x)  w = Neg(y) }""")
        after = copied(model)
        drop_identities(after.graph)
        assert ops(after) == ["Relu", "Identity", "Identity", "Neg"]
        assert [v.name for v in after.graph.output] == ["y", "x2", "w"]
        assert_equal(model, after, {"x": noise(2, 3)})

    def test_one_with_a_reader_beside_an_output(self) -> None:
        model = build("""g (float[2,3] x) => (float[2,3] y) {
            a = Identity(x)  b = Identity(a)  s = Add(a, b)  y = Mul(b, s) }""")
        after = copied(model)
        drop_identities(after.graph)
        assert ops(after) == ["Add", "Mul"]
        assert_equal(model, after, {"x": noise(2, 3)})

    def test_one_of_a_constant(self) -> None:
        model = build(
            "g (float[2,3] x) => (float[2,3] y, float[3] w) { a = Identity(c)  y = Add(x, a)  w = Identity(c) }",
            {"c": noise(3)},
        )
        after = copied(model)
        drop_identities(after.graph)
        assert ops(after) == ["Add", "Identity"]
        assert_equal(model, after, {"x": noise(2, 3)})

    def test_an_absent_input_stays_absent(self) -> None:
        model = build(
            "g (float[2,3] x) => (float[2,3] y) { a = Identity(x)  y = Clip(a, , high) }",
            {"high": np.float32(0.5)},
        )
        after = copied(model)
        drop_identities(after.graph)
        assert list(after.graph.node[0].input) == ["x", "", "high"]
        assert_equal(model, after, {"x": noise(2, 3)})


class TestConstants:
    def test_equal_ones_are_one_and_unread_ones_are_gone(self) -> None:
        model = build(
            "g (float[2,3] x) => (float[2,3] y) { r = Add(x, a)  s = Mul(r, b)  y = Add(s, c) }",
            {"a": noise(3), "b": noise(3), "c": noise(3, seed=1), "unread": noise(3, seed=2)},
        )
        after = copied(model)
        share_constants(after.graph)
        assert [node.input[1] for node in after.graph.node] == ["a", "a", "c"]
        assert list(constants_of(after)) == ["a", "c"]
        assert_equal(model, after, {"x": noise(2, 3)})

    def test_equal_bytes_are_not_equal_values(self) -> None:
        """Zeros of every type and shape: 8 bytes each."""
        model = build(
            """g (float[2] x) => (float[2] y, int32[2] i, float[1,2] m, int64[1] k, float[2] h) {
            y = Add(x, f)  h = Add(x, f_again)  c = Cast<to=6>(x)  i = Add(c, n)
            u = Unsqueeze(x, k0)  m = Add(u, wide)  k = Identity(k0) }""",
            {
                "f": np.zeros(2, np.float32),
                "n": np.zeros(2, np.int32),
                "wide": np.zeros((1, 2), np.float32),
                "k0": np.zeros(1, np.int64),
                "f_again": np.zeros(2, np.float32),
            },
        )
        after = copied(model)
        share_constants(after.graph)
        assert list(constants_of(after)) == ["f", "n", "wide", "k0"]
        assert_equal(model, after, {"x": noise(2)})

    def test_minus_zero_is_not_zero(self) -> None:
        model = build(
            "g (float[1] x) => (float[1] y, float[1] z) { y = Div(x, a)  z = Div(x, b) }",
            {"a": np.array([0.0], np.float32), "b": np.array([-0.0], np.float32)},
        )
        after = copied(model)
        share_constants(after.graph)
        assert run(after, {"x": np.ones(1, np.float32)}) == [np.inf, -np.inf]

    def test_equal_values_in_another_field_are_shared(self) -> None:
        """onnx.helper stores numbers one by one, numpy_helper stores bytes."""
        model = build("g (float[2] x) => (float[2] y) { r = Add(x, a)  y = Mul(r, b) }")
        model.graph.initializer.append(helper.make_tensor("a", onnx.TensorProto.FLOAT, [2], [1.5, 2.5]))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1.5, 2.5], np.float32), "b"))
        after = copied(model)
        share_constants(after.graph)
        assert len(after.graph.initializer) == 1
        assert_equal(model, after, {"x": noise(2)})

    def test_one_that_is_an_output_stays(self) -> None:
        model = build(
            "g (float[2] x) => (float[2] y, float[2] b) { r = Add(x, a)  y = Mul(r, b) }",
            {"a": noise(2), "b": noise(2)},
        )
        after = copied(model)
        share_constants(after.graph)
        assert "b" in constants_of(after)
        assert_equal(model, after, {"x": noise(2)})

    def test_a_default_that_the_caller_may_replace_stays(self) -> None:
        model = build(
            "g (float[2] x, float[2] a, float[2] b) => (float[2] y) { r = Add(x, a)  y = Mul(r, b) }",
            {"a": noise(2), "b": noise(2)},
        )
        after = copied(model)
        share_constants(after.graph)
        assert_equal(model, after, {"x": noise(2)})
        assert_equal(model, after, {"x": noise(2), "b": noise(2, seed=1)})


def test_all_together_work_on_a_copy() -> None:
    model = build(
        """g (float[batch,8] x) => (float[batch,8] y, float[batch,8] z) {
        a = Identity(x)  n = LayerNormalization<axis=-1>(a, s)  m = LayerNormalization<axis=-1>(n, s)
        b = Add(m, zero)  y = Identity(b)  z = Add(n, zero_too) }""",
        {"s": noise(8), "zero": np.zeros(8, np.float32), "zero_too": np.zeros(8, np.float32)},
    )
    before = content(model)
    after = rewrite(model)
    assert content(model) == before
    assert ops(after) == ["LayerNormalization", "LayerNormalization", "Add", "Identity", "Add"]
    assert list(constants_of(after)) == ["s", "zero"], "equal zeros are one"
    assert_equal(model, after, {"x": noise(5, 8)})
    assert content(rewrite(after)) == content(after), "a second time there is nothing left to do"


@st.composite
def graphs(draw: st.DrawFn) -> ModelProto:
    """Chains of Identity, Neg, Add and LayerNormalization over few constants, with outputs anywhere."""
    values, lines = ["x"], []
    for k in range(draw(st.integers(1, 8))):
        source, kind = draw(st.sampled_from(values)), draw(st.sampled_from(["same", "neg", "add", "norm"]))
        constant = draw(st.sampled_from(["c0", "c1", "c2"]))
        lines.append(
            {
                "same": f"v{k} = Identity({source})",
                "neg": f"v{k} = Neg({source})",
                "add": f"v{k} = Add({source}, {constant})",
                "norm": f"v{k} = LayerNormalization<axis=-1>({source}, {constant})",
            }[kind]
        )
        values.append(f"v{k}")
    outputs = draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=3, unique=True))
    listed = ", ".join(f"float[2,4] {name}" for name in outputs)
    ones = np.ones(4, np.float32)
    constants: dict[str, Any] = {"c0": ones, "c1": ones.copy(), "c2": noise(4)}
    return build(f"g (float[2,4] x) => ({listed}) {{ {'  '.join(lines)} }}", constants)


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_any_graph_keeps_its_numbers(model: ModelProto) -> None:
    after = rewrite(model)
    assert len(after.graph.node) <= len(model.graph.node)
    assert {v.name for v in after.graph.output} == {v.name for v in model.graph.output}
    found = [run(m, {"x": noise(2, 4)}, optimise=False) for m in (model, after)]
    for reference, test in zip(*found, strict=True):
        np.testing.assert_array_equal(test, reference, strict=True)


class TestOpset17:
    def lowered(self, text: str, constants: Mapping[str, Any]) -> tuple[ModelProto, ModelProto]:
        model = build(text, constants, opset=18)
        onnx.checker.check_model(model, full_check=True)
        after = copied(model)
        lower_to_opset_17(after)
        assert [(o.domain, o.version) for o in after.opset_import] == [("", 17)]
        return model, after

    def test_an_even_split(self) -> None:
        model, after = self.lowered(
            """g (float[2,6] x) => (float[2,2] a, float[2,2] b, float[2,2] c) {
            a, b, c = Split<axis=1, num_outputs=3>(x) }""",
            {},
        )
        assert [a.name for a in after.graph.node[0].attribute] == ["axis"]
        assert_equal(model, after, {"x": noise(2, 6)})

    def test_a_split_by_sizes(self) -> None:
        model, after = self.lowered(
            "g (float[2,5] x) => (float[2,2] a, float[2,3] b) { a, b = Split<axis=1>(x, sizes) }",
            {"sizes": np.array([2, 3])},
        )
        assert_equal(model, after, {"x": noise(2, 5)})

    @pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
    def test_a_resize(self, mode: str) -> None:
        model, after = self.lowered(
            f'''g (float[1,2,4,5] x) => (float[1,2,8,10] y) {{ y = Resize<antialias=0,
            keep_aspect_ratio_policy="stretch", mode="{mode}">(x, , scales) }}''',
            {"scales": np.array([1, 1, 2, 2], np.float32)},
        )
        assert [a.name for a in after.graph.node[0].attribute] == ["mode"]
        assert_equal(model, after, {"x": noise(1, 2, 4, 5)})

    @pytest.mark.parametrize(
        ("attribute", "name"),
        [
            ("antialias=1", "antialias"),
            ('keep_aspect_ratio_policy="not_larger"', "keep_aspect"),
            ("axes=[3]", "axes"),
        ],
    )
    def test_a_resize_that_opset_17_lacks(self, attribute: str, name: str) -> None:
        constants = {"size": np.array([8] if name == "axes" else [1, 2, 8, 10])}
        model = build(
            f'g (float[1,2,4,5] x) => (float y) {{ y = Resize<{attribute}, mode="linear">(x, , , size) }}',
            constants,
            opset=18,
        )
        model.graph.node[0].name = "up"
        with pytest.raises(IllegalGraphError, match=rf"up: {name}\w* has no form in opset 17; use 18 or later"):
            lower_to_opset_17(model)

    @pytest.mark.parametrize(("axes", "keepdims"), [([1], 0), ([2, 3], 0), ([1], 1), ([2, 3], 1), ([-1], 1), ([], 1)])
    def test_a_mean(self, axes: list[int], keepdims: int) -> None:
        shape = ",".join("abcd"[: 4 if keepdims else 4 - len(axes)])
        model, after = self.lowered(
            f"""g (float[2,3,4,5] x) => (float[{shape}] y) {{
            y = ReduceMean<keepdims={keepdims}, noop_with_empty_axes=0>(x, axes) }}""",
            {"axes": np.array(axes, np.int64)},
        )
        assert len(after.graph.node[0].input) == 1
        assert_equal(model, after, {"x": noise(2, 3, 4, 5)})

    def test_a_mean_over_everything(self) -> None:
        model, after = self.lowered(
            "g (float[2,3] x) => (float[1,1] y) { y = ReduceMean<noop_with_empty_axes=0>(x) }", {}
        )
        assert_equal(model, after, {"x": noise(2, 3)})

    @pytest.mark.parametrize(
        ("node", "said"),
        [
            ("y = ReduceMean(x, axes)", "mean: reduced axes that are computed have no form in opset 17"),
            (
                "y = ReduceMean<noop_with_empty_axes=1>(x)",
                "mean: noop_with_empty_axes has no form in opset 17",
            ),
        ],
    )
    def test_a_mean_that_opset_17_lacks(self, node: str, said: str) -> None:
        model = build(f"g (float[2,3] x, int64[1] axes) => (float[a,b] y) {{ {node} }}", opset=18)
        model.graph.node[0].name = "mean"
        with pytest.raises(IllegalGraphError, match=said):
            lower_to_opset_17(model)
