"""The parity that a bundle's report states, computed again: the same drawn pictures, through PyTorch and the graphs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hiresvit.bundle.folder import Bundle
from hiresvit.bundle.manifest import Manifest, short
from hiresvit.bundle.stages import EXACT, GRAPHS, STAGES
from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import sample_images
from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.evaluation.headroom import open_exact
from hiresvit.evaluation.parity import GATES, compare
from hiresvit.evaluation.reference import TENSOR, picture_size
from hiresvit.export.contract import INPUT, input_spec, output_specs
from hiresvit.export.deployed import Deployed
from hiresvit.files import scratch_folder, sha256_file
from hiresvit.graph.file import load_graph
from hiresvit.progress import OnStep
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.runner import Casting, Runner
from hiresvit.runtime.torch_runner import TorchRunner
from hiresvit.workflows.frame import contract_parity, write_pictures
from hiresvit.workflows.loaded import load_model

FRESH = "fresh"
TOLERANCE = {"sqnr_db": 3.0, "cosine": 1e-3, "agreement": 0.002}
"""How far a number may be from the stated one: another processor, or number of threads, sums in another order."""
NOISE_DB = 90.0
"""Above it the order of sums is all that is left, and two such numbers are the same."""


def recheck(bundle: Bundle, weights: str, *, threads: int | None, on_step: OnStep) -> dict[str, Any]:
    """Each stage of the manifest's parity with the numbers stated and found, and in ``differs`` what is not the same.

    ``weights`` is the checkpoint's file, or ``fresh`` for a bundle of fresh weights. Raises ArtefactError for other
    weights than the bundle was made from, and UsageError for a bundle that states no parity.
    """
    manifest = bundle.manifest
    if manifest.parity is None:
        raise UsageError(f"--weights {weights}: {bundle.folder} states no parity that could be computed again")
    on_step("recheck: load", None)
    seed = _check_weights(bundle, weights)
    command = manifest.command
    model, _ = load_model(
        manifest.spec,
        None if seed is not None else Path(weights),
        seed=seed or 0,
        labels=None,
        ema="--ema" in command,
        entry=_option(command, "--entry"),
        allow_missing_head=_option(command, "--allow-missing") == "head",
    )
    spec = manifest.spec
    deployed = Deployed(model, spec, resize=_resized(manifest))
    with TorchRunner(deployed, (input_spec(spec),), output_specs(spec), threads) as reference:
        again = _tensors if manifest.contract == TENSOR else _answers
        stages = again(bundle, reference, threads, on_step)
    return {"weights": weights, "tolerance": TOLERANCE, "noise_db": NOISE_DB, "stages": stages}


def _check_weights(bundle: Bundle, weights: str) -> int | None:
    """The seed of fresh weights, None for a checkpoint. Raises ArtefactError for other weights than the bundle's."""
    made = bundle.manifest.weights
    if weights == FRESH and made.fresh and (seed := re.fullmatch(r"fresh, seed (\d+)", made.source)):
        return int(seed[1])
    if made.fresh or weights == FRESH:
        raise ArtefactError(f"--weights {weights}: {bundle.folder} was made from {made.source}")
    path = Path(weights)
    if not path.is_file():
        raise HiresvitError(f"--weights {weights}: no such file; give the checkpoint, {made.source}")
    if (found := sha256_file(path)) != made.sha256:
        raise ArtefactError(
            f"--weights {weights} has the sum {short(found)}; {bundle.folder} was made from {made.source},"
            f" {short(made.sha256)}"
        )
    return None


def _option(command: Sequence[str], name: str) -> str | None:
    """What an export's command line gave an option."""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _resized(manifest: Manifest) -> bool:
    """Whether the logits have the input's size, which ``--logits head`` leaves out."""
    return not (
        manifest.contract == TENSOR
        and manifest.spec.task == "segment"
        and manifest.outputs[0].shape[2:] != manifest.spec.imgsz
    )


def _tensors(bundle: Bundle, reference: Runner, threads: int | None, on_step: OnStep) -> list[dict[str, Any]]:
    """Every stage that is a graph's, and FP16 as it rounds."""
    spec, parity = bundle.manifest.spec, bundle.manifest.parity
    stated = {stage["stage"]: stage for stage in parity["stages"]}
    feeds = [
        {INPUT: example_input(image, spec.preprocess, spec.imgsz)}
        for image in sample_images(parity["images"], spec.imgsz)
    ]
    files = {STAGES[role].gate: bundle.path(role) for role in GRAPHS if STAGES[role].gate in stated}
    if EXACT in stated:
        files[EXACT] = bundle.path("fp16")
    rows = []
    for name, path in files.items():
        on_step(f"recheck: {name}", None)
        with ExitStack() as stack:
            runner: Runner | None = (
                open_exact(load_graph(path, weights=True), threads)
                if name == EXACT
                else OnnxRuntimeRunner(path, threads=threads)
            )
            assert runner is not None  # what is stated of FP16 was measured on a graph with FP16 in it
            found = compare(reference, Casting(stack.enter_context(runner)), feeds, spec.task, spec.anchors).to_json()
        rows.append(_row(name, stated[name]["report"], found))
    return rows


def _answers(bundle: Bundle, reference: Runner, threads: int | None, on_step: OnStep) -> list[dict[str, Any]]:
    """Behind a contract, what the graphs answer: those that took tensors are not in the bundle."""
    manifest = bundle.manifest
    stated = (manifest.parity.get("contract") or {"stages": []})["stages"]
    roles = {STAGES[role].gate: role for role in GRAPHS}
    paths = {roles[stage["stage"]]: bundle.path(roles[stage["stage"]]) for stage in stated}
    with scratch_folder() as folder:
        pictures = write_pictures(folder, manifest.parity["images"], picture_size(manifest.spec, manifest.contract))
        found = contract_parity(
            reference,
            paths,
            pictures,
            manifest.contract,
            spec=manifest.spec,
            gates=GATES,
            threads=threads,
            on_step=on_step,
        )
    again = {stage["stage"]: stage["report"] for stage in found["stages"]}
    return [_row(stage["stage"], stage["report"], again[stage["stage"]]) for stage in stated]


def _row(stage: str, stated: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Both sides' numbers and where they differ; of outputs by their names, else of the answers as a whole."""
    sides = [_by_output(stage, report) for report in (stated, found)]
    differs = [
        f"{name}: {measure} is {_text(then)} in the report and {_text(now.get(measure))} here"
        for (name, before), now in zip(sides[0].items(), sides[1].values(), strict=True)
        for measure, then in before.items()
        if not _same(measure, then, now.get(measure))
    ]
    return {"stage": stage, "stated": sides[0], "found": sides[1], "differs": differs}


def _by_output(stage: str, report: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """The measures of a report that are held to each other; an exact output has an infinite SQNR, which is None."""
    outputs = report.get("outputs") or [{"name": report.get("unit", "answers"), **report}]
    return {f"{stage}, {row['name']}": {key: row[key] for key in TOLERANCE if key in row} for row in outputs}


def _same(measure: str, stated: float | None, found: float | None) -> bool:
    if measure == "sqnr_db":
        before, now = (math.inf if value is None else value for value in (stated, found))
        return min(before, now) >= NOISE_DB or abs(before - now) <= TOLERANCE[measure]
    if stated is None or found is None:
        return stated is found
    return abs(stated - found) <= TOLERANCE[measure]


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"
