"""Every variant at its default size through Qualcomm's compiler: what runs on the HTP, how large a context is.

    python benchmarks/htp_table.py [--models hrvit_b1 ...] [--forms fp16 a16w8 a8w8] [--write]

FP16 is compiled for an SM8650, integers for the AR1 of glasses, which has nothing else. Weights are fresh, and integers
are calibrated on two drawn scenes: the table is of what compiles, not of accuracy (benchmarks/htp_accuracy.py). The
seconds are this machine's, of the compiler in a process of its own, and the memory is that process's. ``--write`` keeps
each row in benchmarks/results as soon as it is there, and puts the table into docs/htp.md; rows that are there already
are not made again unless ``--again`` is given.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import onnx
from paper_numbers import with_table

from hiresvit import create_model, export_onnx, fold, list_models, simplify
from hiresvit.device.chips import CHIPS
from hiresvit.engine.htp import compile_graph
from hiresvit.models.create import enliven, model_spec
from hiresvit.models.zoo import has_queries
from hiresvit.process import trim_memory
from hiresvit.spec import HtpForm, ModelSpec
from hiresvit.workflows.htp import HtpSettings, make_htp

RESULTS = Path(__file__).parent / "results" / "htp_table.json"
DOCUMENT = Path(__file__).parents[1] / "docs" / "htp.md"
BEGIN, END = "<!-- htp-table: benchmarks/htp_table.py --write -->", "<!-- /htp-table -->"
FORMS: dict[HtpForm, str] = {"fp16": "sm8650", "a16w8": "ar1", "a8w8": "ar1"}
HEAD = ("model", "task, size", "form, chip", "nodes on the HTP", "on the CPU", "context MB", "compile s", "peak GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list_models())
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--write", action="store_true", help="keep the result and update docs/htp.md")
    parser.add_argument("--again", action="store_true", help="make rows anew that are there already")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if args.write and RESULTS.exists() else []
    for model in args.models:
        there = {row["form"] for row in rows if row["model"] == model}
        able = ("fp16",) if has_queries(model_spec(model)) else FORMS
        wanted = [form for form in args.forms if form in able and (args.again or form not in there)]
        for row in measure(model, wanted) if wanted else ():
            print("| " + " | ".join(cells(row)) + " |", flush=True)
            rows = [old for old in rows if (old["model"], old["form"]) != (model, row["form"])] + [row]
            if args.write:
                rows.sort(key=lambda row: (list_models().index(row["model"]), list(FORMS).index(row["form"])))
                RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
                DOCUMENT.write_text(with_table(DOCUMENT.read_text(), table(rows), BEGIN, END))


def measure(name: str, forms: list[HtpForm]) -> Any:
    """A row for each form, each as soon as it is there."""
    model = create_model(name)
    spec = model.spec
    assert isinstance(spec, ModelSpec)
    enliven(model, spec)
    simple, _ = simplify(export_onnx(fold(model), spec))
    del model
    table = None
    for form in forms:
        chip = CHIPS[FORMS[form]]
        settings = HtpSettings(calib="scenes", images=2, method="minmax", prove=False, form=form, chip=chip)
        made = make_htp(simple, spec, settings, table=table)
        table = made.table or table
        trim_memory()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{name}.onnx")
            onnx.save(made.graph, path)
            nodes = len(made.graph.graph.node)
            del made
            report = compile_graph(path, chip)
        yield {
            **{"model": name, "task": spec.task, "size": list(spec.imgsz), "form": form, "nodes": nodes},
            **report.to_json(),
        }


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    where = f"{row['task']} {'x'.join(map(str, row['size']))}"
    size = "" if row["context_bytes"] is None else f"{row['context_bytes'] / 1e6:.1f}"
    refused = row["failure"] or str(row["nodes_cpu"])
    return (
        *(row["model"], where, f"{row['form'].upper()}, {row['chip']}", str(row["nodes_htp"]), refused, size),
        *(f"{row['seconds']:.0f}", f"{row['peak_rss_bytes'] / 1e9:.1f}"),
    )


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    return "\n".join([*lines, *(f"| {' | '.join(cells(row))} |" for row in rows)])


if __name__ == "__main__":
    main()
