"""Nodes, kernels, fused attentions and memory of every variant at its default size, and what an export costs.

    python benchmarks/graph_numbers.py [--models hrvit_b1 ...] [--task segment] [--write]

Plans are built by TensorRT-RTX for compute capability 8.0 and later, on a machine without a GPU: the kernels are
counted, none is run. ``moved`` is what they read and write of activations. Parity is the worst of all graphs, and
FP16's, against PyTorch. ``export`` is one `hiresvit export MODEL --fp16 --no-latency` in a process of its own: wall
time, and the largest resident memory of it and its children together, looked at ten times a second (Linux). `--write`
keeps the result in benchmarks/results and puts the table into docs/tensorrt.md; models that were not asked for keep the
rows they have.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from paper_numbers import with_table

from hiresvit import list_models
from hiresvit.bundle.folder import read_bundle
from hiresvit.workflows.inspect import graph_summary

RESULTS = Path(__file__).parent / "results" / "graph_numbers.json"
DOCUMENT = Path(__file__).parents[1] / "docs" / "tensorrt.md"
BEGIN, END = "<!-- graph-numbers: benchmarks/graph_numbers.py --write -->", "<!-- /graph-numbers -->"
HEAD = (
    *(
        "model",
        "task",
        "size",
        "nodes exported, simplified",
        "kernels",
        "attentions fused",
        "products in FP16",
    ),
    *("moved", "activation", "plan", "build", "parity FP32, FP16", "export"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list_models())
    parser.add_argument("--task", help="default: the family's own")
    parser.add_argument("--write", action="store_true", help="keep the result and update docs/tensorrt.md")
    args = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if args.write and RESULTS.exists() else []
    for name in args.models:
        row = measure(name, args.task)
        print("| " + " | ".join(cells(row)) + " |", flush=True)
        rows = [other for other in rows if (other["model"], other["task"]) != (name, row["task"])] + [row]
        if args.write:
            rows.sort(key=lambda row: (list_models().index(row["model"]), row["task"]))
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
            DOCUMENT.write_text(with_table(DOCUMENT.read_text(), table(rows), BEGIN, END))


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    return "\n".join(lines + [f"| {' | '.join(cells(row))} |" for row in rows])


def measure(name: str, task: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "bundle")
        command = ["-m", "hiresvit", "export", name, "--fp16", "--no-latency", "-o", str(target), "--json"]
        seconds, peak = run([*command, *(["--task", task] if task else [])])
        bundle = read_bundle(target)
        graph = graph_summary(bundle.path("simplified"))
    manifest = bundle.manifest
    assert manifest.parity is not None
    return {
        "model": name,
        "task": manifest.spec.task,
        "imgsz": list(manifest.spec.imgsz),
        "simplify": manifest.simplify,
        "operators": graph["operators"],
        "engine": manifest.engines.get("fp16"),
        "parity_db": {
            stage["stage"]: min(output["sqnr_db"] for output in stage["report"]["outputs"])
            for stage in manifest.parity["stages"]
        },
        "export_seconds": seconds,
        "export_peak_bytes": peak,
    }


def run(command: list[str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of a python command and all its descendants."""
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}")
    return time.perf_counter() - start, peak


def resident_bytes(root: int) -> int:
    """Resident bytes of a process and its descendants now."""
    family, total = {root}, 0
    for entry in sorted((e for e in Path("/proc").iterdir() if e.name.isdigit()), key=lambda e: int(e.name)):
        try:
            status = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines() if ":" in line)
        except OSError:
            continue  # it has ended meanwhile
        if int(entry.name) in family or int(status["PPid"]) in family:
            family.add(int(entry.name))
            total += int(status.get("VmRSS", "0").split()[0]) * 1024
    return total


def cells(row: dict[str, Any]) -> list[str]:
    engine, nodes = row["engine"], row["simplify"]
    products = sum(engine["precision"].values())
    exact = min(db for stage, db in row["parity_db"].items() if not stage.startswith("fp16"))
    return [
        row["model"],
        row["task"],
        "x".join(str(side) for side in row["imgsz"]),
        f"{nodes['nodes_before']}, {nodes['nodes_after']}",
        str(engine["kernel_total"]),
        f"{engine['attentions_fused']} of {engine['attentions_total']}",
        f"{engine['precision'].get('fp16', 0)} of {products}",
        moved(engine),
        f"{engine['activation_bytes'] / 1e6:.1f} MB",
        f"{engine['plan_bytes'] / 1e6:.1f} MB",
        f"{engine['build_seconds']:.1f} s",
        f"{exact:.0f}, {row['parity_db']['fp16']:.0f} dB",
        f"{row['export_seconds']:.0f} s, {row['export_peak_bytes'] / 2**30:.1f} GiB",
    ]


def moved(engine: dict[str, Any]) -> str:
    """The activations that all kernels of a plan read and write; nothing where no kernel list says it."""
    found = engine.get("traffic")
    return f"{(found['read_bytes'] + found['written_bytes']) / 1e6:.1f} MB" if found else ""


if __name__ == "__main__":
    main()
