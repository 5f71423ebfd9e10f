"""A context for Qualcomm's HTP: built by the real compiler, run by its emulator."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import build, named_graph, noise, ones
from htp_graphs import attention

from hiresvit.device.chips import CHIPS
from hiresvit.device.context import context_files, read_sidecar, sum_file
from hiresvit.engine import htp
from hiresvit.engine.htp import build_context, compile_graph
from hiresvit.errors import (
    ArtefactError,
    BuildError,
    GateError,
    HiresvitError,
    IllegalGraphError,
    UsageError,
)
from hiresvit.files import sha256_file
from hiresvit.process import Worker
from hiresvit.runtime.qnn_messages import Opening
from hiresvit.runtime.qnn_runner import QnnRunner

pytest.importorskip("onnxruntime_qnn")
AR1, FLOAT = CHIPS["ar1"], CHIPS["sm8650"]


def written(folder: Path, model: onnx.ModelProto, name: str = "g.onnx") -> Path:
    onnx.save(model, folder / name)
    return folder / name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A graph of a convolution and an attention product in A16W8, and its context for AR1."""
    folder = tmp_path_factory.mktemp("context")
    model = attention()
    model.metadata_props.add(key="hiresvit.stage", value="htp_a16w8")
    graph = written(folder, model)
    build_context(graph, folder / "g-ar1.onnx", AR1)
    return graph, folder / "g-ar1.onnx"


def test_the_sidecar_says_what_was_built(made: tuple[Path, Path]) -> None:
    graph, context = made
    sidecar = read_sidecar(context)
    assert sidecar is not None
    report = sidecar.report
    assert (report.chip, report.soc_model, report.arch, report.vtcm_mb) == ("ar1", AR1.soc_model, 73, AR1.vtcm_mb)
    assert report.arithmetic == {"MatMul(u16,s16)": 1, "Conv2d(u16,s8)": 1}
    # 8x8 places, 8 channels out, 3x3 of 3 in; and (8, 64) times (64, 8)
    assert report.macs == {"u16,s8": 64 * 8 * 27, "u16,s16": 8 * 64 * 8}
    assert report.departed == ()
    assert report.refused == ()
    assert (report.nodes_cpu, report.failure) == (0, None)
    assert (sidecar.graph, sidecar.graph_sha256) == (graph.name, sha256_file(graph))
    assert sidecar.metadata == {"hiresvit.stage": "htp_a16w8"}
    assert (sidecar.context, sidecar.binary) == tuple(map(sum_file, context_files(context)[:2]))
    assert report.versions["onnxruntime_qnn"]
    assert report.versions["qairt"]


def test_a_context_answers_as_the_graph_compiled_anew_and_again(made: tuple[Path, Path]) -> None:
    graph, context = made
    feeds = {"x": noise(1, 3, 8, 8)}
    answers = []
    for path, chip in ((graph, "ar1"), (context, None), (context, "ar1")):
        with QnnRunner(path, detail=chip) as runner:
            answers += [runner(feeds), runner(feeds)]
    first = next(iter(answers[0].values()))
    assert np.ptp(first) > 0.5
    for answer in answers:
        np.testing.assert_array_equal(next(iter(answer.values())), first)


def test_the_same_graph_gives_the_same_small_context(made: tuple[Path, Path], tmp_path: Path) -> None:
    graph, context = made
    build_context(graph, tmp_path / context.name, AR1)
    assert [sha256_file(path) for path in context_files(tmp_path / context.name)[:2]] == [
        sha256_file(path) for path in context_files(context)[:2]
    ]


def test_what_the_provider_narrows_is_named(tmp_path: Path) -> None:
    graph = written(tmp_path, attention(second="uint16"))
    report = compile_graph(graph, AR1)
    (one,) = report.departed
    assert (one.node, one.module, one.stated, one.computed) == ("block.attn/MatMul", "block.attn", "u16,u16", "u16,u8")
    with pytest.raises(GateError, match=r"77\.1 % realised; not as stated: block\.attn/MatMul \(u16,u16 computed in"):
        build_context(graph, tmp_path / "c.onnx", AR1, require="a16w8:100%")
    assert list(tmp_path.iterdir()) == [graph]


def six_axes() -> onnx.ModelProto:
    return named_graph(
        "a = Conv(x, w) b = Reshape(a, s) c = Transpose<perm = [0, 1, 3, 2, 5, 4]>(b) e = Add(c, c) "
        "d = Reshape(e, t) y = Conv(d, w)",
        "float[1,4,8,8] x",
        "float[1,4,8,8] y",
        w=noise(4, 4, 1, 1),
        s=np.array([1, 4, 2, 4, 2, 4]),
        t=np.array([1, 4, 8, 8]),
    )


def test_nodes_on_the_cpu_are_refused_by_module_or_listed(tmp_path: Path) -> None:
    graph, context = written(tmp_path, six_axes()), tmp_path / "c.onnx"
    with pytest.raises(IllegalGraphError, match=r"does not take \d of its nodes: .*m\.b.*6 axes.*--allow-cpu"):
        build_context(graph, context, FLOAT)
    assert list(tmp_path.iterdir()) == [graph]
    report = build_context(graph, context, FLOAT, allow_cpu=True)
    assert {one.module for one in report.refused} >= {"m.b", "m.e"}
    assert all(one.reason for one in report.refused)
    assert report.nodes_cpu == len(report.refused)
    feeds = {"x": noise(1, 4, 8, 8)}
    with QnnRunner(context) as runner:
        assert any("on the CPU" in line for line in runner.warnings)
        answer = runner(feeds)["y"]
    w = noise(4, 4, 1, 1)[:, :, 0, 0]
    turned = np.einsum("oi,nihw->nohw", w, feeds["x"]).reshape(1, 4, 2, 4, 2, 4).transpose(0, 1, 3, 2, 5, 4)
    wanted = 2 * np.einsum("oi,nihw->nohw", w, turned.reshape(1, 4, 8, 8))
    assert (
        np.abs(answer - wanted).max() < 0.01 * np.abs(wanted).max()
    )  # FP16; another order of axes is off by all of it


def test_a_chip_of_integers_takes_no_floating_point(tmp_path: Path) -> None:
    graph = written(tmp_path, six_axes())
    with pytest.raises(IllegalGraphError, match=r"integers only, `hiresvit export \.\.\. --htp a16w8 --target ar1`"):
        build_context(graph, tmp_path / "c.onnx", AR1, allow_cpu=True)
    report = compile_graph(graph, AR1)
    assert report.failure is not None
    assert {one.module for one in report.refused} >= {"m.b", "m.e"}
    assert (report.soc_model, report.context_bytes) == (None, None)
    assert list(tmp_path.iterdir()) == [graph]


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        (
            lambda: build("g (float[N,2] x) => (float[N,2] y) { y = Relu(x) }"),
            IllegalGraphError,
            "'x' has an open size",
        ),
        (lambda: attention(second="uint8"), GateError, "a8w8:100% required, 0 % realised"),
    ],
)
def test_what_cannot_be_built(
    model: Callable[[], onnx.ModelProto], error: type[HiresvitError], said: str, tmp_path: Path
) -> None:
    graph = written(tmp_path, model())
    with pytest.raises(error, match=said):
        build_context(graph, tmp_path / "c.onnx", AR1, require="a8w8:100%")
    assert list(tmp_path.iterdir()) == [graph]


@pytest.mark.parametrize("chip", ["xr2-gen2", "qcs6490"])
def test_a_chip_before_v73_says_which_form_it_takes(chip: str, made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(IllegalGraphError, match=rf"block\.attn .*8 bits only, .*--htp a16w8 --target {chip}"):
        build_context(made[0], tmp_path / "c.onnx", CHIPS[chip])


def test_a_context_is_no_graph(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="compiled context already"):
        build_context(made[1], tmp_path / "c.onnx", AR1)
    with pytest.raises(UsageError, match="is the graph itself"):
        build_context(made[0], made[0], AR1, replace=True)


def test_another_chip_than_was_asked_for_is_noticed(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf:
        """Qualcomm's library takes a name that it does not know for another chip, and says nothing."""

        def __call__(self, *args: Any, **rest: Any) -> Any:
            return Opening(args[0], CHIPS["ar2"].soc_model, *args[2:], **rest)

    monkeypatch.setattr(htp, "Opening", Deaf())
    with pytest.raises(ArtefactError, match=rf"asked for .*soc_model {AR1.soc_model}, and the library wrote soc_model"):
        build_context(made[0], tmp_path / "c.onnx", AR1)
    assert list(tmp_path.iterdir()) == []


def test_all_three_files_or_none(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move, context = os.replace, tmp_path / "c.onnx"

    def full(source: Path, target: Path) -> None:
        if Path(target) == context:
            raise OSError(28, "No space left on device", str(target))
        move(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(HiresvitError, match="No space left"):
        build_context(made[0], context, AR1)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_fault_of_the_graph(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: Any = htp._compile

    def unwritable(graph: Path, model: onnx.ModelProto, chip: Any, context: Path, **options: Any) -> Any:
        context_files(context)[1].mkdir()
        return compiled(graph, model, chip, context, **options)

    monkeypatch.setattr(htp, "_compile", unwritable)
    with pytest.raises(HiresvitError, match=r"cannot write .*ctx\.onnx: its disk may be full; make room"):
        build_context(made[0], tmp_path / "ctx.onnx", AR1)
    assert not list(tmp_path.iterdir())


def test_a_compiler_that_dies_is_a_build_that_failed(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(htp, "Worker", lambda argv: Worker(["-c", "import os; os.abort()"]))
    with pytest.raises(BuildError, match="Qualcomm's compiler was killed by SIGABRT"):
        build_context(made[0], tmp_path / "c.onnx", AR1)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def copied(made: tuple[Path, Path], tmp_path: Path) -> Path:
    for path in context_files(made[1]):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / made[1].name


def cut(context: Path) -> None:
    binary = context_files(context)[1]
    binary.write_bytes(binary.read_bytes()[:-100])


def other(context: Path) -> None:
    binary = context_files(context)[1]
    binary.write_bytes(binary.read_bytes()[:-1] + b"\xff")


def gone(context: Path) -> None:
    context_files(context)[1].unlink()


def garbled(context: Path) -> None:
    context_files(context)[2].write_text('{"kind": "hiresvit-context", "schema_version": 1}')


def unsummed(context: Path) -> None:
    """Cut, and without the sidecar: the library itself has to say no."""
    context_files(context)[2].unlink()
    cut(context)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "is cut: "),
        (other, "is of another build than"),
        (gone, "is missing: .* copy both"),
        (garbled, "does not describe a context: "),
        (unsummed, "is damaged, or of another version"),
    ],
)
def test_a_damaged_context_is_one_line(damage: Callable[[Path], None], said: str, copied: Path) -> None:
    damage(copied)
    with pytest.raises(ArtefactError, match=said):
        QnnRunner(copied)


def test_a_context_of_floating_point(tmp_path: Path) -> None:
    """What is stated in FP32 counts as FP16, which is what the chip computes."""
    model = named_graph("y = MatMul(x, w)", "float[1,4,8] x", "float[1,4,4] y", w=noise(8, 4))
    report = build_context(written(tmp_path, model), tmp_path / "c.onnx", FLOAT, require="fp16:100%")
    assert report.macs == {"fp16,fp16": 4 * 8 * 4}
    with QnnRunner(tmp_path / "c.onnx") as runner:
        answer = runner({"x": ones(1, 4, 8)})["y"]
    assert 0 < np.abs(answer - noise(8, 4).sum(0)).max() < 0.02
