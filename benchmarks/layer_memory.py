"""What `hiresvit compare --layers` takes of memory at a size where all activations together would not fit.

    python benchmarks/layer_memory.py [--model hrvit_b1] [--size 1024x2048] [--folder DIR] [--pytorch]

Exports the model with fresh weights (kept in --folder, and taken from there when it is there), and compares its FP32
graph with the one for the CPU at every module in a process of its own, whose largest resident set is printed. --pytorch
compares the PyTorch model with the FP32 graph in place of that.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx

from hiresvit import export_onnx, fold
from hiresvit.export.contract import stamp
from hiresvit.export.cpu import for_cpu
from hiresvit.graph.index import index_graph
from hiresvit.graph.modules import find_boundaries
from hiresvit.models.create import build_model, enliven, model_spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hrvit_b1")
    parser.add_argument("--size", default="1024x2048")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--pytorch", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = args.folder or Path(folder)
        make(args.model, args.size, place)
        measure(args, place)


def make(name: str, size: str, folder: Path) -> None:
    """The graphs, in a process of its own: what it takes is not what is measured."""
    paths = [folder / f"{stage}.onnx" for stage in ("fp32", "cpu")]
    if all(path.exists() for path in paths) or os.fork():
        if not all(path.exists() for path in paths):
            os.wait()
        return
    height, width = map(int, size.split("x"))
    spec = model_spec(name, imgsz=(height, width))
    model = build_model(spec)
    enliven(model, spec)
    single = export_onnx(fold(model), spec)
    other = for_cpu(single)
    stamp(other, spec, "cpu")
    for path, graph in zip(paths, (single, other), strict=True):
        onnx.save(graph, path)
    os._exit(0)


def measure(args: argparse.Namespace, folder: Path) -> None:
    """Seconds, the largest resident set, and what all tensors at the boundaries take together."""
    single, other = str(folder / "fp32.onnx"), str(folder / "cpu.onnx")
    pair = [args.model, single, "--imgsz", args.size] if args.pytorch else [single, other]
    command = [sys.executable, "-m", "hiresvit", "compare", *pair, "--layers", "--images", "1", "--json"]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        text = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    found = json.loads(text)["layers"]
    sizes = [boundary.size or 0 for boundary in find_boundaries(index_graph(onnx.load(single), {}))]
    first = found["first"]
    print(
        f"{args.model} at {args.size}, {' and '.join(pair[:2])}: {len(found['modules'])} modules in"
        f" {time.monotonic() - began:.0f} s, at most {usage.ru_maxrss / 2**20:.2f} GiB resident;"
        f" their tensors are {4 * sum(sizes) / 2**30:.2f} GiB a side; first beyond {found['tolerance']:g} dB:"
        f" {first and first['module']}"
    )


if __name__ == "__main__":
    main()
