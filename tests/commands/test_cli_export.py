"""`hiresvit export` and what is done with a bundle afterwards, for real."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from conftest import TINY, Cli, Result, environment, hiresvit_command, run_program
from PIL import Image

from hiresvit.bundle.folder import read_bundle
from hiresvit.device.tensorrt_api import installed
from hiresvit.evaluation.parity import GATES
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.tensorrt import for_tensorrt

Exported = tuple[Path, Result]
GRAPHS = {"fp32.onnx", "simplified.onnx", "cpu.onnx", "fp16.onnx"}
STREET = Path(__file__).parents[2] / "examples" / "street.jpg"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command leaves behind lies in ``tmp_path / "here"``."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_export_prints_one_document_and_nothing_else(exported: Exported) -> None:
    folder, result = exported
    assert result.err == "", "no progress where there is no terminal, and no library's warnings"
    document = json.loads(result.out)
    assert document["schema_version"] == 1
    assert document["bundle"] == folder.name
    assert document["bytes"] == sum(entry.bytes for entry in read_bundle(folder).manifest.files)
    assert document["seconds"] > 0
    assert document["manifest"]["command"][:4] == ["hiresvit", "export", "hrvit_b1", "--imgsz"]


def test_export_leaves_a_verified_bundle_and_only_that(exported: Exported) -> None:
    folder, _ = exported
    assert list(folder.parent.iterdir()) == [folder], "nor anything of ONNX Runtime's or PyTorch's in HOME and TMPDIR"
    bundle = read_bundle(folder)
    assert bundle.unlisted == ()
    plan = {"fp16.plan", "fp16.plan.json"} if installed("tensorrt_rtx") else set()
    assert {entry.name for entry in bundle.manifest.files} == GRAPHS | plan | {"golden.npz", "golden.png"}
    assert ("fp16" in bundle.manifest.engines) == installed("tensorrt_rtx")
    assert [stage["stage"] for stage in bundle.manifest.parity["stages"]] == [
        "onnx",
        "simplified",
        "cpu",
        "fp16",
        "fp16 exact",
    ]
    assert bundle.manifest.latency is None


def test_the_fp16_graph_is_the_one_for_tensorrt(exported: Exported) -> None:
    folder, _ = exported
    plain, _ = to_fp16(onnx.load(folder / "simplified.onnx"))
    written = {node.name for node in for_tensorrt(plain).graph.node}
    assert written != {node.name for node in plain.graph.node}
    assert {node.name for node in onnx.load(folder / "fp16.onnx").graph.node} == written


def test_inspect_shows_the_chain_and_the_results(cli: Cli, exported: Exported) -> None:
    folder, _ = exported
    result = cli("inspect", folder)
    assert result.code == 0
    for said in ("hrvit_b1", "64x64", "simplified.onnx", "1x19x64x64", "parity with pytorch", "golden.npz"):
        assert said in result.out
    document = json.loads(cli("inspect", folder, "--json").out)
    assert document["kind"] == "bundle"
    assert set(document["graphs"]) == {"fp32", "simplified", "cpu", "fp16"}
    assert json.loads(cli("inspect", folder / "fp16.onnx", "--json").out)["stage"] == "fp16"


def test_an_existing_bundle_stays(cli: Cli, exported: Exported) -> None:
    folder, _ = exported
    before = (folder / "manifest.json").read_bytes()
    result = cli("export", "hrvit_b1", "--imgsz", "64x64", "-o", folder)
    assert result.code == 1
    assert "exists; pass --force to replace it" in result.err
    assert (folder / "manifest.json").read_bytes() == before


def test_run_writes_an_overlay_of_the_pictures_size(cli: Cli, exported: Exported) -> None:
    result = cli("run", exported[0], STREET)
    assert result.code == 0
    assert result.out.count("%") >= 1
    [written] = Path.cwd().iterdir()
    assert written.name == "street-segment.png"
    assert f"wrote {written.name}: " in result.out
    assert f"next: hiresvit bench {exported[0]}" in result.out
    with Image.open(written) as overlay, Image.open(STREET) as street:
        assert overlay.size == street.size


def test_run_json_has_shares_that_sum_to_one(cli: Cli, exported: Exported) -> None:
    result = cli("run", exported[0], STREET, "--graph", "fp16", "-o", "a/b.png", "--json")
    document = json.loads(result.out)
    assert document["source"].endswith("/fp16")
    assert document["bytes"] == Path("a/b.png").stat().st_size
    shares = [row["share"] for row in document["shares"]]
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)


def test_run_with_a_full_disk_leaves_nothing(exported: Exported) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    result = run_program(Path.cwd(), "run", exported[0], STREET, before=limit)
    assert result.code == 1
    assert result.err == "error: cannot write street-segment.png: File too large\n"
    assert list(Path.cwd().iterdir()) == []


def test_compare_of_two_graphs(cli: Cli, exported: Exported) -> None:
    folder, _ = exported
    typed = ("compare", folder / "fp32.onnx", folder, "--graph", "fp16", "--images", "1", "--image", STREET)
    result = cli(*typed, "--json")
    assert result.code == 0
    found = json.loads(result.out)["parity"]
    assert found["images"] == 2
    [output] = found["stages"][0]["report"]["outputs"]
    least, most = GATES["fp16"].min_sqnr_db, GATES["onnx"].min_sqnr_db
    assert least < output["sqnr_db"] < most, "the rounding of FP16 and not of FP32"
    assert "fp32.onnx" in cli(*typed).out


def test_compare_with_a_limit_that_is_missed(cli: Cli, exported: Exported) -> None:
    folder, _ = exported
    result = cli("compare", folder / "fp32.onnx", folder / "fp16.onnx", "--min-sqnr", "200", "--json")
    assert result.code == 4
    document = json.loads(result.out)
    assert document["error"]["exit_code"] == 4
    assert "at least 200 is needed" in document["error"]["message"]
    assert document["parity"]["stages"][0]["gate"] == {"min_sqnr_db": 200}
    assert result.err.splitlines()[-1] == f"error: {document['error']['message']}"
    assert [note.partition(":")[0] for note in document["notes"]] == ["fp32.onnx", "fp16.onnx"]
    assert [row["stage"] for row in document["parity"]["stages"]] == ["fp16.onnx", "fp16.onnx (fp16 exact)"]


def test_compare_without_pictures(cli: Cli, exported: Exported) -> None:
    result = cli("compare", exported[0], exported[0], "--images", "0")
    assert result.code == 2
    assert "no images" in result.err


def test_bench_measures_every_side(cli: Cli, exported: Exported) -> None:
    folder, _ = exported
    typed = ("bench", folder, folder / "fp32.onnx", folder / "fp32.onnx", "--min-s", "0", "--threads", "1")
    result = cli(*typed, "--budget-ms", "1e6", "--json")
    assert result.code == 0
    latency = json.loads(result.out)["latency"]
    assert latency["threads"] == 1
    assert list(latency["sides"]) == [f"{folder.name}/cpu", "fp32.onnx", "fp32.onnx (3)"]
    assert len(latency["ratios"]) == 2


def test_bench_over_the_budget(cli: Cli, exported: Exported) -> None:
    result = cli("bench", exported[0], "--min-s", "0", "--threads", "1", "--budget-ms", "0.001")
    assert result.code == 4
    assert "--budget-ms allows 0.001" in result.err
    assert "median" in result.out, "the table is printed all the same"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"num_classes": 19', '"num_classes": 18'))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda folder: flip(folder / "cpu.onnx"),
    "a cut file": lambda folder: (folder / "fp16.onnx").write_bytes(b""),
    "a missing file": lambda folder: (folder / "golden.npz").unlink(),
    "an exchanged file": lambda folder: shutil.copy(folder / "simplified.onnx", folder / "fp32.onnx"),
    "an edited manifest": lambda folder: edit(folder / "manifest.json"),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
}


@pytest.mark.parametrize("what", list(DAMAGE))
def test_damage_is_found(cli: Cli, bundle: Path, what: str) -> None:
    DAMAGE[what](bundle)
    for result in (cli("inspect", bundle), cli("run", bundle, STREET)):
        assert result.code == 7
        assert result.err.count("\n") == 1
        assert "export the bundle again or copy it anew" in result.err
        assert result.out == ""
    assert list(Path.cwd().iterdir()) == []


def test_a_gate_that_is_missed_exits_4_and_leaves_nothing(cli: Cli) -> None:
    result = run_program(Path.cwd(), "export", "hrvit_b1", "--imgsz", "64x96", "--min-sqnr", "onnx=300", before=TINY)
    assert result.code == 4
    assert result.err.startswith("error: onnx: output 'logits' has sqnr_db")
    assert "at least 300 is needed; --min-sqnr sets it" in result.err
    assert list(Path.cwd().iterdir()) == []


def test_a_full_disk_in_the_middle_leaves_nothing() -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))"
    typed = ("export", "hrvit_b1", "--imgsz", "64x96", "-o", "new/bundle")
    result = run_program(Path.cwd(), *typed, before=TINY + limit)
    assert result.code == 1
    assert result.err == "error: cannot write new/bundle: File too large\n"
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("stage", ["the model is built", "the graph is simplified"])
def test_ctrl_c_leaves_nothing(stage: str) -> None:
    typed = ("export", "hrvit_b1", "--imgsz", "64x96", "--json", "-o", "new/bundle")
    wanted = ".*.tmp.bundle" if stage == "the model is built" else ".*.tmp.bundle/fp32.onnx"
    process = subprocess.Popen(
        hiresvit_command(*typed, before=TINY),
        env=environment(Path.cwd()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(Path("new").glob(wanted)):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == "interrupted\n"
    assert json.loads(out)["error"] == {"message": "interrupted", "exit_code": 130}
    assert list(Path.cwd().iterdir()) == []
