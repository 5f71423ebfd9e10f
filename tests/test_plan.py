"""A plan's first bytes, and the file beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hiresvit.errors import ArtefactError, HiresvitError
from hiresvit.plan import (
    EngineReport,
    Sidecar,
    read_header,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from hiresvit.spec import TensorSpec

TENSOR = TensorSpec("x", "float16", ("batch", 3, 8, 8))
REPORT = EngineReport(
    backend="tensorrt",
    version="10.3.0.30",
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


def header(tag: bytes, version: tuple[int, ...]) -> bytes:
    return tag + bytes(20) + bytes(version) + bytes(100)


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


@pytest.mark.parametrize("content", [b"", b"hello world" * 9, header(b"ftrt", (10, 3, 0, 30))[:27]])
def test_what_is_no_plan(tmp_path: Path, content: bytes) -> None:
    plan = tmp_path / "a.plan"
    plan.write_bytes(content)
    with pytest.raises(
        ArtefactError, match=r"a\.plan is not a plan of TensorRT .* build it again$"
    ) as caught:
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
    assert REPORT.title == "TensorRT 10.3.0.30"
    assert REPORT.precision_share == {"fp16": 0.75, "int8": 0.25}


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
    with pytest.raises(ArtefactError, match=r"a\.plan\.json does not describe a plan; build the plan again$"):
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
