"""The rules against the corpus, the corpus against TensorRT-RTX, and both against graphs of our own."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
import rtx_builds
from corpus import CORPUS
from corpus_graphs import Entry
from findings import find_problems, problems_on, rules_at
from graphs import build, content, copied
from onnx import TensorProto, helper

from hiresvit.check.rules import RULES
from hiresvit.check.targets import TARGETS
from hiresvit.device.tensorrt_api import installed
from hiresvit.engine.build import BuildSettings, build_engine
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.graph.index import schema_of
from hiresvit.process import run_child

needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason="TensorRT-RTX is not installed")


# Each rule's good graph in the corpus, and its bad one.
NEIGHBOURS = {
    "operands": ("convolution", "operand that is missing"),
    "invalid": ("weight that is an input too", "weight that is there twice"),
    "outputs": ("relu", "no outputs"),
    "opset": ("opset 9", "opset 6"),
    "operator": ("local function", "operator of nobody"),
    "domain": ("domain that is ONNX's", "domain with a known name"),
    "rank": ("eight axes", "nine axes"),
    "dynamic": ("dynamic with a profile", "dynamic"),
    "fed_size": ("fed K behind a TopK", "fed K"),
    "form": ("convolution 3D", "convolution 4D"),
    "ruled_out": ("grid", "grid of a volume"),
    "doubted": ("einsum", "einsum with ellipsis"),
    "ignored": ("gru", "gru of pictures first"),
    "tensor_type": ("bool input", "uint16 input"),
    "uint8": ("pixels cast first", "pixels moved first"),
    "operand_type": ("maximum of int32", "product of int32"),
    "unquantized": ("bytes that are dequantized", "bytes that are cast"),
    "mixed_types": ("grid", "grid of another type"),
    "doubtful_type": ("hardswish", "hardswish in bfloat16"),
    "undocumented_type": ("grid", "grid in bfloat16"),
    "double": ("relu", "double"),
    "int64": ("labels plus one in int32", "labels plus one"),
    "asymmetric": ("int8 convolution with zero points", "zero points of a weight"),
    "quantized": ("int8 convolution", "int16"),
    "unsigned": ("int8 convolution", "uint8 activation"),
    "no_zero_point": ("int8 convolution", "no zero point"),
    "bias": ("float bias", "int32 bias"),
    "stored": ("float weight that is turned", "int8 weight that is turned"),
    "scalar": ("int8 factor with one axis", "int8 factor with no axes"),
    "int4_activation": ("int8 convolution", "int4 activation"),
    "scale_sign": ("smallest scale", "zero scale"),
    "scale_infinite": ("smallest scale", "infinite scale"),
    "scale_dynamic": ("scale and zero point that are computed of constants", "scale that is computed"),
    "scale_count": ("weight along axis -4", "wrong number of scales"),
    "scale_type": ("int8 convolution", "scale of another type before opset 23"),
    "widened": ("dequantized in FP32", "widened by a cast"),
    "narrowed": ("int8 convolution", "narrowed by a cast"),
    "weight_axis": ("weight of MatMul along axis 1", "weight of MatMul along axis 0"),
    "channel_activation": ("weight along axis -4", "scales of an activation's channels"),
    "block": ("int8 convolution", "int8 in blocks"),
    "block_axis": ("int8 convolution", "blocks along a convolution's inputs"),
    "orin_qdq": ("convolution", "int8 convolution"),
    "int8_conv": ("weight of MatMul along axis 1", "int8 convolution"),
    "not_a_number": ("weight in FP32", "nan in a weight in FP32"),
    "infinite_weight": ("weight in FP32", "infinite weight in FP32"),
    "decomposed_norm": ("norm in pieces in FP32", "norm in pieces with a power"),
    "mask": ("mask of -100", "mask of -65504"),
    "epsilon": ("epsilon", "epsilon of 0"),
    "tiny_factor": ("factor", "tiny factor"),
    "infinite": ("infinite constant in FP32", "infinite constant"),
    "long_sum": ("mean of 1600", "mean of 3136"),
    "half_sizes": ("size computed in FP32", "size computed in FP16"),
    "shared_norm": ("layer norm", "shared norm"),
}


class TestCorpus:
    @pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: entry.name.replace(" ", "-"))
    def test_exactly_what_is_expected(self, entry: Entry) -> None:
        for target, found in problems_on(entry.model(), profiled=entry.profiled).items():
            expected = entry.on(target)
            assert rules_at("illegal", found) == expected.illegal, (target, found)
            assert rules_at("hazard", found) == expected.hazard, (target, found)

    def test_every_rule_has_a_good_and_a_bad_graph(self) -> None:
        """The good one is the bad one's neighbour: nothing but advice is found against it on any target."""
        asked = [rule.name for rule in RULES if any(map(rule.level_on, TARGETS.values()))]
        assert list(NEIGHBOURS) == asked  # those about Qualcomm's chips are in test_htp_corpus.py
        entries = {entry.name: entry for entry in CORPUS}
        for rule, names in NEIGHBOURS.items():
            good, bad = (
                [f for found in problems_on(one.model(), profiled=one.profiled).values() for f in found]
                for one in map(entries.__getitem__, names)
            )
            assert [finding for finding in good if finding.rule == rule or finding.level != "advice"] == [], rule
            assert rule in {finding.rule for finding in bad}, rule

    def test_its_size_is_what_the_document_says(self) -> None:
        text = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
        assert f"has {len(CORPUS)} graphs" in text
        assert f"no false alarm among the {len(CORPUS)} (" in text

    def test_names_are_unique(self) -> None:
        for names in ([entry.name for entry in CORPUS], [rule.name for rule in RULES]):
            assert [name for name, count in Counter(names).items() if count > 1] == []

    def test_half_of_it_is_good(self) -> None:
        legal = [entry.name for entry in CORPUS if not entry.on("rtx").illegal]
        assert len(legal) > 0.4 * len(CORPUS)

    @needs_rtx
    def test_tensorrt_rtx_builds_what_is_legal_and_nothing_else(self) -> None:
        told: dict[str, tuple[bool, str]] = {}

        def on_line(line: str) -> None:
            name, *answer = json.loads(line)
            told[name] = tuple(answer)

        child = run_child([rtx_builds.__file__], on_line=on_line)
        assert child.returncode == 0, child.stderr
        expected = {entry.name: not entry.on("rtx").illegal for entry in CORPUS}
        wrong = {name: told.get(name) for name, legal in expected.items() if told.get(name, (None,))[0] != legal}
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
        foo, bar = find_problems(model, "rtx")
        assert (foo.rule, foo.level, foo.count, foo.module) == ("operator", "illegal", 7, "net.blocks")
        assert foo.nodes[:2] == ("net.blocks.0.attn/Foo", "net.blocks.1/Foo")
        assert len(foo.nodes) == 7
        assert (bar.nodes, bar.count, bar.module) == (("Bar of y",), 1, "")
        assert foo.to_json()["message"] == foo.message

    def test_every_message_is_one_line_with_what_to_do(self) -> None:
        for entry in CORPUS:
            for findings in problems_on(entry.model(), profiled=entry.profiled).values():
                for finding in findings:
                    assert "\n" not in finding.message
                    assert "{" not in finding.message.partition(": ")[2]
                    assert finding.message.count(": ") > 0 or ", " in finding.message

    def test_in_the_order_of_the_rules(self) -> None:
        order = [rule.name for rule in RULES]
        entry = next(entry for entry in CORPUS if entry.name == "blocks along a convolution's inputs")
        found = [order.index(finding.rule) for finding in find_problems(entry.model(), "jetpack6")]
        assert len(found) > 2
        assert found == sorted(found)

    def test_the_graph_stays_as_it_is(self) -> None:
        for entry in CORPUS:
            model = entry.model()
            before = content(model)
            find_problems(model, "jetpack6")
            assert content(model) == before

    def test_weights_outside_the_proto(self) -> None:
        model = build("g (float[2] x) => (float[2] y) { y = Add(x, w) }", {"w": np.ones(2, np.float32)})
        model.graph.initializer[0].data_location = TensorProto.EXTERNAL
        with pytest.raises(UsageError, match=r"weights are outside the proto: load them too"):
            find_problems(model, "rtx")

    def test_what_a_graph_states_does_not_hide_what_it_computes(self) -> None:
        text = "g (float16[2] x) => (float16[2] y) <float16[2] c> { c = Cast<to = 1>(x) y = Add(c, x) }"
        assert rules_at("illegal", find_problems(build(text), "rtx")) == {"mixed_types"}

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
                    found = find_problems(model, "jetpack7")
                    assert {finding.rule for finding in found} == {"operands"}, (entry.name, node.op_type)
                    tried += 1
        assert tried > len(CORPUS)

    def test_a_constant_that_does_not_decode(self) -> None:
        model = build("g (float16[2] x) => (float16[2] y) { y = Mul(x, w) }", {"w": np.ones(2, np.float16)})
        model.graph.initializer[0].raw_data = b"odd"
        with pytest.raises(HiresvitError, match=r"^the graph's constant 'w' does not decode: "):
            find_problems(model, "rtx")

    def test_functions_that_call_themselves(self) -> None:
        text = '<ir_version: 9, opset_import: ["" : 20, "my" : 1]> g (float16[2] x) => (float16[2] y) { y = my.f(x) } '
        model = onnx.parser.parse_model(text + '<domain: "my", opset_import: ["my" : 1]> f (a) => (b) { b = my.f(a) }')
        with pytest.raises(HiresvitError, match=r"^the graph's local functions cannot be resolved: "):
            find_problems(model, "rtx")

    def test_a_type_of_tensor_that_onnx_does_not_have(self) -> None:
        model = build("g (float16[2] x) => (float16[2] y) { y = Relu(x) }")
        model.graph.input[0].type.tensor_type.elem_type = 99
        first, second = find_problems(model, "rtx")
        assert (first.rule, second.rule) == ("tensor_type", "tensor_type")
        assert first.message.startswith("input 'x' in TYPE 99: ")
        assert second.nodes == ("Relu of y",)

    @pytest.mark.parametrize("version", [0, 1, 40, 1000])
    def test_versions_that_there_are_not(self, version: int) -> None:
        model = build("g (float16[2] x) => (float16[2] y) { y = Relu(x) }", opset=version)
        assert rules_at("illegal", find_problems(model, "trt11")) == {"opset"}
