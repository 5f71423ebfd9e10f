"""What INT8 costs and gives: accuracy of trained networks by every method, and four families' graphs and plans.

    python benchmarks/int8_numbers.py [--parts nano families trained] [--scenes 200] [--images 64] [--write]

`nano`: mIoU of hrvit_nano (examples/) on held-out scenes in FP32, FP16, INT8 by each method, and INT8 with the search
for modules that stay in FP16. `families`: with fresh weights, the share of products in INT8 by rule, kernels and fused
attentions of the FP16 and the INT8 plan (built on a CPU, not run), and the SQNR against FP32. `trained`: as `nano`, of
HRViT-b1 and LRFormer-T with the weights that lie in `--weights` (`int8_trained.py`). `--write` puts the tables
into docs/int8.md and the numbers into benchmarks/results/int8_numbers.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import methodcaller
from pathlib import Path
from typing import Any

import onnx
from int8_trained import TRAINED, trained, trained_table
from onnx import ModelProto
from paper_numbers import with_table

from hiresvit import build_engine, create_model, export_onnx, fold, simplify, to_fp16
from hiresvit.calibration.observers import METHODS
from hiresvit.data.dataset import Kept
from hiresvit.data.pictures import Feeds, open_pictures
from hiresvit.data.scenes import Scenes
from hiresvit.evaluation.accuracy import evaluate
from hiresvit.evaluation.parity import compare_runs
from hiresvit.export.tensorrt import for_tensorrt
from hiresvit.files import atomic_path
from hiresvit.models.create import enliven
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.runner import Casting
from hiresvit.spec import ModelSpec
from hiresvit.workflows.quantize import Int8Settings, make_int8
from hiresvit.workflows.yardstick import references

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "examples" / "hrvit_nano.safetensors"
DOCUMENT = ROOT / "docs" / "int8.md"
RESULTS = ROOT / "benchmarks" / "results" / "int8_numbers.json"
FAMILIES = ("hrvit_b1", "lrformer_t", "mixformer_b1", "hiri_vit_s")
CACHE = Path(tempfile.gettempdir()) / "hiresvit-int8-trained"
MAX_DROP = 0.5

Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=["nano", "families"])
    parser.add_argument("--scenes", type=int, default=200, help="held-out scenes")
    parser.add_argument("--images", type=int, default=64, help="pictures that calibrate; a quarter for the families")
    parser.add_argument("--weights", type=Path, help="of `trained`: the folder with hrvit_b1_scenes.safetensors, ...")
    parser.add_argument("--models", nargs="+", choices=list(TRAINED), default=list(TRAINED), help="of `trained`")
    parser.add_argument("--cache", type=Path, default=CACHE, help="of `trained`: where graphs and answers are kept")
    parser.add_argument("--write", action="store_true", help="update docs/int8.md and benchmarks/results/")
    args = parser.parse_args()
    if "trained" in args.parts and args.weights is None:
        parser.error("trained networks need --weights FOLDER")
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in args.parts:
        measure, show = PARTS[part]
        rows = measure(args)
        print(show(rows), flush=True)
        if args.write:
            found[part] = rows
            with atomic_path(RESULTS) as temporary:
                temporary.write_text(json.dumps(found, indent=1) + "\n")
            begin, end = f"<!-- {part}: benchmarks/int8_numbers.py --write -->", f"<!-- /{part} -->"
            DOCUMENT.write_text(with_table(DOCUMENT.read_text(), show(rows), begin, end))


def nano(args: argparse.Namespace) -> Rows:
    """One row for each form of the nano."""
    model = create_model("hrvit_nano", weights=WEIGHTS)
    spec = spec_of(model)
    simple, _ = simplify(export_onnx(fold(model), spec))
    half, _ = to_fp16(simple)
    scenes = Kept(Scenes(args.scenes, spec.imgsz))
    rows: Rows = []

    def add(form: str, graph: ModelProto, **more: Any) -> None:
        accuracy = on_runtime(graph, lambda runner: evaluate(runner, spec, scenes))
        lost = rows[0]["miou"] - accuracy.miou if rows else 0.0
        rows.append({"form": form, "miou": accuracy.miou, "lost": lost, "scenes": len(scenes), **more})
        print(rows[-1], flush=True)

    add("FP32", simple)
    add("FP16", half)
    settings = Int8Settings("scenes", images=args.images)
    for method in METHODS:
        made = make_int8(simple, half, spec, replace(settings, method=method, prove=False))
        add(f"INT8, {method}", made.graph, share=made.report["quantize"]["macs_share"], kept=[])
    made = make_int8(simple, half, spec, replace(settings, max_drop=MAX_DROP))
    share, kept = made.report["quantize"]["macs_share"], made.report["policy"]["keep"]
    add(f"INT8, {settings.method}, --max-drop {MAX_DROP}", made.graph, share=share, kept=kept)
    return rows


def families(args: argparse.Namespace) -> Rows:
    """One row for each family's small variant at its default task and size."""
    rows: Rows = []
    for name in FAMILIES:
        model = create_model(name)
        spec = spec_of(model)
        enliven(model, spec)
        simple, _ = simplify(export_onnx(fold(model), spec))
        half, _ = to_fp16(simple)
        made = make_int8(simple, half, spec, Int8Settings("scenes", images=max(2, args.images // 4), prove=False))
        report = made.report["quantize"]
        image = Feeds(open_pictures("scenes", spec.imgsz, 1, seed=1), spec, "image")[0]
        [(_, expected)] = references(simple, [image], None)
        sqnr = []
        graphs = (for_tensorrt(half), made.graph)
        for graph in graphs:
            answer = on_runtime(graph, methodcaller("__call__", image))
            sqnr.append(compare_runs(expected, answer, spec.task).outputs[0].worst.sqnr_db)
        plans = [plan_of(graph) for graph in graphs]
        total = report["macs_total"]
        rows.append(
            {
                "model": name,
                "task": spec.task,
                "imgsz": list(spec.imgsz),
                "layers": report["sites_int8"],
                "share": report["macs_share"],
                "fp16": {rule: macs / total for rule, macs in report["macs_fp16"].items()},
                "sqnr_db": sqnr,
                "plans": plans,
            }
        )
        print(rows[-1], flush=True)
    return rows


def spec_of(model: Any) -> ModelSpec:
    assert isinstance(model.spec, ModelSpec)
    return model.spec


def on_runtime(graph: ModelProto, use: Callable[[Any], Any]) -> Any:
    """What ``use`` makes of the graph on ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        onnx.save(graph, path)
        with OnnxRuntimeRunner(path) as runner:
            return use(Casting(runner))


def plan_of(graph: ModelProto) -> dict[str, Any]:
    """Kernels, fused attentions, size, seconds and bytes moved of the plan by TensorRT-RTX."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        onnx.save(graph, path)
        report = build_engine(path, Path(folder) / "plan")
    names = (
        "kernel_total",
        "attentions_fused",
        "attentions_total",
        "plan_bytes",
        "activation_bytes",
        "build_seconds",
    )
    return {name: getattr(report, name) for name in names} | {"traffic": report.to_json()["traffic"]}


def nano_table(rows: Rows) -> str:
    lines = [
        "| hrvit_nano, 256x256 | mIoU % | points below FP32 | products in INT8 | stay in FP16 |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        share = f"{row['share']:.1%}" if "share" in row else ""
        kept = ", ".join(row.get("kept", [])) or ("none" if "kept" in row else "")
        lines.append(f"| {row['form']} | {row['miou']:.2f} | {round(row['lost'], 2) + 0.0:.2f} | {share} | {kept} |")
    return "\n".join([*lines, "", f"On {rows[0]['scenes']} held-out scenes."])


def families_table(rows: Rows) -> str:
    columns = [
        *("model", "task", "size", "products in INT8", "in FP16, by rule", "SQNR FP16, INT8"),
        *("kernels", "attentions fused", "plan", "build"),
    ]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for row in rows:
        rules = ", ".join(f"{rule} {share:.1%}" for rule, share in row["fp16"].items())
        half, int8 = row["plans"]
        pair = pairs(row["plans"])
        sqnr = ", ".join(f"{value:.0f}" for value in row["sqnr_db"])
        lines.append(
            f"| {row['model']} | {row['task']} | {row['imgsz'][0]}x{row['imgsz'][1]} | {row['share']:.1%} | {rules} |"
            f" {sqnr} dB | {pair('kernel_total')} | {half['attentions_fused']}, {int8['attentions_fused']} of"
            f" {int8['attentions_total']} | {pair('plan_bytes', 1e6)} MB | {pair('build_seconds')} s |"
        )
    return "\n".join(lines)


def pairs(plans: Sequence[dict[str, Any]]) -> Callable[..., str]:
    def pair(name: str, unit: float = 1) -> str:
        form = ".0f" if name == "kernel_total" else ".1f"
        return " -> ".join(format(plan[name] / unit, form) for plan in plans)

    return pair


PARTS: dict[str, tuple[Callable[[argparse.Namespace], Rows], Callable[[Rows], str]]] = {
    "nano": (nano, nano_table),
    "families": (families, families_table),
    "trained": (trained, trained_table),
}

if __name__ == "__main__":
    main()
