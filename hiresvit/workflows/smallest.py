"""The smallest graph that an engine gets wrong, as files for a report of it: `hiresvit compare --layers --smallest`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hiresvit.device.platform import package_version
from hiresvit.device.qnn_api import qairt_version
from hiresvit.files import atomic_path, sha256_file
from hiresvit.progress import OnStep, silent
from hiresvit.runtime.runner import About
from hiresvit.spec import Feeds
from hiresvit.workflows.open import Source
from hiresvit.workflows.watched import Engine, graph_of

if TYPE_CHECKING:
    from onnx import ModelProto

    from hiresvit.evaluation.smallest import Smallest


def write_smallest(
    test: Source,
    engine: Engine,
    feeds: Feeds,
    target: Path,
    tolerance: float,
    *,
    tensor: str | None = None,
    on_step: OnStep = silent,
) -> dict[str, Any] | None:
    """Write the smallest part of a graph that its engine gets wrong; None, and no file, if it gets the graph right.

    ``target`` becomes the graph and ``NAME.npz`` beside it its arrays: ``input/TENSOR``, ``expected/TENSOR`` of ONNX
    Runtime's CPU and ``answer/TENSOR`` of the engine. ``tensor`` is one that is known to be wrong where it was marked.
    What is returned is plain JSON values. Raises as `find_smallest`.
    """
    from hiresvit.evaluation.smallest import find_smallest

    found = find_smallest(graph_of(test), feeds, engine.open, tolerance=tolerance, tensor=tensor, on_step=on_step)
    if found is None:
        return None
    fault, arrays = found.fault, target.with_suffix(".npz")
    with atomic_path(target) as path:
        path.write_bytes(fault.model.SerializeToString(deterministic=True))
    sides = {"input": fault.feeds, "expected": fault.expected, "answer": fault.answer}
    values: dict[str, Any] = {f"{side}/{name}": given[name] for side, given in sides.items() for name in given}
    with atomic_path(arrays) as path, path.open("wb") as stream:
        np.savez_compressed(stream, **values)
    return {
        "file": target.name,
        "sha256": sha256_file(target),
        "arrays": arrays.name,
        **_described(found),
        "engine": _engine(fault.about or engine.about, engine),
        "versions": _versions(fault.about or engine.about, engine),
        "nodes": _nodes(fault.model),
    }


def _described(found: Smallest) -> dict[str, Any]:
    fault = found.fault
    return {
        "kind": fault.kind,
        "output": fault.output,
        "sqnr_db": _finite(fault.sqnr_db),
        "max_abs": _finite(fault.max_abs),
        "message": fault.message,
        "steps": found.steps,
        "tried": found.tried,
    }


def _engine(about: About, engine: Engine) -> dict[str, Any]:
    return {
        "backend": about.backend,
        "device": about.device,
        "emulated": about.emulated,
        "chip": None if engine.chip is None else str(engine.chip),
    }


def _versions(about: About, engine: Engine) -> dict[str, str | None]:
    """Of what computed, and of the ONNX Runtime that it is held to."""
    qairt = {} if engine.chip is None else {"qairt": qairt_version()}
    return {"onnxruntime": package_version("onnxruntime"), about.backend: about.version or None, **qairt}


def _nodes(model: ModelProto) -> list[dict[str, Any]]:
    from hiresvit.graph.index import index_graph, module_of

    index = index_graph(model, {})
    shown = [name for name in (*index.inputs, *index.producer) if name not in index.fixed]

    def told(names: Any) -> list[str]:
        return [f"{name} {list(index.sizes(name) or ())}" for name in names if name in shown]

    return [
        {"node": n.name, "module": module_of(n.name), "op": n.op_type, "reads": told(n.input), "makes": told(n.output)}
        for n in index.nodes
        if told(n.output)
    ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
