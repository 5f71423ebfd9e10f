"""What INT8 costs the two variants of the papers that were really trained: every method, on held-out scenes.

Run by `int8_numbers.py --parts trained --weights FOLDER`. Graphs and answers are kept in ``--cache``, each as soon as
it is there, so that an interrupted run goes on where it was: two cores take more than an hour for all of it.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

from hiresvit import create_model, export_onnx, fold, simplify, to_fp16
from hiresvit.calibration.attention import find_attentions
from hiresvit.calibration.calibrate import calibrate_by
from hiresvit.calibration.collect import RunOptions
from hiresvit.calibration.observers import METHODS
from hiresvit.calibration.qdq import calibration_tensors
from hiresvit.calibration.sites import Policy, find_sites, find_skips
from hiresvit.data.pictures import Feeds, open_pictures
from hiresvit.data.scenes import Scenes
from hiresvit.evaluation.beside import side_rows
from hiresvit.evaluation.bootstrap import RESAMPLES, SEED
from hiresvit.evaluation.counts import columns, count
from hiresvit.evaluation.ledger import Ledger
from hiresvit.files import atomic_path
from hiresvit.graph.index import index_graph
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.picture_runner import LabelMap, PictureRunner
from hiresvit.runtime.runner import Casting
from hiresvit.spec import ModelSpec
from hiresvit.workflows.quantize import Int8Maker

TRAINED = {"hrvit_b1": "hrvit_b1_scenes.safetensors", "lrformer_t": "lrformer_t_scenes.safetensors"}
IMGSZ, CLASSES = (512, 512), 19
COLUMNS = (
    *("trained model", "form", "mIoU %", "points below FP32", "boundary F %"),
    *("pixels as FP32 %", "keeps of FP32's mIoU"),
)
FORMS = {"fp32": "FP32", "fp16": "FP16"} | {f"int8_{method}": f"INT8, {method}" for method in reversed(METHODS)}


def answer_all(args: argparse.Namespace) -> None:
    """The answers of every form of every model for every scene, as palette indices in PNG files of the cache."""
    for model in args.models:
        folder = args.cache / model
        folder.mkdir(parents=True, exist_ok=True)
        spec = make_graphs(model, args.weights / TRAINED[model], folder, args.images)
        scenes = Scenes(args.scenes, IMGSZ)
        with ExitStack() as stack:
            runners = {
                form: PictureRunner(
                    Casting(stack.enter_context(OnnxRuntimeRunner(folder / f"{form}.onnx", threads=1))), spec
                )
                for form in FORMS
            }
            for index in range(len(scenes)):
                missing = [form for form in FORMS if not answer_path(folder, form, index).exists()]
                picture = scenes[index].image if missing else None
                for form in missing:
                    assert picture is not None
                    found = runners[form].predict(picture)
                    assert isinstance(found, LabelMap)
                    with atomic_path(answer_path(folder, form, index)) as temporary:
                        Image.fromarray(found.labels).save(temporary, format="PNG")
                if missing:
                    print(f"{model}: scene {index + 1} of {len(scenes)}", flush=True)


def trained(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each form of each model, as `hiresvit eval` would have it of these sides in one pass."""
    answer_all(args)
    scenes, rows = Scenes(args.scenes, IMGSZ), []
    for model in args.models:
        ledger = Ledger(len(FORMS), len(scenes), columns(scenes))
        for index in range(len(scenes)):
            sample = scenes[index]
            answers = [np.asarray(Image.open(answer_path(args.cache / model, form, index))) for form in FORMS]
            ledger.answers[index] = answers[0].size
            for side, labels in enumerate(answers):
                ledger.rows[side, index] = count(sample, LabelMap(labels), scenes)
                ledger.equal[side, index] = np.count_nonzero(labels == answers[0])
        ledger.done = len(scenes)
        found = side_rows(ledger, scenes, [CLASSES] * len(FORMS), resamples=RESAMPLES, seed=SEED)
        rows += [
            {"model": model, "form": form, "scenes": len(scenes), "metrics": row["metrics"], "against": row["against"]}
            for form, row in zip(FORMS.values(), found, strict=True)
        ]
    return rows


def trained_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
    ]
    for row in rows:
        against = row["against"]
        lost = (against or {"metrics": {"miou": None}})["metrics"]["miou"]
        cells = (
            row["model"],
            row["form"],
            _spread(row["metrics"]["miou"], "value"),
            _spread(lost, "difference", sign=-1) if lost else "",
            _spread(row["metrics"]["boundary_f"], "value"),
            f"{100 * against['agreement']:.3f}" if against else "",
            against["keeps"] if against else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"On {rows[0]['scenes']} held-out scenes of 512x512, with 95 % intervals."])


def _spread(measured: dict[str, float], what: str, sign: int = 1) -> str:
    value, *bounds = (round(sign * measured[name], 2) + 0.0 for name in (what, "low", "high"))  # + 0.0: no -0.00
    return f"{value:.2f} ({min(bounds):.2f} to {max(bounds):.2f})"


def answer_path(folder: Path, form: str, index: int) -> Path:
    return folder / f"{form}-{index:04}.png"


def make_graphs(name: str, weights: Path, folder: Path, images: int) -> ModelSpec:
    """Write the graph of each form that is not there; the calibrating pictures are run once for all methods."""
    model = create_model(name, weights=weights, imgsz=IMGSZ)
    spec = model.spec
    assert isinstance(spec, ModelSpec)
    if all((folder / f"{form}.onnx").exists() for form in FORMS):
        return spec
    simple, _ = simplify(export_onnx(fold(model), spec))
    half, _ = to_fp16(simple)
    index, policy = index_graph(simple, {}), Policy()
    sites = find_sites(index, policy)
    tensors = calibration_tensors(sites, find_skips(index, sites, policy), find_attentions(index, policy))
    pictures = open_pictures("scenes", spec.imgsz, images)
    tables = calibrate_by(
        METHODS,
        simple,
        tensors,
        Feeds(pictures, spec, simple.graph.input[0].name),
        data_digest=pictures.digest,
        preprocess=spec.preprocess,
        run=RunOptions(threads=1, state=folder / "calibration.npz", on_step=lambda *step: print(name, *step)),
    )
    made: dict[str, Any] = {"fp32": simple, "fp16": half}
    for method, table in tables.items():
        made[f"int8_{method}"] = Int8Maker(simple, index, half, tuple(sites), policy, table).together(())[0]
    for form, graph in made.items():
        with atomic_path(folder / f"{form}.onnx") as temporary:
            onnx.save(graph, temporary)
    return spec
