"""`--runner qnn` in the commands: the form that fits a chip, "emulated" wherever an answer stands, and no time."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli, run_program
from htp_bundle import make_bundle

from hiresvit.commands import opening
from hiresvit.device import qnn_api
from hiresvit.device.chips import CHIPS
from hiresvit.errors import MissingDependency
from hiresvit.models.zoo import find_model
from hiresvit.report.page import runs_on
from hiresvit.workflows.doctor import examine
from hiresvit.workflows.open import open_source
from hiresvit.workflows.predictor import Predictor

pytest.importorskip("onnxruntime_qnn")

AR1 = f"HTP of {CHIPS['ar1'].part}"
TIME = re.compile(r"\d+(\.\d+)? ?(ms|s)\b|latency|seconds|fps")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("htp") / "net", "htp_fp16", "htp_a16w8")


def keys(value: Any) -> set[str]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (set(value) if isinstance(value, dict) else set()).union(*map(keys, inside))


@pytest.mark.parametrize(
    ("runner", "role", "device"),
    [("qnn:ar1", "htp_a16w8", AR1), ("qnn:sm8650", "htp_fp16", "HTP of SM8650"), ("qnn", "htp_fp16", "HTP of SM8650")],
)
def test_the_form_that_fits_the_chip(bundle: Path, runner: str, role: str, device: str) -> None:
    source = open_source(str(bundle), runner=runner)
    source.runner.close()
    assert source.origin["role"] == role
    assert (source.origin["device"], source.origin["emulated"]) == (device, True)
    assert source.label == f"net/{role} ({runner}, emulated)"
    assert runs_on(source.origin).endswith(f" on {device}, emulated")


def test_who_waits_is_told_how_long(bundle: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    source = open_source(str(bundle), runner="qnn:ar1", on_step=lambda name, fraction: steps.append(name))
    source.runner.close()
    # 28.2 GMACs are HRViT-b1's at 512x512; 5 s for each of them with 16 bits (QNN.md, measured).
    gmacs = find_model("hrvit_b1").numbers["segment"].gmacs
    assert source.waits == pytest.approx(5 * gmacs * 64 * 96 / 512**2)
    assert steps == [f"replay: the golden pair, emulated, about {source.waits:.0f} s"]
    with open_source(str(bundle)).runner as runner:
        assert runner.seconds_per_gmac is None
    monkeypatch.setattr(opening, "_LONG", 0.0)
    result = cli("compare", bundle, bundle, "--runner", "qnn:ar1", "--images", "1")
    assert f"note: net/htp_a16w8 (qnn:ar1, emulated): about {source.waits:.0f} s for each picture" in result.err


def test_no_form_for_the_chip(cli: Cli, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "net", "htp_fp16")
    for command in (["compare", folder, folder], ["verify", folder]):
        result = cli(*command, "--runner", "qnn:ar1")
        assert result.code == 2
        assert re.search(r"net has no graph for Snapdragon AR1 .*: export it with --htp a16w8, or pick", result.err)


def test_eval_says_emulated_and_no_time(bundle: Path, cli: Cli, tmp_path: Path) -> None:
    options = ["--dataset", "scenes", "--limit", "2", "--worst", "0", "--threads", "1"]
    asked = ["eval", bundle, "--runner", "onnxruntime", "--runner", "qnn:ar1", *options]
    result = cli(*asked, "-o", tmp_path / "eval.json")
    assert result.code == 0, result.err
    assert "(qnn:ar1, emulated)" in result.out
    assert not TIME.search(result.out)
    assert f"note: net/htp_a16w8 (qnn:ar1, emulated): {AR1}, emulated: its answers count" in result.err
    found = json.loads((tmp_path / "eval.json").read_text())
    first, second = found["accuracy"]["sides"]
    assert (first["origin"]["emulated"], second["origin"]["emulated"]) == (False, True)
    assert second["failure"] is None
    assert not {key for key in keys(found) if key.endswith(("_ms", "_ns", "seconds"))}
    page = cli("report", tmp_path / "eval.json", "-o", tmp_path / "page.html")
    assert page.code == 0, page.err
    assert f"{AR1}, emulated" in (tmp_path / "page.html").read_text()


def test_compare_says_emulated_and_no_time(bundle: Path, cli: Cli) -> None:
    result = cli("compare", bundle, bundle, "--runner", "qnn:ar1", "--images", "2")
    assert result.code == 0, result.err
    assert "emulated" in result.out
    assert not TIME.search(result.out)


def test_run_says_no_time(bundle: Path, cli: Cli, tmp_path: Path) -> None:
    from PIL import Image

    from hiresvit.data.scenes import sample_images

    Image.fromarray(sample_images(1, (64, 96))[0]).save(tmp_path / "a.png")
    for runner, timed in (("qnn:ar1", False), ("onnxruntime", True)):
        result = cli("run", bundle, tmp_path / "a.png", "-o", tmp_path / "o.png", "--runner", runner)
        assert result.code == 0, result.err
        assert bool(TIME.search(result.out.partition("wrote")[2])) == timed, result.out
        assert ("next: hiresvit bench" in result.out) == timed


def test_verify_replays_each_form_of_the_chip(bundle: Path, cli: Cli) -> None:
    for runner, roles in (("qnn:ar1", ["htp_a16w8"]), ("qnn:sm8650", ["htp_fp16", "htp_a16w8"])):
        result = cli("verify", bundle, "--runner", runner, "--json")
        assert result.code == 0, result.err
        sides = json.loads(result.out)["verify"]["sides"]
        assert [(side["graph"], side["verdict"]) for side in sides] == [(role, "passed") for role in roles]
        assert all(side["origin"]["emulated"] for side in sides)


def test_verify_finds_an_answer_that_the_htp_does_not_give(tmp_path: Path, cli: Cli) -> None:
    """Planted: the golden output of another network."""
    from bundles import edit

    from hiresvit.bundle.folder import read_bundle
    from hiresvit.bundle.golden import read_pair, write_golden
    from hiresvit.bundle.manifest import Weights, list_files

    folder = make_bundle(tmp_path / "net", "htp_a16w8")
    golden = read_pair(read_bundle(folder))
    write_golden(folder / "golden.npz", golden.inputs, {"logits": golden.outputs["logits"][..., ::-1].copy()})
    edit(folder, lambda v: v.update(files=[vars(entry) for entry in list_files(folder, Weights(**v["weights"]))]))
    result = cli("verify", folder, "--runner", "qnn:ar1")
    assert result.code == 4, result.err
    assert "net/htp_a16w8 (qnn:ar1) does not answer the golden input" in result.err


@pytest.mark.parametrize("options", [[], ["--mode", "frame"], ["--mode", "stream"], ["--power"]], ids=str)
def test_bench_refuses_before_it_measures(bundle: Path, cli: Cli, options: list[str]) -> None:
    result = cli("bench", bundle, "--runner", "onnxruntime", "--runner", "qnn:ar1", *options)
    assert (result.code, result.out) == (2, "")
    assert "--runner qnn:ar1: the HTP is emulated here, and an emulator's time says nothing" in result.err
    assert "run bench on the device; compare and eval tell here" in result.err


def test_a_stream_of_answers_has_no_times_of_the_network(bundle: Path) -> None:
    with Predictor(bundle, "qnn:ar1") as predictor:
        [frame] = predictor.stream([np.zeros((64, 96, 3), np.uint8)])
    assert np.isnan([frame.network_ms, frame.frame_ms]).all()
    assert frame.prepare_ms > 0


def test_without_the_library_each_side_says_why(bundle: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qnn_api, "installed", lambda: False)
    for command in (["compare", bundle, bundle], ["verify", bundle], ["eval", bundle, "--dataset", "scenes"]):
        result = cli(*command, "--runner", "qnn:ar1")
        assert result.code == 6
        assert "Qualcomm's compiler is not installed: pip install" in result.err


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("python", (3, 10), "onnxruntime-qnn is for Python 3.11 to 3.14, this is 3.10: make the environment"),
        ("machine", "riscv64", "there is no onnxruntime-qnn for Linux on riscv64: Linux on x86_64 and aarch64 has it"),
        ("system", "Darwin", "there is no onnxruntime-qnn for Darwin on x86_64"),
        ("libc_ver", ("glibc", "2.31"), "onnxruntime-qnn needs glibc 2.35, this system has glibc 2.31: take Debian 12"),
        ("libc_ver", ("", ""), "onnxruntime-qnn needs glibc 2.35, this system has another C library"),
    ],
)
def test_a_machine_that_cannot_have_it(monkeypatch: pytest.MonkeyPatch, name: str, value: Any, said: str) -> None:
    here: dict[str, Any] = {"machine": "x86_64", "system": "Linux", "libc_ver": ("glibc", "2.36")}
    if name == "python":
        monkeypatch.setattr(sys, "version_info", (*value, 0, "final", 0))
    else:
        here[name] = value
    for function, answer in here.items():
        monkeypatch.setattr(f"platform.{function}", lambda answer=answer: answer)
    monkeypatch.setattr(qnn_api, "installed", lambda: False)
    with pytest.raises(MissingDependency) as caught:
        qnn_api.require_library()
    assert str(caught.value).startswith(said)
    assert caught.value.exit_code == 6


def test_doctor_tries_it() -> None:
    [row] = [row for row in examine()["abilities"] if row["name"].startswith("Qualcomm HTP")]
    assert row["works"]
    assert row["name"] == "Qualcomm HTP, emulated"
    assert row["detail"] == f"onnxruntime-qnn {qnn_api.installed_version()}, QAIRT {qnn_api.qairt_version()}"


def test_nothing_of_the_library_is_on_our_streams(bundle: Path, tmp_path: Path) -> None:
    """In a process of its own, whose native code would print where no test looks."""
    result = run_program(tmp_path, "compare", bundle, bundle, "--runner", "qnn:ar1", "--images", "1", "--json")
    assert result.code == 0, result.err
    json.loads(result.out)
    assert [line for line in result.err.splitlines() if not line.startswith("note: ")] == []
