"""`hiresvit compare --layers` on the graphs of one bundle and its PyTorch model, with faults planted in a module."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Cli
from graphs import build, constants_of
from onnx import ModelProto, NodeProto, helper, numpy_helper
from tiny import build_tiny

from hiresvit.errors import UsageError
from hiresvit.files import sha256_file
from hiresvit.models.zoo import MODELS
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.runner import Runner
from hiresvit.runtime.torch_runner import TorchRunner
from hiresvit.workflows.compare_layers import compare_sources_by_layer
from hiresvit.workflows.open import Source, open_source

# In the middle of the network, so that there is something before it and much behind it.
MODULE = "backbone.features.3.branches.0.0.attn.to_out.0"
CONVOLUTION = "backbone.features.1.patch_embed.1.proj.1"


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    """The tiny HRViT in HRViT-b1's place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hrvit_b1", replace(MODELS["hrvit_b1"], build=build_tiny))
        yield


def layers(reference: str | Path, test: str | Path, **options: Any) -> dict[str, Any]:
    """Of one drawn picture."""
    a, b = (opened(text) for text in (reference, test))
    found, missed = compare_sources_by_layer(a, b, [], drawn=1, **options)
    assert missed is None
    plain: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return plain


def opened(text: str | Path) -> Source:
    if text == "hrvit_b1":
        return open_source(text, threads=1, imgsz=(64, 96))
    return open_source(str(text), threads=1, replay=False)


def node_of(model: ModelProto, module: str) -> NodeProto:
    found: NodeProto = next(node for node in model.graph.node if node.name.rpartition("/")[0] == module)
    return found


def scale_weights(model: ModelProto) -> None:
    """Three times the weights and the bias of a Linear."""
    node = node_of(model, MODULE)
    values = constants_of(model)
    for tensor in model.graph.initializer:
        if tensor.name in node.input[1:]:
            tensor.CopyFrom(numpy_helper.from_array(3 * values[tensor.name], tensor.name))


def break_weight(model: ModelProto) -> None:
    node = node_of(model, MODULE)
    values = constants_of(model)[node.input[1]].copy()
    values.flat[0] = np.nan
    for tensor in model.graph.initializer:
        if tensor.name == node.input[1]:
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def behind(model: ModelProto, make: Callable[[str, str], NodeProto], **constants: Any) -> None:
    """A node behind the module, as a rewrite of it would be named."""
    node = node_of(model, MODULE)
    target, exact = node.output[0], f"{node.output[0]}/exact"
    node.output[0] = exact
    made = make(exact, target)
    made.name = f"{node.name}/more"
    nodes = list(model.graph.node)
    nodes.insert(nodes.index(node) + 1, made)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())


def clip(model: ModelProto) -> None:
    low, high = np.float32(-0.3), np.float32(0.3)
    behind(model, lambda a, b: helper.make_node("Clip", [a, "low", "high"], [b]), low=low, high=high)


def spoil_one_value(model: ModelProto) -> None:
    rows, channels = (dim.dim_value for dim in shape_of(model))
    spot = np.zeros((rows, channels), np.float32)
    spot[3, 5] = 100
    behind(model, lambda a, b: helper.make_node("Add", [a, "spot"], [b]), spot=spot)


def swap_channels(model: ModelProto) -> None:
    _, channels = (dim.dim_value for dim in shape_of(model))
    order = np.arange(channels)[::-1].copy()
    behind(model, lambda a, b: helper.make_node("Gather", [a, "order"], [b], axis=1), order=order)


def shape_of(model: ModelProto) -> Any:
    inferred = onnx.shape_inference.infer_shapes(model)
    [value] = [v for v in inferred.graph.value_info if v.name == node_of(model, MODULE).output[0]]
    return value.type.tensor_type.shape.dim


FAULTS: dict[str, Callable[[ModelProto], None]] = {
    "scale": scale_weights,
    "saturation": clip,
    "nan": break_weight,
    "outliers": spoil_one_value,
    "everything": swap_channels,
}


@pytest.mark.parametrize("kind", list(FAULTS))
def test_a_fault_is_found_where_it_is_and_called_by_its_kind(kind: str, tiny_bundle: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_bundle / "simplified.onnx")
    FAULTS[kind](model)
    onnx.save(model, tmp_path / "wrong.onnx")
    found = layers(tiny_bundle / "simplified.onnx", tmp_path / "wrong.onnx")
    assert (found["first"]["module"], found["first"]["verdict"]) == (MODULE, kind)
    rows = found["modules"]
    place = [row["module"] for row in rows].index(MODULE)
    assert [row["verdict"] for row in rows[:place]] == [None] * place
    assert rows[-1]["verdict"] is not None, "it reaches the answer"
    assert found["unmatched"] == {"reference": [], "test": []}


def test_equal_graphs_differ_nowhere(tiny_bundle: Path) -> None:
    found = layers(tiny_bundle / "simplified.onnx", tiny_bundle / "fp32.onnx")
    assert found["first"] is None
    assert len(found["modules"]) > 50
    assert {row["max_abs"] for row in found["modules"]} == {0.0}
    assert found["tolerance"] == 80


@pytest.mark.parametrize(("stage", "tolerance", "least"), [("cpu", 80, 100), ("fp16", 33, 35)])
def test_forms_of_one_network_stay_within_their_tolerance(
    stage: str, tolerance: float, least: float, tiny_bundle: Path
) -> None:
    found = layers(tiny_bundle / "simplified.onnx", tiny_bundle / f"{stage}.onnx")
    assert found["tolerance"] == tolerance
    assert found["first"] is None
    gone = {module for side in found["unmatched"].values() for module in side}
    # TensorRT's form has the norms of these modules behind the products that read them.
    assert all(stage == "fp16" and module.endswith("attn_norm") for module in gone)
    assert least < min(row["sqnr_db"] for row in found["modules"] if row["sqnr_db"] is not None)
    assert found["origins"]["test"]["role"] == stage


def test_a_pytorch_model_is_compared_with_its_graph(tiny_bundle: Path) -> None:
    """Every module that is matched is the same tensor, else the smallest of these numbers would be below 20 dB."""
    found = layers("hrvit_b1", tiny_bundle / "simplified.onnx")
    rows = found["modules"]
    assert min(row["sqnr_db"] for row in rows if row["sqnr_db"] is not None) > 90
    names = {row["module"]: row["kind"] for row in rows}
    assert names[MODULE] == "Linear"
    assert names[CONVOLUTION] == "Conv2d"
    assert found["unmatched"]["reference"] == []
    assert len(found["unmatched"]["test"]) < 0.1 * len(rows)
    assert rows[-1]["module"] == "output"


def test_the_graph_may_be_the_reference_and_the_model_the_test(tiny_bundle: Path) -> None:
    found = layers(tiny_bundle / "fp16.onnx", "hrvit_b1")
    assert found["first"] is None
    assert found["tolerance"] == 33


def test_a_plan_is_built_anew_from_its_graph_with_the_tensors_as_outputs(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ONNX Runtime in the place of TensorRT: a plan here is the graph that it was built from."""
    graph = Path(shutil.copy(tiny_bundle / "fp16.onnx", tmp_path))
    built: list[int] = []

    def build(source: Path, plan: Path) -> None:
        assert plan.suffix == ".plan"
        built.append(len(onnx.load(source).graph.output))
        shutil.copy(source, plan)

    def run(path: Path, **options: Any) -> Runner:
        assert options == {"runner": None, "threads": None}
        return OnnxRuntimeRunner(path, threads=1)

    monkeypatch.setattr("hiresvit.engine.build.build_engine", build)
    monkeypatch.setattr("hiresvit.workflows.watched.open_runner", run)
    digest = sha256_file(graph)

    def plan(built_from: tuple[Path, str] | None = (graph, digest)) -> Source:
        return replace(opened(tiny_bundle / "fp16.onnx"), graph=None, built_from=built_from, label="tiny.plan")

    def reference() -> Source:
        return opened(tiny_bundle / "simplified.onnx")

    found, _ = compare_sources_by_layer(reference(), plan(), [], drawn=1)
    assert built == [len(found["modules"])]
    assert found == {**layers(tiny_bundle / "simplified.onnx", graph), "test": "tiny.plan", "origins": found["origins"]}
    shutil.copy(tiny_bundle / "cpu.onnx", graph)
    with pytest.raises(UsageError, match=r"tiny.plan is a plan, and .*fp16.onnx, as it was then, is not there"):
        compare_sources_by_layer(reference(), plan(), [], drawn=1)
    with pytest.raises(UsageError, match="nothing beside it says of which graph"):
        compare_sources_by_layer(reference(), plan(None), [], drawn=1)


def test_another_runner_gets_the_tensors_too(tiny_bundle: Path) -> None:
    pytest.importorskip("openvino")
    found = layers(tiny_bundle / "simplified.onnx", tiny_bundle / "cpu.onnx", runner="openvino")
    assert found["first"] is None


def test_modules_of_pytorch_are_each_seen_once() -> None:
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.Dropout())
            self.second = nn.ReLU()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.second(self.first(self.second(x)))
            return x, x + 1

    from hiresvit.spec import TensorSpec

    feeds = {"x": np.ones((2, 4), np.float32)}
    outputs = tuple(TensorSpec(name, "float32", (2, 4)) for name in "ab")
    with TorchRunner(Net(), (TensorSpec("x", "float32", (2, 4)),), outputs) as runner:
        assert runner.modules(feeds) == [("first.0", "Linear", (2, 4)), ("second", "ReLU", (2, 4)), ("", "Net", (2, 4))]
        second, whole = runner.results_of(["second", ""], feeds)
        np.testing.assert_array_equal(whole, second + 1)


def test_the_command_names_the_module_and_ends_with_4(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_bundle / "simplified.onnx")
    scale_weights(model)
    onnx.save(model, tmp_path / "wrong.onnx")
    command = ("compare", tiny_bundle / "simplified.onnx", tmp_path / "wrong.onnx", "--layers", "--images", 1)
    result = cli(*command, "--layer-sqnr", 40, "-o", tmp_path / "layers.json")
    assert result.code == 4
    assert f"module {MODULE} has -6.0 dB, at least 40 is needed" in result.err
    assert f"{MODULE} (Gemm) is the first of" in result.out
    assert "a constant factor, 3" in result.out
    saved = json.loads((tmp_path / "layers.json").read_text())
    assert saved["layers"]["tolerance"] == 40
    assert saved["error"]["exit_code"] == 4
    assert cli(*command).code == 0  # nothing was asked for


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layer-sqnr", "3"], "--layer-sqnr is a limit of --layers"),
        (["--layers", "--layer-sqnr", "nan"], "--layer-sqnr nan: give a number"),
        (["--layers", "--min-sqnr", "3"], "--min-sqnr: of the answers, and --layers compares modules"),
        (["--layers", "--images", "0"], "on 0 pictures"),
        (["--smallest", "bug.onnx"], "--smallest goes on from what --layers finds"),
        (
            ["--layers", "--smallest", "bug.onnx"],
            "and is what an engine is held to",
        ),
        (
            ["--layers", "--smallest", "bug.txt"],
            "--smallest bug.txt: the file is an ONNX graph",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options: list[str], words: str, cli: Cli, tiny_bundle: Path) -> None:
    result = cli("compare", tiny_bundle, tiny_bundle, *options)
    assert result.code == 2
    assert words in result.err


@pytest.mark.parametrize("there", ["bug.onnx", "bug.npz"])
def test_the_smallest_graph_replaces_nothing(there: str, cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    """It may be the very graph that is compared."""
    (tmp_path / there).write_text("mine")
    result = cli("compare", tiny_bundle, tiny_bundle, "--layers", "--smallest", tmp_path / "bug.onnx")
    assert result.code == 2
    assert f"{there} exists; choose another name" in result.err
    assert (tmp_path / there).read_text() == "mine"


def test_modules_of_other_sizes_are_not_said_to_lack_names(tiny_bundle: Path, tmp_path: Path) -> None:
    shape = "float[1,3,64,96]"
    graph = build(f"g ({shape} image) => ({shape} y) {{ y = Relu(image) }}")
    graph.graph.node[0].name = f"{MODULE}/Relu"
    onnx.save(graph, tmp_path / "other.onnx")
    with pytest.raises(UsageError, match="none has one size in both: compare two of one network and one input size"):
        layers(tiny_bundle / "simplified.onnx", tmp_path / "other.onnx")


def test_a_graph_without_our_names_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    shape = "float[1,3,64,96]"
    onnx.save(build(f"g ({shape} image) => ({shape} y) {{ y = Relu(image) }}"), tmp_path / "other.onnx")
    with pytest.raises(UsageError, match=r"other.onnx 0, and none is in both: nodes must be named by module"):
        layers(tiny_bundle / "simplified.onnx", tmp_path / "other.onnx")
