"""What folding is worth in PyTorch itself: the folded model beside the trained form, in FP16, on a GPU.

    python benchmarks/gpu_torch.py [--weights FOLDER] [--models NAME ...] [--batches 1 64] [--output FILE.json]
    python benchmarks/gpu_torch.py --device cpu --tiny

For each network and batch these are called in turn in one run (`measure_latency`): the form that is trained, with the
modules and the weights of the authors' checkpoints, the form that is deployed (`fold`), and of HRViT the authors'
layout, as `authors_layout.py` states it anew; each eager and as a CUDA graph, in NCHW and in NHWC (channels_last). A
call is timed on the host from the launch to the end of the GPU's work; input and output stay on the GPU.

**Bytes** are what PyTorch's operators read and write in one call, counted as they are dispatched: every tensor that
an operator reads or writes once, a view not at all, weights apart. That is what an eager call moves if no cache helps,
by the definition by which a plan's kernels are counted; what an operator converts inside itself is not seen. Divided by
the time it is a share of the card's copy rate, that of a large tensor copied in the same rounds (read and written). At
batch 1 the maps fit the L2 cache of a large card, so that a share may be over 100 %.

With `--weights` (hrvit_b1_scenes.safetensors and
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
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from authors_layout import in_authors_layout
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
COPIED = {"cuda": 2**29, "cpu": 2**26}  # bytes: far more than a cache holds
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
    """A row for each side; ``ratio`` is how many times as fast as the trained form it is, in turn."""
    dtype = torch.float16 if device == "cuda" else torch.float32
    model = build_model(case.spec).eval()
    forms = {"trained": model, "folded": fold(model)}
    if case.name.startswith("hrvit"):
        forms["authors"] = in_authors_layout(model, case.spec)
    modes = ("eager", "graph") if device == "cuda" else ("eager",)
    sides: dict[tuple[str, ...], Side] = {}
    moved: dict[tuple[str, ...], Moved | None] = {}
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
                    moved[form, layout] = moved.get((form, layout)) or count_bytes(network, image)
                except torch.OutOfMemoryError:
                    rows.append(_row(case, batch, (form, layout, mode)))
                    continue
                sides[form, layout, mode] = Side(run, batch)
    named = {"copy": Side(copying(device)), **{" ".join(key): side for key, side in sides.items()}}
    stats = measure_latency(named, min_s=min_s, max_s=4 * min_s)
    rows += [_row(case, batch, key, found=stats, moved=moved[key[:2]], copied=2 * COPIED[device]) for key in sides]
    del sides, named
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


@dataclass
class Moved:
    """Bytes that one call reads and writes."""

    activations: int = 0
    weights: int = 0


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what operators read and write; ``weights`` are the addresses of storages that hold parameters."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights, self.moved = weights, Moved()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        reads, writes = _tensors((args, kwargs)), _tensors(out)
        places = {place for place, *_ in reads}
        in_place = func.overloadpacket.__name__.endswith("_")
        if in_place or any(place not in places for place, *_ in writes):
            reads = {key: size for key, size in reads.items() if size}
            written = sum(size for (place, *_), size in writes.items() if in_place or place not in places)
            held = sum(size for (place, *_), size in reads.items() if place in self.weights)
            self.moved.weights += held
            fresh = func.overloadpacket.__name__ in ("empty", "empty_like", "new_empty", "empty_strided")
            self.moved.activations += 0 if fresh else sum(reads.values()) - held + written
        return out


def _tensors(values: Any) -> dict[tuple[Any, ...], int]:
    """Bytes of each different tensor among values, by its storage, place and strides; what is repeated counts once."""
    found = {}
    for one in tree_leaves(values):
        if isinstance(one, Tensor):
            real = [size for size, stride in zip(one.shape, one.stride(), strict=True) if stride]
            key = (one.untyped_storage().data_ptr(), one.storage_offset(), one.shape, one.stride())
            found[key] = math.prod(real) * one.element_size()
    return found


def count_bytes(network: nn.Module, image: Tensor) -> Moved:
    """What one eager call reads and writes. Not in inference mode, which hides what an operator is made of."""
    held = [*network.parameters(), *network.buffers()]
    counting = _Counting({one.untyped_storage().data_ptr() for one in held})
    with torch.no_grad(), counting:
        network(image)
    return counting.moved


def copying(device: str) -> Callable[[], None]:
    """Copies a large tensor and waits for the end."""
    source = torch.ones(COPIED[device], dtype=torch.uint8, device=device)
    target, finish = torch.empty_like(source), torch.cuda.synchronize if device == "cuda" else _nothing

    def run() -> None:
        target.copy_(source)
        finish()

    return run


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
    case: Case,
    batch: int,
    key: tuple[str, ...],
    *,
    found: dict[str, LatencyStats] | None = None,
    moved: Moved | None = None,
    copied: int = 0,
) -> dict[str, Any]:
    """One side's numbers; null without ``found``. ``copied`` are the bytes that the side ``copy`` moves."""
    row: dict[str, Any] = {"model": case.name, "task": case.task, "size": case.side, "batch": batch}
    row |= dict(zip(("form", "layout", "mode"), key, strict=True))
    row |= {"median_ms": None, "p99_ms": None, "throughput": None, "ratio": None, "samples_ns": []}
    row |= {"activation_bytes": None, "weight_bytes": None, "copy_gb_per_s": None, "share_of_copy": None}
    if found is not None and moved is not None:
        stats, copy, base = (found.get(" ".join(one)) for one in (key, ("copy",), ("trained", *key[1:])))
        assert stats is not None
        assert copy is not None
        row |= {name: getattr(stats, name) for name in ("median_ms", "p99_ms", "throughput")}
        row["samples_ns"] = list(stats.samples_ns)
        row["ratio"] = ratio(base, stats).median if base is not None else None
        row |= {"activation_bytes": moved.activations, "weight_bytes": moved.weights}
        row["copy_gb_per_s"] = copied / copy.median_ms / 1e6
        row["share_of_copy"] = ratio(copy, stats).median * (moved.activations + moved.weights) / copied
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As Markdown; MB are the bytes of a call, activations and weights."""
    titles = (
        "network",
        "batch",
        "layout",
        "mode",
        "form",
        "median ms",
        "images/s",
        "times as fast",
        "MB",
        "of copy rate",
    )
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in sorted(rows, key=lambda row: (row["layout"], row["mode"], row["form"] != "trained")):
        cells = [f"{row['model']} {row['task']} {row['size']}", str(row["batch"])]
        cells += [row[name] for name in ("layout", "mode", "form")]
        if row["median_ms"] is None:
            cells += ["does not fit", "", "", "", ""]
        else:
            faster = f"{row['ratio']:.2f}" if row["ratio"] is not None and row["form"] != "trained" else ""
            cells += [f"{row['median_ms']:.3f}", f"{row['throughput']:,.0f}", faster]
            cells += [f"{(row['activation_bytes'] + row['weight_bytes']) / 1e6:,.0f}", f"{row['share_of_copy']:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _nothing() -> None:
    """A CPU is done when the call returns."""


if __name__ == "__main__":
    sys.exit(main())
