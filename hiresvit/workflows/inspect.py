"""`hiresvit inspect`: what can be said of whatever a user names without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hiresvit.bundle.folder import Bundle, read_bundle
from hiresvit.bundle.manifest import MANIFEST
from hiresvit.bundle.stages import GRAPHS
from hiresvit.device.boards import Board
from hiresvit.device.context import read_sidecar
from hiresvit.device.plan import Sidecar, is_plan_file
from hiresvit.device.qnn_context import read_context
from hiresvit.errors import ArtefactError, UsageError, missing_extra
from hiresvit.export.contract import describe_graph, read_contract, read_stamp, read_untrained, untrained_note
from hiresvit.kinds import require_graph_file
from hiresvit.models.zoo import MODELS, find_model, names_checkpoint
from hiresvit.runtime.open import open_runner
from hiresvit.runtime.preflight import check_file
from hiresvit.workflows.plan_traffic import describe_plan


def inspect_source(text: str, *, entry: str | None = None, board: Board | None = None) -> dict[str, Any]:
    """What can be said of a model name, a checkpoint, an ONNX file or a bundle without running it, as JSON values.

    ``entry`` is the key of one of several sets of weights in a checkpoint. Of a plan ``traffic`` is what it moves, with
    the least time that takes on ``board``. Raises as `open_source` does, and for a board ArtefactError if a plan's
    kernels are not known.
    """
    path = Path(text)
    if board is not None and not is_plan_file(path):
        raise UsageError(f"--device is about a plan, which {text} is not: give one, as hiresvit build writes it")
    if entry is not None and not names_checkpoint(text):
        raise UsageError(f"--entry {entry} is about a checkpoint, which {text} is not: leave it out")
    if path.is_dir():
        bundle = read_bundle(path)
        found = bundle.manifest.to_json()
        found["graphs"] = found["graphs"] or _graphs(bundle)
        return {"kind": "bundle", "path": str(path), "unlisted": list(bundle.unlisted), **found}
    if path.suffix == ".onnx" and path.is_file() and (context := _context(path)):
        return context
    if path.suffix == ".onnx":
        with open_runner(path) as runner:  # says in one line what is wrong with a damaged file
            inputs, outputs = ([asdict(spec) for spec in side] for side in (runner.inputs, runner.outputs))
        stamped = read_stamp(runner.metadata)
        spec = stamped[0].to_json() if stamped else None
        found = graph_summary(path, runner.metadata)
        untrained = read_untrained(runner.metadata)
        found |= {"notes": [untrained_note(untrained)] if untrained else []}
        found |= {"contract": asdict(read_contract(runner.metadata))} if stamped else {}
        return {"kind": "graph", "path": str(path), "spec": spec, **found, "inputs": inputs, "outputs": outputs}
    if is_plan_file(path):
        header, sidecar = check_file(path)
        known = asdict(sidecar) if sidecar else {}
        if sidecar and (stamped := read_stamp(sidecar.metadata)):
            known |= {"spec": stamped[0].to_json(), "contract": asdict(read_contract(sidecar.metadata))}
        known |= _moved(path, sidecar, board)
        return {"kind": "plan", "path": str(path), "bytes": path.stat().st_size, **asdict(header), **known}
    if names_checkpoint(text):
        return {"kind": "checkpoint", "path": text, **describe_checkpoint(path, entry)}
    if text not in MODELS and path.exists():
        raise UsageError(
            f"{text}: give a model name, a checkpoint, an .onnx file, a plan or a bundle folder (one with {MANIFEST})"
        )
    return {"kind": "model", **describe_model(text)}


def _moved(plan: Path, sidecar: Sidecar | None, board: Board | None) -> dict[str, Any]:
    """What a plan moves; where that is not known and no board asks for it, a note why."""
    try:
        return {"traffic": describe_plan(plan, sidecar, board)}
    except ArtefactError as error:
        if board is not None:
            raise
        return {"traffic": None, "notes": [str(error)]}


def _context(path: Path) -> dict[str, Any] | None:
    """What is known of a compiled context, without Qualcomm's library; None for a graph."""
    require_graph_file(path)
    context = read_context(path)
    if context is None:
        return None
    sidecar = read_sidecar(path)
    known = asdict(sidecar) if sidecar else {}
    if sidecar and (stamped := read_stamp(sidecar.metadata)):
        known |= {"spec": stamped[0].to_json(), "contract": asdict(read_contract(sidecar.metadata))}
    size = path.stat().st_size + (context.binary.stat().st_size if context.binary else 0)
    found = {"kind": "context", "path": str(path), "bytes": size, "chip": context.chip.name, "qairt": context.qairt}
    return {**found, "nodes_cpu": context.on_cpu, **known}


def describe_model(name: str) -> dict[str, Any]:
    """A row of the registry as plain JSON values: tasks with their sizes and numbers, settings, weights."""
    entry = find_model(name)
    tasks = [
        {
            "task": task,
            "default": task == entry.task,
            "imgsz": list(size),
            **asdict(entry.numbers[task]),
            "preprocess": asdict(entry.preprocess[task]),
        }
        for task, size in entry.imgsz.items()
    ]
    return {
        "name": name,
        "family": entry.family,
        "tasks": tasks,
        "settings": list(entry.overrides),
        "strides": list(entry.strides),
        "paper_counts": entry.convention,
        "weights": entry.weights,
    }


def describe_checkpoint(path: Path, entry: str | None = None) -> dict[str, Any]:
    """What a file of weights can be loaded as, as plain JSON values. Raises as `find_candidates` and its reader do."""
    from hiresvit.models.create import build_empty
    from hiresvit.models.recognise import find_candidates
    from hiresvit.models.weights.facts import read_labels
    from hiresvit.models.weights.file import read_checkpoint

    checkpoint = read_checkpoint(path, entry=entry)
    models = []
    for one in find_candidates(path, checkpoint, build_empty):
        labels, _ = read_labels(checkpoint, one.num_classes or 0)
        models.append({**asdict(one), "settings": dict(one.settings), "labels": labels.source if labels else None})
    count = len(checkpoint.tensors)
    return {"entry": checkpoint.source, "tensors": count, "models": models, "notes": list(checkpoint.notes)}


def graph_summary(path: Path, metadata: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Stage, opset, node counts by operator, attentions and bytes of an ONNX file.

    Without onnx only the bytes and what ``metadata`` (as a runner has it) says are known: what is counted is None.
    """
    size = path.stat().st_size
    try:
        from hiresvit.graph.file import load_graph

        return describe_graph(load_graph(path), size)
    except ModuleNotFoundError as error:
        if missing_extra(error) is None:
            raise
    stamped = read_stamp(metadata or {})
    unknown = dict.fromkeys(("opset", "nodes", "operators", "attentions"))
    return {"stage": stamped[1] if stamped else None, **unknown, "bytes": size}


def _graphs(bundle: Bundle) -> dict[str, Any]:
    """What a manifest of schema 3 does not say of its graphs."""
    roles = [entry.role for entry in bundle.manifest.files if entry.role in GRAPHS]
    return {role: graph_summary(bundle.path(role)) for role in roles}
