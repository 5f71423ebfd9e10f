"""MixFormer's heads of 4 and 8 channels as they are, and filled with zeros to the 16 that TensorRT fuses.

    python benchmarks/narrow_heads.py [--models mixformer_b0 mixformer_b1] [--sizes 224 512] [--write]

Nodes of the simplified graph, kernels and fused attentions of the FP16 plan (built on a CPU, not run), and ONNX Runtime
on one thread, both forms in turn. `--write` puts the table into docs/mixformer.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from paper_numbers import with_table

from hiresvit import build_engine, export_onnx, fold, open_runner, simplify, to_fp16
from hiresvit.evaluation.latency import latency_report
from hiresvit.export.tensorrt import for_tensorrt
from hiresvit.models import mixformer_block
from hiresvit.models.create import build_model, enliven, model_spec

DOCUMENT = Path(__file__).parents[1] / "docs" / "mixformer.md"
BEGIN, END = "<!-- narrow-heads: benchmarks/narrow_heads.py --write -->", "<!-- /narrow-heads -->"
FORMS = {"as is": 1, "filled": mixformer_block.FUSED_HEAD_DIM}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mixformer_b0", "mixformer_b1"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 512])
    parser.add_argument("--write", action="store_true", help="update docs/mixformer.md")
    args = parser.parse_args()
    lines = [
        "| model | size | head | nodes, as is / filled | kernels | attentions fused | CPU ms, ratio (p10 to p90) |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(cells(name, size))} |" for name in args.models for size in args.sizes]
    text = "\n".join(lines)
    if args.write:
        DOCUMENT.write_text(with_table(DOCUMENT.read_text(), text, BEGIN, END))
    print(text)


def cells(name: str, size: int) -> list[str]:
    spec = model_spec(name, "classify", size)
    model = build_model(spec)
    enliven(model, spec)
    image = {"image": np.random.default_rng(0).standard_normal((1, 3, size, size), dtype=np.float32)}
    forms: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides: dict[str, Callable[[], object]] = {}
        for form, width in FORMS.items():
            with patch.object(mixformer_block, "FUSED_HEAD_DIM", width):
                graph, report = simplify(export_onnx(fold(model), spec))
            paths = {kind: Path(folder, f"{form} {kind}.onnx") for kind in ("fp32", "fp16")}
            paths["fp32"].write_bytes(graph.SerializeToString())
            paths["fp16"].write_bytes(for_tensorrt(to_fp16(graph)[0]).SerializeToString())
            forms[form] = (report.nodes_after, build_engine(paths["fp16"], Path(folder, "plan")))
            sides[form] = partial(stack.enter_context(open_runner(paths["fp32"], threads=1)), image)
        measured = latency_report(sides, min_s=3.0)
    milliseconds = " / ".join(f"{measured['sides'][form]['median_ms']:.1f}" for form in FORMS)
    [(_, ratio)] = measured["ratios"].items()
    head = mixformer_block.HeadProjection
    widths = {m.head_dim for m in model.modules() if isinstance(m, head)}
    return [
        *(name, f"{size}x{size}", "/".join(map(str, sorted(widths)))),
        " / ".join(str(nodes) for nodes, _ in forms.values()),
        " / ".join(str(engine.kernel_total) for _, engine in forms.values()),
        " / ".join(f"{engine.attentions_fused} of {engine.attentions_total}" for _, engine in forms.values()),
        f"{milliseconds}, {ratio['median']:.2f} ({ratio['p10']:.2f} to {ratio['p90']:.2f})",
    ]


if __name__ == "__main__":
    main()
