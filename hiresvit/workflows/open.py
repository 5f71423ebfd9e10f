"""Opening whatever a user names: a model of the registry, an ONNX file, a plan, or a bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiresvit.bundle.folder import Bundle, read_bundle
from hiresvit.bundle.golden import read_golden
from hiresvit.bundle.stages import DEFAULT, PLANS, RUNNABLE, STAGES
from hiresvit.device.plan import is_plan_file
from hiresvit.device.platform import has_driver
from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.evaluation.parity import GATES, Gate, check_gate, compare_runs
from hiresvit.export.contract import input_spec, output_specs, read_stamp
from hiresvit.models.zoo import find_model
from hiresvit.runtime.open import open_runner
from hiresvit.runtime.runner import Casting, Runner
from hiresvit.spec import ModelSpec


@dataclass(frozen=True)
class Source:
    """A runner, its spec where that is known, and what it is called in tables."""

    runner: Runner
    spec: ModelSpec | None
    label: str
    hints: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the runner, for example that a plan was built on another model of GPU."""
        return (*self.hints, *self.runner.warnings)


def open_source(
    text: str,
    *,
    graph: str | None = None,
    runner: str | None = None,
    threads: int | None = None,
    cuda_graph: bool = False,
    **model_options: Any,
) -> Source:
    """Open a model name (PyTorch), an ``.onnx`` file, a plan or a bundle's ``graph`` (default: the first of `DEFAULT`).

    ``runner`` names what opens a file (see `open_runner`) and is then part of the label. ``threads`` are for what runs
    on the CPU, ``cuda_graph`` is for a plan; neither has a say in the other. ``model_options`` are those of
    `create_model`; None stands for its default. A bundle is verified and its golden pair replayed first. Raises
    UsageError for a name that is none of these and for options that do not apply, ArtefactError for what is damaged,
    HiresvitError for what is missing.
    """
    path = Path(text)
    if not path.exists() and not path.suffix:
        if graph is not None:
            raise UsageError(f"--graph picks a file of a bundle; {text} is a model name")
        if runner is not None:
            raise UsageError(f"--runner picks what opens a file; {text} is a model name")
        find_model(text)
        return _open_model(text, threads, model_options)
    if given := [name for name, value in model_options.items() if value is not None]:
        raise UsageError(f"{text} is a file and brings its own {', '.join(given)}: leave the option out")

    def open_file(path: Path) -> Runner:
        if is_plan_file(path):
            return open_runner(path, runner=runner, cuda_graph=cuda_graph)
        return open_runner(path, runner=runner, threads=threads)

    by = f" ({runner})" if runner else ""
    if path.is_dir():
        return _open_bundle(path, graph, by, open_file)
    if graph is not None:
        raise UsageError(f"--graph picks a file of a bundle; {text} is one file")
    opened = open_file(path)
    stamped = read_stamp(opened.metadata)
    return Source(Casting(opened), stamped[0] if stamped else None, path.name + by)


def is_plan(text: str, graph: str | None = None) -> bool:
    """Whether a text, with the file of a bundle that is taken from it, names something that runs on a GPU."""
    return is_plan_file(Path(text)) or graph in PLANS


def _open_model(name: str, threads: int | None, options: dict[str, Any]) -> Source:
    from hiresvit.export.deployed import Deployed
    from hiresvit.models.create import create_model, enliven
    from hiresvit.runtime.torch_runner import TorchRunner

    model = create_model(name, **{key: value for key, value in options.items() if value is not None})
    spec = model.spec
    assert isinstance(spec, ModelSpec)
    if options.get("weights") is None:
        enliven(model, spec)  # as an export does, so that the two can be compared
    runner = TorchRunner(Deployed(model, spec), (input_spec(spec),), output_specs(spec), threads)
    return Source(runner, spec, f"{name} (PyTorch)")


def _open_bundle(folder: Path, graph: str | None, by: str, open_file: Callable[[Path], Runner]) -> Source:
    bundle = read_bundle(folder)
    has = {entry.role for entry in bundle.manifest.files}
    wanted = graph or next((role for role in DEFAULT if role in has), DEFAULT[-1])
    if wanted not in RUNNABLE:
        raise UsageError(f"--graph {graph}: one of {', '.join(RUNNABLE)}")
    runner = Casting(open_file(bundle.path(wanted)))
    _replay_golden(bundle, runner, wanted)
    plans = [role for role in PLANS if role in has] if graph is None and has_driver() else []
    hints = tuple(f"computed on the CPU; --graph {role} runs the bundle's plan on the GPU" for role in plans[:1])
    return Source(runner, bundle.manifest.spec, f"{folder.name}/{wanted}{by}", hints)


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
