"""Builds with the real TensorRT-RTX; run as a program it writes ``tests/golden/rtx_layers.txt``."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hiresvit.device.plan import EngineReport, read_header, read_sidecar
from hiresvit.device.tensorrt_api import INSTALL_HINT, installed, load
from hiresvit.engine import build as engine
from hiresvit.engine.build import BuildSettings, build_engine
from hiresvit.engine.kernels import count_kinds, parse_layers
from hiresvit.errors import BuildError, HiresvitError, IllegalGraphError, MissingDependency, UsageError
from hiresvit.spec import TensorSpec

GOLDEN = Path(__file__).parents[1] / "golden" / "rtx_layers.txt"
needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason=INSTALL_HINT)

SHAPES = ((1, 32, 16, 16),) * 3
Tensors = dict[str, "np.ndarray[Any, Any]"]


def save(
    path: Path, nodes: list[Any], shape: list[int | str], weights: Tensors, dtype: int = TensorProto.FLOAT16
) -> Path:
    """A graph x -> y, both of ``shape`` and ``dtype``."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("custom", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return path


def save_network(path: Path, dtype: type = np.float16, batch: int | str = 1) -> Path:
    """Two branches: a convolution; and a strided one, an attention with two heads, a Linear, a resize."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray[Any, Any]:
        return (rng.standard_normal(shape) * 0.1).astype(dtype)

    weights: Tensors = {
        "fine_w": weight(32, 32, 3, 3),
        "coarse_w": weight(32, 32, 2, 2),
        "qkv_w": weight(96, 32, 1, 1),
        "out_w": weight(32, 32),
        "scale": np.array(0.25, dtype),
        "heads": np.array([0, 2, 16, 64], np.int64),
        "tokens": np.array([0, 64, 32], np.int64),
        "map": np.array([0, 32, 8, 8], np.int64),
        "double": np.array([1, 1, 2, 2], np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "fine_w"], ["fine0"], "fine", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["fine0"], ["fine"], "fine_relu"),
        node("Conv", ["x", "coarse_w"], ["coarse"], "coarse", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["coarse", "qkv_w"], ["qkv"], "qkv", kernel_shape=[1, 1]),
        node("Split", ["qkv"], ["q0", "k0", "v0"], "split", axis=1, num_outputs=3),
        *(node("Reshape", [f"{n}0", "heads"], [f"{n}1"], f"{n}_heads") for n in "qkv"),
        *(node("Transpose", [f"{n}1"], [f"{n}2"], f"{n}_t", perm=[0, 1, 3, 2]) for n in "qv"),
        node("Mul", ["q2", "scale"], ["q3"], "q_scale"),
        node("MatMul", ["q3", "k1"], ["scores"], "scores"),
        node("Softmax", ["scores"], ["weights"], "softmax", axis=-1),
        node("MatMul", ["weights", "v2"], ["mixed"], "mix"),
        node("Transpose", ["mixed"], ["mixed_t"], "mix_t", perm=[0, 2, 1, 3]),
        node("Reshape", ["mixed_t", "tokens"], ["tokens0"], "to_tokens"),
        node("MatMul", ["tokens0", "out_w"], ["tokens1"], "linear"),
        node("Transpose", ["tokens1"], ["map0"], "map_t", perm=[0, 2, 1]),
        node("Reshape", ["map0", "map"], ["map1"], "to_map"),
        node("Resize", ["map1", "", "double"], ["up"], "resize", mode="nearest"),
        node("Add", ["up", "fine"], ["y"], "add"),
    ]
    onnx_dtype = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return save(path, nodes, [batch, 32, 16, 16], weights, onnx_dtype)


Progress = list[tuple[str, float]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineReport, Path, Progress]:
    folder = tmp_path_factory.mktemp("built")
    progress: Progress = []
    graph = save_network(folder / "net.onnx")
    plan = folder / "plans" / "net.plan"
    report = build_engine(graph, plan, on_progress=lambda phase, done: progress.append((phase, done)))
    return report, plan, progress


@needs_rtx
class TestBuild:
    def test_plan(self, built: tuple[EngineReport, Path, Progress]) -> None:
        report, plan, _ = built
        content = plan.read_bytes()
        assert content[:4] == b"vtrt"
        assert report.plan_bytes == len(content)
        assert report.plan_sha256 == hashlib.sha256(content).hexdigest()
        assert sorted(path.name for path in plan.parent.iterdir()) == ["net.plan", "net.plan.json"]

    def test_what_was_made_of_it(self, built: tuple[EngineReport, Path, Progress]) -> None:
        report, _, _ = built
        assert (report.attentions_fused, report.attentions_total) == (1, 1)
        assert report.kernels["conv"] == 3
        assert report.kernel_total == sum(report.kernels.values())
        # three convolutions, the attention and the Linear
        assert report.precision == {"fp16": 5}
        assert report.warnings == ()

    def test_contract_and_provenance(self, built: tuple[EngineReport, Path, Progress]) -> None:
        report, _, _ = built
        assert report.inputs == (TensorSpec("x", "float16", (1, 32, 16, 16)),)
        assert report.outputs == (TensorSpec("y", "float16", (1, 32, 16, 16)),)
        assert (report.backend, report.version) == ("tensorrt_rtx", load("tensorrt_rtx").__version__)
        assert (report.flags["max_aux_streams"], report.profiles) == (0, {})
        assert (report.compute_capability, report.device) == ("8.0 and later", None)

    def test_memory_and_time(self, built: tuple[EngineReport, Path, Progress]) -> None:
        report, _, _ = built
        # At least the two branches' maps in FP16.
        assert report.activation_bytes > 2 * 32 * 16 * 16
        assert report.activation_bytes >= report.scratch_bytes > 0
        assert 0 < report.weight_bytes < report.plan_bytes
        # The library alone is 100 MB; this graph needs nothing to speak of.
        assert 50 << 20 < report.peak_rss_bytes < 2 << 30
        assert report.build_seconds > 0

    def test_json_round_trip(self, built: tuple[EngineReport, Path, Progress]) -> None:
        report, _, _ = built
        assert EngineReport.from_json(json.loads(json.dumps(report.to_json()))) == report

    def test_progress_never_falls_and_ends_at_one(self, built: tuple[EngineReport, Path, Progress]) -> None:
        _, _, progress = built
        fractions = [fraction for _, fraction in progress]
        assert progress[0] == ("Parsing", 0.0)
        assert progress[-1] == ("Writing", 1.0)
        assert fractions == sorted(fractions)
        assert "Compiling kernels" in dict(progress)

    def test_a_second_build_is_the_same_plan(self, built: tuple[EngineReport, Path, Progress], tmp_path: Path) -> None:
        again = build_engine(save_network(tmp_path / "net.onnx"), tmp_path / "net.plan")
        assert again.plan_sha256 == built[0].plan_sha256

    def test_fp32_fuses_no_attention(self, tmp_path: Path) -> None:
        report = build_engine(save_network(tmp_path / "net.onnx", np.float32), tmp_path / "net.plan")
        assert (report.attentions_fused, report.attentions_total) == (0, 1)
        # as in FP16, with the attention's two products instead of one kernel
        assert report.precision == {"fp32": 6}
        assert "attention" not in report.kernels

    def test_aux_streams_and_the_recorded_layer_list(self, tmp_path: Path) -> None:
        graph = save_network(tmp_path / "net.onnx")
        report = build_engine(graph, tmp_path / "net.plan", BuildSettings(max_aux_streams=1))
        assert report.kernels == count_kinds(parse_layers(GOLDEN.read_text()))
        assert report.flags["max_aux_streams"] == 1

    def test_dynamic_batch(self, tmp_path: Path) -> None:
        graph = save_network(tmp_path / "net.onnx", batch="N")
        profile = ((1, 32, 16, 16), (2, 32, 16, 16), (4, 32, 16, 16))
        report = build_engine(graph, tmp_path / "net.plan", BuildSettings(shapes={"x": profile}))
        assert report.profiles == {"x": profile}
        assert report.inputs == (TensorSpec("x", "float16", ("batch", 32, 16, 16)),)
        assert report.outputs[0].shape[0] == "batch"
        assert (report.attentions_fused, report.attentions_total) == (1, 1)
        assert EngineReport.from_json(json.loads(json.dumps(report.to_json()))) == report


@needs_rtx
class TestSettings:
    def test_the_gpus_of_one_plan(self, tmp_path: Path) -> None:
        """RTX 30, 40 and 50, on a machine that has none of them; twice the same bytes."""
        graph, settings = save_network(tmp_path / "net.onnx"), BuildSettings("tensorrt_rtx", sm=(86, 89, 120))
        report = build_engine(graph, tmp_path / "net.plan", settings)
        assert report.compute_capability == "8.6, 8.9, 12.0"
        assert (report.attentions_fused, report.attentions_total) == (1, 1)
        again = build_engine(graph, tmp_path / "again.plan", settings)
        assert again.plan_sha256 == report.plan_sha256
        alone = build_engine(graph, tmp_path / "alone.plan", BuildSettings("tensorrt_rtx", sm=(86,)))
        assert alone.compute_capability == "8.6"
        assert alone.plan_sha256 != report.plan_sha256

    def test_flags_are_read_back_from_the_builder(self, tmp_path: Path) -> None:
        settings = BuildSettings("tensorrt_rtx", workspace=1 << 30, opt_level=1, max_aux_streams=2)
        report = build_engine(save_network(tmp_path / "net.onnx"), tmp_path / "net.plan", settings)
        assert report.flags == {
            "builder_flags": ["TF32"],
            "max_aux_streams": 2,
            "builder_optimization_level": 1,
            "workspace_bytes": 1 << 30,
        }

    def test_a_timing_cache_is_ignored_aloud(self, tmp_path: Path) -> None:
        graph, cache = save_network(tmp_path / "net.onnx"), tmp_path / "cache"
        report = build_engine(graph, tmp_path / "net.plan", BuildSettings(timing_cache=cache))
        assert report.warnings == ("TensorRT-RTX has no timing cache: it was neither read nor written",)
        assert not cache.exists()

    def test_the_sidecar_tells_what_the_plan_is(self, built: tuple[EngineReport, Path, Progress]) -> None:
        report, plan, _ = built
        sidecar = read_sidecar(plan)
        assert sidecar is not None
        assert (sidecar.graph, sidecar.report) == ("net.onnx", report)
        assert sidecar.graph_sha256 == hashlib.sha256((plan.parents[1] / "net.onnx").read_bytes()).hexdigest()
        kinds = Counter(layer["kind"] for layer in sidecar.layers)
        assert kinds == report.kernels
        assert read_header(plan).version == report.version
        assert plan.read_bytes()[:4] == b"vtrt", "what we know stands beside the plan and not in front of it"


def save_illegal(path: Path, what: str) -> Path:
    node = helper.make_node
    scale, zero = np.array(0.1, np.float16), np.array(3, np.int8)
    match what:
        case "custom":
            return save(path, [node("Foo", ["x"], ["y"], "my_foo", domain="custom")], [1, 8], {})
        case "asymmetric":
            nodes = [
                node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "my_quantize"),
                node("DequantizeLinear", ["q", "scale", "zero"], ["y"], "my_dequantize"),
            ]
            return save(path, nodes, [1, 8], {"scale": scale, "zero": zero})
        case _:
            weights: Tensors = {"w": np.ones((8, 8, 1, 1), np.float16), "b": np.ones(8, np.float32)}
            return save(path, [node("Conv", ["x", "w", "b"], ["y"], "my_conv")], [1, 8, 4, 4], weights)


@needs_rtx
class TestRefusals:
    @pytest.mark.parametrize(
        ("what", "message"),
        [
            ("custom", r"node 'my_foo' \(Foo\): it knows no such operator"),
            ("asymmetric", r"node 'my_quantize' \(QuantizeLinear\): .*zero point is not supported"),
            ("mixed", r"node 'my_conv' \(Conv\): .*`input` and `bias` must be of same type"),
        ],
    )
    def test_an_illegal_node_is_named(self, tmp_path: Path, what: str, message: str) -> None:
        graph = save_illegal(tmp_path / "bad.onnx", what)
        with pytest.raises(IllegalGraphError, match=message) as caught:
            build_engine(graph, tmp_path / "bad.plan")
        assert "\n" not in str(caught.value)
        assert "cudaError" not in str(caught.value)  # no GPU is not the reason
        assert [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]

    def test_a_build_that_fails_says_why_and_keeps_the_old_plan(self, tmp_path: Path) -> None:
        plan = tmp_path / "net.plan"
        plan.write_bytes(b"old")
        with pytest.raises(BuildError, match="workspace limit") as caught:
            build_engine(save_network(tmp_path / "net.onnx"), plan, BuildSettings(workspace=1))
        assert "\n" not in str(caught.value)
        assert plan.read_bytes() == b"old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.plan"]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"hello world\n", "it is text that begins 'hello world'"),
            (b"", "is empty"),
            (b"\x08\x09", "it has no outputs"),
            (None, "no such file"),
        ],
    )
    def test_not_an_onnx_file(self, tmp_path: Path, content: bytes | None, message: str) -> None:
        graph = tmp_path / "net.onnx"
        if content is not None:
            graph.write_bytes(content)
        with pytest.raises(HiresvitError, match=message):
            build_engine(graph, tmp_path / "net.plan")
        assert not (tmp_path / "net.plan").exists()

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (BuildSettings(max_aux_streams=-1), "^-1 auxiliary streams: give 0 to 127$"),
            (BuildSettings(workspace=0), "give 1 or more"),
            (BuildSettings(opt_level=6), "^optimization level 6: give 0 to 5$"),
            (BuildSettings(hw_compat="ampere+"), "hardware compatibility is an option of TensorRT:"),
            (BuildSettings(version_compatible=True), "version compatibility is an option of TensorRT:"),
            (BuildSettings(sm=(86, 86)), "names a GPU twice"),
            (
                BuildSettings(sm=(87,)),
                r"^--sm 87: TensorRT-RTX 1\.\S+ compiles for 75, 80, 86, 89, 120, 121;",
            ),
            (BuildSettings(backend="cudnn"), "^backend 'cudnn': one of tensorrt, tensorrt_rtx$"),
            (BuildSettings(shapes={"x": SHAPES}), "no axis is dynamic; leave its shapes out"),
        ],
        ids=[*("streams", "workspace", "level", "hardware", "version", "twice", "jetson", "backend", "shapes")],
    )
    def test_settings_that_do_not_fit(self, tmp_path: Path, settings: BuildSettings, message: str) -> None:
        graph = save_network(tmp_path / "net.onnx")
        if settings.backend is None:
            settings = replace(settings, backend="tensorrt_rtx")
        with pytest.raises(UsageError, match=message) as caught:
            build_engine(graph, tmp_path / "net.plan", settings)
        assert "\n" not in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]

    def test_a_dynamic_graph_without_a_profile(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"axis 0 of input 'x' \(\?x32x16x16\) is dynamic; .* --shapes x="):
            build_engine(save_network(tmp_path / "net.onnx", batch="N"), tmp_path / "net.plan")

    def test_a_graph_that_changes_meanwhile(self, tmp_path: Path) -> None:
        graph = save_network(tmp_path / "net.onnx")

        def change(phase: str, fraction: float) -> None:
            if phase == "Writing":
                save_network(graph, np.float32)

        with pytest.raises(HiresvitError, match=r"net\.onnx was changed while the plan was built from it"):
            build_engine(graph, tmp_path / "net.plan", on_progress=change)
        assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]

    @pytest.mark.parametrize("damage", ["missing", "cut"])
    def test_external_weights_that_are_not_there(self, tmp_path: Path, damage: str) -> None:
        graph = save_network(tmp_path / "net.onnx")
        onnx.save(onnx.load(graph), graph, save_as_external_data=True, location="net.data", size_threshold=0)
        build_engine(graph, tmp_path / "net.plan")
        weights = tmp_path / "net.data"
        if damage == "missing":
            weights.unlink()
        else:
            weights.write_bytes(weights.read_bytes()[:-1])
        said = {
            "missing": "net.data, which is not there; copy it",
            "cut": r"net.data has \d+ bytes, its weights need",
        }
        with pytest.raises(HiresvitError, match=said[damage]) as caught:
            build_engine(graph, tmp_path / "net.plan")
        assert caught.value.exit_code == 1

    def test_output_folder_that_cannot_be(self, tmp_path: Path) -> None:
        graph = save_network(tmp_path / "net.onnx")
        with pytest.raises(HiresvitError, match=r"cannot write .*net\.plan"):
            build_engine(graph, graph / "net.plan")

    def test_a_disk_that_takes_no_more(self, tmp_path: Path) -> None:
        graph = save_network(tmp_path / "net.onnx")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))  # the child inherits it; a plan is 1 MB
        try:
            with pytest.raises(HiresvitError, match=r"cannot write the plan of .*: File too large"):
                build_engine(graph, tmp_path / "net.plan")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]

    def test_ctrl_c_leaves_nothing(self, tmp_path: Path) -> None:
        graph = save_network(tmp_path / "net.onnx")

        def interrupt(phase: str, fraction: float) -> None:
            if phase == "Compiling kernels":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_engine(graph, tmp_path / "plans" / "net.plan", on_progress=interrupt)
        with pytest.raises(ChildProcessError):  # no child is left to wait for
            os.waitpid(-1, os.WNOHANG)
        assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@needs_rtx
class TestChildThatDies:
    """A stand-in for the builder's module, since no small graph is known to crash this version."""

    @pytest.mark.parametrize(
        ("ending", "message"),
        [
            ("os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV at 'Compiling'; last words"),
            ("sys.exit(9)", "exited with code 9 at 'Compiling'; last words"),
            ("pass", "exited with code 0 at 'Compiling'; last words"),
        ],
    )
    def test_is_a_build_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, message: str) -> None:
        (tmp_path / "crashing.py").write_text(
            "import json, os, signal, sys\n"
            "print(json.dumps({'phase': 'Compiling', 'fraction': 0.5}), flush=True)\n"
            f"print('last words', file=sys.stderr, flush=True)\n{ending}\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(engine, "_BUILDER", "crashing")
        graph = save_network(tmp_path / "net.onnx")
        with pytest.raises(BuildError, match=message):
            build_engine(graph, tmp_path / "plans" / "net.plan")
        assert not (tmp_path / "plans").exists()


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    assert not installed("tensorrt_rtx")
    expected = f"^TensorRT-RTX is not installed: {re.escape(INSTALL_HINT)}$"
    with pytest.raises(MissingDependency, match=expected) as caught:
        build_engine(tmp_path / "net.onnx", tmp_path / "net.plan", BuildSettings(backend="tensorrt_rtx"))
    assert caught.value.exit_code == 6
    with pytest.raises(MissingDependency, match=r"^TensorRT-RTX does not load \(not installed\): pip"):
        load("tensorrt_rtx")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependency, match=r"TensorRT or TensorRT-RTX \(neither is installed\): pip"):
        build_engine(tmp_path / "net.onnx", tmp_path / "net.plan")


def test_a_library_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text("raise ImportError('libfoo.so: cannot open it')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt_rtx", raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(MissingDependency, match=r"\(libfoo.so: cannot open it\): pip install"):
        load("tensorrt_rtx")


def record() -> None:
    """Write the layer list and memory lines of `save_network`'s plan, built with one auxiliary stream."""
    import tempfile

    from hiresvit.engine import _build_child as child

    trt = load("tensorrt_rtx")
    said = child.listen(trt)
    with tempfile.TemporaryDirectory() as folder:
        graph = save_network(Path(folder) / "net.onnx")
        request = engine._request(graph, Path(), BuildSettings(max_aux_streams=1), "tensorrt_rtx")
        request["parent"] = os.getppid()  # the builder runs in this process
        child.compile_graph(trt, said, request, lambda phase, fraction: None, None)
    head = f"# TensorRT-RTX {trt.__version__}; made by: PYTHONPATH=. python tests/engine/test_engine.py"
    GOLDEN.write_text("\n".join([head, *said.memory, said.layers.rstrip(), ""]))


if __name__ == "__main__":
    record()
