"""What each option of the INT8 policy changes: products in INT8, kernels, fused attentions, bytes moved, SQNR.

    python benchmarks/int8_options.py [--models hrvit_b1 ...] [--images 8] [--write]

Four families' small variants with fresh weights, at their default task and size; ranges by mse on drawn scenes, SQNR
against FP32 on one other scene; plans by TensorRT-RTX, built on a CPU and not run. `--write` puts the table into
docs/int8.md.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from operator import methodcaller
from typing import Any

from int8_numbers import DOCUMENT, FAMILIES, on_runtime, plan_of, spec_of
from onnx import ModelProto
from paper_numbers import with_table

from hiresvit import calibrate, create_model, export_onnx, fold, quantize, simplify, to_fp16
from hiresvit.calibration.attention import find_attentions
from hiresvit.calibration.qdq import calibration_tensors
from hiresvit.calibration.sites import Policy, find_sites, find_skips
from hiresvit.data.pictures import Feeds, open_pictures
from hiresvit.errors import UsageError
from hiresvit.evaluation.parity import compare_runs
from hiresvit.export.tensorrt import for_tensorrt
from hiresvit.graph.index import index_graph
from hiresvit.models.create import enliven
from hiresvit.workflows.yardstick import references

BEGIN, END = "<!-- options: benchmarks/int8_options.py --write -->", "<!-- /options -->"
POLICIES = {
    "default": Policy(),
    "`--int8-lean`": Policy(lean=True),
    "`--int8-residual`": Policy(residual=True),
    "`--int8-attention`": Policy(int8_attention=True),
    "depthwise, too": Policy(depthwise=True),
    "linear layers only": Policy(),
    "one scale for a convolution's weight": Policy(),
}
COLUMNS = ("model", "policy", "products in INT8", "SQNR", "kernels", "attentions fused", "moved", "weights", "plan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(FAMILIES))
    parser.add_argument("--images", type=int, default=8, help="scenes that calibrate")
    parser.add_argument("--write", action="store_true", help="update docs/int8.md")
    args = parser.parse_args()
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for name in args.models:
        for row in measure(name, args.images):
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    if args.write:
        DOCUMENT.write_text(with_table(DOCUMENT.read_text(), "\n".join(lines), BEGIN, END))


def measure(name: str, images: int) -> list[list[str]]:
    """A row for FP16 and for each policy."""
    model = create_model(name)
    spec = spec_of(model)
    enliven(model, spec)
    simple, _ = simplify(export_onnx(fold(model), spec))
    half, _ = to_fp16(simple)
    image = Feeds(open_pictures("scenes", spec.imgsz, 1, seed=1), spec, "image")[0]
    [(_, expected)] = references(simple, [image], None)
    points = {label: points_of(simple, label) for label in POLICIES}
    tensors = {t: None for found in points.values() if found for t in calibration_tensors(*found)}
    feeds = Feeds(open_pictures("scenes", spec.imgsz, images), spec, "image")
    table = calibrate(
        simple,
        list(tensors),
        feeds,
        method="mse",
        data_digest=feeds.pictures.digest,
        preprocess=spec.preprocess,
    )

    def row(label: str, written: ModelProto, share: str) -> list[str]:
        graph = for_tensorrt(written)
        answer = on_runtime(graph, methodcaller("__call__", image))
        sqnr = compare_runs(expected, answer, spec.task).outputs[0].worst.sqnr_db
        plan = plan_of(graph)
        moved = plan["traffic"]
        fused = f"{plan['attentions_fused']} of {plan['attentions_total']}"
        sizes = {"moved": moved["read_bytes"] + moved["written_bytes"], "weights": moved["weight_bytes"]}
        sizes |= {"plan": plan["plan_bytes"]}
        megabytes = [f"{size / 1e6:,.1f} MB" for size in sizes.values()]
        return [name, label, share, f"{sqnr:.1f} dB", str(plan["kernel_total"]), fused, *megabytes]

    rows = [row("FP16", half, "")]
    empty = [""] * (len(COLUMNS) - 3)
    for label, found in points.items():
        if found is None:
            rows.append([name, label, "no attention is legal", *empty])
            continue
        sites, skips, attentions = found
        graph, made = quantize(half, sites, table.amax, skips=skips, attentions=attentions)
        rows.append(row(label, graph, f"{made.macs_share:.1%}"))
    return rows


def points_of(simple: ModelProto, label: str) -> tuple[Any, Any, Any] | None:
    """Sites, skips and attentions of a policy; None if it cannot be had."""
    policy = POLICIES[label]
    index = index_graph(simple, {})
    sites = find_sites(index, policy)
    if label == "linear layers only":
        sites = [replace(site, excluded="kept") if site.op == "Conv" and not site.excluded else site for site in sites]
    if label.startswith("one scale"):
        sites = [replace(site, one_scale=site.op == "Conv") for site in sites]
    try:
        return sites, find_skips(index, sites, policy), find_attentions(index, policy)
    except UsageError:
        return None


if __name__ == "__main__":
    main()
