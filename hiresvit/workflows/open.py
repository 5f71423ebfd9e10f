"""Opening whatever a user names: a model of the registry, an ONNX file, a plan, or a bundle."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from hiresvit.bundle.folder import Bundle, read_bundle
from hiresvit.bundle.stages import DEFAULT, GRAPHS, PLANS, RUNNABLE, STAGES, htp_stages
from hiresvit.data.dataset import Labels
from hiresvit.data.labels import labels_of
from hiresvit.device.context import read_sidecar as read_context_sidecar
from hiresvit.device.plan import is_plan_file, read_sidecar
from hiresvit.device.platform import has_driver
from hiresvit.device.qnn_context import read_context
from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.export.contract import (
    TENSOR,
    contract_inputs,
    fresh_weights,
    input_spec,
    output_specs,
    read_contract,
    read_labels,
    read_stamp,
    read_untrained,
    untrained_note,
)
from hiresvit.files import sha256_file
from hiresvit.models.zoo import find_model, names_checkpoint
from hiresvit.progress import OnStep, silent
from hiresvit.runtime.open import chip_of_runner, find_backend, open_runner
from hiresvit.runtime.runner import Casting, Runner
from hiresvit.spec import ContractSpec, ModelSpec, TensorSpec
from hiresvit.workflows.replay import replay_golden

_OLDER_NOTE = "not in the file and untrained: "  # what bundles say whose graphs do not, up to schema 4
COMPILED = "torch:compile"
"""The runner of a model name for what `torch.compile` makes of it."""
MOST_INPUT = 2**30  # bytes of one tensor; 8192x4096 pixels are 0.4 GB


@dataclass(frozen=True)
class Source:
    """A runner, its spec and its classes' names where they are known, and what it is called in tables.

    ``said`` is what is to be said of its weights and of how it was chosen, ``graph`` the file if that is an ONNX graph,
    ``plan`` the file if it is one. ``contract`` is what goes in and comes out. ``built_from`` of a plan is where its
    graph would lie, and the graph's sum.
    ``origin`` is what a report says of where it is from (`_origin`).
    """

    runner: Runner
    spec: ModelSpec | None
    label: str
    labels: Labels | None = None
    said: tuple[str, ...] = ()
    graph: Path | None = None
    contract: ContractSpec = TENSOR
    built_from: tuple[Path, str] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    plan: Path | None = None

    @property
    def waits(self) -> float | None:
        """About how many seconds an emulator takes for an answer; None for what is none, or of no model."""
        rate = self.runner.seconds_per_gmac
        if rate is None or self.spec is None:
            return None
        entry = find_model(self.spec.name)
        pixels = math.prod(self.spec.imgsz) / math.prod(entry.imgsz[self.spec.task])
        return rate * entry.numbers[self.spec.task].gmacs * pixels

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of it, for example that nobody trained it, or that a plan is of another model of GPU."""
        return (*self.said, *self.runner.warnings)


@dataclass(frozen=True)
class Unopened:
    """One of several sides that did not open, what it is called in tables, and why."""

    label: str
    error: HiresvitError


def open_source(
    text: str,
    *,
    graph: str | None = None,
    runner: str | None = None,
    threads: int | None = None,
    cuda_graph: bool = False,
    replay: bool = True,
    on_step: OnStep = silent,
    **model_options: Any,
) -> Source:
    """Open a model name or a checkpoint (PyTorch), an ``.onnx`` file, a plan or a bundle's ``graph``.

    Without ``graph`` it is the first of `DEFAULT`.

    ``runner`` names what opens a file (see `open_runner`) and is then part of the label; of a model name it may be
    `COMPILED`, whose first call takes as long as compiling does. ``threads`` are for what runs
    on the CPU, ``cuda_graph`` is for a plan; neither has a say in the other. ``model_options`` are those of
    `create_model`; None stands for its default. A bundle is verified and, unless ``replay`` is False, its golden pair
    replayed first. Raises UsageError for a name that is none of these and for options that do not apply, ArtefactError
    for what is damaged, HiresvitError for what is missing.
    """
    path = Path(text)
    if is_model(text):
        what = "a checkpoint" if names_checkpoint(text) else "a model name"
        if graph is not None:
            raise UsageError(f"--graph picks a file of a bundle; {text} is {what}")
        if runner not in (None, COMPILED):
            raise UsageError(f"--runner picks what opens a file; {text} is {what}")
        return _open_model(text, threads, model_options, compiled=runner == COMPILED)
    if given := [name for name, value in model_options.items() if value is not None]:
        raise UsageError(f"{text} is a file and brings its own {', '.join(given)}: leave the option out")

    if path.is_dir():
        options = {"runner": runner, "threads": threads, "cuda_graph": cuda_graph}
        return _open_bundle(path, graph, replay=replay, on_step=on_step, **options)
    if graph is not None:
        raise UsageError(f"--graph picks a file of a bundle; {text} is one file")
    opened = _open_file(path, runner, threads, cuda_graph)
    with _closing_if_it_fails(opened):
        stamped = read_stamp(opened.metadata)
        spec = stamped[0] if stamped else None
        contract = read_contract(opened.metadata) if spec else TENSOR
        _check_input(path, opened, spec, contract)
        labels = read_labels(opened.metadata, spec) if spec else None
        said = _said(read_untrained(opened.metadata))
        origin = _origin(path, opened, role=stamped[1] if stamped else None)
    label, built_from = path.name + _by(runner, opened), _built_from(path)
    return Source(Casting(opened), spec, label, labels, said, _graph(path), contract, built_from, origin, _plan(path))


def distinct(names: Iterable[str]) -> list[str]:
    """Names of several things beside each other; one that is there already is told apart by its place."""
    found: list[str] = []
    for place, name in enumerate(names, 1):
        ways = chain([name], (f"{name} ({number})" for number in count(place)))
        found.append(next(way for way in ways if way not in found))
    return found


def is_model(text: str) -> bool:
    """Whether a text names what PyTorch computes: a model of the registry, or a checkpoint's file.

    Raises UsageError for what looks like a name and is none.
    """
    if names_checkpoint(text):
        return True
    if Path(text).exists() or Path(text).suffix:
        return False
    find_model(text)
    return True


def is_plan(text: str, graph: str | None = None) -> bool:
    """Whether a text, with the file of a bundle that is taken from it, names something that runs on a GPU."""
    return is_plan_file(Path(text)) or graph in PLANS


def _said(untrained: str) -> tuple[str, ...]:
    return (untrained_note(untrained),) if untrained else ()


def _open_model(text: str, threads: int | None, options: dict[str, Any], *, compiled: bool) -> Source:
    from hiresvit.export.deployed import Deployed
    from hiresvit.models.create import build_model, enliven, find_spec, load_model_weights
    from hiresvit.runtime.torch_runner import TorchRunner

    asked = find_spec(text, **{key: value for key, value in options.items() if value is not None})
    spec, weights, labels, said = asked.spec, asked.weights, None, asked.notes
    model = build_model(spec)
    if weights is None:
        enliven(model, spec)  # as an export does, so that the two can be compared
        said += _said(fresh_weights(0))
    else:
        taken = {name: bool(options.get(name)) for name in ("ema", "allow_missing_head")}
        report = load_model_weights(model, spec, weights, entry=options.get("entry"), **taken)
        labels, said = report.labels, (*said, *report.remarks, *_said(report.untrained))
    runner = TorchRunner(Deployed(model, spec), (input_spec(spec),), output_specs(spec), threads, compiled=compiled)
    origin = _origin(None if weights is None else Path(weights), runner, role="pytorch")
    return Source(runner, spec, f"{Path(text).name} ({runner.about.backend})", labels, said, origin=origin)


def _open_file(path: Path, runner: str | None, threads: int | None, cuda_graph: bool) -> Runner:
    """With the options that its backend has: of several files each takes its own."""
    options = find_backend(path, runner)[0].options
    return open_runner(
        path,
        runner=runner,
        threads=threads if "threads" in options else None,
        cuda_graph=cuda_graph and "cuda_graph" in options,
    )


def _by(runner: str | None, opened: Runner) -> str:
    """What is said behind a name of what computes, above all that it is no device."""
    said = ", ".join([*filter(None, [runner]), *["emulated"] * opened.about.emulated])
    return f" ({said})" if said else ""


def _open_bundle(folder: Path, graph: str | None, *, replay: bool, on_step: OnStep, **running: Any) -> Source:
    bundle = read_bundle(folder)
    has = {entry.role for entry in bundle.manifest.files}
    forms = None if graph else htp_roles(folder, has, running["runner"])
    wanted = graph or next((role for role in forms or DEFAULT if role in has), DEFAULT[-1])
    if wanted not in RUNNABLE:
        raise UsageError(f"--graph {graph}: one of {', '.join(RUNNABLE)}")
    source = open_role(bundle, wanted, **running)
    if replay:
        if source.waits:
            on_step(f"replay: the golden pair, emulated, about {source.waits:.0f} s", None)
        with _closing_if_it_fails(source.runner):
            replay_golden(bundle, source.runner, wanted)
    decision = (bundle.manifest.int8 or {}).get("decision") or {}
    best = "int8_plan" if decision.get("recommended") == "int8" else PLANS[0]
    plans = [role for role in (best, *PLANS) if role in has] if graph is None and has_driver() else []
    hints = [f"computed on the CPU; --graph {role} runs the bundle's plan on the GPU" for role in plans[:1]]
    return replace(source, said=(*source.said, *hints))


def htp_roles(folder: Path, has: Collection[str], runner: str | None) -> list[str] | None:
    """The files of a bundle that fit the chip of a runner, the best first; None for another runner.

    Raises UsageError if the bundle has none: the graphs for other runtimes have what an HTP does not take.
    """
    chip = chip_of_runner(runner)
    if chip is None:
        return None
    if not (roles := htp_stages(has, fp16=chip.fp16)):
        form = "fp16" if chip.fp16 else "a16w8"
        raise UsageError(f"{folder} has no graph for {chip}: export it with --htp {form}, or pick a file by --graph")
    return roles


def open_role(
    bundle: Bundle, role: str, *, runner: str | None = None, threads: int | None = None, cuda_graph: bool = False
) -> Source:
    """Open one file of a bundle that was read, without its golden pair.

    Raises ArtefactError for a file that is not what the manifest says, and whatever `open_runner` raises.
    """
    path = bundle.path(role)
    opened = Casting(_open_file(path, runner, threads, cuda_graph))
    with _closing_if_it_fails(opened):
        return _source_of_role(bundle, role, opened, runner)


def _source_of_role(bundle: Bundle, role: str, opened: Runner, runner: str | None) -> Source:
    manifest, path = bundle.manifest, bundle.path(role)
    _check_input(path, opened, manifest.spec, manifest.contract)
    if opened.metadata and (own := read_contract(opened.metadata)) != manifest.contract:
        raise ArtefactError(
            f"{path} says contract {own.name}, the manifest {manifest.contract.name} or another detail; export it again"
        )
    graph = role if role in GRAPHS else STAGES[role].parent
    if (stamped := read_stamp(opened.metadata)) and stamped[1] != graph:
        raise ArtefactError(f"{path} says that it is {stamped[1] or 'nothing'}, the manifest {graph}; export it again")
    labels = None if manifest.labels is None else labels_of(manifest.labels)
    untrained = read_untrained(opened.metadata) or (manifest.weights.source if manifest.weights.fresh else "")
    older = tuple(note for note in manifest.notes if note.startswith(_OLDER_NOTE))
    said = _said(untrained) or older
    label = f"{bundle.folder.name}/{role}{_by(runner, opened)}"
    origin = _origin(path, opened, role=role, bundle=bundle.folder)
    graph_file, built_from = _graph(path), _built_from(path)
    of_file = (graph_file, manifest.contract, built_from, origin, _plan(path))
    return Source(opened, manifest.spec, label, labels, said, *of_file)


@contextmanager
def _closing_if_it_fails(runner: Runner) -> Iterator[None]:
    """What was opened may hold a process, or a GPU's memory."""
    try:
        yield
    except BaseException:
        runner.close()
        raise


def _origin(file: Path | None, runner: Runner, *, role: str | None, bundle: Path | None = None) -> dict[str, Any]:
    """The file that answers (of a model its weights, None for fresh ones) with its sum, and what runs it: plain JSON.

    ``role`` is the stage of a graph or plan, ``pytorch`` for a model; ``bundle`` the name of the folder it lies in.
    """
    return {
        "file": None if file is None else file.name,
        "sha256": None if file is None else sha256_file(file),
        "bytes": None if file is None else file.stat().st_size,
        "role": role,
        "bundle": None if bundle is None else bundle.resolve().name,
        **asdict(runner.about),
    }


def _graph(path: Path) -> Path | None:
    return path if path.suffix == ".onnx" else None


def _plan(path: Path) -> Path | None:
    return path if is_plan_file(path) else None


def _built_from(path: Path) -> tuple[Path, str] | None:
    """Of a plan, or of a compiled context."""
    if is_plan_file(path):
        plan = read_sidecar(path)
        return (path.with_name(plan.graph), plan.graph_sha256) if plan else None
    context = read_context_sidecar(path) if read_context(path) else None
    return (path.with_name(context.graph), context.graph_sha256) if context else None


def _check_input(path: Path, runner: Runner, spec: ModelSpec | None, contract: ContractSpec) -> None:
    """Raise ArtefactError unless spec and contract are of the network they stand in, UsageError if no call of it fits.

    Both before anything is made of the sizes that a file says.
    """
    if spec is not None:
        try:
            wanted = contract_inputs(spec, contract)
        except UsageError as error:
            raise ArtefactError(
                f"{path} says a contract that its model cannot have: {error}; export it again"
            ) from error
        exact = contract != TENSOR  # a tensor's name and type are its graph's own business
        if [_shown(t, exact) for t in runner.inputs] != [_shown(t, exact) for t in wanted]:
            takes, says = (_listed(side, exact) for side in (runner.inputs, wanted))
            raise ArtefactError(f"{path} takes {takes}, and says that it takes {says}; export it again")
    for tensor in runner.inputs:
        size = math.prod(runner.best_shapes[tensor.name]) * np.dtype(tensor.dtype).itemsize
        if size > MOST_INPUT:
            raise UsageError(
                f"{path}: one call of it takes {size / 2**30:,.1f} GiB for {tensor.name!r} {list(tensor.shape)}; at"
                f" most {MOST_INPUT / 2**30:g} are tried"
            )


def _listed(tensors: Sequence[TensorSpec], exact: bool) -> str:
    return ", ".join(f"{t.name}{f' {t.dtype}' * exact} {list(t.shape)}" for t in tensors)


def _shown(tensor: TensorSpec, exact: bool) -> tuple[Any, ...]:
    return (tensor.name, tensor.dtype, tensor.shape[1:]) if exact else tensor.shape[1:]
