"""What the HTP's forms cost trained networks, by Qualcomm's emulator, on held-out scenes.

    python benchmarks/htp_accuracy.py --weights FOLDER [--cache DIR] [--models ...] [--sizes 128 256] [--write]

Networks: the nano of examples/, and HRViT-b1 and LRFormer-T of ``FOLDER``, trained on our scenes at 512x512. Each is
exported at the small size and calibrated there on 32 scenes (mse). FP16 is emulated as an SM8650 computes it, integers
as the AR1 does, each from the context that would be shipped; beside them stand the same Q/DQ graphs and TensorRT's INT8
graph on ONNX Runtime's CPU. All are held to the FP32 graph there. Where A8W8 loses more than half a point of mIoU, some
of it gets 16 bits (``--max-drop 0.5``). The emulator is slow and its time means nothing for a chip: the last column is
for planning. Answers are kept in ``--cache``; an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from int8_trained import TRAINED
from numpy.typing import NDArray
from paper_numbers import with_table

from hiresvit import create_model, export_onnx, fold, simplify, to_fp16
from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import Scenes
from hiresvit.device.chips import CHIPS
from hiresvit.engine.htp import build_context
from hiresvit.evaluation.counts import columns, count, metrics
from hiresvit.files import atomic_path
from hiresvit.models.macs import count_macs
from hiresvit.runtime.open import open_runner
from hiresvit.runtime.picture_runner import LabelMap
from hiresvit.runtime.runner import Casting
from hiresvit.spec import ModelSpec
from hiresvit.workflows.htp import HtpSettings, make_htp
from hiresvit.workflows.quantize import Int8Settings, make_int8

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "htp_accuracy.json"
DOCUMENT = ROOT / "docs" / "htp.md"
BEGIN, END = "<!-- htp-accuracy: benchmarks/htp_accuracy.py --weights FOLDER --write -->", "<!-- /htp-accuracy -->"
SCENES = {("hrvit_nano", 128): 24, ("hrvit_nano", 256): 8}
FEW = {128: 8, 256: 2}  # of the larger networks: a picture takes the emulator up to two minutes
SIDES = {  # what a row is called, the graph that it runs, and what runs it
    "FP32": ("fp32", "onnxruntime"),
    "TensorRT's INT8 graph, ONNX Runtime": ("int8", "onnxruntime"),
    "FP16, SM8650 emulated": ("fp16", "qnn:sm8650"),
    "A16W8, AR1 emulated": ("a16w8", "qnn:ar1"),
    "A16W8, ONNX Runtime": ("a16w8", "onnxruntime"),
    "A8W8, AR1 emulated": ("a8w8", "qnn:ar1"),
    "A8W8, ONNX Runtime": ("a8w8", "onnxruntime"),
    "A8W8 with 16 bits where needed, AR1 emulated": ("mixed", "qnn:ar1"),
}
MAX_DROP = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("htp-accuracy"))
    parser.add_argument("--models", nargs="+", default=["hrvit_nano", *TRAINED])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(FEW))
    parser.add_argument("--write", action="store_true", help="keep the result and update docs/htp.md")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if args.write and RESULTS.exists() else []
    for model in args.models:
        weights = args.weights / TRAINED[model] if model in TRAINED else ROOT / "examples" / f"{model}.safetensors"
        for size in args.sizes:
            made = measure(model, weights, size, args.cache / f"{model}-{size}")
            print(table(made), flush=True)
            rows = [old for old in rows if (old["model"], old["size"]) != (model, size)] + made
            if args.write:
                RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
                DOCUMENT.write_text(with_table(DOCUMENT.read_text(), table(rows), BEGIN, END))


def measure(name: str, weights: Path, size: int, folder: Path) -> list[dict[str, Any]]:
    """A row for each side of one network at one size."""
    folder.mkdir(parents=True, exist_ok=True)
    spec, gmacs = make_fp32(name, weights, size, folder)
    scenes = Scenes(SCENES.get((name, size), FEW[size]), spec.imgsz)
    reference = answers(folder, "FP32", spec, scenes)[0]
    rows: list[dict[str, Any]] = []
    for side, (form, _) in SIDES.items():
        if form == "mixed" and rows[0]["miou"] - rows[-2]["miou"] <= MAX_DROP:
            continue  # nothing needs 16 bits
        found, seconds = answers(folder, side, spec, scenes)
        sums = np.zeros(columns(scenes))
        for index, logits in enumerate(found):
            sums += count(scenes[index], LabelMap(logits.argmax(0).astype(np.uint8)), scenes)
        noise = sum(float(np.square(a - b).sum(dtype=np.float64)) for a, b in zip(reference, found, strict=True))
        power = sum(float(np.square(a).sum(dtype=np.float64)) for a in reference)
        same = np.mean([(a.argmax(0) == b.argmax(0)).mean() for a, b in zip(reference, found, strict=True)])
        rows.append(
            {
                **{"model": name, "size": size, "scenes": len(scenes), "side": side, "form": form, "gmacs": gmacs},
                "miou": float(metrics(sums, scenes, spec.num_classes)["miou"]),
                "agreement": float(same),
                "sqnr_db": 10 * float(np.log10(power / noise)) if noise else None,
                "seconds": float(np.min(seconds)),
            }
        )
    return rows


def make_fp32(name: str, weights: Path, size: int, folder: Path) -> tuple[ModelSpec, float]:
    """Write the FP32 graph if it is not there; returns the spec, and the multiply-accumulates in 10^9."""
    model = create_model(name, weights=weights, imgsz=(size, size))
    spec = model.spec
    assert isinstance(spec, ModelSpec)
    gmacs = count_macs(model, spec.imgsz).total / 1e9
    path = folder / "fp32.onnx"
    if not path.exists():
        with atomic_path(path) as temporary:
            onnx.save(simplify(export_onnx(fold(model), spec))[0], temporary)
    return spec, gmacs


def graph_of(folder: Path, form: str, spec: ModelSpec) -> Path:
    """The graph of a form, made of the FP32 graph if it is not there."""
    path = folder / f"{form}.onnx"
    if path.exists():
        return path
    simple = onnx.load(folder / "fp32.onnx")
    pictures: dict[str, Any] = {"calib": "scenes", "images": 32, "threads": 1, "prove": False}
    if form == "int8":
        graph = make_int8(simple, to_fp16(simple)[0], spec, Int8Settings(**pictures)).graph
    else:
        settings = {
            "fp16": HtpSettings(**pictures, form="fp16", chip=CHIPS["sm8650"]),
            "a16w8": HtpSettings(**pictures, form="a16w8", chip=CHIPS["ar1"]),
            "a8w8": HtpSettings(**pictures, form="a8w8", chip=CHIPS["ar1"]),
            "mixed": HtpSettings(**pictures, form="a8w8", chip=CHIPS["ar1"], max_drop=MAX_DROP),
        }[form]
        made = make_htp(simple, spec, settings, on_step=lambda *step: print(*step, flush=True))
        graph = made.graph
        (folder / f"{form}.json").write_text(json.dumps(made.report, indent=1))
    with atomic_path(path) as temporary:
        onnx.save(graph, temporary)
    return path


def answers(folder: Path, side: str, spec: ModelSpec, scenes: Scenes) -> tuple[list[NDArray[Any]], list[float]]:
    """The logits (classes, height, width) of one side for every scene, and the seconds that each took."""
    form, runner = SIDES[side]
    found, seconds = [], []
    with ExitStack() as stack:
        opened = None
        for index in range(len(scenes)):
            kept = folder / f"{form}-{runner.replace(':', '-')}-{index:02}.npz"
            if not kept.exists():
                if opened is None:
                    opened = Casting(
                        stack.enter_context(open_runner(shipped(folder, form, runner, spec), runner=runner))
                    )
                feed = {"image": example_input(scenes[index].image, spec.preprocess, spec.imgsz)}
                began = time.perf_counter()
                (logits,) = opened(feed).values()
                took = time.perf_counter() - began
                with atomic_path(kept) as temporary, temporary.open("wb") as stream:
                    np.savez(stream, logits=logits[0].astype(np.float32), seconds=took)
                print(f"{folder.name}: {side}: scene {index + 1} of {len(scenes)}, {took:.1f} s", flush=True)
            with np.load(kept) as file:
                found.append(file["logits"])
                seconds.append(float(file["seconds"]))
    return found, seconds


def shipped(folder: Path, form: str, runner: str, spec: ModelSpec) -> Path:
    """What answers: the graph on a CPU, and the context that is copied to a device."""
    graph = graph_of(folder, form, spec)
    if not runner.startswith("qnn"):
        return graph
    chip = CHIPS[runner.partition(":")[2]]
    context = folder / f"{form}-{chip.name}_ctx.onnx"
    if not context.exists():
        build_context(graph, context, chip)
    return context


def table(rows: list[dict[str, Any]]) -> str:
    speed = "emulator at best, s for a GMAC"
    head = ("trained network", "scenes", "form", "pixels as FP32 %", "SQNR dB", "mIoU %", speed)
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        db = "" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}"
        speed = f"{row['seconds'] / row['gmacs']:.1f}" if "emulated" in row["side"] else ""
        same = "" if row["side"] == "FP32" else f"{100 * row['agreement']:.2f}"
        where = f"{row['scenes']} of {row['size']}x{row['size']}"
        lines.append(f"| {row['model']} | {where} | {row['side']} | {same} | {db} | {row['miou']:.2f} | {speed} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
