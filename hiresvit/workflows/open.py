"""Opening whatever a user names: a model of the registry, an ONNX file, or a bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hiresvit.bundle.folder import Bundle, read_bundle
from hiresvit.bundle.golden import read_golden
from hiresvit.bundle.manifest import MANIFEST
from hiresvit.bundle.stages import GRAPHS, PLANS, RUNNABLE, STAGES
from hiresvit.device.plan import is_plan_file, read_sidecar
from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.evaluation.latency import Side, latency_report
from hiresvit.evaluation.parity import GATES, Gate, check_gate, compare_runs
from hiresvit.export.contract import describe_graph, input_spec, output_specs, read_stamp
from hiresvit.export.deployed import Deployed
from hiresvit.models.create import create_model, enliven, find_model
from hiresvit.models.zoo import MODELS
from hiresvit.runtime.preflight import check_file
from hiresvit.runtime.runner import Casting, Runner, open_runner
from hiresvit.runtime.tensorrt_runner import TensorRTRunner
from hiresvit.runtime.torch_runner import TorchRunner
from hiresvit.spec import ModelSpec


@dataclass(frozen=True)
class Source:
    """A runner, what it is called in tables, its spec where that is known, and what its library said about it."""

    runner: Runner
    spec: ModelSpec | None
    label: str
    notes: tuple[str, ...] = ()


def open_source(
    text: str,
    *,
    graph: str | None = None,
    threads: int | None = None,
    cuda_graph: bool = False,
    **model_options: Any,
) -> Source:
    """Open a model name (PyTorch), an ``.onnx`` file, a plan or a bundle's ``graph`` (default: cpu).

    ``threads`` are for PyTorch and ONNX Runtime, ``cuda_graph`` is for a plan (see `open_runner`); neither has a say
    in the other. ``model_options`` are those of `create_model`; None stands for its default. A bundle is verified
    and its golden pair replayed first. Raises UsageError for a name that is none of these and for options that do
    not apply, ArtefactError for what is damaged, HiresvitError for what is missing.
    """
    path = Path(text)
    if not path.exists() and not path.suffix:
        if graph is not None:
            raise UsageError(f"--graph picks a file of a bundle; {text} is a model name")
        find_model(text)
        return _open_model(text, threads, model_options)
    if given := [name for name, value in model_options.items() if value is not None]:
        raise UsageError(f"{text} is a file and brings its own {', '.join(given)}: leave the option out")
    if path.is_dir():
        return _open_bundle(path, graph, partial(_open_file, threads=threads, cuda_graph=cuda_graph))
    if graph is not None:
        raise UsageError(f"--graph picks a file of a bundle; {text} is one file")
    runner = _open_file(path, threads=threads, cuda_graph=cuda_graph)
    stamped = read_stamp(_metadata(path))
    return Source(Casting(runner), stamped[0] if stamped else None, path.name, _notes(runner))


def is_plan(text: str, graph: str | None = None) -> bool:
    """Whether a text, with the file of a bundle that is taken from it, names something that runs on a GPU."""
    return is_plan_file(Path(text)) or graph in PLANS


def _open_model(name: str, threads: int | None, options: dict[str, Any]) -> Source:
    given = {key: value for key, value in options.items() if value is not None}
    model = create_model(name, **given)
    spec = model.spec
    assert isinstance(spec, ModelSpec)
    if "weights" not in given:
        enliven(model, spec)  # as an export does, so that the two can be compared
    runner = TorchRunner(Deployed(model, spec), (input_spec(spec),), output_specs(spec), threads)
    return Source(runner, spec, f"{name} (PyTorch)")


def _open_file(path: Path, *, threads: int | None, cuda_graph: bool) -> Runner:
    if is_plan_file(path):
        return open_runner(path, cuda_graph=cuda_graph)
    return open_runner(path, threads=threads)


def _open_bundle(folder: Path, graph: str | None, open_file: Callable[[Path], Runner]) -> Source:
    bundle = read_bundle(folder)
    # The fastest on this machine's CPU; a bundle with a dynamic batch has none made for it.
    wanted = graph or next((role for role in ("cpu", "simplified") if role in _roles(bundle)), "fp32")
    if wanted not in RUNNABLE:
        raise UsageError(f"--graph {graph}: one of {', '.join(RUNNABLE)}")
    opened = open_file(bundle.path(wanted))
    runner = Casting(opened)
    _replay_golden(bundle, runner, wanted)
    return Source(runner, bundle.manifest.spec, f"{folder.name}/{wanted}", _notes(opened))


def _notes(runner: Runner) -> tuple[str, ...]:
    """What TensorRT has said on loading a plan, for example that it was built on another model of GPU."""
    return runner.warnings if isinstance(runner, TensorRTRunner) else ()


def _replay_golden(bundle: Bundle, runner: Runner, role: str) -> None:
    """Raise ArtefactError unless this machine gives what the exporting machine gave, within the export's gate."""
    inputs, outputs = read_golden(bundle.path("golden"))
    stage = STAGES[role].gate
    gates = {done["stage"]: Gate(**done["gate"]) for done in (bundle.manifest.parity or {}).get("stages", ())}
    try:
        report = compare_runs(outputs, runner(inputs), bundle.manifest.spec.task)
        failures = check_gate(report, gates.get(stage, GATES[stage]), stage)
    except (KeyError, HiresvitError) as error:  # other names or shapes than the graph's, NaN
        failures = [f"it does not fit the {role} file ({error})"]
    if failures:
        what = failures[0].partition("; --")[0]  # no option of the reader's would lift it
        raise ArtefactError(
            f"{bundle.folder}: the golden pair does not come out on this machine: {what}; export it again"
        )


def _metadata(path: Path) -> dict[str, str]:
    """What a graph says about itself; for a plan, what stands beside it."""
    if is_plan_file(path):
        sidecar = read_sidecar(path)
        return sidecar.metadata if sidecar else {}
    from hiresvit.graph.file import load_graph

    return {prop.key: prop.value for prop in load_graph(path).metadata_props}


def measure_sources(sources: Sequence[Source], min_s: float) -> dict[str, Any]:
    """Latencies of all sources in turn, on noise, which takes a dense network as long as a picture does.

    A dynamic size is what a plan was tuned for, and 1 for a graph; a note says with which shapes it was called.
    """
    sides: dict[str, Side] = {}
    for source in sources:
        number = f" ({len(sides) + 1})" if source.label in sides else ""
        sides[source.label + number] = _side(source.runner)
    return latency_report(sides, min_s=min_s)


def _side(runner: Runner) -> Side:
    inner = runner.inner if isinstance(runner, Casting) else runner
    plan = inner if isinstance(inner, TensorRTRunner) else None
    shapes = {t.name: tuple(1 if isinstance(n, str) else n for n in t.shape) for t in runner.inputs}
    if plan:
        shapes = plan.best_shapes
    generator = np.random.default_rng(0)
    feed = {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    images = next(iter(shapes.values()), ())
    batch = images[0] if len(images) == 4 else 1
    notes: tuple[str, ...] = ()
    if any(isinstance(size, str) for spec in runner.inputs for size in spec.shape):
        sizes = (f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
        notes = (f"called with {', '.join(sizes)}",)
    return Side(partial(runner, feed), batch, plan.last_times if plan else None, notes)


def inspect_source(text: str) -> dict[str, Any]:
    """What can be said of a model name, an ONNX file or a bundle without running it, as plain JSON values.

    Raises as `open_source` does.
    """
    path = Path(text)
    if path.is_dir():
        bundle = read_bundle(path)
        manifest = bundle.manifest.to_json() | _graphs(bundle)
        return {
            "kind": "bundle",
            "path": str(path),
            "unlisted": list(bundle.unlisted),
            **manifest,
        }
    if path.suffix == ".onnx":
        with open_runner(path) as runner:  # says in one line what is wrong with a damaged file
            tensors = {
                "inputs": [spec.__dict__ for spec in runner.inputs],
                "outputs": [spec.__dict__ for spec in runner.outputs],
            }
        return {"kind": "graph", "path": str(path), **graph_summary(path), **tensors}
    if is_plan_file(path):
        header, sidecar = check_file(path)
        known = asdict(sidecar) if sidecar else {}
        return {"kind": "plan", "path": str(path), "bytes": path.stat().st_size, **asdict(header), **known}
    if text in MODELS:
        return {"kind": "model", **describe_model(text)}
    if path.exists():
        raise UsageError(
            f"{text}: give a model name, an .onnx file, a plan or a bundle folder (one with {MANIFEST})"
        )
    if path.suffix or len(path.parts) > 1:
        raise HiresvitError(f"{text} does not exist")
    find_model(text)
    raise AssertionError("unreachable")


def describe_model(name: str) -> dict[str, Any]:
    """A row of the registry as plain JSON values: tasks with their sizes and numbers, settings, weights."""
    entry = find_model(name)
    tasks = [
        {"task": task, "default": task == entry.task, "imgsz": list(size), **asdict(entry.numbers[task])}
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


def _roles(bundle: Bundle) -> Sequence[str]:
    return [entry.role for entry in bundle.manifest.files]


def _graphs(bundle: Bundle) -> dict[str, Any]:
    """What a manifest lacks about its graphs because it is of schema 3, and a note where that needs onnx."""
    roles = [role for role in _roles(bundle) if role in GRAPHS]
    if bundle.manifest.graphs or not roles:
        return {}
    try:
        return {"graphs": {role: graph_summary(bundle.path(role)) for role in roles}}
    except ImportError:
        note = "the graphs of a bundle of schema 3 are described only where onnx is installed"
        return {"notes": [*bundle.manifest.notes, note]}


def graph_summary(path: Path) -> dict[str, Any]:
    """What `describe_graph` says of an ONNX file."""
    from hiresvit.graph.file import load_graph

    return describe_graph(load_graph(path), path.stat().st_size)
