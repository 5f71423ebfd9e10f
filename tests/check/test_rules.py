"""The rules against the corpus, the corpus against TensorRT-RTX, and both against graphs of our own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import rtx_builds
from corpus import CORPUS
from corpus_graphs import Entry
from every import firsts, small_size
from graphs import build, content, copied, indexed
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from tiny import tiny_simplified, tiny_spec
from variants import chain

from hiresvit.calibration.qdq import quantize
from hiresvit.calibration.sites import find_sites
from hiresvit.check.rules import RULES, Finding, find_problems
from hiresvit.check.targets import TARGETS
from hiresvit.device.tensorrt_api import installed
from hiresvit.engine.build import BuildSettings, build_engine
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.export.fp16 import to_fp16
from hiresvit.graph.index import schema_of
from hiresvit.models.zoo import MODELS
from hiresvit.process import run_child

needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason="TensorRT-RTX is not installed")


def rules_at(level: str, findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings if finding.level == level}


def problems(model: ModelProto, target: str, profiled: bool = False) -> list[Finding]:
    return find_problems(model, TARGETS[target], profiled=profiled)


class TestCorpus:
    @pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: entry.name.replace(" ", "-"))
    def test_exactly_what_is_expected(self, entry: Entry) -> None:
        model = entry.model()
        for target in TARGETS:
            found = problems(model, target, entry.profiled)
            expected = entry.on(target)
            assert rules_at("illegal", found) == expected.illegal, (target, found)
            assert rules_at("hazard", found) == expected.hazard, (target, found)

    def test_every_rule_has_a_bad_graph(self) -> None:
        found = {
            finding.rule
            for entry in CORPUS
            for target in TARGETS
            for finding in problems(entry.model(), target, entry.profiled)
        }
        assert found == {rule.name for rule in RULES}

    def test_its_size_is_what_the_document_says(self) -> None:
        text = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
        assert f"has {len(CORPUS)} graphs" in text
        assert f"among the {len(CORPUS)} (" in text

    def test_names_are_unique(self) -> None:
        for names in ([entry.name for entry in CORPUS], [rule.name for rule in RULES]):
            assert [name for name, count in Counter(names).items() if count > 1] == []

    def test_half_of_it_is_good(self) -> None:
        legal = [entry.name for entry in CORPUS if not entry.on("rtx").illegal]
        assert len(legal) > 0.4 * len(CORPUS)

    def test_the_document_says_how_many_there_are(self) -> None:
        text = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
        assert f"has {len(CORPUS)} graphs" in text
        assert f"no false alarm among the {len(CORPUS)} " in text

    @needs_rtx
    def test_tensorrt_rtx_builds_what_is_legal_and_nothing_else(self) -> None:
        told: dict[str, tuple[bool, str]] = {}

        def on_line(line: str) -> None:
            name, *answer = json.loads(line)
            told[name] = tuple(answer)

        child = run_child([rtx_builds.__file__], on_line=on_line)
        assert child.returncode == 0, child.stderr
        expected = {entry.name: not entry.on("rtx").illegal for entry in CORPUS}
        wrong = {
            name: told.get(name) for name, legal in expected.items() if told.get(name, (None,))[0] != legal
        }
        assert wrong == {}

    @needs_rtx
    @pytest.mark.slow
    @pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: entry.name.replace(" ", "-"))
    def test_build_engine_says_the_same(self, entry: Entry, tmp_path: Path) -> None:
        graph = tmp_path / "graph.onnx"
        graph.write_bytes(content(entry.model()))
        shapes = {"x": ((1, 4, 1, 1), (2, 4, 2, 2), (4, 4, 4, 4))} if entry.profiled else {}
        refused = pytest.raises(HiresvitError) if entry.on("rtx").illegal else nullcontext()
        with refused:
            build_engine(graph, tmp_path / "plan", BuildSettings("tensorrt_rtx", shapes))


class TestFindings:
    def test_names_module_and_count(self) -> None:
        nodes = [
            helper.make_node("Foo", ["x"], ["a"], "net.blocks.0.attn/Foo"),
            helper.make_node("Foo", ["a"], ["b"], "net.blocks.1/Foo"),
            *(helper.make_node("Foo", ["b"], [f"c{k}"], f"net.blocks.2/Foo_{k}") for k in range(5)),
            helper.make_node("Bar", ["c0"], ["y"]),
        ]
        model = build("g (float16[2] x) => (float16[2] y) { y = Relu(x) }")
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        foo, bar = problems(model, "rtx")
        assert (foo.rule, foo.level, foo.count, foo.module) == ("operator", "illegal", 7, "net.blocks")
        assert foo.nodes[:2] == ("net.blocks.0.attn/Foo", "net.blocks.1/Foo")
        assert len(foo.nodes) == 5
        assert (bar.nodes, bar.count, bar.module) == (("Bar of y",), 1, "")
        assert foo.to_json()["message"] == foo.message

    def test_every_message_is_one_line_with_what_to_do(self) -> None:
        for entry in CORPUS:
            for target in TARGETS:
                for finding in problems(entry.model(), target, entry.profiled):
                    assert "\n" not in finding.message
                    assert "{" not in finding.message.partition(": ")[2]
                    assert finding.message.count(": ") > 0 or ", " in finding.message

    def test_in_the_order_of_the_rules(self) -> None:
        order = [rule.name for rule in RULES]
        entry = next(entry for entry in CORPUS if entry.name == "blocks along a convolution's inputs")
        found = [order.index(finding.rule) for finding in problems(entry.model(), "jetpack6")]
        assert len(found) > 2
        assert found == sorted(found)

    def test_the_graph_stays_as_it_is(self) -> None:
        for entry in CORPUS:
            model = entry.model()
            before = content(model)
            problems(model, "jetpack6")
            assert content(model) == before

    def test_weights_outside_the_proto(self) -> None:
        model = build("g (float[2] x) => (float[2] y) { y = Add(x, w) }", {"w": np.ones(2, np.float32)})
        model.graph.initializer[0].data_location = TensorProto.EXTERNAL
        with pytest.raises(UsageError, match=r"weights are outside the proto: load them too"):
            problems(model, "rtx")

    def test_what_a_graph_states_does_not_hide_what_it_computes(self) -> None:
        text = "g (float16[2] x) => (float16[2] y) <float16[2] c> { c = Cast<to = 1>(x) y = Add(c, x) }"
        assert rules_at("illegal", problems(build(text), "rtx")) == {"mixed_types"}

    def test_a_node_that_lacks_operands_is_all_that_is_said(self) -> None:
        tried = 0
        for entry in CORPUS:
            whole = entry.model()
            for k, node in enumerate(whole.graph.node):
                schema = None if node.domain else schema_of(node, entry.opset)
                least = 1 if any(a.name == "axes" for a in node.attribute) else 99  # an older form
                for count in range(min(schema.min_input, least) if schema else 0):
                    model = copied(whole)
                    del model.graph.node[k].input[count:]
                    found = find_problems(model, TARGETS["jetpack7"], profiled=False)
                    assert {finding.rule for finding in found} == {"operands"}, (entry.name, node.op_type)
                    tried += 1
        assert tried > len(CORPUS)

    def test_a_constant_that_does_not_decode(self) -> None:
        model = build("g (float16[2] x) => (float16[2] y) { y = Mul(x, w) }", {"w": np.ones(2, np.float16)})
        model.graph.initializer[0].raw_data = b"odd"
        with pytest.raises(HiresvitError, match=r"^the graph's constant 'w' does not decode: "):
            problems(model, "rtx")

    def test_functions_that_call_themselves(self) -> None:
        text = '<ir_version: 9, opset_import: ["" : 20, "my" : 1]> g (float16[2] x) => (float16[2] y) { y = my.f(x) } '
        model = onnx.parser.parse_model(
            text + '<domain: "my", opset_import: ["my" : 1]> f (a) => (b) { b = my.f(a) }'
        )
        with pytest.raises(HiresvitError, match=r"^the graph's local functions cannot be resolved: "):
            problems(model, "rtx")

    def test_a_type_of_tensor_that_onnx_does_not_have(self) -> None:
        model = build("g (float16[2] x) => (float16[2] y) { y = Relu(x) }")
        model.graph.input[0].type.tensor_type.elem_type = 99
        first, second = problems(model, "rtx")
        assert (first.rule, second.rule) == ("tensor_type", "tensor_type")
        assert first.message.startswith("input 'x' in TYPE 99: ")
        assert second.nodes == ("Relu of y",)

    @pytest.mark.parametrize("version", [0, 1, 40, 1000])
    def test_versions_that_there_are_not(self, version: int) -> None:
        model = build("g (float16[2] x) => (float16[2] y) { y = Relu(x) }", opset=version)
        assert rules_at("illegal", problems(model, "trt11")) == {"opset"}


@cache
def own_graphs() -> dict[str, bytes]:
    simple = tiny_simplified(tiny_spec())
    half = to_fp16(simple)[0]
    sites = find_sites(indexed(simple))
    # The ranges do not matter here: any scale above 0 is legal.
    int8, _ = quantize(half, sites, {site.tensor: 4.0 for site in sites})
    return {"fp32": content(simple), "fp16": content(half), "int8": content(int8)}


def no_false_alarm(model: ModelProto) -> None:
    for target in TARGETS:
        found = problems(model, target)
        assert [finding for finding in found if finding.level != "advice"] == [], target


class TestOurOwnGraphs:
    @pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
    def test_no_false_alarm(self, kind: str) -> None:
        no_false_alarm(onnx.load_from_string(own_graphs()[kind]))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", list(firsts().values()))
    def test_no_false_alarm_in_any_family(self, name: str) -> None:
        for task in MODELS[name].imgsz:
            graphs = chain(name, task, small_size(name)).graphs
            sites = find_sites(indexed(graphs["simplified"]))
            int8, _ = quantize(graphs["fp16"], sites, {site.tensor: 4.0 for site in sites})
            for model in (graphs["simplified"], graphs["fp16"], int8):
                no_false_alarm(model)


Damage = Callable[[ModelProto], object]


def first(model: ModelProto, op: str, inputs: int = 1) -> NodeProto:
    node: NodeProto = next(n for n in model.graph.node if n.op_type == op and len(n.input) >= inputs)
    return node


def replaced(model: ModelProto, name: str, value: Any) -> str:
    """The name of a new constant; ``value`` may be a function of the old one's values."""
    old = next(t for t in model.graph.initializer if t.name == name)
    new = value(numpy_helper.to_array(old)) if callable(value) else value
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(new), f"{name}.damaged"))
    return f"{name}.damaged"


def swap_input(op: str, index: int, value: Any) -> Damage:
    def damage(model: ModelProto) -> None:
        node = first(model, op, index + 1)
        node.input[index] = replaced(model, node.input[index], value)

    return damage


def pair_zero_point(dtype: type, value: int) -> Damage:
    def damage(model: ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), "damaged"))
        quantizer = first(model, "QuantizeLinear", 3)
        for node in model.graph.node:
            if node is quantizer or (
                node.op_type == "DequantizeLinear" and quantizer.output[0] in node.input
            ):
                node.input[2] = "damaged"

    return damage


def integer_bias(model: ModelProto) -> None:
    conv = first(model, "Conv", 3)
    width = next(t.dims[0] for t in model.graph.initializer if t.name == conv.input[2])
    for name, value in (("db", np.ones(width, np.int32)), ("ds", np.ones(width, np.float16))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["db", "ds"], ["dd"], axis=0))
    conv.input[2] = "dd"


def attribute(op: str, name: str, value: Any) -> Damage:
    def damage(model: ModelProto) -> None:
        node = first(model, op)
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return damage


def weight_axis(model: ModelProto) -> None:
    shapes = {t.name: t.dims for t in model.graph.initializer}
    square = next(
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and list(shapes.get(node.input[0], ()))[:2] in ([16, 16], [32, 32])
    )
    axis = next(a for a in square.attribute if a.name == "axis")
    axis.i = 1 - axis.i


def rename(op: str, **fields: str) -> Damage:
    def damage(model: ModelProto) -> None:
        for name, value in fields.items():
            setattr(first(model, op), name, value)

    return damage


def dynamic_height(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"


DAMAGES: list[tuple[str, str, Damage]] = [
    ("zero point", "asymmetric", pair_zero_point(np.int8, 3)),
    ("uint8", "unsigned", pair_zero_point(np.uint8, 0)),
    ("negative scale", "scale_sign", swap_input("QuantizeLinear", 1, lambda old: -old)),
    ("infinite scale", "scale_infinite", swap_input("QuantizeLinear", 1, np.float16(np.inf))),
    ("scale in FP32", "scale_type", swap_input("QuantizeLinear", 1, lambda old: old.astype(np.float32))),
    ("int32 bias", "bias", integer_bias),
    ("axis of a weight", "weight_axis", weight_axis),
    ("bias in FP32", "mixed_types", swap_input("Conv", 2, lambda old: old.astype(np.float32))),
    (
        "norm in FP16 and FP32",
        "mixed_types",
        swap_input("LayerNormalization", 1, lambda old: old.astype(np.float16)),
    ),
    ("opset", "opset", lambda model: setattr(model.opset_import[0], "version", 26)),
    ("unknown operator", "operator", rename("Gelu", op_type="FastGelu")),
    ("foreign operator", "domain", rename("Gelu", domain="com.microsoft")),
    ("antialias", "form", attribute("Resize", "antialias", 1)),
    ("dynamic", "dynamic", dynamic_height),
    ("no outputs", "outputs", lambda model: model.graph.ClearField("output")),
]


@pytest.mark.parametrize(
    ("name", "rule", "damage"), DAMAGES, ids=[name.replace(" ", "-") for name, _, _ in DAMAGES]
)
def test_damage_to_a_real_graph_is_found(name: str, rule: str, damage: Damage) -> None:
    model = onnx.load_from_string(own_graphs()["int8"])
    whole = copied(model)
    damage(model)
    assert content(model) != content(whole)
    # jetpack6 tolerates nothing that RTX does
    assert rule in rules_at("illegal", problems(model, "jetpack6"))
