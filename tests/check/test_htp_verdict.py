"""What Qualcomm's compiler adds to our rules: refused nodes by module, a death, a requirement; and the real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_htp import HTP
from graphs import content
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hiresvit.check import htp_verdict
from hiresvit.check.check import check_graph
from hiresvit.check.htp_verdict import precisions
from hiresvit.check.targets import find_target
from hiresvit.device import qnn_api
from hiresvit.device.chips import Chip, find_chip
from hiresvit.device.context import HtpReport, Refused
from hiresvit.errors import BuildError, GateError, IllegalGraphError, MissingDependency

needs_qnn = pytest.mark.skipif(not qnn_api.installed(), reason="onnxruntime-qnn is not installed")
AR1 = find_target("ar1")
Compile = Callable[[Path, Chip], HtpReport]


def report(**change: Any) -> HtpReport:
    empty: dict[str, Any] = {key: {} for key in ("versions", "operators", "arithmetic", "macs")}
    known: dict[str, Any] = {**empty, "refused": (), "departed": (), "warnings": ()}
    known |= {"chip": "ar1", "soc_model": 46, "arch": 73, "vtcm_mb": 2, "nodes_htp": 3, "nodes_cpu": 0}
    known |= {"context_bytes": 1000, "seconds": 0.1, "peak_rss_bytes": 1, **change}
    return HtpReport(**known)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[Compile], None]:
    def becomes(compile_graph: Compile) -> None:
        monkeypatch.setattr(htp_verdict, "require_library", lambda: None)
        monkeypatch.setattr(htp_verdict, "compile_graph", compile_graph)

    return becomes


def saved(folder: Path, name: str, nodes: str = "net.head") -> Path:
    """A graph of the corpus, its nodes named as a module's."""
    model: ModelProto = next(entry for entry in HTP if entry.name == name).model()
    for node in model.graph.node:
        node.name = f"{nodes}.{node.output[0]}/{node.op_type}"
    path = folder / "graph.onnx"
    path.write_bytes(content(model))
    return path


def refused(*nodes: str) -> HtpReport:
    parts = [(node, *node.rsplit("/", 1)) for node in nodes]
    found = tuple(Refused(node, module, op.partition("_")[0], "rank 6") for node, module, op in parts)
    return report(refused=found, nodes_cpu=len(found), failure="nodes are left")


class TestRefusals:
    def test_by_module_and_merged_with_the_rules(self, tmp_path: Path, compiler: Callable[[Compile], None]) -> None:
        """What a rule has named is not said twice."""
        compiler(lambda graph, chip: refused("net.head.y/Sinh", "net.a/Pad", "net.a/Pad_1", "net.b/Pad"))
        found = check_graph(saved(tmp_path, "sinh"), [AR1])
        [verdict] = found.verdicts
        told = [(finding.rule, finding.module, finding.count) for finding in verdict.illegal]
        assert told == [
            ("operator", "net.head.y", 1),
            ("floating_point", "net.head.y", 1),
            ("compiler", "net.a", 2),
            ("compiler", "net.b", 1),
        ]
        assert verdict.illegal[2].message.startswith("Pad, rank 6: Qualcomm's compiler refuses it: ")
        assert isinstance(found.failure, IllegalGraphError)
        assert found.is_legal(verdict) is False

    def test_that_no_rule_knows(self, tmp_path: Path, compiler: Callable[[Compile], None]) -> None:
        compiler(lambda graph, chip: refused("net.a/Relu"))
        found = check_graph(saved(tmp_path, "relu in integers"), [AR1])
        assert str(found.failure).endswith("is illegal for ar1: Relu, rank 6")

    def test_of_the_whole(self, tmp_path: Path, compiler: Callable[[Compile], None]) -> None:
        compiler(lambda graph, chip: report(failure="QNN_COMMON_ERROR_MEM_ALLOC\nat finalize"))
        found = check_graph(saved(tmp_path, "relu in integers"), [AR1])
        [finding] = found.verdicts[0].illegal
        assert (finding.rule, finding.what) == ("compiler", "QNN_COMMON_ERROR_MEM_ALLOC at finalize")


def test_a_compiler_that_dies_says_nothing_about_the_graph(tmp_path: Path, compiler: Callable[[Compile], None]) -> None:
    def dies(graph: Path, chip: Chip) -> HtpReport:
        raise BuildError("Qualcomm's library was killed by SIGSEGV")

    compiler(dies)
    found = check_graph(saved(tmp_path, "relu in integers"), [AR1])
    assert isinstance(found.failure, BuildError)
    assert found.to_json()["targets"][0]["legal"] is None


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qnn_api, "installed", lambda: False)
    monkeypatch.setattr(qnn_api, "why_not", lambda: None)
    path = saved(tmp_path, "relu in integers")
    found = check_graph(path, [AR1])
    assert found.failure is None
    assert found.to_json()["targets"][0]["compiler"]["skipped"].startswith("Qualcomm's compiler is not installed: ")
    with pytest.raises(MissingDependency, match=r"^int16:100% can only be seen in a build"):
        check_graph(path, [AR1], require="int16:100%")


def test_not_asked(tmp_path: Path, compiler: Callable[[Compile], None]) -> None:
    """By rules alone, of a graph that is damaged, and for another target."""
    asked: list[str] = []

    def compiles(graph: Path, chip: Chip) -> HtpReport:
        asked.append(chip.name)
        return report()

    compiler(compiles)
    path = saved(tmp_path, "relu in integers")
    for targets, build in (([AR1], False), ([find_target("jetpack6")], True), ([AR1, find_target("sm8650")], True)):
        found = check_graph(path, targets, build=build)
        assert found.compiled is None
    assert asked == ["ar1", "sm8650"]


class TestRequirements:
    @pytest.mark.parametrize(
        ("required", "missed"),
        [("int16:100%", None), ("int8:90%", "ar1: int8:90% required, 25 % realised (int16 75 %)")],
    )
    def test_by_what_the_compiler_computes(
        self, tmp_path: Path, compiler: Callable[[Compile], None], required: str, missed: str | None
    ) -> None:
        compiler(lambda graph, chip: report(macs={"u16,s8": 70, "u16,s16": 5, "u8,s8": 25}))
        found = check_graph(saved(tmp_path, "relu in integers"), [AR1], require=required)
        assert found.missed == missed
        assert isinstance(found.failure, GateError | None)

    def test_words(self) -> None:
        macs = {"u16,s8": 1, "u16,s16": 2, "u8,s8": 4, "fp16,fp16": 8, "u16,s8+u8,s8": 16, "unknown": 32}
        assert precisions(macs) == {"unknown": 32, "int16": 19, "fp16": 8, "int8": 4}


@needs_qnn
class TestTheRealCompiler:
    @pytest.mark.parametrize(
        ("axes", "require", "failure"),
        [([1, 4], "fp16:95%", None), (["N", 4], None, "input 'x' is dynamic"), ([2] * 6, None, "6 axes")],
    )
    def test_says_what_is_wrong_whatever_it_is_given(
        self, tmp_path: Path, axes: list[Any], require: str | None, failure: str | None
    ) -> None:
        """A product in FP16; open sizes; and a graph that the HTP takes nothing of, so that no context is written."""
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes) for name in ("x", "y")]
        weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
        node = helper.make_node("MatMul", ["x", "w"], ["y"], "m/MatMul")
        if len(axes) == 6:
            node = helper.make_node("Transpose", ["x"], ["y"], "m/Transpose", perm=[5, 4, 3, 2, 1, 0])
        path = tmp_path / "graph.onnx"
        graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
        path.write_bytes(content(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)))
        found = check_graph(path, [find_target("sm8650")], require=require)
        assert (failure or "None") in str(found.failure)
        assert json.loads(json.dumps(found.to_json()))["graph"] == str(path)

    def test_has_the_last_word(self, tmp_path: Path) -> None:
        """A graph that our rules let pass, and that the provider has no translation of."""
        path = saved(tmp_path, "window of six axes, batch 1")
        found = check_graph(path, [AR1, find_target("sm8650")])
        assert found.failure is None
        judged = found.verdicts[0].judged
        assert judged is not None
        assert judged.report is not None
        assert (judged.report.soc_model, judged.report.nodes_cpu) == (find_chip("ar1").soc_model, 0)
        assert json.loads(json.dumps(found.to_json()))["targets"][1]["compiler"]["report"]["chip"] == "sm8650"

    def test_names_what_it_refuses(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With our rules silenced."""
        monkeypatch.setattr("hiresvit.check.check.problems_of", lambda view: [])
        found = check_graph(saved(tmp_path, "window of six axes, batch 2"), [AR1])
        findings = found.verdicts[0].illegal
        assert {finding.rule for finding in findings} == {"compiler"}
        assert {finding.module.rpartition(".")[0] for finding in findings} == {"net.head"}
