"""What a frame costs beside the network: C++ and Python, the usual way in PyTorch, and an older commit's Predictor.

    PYTHONPATH=tests/cpp python benchmarks/frame.py [--rounds 21] [--threads 2] [--base 5050879] [--library PATH]

A street of 1080x1920, HRViT-b1 trained on the scenes at 512x1024, contract tensor. All sides run the same graph on ONNX
Runtime, in turn in one run, each in its own order every round; reading the file counts for nobody. The first run makes
the bundles (minutes, in --folder) and builds cpp/. The reference resizes with torch's interpolate, normalises in torch,
and answers with `interpolate(...).argmax(1)`. Then a table of what each contract costs in nodes, kernels, memory and
bytes per frame.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from ctypes import Structure, byref, c_double, c_int32, c_size_t, sizeof
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from cpp_engine import CEngine, label_answer, picture

from hiresvit.bundle.folder import read_bundle
from hiresvit.data.image import load_image
from hiresvit.runtime.onnxruntime_runner import open_session
from hiresvit.runtime.open import open_runner
from hiresvit.runtime.picture_runner import PictureRunner
from hiresvit.spec import TensorSpec
from hiresvit.workflows.open import open_source

ROOT = Path(__file__).parents[1]
SIZE = (1080, 1920)
HEAD = "tensor, logits of the head"
CONTRACTS = {
    "tensor": [],
    HEAD: ["--logits", "head"],
    "image": ["--contract", "image"],
    "camera 1080x1920": ["--contract", "camera", "1080x1920"],
    "camera 1080x1920 nv12": ["--contract", "camera", "1080x1920", "--input", "nv12"],
}
PARTS = ("prepare", "network", "labels")
Times = tuple[float, float, float]
"""Milliseconds of each of `PARTS`."""

# What answers in the older commit's tree: a line in, the times of its parts out.
BEFORE = """
import json, sys, time
from pathlib import Path
from hiresvit.data.image import load_image
from hiresvit.data.preprocess import preprocess
from hiresvit.runtime.onnxruntime_runner import open_session
from hiresvit.runtime.open import open_runner
from hiresvit.runtime.predictor import Predictor
from hiresvit.spec import ModelSpec, PreprocessSpec
graph, image, threads, spec = sys.argv[1:]
spec = json.loads(spec)
keep = ("resize", "interpolation", "crop_pct", "mean", "std", "filter", "rounding", "divisor")
spec["preprocess"] = {name: spec["preprocess"][name] for name in keep}
spec = ModelSpec.from_json(spec)
picture = load_image(Path(image))
network = 0.0
class Timed:
    def __init__(self, runner):
        self.runner, self.inputs, self.outputs = runner, runner.inputs, runner.outputs
    def __call__(self, feeds):
        global network
        began = time.perf_counter()
        found = self.runner(feeds)
        network = time.perf_counter() - began
        return found
predictor = Predictor(Timed(open_runner(Path(graph), threads=int(threads))), spec)
print("ready", flush=True)
for _ in sys.stdin:
    began = time.perf_counter()
    preprocess(picture, spec.preprocess, spec.imgsz)
    prepare = time.perf_counter() - began
    began = time.perf_counter()
    predictor.predict(picture)
    whole = time.perf_counter() - began
    print(json.dumps([1e3 * prepare, 1e3 * network, 1e3 * (whole - prepare - network)]), flush=True)
"""


class CTimes(Structure):
    """hiresvit_times."""

    _fields_ = (
        ("struct_size", c_size_t),
        *((name, c_double) for name in ("prepare", "network", "answer")),
        ("on_gpu", c_int32),
        *((name, c_double) for name in ("enqueue", "h2d", "compute", "d2h")),
    )


def make_bundles(folder: Path, weights: Path) -> dict[str, Path]:
    """The bundles of every contract, made where they are not there yet."""
    bundles = {}
    for name, words in CONTRACTS.items():
        bundles[name] = folder / name.replace(",", "").replace(" ", "-")
        if not bundles[name].exists():
            print(f"export: {name}", flush=True)
            options = ["--weights", weights, "--imgsz", "512x1024", "--fp16", "--images", "1", "--no-latency"]
            command = ["export", "hrvit_b1", *options, *words, "-o", bundles[name]]
            subprocess.run([sys.executable, "-m", "hiresvit", *map(str, command)], check=True, capture_output=True)
    return bundles


def street() -> Any:
    """The street of examples/, at the camera's size."""
    from PIL import Image

    return np.asarray(Image.fromarray(load_image(ROOT / "examples" / "street.jpg")).resize(SIZE[::-1]))


def by_cpp(build: Path, bundle: Path, library: Path, image: Any, threads: int) -> Callable[[], Times]:
    engine = CEngine(build, bundle, threads=threads, library=library)
    labels = np.empty(SIZE, np.uint8)
    given, answer = picture([np.ascontiguousarray(image)]), label_answer(labels)

    def frame() -> Times:
        engine.call("run", engine.handle, byref(given), byref(answer))
        times = CTimes(sizeof(CTimes))
        engine.call("last_times", engine.handle, byref(times))
        return times.prepare, times.network, times.answer

    return frame


def by_python(bundle: Path, image: Any, threads: int) -> Callable[[], Times]:
    source = open_source(str(bundle), graph="cpu", threads=threads)
    assert source.spec is not None
    network = PictureRunner(source.runner, source.spec, source.contract)  # what `Predictor` calls

    def frame() -> Times:
        began = time.perf_counter()
        prepared = network.prepare(image)
        ready = time.perf_counter()
        outputs = network.run(prepared)
        ran = time.perf_counter()
        network.read(prepared, outputs)
        end = time.perf_counter()
        return 1e3 * (ready - began), 1e3 * (ran - ready), 1e3 * (end - ran)

    return frame


def by_torch(bundle: Path, image: Any, threads: int) -> Callable[[], Times]:
    manifest = read_bundle(bundle).manifest
    spec, runner = manifest.spec, open_runner(bundle / "cpu.onnx", threads=threads)
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.preprocess.mean, spec.preprocess.std))
    [taken], [given] = runner.inputs, runner.outputs
    assert isinstance(taken, TensorSpec)

    def frame() -> Times:
        began = time.perf_counter()
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
        small = F.interpolate(pixels, size=spec.imgsz, mode="bilinear", align_corners=False)
        feed = ((small / 255 - mean) / std).numpy()
        prepared = time.perf_counter()
        logits = runner({taken.name: feed})[given.name]
        ran = time.perf_counter()
        large = F.interpolate(torch.from_numpy(logits), size=SIZE, mode="bilinear", align_corners=False)
        large.argmax(1).byte().numpy()
        end = time.perf_counter()
        return 1e3 * (prepared - began), 1e3 * (ran - prepared), 1e3 * (end - ran)

    return frame


def by_base(tree: Path, bundle: Path, image: Path, threads: int) -> Callable[[], Times]:
    spec = json.dumps(read_bundle(bundle).manifest.spec.to_json())
    child = subprocess.Popen(
        [sys.executable, "-c", BEFORE, str(bundle / "cpu.onnx"), str(image), str(threads), spec],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tree)},
        cwd=tree,  # where Python looks first
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.readline()
    source, sink = child.stdout, child.stdin

    def frame() -> Times:
        sink.write("\n")
        sink.flush()
        prepare, network, labels = json.loads(source.readline())
        return prepare, network, labels

    return frame


def measure(sides: dict[str, Callable[[], Times]], rounds: int) -> None:
    """Print the median of each part, and of each frame without its network over that of C++ and the older commit."""
    for frame in sides.values():
        frame()
        frame()
    times: dict[str, list[Times]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name in random.sample(list(sides), len(sides)):
            time.sleep(0.05)  # until no thread of the last side spins
            times[name].append(sides[name]())
    print(f"\nmilliseconds, median of {rounds} rounds (10th to 90th percentile)")
    print(f"{'side':10}" + "".join(f"{part:>26}" for part in (*PARTS, "frame", "frame - network")))
    for name, rows in times.items():
        parts = [[row[k] for row in rows] for k in range(len(PARTS))]
        parts += [[sum(row) for row in rows], [row[0] + row[2] for row in rows]]
        print(f"{name:10}" + "".join(f"{_spread(values):>26}" for values in parts))
    for mine, other, what in (("C++", "Python", sum), ("Python", "before", _tail), ("C++", "PyTorch", _tail)):
        ratios = [what(a) / what(b) for a, b in zip(times[mine], times[other], strict=True)]
        about = "frame" if what is sum else "frame - network"
        print(f"{about}, {mine} / {other}: {_spread(ratios, 3)}")


def _tail(row: Times) -> float:
    return row[0] + row[2]


def _spread(values: list[float], digits: int = 1) -> str:
    tenths = statistics.quantiles(values, n=10)
    return f"{statistics.median(values):.{digits}f} ({tenths[0]:.{digits}f} to {tenths[-1]:.{digits}f})"


def engine_overhead(build: Path, folder: Path, library: Path) -> None:
    """Print what the C++ engine's network step takes beside the bare session with bound buffers, on a small network."""
    bundle = folder / "small"
    if not bundle.exists():
        options = ["--weights", ROOT / "examples" / "hrvit_nano.safetensors", "--imgsz", "64x64", "--images", "1"]
        command = ["export", "hrvit_nano", *options, "--no-latency", "-o", bundle]
        subprocess.run([sys.executable, "-m", "hiresvit", *map(str, command)], check=True, capture_output=True)
    session = open_session(str(bundle / "cpu.onnx"), threads=1)
    binding = session.io_binding()
    feed = np.zeros((1, 3, 64, 64), np.float32)
    binding.bind_cpu_input("image", feed)
    binding.bind_output("logits")
    engine = CEngine(build, bundle, threads=1, library=library)
    labels, times = np.empty((64, 64), np.uint8), CTimes(sizeof(CTimes))
    given, answer = picture([np.zeros((64, 64, 3), np.uint8)]), label_answer(labels)
    apart = []
    for _ in range(300):
        began = time.perf_counter()
        session.run_with_iobinding(binding)
        bare = 1e3 * (time.perf_counter() - began)
        engine.call("run", engine.handle, byref(given), byref(answer))
        engine.call("last_times", engine.handle, byref(times))
        apart.append(times.network - bare)
    print(f"\nC++ engine's network step less the bare session call, hrvit_nano 64x64: {_spread(apart, 3)} ms")


def contract_costs(bundles: dict[str, Path]) -> None:
    """Print what each contract costs in the graph and in the plan."""
    heads = (("nodes fp32", 11), ("fp16", 7), ("kernels", 9), ("activations MB", 16), ("bytes in", 12), ("out", 12))
    print(f"\n{'contract':24}" + "".join(f"{head:>{width}}" for head, width in heads))
    for name, folder in bundles.items():
        manifest = read_bundle(folder).manifest
        engine = manifest.engines.get("fp16", {})
        nodes = [manifest.graphs[stage]["nodes"] for stage in ("simplified", "fp16")]
        sides = [sum(map(_bytes, side)) for side in (manifest.inputs, manifest.outputs)]
        kernels, memory = engine.get("kernel_total", "-"), engine.get("activation_bytes", 0) / 1e6
        print(f"{name:24}{nodes[0]:11}{nodes[1]:7}{kernels:>9}{memory:16.1f}{sides[0]:12,}{sides[1]:12,}")


def _bytes(tensor: TensorSpec) -> int:
    return int(np.prod([int(n) for n in tensor.shape])) * np.dtype(tensor.dtype).itemsize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="hrvit_b1_scenes.safetensors")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "hiresvit-frame"))
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base", default="5050879", help="the commit with the older Predictor")
    [library] = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*.*.*")
    parser.add_argument("--library", type=Path, default=library, help="ONNX Runtime's, for C++")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.folder.mkdir(parents=True, exist_ok=True)
    bundles = make_bundles(asked.folder, asked.weights)
    subprocess.run(["make", "cpp"], cwd=ROOT, check=True, capture_output=True)
    tree = asked.folder / f"tree-{asked.base}"
    if not tree.exists():
        archive = subprocess.run(["git", "archive", asked.base, "hiresvit"], cwd=ROOT, capture_output=True, check=True)
        tree.mkdir()
        subprocess.run(["tar", "-x"], cwd=tree, input=archive.stdout, check=True)
    from PIL import Image

    image, photo = street(), asked.folder / "street.png"
    Image.fromarray(image).save(photo)
    threads, build = asked.threads, ROOT / "cpp" / "build"
    for name in ("tensor", HEAD):
        sides = {
            "C++": by_cpp(build, bundles[name], asked.library, image, threads),
            "Python": by_python(bundles[name], image, threads),
            "PyTorch": by_torch(bundles[name], image, threads),
            "before": by_base(tree, bundles[name], photo, threads),
        }
        print(f"\n== {name}", flush=True)
        measure(sides, asked.rounds)
    engine_overhead(build, asked.folder, asked.library)
    contract_costs(bundles)


if __name__ == "__main__":
    main()
