"""What calibration costs, and what its graphs are good for, beside ONNX Runtime's `quantize_static` with min-max.

    python benchmarks/calibration_cost.py [--wide] [--rounds 1] [--weights F] [--write]

Cost: a model with fresh weights; drawn pictures, kept as PNG. Each side takes its turn in a process of its own. The
clock starts when all is imported and the pictures have been looked at: load the FP32 graph, calibrate, write an INT8
graph. Memory is the largest resident size of the process until then (Linux). Ours puts the Q/DQ into the FP16 graph,
which it makes first, `quantize_static` into the FP32 graph. All sides have the same number of threads.

Accuracy: hrvit_nano with trained weights, INT8 graphs from the same pictures, held-out scenes. Every graph runs on
ONNX Runtime's CPU as `OnnxRuntimeRunner` does it, with the arithmetic of the Q/DQ pairs as written. Then TensorRT-RTX
is asked for a plan of it (built, not run).

`--write` keeps the result in benchmarks/results and puts the tables into docs/int8.md. A part that was not asked for
keeps its numbers, so that `--parts --write` only writes the tables again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import onnx
import onnxruntime
from PIL import Image

from hiresvit.calibration.calibrate import calibrate
from hiresvit.calibration.collect import RunOptions
from hiresvit.calibration.observers import Method
from hiresvit.calibration.qdq import calibration_tensors, quantize
from hiresvit.calibration.sites import SITE_OPS, find_sites
from hiresvit.data.pictures import Feeds, open_pictures
from hiresvit.data.scenes import Scenes
from hiresvit.engine.build import build_engine
from hiresvit.errors import BuildError, IllegalGraphError
from hiresvit.evaluation.accuracy import evaluate
from hiresvit.export.fp16 import to_fp16

# Nothing up here imports torch: the sides import this file, too, and their memory is measured.
from hiresvit.graph.index import index_graph
from hiresvit.process import peak_rss_bytes, run_child
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.spec import ModelSpec

ROOT = Path(__file__).parents[1]
RESULTS, DOCUMENT = ROOT / "benchmarks/results/calibration_cost.json", ROOT / "docs/int8.md"
BEGIN, END = "<!-- calibration-cost: benchmarks/calibration_cost.py --write -->", "<!-- /calibration-cost -->"
NANO, WIDE = "hrvit_nano", (512, 1024)

Size = tuple[int, int]
Request = dict[str, Any]  # plain JSON for the process of a side: see `export` and `run_side`
Passed = Callable[[str], None]  # told at every moment that is measured


@dataclass(frozen=True)
class Side:
    """A way from a graph and pictures to an INT8 graph: our ``method``, or `quantize_static` if that is None.

    ``onto`` is the precision of the graph that `quantize_static` gets. ``legal`` are the options without which
    TensorRT refuses its graphs, ``layers`` leaves those layers in floating point that our policy leaves there.
    """

    label: str
    method: Method | None = None
    onto: str = "fp32"
    legal: bool = True
    layers: bool = False


SIDES = {
    "minmax": Side("ours, min-max", "minmax"),
    "entropy": Side("ours, entropy", "entropy"),
    "ort": Side("`quantize_static`, options for TensorRT"),
    "ort-layers": Side("the same with our choice of layers", layers=True),
    "ort-fp16": Side("the same with the FP16 graph", onto="fp16", layers=True),
    "ort-defaults": Side("`quantize_static`, its defaults", legal=False),
}


def main() -> None:
    args = arguments()
    if args.child:
        print(json.dumps(work(json.loads(args.child))))
        return
    from paper_numbers import with_table

    result = json.loads(RESULTS.read_text()) if args.write and RESULTS.exists() else {}
    versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="calibration-cost-") as folder:
        for part in args.parts:
            found = {"cost": cost, "accuracy": accuracy}[part](args, Path(folder))
            result[part] = {"images": args.images, "threads": args.threads, **versions, **found}
    tables = {"cost": cost_table, "accuracy": accuracy_table}
    text = "\n\n".join(table(result[part]) for part, table in tables.items() if part in result)
    print(text)
    if args.write:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
        document = DOCUMENT.read_text() if DOCUMENT.exists() else ""
        if BEGIN not in document:
            raise SystemExit(f"{DOCUMENT} has no line {BEGIN}: the result is kept, the tables are not")
        DOCUMENT.write_text(with_table(document, text, BEGIN, END))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=["cost", "accuracy"], default=["cost", "accuracy"])
    parser.add_argument("--model", default="hrvit_b1", help="whose cost is measured")
    parser.add_argument("--images", type=int, default=64, help="to calibrate with")
    parser.add_argument("--size", default="512x512", help="HxW that the cost is measured at")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["minmax", "entropy", "ort"])
    parser.add_argument("--wide", action="store_true", help="also the cost of ours, entropy, at 512x1024")
    parser.add_argument("--rounds", type=int, default=1, help="of cost; each takes minutes")
    parser.add_argument("--scenes", type=int, default=200, help="to measure accuracy on")
    parser.add_argument("--weights", type=Path, default=ROOT / "examples" / f"{NANO}.safetensors")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="keep the result and update docs/int8.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def export(name: str, imgsz: Size | None, args: argparse.Namespace, folder: Path) -> Request:
    """What `work` needs to know about a model: its graphs, and pictures. `NANO` gets its weights, others fresh ones."""
    from hiresvit import export_onnx, fold, simplify
    from hiresvit.models.create import build_model, enliven, load_model_weights, model_spec

    spec = model_spec(name, imgsz=imgsz)
    network = build_model(spec)
    if name == NANO:
        load_model_weights(network, spec, args.weights)
    else:
        enliven(network, spec)
    simple = simplify(export_onnx(fold(network), spec))[0]
    paths = {kind: folder / f"{spec.slug}-{kind}.onnx" for kind in ("fp32", "fp16")}
    onnx.save(simple, paths["fp32"])
    onnx.save(to_fp16(simple)[0], paths["fp16"])
    pictures = folder / spec.slug
    pictures.mkdir(exist_ok=True)
    drawn = open_pictures("scenes", spec.imgsz, args.images)
    for index in range(len(drawn)):
        Image.fromarray(drawn[index]).save(pictures / f"{index}.png")
    constants = {tensor.name for tensor in simple.graph.initializer}
    products = [node for node in simple.graph.node if node.op_type == "MatMul"]
    return {
        **{"spec": spec.to_json(), "images": args.images, "threads": args.threads, "pictures": str(pictures)},
        "graphs": {kind: str(path) for kind, path in paths.items()},
        "input": simple.graph.input[0].name,
        "attention": [node.name for node in products if constants.isdisjoint(node.input)],
        "kept": [site.node for site in find_sites(index_graph(simple, {})) if site.excluded],
    }


def run_side(model: Request, name: str, target: Path) -> dict[str, Any]:
    """`work` in a process of its own; ``target`` is the INT8 graph. Raises SystemExit if it fails."""
    print(f"{Path(model['pictures']).name}: {SIDES[name].label}", file=sys.stderr, flush=True)
    lines: list[str] = []  # of its stdout, the last is the answer
    request = json.dumps({**model, "side": name, "target": str(target)})
    child = run_child([__file__, "--child", request], on_line=lines.append)
    if child.returncode:
        raise SystemExit(f"{SIDES[name].label} {child.outcome}: " + "\n".join(child.stderr[-3:]))
    return dict(json.loads(lines[-1]))


def work(request: Request) -> dict[str, Any]:
    """Let a side make its INT8 graph: {moment: seconds, and peak bytes until then}."""
    spec, side = ModelSpec.from_json(request["spec"]), SIDES[request["side"]]
    feeds = Feeds(open_pictures(request["pictures"], spec.imgsz, request["images"]), spec, request["input"])
    moments: dict[str, dict[str, float]] = {}
    start = time.perf_counter()

    def passed(moment: str) -> None:
        moments[moment] = {"seconds": time.perf_counter() - start, "peak_bytes": peak_rss_bytes()}

    passed("start")
    with redirect_stdout(sys.stderr):  # a library's prints must not get between our lines
        if side.method is None:
            quantize_static(request, feeds, passed)
        else:
            ours(request, feeds, passed, side.method)
    passed("written")
    assert "torch" not in sys.modules  # its 200 MB would count
    return moments


def ours(request: Request, feeds: Feeds, passed: Passed, method: Method) -> None:
    simple = onnx.load(request["graphs"]["fp32"])
    sites = find_sites(index_graph(simple, {}))
    tensors = calibration_tensors(sites)
    data: dict[str, Any] = {"data_digest": feeds.pictures.digest, "preprocess": feeds.spec.preprocess}
    table = calibrate(simple, tensors, feeds, method=method, run=RunOptions(threads=request["threads"]), **data)
    passed("calibrated")
    onnx.save(quantize(to_fp16(simple)[0], sites, table.amax)[0], request["target"])


def quantize_static(request: Request, feeds: Feeds, passed: Passed) -> None:
    from onnxruntime import quantization

    def inputs() -> Iterator[Mapping[str, Any]]:
        yield from feeds
        passed("calibrated")

    def session_options() -> Any:
        """`quantize_static` has no argument for the number of threads."""
        options = made()
        options.intra_op_num_threads = request["threads"]
        return options

    made, side, pending = onnxruntime.SessionOptions, SIDES[request["side"]], inputs()
    options: dict[str, Any] = {}
    if side.legal:  # min-max, QDQ and symmetric INT8 weights are its defaults
        extra: dict[str, Any] = {"ActivationSymmetric": True, "QuantizeBias": False}
        extra |= {"AddQDQPairToWeight": True, "DedicatedQDQPair": True}
        extra["OpTypesToExcludeOutputQuantization"] = list(SITE_OPS)
        options = {"per_channel": True, "op_types_to_quantize": list(SITE_OPS), "extra_options": extra}
        options["nodes_to_exclude"] = request["attention"] + (request["kept"] if side.layers else [])
    reader = SimpleNamespace(get_next=lambda: next(pending, None))
    with patch.object(onnxruntime, "SessionOptions", session_options):
        quantization.quantize_static(request["graphs"][side.onto], request["target"], reader, **options)


def cost(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    height, width = (int(side) for side in args.size.split("x"))
    asked = [((height, width), side) for side in args.sides] + ([(WIDE, "entropy")] if args.wide else [])
    models = {size: export(args.model, size, args, folder) for size in dict(asked)}
    rows: list[dict[str, Any]] = [{"side": side, "imgsz": size, "rounds": []} for size, side in asked]
    for row in rows * args.rounds:
        row["rounds"].append(run_side(models[row["imgsz"]], row["side"], folder / "int8.onnx"))
    return {"model": args.model, "rows": rows}


def accuracy(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    model = export(NANO, None, args, folder)
    spec = ModelSpec.from_json(model["spec"])
    rows = [judged(spec, kind.upper(), Path(path), args) for kind, path in model["graphs"].items()]
    for name, side in SIDES.items():
        run_side(model, name, folder / "int8.onnx")
        rows.append(judged(spec, side.label, folder / "int8.onnx", args))
    return {"model": NANO, "weights": args.weights.name, "scenes": args.scenes, "rows": rows}


def judged(spec: ModelSpec, label: str, graph: Path, args: argparse.Namespace) -> dict[str, Any]:
    """A graph's mIoU in per cent on held-out scenes, and its plan or why there is none."""
    print(f"{spec.slug}: judge {label}", file=sys.stderr, flush=True)
    with OnnxRuntimeRunner(graph, threads=args.threads) as runner:
        row = {"label": label, "miou": evaluate(runner, spec, Scenes(args.scenes, spec.imgsz)).metric}
    try:
        return row | {"engine": build_engine(graph, graph.with_suffix(".plan")).to_json()}
    except (IllegalGraphError, BuildError) as error:
        return row | {"refused": str(error).splitlines()[0].removeprefix(f"{graph}: ")}


def cost_table(found: Mapping[str, Any]) -> str:
    rows = []
    for row in found["rows"]:
        cells = [SIDES[row["side"]].label, "x".join(map(str, row["imgsz"]))]
        for moment in ("calibrated", "written"):
            took = [one[moment] for one in row["rounds"]]
            cells.append(spread([one["seconds"] for one in took], "s", 0))
            cells.append(spread([one["peak_bytes"] / 2**30 for one in took], "GiB", 2))
        rows.append(cells)
    return markdown(found, ["size", "calibrated", "peak", "graph written", "peak"], rows)


def accuracy_table(found: Mapping[str, Any]) -> str:
    head, rows = [f"mIoU, {found['scenes']} scenes", "below FP32", "kernels of the plan"], []
    for row in found["rows"]:
        lost = round(found["rows"][0]["miou"] - row["miou"], 2) + 0.0  # no -0.00
        cells = [row["label"], f"{row['miou']:.2f} %", f"{lost:.2f}"]
        if engine := row.get("engine"):
            products = engine["precision"]
            cells += [str(engine["kernel_total"]), f"{products.get('int8', 0)} of {sum(products.values())}"]
            cells.append(f"{engine['attentions_fused']} of {engine['attentions_total']}")
        else:
            cells += [f"none: {row['refused'].partition('. ')[0].replace('|', '/')}", "", ""]
        rows.append(cells)
    return markdown(found, [*head, "products in INT8", "attentions fused"], rows)


def markdown(found: Mapping[str, Any], head: list[str], rows: list[list[str]]) -> str:
    first = f"{found['model']}, {found['images']} pictures"
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ([first, *head], ["---"] * len(rows[0]), *rows))


def spread(values: list[float], unit: str, digits: int) -> str:
    """The median, and both ends if there are several."""
    ends = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.{digits}f} {unit}{ends}"


if __name__ == "__main__":
    main()
