"""`hiresvit build --backend qnn`, and what it made in `inspect`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pytest
from conftest import Cli
from htp_bundle import make_bundle
from htp_graphs import attention

from hiresvit.device.chips import CHIPS, find_chip
from hiresvit.errors import UsageError
from hiresvit.kinds import name_file_kind
from hiresvit.workflows.build_htp import context_name, find_checked, find_form


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(attention(), tmp_path / "g.onnx")
    return tmp_path / "g.onnx"


def test_a_build_and_what_inspect_says_of_it(graph: Path, cli: Cli) -> None:
    pytest.importorskip("onnxruntime_qnn")
    made = cli("build", graph, "--backend", "qnn", "--target", "AR1", "--require-precision", "a16w8:100%", "--json")
    assert (made.code, made.err) == (0, "")
    document = json.loads(made.out)
    assert document["output"] == ["g-ar1.onnx", "g-ar1_qnn.bin", "g-ar1.onnx.json"]
    assert {path.name for path in graph.parent.iterdir()} == {"g.onnx", *document["output"]}
    assert document["context"]["arithmetic"] == {"MatMul(u16,s16)": 1, "Conv2d(u16,s8)": 1}

    shown = cli("inspect", "g-ar1.onnx")
    assert (shown.code, shown.err) == (0, "")
    for text in (r"chip +ar1", r"nodes on the CPU +0", r"1 MatMul\(u16,s16\), 1 Conv2d\(u16,s8\)", r"soc_model \d+"):
        assert re.search(text, shown.out)
    found = json.loads(cli("inspect", "g-ar1.onnx", "--json").out)
    assert (found["kind"], found["report"]) == ("context", document["context"])

    again = cli("build", graph, "--backend", "qnn", "--target", "ar1")
    assert (again.code, "g-ar1.onnx exists; pass --force" in again.err) == (1, True)
    binary = Path("g-ar1_qnn.bin")
    kind = "a context's binary for Qualcomm's HTP: give the .onnx file beside it"
    assert name_file_kind(binary.read_bytes()) == kind
    assert cli("inspect", binary).code != 0
    binary.unlink()
    gone = cli("inspect", "g-ar1.onnx")
    assert (gone.code, "is missing" in gone.err) == (7, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "qnn"], "compiles for one chip: add --target, one of ar1, "),
        (["--backend", "qnn", "--target", "xr9"], "no chip 'xr9': choose one of ar1, "),
        (["--backend", "qnn", "--target", "ar1", "--sm", "86", "--opt-level", "3"], "--opt-level, --sm: of TensorRT"),
        (["--backend", "qnn", "--target", "ar1", "--shapes", "x=1:1:1"], "--shapes: of TensorRT"),
        (["--backend", "qnn", "--target", "ar1", "--dry-run"], "--dry-run prints NVIDIA's own line"),
        (["--backend", "qnn", "--target", "ar1", "-o", "c.bin"], "give a name that ends in .onnx"),
        (["--backend", "qnn", "--target", "ar1", "--graph", "fp16"], "--graph picks a file of a bundle folder"),
        (["--target", "ar1", "--allow-cpu"], "--target, --allow-cpu: for --backend qnn, which is not given"),
        (["--backend", "tensorrt", "--require-precision", "a16w8:1%"], "--require-precision: for --backend qnn"),
    ],
)
def test_options_that_do_not_go_together(graph: Path, cli: Cli, options: list[str], message: str) -> None:
    result = cli("build", graph, *options)
    assert result.code == 2
    assert message in result.err
    assert [path.name for path in graph.parent.iterdir()] == ["g.onnx"]


def test_a_bundle_without_a_form_says_how_to_make_it(schema_5: Path, cli: Cli) -> None:
    for chip, wanted in (
        ("ar1", "hrvit_b1 --htp a16w8 --target ar1 --calib DIR makes one"),
        ("sm8650", "hrvit_b1 --htp fp16 --target sm8650 makes"),
    ):
        result = cli("build", schema_5, "--backend", "qnn", "--target", chip)
        assert result.code == 2
        assert re.search(r"has no form for .*, only fp32, .*: hiresvit export", result.err)
        assert wanted in result.err
    with pytest.raises(UsageError, match=r"has no htp_a8w8, .* --htp a8w8 --target ar1 --calib DIR"):
        find_form(schema_5, find_chip("ar1"), "htp_a8w8")
    assert find_form(schema_5, find_chip("ar1"), "simplified") == "simplified"


def test_check_takes_the_form_that_all_chips_take(tmp_path: Path, cli: Cli, schema_5: Path) -> None:
    bundle = make_bundle(tmp_path / "b", "htp_fp16", "htp_a16w8")
    for chips, graph in ((("sm8650",), "htp_fp16"), (("ar1",), "htp_a16w8"), (("sm8650", "ar1"), "htp_a16w8")):
        options = [word for chip in chips for word in ("--target", chip)]
        checked = cli("check", bundle, *options, "--no-build", "--json")
        assert (checked.code, json.loads(checked.out)["graph"]) == (0, str(bundle / f"{graph}.onnx"))
    refused = cli("check", bundle, "--target", "ar1", "--graph", "htp_fp16", "--no-build")
    assert (refused.code, "htp_fp16.onnx is illegal for ar1" in refused.err) == (3, True)
    assert find_checked(schema_5, [CHIPS["ar1"]], None).name == "fp16.onnx"


def test_a_context_is_named_after_bundle_form_and_chip(tmp_path: Path) -> None:
    chip = CHIPS["ar1"]
    assert context_name(tmp_path / "b1", None, chip, "htp_a16w8") == Path("b1-htp_a16w8-ar1.onnx")
    assert context_name(tmp_path / "g.onnx", None, chip, None) == Path("g-ar1.onnx")
    assert context_name(tmp_path, Path("x/y.onnx"), chip, None) == Path("x/y.onnx")
