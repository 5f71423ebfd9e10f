"""A sweep's plan: what is wrong with one is said with its line before anything runs, and the jobs of a good one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Cli

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.runtime.open import find_backend
from hiresvit.runtime.openvino_runner import PRECISIONS
from hiresvit.workflows.sweep.jobs import jobs_of, left_out, shared
from hiresvit.workflows.sweep.plan import RUNNERS, PlanError, SweepPlan, read_plan

GOOD = """\
# Two models on two kinds of device.
models = ["hrvit_nano", { model = "hrvit_nano", label = "ten", num_classes = 10 }]
sizes = ["64x64", 96]
precisions = ["fp32", "fp16"]
runners = ["onnxruntime", "tensorrt"]
devices = ["cpu", "orin-nx"]
steps = ["bench", "verify"]
timeout_s = 90

[arguments]
export = ["--images", 1]

[[exclude]]
device = "cpu"
runner = "tensorrt"

[[exclude]]
precision = "fp32"
runner = "tensorrt"
"""


def plan_of(folder: Path, text: str) -> SweepPlan:
    (folder / "plan.toml").write_text(text, encoding="utf-8")
    return read_plan(folder / "plan.toml")


def test_cells_are_the_product_less_what_is_excluded(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, GOOD)
    assert len(plan.cells) == 2 * 2 * (2 * 2 * 2 - 2 - 1), "cpu never has tensorrt, tensorrt never fp32"
    assert {cell.size for cell in plan.cells} == {"64x64", "96x96"}
    assert plan.steps == ("verify", "bench"), "in the order in which they are run"
    assert (plan.make, plan.timeout_s, plan.calib) == ("cpu", 90.0, "scenes")


def test_every_runner_of_a_plan_is_one_that_opens_files(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, f'models = ["hrvit_nano"]\nsizes = [64]\nrunners = {list(RUNNERS)}\n')
    asked = {job.argv[job.argv.index("--runner") + 1] for job in jobs_of(plan) if job.command == "bench"}
    assert asked == set(RUNNERS)
    for name in RUNNERS:
        _, detail = find_backend(Path("x.plan" if name == "tensorrt" else "x.onnx"), name)
        assert detail is None or detail in PRECISIONS


def test_what_is_exported_once_serves_all_and_a_plan_is_a_devices_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, GOOD)
    jobs = jobs_of(plan)
    assert shared(jobs) == {"export": 8, "verify": 20, "build": 4, "bench": 20}
    for job in jobs:
        assert job.needs is None or jobs.index(job.needs) < jobs.index(job)
        assert job.device == ("cpu" if job.command == "export" else job.cells[0].device)
    builds = [job for job in jobs if job.command == "build"]
    assert all(job.device == "orin-nx" and job.needs and job.needs.command == "export" for job in builds)
    benches = [job for job in jobs if job.command == "bench" and job.cells[0].runner == "tensorrt"]
    assert {id(job.needs) for job in benches} == {id(job) for job in builds}
    [export] = [
        job for job in jobs if job.makes and job.line.startswith("hiresvit export hrvit_nano --imgsz 96x96 --fp16")
    ]
    assert [(cell.device, cell.runner) for cell in export.cells] == [
        ("cpu", "onnxruntime"), ("orin-nx", "onnxruntime"), ("orin-nx", "tensorrt")
    ]  # fmt: skip
    assert "--images 1 --no-plan --no-latency" in export.line


def test_a_board_without_python_only_benches_on_onnxruntime(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, GOOD)
    jobs = [job for job in jobs_of(plan, {"orin-nx"}) if job.device == "orin-nx"]
    assert shared(jobs) == {"bench": 8}
    assert jobs[0].line == (
        "hiresvit-run {given}/bundle {given}/bundle/golden.png --backend onnxruntime --bench 200 --json"
    )
    assert left_out(plan, {"orin-nx"}) == ["verify on orin-nx", "tensorrt on orin-nx"]


KEYED = """\
models = [{ model = "hrvit_nano", weights = "a.safetensors" }]
sizes = ["64x64"]
precisions = ["fp32"]
devices = ["cpu"]
steps = ["bench"]
"""


def keys(plan: SweepPlan, artefact: str | None = "a" * 64) -> list[str]:
    return [job.key(artefact if job.needs else None) for job in jobs_of(plan)]


def test_a_key_is_of_the_command_what_it_is_given_and_the_device(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"one")
    export, bench = keys(plan_of(tmp_path, KEYED))
    assert keys(plan_of(tmp_path, "# said otherwise\n" + KEYED)) == [export, bench]
    assert keys(plan_of(tmp_path, KEYED), "b" * 64)[1] != bench
    assert keys(plan_of(tmp_path, KEYED + "[arguments]\nbench = ['--min-s', 1]"))[0] == export
    assert keys(plan_of(tmp_path, KEYED + "[arguments]\nbench = ['--min-s', 1]"))[1] != bench
    assert keys(plan_of(tmp_path, KEYED.replace('"cpu"', '"orin"') + "make = 'cpu'"))[0] == export
    assert keys(plan_of(tmp_path, KEYED.replace('"cpu"', '"orin"') + "make = 'cpu'"))[1] != bench
    (tmp_path / "a.safetensors").write_bytes(b"two")
    assert keys(plan_of(tmp_path, KEYED))[0] != export, "the file's content, not its name"


HEAD = 'models = ["hrvit_nano"]\nsizes = ["64x64"]\n'
BAD = [
    ("models = [\n", 1, "Invalid value|end of document"),
    (HEAD + "sizes = 3\n", 3, "overwrite"),
    ("# nothing\n", None, "a plan needs models"),
    ("models = []\n", 1, "one or more"),
    ("models = 3\n", 1, "give a list"),
    ('models = [\n"hrvit_nano",\n"hrvit_b9"]\nsizes = ["64x64"]\n', 3, "hrvit_b9"),
    ("models = [3]\n", 1, "give a name"),
    ('models = [{ label = "x" }]\n', 1, "give a name"),
    ('models = [{ model = "hrvit_nano", weight = "x" }]\n', 1, "no weight: it has model, label, weights"),
    ('models = [{ model = "hrvit_nano", weights = 3 }]\n', 1, "weights of a model is 3: give a file"),
    ('models = [{ model = "hrvit_nano", num_classes = true }]\n', 1, "give a number"),
    ('models = [{ model = "hrvit_nano", task = "paint" }]\n', 1, "unknown task 'paint'"),
    ('models = [{ model = "hrvit_nano", weights = "no.safetensors" }]\n', 1, "not there"),
    ('models = ["hrvit_nano",\n "hrvit_nano"]\n', 1, "hrvit_nano twice: give one of them a label"),
    (HEAD.replace("64x64", "63x64"), 2, "63"),
    (HEAD.replace('"64x64"', '"64x64",\n"0x0"'), 3, "0"),
    (HEAD.replace('"64x64"', "[64, 64]"), 2, "give height and width"),
    (HEAD.replace('"64x64"', '"64x64", 64'), 2, "64x64 twice"),
    (HEAD + 'precision = ["fp32"]\n', 3, "there is no precision: a plan has"),
    (HEAD + 'precisions = ["fp32", "fp8"]\n', 3, "choose of fp32, fp16"),
    (HEAD + 'runners = ["triton"]\n', 3, "choose of onnxruntime"),
    (HEAD + 'steps = ["bench"]\nrunners = ["bench"]\n', 4, "choose of onnxruntime"),
    (HEAD + 'steps = ["run"]\n', 3, "choose of verify, eval, bench"),
    (HEAD + 'contracts = ["camera"]\n', 3, "camera 1080x1920"),
    (HEAD + 'devices = ["cpu", "orin nx"]\n', 3, "names no class"),
    (HEAD + "make = 3\n", 3, "names no class"),
    (HEAD + "calib = 3\n", 3, "give a text"),
    (HEAD + 'timeout_s = "long"\n', 3, "give seconds"),
    (HEAD + "timeout_s = 0\n", 3, "give seconds"),
    (HEAD + "data = 3\n", 3, "give a table"),
    (HEAD + "[data]\nlimit = [3]\n", 4, "a text or a number"),
    (HEAD + "[arguments]\nrun = ['-o', 'x']\n", 4, "choose of export, build"),
    (HEAD + "[arguments]\nbench = '--min-s 3'\n", 4, "give a list of words"),
    (HEAD + "[exclude]\ndevice = 'cpu'\n", 3, r"\[\[exclude\]\]"),
    (HEAD + "[[exclude]]\ndevice = 'cpu'\n", 3, "nothing is left of 1 cells"),
    (HEAD + "[[exclude]]\nboard = 'cpu'\n", 4, "no axis board"),
    (HEAD + "[[exclude]]\nsize = '64x64'\ndevice = 'gpu'\n", 5, "the plan has cpu"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "said"), BAD)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    where = "plan.toml" if line is None else f"plan.toml:{line}"
    with pytest.raises(PlanError, match=f"{where}: .*(?:{said})"):
        plan_of(tmp_path, text)


def test_all_of_it_before_anything_runs(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "plan.toml").write_text(HEAD.replace("64x64", "64x65"), encoding="utf-8")
    result = cli("sweep", tmp_path / "plan.toml")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "plan.toml:2: " in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


def test_a_plan_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_bytes(b"\xff\xfe\0")
    with pytest.raises(HiresvitError, match="cannot be read as text"):
        read_plan(tmp_path / "plan.toml")
    with pytest.raises(HiresvitError, match=r"none\.toml"):
        read_plan(tmp_path / "none.toml")


def test_a_dry_run_says_the_lines_and_writes_nothing(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "plan.toml").write_text(GOOD, encoding="utf-8")
    result = cli("sweep", tmp_path / "plan.toml", "--dry-run", "--json")
    document = json.loads(result.out)
    assert result.code == 0, result.err
    assert (document["sweep"]["cells"], len(document["sweep"]["lines"])) == (20, 52)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


@pytest.mark.parametrize("given", ["board", "cpu=", "cpu=-oProxyCommand=x", "cpu=a:0", "cpu=a:b", "a b=c", "x=a b"])
def test_a_board_that_cannot_be(tmp_path: Path, cli: Cli, given: str) -> None:
    (tmp_path / "plan.toml").write_text(HEAD, encoding="utf-8")
    result = cli("sweep", tmp_path / "plan.toml", "--dry-run", "--ssh", given)
    assert (result.code, result.err.count("give CLASS=user@board")) == (UsageError.exit_code, 1)
