"""Whether Qualcomm's compiler gives the same bytes again for the same graph, and the same answers.

    python benchmarks/htp_builds.py [--models hrvit_nano lrformer_t] [--builds 3] [--size 128]

Each network has fresh weights and is compiled in FP32 form for an SM8650, as often as asked, each time in a process of
its own. Printed are the bytes of a context that differ from the first one's, and whether the answers do for one drawn
scene, to the last bit. A picture takes the emulator up to a minute.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx

from hiresvit import create_model, export_onnx, fold, simplify
from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import sample_image
from hiresvit.device.chips import CHIPS
from hiresvit.device.context import context_files
from hiresvit.engine.htp import build_context
from hiresvit.models.create import enliven
from hiresvit.runtime.qnn_runner import QnnRunner
from hiresvit.spec import ModelSpec

CHIP = CHIPS["sm8650"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["hrvit_nano", "lrformer_t"])
    parser.add_argument("--builds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    args = parser.parse_args()
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            print(
                f"{name} at {args.size}x{args.size}: {measure(name, args.size, args.builds, Path(folder))}", flush=True
            )


def measure(name: str, size: int, builds: int, folder: Path) -> str:
    """A sentence about the builds of one network."""
    model = create_model(name, imgsz=(size, size))
    spec = model.spec
    assert isinstance(spec, ModelSpec)
    enliven(model, spec)
    graph = folder / "graph.onnx"
    onnx.save(simplify(export_onnx(fold(model), spec))[0], graph)
    feed = {"image": example_input(sample_image(0, size, size), spec.preprocess, spec.imgsz)}
    binaries, answers = [], []
    for number in range(builds):
        context = folder / f"build{number}.onnx"
        build_context(graph, context, CHIP)
        binaries.append(np.fromfile(context_files(context)[1], np.uint8))
        with QnnRunner(context) as runner:
            answers.append(next(iter(runner(feed).values())))
    first = binaries[0]
    apart = [int((one != first).sum()) if one.size == first.size else -1 for one in binaries[1:]]
    same = all(np.array_equal(answers[0], one) for one in answers[1:])
    return f"{first.size:,} bytes, {apart} of them differ (-1: another size), answers {'equal' if same else 'DIFFER'}"


if __name__ == "__main__":
    main()
