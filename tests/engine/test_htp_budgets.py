"""What Qualcomm's compiler makes of every family in every form: all on the HTP, and contexts no larger than before.

``tests/golden/htp_budgets.json`` has what the small networks took when they were last looked at; run as a program, this
file writes it anew. The registry's variants at their own sizes are in docs/htp.md (benchmarks/htp_table.py).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from graphs import content
from htp_families import FAMILIES, family

from hiresvit.device.chips import CHIPS
from hiresvit.device.context import HtpReport
from hiresvit.device.qnn_api import installed
from hiresvit.engine.htp import compile_graph
from hiresvit.spec import HTP_FORMS, HtpForm
from hiresvit.workflows.htp import HtpSettings, make_htp

FILE = Path(__file__).parents[1] / "golden" / "htp_budgets.json"
SLACK = 1.05  # as tests/export/test_budgets.py
CHIP = {"fp16": CHIPS["sm8650"], "a16w8": CHIPS["ar1"], "a8w8": CHIPS["ar1"]}

# CI compiles all forms of one family; tests/runtime/test_qnn_models.py has FP16 of every one.
QUICK = "hrvit"
CASES = [
    pytest.param(name, form, marks=() if name == QUICK else pytest.mark.slow, id=f"{name}-{form}")
    for name in FAMILIES
    for form in HTP_FORMS
]


def compiled(name: str, form: HtpForm, folder: Path) -> HtpReport:
    """A family's small network in a form; its integers are calibrated on two scenes."""
    simple, spec = family(name)
    settings = HtpSettings(calib="scenes", images=2, method="minmax", prove=False, form=form, chip=CHIP[form])
    path = folder / "graph.onnx"
    path.write_bytes(content(make_htp(simple, spec, settings).graph))
    return compile_graph(path, CHIP[form])


@pytest.mark.skipif(not installed(), reason="onnxruntime-qnn is not installed")
@pytest.mark.parametrize(("name", "form"), CASES)
def test_all_of_it_is_on_the_htp_and_as_small_as_it_was(name: str, form: HtpForm, tmp_path: Path) -> None:
    report, recorded = compiled(name, form, tmp_path), json.loads(FILE.read_text())[name][form]
    assert (report.failure, report.nodes_cpu, report.refused) == (None, 0, ())
    assert report.departed == ()  # every product in the arithmetic that its graph states
    assert report.nodes_htp <= SLACK * recorded["nodes_htp"]
    assert report.context_bytes is not None
    assert report.context_bytes <= SLACK * recorded["context_bytes"]


def main() -> None:
    found: dict[str, dict[str, dict[str, int | None]]] = {}
    for name in FAMILIES:
        for form in HTP_FORMS:
            with tempfile.TemporaryDirectory() as folder:
                report = compiled(name, form, Path(folder))
            found.setdefault(name, {})[form] = {
                "nodes_htp": report.nodes_htp,
                "context_bytes": report.context_bytes,
            }
            print(name, form, report.failure, report.nodes_cpu, report.departed[:2], found[name][form], flush=True)
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
