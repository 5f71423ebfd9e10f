"""Which gate catches what: faults that people really made, planted in a trained network, before every gate there is.

    python benchmarks/fault_table.py [--weights FILE] [--imgsz 256x256] [--scenes 40] [--pictures 4] [--write]

A row is one fault. The first columns compare logits from a picture, each side with its own preprocessing, which is the
kindest way to ask; parity and the golden pair give both sides the same tensor, as an export does; answers, mIoU and
`compare --layers` see pictures. `--write` puts the table into docs/faults.md and the numbers into benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from paper_numbers import with_table

from hiresvit import create_model, export_onnx, fold, simplify, to_fp16
from hiresvit.data.dataset import Kept, Sample
from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import Scenes
from hiresvit.evaluation.answers import answer_gate, check_answers, compare_answers
from hiresvit.evaluation.bootstrap import interval, resampled_sums
from hiresvit.evaluation.counts import count, metrics
from hiresvit.evaluation.parity import GATES, check_gate, compare, compare_arrays
from hiresvit.evaluation.reference import Behind
from hiresvit.export.contract import complete, stamp
from hiresvit.export.frame import apply_contract
from hiresvit.files import atomic_path
from hiresvit.runtime.frame import picture_feed
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.picture_runner import PictureRunner
from hiresvit.runtime.runner import Runner
from hiresvit.spec import ContractSpec, ModelSpec
from hiresvit.workflows.compare_layers import compare_sources_by_layer
from hiresvit.workflows.open import open_source

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "examples" / "hrvit_nano.safetensors"
DOCUMENT = ROOT / "docs" / "faults.md"
RESULTS = ROOT / "benchmarks" / "results" / "fault_table.json"
COLUMNS = {
    "cosine 0.99": "cosine > 0.99",
    "cosine 0.999": "cosine > 0.999",
    "sqnr": "SQNR > 38 dB",
    "agreement": "agreement > 99 %",
    "onnx": "parity, FP32",
    "fp16": "parity, FP16",
    "golden": "golden pair",
    "answers": "answers",
    "miou": "mIoU, points (95 %)",
    "layers": "--layers: first module",
}
SEED = 0


@dataclass(frozen=True)
class Shipped:
    """What is deployed: a graph of tensors, how pictures are prepared, and by how much its labels are counted off."""

    graph: ModelProto
    spec: ModelSpec
    labels: int = 0


Fault = Callable[[Shipped], Shipped | None]
Cell = dict[str, Any]
Row = dict[str, Any]


# --- faults: None where a network has nothing of the kind ---


def on_pictures(**changes: Any) -> Fault:
    """Another preprocessing than that of the training."""
    return lambda it: replace(it, spec=replace(it.spec, preprocess=replace(it.spec.preprocess, **changes)))


def swapped_statistics(it: Shipped) -> Shipped:
    before = it.spec.preprocess
    return replace(it, spec=replace(it.spec, preprocess=replace(before, mean=before.std, std=before.mean)))


def on_graph(change: Callable[[ModelProto], bool]) -> Fault:
    """A change of a copy of the graph; it says whether there was anything to change."""

    def fault(it: Shipped) -> Shipped | None:
        graph = ModelProto()
        graph.CopyFrom(it.graph)
        return replace(it, graph=graph) if change(graph) else None

    return fault


def resize(mode: str, where: str) -> Fault:
    """Of the resizes of one module."""

    def change(graph: ModelProto) -> bool:
        found = [a for n in graph.graph.node if n.op_type == "Resize" and n.name.startswith(where) for a in n.attribute]
        modes = [a for a in found if a.name == "coordinate_transformation_mode"]
        for attribute in modes:
            attribute.s = mode.encode()
        return bool(modes)

    return on_graph(change)


def epsilon(value: float) -> Fault:
    """In every LayerNorm."""

    def change(graph: ModelProto) -> bool:
        norms = [node for node in graph.graph.node if node.op_type == "LayerNormalization"]
        for node in norms:
            next(a for a in node.attribute if a.name == "epsilon").f = value
        return bool(norms)

    return on_graph(change)


def drop_masks(graph: ModelProto) -> bool:
    """Padded keys are attended to like any others."""
    found = [
        (node, name) for node in graph.graph.node if node.op_type == "Add" for name in node.input if ".mask" in name
    ]
    for node, mask in found:
        node.op_type = "Identity"
        node.input[:] = [name for name in node.input if name != mask]
    return bool(found)


def shift_pooling(graph: ModelProto) -> bool:
    """The pooled cells of LRFormer's attention are those of one row further down."""
    names = {name for n in graph.graph.node if ".pooling/" in n.name and n.op_type == "MatMul" for name in n.input}
    return change_weights(graph, names, lambda values: np.roll(values, 1, axis=-2))


def twice(op: str, part: str) -> Fault:
    """Weights and bias of the middle one of the layers whose module has this in its name."""

    def change(graph: ModelProto) -> bool:
        layers = [node for node in graph.graph.node if node.op_type == op and part in node.name]
        names = set(layers[len(layers) // 2].input[1:]) if layers else set()
        return change_weights(graph, names, lambda values: 2 * values)

    return on_graph(change)


def stale(graph: ModelProto) -> bool:
    """Weights as they were some steps of training before: each tensor off by 2 % of its own spread."""
    generator = np.random.default_rng(SEED)
    names = {tensor.name for tensor in graph.graph.initializer if tensor.name.endswith(".weight")}
    return change_weights(graph, names, lambda v: v + 0.02 * v.std() * generator.standard_normal(v.shape))


def change_weights(graph: ModelProto, names: set[str], change: Callable[[NDArray[Any]], NDArray[Any]]) -> bool:
    tensors = [tensor for tensor in graph.graph.initializer if tensor.name in names]
    for tensor in tensors:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(values), values.dtype), tensor.name))
    return bool(tensors)


FAULTS: dict[str, Fault] = {
    "none": lambda it: it,
    "mean and std swapped": swapped_statistics,
    "BGR for RGB": on_pictures(channels="bgr"),
    "stretched, not kept": on_pictures(resize="stretch"),
    "align_corners, last resize": resize("align_corners", "output/"),
    "half a pixel off, last resize": resize("asymmetric", "output/"),
    "half a pixel off, head": resize("asymmetric", "decode_head"),
    "LayerNorm epsilon 1e-6": epsilon(1e-6),
    "LayerNorm epsilon 1e-3": epsilon(1e-3),
    "masks dropped": on_graph(drop_masks),
    "poolings one cell off": on_graph(shift_pooling),
    "twice a layer before a norm": twice("Conv", ".patch_embed."),
    "twice a layer in the head": twice("Conv", "decode_head.convs."),
    "twice an attention's output": twice("Gemm", ".attn."),
    "stale weights, 2 % off": on_graph(stale),
    "labels off by one": lambda it: replace(it, labels=-1),
}


# --- gates ---


@dataclass(frozen=True, eq=False)
class Yardstick:
    """The right network, the scenes, and its counts on them; ``pictures`` are the first of the scenes."""

    truth: Shipped
    runner: Runner
    scenes: Kept
    pictures: Sequence[NDArray[np.uint8]]
    contract: ContractSpec
    counts: NDArray[np.float64]
    framed: Path


@contextmanager
def running(graph: ModelProto) -> Iterator[Runner]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        onnx.save(graph, path)
        with OnnxRuntimeRunner(path, threads=1) as runner:
            yield runner


def gates(yard: Yardstick, it: Shipped, folder: Path) -> dict[str, Cell]:
    """What each gate says of what is shipped: whether it is caught, and the number."""
    with running(it.graph) as runner:
        found = logits(yard, it, runner) | parity(yard, it, runner)
        miou = accuracy(yard, counted(it, runner, yard.scenes))
    path = folder / "shipped.onnx"
    save_framed(it, yard.contract, path)
    with OnnxRuntimeRunner(path, threads=1) as framed:
        found |= {"answers": answers(yard, framed), "miou": miou}
    return found | {"layers": layers(yard, path)}


def logits(yard: Yardstick, it: Shipped, runner: Runner) -> dict[str, Cell]:
    """From a picture, each side by its own preprocessing: the worst picture."""
    worst = [
        compare_arrays(answer(yard.runner, yard.truth, picture), answer(runner, it, picture), "segment")
        for picture in yard.pictures
    ]
    cosine, sqnr = min(one.cosine for one in worst), min(one.sqnr_db for one in worst)
    agreement = min(one.agreement or 0.0 for one in worst)
    return {
        "cosine 0.99": cell(cosine <= 0.99, f"{cosine:.4f}"),
        "cosine 0.999": cell(cosine <= 0.999, f"{cosine:.4f}"),
        "sqnr": cell(sqnr <= 38, f"{sqnr:.0f}" if np.isfinite(sqnr) else "equal"),
        "agreement": cell(agreement <= 0.99, f"{100 * agreement:.2f}"),
    }


def answer(runner: Runner, it: Shipped, picture: NDArray[np.uint8]) -> NDArray[Any]:
    return runner({"image": example_input(picture, it.spec.preprocess, it.spec.imgsz)})["logits"]


def parity(yard: Yardstick, it: Shipped, runner: Runner) -> dict[str, Cell]:
    """The gates of an export, and its golden pair: the same tensor for both sides."""
    feeds = [{"image": example_input(p, yard.truth.spec.preprocess, yard.truth.spec.imgsz)} for p in yard.pictures]
    single = compare(yard.runner, runner, feeds, "segment")
    golden = compare(yard.runner, runner, feeds[:1], "segment")
    with running(to_fp16(it.graph)[0]) as half_runner:
        half = compare(yard.runner, half_runner, feeds, "segment")
    rows = {"onnx": (single, "onnx"), "fp16": (half, "fp16"), "golden": (golden, "simplified")}
    return {
        name: cell(bool(check_gate(report, GATES[gate], name)), decibel(report.outputs[0].worst.sqnr_db))
        for name, (report, gate) in rows.items()
    }


def answers(yard: Yardstick, framed: Runner) -> Cell:
    """Behind the contract of a camera: from its pixels to labels of its size."""
    reference = Behind(yard.runner, yard.truth.spec, yard.contract)
    feeds = [picture_feed(picture, yard.truth.spec, yard.contract) for picture in yard.pictures]
    found = compare_answers(reference, framed, feeds)
    gate = answer_gate("simplified", yard.contract, "segment", None)
    return cell(bool(check_answers(found, gate, "camera")), f"{100 * found.agreement:.3f} %")


def counted(it: Shipped, runner: Runner, scenes: Kept) -> NDArray[np.float64]:
    """A row of counts for each scene."""
    predictor = PictureRunner(runner, it.spec)
    rows = []
    for index in range(len(scenes)):
        sample = scenes[index]
        labels = np.asarray(sample.labels, np.int16)
        moved = np.where((labels == scenes.ignore) | (labels + it.labels < 0), scenes.ignore, labels + it.labels)
        wrong = Sample(sample.image, moved.astype(np.uint8))
        rows.append(count(wrong, predictor.predict(sample.image), scenes, borders=False))
    return np.array(rows)


def accuracy(yard: Yardstick, rows: NDArray[np.float64]) -> Cell:
    """Points of mIoU beside the right network on the same draws of scenes; caught if the interval is below 0."""
    sums = [resampled_sums(side) for side in (yard.counts, rows)]
    drawn = [metrics(side, yard.scenes, yard.truth.spec.num_classes)["miou"] for side in sums]
    values = [
        float(metrics(side.sum(0), yard.scenes, yard.truth.spec.num_classes)["miou"]) for side in (yard.counts, rows)
    ]
    low, high = interval(drawn[1] - drawn[0]) or (0.0, 0.0)
    text = f"{values[1] - values[0]:+.2f} ({low:+.2f} to {high:+.2f})"
    return cell(high < 0, text) | {"points": values[1] - values[0], "miou": values[1]}


def layers(yard: Yardstick, path: Path) -> Cell:
    """`hiresvit compare RIGHT SHIPPED --layers` on one picture, at its own tolerance."""
    with ExitStack() as stack:
        sides = [open_source(str(side), threads=1) for side in (yard.framed, path)]
        for side in sides:
            stack.enter_context(side.runner)
        found, _ = compare_sources_by_layer(sides[0], sides[1], yard.pictures[:1], drawn=0)
    first = found["first"]
    worst = min((row["sqnr_db"] for row in found["modules"] if row["sqnr_db"] is not None), default=None)
    if first is None:
        return cell(False, "equal" if worst is None else f"{worst:.0f} dB at worst")
    return cell(True, f"{first['module']}: {first['verdict']}, {first['sqnr_db'] or 0:.0f} dB")


def save_framed(it: Shipped, contract: ContractSpec, path: Path) -> None:
    graph = apply_contract(it.graph, it.spec, contract)
    stamp(graph, it.spec, "simplified", contract=contract)
    onnx.save(graph, path)


def cell(caught: bool, text: str) -> Cell:
    return {"caught": bool(caught), "text": text}


def decibel(value: float) -> str:
    return f"{value:.0f} dB" if np.isfinite(value) else "equal"


# --- the table ---


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All faults before all gates."""
    model = create_model(str(args.weights), **({"imgsz": args.imgsz} if args.imgsz else {}))
    assert isinstance(model.spec, ModelSpec)
    spec = replace(model.spec, preprocess=replace(model.spec.preprocess, resize="keep"))
    graph, _ = simplify(export_onnx(fold(model), spec))
    truth = Shipped(graph, spec)
    size = (spec.imgsz[0], 3 * spec.imgsz[1] // 2)  # of another shape than the network's input
    scenes = Kept(Scenes(args.scenes, size))
    contract = complete(spec, ContractSpec("camera", size=size))
    found: dict[str, Any] = {"model": spec.name, "imgsz": list(spec.imgsz), "scenes": args.scenes, "rows": []}
    with running(graph) as runner, tempfile.TemporaryDirectory() as folder:
        framed = Path(folder) / "right.onnx"
        save_framed(truth, contract, framed)
        pictures = [scenes[index].image for index in range(args.pictures)]
        yard = Yardstick(truth, runner, scenes, pictures, contract, counted(truth, runner, scenes), framed)
        for name, fault in FAULTS.items():
            if (shipped := fault(truth)) is not None:
                found["rows"].append({"fault": name, "gates": gates(yard, shipped, Path(folder))})
                print(name, found["rows"][-1]["gates"], flush=True)
    return found


def table(found: dict[str, Any]) -> str:
    """Bold is what a gate catches."""
    lines = [f"| fault | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in found["rows"]:
        cells = [f"**{c['text']}**" if c["caught"] else c["text"] for c in (row["gates"][name] for name in COLUMNS)]
        lines.append(f"| {row['fault']} | {' | '.join(cells)} |")
    right, *faults = found["rows"]
    costly = [row for row in faults if row["gates"]["miou"]["caught"]]
    missed = {
        name: [row["fault"] for row in costly if not row["gates"][name]["caught"]]
        for name in ("cosine 0.99", "cosine 0.999", "onnx", "answers", "layers")
    }
    size = "x".join(map(str, found["imgsz"]))
    lines += [
        "",
        f"{found['model']} at {size}, {found['scenes']} held-out scenes, mIoU {right['gates']['miou']['miou']:.2f} %"
        f" without a fault. Of the {len(costly)} faults that cost mIoU for certain these pass:",
        "",
        *(f"- {COLUMNS[name]}: {'; '.join(names) or 'none'}" for name, names in missed.items()),
    ]
    return "\n".join(lines)


def size_of(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--imgsz", type=size_of, help="default: the network's own")
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--pictures", type=int, default=4, help="of the scenes, for all but the mIoU")
    parser.add_argument("--write", action="store_true", help="update docs/faults.md and benchmarks/results/")
    args = parser.parse_args()
    found = measure(args)
    print(table(found))
    if args.write:
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[found["model"]] = found
        with atomic_path(RESULTS) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n")
        begin, end = f"<!-- {found['model']}: benchmarks/fault_table.py --write -->", f"<!-- /{found['model']} -->"
        DOCUMENT.write_text(with_table(DOCUMENT.read_text(), table(found), begin, end))


if __name__ == "__main__":
    main()
