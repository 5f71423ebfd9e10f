"""Simplification: what it keeps, and that it gives the original back whatever its child process does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import build, content, distance, noise, run
from onnx import ModelProto
from tiny import tiny_graph, tiny_simplified, tiny_spec

from hiresvit.export import simplify as simplify_module
from hiresvit.export.simplify import TOLERANCE, SimplifyReport, simplify
from hiresvit.process import ChildResult, run_child

SPEC = tiny_spec()

# Dynamic in the batch; a constant subgraph and an Identity to remove, two outputs to mix up.
SMALL = """
small (float[batch,4,8] x) => (float[batch,4,8] y, float[batch,32] z) {
  [sum] two = Add(one, one)
  [same] xi = Identity(x)
  [norm] n = LayerNormalization<axis=-1>(xi, gamma)
  [scale] s = Mul(n, two)
  [relu] y = Relu(s)
  [flat] z = Reshape(y, flat)
}"""


def small() -> ModelProto:
    constants = {
        "one": np.ones(1, np.float32),
        "gamma": np.linspace(0.5, 2, 8, dtype=np.float32),
        "flat": np.array([-1, 32]),
    }
    model = build(SMALL, constants)
    onnx.helper.set_model_props(model, {"hiresvit.stage": "fp32"})
    model.producer_name, model.producer_version, model.graph.name = "hiresvit", "9", "small"
    onnx.checker.check_model(model, full_check=True)
    return model


Child = Callable[[str], None]


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    """Puts a program in onnxsim's place: it has the graph as ``model`` and is to write ``target``."""

    def replace(code: str) -> None:
        program = tmp_path / "instead.py"
        program.write_text(
            "import os, signal, sys\nimport numpy as np\nimport onnx\nfrom onnx import numpy_helper\n"
            "source, target = sys.argv[1:]\nmodel = onnx.load(source)\n"
            "def edit(name, change):\n"
            "    [t] = [t for t in model.graph.initializer if t.name == name]\n"
            "    t.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(t)), name))\n" + code
        )

        def run_instead(argv: Sequence[str]) -> ChildResult:
            assert argv[:2] == ["-m", "hiresvit.export._simplify_child"]
            return run_child([str(program), *argv[2:]])

        monkeypatch.setattr(simplify_module, "run_child", run_instead)

    return replace


SAVE = "\nonnx.save(model, target)"
# What the child does, and what the report must say.
ROGUES = {
    "segfault": ("os.kill(os.getpid(), signal.SIGSEGV)", "onnxsim was killed by SIGSEGV: no message"),
    "out of memory": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL (often: out of memory)"),
    "exception": ("raise ValueError('no idea')", "exited with code 1: ValueError: no idea"),
    "crash after writing": (SAVE + "\nos.abort()", "was killed by SIGABRT"),
    "nothing written": ("", "onnxsim exited with code 0: no message"),
    "garbage": ("open(target, 'wb').write(b'not a graph')", "a file that is not an ONNX graph"),
    "cut short": (
        "data = model.SerializeToString(); open(target, 'wb').write(data[:-40])",
        "a file that is not an ONNX graph",
    ),
    "empty file": ("open(target, 'wb')", ""),  # an empty message decodes; the checker has its own words
    "undefined input": ("model.graph.node[3].input[0] = 'nowhere'" + SAVE, "nowhere"),
    "unknown operator": ("model.graph.node[4].op_type = 'Rellu'" + SAVE, "Rellu"),
    "wrong order": ("n = model.graph.node.pop(0); model.graph.node.append(n)" + SAVE, ""),
    "numbers": ("edit('gamma', lambda g: g * np.float32(1.001))" + SAVE, "the outputs moved by"),
    "one number": (
        "edit('gamma', lambda g: g + np.float32(0.01) * (np.arange(8) == 3).astype(np.float32))" + SAVE,
        "the outputs moved by",
    ),
    "nan": ("edit('gamma', lambda g: g * np.float32('nan'))" + SAVE, "the outputs moved by nan"),
    "one nan": (
        "edit('gamma', lambda g: np.where(np.arange(8) == 3, np.nan, g).astype(np.float32))" + SAVE,
        "the outputs moved by nan",
    ),
    "inf": ("edit('one', lambda g: g * np.float32('inf'))" + SAVE, "the outputs moved by"),
    "another norm": ("model.graph.node[2].attribute.add(name='epsilon', type=1, f=0.1)" + SAVE, "moved by"),
    "renamed input": (
        "model.graph.input[0].name = 'picture'; model.graph.node[1].input[0] = 'picture'" + SAVE,
        "changed the graph's inputs or outputs",
    ),
    "renamed output": (
        "model.graph.output[1].name = 'w'; model.graph.node[5].output[0] = 'w'" + SAVE,
        "changed the graph's inputs or outputs",
    ),
    "lost output": ("del model.graph.output[1]" + SAVE, "changed the graph's inputs or outputs"),
    "swapped outputs": (
        "a, b = model.graph.output; model.graph.output.extend([b, a]); del model.graph.output[:2]" + SAVE,
        "changed the graph's inputs or outputs",
    ),
    "fixed batch": (
        "model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1" + SAVE,
        "changed the graph's inputs or outputs",
    ),
    "fixed batch inside": ("edit('flat', lambda f: np.array([1, 32]))" + SAVE, "ONNX Runtime refuses"),
}


@pytest.mark.parametrize("what", list(ROGUES))
def test_a_child_that_goes_wrong_changes_nothing(child: Child, what: str) -> None:
    code, said = ROGUES[what]
    child(code)
    model = small()
    kept, report = simplify(model)
    assert kept is model
    assert content(kept) == content(small())
    assert (report.nodes_before, report.nodes_after) == (6, 6)
    assert report.rolled_back
    assert said in report.rolled_back
    assert "\n" not in report.rolled_back
    assert len(report.rolled_back) <= 300


def test_a_child_that_changes_nothing_is_believed(child: Child) -> None:
    """The programs above fail for what they do, not for standing in."""
    child(SAVE)
    simple, report = simplify(small())
    assert report.rolled_back is None
    assert "Identity" not in {node.op_type for node in simple.graph.node}


def test_a_difference_below_the_tolerance_is_believed(child: Child) -> None:
    child("edit('gamma', lambda g: g * np.float32(1 + 1e-6))" + SAVE)  # as much as folding costs
    assert simplify(small())[1].rolled_back is None


def test_the_temporary_files_are_gone(child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    for code in (SAVE, "os.abort()"):
        child(code)
        simplify(small())
        assert list((tmp_path / "tmp").iterdir()) == []


def test_a_small_graph_gets_simpler() -> None:
    model = small()
    simple, report = simplify(model)
    assert report == SimplifyReport(nodes_before=6, nodes_after=4, rolled_back=None)
    assert report.to_json() == {"nodes_before": 6, "nodes_after": 4, "rolled_back": None}
    assert [node.name for node in simple.graph.node] == ["norm", "scale", "relu", "flat"]
    assert content(model) == content(small()), "the graph given is left alone"
    for batch in (1, 3):
        for before, after in zip(*(run(m, {"x": noise(batch, 4, 8)}) for m in (model, simple)), strict=True):
            assert distance(before, after) < 1e-6  # one constant folded, in float32


def value_types(model: ModelProto) -> list[Any]:
    return [(v.name, v.type.SerializeToString()) for v in (*model.graph.input, *model.graph.output)]


def test_metadata_and_contract_are_kept() -> None:
    simplified = [(small(), simplify(small())[0])]
    simplified += [(tiny_graph(SPEC, dynamic_batch=d), tiny_simplified(SPEC, d)) for d in (False, True)]
    for model, simple in simplified:
        assert list(simple.metadata_props) == list(model.metadata_props)
        assert value_types(simple) == value_types(model)
        assert (simple.producer_name, simple.producer_version) == (
            model.producer_name,
            model.producer_version,
        )
        assert (simple.graph.name, simple.ir_version) == (model.graph.name, model.ir_version)
        assert list(simple.opset_import) == list(model.opset_import)
        assert (simple.doc_string, simple.graph.doc_string) == ("", "")


def test_a_network_keeps_its_numbers_for_any_batch() -> None:
    graph, simple = tiny_graph(SPEC, dynamic_batch=True), tiny_simplified(SPEC, dynamic_batch=True)
    assert len(simple.graph.node) <= len(graph.graph.node)
    for batch in (1, 3):
        image = noise(batch, 3, *SPEC.imgsz)
        # Constants folded in float32: 0 was measured, and TOLERANCE is for other machines.
        assert distance(*(run(m, {"image": image})[0] for m in (graph, simple))) < TOLERANCE


def test_a_second_time_gives_the_same_bytes() -> None:
    again, _ = simplify(tiny_graph(SPEC))
    assert content(again) == content(tiny_simplified(SPEC))


def test_simplifying_twice_changes_nothing_more() -> None:
    simple, report = simplify(tiny_simplified(SPEC))
    assert report.rolled_back is None
    assert report.nodes_after == report.nodes_before
    assert content(simple) == content(tiny_simplified(SPEC))
