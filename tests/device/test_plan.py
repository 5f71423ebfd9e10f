"""A plan's first bytes, and the file beside it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hiresvit.device.plan import (
    EngineReport,
    PlanTraffic,
    Sidecar,
    find_sidecar,
    is_plan_file,
    read_header,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from hiresvit.errors import ArtefactError, HiresvitError
from hiresvit.spec import TensorSpec

TENSOR = TensorSpec("x", "float16", ("batch", 3, 8, 8))
REPORT = EngineReport(
    backend="tensorrt",
    version="10.3.0.30",
    platform="Linux aarch64",
    compute_capability="8.7",
    device="Orin",
    plan_bytes=100,
    plan_sha256="ab" * 32,
    build_seconds=1.5,
    peak_rss_bytes=2,
    kernel_total=3,
    kernels={"conv": 2, "attention": 1},
    precision={"fp16": 3, "int8": 1},
    attentions_fused=1,
    attentions_total=1,
    activation_bytes=4,
    weight_bytes=5,
    scratch_bytes=6,
    inputs=(TENSOR,),
    outputs=(replace(TENSOR, name="y"),),
    flags={"builder_flags": ["TF32"]},
    profiles={"x": ((1, 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8))},
    warnings=("a word",),
)
SIDECAR = Sidecar("g.onnx", "cd" * 32, REPORT, ({"name": "k"},), {"hiresvit": "{}"})


def header(tag: bytes, version: tuple[int, ...], layout: int = 0) -> bytes:
    return tag + layout.to_bytes(4, "little") + bytes(16) + bytes(version) + bytes(100)


@pytest.mark.parametrize("name", ["a.plan", "a.engine", "A.PLAN", "a b.Engine"])
def test_names_of_plans(name: str) -> None:
    assert is_plan_file(Path("some.where", name))


@pytest.mark.parametrize("name", ["plan", "a.onnx", "a.plan.json", "a.planet", "some.plan/a", ""])
def test_names_of_others(name: str) -> None:
    assert not is_plan_file(Path(name))


@pytest.mark.parametrize(
    ("tag", "version", "backend", "text"),
    [
        (b"ftrt", (10, 3, 0, 30), "tensorrt", "10.3.0.30"),
        (b"vtrt", (1, 7, 1, 116), "tensorrt_rtx", "1.7.1.116"),
    ],
    ids=["tensorrt", "rtx"],
)
def test_header(tmp_path: Path, tag: bytes, version: tuple[int, ...], backend: str, text: str) -> None:
    plan = tmp_path / "a.plan"
    plan.write_bytes(header(tag, version))
    found = read_header(plan)
    assert (found.backend, found.version) == (backend, text)


def test_a_format_that_nobody_knows_has_no_version(tmp_path: Path) -> None:
    """NVIDIA's trtexec reads the version in the format 0 only."""
    plan = tmp_path / "a.plan"
    for layout in (1, 1 << 24):
        plan.write_bytes(header(b"ftrt", (10, 3, 0, 30), layout))
        found = read_header(plan)
        assert (found.backend, found.version) == ("tensorrt", None)


@pytest.mark.parametrize("content", [b"", b"hello world" * 9, header(b"ftrt", (10, 3, 0, 30))[:27]])
def test_what_is_no_plan(tmp_path: Path, content: bytes) -> None:
    plan = tmp_path / "a.plan"
    plan.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"a\.plan is not a plan of TensorRT .* build it again$") as caught:
        read_header(plan)
    assert caught.value.exit_code == 7


def test_no_plan_at_all(tmp_path: Path) -> None:
    with pytest.raises(HiresvitError, match=r"cannot read .*: No such file"):
        read_header(tmp_path / "a.plan")


def test_the_sidecar_round_trip(tmp_path: Path) -> None:
    plan = tmp_path / "a.plan"
    assert read_sidecar(plan) is None
    write_sidecar(plan, SIDECAR)
    assert [path.name for path in tmp_path.iterdir()] == ["a.plan.json"]
    assert read_sidecar(plan) == SIDECAR
    assert EngineReport.from_json(REPORT.to_json()) == REPORT


TRAFFIC = PlanTraffic(read_bytes=7, written_bytes=8, weight_bytes=9, macs={"fp16": 10}, untold=0)


def test_traffic_and_sidecars_from_before_it(tmp_path: Path) -> None:
    plan = tmp_path / "a.plan"
    counted = replace(SIDECAR, report=replace(REPORT, traffic=TRAFFIC))
    write_sidecar(plan, counted)
    assert read_sidecar(plan) == counted
    whole = json.loads(sidecar_path(plan).read_text())
    del whole["report"]["traffic"]
    sidecar_path(plan).write_text(json.dumps(whole))
    assert read_sidecar(plan) == SIDECAR


@pytest.mark.parametrize("fault", [{"read_bytes": -1}, {"macs": [1]}, {"untold": None}, {"more": 1}])
def test_traffic_that_is_none(tmp_path: Path, fault: dict[str, Any]) -> None:
    plan = tmp_path / "a.plan"
    write_sidecar(plan, replace(SIDECAR, report=replace(REPORT, traffic=TRAFFIC)))
    whole = json.loads(sidecar_path(plan).read_text())
    whole["report"]["traffic"] |= fault
    sidecar_path(plan).write_text(json.dumps(whole))
    with pytest.raises(ArtefactError, match=r"does not describe a plan: [^\n]+; build the plan again$"):
        read_sidecar(plan)


def damage(values: dict[str, Any], what: str) -> Any:
    match what:
        case "kind":
            values["kind"] = "another"
        case "key":
            del values["report"]["version"]
        case "more":
            values["report"]["price"] = 3
        case "backend":
            values["report"]["backend"] = "cudnn"
        case "profiles":
            values["report"]["profiles"] = [1]
        case "layers":
            del values["layers"]
        case _:
            return [values]
    return values


@pytest.mark.parametrize("what", ["kind", "key", "more", "backend", "profiles", "layers", "list"])
def test_a_sidecar_that_is_none(tmp_path: Path, what: str) -> None:
    plan = tmp_path / "a.plan"
    write_sidecar(plan, SIDECAR)
    beside = sidecar_path(plan)
    beside.write_text(json.dumps(damage(json.loads(beside.read_text()), what)))
    with pytest.raises(ArtefactError, match=r"a\.plan\.json does not describe a plan[^\n]*; build the plan again$"):
        read_sidecar(plan)


def test_a_cut_sidecar_and_one_of_another_schema(tmp_path: Path) -> None:
    plan = tmp_path / "a.plan"
    write_sidecar(plan, SIDECAR)
    text = sidecar_path(plan).read_text()
    sidecar_path(plan).write_text(text[: len(text) // 2])
    with pytest.raises(ArtefactError, match="cannot be read as JSON"):
        read_sidecar(plan)
    sidecar_path(plan).write_text(text.replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(ArtefactError, match="has schema version 99, this hiresvit reads 1"):
        read_sidecar(plan)


TEXTS = ("platform", "compute_capability")
COUNTS = (
    *("plan_bytes", "peak_rss_bytes", "kernel_total", "attentions_fused", "attentions_total"),
    *("activation_bytes", "weight_bytes", "scratch_bytes"),
)
RIGHT: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(TEXTS, ("x", "10.3.0.30", "ab" * 32)),
    **dict.fromkeys(COUNTS, (3,)),
    "version": ("10.3.0.30",),
    "plan_sha256": ("ab" * 32,),
    **dict.fromkeys(("inputs", "outputs", "warnings"), ([],)),
    **dict.fromkeys(("kernels", "precision", "profiles"), ({},)),
    "backend": (),
    "device": ("x", "10.3.0.30", "ab" * 32, None),
    "build_seconds": (3, 1.5, 10**19),
    "flags": ({}, {"a": None}),
    "traffic": (None,),
}
VALUES: tuple[Any, ...] = (
    None,
    "x",
    "10.3.0.30",
    "ab" * 32,
    "a\x1b",
    3,
    -3,
    1.5,
    True,
    [],
    {},
    [None],
    [[3]],
    {"a": None},
    {"a": "x"},
    10**19,
)


@pytest.mark.parametrize("name", list(RIGHT))
def test_every_type_is_checked(tmp_path: Path, name: str) -> None:
    plan = tmp_path / "a.plan"
    write_sidecar(plan, SIDECAR)
    whole = json.loads(sidecar_path(plan).read_text())
    assert whole["report"].keys() == RIGHT.keys()
    for value in VALUES:
        sidecar_path(plan).write_text(json.dumps({**whole, "report": {**whole["report"], name: value}}))
        if value in RIGHT[name] or (name == "flags" and isinstance(value, dict)):
            read = read_sidecar(plan)
            assert read is not None
            assert json.loads(json.dumps(getattr(read.report, name))) == value
        else:
            with pytest.raises(ArtefactError, match=r"does not describe a plan: [^\n]+; build the plan again$"):
                read_sidecar(plan)


WRONG_INSIDE: list[dict[str, Any]] = [
    {"graph": 3},
    {"graph_sha256": None},
    {"layers": {}},
    {"layers": [3]},
    {"metadata": [["a", "b"]]},
    {"metadata": {"hiresvit.spec": {}}},
    {"report": []},
    {"more": 3},
    {"report": {"flags": {"builder_flags": 3}}},
    {"report": {"flags": {"builder_flags": "TF32"}}},
    {"report": {"flags": {"builder_flags": [3]}}},
    {"report": {"inputs": [{"name": "x", "dtype": "float16"}]}},
    {"report": {"inputs": [{"name": "x", "dtype": "float16", "shape": [1.5]}]}},
    {"report": {"inputs": [{"name": "x", "dtype": "float16", "shape": [-1]}]}},
    {"report": {"profiles": {"x": [[1], [1]]}}},
    {"report": {"profiles": {"x": [[1], [1], ["a"]]}}},
]


@pytest.mark.parametrize("change", WRONG_INSIDE, ids=str)
def test_types_inside(tmp_path: Path, change: dict[str, Any]) -> None:
    plan = tmp_path / "a.plan"
    write_sidecar(plan, SIDECAR)
    whole = json.loads(sidecar_path(plan).read_text())
    if isinstance(change.get("report"), dict):
        change = {"report": {**whole["report"], **change["report"]}}
    sidecar_path(plan).write_text(json.dumps({**whole, **change}))
    with pytest.raises(ArtefactError, match=r"does not describe a plan: [^\n]+; build the plan again$"):
        read_sidecar(plan)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_are_none(tmp_path: Path, number: str) -> None:
    """``inspect --json`` could not write them."""
    plan = tmp_path / "a.plan"
    write_sidecar(plan, SIDECAR)
    text = sidecar_path(plan).read_text()
    for place in ('"build_seconds": 1.5', '"name": "k"'):
        sidecar_path(plan).write_text(text.replace(place, f"{place.split(':')[0]}: {number}"))
        with pytest.raises(ArtefactError, match=r"cannot be read as JSON \([^\n]+\); build the plan again$"):
            read_sidecar(plan)


class TestLinks:
    """A plan may be a link to one, under another name."""

    @pytest.fixture
    def link(self, tmp_path: Path) -> Path:
        (tmp_path / "plans").mkdir()
        plan = tmp_path / "plans" / "a.plan"
        plan.write_bytes(header(b"ftrt", (10, 3, 0, 30)))
        write_sidecar(plan, SIDECAR)
        (tmp_path / "between.plan").symlink_to("plans/a.plan")
        (tmp_path / "link.engine").symlink_to("between.plan")
        return tmp_path / "link.engine"

    def test_the_files_own_sidecar_counts(self, link: Path) -> None:
        assert read_sidecar(link) == SIDECAR
        assert find_sidecar(link).name == "a.plan.json"

    def test_but_one_beside_the_link_counts_more(self, link: Path) -> None:
        mine = replace(SIDECAR, graph="mine.onnx")
        write_sidecar(link, mine)
        assert read_sidecar(link) == mine

    def test_links_that_lead_nowhere(self, tmp_path: Path) -> None:
        for name, target in (("lost.plan", "gone.plan"), ("round.plan", "round.plan")):
            (tmp_path / name).symlink_to(target)
            assert read_sidecar(tmp_path / name) is None
            with pytest.raises(HiresvitError, match=f"cannot read .*{name}: "):
                read_header(tmp_path / name)


@pytest.mark.parametrize("what", ["plan", "sidecar"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_does_not_block(tmp_path: Path, what: str, kind: str) -> None:
    plan = tmp_path / "a.plan"
    path = plan if what == "plan" else sidecar_path(plan)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(HiresvitError, match="it is a folder, a pipe or a device, and no file"):
        read_header(plan) if what == "plan" else read_sidecar(plan)
