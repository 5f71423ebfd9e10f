"""What the FP16 graph's form for TensorRT saves: bytes, kernels and activation memory of the plan, by kind of place.

    python benchmarks/tensorrt_form.py [--models hrvit_b1 ...] [--write]

Default tasks at the sizes below, fresh weights, TensorRT-RTX without a GPU: nothing is run, plans are read. `plain` is
the FP16 graph as `to_fp16` makes it, `form` what an export keeps, and each row below it that form without one kind of
place (`hiresvit.export.tensorrt.SITES`). `products` is the part of the bytes that convolutions, matrix products and
attentions move: each is a kernel, so nothing that is written around them goes below it. Two to three minutes a model.
`--write` updates docs/performance.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from paper_numbers import with_table

from hiresvit.device.plan import read_sidecar
from hiresvit.engine.build import build_engine
from hiresvit.engine.kernels import PRODUCT_KINDS
from hiresvit.engine.traffic import read_layers, traffic
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.onnx import export_onnx
from hiresvit.export.simplify import simplify
from hiresvit.export.tensorrt import SITES, for_tensorrt
from hiresvit.models.create import build_model, enliven, model_spec
from hiresvit.models.fold import fold

SIZES = {"hrvit_b1": 512, "hrvit_nano": 512, "lrformer_t": 512, "mixformer_b1": 224, "hiri_vit_s": 448}
DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- tensorrt-form: benchmarks/tensorrt_form.py --write -->", "<!-- /tensorrt-form -->"
HEAD = [
    "| model | graph | activations moved | of them products | kernels | activation memory |",
    "|---|---|---|---|---|---|",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--write", action="store_true", help="update docs/performance.md; with all models")
    args = parser.parse_args()
    lines = list(HEAD)
    for name in args.models:
        for line in rows(name):
            print(line, flush=True)
            lines.append(line)
    if args.write:
        DOCUMENT.write_text(with_table(DOCUMENT.read_text(), "\n".join(lines), BEGIN, END))


def rows(name: str) -> Iterator[str]:
    """A line for each graph of a model."""
    spec = model_spec(name, imgsz=SIZES[name])
    model = build_model(spec)
    enliven(model, spec)
    plain, _ = to_fp16(simplify(export_onnx(fold(model), spec))[0])
    form = for_tensorrt(plain)
    yield f"| {name}, {SIZES[name]} | plain | {measured(plain)} |"
    yield f"| | form | {measured(form)} |"
    for kind in SITES:
        less = for_tensorrt(plain, [other for other in SITES if other != kind])
        if less != form:
            yield f"| | without {kind} | {measured(less)} |"


def measured(graph: onnx.ModelProto) -> str:
    """The cells of a graph's plan."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.onnx")
        path.write_bytes(graph.SerializeToString())
        plan = path.with_suffix(".plan")
        report = build_engine(path, plan)
        sidecar = read_sidecar(plan)
    assert sidecar is not None
    moved = traffic(*read_layers(sidecar.layers))
    products = sum(row.bytes.activations for row in moved.kernels if row.kind in PRODUCT_KINDS)
    sizes = f"{moved.activation_bytes / 1e6:.1f} MB | {products / 1e6:.1f} MB"
    return f"{sizes} | {report.kernel_total} | {report.activation_bytes / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
