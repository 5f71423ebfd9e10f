"""What every deployed variant may cost at its default task and size, and that each survives the whole path.

``tests/golden/budgets.json`` has what they took when they were last looked at; run as a program, this file measures
the variants that are named, or all, and writes it anew. More than 5 % above it needs a look, and then a new file.
CI builds the first variant of two families in full and counts the nodes of the small ones; `make test-all` does all.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from axes import MOST_AXES
from every import firsts, small_size
from findings import find_problems
from graphs import constants_of, content, indexed
from onnx import ModelProto
from variants import Chain, make_chain, parity

from hiresvit.check.targets import TARGETS
from hiresvit.device.plan import EngineReport
from hiresvit.device.tensorrt_api import INSTALL_HINT, installed
from hiresvit.engine.build import build_engine
from hiresvit.evaluation.parity import GATES, check_gate, gates_for
from hiresvit.export.onnx import export_onnx
from hiresvit.graph.attentions import count_attentions
from hiresvit.models.create import build_model, model_spec
from hiresvit.models.fold import fold
from hiresvit.models.hrvit_block import Attention
from hiresvit.models.zoo import MODELS
from hiresvit.spec import Task

FILE = Path(__file__).parents[1] / "golden" / "budgets.json"
SLACK = 1.05
# HRViT-b1's limits: the authors' simplified export has 4257 nodes and takes 927 kernels. An addition per half for
# Qualcomm's compiler (docs/models.md) takes two nodes in each attention, and no kernel: 1777 were 1847. Lines as a
# batch, on three axes, take a few Reshapes and spare a copy of the values.
MOST_NODES, MOST_KERNELS = 1900, 500
QUICK_NODES, AGAIN_NODES = 600, 700  # an export takes a second for every hundred

# Arithmetic on shapes, what comes of it, what does nothing, and norms in pieces.
FORBIDDEN = {
    *("Shape", "Size", "Range", "Where", "ScatterND", "Gather", "GatherElements", "GatherND", "NonZero"),
    *("ConstantOfShape", "Expand", "Tile", "Identity", "Constant", "If", "Loop", "Dropout"),
    *("Unsqueeze", "Squeeze", "Div", "Sqrt", "Pow", "Erf"),
}
needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason=f"TensorRT-RTX is not installed: {INSTALL_HINT}")


@dataclass(frozen=True)
class Case:
    """A variant at its default size: its graphs, its plan if TensorRT-RTX is here, and what was recorded of it."""

    name: str
    chain: Chain
    engine: EngineReport | None
    recorded: dict[str, int]

    @property
    def simplified(self) -> ModelProto:
        return self.chain.graphs["simplified"]

    def limit(self, what: str) -> float:
        return SLACK * self.recorded[what]


def recorded(name: str) -> dict[str, int]:
    """Nothing for a variant that is new: `main` records it, and until then its tests fail."""
    budgets: dict[str, dict[str, int]] = json.loads(FILE.read_text())["variants"]
    return budgets.get(name, {})


def deploy(name: str) -> tuple[Chain, EngineReport | None]:
    made = make_chain(name, MODELS[name].task, model_spec(name).imgsz)
    if not installed("tensorrt_rtx"):
        return made, None
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "fp16.onnx")
        graph.write_bytes(content(made.graphs["fp16"]))
        return made, build_engine(graph, Path(folder, "fp16.plan"))


FIRSTS = list(firsts().values())
QUICK = ["hrvit_b1", "mixformer_b0"]  # for CI's time; small forms of the others are in their own files
slow = pytest.mark.slow


# A fixture, so that pytest runs all tests of a variant before the next one is made: some take gigabytes.
@pytest.fixture(scope="module", params=[pytest.param(n, marks=() if n in QUICK else slow) for n in MODELS])
def case(request: pytest.FixtureRequest) -> Case:
    chain, engine = deploy(request.param)
    return Case(request.param, chain, engine, recorded(request.param))


def test_nodes(case: Case) -> None:
    assert len(case.simplified.graph.node) <= case.limit("nodes")
    assert case.name != "hrvit_b1" or len(case.simplified.graph.node) <= MOST_NODES


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if recorded(name).get("exported", 0) <= QUICK_NODES else slow)
        for name in MODELS
        if name not in FIRSTS and (recorded(name) or not name.endswith("_plus"))  # the head is that of the smallest
    ],
)
def test_exported_nodes(name: str) -> None:
    """Of the others, as they are exported; simplifying them all would take minutes."""
    spec = model_spec(name)
    assert len(export_onnx(fold(build_model(spec)), spec).graph.node) <= SLACK * recorded(name)["exported"]


def test_bytes(case: Case) -> None:
    """A constant that is there twice, or one that was folded into something large."""
    assert len(content(case.simplified)) <= case.limit("bytes")


def test_no_shape_arithmetic(case: Case) -> None:
    graph = case.simplified.graph
    found = Counter(node.op_type for node in graph.node).keys()
    assert not found & FORBIDDEN - ({"Where"} if case.name.endswith("_plus") else set())  # masks of its attentions
    assert case.name != "hrvit_b1" or not found & {"BatchNormalization", "Mul"}
    constants = constants_of(case.simplified)
    for node in graph.node:
        if node.op_type in {"Reshape", "Pad", "Slice", "Resize", "Split"}:
            assert all(name in constants for name in node.input[1:] if name), node.name
    assert all(d.HasField("dim_value") for v in graph.value_info for d in v.type.tensor_type.shape.dim)


def test_no_tensor_has_more_than_five_axes(case: Case) -> None:
    """Qualcomm's HTP takes none; sizes that the batch leaves open have their axes all the same."""
    for stage, graph in case.chain.graphs.items():
        index = indexed(graph)
        assert {name: shape for name, shape in index.shapes.items() if len(shape) > MOST_AXES} == {}, stage


def test_nothing_is_added_to_a_transposition_that_was_joined(case: Case) -> None:
    """Qualcomm's compiler loses the Transpose then, and says nothing: the trained nano had 19 dB instead of 59."""
    index = indexed(case.simplified)
    for node in index.nodes:
        if node.op_type == "Concat" and any(reader.op_type == "Add" for reader, _ in index.reads(node.output[0])):
            makers = [index.producer.get(name) for name in node.input]
            assert not any(maker is not None and maker.op_type == "Transpose" for maker in makers), node.name


def test_pads_are_those_of_the_stripes(case: Case) -> None:
    """HRViT: two for each attention whose map is no multiple of its window, of zeros, along one axis."""
    if MODELS[case.name].family != "hrvit":
        pytest.skip("stripes are HRViT's")
    padded = [m for m in case.chain.model.modules() if isinstance(m, Attention) and m.rows.padding]
    assert padded
    constants = constants_of(case.simplified)
    pads = [node for node in case.simplified.graph.node if node.op_type == "Pad"]
    assert len(pads) == 2 * len(padded)
    for pad in pads:
        assert ".attn/" in pad.name
        assert not [a for a in pad.attribute if a.name == "mode" and a.s != b"constant"]
        assert not any(np.any(constants[name]) for name in pad.input[2:] if name)
        assert np.count_nonzero(constants[pad.input[1]]) == 1


def test_attentions_are_all_there(case: Case) -> None:
    """HRViT has one for each attention module, two where rows and columns are not done at once."""
    wanted = case.recorded["attentions"]
    assert count_attentions(case.simplified) == wanted
    if MODELS[case.name].family == "hrvit":
        attentions = [m for m in case.chain.model.modules() if isinstance(m, Attention)]
        assert sum(2 if m.lines or m.columns is not None else 1 for m in attentions) == wanted


@needs_rtx
def test_every_attention_is_fused(case: Case) -> None:
    assert case.engine is not None
    assert case.engine.attentions_fused == case.engine.attentions_total == case.recorded["attentions"]


@needs_rtx
def test_kernels(case: Case) -> None:
    assert case.engine is not None
    assert case.engine.kernel_total <= case.limit("kernels")
    assert case.name != "hrvit_b1" or case.engine.kernel_total <= MOST_KERNELS


@needs_rtx
def test_bytes_that_the_plan_moves(case: Case) -> None:
    assert case.engine is not None
    assert moved(case.engine) <= case.limit("traffic_bytes")


@needs_rtx
def test_every_product_is_in_fp16(case: Case) -> None:
    assert case.engine is not None
    others = {kind: count for kind, count in case.engine.precision.items() if kind != "fp16"}
    said = case.recorded.get("fp32", 0)  # products of modules that say so (docs/fp16.md)
    assert others == ({"fp32": said} if said else {})
    assert case.engine.precision["fp16"] > case.engine.attentions_total
    assert case.engine.warnings == ()


@pytest.mark.parametrize("target", TARGETS)
def test_fit_for_every_target(case: Case, target: str) -> None:
    """Legal, and without a hazard; advice is about the target and not about the graph."""
    for stage in ("simplified", "fp16"):
        found = find_problems(case.chain.graphs[stage], target)
        assert [finding for finding in found if finding.level != "advice"] == []


@needs_rtx
def test_activation_memory(case: Case) -> None:
    assert case.engine is not None
    assert case.engine.activation_bytes <= case.limit("activation_bytes")


def test_parity_at_the_default_size(case: Case, tmp_path: Path) -> None:
    for stage, graph in case.chain.graphs.items():
        report = parity(case.chain, graph, tmp_path, images=1)
        assert check_gate(report, gates_for(case.chain.spec, GATES)[stage], stage) == []


def test_exporting_again_gives_the_same_bytes(case: Case) -> None:
    first = case.chain
    if case.recorded["exported"] > AGAIN_NODES:
        pytest.skip("what is smaller shows it")
    assert content(export_onnx(fold(first.model), first.spec)) == content(first.graphs["onnx"])


def quick_here(name: str, task: Task) -> bool:
    """The default tasks are done at full size above, and a tiny HRViT has every task, one UPerNet too, in other files.

    Of the rest the maps are cheapest.
    """
    return name in FIRSTS and MODELS[name].family != "hrvit" and task == "features"


@pytest.mark.parametrize(
    ("name", "task"),
    [
        pytest.param(name, task, marks=() if quick_here(name, task) else slow)
        for name, entry in MODELS.items()
        for task in entry.imgsz
    ],
)
def test_every_variant_passes_every_gate(name: str, task: Task, tmp_path: Path) -> None:
    exported = make_chain(name, task, small_size(name))
    for stage, graph in exported.graphs.items():
        onnx.checker.check_model(graph, full_check=True)
        report = parity(exported, graph, tmp_path)
        assert check_gate(report, gates_for(exported.spec, GATES)[stage], stage) == []
        assert all(output.worst.max_abs > 0 for output in report.outputs), "compared with itself?"


def moved(engine: EngineReport) -> int:
    """Bytes of activations that all kernels read and write."""
    assert engine.traffic is not None
    return engine.traffic.read_bytes + engine.traffic.written_bytes


def measure(name: str) -> dict[str, int]:
    chain, engine = deploy(name)
    assert engine is not None
    simplified = chain.graphs["simplified"]
    return {
        "exported": len(chain.graphs["onnx"].graph.node),
        "nodes": len(simplified.graph.node),
        "bytes": len(content(simplified)),
        "attentions": engine.attentions_fused,
        "kernels": engine.kernel_total,
        "activation_bytes": engine.activation_bytes,
        "traffic_bytes": moved(engine),
        **({"fp32": engine.precision["fp32"]} if "fp32" in engine.precision else {}),
    }


def main() -> None:
    from tensorrt_rtx import __version__ as version

    budgets: dict[str, Any] = json.loads(FILE.read_text())
    kept = {name: values for name, values in budgets.get("variants", {}).items() if name in MODELS}
    for name in sys.argv[1:] or MODELS:
        kept[name] = measure(name)
        print(name, kept[name], flush=True)
        facts = {
            "made_by": "PYTHONPATH=tests python tests/export/test_budgets.py: default task and size, fresh weights",
            "tensorrt_rtx": version,
            "variants": {name: kept[name] for name in MODELS if name in kept},
        }
        FILE.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
