"""Tables from the dicts that the library itself makes: every number is there, rounded, in its row."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from hiresvit.device.plan import EngineReport
from hiresvit.evaluation.parity import Gate, compare_runs
from hiresvit.evaluation.statistics import latency_stats, ratio
from hiresvit.export.fp16 import Fp16Report, ValueLoss
from hiresvit.export.simplify import SimplifyReport
from hiresvit.report import results as report
from hiresvit.report import tables
from hiresvit.report.latency import latency_tables
from hiresvit.report.parity import parity_table
from hiresvit.spec import Task, TensorSpec


def cells(text: str, first: str) -> list[str]:
    """The cells of the row that starts with ``first``; two blanks or more stand between cells."""
    [row] = [line for line in text.splitlines() if re.match(rf"{re.escape(first)}(  |$)", line)]
    return re.split(r"  +", row.strip())


def parity(task: Task, reference: Any, test: Any, gate: dict[str, float] | None = None) -> dict[str, Any]:
    found = compare_runs({"y": np.asarray(reference)}, {"y": np.asarray(test)}, task)
    stage = {"stage": "fp16", "gate": gate or {}, "report": found.to_json()}
    return {"task": task, "images": 3, "reference": "pytorch", "stages": [stage]}


def rendered(table: Any) -> str:
    return tables.render([table])


def test_parity_shows_each_measure_and_its_gate() -> None:
    values = parity("classify", [[1.0, 0.0], [0.0, 1.0]], [[1.1, 0.0], [0.5, 0.4]], asdict(Gate(45, 0.9999, 0.99)))
    text = rendered(parity_table(values))
    assert text.startswith("parity with pytorch, the worst of 3 images")
    assert cells(text, "fp16") == ["fp16", "y", "6.00e-01", "0.8333333", "5.1", "50.000", "45, 0.9999, 99"]


def test_parity_of_equal_arrays_is_exact_and_features_have_no_agreement() -> None:
    text = rendered(parity_table(parity("features", [1.0, 2.0], [1.0, 2.0])))
    assert cells(text, "fp16") == ["fp16", "y", "0.00e+00", "1.0000000", "exact"]
    assert "gate" not in text


def test_parity_shows_nan() -> None:
    text = rendered(parity_table(parity("features", [1.0, 2.0], [1.0, float("nan")])))
    assert cells(text, "fp16") == ["fp16", "y", "1 NaN or Inf"]


def test_a_gate_of_one_measure_leaves_the_others_open() -> None:
    text = rendered(parity_table(parity("features", [1.0], [1.0], {"min_cosine": 0.5})))
    assert cells(text, "fp16")[-1] == "-, 0.5, -"


def latency() -> dict[str, Any]:
    sides = {"cpu": latency_stats([5_000_000, 5_000_000]), "pytorch": latency_stats([8_000_000, 12_000_000])}
    ratios = {"cpu/pytorch": asdict(ratio(sides["cpu"], sides["pytorch"]))}
    return {"threads": 2, "sides": {name: side.to_json() for name, side in sides.items()}, "ratios": ratios}


def test_latency_starts_with_what_the_others_are_divided_by() -> None:
    table, note = latency_tables(latency())
    text = rendered(table)
    assert text.index("pytorch  ") < text.index("cpu  "), "a manifest's keys are sorted, the table's are not"
    assert cells(text, "cpu") == [
        "cpu",
        "5.00",
        "5.00",
        "5.00",
        "0.0",
        "200.0",
        "2",
        "0.521 (0.417 to 0.625)",
    ]
    assert cells(text, "pytorch") == ["pytorch", "10.00", "12.00", "12.00", "20.0", "100.0", "2"]
    assert note == "note: unstable: pytorch"


def test_latency_of_one_side_has_no_ratios() -> None:
    values = latency()
    del values["sides"]["cpu"]
    [table, _] = latency_tables({**values, "ratios": {}})
    assert "x pytorch" not in rendered(table)


def test_a_plans_call_is_shown_in_its_parts() -> None:
    values = latency()
    values["sides"]["cpu"] |= {"h2d_ms": 0.25, "gpu_compute_ms": 3.5, "d2h_ms": None}
    table, _ = latency_tables(values)
    text = rendered(table)
    assert cells(text, "cpu")[1:6] == ["5.00", "5.00", "5.00", "0.25", "3.50"]
    assert "3.50" not in str(cells(text, "pytorch"))
    assert "copy in" not in rendered(latency_tables(latency())[0])


ENGINE = EngineReport(
    backend="tensorrt_rtx",
    version="1.7",
    platform="Linux x86_64",
    compute_capability="8.0",
    plan_bytes=2_500_000,
    plan_sha256="0" * 64,
    build_seconds=12.34,
    peak_rss_bytes=3_000_000_000,
    kernel_total=12,
    kernels={"gemm": 4, "attention": 8},
    precision={"fp16": 11, "fp32": 1},
    attentions_fused=8,
    attentions_total=9,
    activation_bytes=1000,
    weight_bytes=999,
    scratch_bytes=0,
    inputs=(TensorSpec("x", "float32", (1, 3)),),
    outputs=(),
    device=None,
    flags={"max_aux_streams": 0},
    profiles={},
    warnings=(),
)


def test_engine_counts_kernels_attentions_and_memory() -> None:
    text = rendered(report.engine_table(ENGINE.to_json()))
    assert text.index("attention kernels") < text.index("gemm kernels"), "most first"
    assert cells(text, "kernels in all")[1] == "12"
    assert cells(text, "attentions fused")[1] == "8 of 9"
    assert cells(text, "attentions, convolutions, products in")[1] == "11 fp16, 1 fp32"
    sizes = [cells(text, f"{name} size")[1] for name in ("activation", "scratch", "weight", "plan")]
    assert sizes == ["1.0 kB", "0 B", "999 B", "2.5 MB"]
    assert cells(text, "builder's memory")[1] == "3.0 GB"
    assert cells(text, "build time")[1] == "12.3 s"


# Of an export, what its manifest says where nothing was done.
NOTHING: dict[str, Any] = {
    **dict.fromkeys(("simplify", "fp16", "int8", "parity", "latency")),
    "engines": {},
    "htp": {},
    "notes": [],
}


def test_export_says_what_fp16_loses_and_what_simplify_did() -> None:
    losses = ValueLoss("a", 2, 10, 70000.0), ValueLoss("b", 1, 10, -90000.0)
    fp16 = Fp16Report(10, 3, 4, overflow=losses, flushed=(), subnormal=5).to_json()
    hazard = {"name": "t", "max_abs": 1e5, "min_abs": 1.0, "non_finite": 0, "hazard": "overflow"}
    headroom = {"share": 0.1234, "max_abs": 8083.0, "tensor": "u", "module": "stem.act", "images": 4}
    small = {"tensor": "v", "module": "", "max_abs": 1e-5}
    manifest = NOTHING | {
        "simplify": SimplifyReport(20, 12, None).to_json(),
        "fp16": fp16 | {"activation_hazards": [hazard], "headroom": headroom, "underflow": [small]},
        "notes": ["fresh"],
    }
    assert report.export_report(manifest) == [
        "simplify: 20 -> 12 nodes",
        "fp16: 10 nodes in FP16, 3 in FP32, 4 casts, 5 weights below 2**-14",
        "fp16: 3 weights of 2 tensors clamped to 65504, the largest -9e+04 in b",
        "fp16: overflow in t, up to 1e+05",
        "fp16: at most 12 % of FP16's range, 8083, in u of stem.act, on 4 images",
        "fp16: underflow in v, all below 2**-14, up to 1e-05",
        "note: fresh",
    ]


def test_a_simplification_that_was_rolled_back_says_why() -> None:
    manifest = NOTHING | {"simplify": SimplifyReport(20, 20, "onnxsim was killed by SIGSEGV").to_json()}
    assert report.export_report(manifest) == ["simplify: left as it was, 20 nodes: onnxsim was killed by SIGSEGV"]


def test_an_empty_manifest_gives_no_tables() -> None:
    assert report.export_report(NOTHING) == []


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (73_400_000, "73.4 MB")])
def test_size_text(count: int, text: str) -> None:
    assert tables.size_text(count) == text


def test_names_are_printed_as_they_are() -> None:
    shares = [{"name": "[bold]:smile:[/bold]", "share": 0.25}]
    assert cells(rendered(report.shares_table(shares)), "[bold]:smile:[/bold]")[1] == "25.0 %"
