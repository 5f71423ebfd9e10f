"""Every variant's FP16 and INT8 graph: legal for which targets, and what TensorRT-RTX makes of it.

    python benchmarks/plan_numbers.py [--models hrvit_b1 ...] [--bundles DIR] [--write]

Default task and size, fresh weights, on a machine without a GPU: kernels are counted, none is run. INT8 ranges are
those of two drawn pictures, which is enough for the form and says nothing about accuracy (docs/int8.md does). Each
graph goes through `hiresvit check` for all targets, and through two builds for compute capabilities 8.6, 8.9 and 12.0,
whose bytes must be equal. ``--bundles`` keeps the exports in a folder and takes those that are there. `--write` keeps
the result in benchmarks/results and puts the table into docs/check.md; models that were not asked for keep their rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from graph_numbers import moved
from paper_numbers import with_table

from hiresvit import list_models
from hiresvit.bundle.folder import read_bundle
from hiresvit.device.plan import read_sidecar

RESULTS = Path(__file__).parent / "results" / "plan_numbers.json"
DOCUMENT = Path(__file__).parents[1] / "docs" / "check.md"
BEGIN, END = "<!-- plan-numbers: benchmarks/plan_numbers.py --write -->", "<!-- /plan-numbers -->"
GRAPHS = ("fp16", "int8")
GPUS = "86,89,120"
HEAD = (
    *("model", "task", "size", "graph", "legal for", "hazards", "kernels", "attentions fused"),
    *("multiply-accumulates", "moved", "activation", "plan", "build", f"plan for SM {GPUS}"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list_models())
    parser.add_argument("--bundles", type=Path, help="keep the exports here, and take those that are there")
    parser.add_argument("--write", action="store_true", help="keep the result and update docs/check.md")
    args = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if args.write and RESULTS.exists() else []
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            made = [measure(name, graph, args.bundles or Path(folder)) for graph in GRAPHS]
        for row in made:
            print("| " + " | ".join(cells(row)) + " |", flush=True)
        rows = [other for other in rows if other["model"] != name] + made
        if args.write:
            rows.sort(key=lambda row: (list_models().index(row["model"]), GRAPHS.index(row["graph"])))
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
            DOCUMENT.write_text(with_table(DOCUMENT.read_text(), table(rows), BEGIN, END))


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    return "\n".join(lines + [f"| {' | '.join(cells(row))} |" for row in rows])


def measure(name: str, graph: str, folder: Path) -> dict[str, Any]:
    target = folder / name
    if not target.exists():
        options = [
            "--int8",
            "--calib",
            "scenes",
            "--calib-images",
            "2",
            "--method",
            "minmax",
            "--images",
            "1",
        ]
        run("export", name, *options, "--no-plan", "--no-latency", "-o", str(target), "--json")
    found = json.loads(run("check", str(target), "--graph", graph, "--json"))
    spec = read_bundle(target).manifest.spec
    return {
        "model": name,
        "task": spec.task,
        "imgsz": list(spec.imgsz),
        "graph": graph,
        "legal": [row["target"] for row in found["targets"] if row["legal"]],
        "targets": [row["target"] for row in found["targets"]],
        "hazards": sorted(
            {item["rule"] for row in found["targets"] for item in row["findings"] if item["level"] == "hazard"}
        ),
        "engine": found["compiled"]["engine"],
        "macs": found["compiled"]["macs"],
        "portable": portable(target, graph),
    }


def portable(bundle: Path, graph: str) -> dict[str, Any]:
    """Two builds for three GPUs that are not here."""
    with tempfile.TemporaryDirectory() as folder:
        plans = [Path(folder, f"{number}.plan") for number in range(2)]
        for plan in plans:
            run(
                "build",
                str(bundle),
                "--graph",
                graph,
                "--backend",
                "tensorrt_rtx",
                "--sm",
                GPUS,
                "-o",
                str(plan),
            )
        found = [read_sidecar(plan) for plan in plans]
    reports = [sidecar.report for sidecar in found if sidecar is not None]
    return {
        "compute_capability": reports[0].compute_capability,
        "plan_bytes": reports[0].plan_bytes,
        "same_bytes": reports[0].plan_sha256 == reports[1].plan_sha256,
    }


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", "hiresvit", *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"hiresvit {' '.join(command)} exited with {done.returncode}")
    return done.stdout


def cells(row: dict[str, Any]) -> list[str]:
    engine, portable_plan = row["engine"], row["portable"]
    total = sum(row["macs"].values())
    return [
        row["model"],
        row["task"],
        "x".join(str(side) for side in row["imgsz"]),
        row["graph"],
        "all" if row["legal"] == row["targets"] else ", ".join(row["legal"]) or "none",
        ", ".join(row["hazards"]) or "none",
        str(engine["kernel_total"]),
        f"{engine['attentions_fused']} of {engine['attentions_total']}",
        ", ".join(f"{100 * count / total:.1f} % {precision}" for precision, count in row["macs"].items()),
        moved(engine),
        f"{engine['activation_bytes'] / 1e6:.1f} MB",
        f"{engine['plan_bytes'] / 1e6:.1f} MB",
        f"{engine['build_seconds']:.1f} s",
        f"{portable_plan['plan_bytes'] / 1e6:.1f} MB, {'same' if portable_plan['same_bytes'] else 'OTHER'} bytes twice",
    ]


if __name__ == "__main__":
    main()
