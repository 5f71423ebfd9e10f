"""What the FP16 graph's form for TensorRT saves: bytes, kernels and activation memory of the plan, by kind of place.

    python benchmarks/tensorrt_form.py [--models hrvit_b1 ...] [--write]

Default tasks at the sizes below, fresh weights, TensorRT-RTX without a GPU: nothing is run, plans are read. `plain` is
the FP16 graph as `to_fp16` makes it, `form` what an export keeps, and each row below it that form without one kind of
place (`hiresvit.export.tensorrt.SITES`). `products` is the part of the bytes that convolutions, matrix products and
attentions move: each is a kernel, so nothing that is written around them goes below it. `dense` is the form of a graph
whose depthwise convolutions are composed with the 1x1 behind them: fewer bytes, more products. ``least`` is the least
time on a board, where each kernel takes the longer of its bytes and its products (`hiresvit.engine.roofline`), and
``build`` the seconds that TensorRT-RTX took, of which many small nodes cost it more. Two to five minutes a model.
`--write` updates docs/performance.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper
from paper_numbers import with_table

from hiresvit.device.boards import find_board
from hiresvit.device.plan import read_sidecar
from hiresvit.engine.build import build_engine
from hiresvit.engine.kernels import PRODUCT_KINDS
from hiresvit.engine.roofline import find_bound
from hiresvit.engine.traffic import read_layers, traffic
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.onnx import export_onnx
from hiresvit.export.simplify import simplify
from hiresvit.export.tensorrt import SITES, for_tensorrt
from hiresvit.graph.index import GraphIndex, attributes, index_graph
from hiresvit.models.create import build_model, enliven, model_spec
from hiresvit.models.fold import fold

SIZES = {
    **{"hrvit_b1": 512, "hrvit_nano": 512, "lrformer_t": 512, "lrformer_s": 512},
    **{"mixformer_b1": 224, "hiri_vit_s": 448},
}
DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- tensorrt-form: benchmarks/tensorrt_form.py --write -->", "<!-- /tensorrt-form -->"
BOARDS = ("orin-nx", "thor", "h100")
COLUMNS = (
    *("model", "graph", "activations moved", "of them products", "kernels", "activation memory"),
    *(f"least, {', '.join(BOARDS)}", "build"),
)
HEAD = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]


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
    if (composed := dense(plain)) != plain:
        yield f"| | dense | {measured(for_tensorrt(composed))} |"


def dense(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with each depthwise convolution and the 1x1 that alone reads it as one convolution, exact but for FP16."""
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    index, gone = index_graph(made, {}), []
    for node in made.graph.node:
        first = depthwise_in_front(index, node)
        if first is None:
            continue
        weights = [index.array(name) for conv in (first, node) for name in conv.input[1:]]
        taps, shift, mix, bias = (np.asarray(values, np.float64) for values in weights)
        mix = mix[:, :, 0, 0]
        values = (np.einsum("oi,iyx->oiyx", mix, taps[:, 0]), bias + mix @ shift)
        names = [f"{node.name}/dense_{number}" for number in range(2)]
        made.graph.initializer.extend(
            numpy_helper.from_array(one.astype(np.float16), name) for one, name in zip(values, names, strict=True)
        )
        gone.append(first)
        node.CopyFrom(
            helper.make_node(
                "Conv", [first.input[0], *names], node.output, node.name, pads=[1] * 4, kernel_shape=[3, 3]
            )
        )
    for node in gone:
        made.graph.node.remove(node)
    return made


def depthwise_in_front(index: GraphIndex, node: NodeProto) -> NodeProto | None:
    """The 3x3 depthwise convolution of stride 1 that a 1x1 convolution alone reads; both have a bias."""
    first = index.producer.get(node.input[0]) if node.op_type == "Conv" and len(node.input) == 3 else None
    if first is None or first.op_type != "Conv" or len(first.input) != 3 or len(index.reads(first.output[0])) != 1:
        return None
    taps, mix = (index.array(conv.input[1]) for conv in (first, node))
    if taps is None or mix is None:
        return None
    strides = {one for conv in (first, node) for one in attributes(conv).get("strides", ())}
    fits = taps.shape[1:] == (1, 3, 3) and mix.shape[1:] == (len(taps), 1, 1) and strides <= {1}
    return first if fits and list(attributes(first).get("pads", ())) == [1, 1, 1, 1] else None


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
    least = ", ".join(f"{find_bound(moved, find_board(name)).bound_ms:.2f}" for name in BOARDS)
    built = f"{report.activation_bytes / 1e6:.1f} MB | {least} ms | {report.build_seconds:.1f} s"
    return f"{sizes} | {report.kernel_total} | {built}"


if __name__ == "__main__":
    main()
