"""What is said of graphs that are no ONNX, and that ONNX's own opinion does not make alarms of what is built."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from findings import find_problems, view_of
from graphs import build, content, copied
from onnx import ModelProto, helper

from hiresvit.check.rule import Finding
from hiresvit.check.validity_rules import invalid

F16 = np.float16
ROWS = "(float16[4,16] x) => (float16[4,16] y)"


def graph(body: str, io: str = ROWS, constants: Mapping[str, Any] | None = None, opset: int = 20) -> ModelProto:
    return build(f"g {io} {{ {body} }}", constants, opset)


def found(model: ModelProto, rule: str = "invalid", target: str = "jetpack6") -> list[Finding]:
    return [f for f in find_problems(model, target) if f.rule == rule]


class TestMessages:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("y = Add(x, nope)", "Add reads 'nope', which nothing makes: "),
            ("a = Relu(x) a = Neg(x) y = Abs(a)", "Neg makes 'a', which is there already: "),
            ("z = Relu(x)", "nothing makes the output 'y': "),
            ("y = Reshape(x, s)", "Reshape of 64 elements to 60: "),
            ("y = MatMul(x, w)", "MatMul of [4, 16] and [7, 3] (incompatible dimensions"),
        ],
    )
    def test_what_is_wrong(self, body: str, said: str) -> None:
        constants = {"s": np.array([4, 15]), "w": np.ones((7, 3), F16)}
        (finding,) = found(graph(body, constants=constants))
        assert finding.message.startswith(said)
        assert finding.message.endswith("export the graph again")
        assert ".cc" not in finding.message
        assert ".h:" not in finding.message

    def test_a_circle_without_what_hangs_on_it(self) -> None:
        text = "p = Relu(x) a = Add(p, b) b = Relu(a) c = Neg(b) y = Abs(c)"
        (finding,) = found(graph(text))
        assert finding.nodes == ("Add of a", "Relu of b")

    def test_a_size_that_is_not_known(self) -> None:
        model = graph("y = MatMul(x, w)", "(float16[4,16] x, float16[7,N] w) => (float16[4,N] y)")
        assert "MatMul of [4, 16] and [7, ?] (" in found(model)[0].message

    def test_sizes_are_not_looked_at_where_the_graph_hangs_together_wrongly(self) -> None:
        body = "a = MatMul(x, w) y = Add(a, nope)"
        (finding,) = found(graph(body, constants={"w": np.ones((7, 3), F16)}))
        assert "nope" in finding.message


class TestOperands:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("y = Gemm(x, w)", None),
            ("y = Gemm(x)", "Gemm with 1 operands and 1 results: ONNX wants more: "),
            ("y = ReduceSum<axes = [1]>(x)", None),
            ("y = Unsqueeze<axes = [0]>(x)", None),
            ("y = Unsqueeze(x)", "Unsqueeze with 1 operands and 1 results: ONNX wants more: "),
        ],
    )
    def test_fewer_than_there_have_to_be(self, body: str, said: str | None) -> None:
        """Axes that are an attribute, as they were before opset 13, need no operand."""
        findings = found(graph(body, "(float16[4,16] x) => (float16 y)", {"w": np.ones((16, 16), F16)}), "operands")
        assert [finding.message.startswith(said or "?") for finding in findings] == ([True] if said else [])


class TestOrder:
    def test_nodes_come_after_what_they_read(self) -> None:
        model = graph("y = Neg(c) c = Abs(a) b = Sqrt(a) a = Relu(x)")
        view = view_of(model)
        assert [node.op_type for node in view.nodes] == ["Relu", "Abs", "Neg", "Sqrt"]
        assert view.shapes["c"] == (4, 16)

    def test_an_order_that_is_good_stays(self) -> None:
        model = graph("a = Relu(x) b = Neg(x) c = Abs(b) d = Sqrt(a) y = Add(c, d)")
        assert list(view_of(model).nodes) == list(model.graph.node)

    def test_a_long_chain_behind_a_circle_is_not_in_it(self) -> None:
        model = graph("a = Add(x, b) b = Relu(a) y = Relu(x)")
        names = ["b", *(f"t{k}" for k in range(5000))]
        model.graph.node.extend(helper.make_node("Relu", [a], [b]) for a, b in pairwise(names))
        (finding,) = found(model)
        assert finding.count == 2


class TestNoAlarm:
    """Run: TensorRT-RTX 1.7 builds each of these."""

    def test_what_onnx_infers_of_forms_that_it_does_not_know(self) -> None:
        """Axes as an input, before they were one: to ONNX a sum of everything, a scalar."""
        body, io = "a = ReduceSum<keepdims = 0>(x, o) y = MatMul(a, w)", "(float16[4,4] x) => (float16[3] y)"
        model = graph(body, io, {"w": np.ones((4, 3), F16), "o": np.array([1])}, 11)
        with pytest.raises(onnx.shape_inference.InferenceError):
            onnx.shape_inference.infer_shapes(model, strict_mode=True)
        assert find_problems(model) == []

    def test_an_axis_of_minus_one_for_a_dynamic_one(self) -> None:
        model = graph("y = MatMul(x, w)", "(float16[4,4] x) => (float16[4,3] y)", {"w": np.ones((4, 3), F16)})
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -1
        assert found(model) == []

    @pytest.mark.parametrize("version", [6, onnx.defs.onnx_opset_version() + 1])
    def test_a_version_that_onnx_here_may_not_know(self, version: int) -> None:
        model = graph("y = MatMul(x, w)", constants={"w": np.ones((7, 3), F16)}, opset=version)
        assert found(model) == []

    def test_what_comes_behind_an_operator_of_somebody_else(self) -> None:
        model = graph("a = my.Foo(x) b = Relu(a) y = MatMul(b, w)", constants={"w": np.ones((7, 3), F16)})
        model.opset_import.append(helper.make_opsetid("my", 1))
        assert found(model) == []

    def test_weights_are_not_copied(self) -> None:
        """A graph over protobuf's 2 GiB cannot be serialised: none is made of what is large."""
        model = graph("y = MatMul(x, w)", constants={"w": np.ones((16, 16), F16)})
        weight = model.graph.initializer[0]
        weight.dims[:] = [16, 1 << 31]
        weight.raw_data = bytes(1 << 13)
        assert list(invalid.find(view_of(model))) == []
        weight.dims[:] = [17, 1 << 31]
        assert len(list(invalid.find(view_of(model)))) == 1


class TestBodies:
    @pytest.mark.parametrize("name", ["77", "0", ""])
    def test_a_complaint_about_a_node_inside_is_not_one_about_a_node_of_that_number(self, name: str) -> None:
        """Inference is told numbers for names, and a node inside an If may be called by one."""
        io = "(bool c, float[2] x) => (float[2] y)"
        then, other = "t () => (float a) { a = Add(z, w) }", "e () => (float b) { b = Neg(x) }"
        body = f"z = Add(x, x) y = If<then_branch = {then}, else_branch = {other}>(c)"
        model = graph(body, io, {"w": np.ones(3, np.float32)})
        model.graph.node[1].attribute[0].g.node[0].name = name
        assert all("Add of z" not in finding.nodes for finding in found(model))

    def test_what_a_body_reads_from_around_it_is_fed(self) -> None:
        io = "(float16[4,4] x, int64[1] k) => (float16 y)"
        body = "z = If<then_branch = t () => (int64[1] a) { a = Identity(k) }, else_branch = e () => (int64[1] b) {"
        model = graph(f"{body} b = Neg(k) }}>(yes) y, i = TopK(x, z)", io, {"yes": np.array(True)})
        assert "z" not in view_of(model).fixed


class TestNames:
    def test_what_cannot_be_printed_is_spelled_out(self) -> None:
        model = graph("y = Foo(x) z = Relu(nope)")
        foo, relu = model.graph.node
        foo.name, foo.op_type, relu.input[0] = "a.\x1b[31m\nb/Foo", "Foo\x1b[2J", "no\x07\npe\u202e"
        whole = content(copied(model))
        for finding in find_problems(model):
            for text in (finding.message, finding.module, *finding.nodes):
                assert text.isprintable(), text
        (finding,) = found(model, "operator")
        assert finding.nodes == (r"a.\x1b[31m\nb/Foo",)
        assert finding.module == r"a.\x1b[31m\nb"
        assert finding.message.startswith(r"operator Foo\x1b[2J, which ONNX does not have: ")
        assert r"'no\x07\npe\u202e'" in found(model)[0].message
        assert content(model) == whole

    def test_a_name_in_another_script_stays(self) -> None:
        model = graph("y = Foo(x)")
        model.graph.node[0].name = "層.注意/Foo é"
        assert found(model, "operator")[0].nodes == ("層.注意/Foo é",)
