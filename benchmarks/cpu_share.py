"""How much of the machine's sgemm rate a model reaches on the CPU, and what each step towards it is worth.

    python benchmarks/cpu_share.py [--imgsz 512x512] [--threads 2] [--steps] [--profile] [--write]

All sides run in turn in one process, so that the shares hold on any machine: share = 2 x MACs / time / sgemm rate.
The MACs are the model's own (15.2 G for HRViT-b1 at 512x512), whatever the folded graph still computes; the sgemm
rate is that of a 2048-cubed float32 torch matmul in the same rounds, also for the sides in bfloat16. Logits stay at the
head's stride. Where OpenVINO is installed it computes both forms of the graph, too, in FP32 and, where the CPU has it,
in bfloat16. Each has the SQNR of its answer against PyTorch's, on noise.
``--steps`` adds the deployed graph with one of its ideas taken back at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from hiresvit import create_model, export_onnx, fold, simplify
from hiresvit.errors import MissingDependency
from hiresvit.evaluation.latency import measure_latency
from hiresvit.evaluation.parity import compare_arrays
from hiresvit.evaluation.statistics import LatencyStats, ratio
from hiresvit.export.contract import INPUT
from hiresvit.export.cpu import for_cpu
from hiresvit.models import hrvit_block
from hiresvit.models.create import enliven
from hiresvit.models.fold import fold_bn
from hiresvit.models.heads import SegFormerHead
from hiresvit.models.macs import count_macs
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.openvino_runner import PRECISIONS, OpenVinoRunner
from hiresvit.runtime.runner import Runner
from hiresvit.runtime.torch_runner import TorchRunner
from hiresvit.spec import ModelSpec

SIDE = 2048
FORMS = ("simplified.onnx", "cpu.onnx")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    args = arguments()
    height, width = (int(side) for side in args.imgsz.split("x"))
    model = create_model(args.model, imgsz=(height, width))
    assert isinstance(model.spec, ModelSpec)
    enliven(model, model.spec)  # fresh attention adds nothing, so nothing of it could be wrong
    with tempfile.TemporaryDirectory() as folder:
        graphs = deployed(model) | (steps_back(args.model, (height, width)) if args.steps else {})
        paths = {name: Path(folder, f"{index}.onnx") for index, name in enumerate(graphs)}
        for name, graph in graphs.items():
            onnx.save(graph, paths[name])
        stats, sqnr = measure(model, paths, (height, width), args)
        profiles = {name: operator_times(path, args.threads) for name, path in paths.items() if args.profile}
    result = report(stats, count_macs(model, (height, width)).total, args)
    result |= {
        "nodes": {name: len(graph.graph.node) for name, graph in graphs.items()},
        "operators_ms": profiles,
        "sqnr_db": sqnr,
        "simplified_over_cpu": forms(stats),
    }
    print_result(result)
    if args.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "cpu_share.json").write_text(json.dumps(result, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hrvit_b1")
    parser.add_argument("--imgsz", default="512x512")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=5.0, help="per side")
    parser.add_argument("--steps", action="store_true", help="also with one idea taken back at a time")
    parser.add_argument("--profile", action="store_true", help="time per operator on ONNX Runtime")
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results")
    return parser.parse_args()


def simplified(model: nn.Module) -> onnx.ModelProto:
    spec = model.spec
    assert isinstance(spec, ModelSpec)
    return simplify(export_onnx(model, spec, resize=False))[0]


def deployed(model: nn.Module) -> dict[str, onnx.ModelProto]:
    graph = simplified(fold(model))
    return dict(zip(FORMS, (graph, for_cpu(graph)), strict=True))


def steps_back(name: str, imgsz: tuple[int, int]) -> dict[str, onnx.ModelProto]:
    """cpu.onnx without one of the steps each, and the graph of the model that is not folded at all."""

    def without(undo: Callable[[nn.Module], None]) -> onnx.ModelProto:
        model = create_model(name, imgsz=imgsz)
        undo(model)
        return for_cpu(simplified(fold(model)))

    return {
        "mask -100": without(mask_of_the_authors),
        "stripes, not lines": without(no_lines),
        "head not composed": without(plain_head),
        "nothing folded": for_cpu(simplified(create_model(name, imgsz=imgsz))),
    }


def mask_of_the_authors(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, hrvit_block.Stripes) and module.mask is not None:
            module.mask[module.mask < 0] = -100.0


def no_lines(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, hrvit_block.Attention):
            module.lines = False


def plain_head(model: nn.Module) -> None:
    """Only the BatchNorm folded; the projections stay apart from the fusing convolution."""

    def fold_(head: SegFormerHead) -> None:
        assert head.fusion_conv.bn is not None
        head.fusion_conv.conv = fold_bn(head.fusion_conv.conv, head.fusion_conv.bn)
        head.fusion_conv.bn = nn.Identity()  # type: ignore[assignment]

    for module in model.modules():
        if isinstance(module, SegFormerHead):
            module.__class__ = type("PlainHead", (SegFormerHead,), {"fold_": fold_})


def measure(
    model: nn.Module, paths: dict[str, Path], imgsz: tuple[int, int], args: argparse.Namespace
) -> tuple[dict[str, LatencyStats], dict[str, float]]:
    """What each side took, and the SQNR of its answer against PyTorch's in dB."""
    torch.set_num_threads(args.threads)
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    feed = {INPUT: np.random.default_rng(0).standard_normal((1, 3, *imgsz), dtype=np.float32)}
    onnx_runtime = {name: OnnxRuntimeRunner(path, threads=args.threads) for name, path in paths.items()}
    first = next(iter(onnx_runtime.values()))
    runners: dict[str, Runner] = {"PyTorch eager": TorchRunner(model, first.inputs, first.outputs)}
    runners |= onnx_runtime | openvino_sides({name: paths[name] for name in FORMS}, args.threads)
    same = [name for name in runners if name.split(",")[0] in FORMS]  # a step back has weights of its own
    answers = [runners[name](feed)[first.outputs[0].name] for name in ("PyTorch eager", *same)]
    sqnr = {name: compare_arrays(answers[0], answer).sqnr_db for name, answer in zip(same, answers[1:], strict=True)}
    sides: dict[str, Callable[[], object]] = {"sgemm": lambda: a @ b}
    sides |= {name: partial(runner, feed) for name, runner in runners.items()}
    return measure_latency(sides, min_s=args.seconds, settle_s=0.05), sqnr


def openvino_sides(paths: dict[str, Path], threads: int) -> dict[str, Runner]:
    """OpenVINO on each graph, in each precision that there is here; a line for what is not."""
    sides: dict[str, Runner] = {}
    for name, path in paths.items():
        for precision in PRECISIONS:
            try:
                sides[f"{name}, OpenVINO {precision}"] = OpenVinoRunner(path, threads=threads, detail=precision)
            except MissingDependency as error:
                print(error)
    return sides


def forms(stats: dict[str, LatencyStats]) -> dict[str, dict[str, float]]:
    """By runner how many times as long as on cpu.onnx it takes on simplified.onnx, round by round."""
    found = {}
    for end in ("", *(f", OpenVINO {precision}" for precision in PRECISIONS)):
        if all(f"{name}{end}" in stats for name in FORMS):
            compared = ratio(*(stats[f"{name}{end}"] for name in FORMS))
            found[end.removeprefix(", ") or "ONNX Runtime"] = asdict(compared)
    return found


def report(stats: dict[str, LatencyStats], macs: int, args: argparse.Namespace) -> dict[str, Any]:
    """Shares round by round, so that what slows the machine down slows both sides of a ratio."""
    gemm = np.array(stats["sgemm"].samples_ns) / (2 * SIDE**3)  # nanoseconds per operation
    sides = {}
    for name in list(stats)[1:]:
        shares = 100 * gemm * 2 * macs / np.array(stats[name].samples_ns)
        sides[name] = {
            "median_ms": stats[name].median_ms,
            "share_percent": float(np.median(shares)),
            "p10": float(np.percentile(shares, 10)),
            "p90": float(np.percentile(shares, 90)),
        }
    return {
        "model": args.model,
        "imgsz": args.imgsz,
        "threads": args.threads,
        "gmacs": macs / 1e9,
        "sgemm_gflops": float(1 / np.median(gemm)),
        "rounds": stats["sgemm"].calls,
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "sides": sides,
    }


def operator_times(path: Path, threads: int) -> dict[str, float]:
    """Milliseconds per call by operator, from ONNX Runtime's profiler (median of 10 runs per node)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {i.name: rng.standard_normal(i.shape, dtype=np.float32) for i in session.get_inputs()}
    for _ in range(10):
        session.run(None, feed)
    nodes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["args"]["op_name"], event["name"]].append(event["dur"])
    times: dict[str, float] = defaultdict(float)
    for (operator, _), durations in nodes.items():
        times[operator] += float(np.median(durations)) / 1000
    return dict(sorted(times.items(), key=lambda item: -item[1]))


def print_result(result: dict[str, Any]) -> None:
    print(f"{result['model']} segment {result['imgsz']}, {result['gmacs']:.2f} GMACs, {result['threads']} threads")
    print(f"sgemm {result['sgemm_gflops']:.0f} GFLOP/s, {result['rounds']} interleaved rounds")
    for name, side in result["sides"].items():
        nodes = f"{result['nodes'][name]:5} nodes" if name in result["nodes"] else " " * 11
        spread = f"{side['p10']:.1f}..{side['p90']:.1f}"
        print(
            f"  {name:30}{nodes} {side['median_ms']:8.1f} ms {side['share_percent']:6.1f} % of sgemm ({spread})"
            + (f" {result['sqnr_db'][name]:6.1f} dB" if name in result["sqnr_db"] else "")
        )
    for name, found in result["simplified_over_cpu"].items():
        print(f"simplified.onnx over cpu.onnx, {name}: {found['median']:.3f} ({found['p10']:.3f}..{found['p90']:.3f})")
    for name, times in result["operators_ms"].items():
        print(f"{name}, ms by operator: " + ", ".join(f"{k} {v:.1f}" for k, v in list(times.items())[:16]))


if __name__ == "__main__":
    main()
