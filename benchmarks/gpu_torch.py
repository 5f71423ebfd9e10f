"""What folding is worth in PyTorch itself: the folded model beside the trained form, in FP16, on a GPU.

    python benchmarks/gpu_torch.py [--weights FOLDER] [--models NAME ...] [--batches 1 64] [--output FILE.json]
    python benchmarks/gpu_torch.py --device cpu --tiny

For each network and batch eight sides are called in turn in one run (`measure_latency`): the form that is trained, with
the modules, the order and the weights of the authors' checkpoints, and the form that is deployed (`fold`); each eager
and as a CUDA graph, in NCHW and in NHWC (channels_last). A call is timed on the host from the launch to the end of the
GPU's work; input and output stay on the GPU. With `--weights` (hrvit_b1_scenes.safetensors and
lrformer_t_scenes.safetensors) the folded model in half precision is also held against the trained form in float64, on
held-out scenes.

A side that does not fit the GPU's memory is null. On a CPU there are no graphs and no half precision: `--tiny` only
shows that the script runs (tests/test_gpu_torch.py). In this form it has not run on a GPU.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import Scenes
from hiresvit.evaluation.latency import Side, measure_latency
from hiresvit.evaluation.parity import compare_arrays
from hiresvit.evaluation.statistics import LatencyStats, ratio
from hiresvit.export.deployed import Deployed
from hiresvit.files import atomic_path
from hiresvit.models.create import build_model, load_model_weights, model_spec
from hiresvit.models.fold import fold
from hiresvit.spec import ModelSpec, Task

NANO = Path(__file__).parents[1] / "examples" / "hrvit_nano.safetensors"
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


@dataclass(frozen=True)
class Case:
    """A network at a size, and the file of its trained weights, if there are any."""

    name: str
    task: Task
    side: int
    weights: str | None = None

    @property
    def spec(self) -> ModelSpec:
        return model_spec(self.name, self.task, (self.side, self.side))


CASES = (
    Case("hrvit_b1", "classify", 224),
    Case("hrvit_b1", "segment", 512, "hrvit_b1_scenes.safetensors"),
    Case("lrformer_t", "segment", 512, "lrformer_t_scenes.safetensors"),
    Case("mixformer_b1", "classify", 224),
    Case("hiri_vit_s", "classify", 448),
)
TINY = (Case("hrvit_nano", "segment", 64, NANO.name),)


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("PyTorch finds no NVIDIA GPU; --device cpu --tiny shows that the script runs", file=sys.stderr)
        return 6
    cases = [case for case in (TINY if args.tiny else CASES) if not args.models or case.name in args.models]
    folder = NANO.parent if args.tiny else args.weights
    found: dict[str, Any] = {"environment": environment(args.device), "latency": [], "agreement": []}
    for case in cases:
        for batch in args.batches:
            rows = measure(case, batch, args.device, args.min_s)
            found["latency"] += rows
            print(f"\n{table(rows)}", flush=True)
    for case in cases if folder else ():
        if case.weights:
            found["agreement"].append(agreement(case, folder / case.weights, args.device, args.scenes))
            print(found["agreement"][-1], flush=True)
    if args.output:
        with atomic_path(args.output) as temporary:
            temporary.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small network, to see that the script runs")
    parser.add_argument("--models", nargs="+", help="only these; default: all")
    parser.add_argument("--weights", type=Path, help="the folder with trained weights")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--min-s", type=float, default=1.0, help="seconds for each side")
    parser.add_argument("--scenes", type=int, default=96, help="held-out scenes that FP16 is held against float64 on")
    parser.add_argument("--output", type=Path, help="write the numbers there as JSON")
    return parser


def environment(device: str) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "gpu": gpu}


def measure(case: Case, batch: int, device: str, min_s: float) -> list[dict[str, Any]]:
    """A row for each side, the trained form's first; ``ratio`` is how many times as fast as that one it is, in turn."""
    dtype = torch.float16 if device == "cuda" else torch.float32
    model = build_model(case.spec).eval()
    forms = {"trained": model, "folded": fold(model)}
    modes = ("eager", "graph") if device == "cuda" else ("eager",)
    sides: dict[tuple[str, ...], Side] = {}
    rows: list[dict[str, Any]] = []
    pool = torch.cuda.graph_pool_handle() if device == "cuda" else None
    for layout, memory in LAYOUTS.items():
        image = torch.randn(batch, 3, case.side, case.side, device=device, dtype=dtype).to(memory_format=memory)
        for form, module in forms.items():
            network = Deployed(copy.deepcopy(module), case.spec).to(device, dtype)
            network = network.to(memory_format=memory)  # type: ignore[call-overload]
            for mode in modes:
                try:
                    run = prepared(network, image, mode, pool)
                except torch.OutOfMemoryError:
                    rows.append(_row(case, batch, (form, layout, mode), None, None))
                    continue
                sides[form, layout, mode] = Side(run, batch)
    stats = measure_latency({" ".join(key): side for key, side in sides.items()}, min_s=min_s, max_s=4 * min_s)
    for key in sides:
        base = stats.get(" ".join(("trained", *key[1:])))
        rows.append(_row(case, batch, key, stats[" ".join(key)], base))
    del sides
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return rows


def prepared(network: nn.Module, image: Tensor, mode: str, pool: Any) -> Callable[[], None]:
    """What calls a network once and waits for the end; as a CUDA graph it is recorded here, after it has run."""
    finish = torch.cuda.synchronize if image.is_cuda else _nothing

    def eager() -> None:
        with torch.inference_mode():
            network(image)
        finish()

    if mode == "eager":
        eager()
        return eager
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with (
        torch.cuda.stream(side),
        torch.inference_mode(),
    ):  # what PyTorch puts off until a first call must not be recorded
        for _ in range(3):
            network(image)
    torch.cuda.current_stream().wait_stream(side)
    recorded = torch.cuda.CUDAGraph()
    # One pool for all graphs: they run one after the other, and nobody reads what another one has overwritten.
    with torch.inference_mode(), torch.cuda.graph(recorded, pool=pool):
        network(image)

    def replay(_held: object = (network, image)) -> None:  # what a graph reads must stay
        recorded.replay()
        finish()

    return replay


def agreement(case: Case, weights: Path, device: str, scenes: int) -> dict[str, Any]:
    """The folded model in half precision (float32 on a CPU) against the trained form in float64, on held-out scenes."""
    spec = case.spec
    model = build_model(spec)
    load_model_weights(model, spec, weights)
    dtype = torch.float16 if device == "cuda" else torch.float32
    test = Deployed(fold(model), spec).to(device, dtype)
    exact = Deployed(model.eval(), spec).to(device, torch.float64)
    pictures, found = Scenes(scenes, spec.imgsz), []
    for index in range(scenes):
        image = torch.from_numpy(example_input(pictures[index].image, spec.preprocess, spec.imgsz)).to(device)
        with torch.inference_mode():
            logits = [
                network(image.to(kind)).cpu().numpy() for network, kind in ((exact, torch.float64), (test, dtype))
            ]
        found.append(compare_arrays(logits[0], logits[1], "segment"))
    equal = [one.agreement for one in found if one.agreement is not None]
    return {
        "model": case.name,
        "size": case.side,
        "dtype": str(dtype).removeprefix("torch."),
        "scenes": scenes,
        "agreement": sum(equal) / len(equal),
        "least_agreement": min(equal),
        "least_sqnr_db": min(one.sqnr_db for one in found),
    }


def _row(
    case: Case, batch: int, key: tuple[str, ...], stats: LatencyStats | None, base: LatencyStats | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"model": case.name, "task": case.task, "size": case.side, "batch": batch}
    row |= dict(zip(("form", "layout", "mode"), key, strict=True))
    row |= {"median_ms": None, "p99_ms": None, "throughput": None, "ratio": None, "samples_ns": []}
    if stats is not None:
        row |= {name: getattr(stats, name) for name in ("median_ms", "p99_ms", "throughput")}
        row["samples_ns"] = list(stats.samples_ns)
        row["ratio"] = ratio(base, stats).median if base is not None else None
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As Markdown."""
    lines = ["| network | batch | layout | mode | form | median ms | images/s | times as fast |", "|---" * 8 + "|"]
    for row in sorted(rows, key=lambda row: (row["layout"], row["mode"], row["form"] != "trained")):
        cells = [f"{row['model']} {row['task']} {row['size']}", str(row["batch"])]
        cells += [row[name] for name in ("layout", "mode", "form")]
        if row["median_ms"] is None:
            cells += ["does not fit", "", ""]
        else:
            faster = f"{row['ratio']:.2f}" if row["ratio"] is not None and row["form"] == "folded" else ""
            cells += [f"{row['median_ms']:.3f}", f"{row['throughput']:,.0f}", faster]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _nothing() -> None:
    """A CPU is done when the call returns."""


if __name__ == "__main__":
    sys.exit(main())
