"""Build a plan from an ONNX graph with TensorRT or TensorRT-RTX, and say what the builder made of it.

Precision is in the graph: the network is strongly typed and there is no precision option. The builder runs in
a child process (`_build_child`), because native code can crash on odd graphs and a build must be stoppable.
TensorRT-RTX needs no GPU, it compiles ahead of time. It targets neither Jetson nor Hopper, so on a machine without a
GPU it is the gate for legality, fusion and memory; a Jetson builds its own plan with its own TensorRT.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hiresvit import errors
from hiresvit.device.plan import EngineReport, PlanTraffic, Profile, Sidecar, sidecar_path, sidecar_text
from hiresvit.device.tensorrt_api import TITLES, Backend, find_backend
from hiresvit.engine.best_shapes import at_best_shapes
from hiresvit.engine.kernels import Kernel
from hiresvit.engine.precision import macs_by_kernel
from hiresvit.engine.profiles import check_profiles
from hiresvit.engine.traffic import traffic, with_counts
from hiresvit.errors import ArtefactError, BuildError, HiresvitError, UsageError
from hiresvit.files import atomic_path, naming_target, refuse_existing, sync
from hiresvit.graph.attentions import count_attentions
from hiresvit.graph.file import file_digest, load_graph
from hiresvit.graph.index import index_graph
from hiresvit.process import run_child

if TYPE_CHECKING:
    from onnx import ModelProto

HardwareLevel = Literal["ampere+", "same"]
OPT_LEVELS = range(6)
AUX_STREAMS = range(128)

_BUILDER = "hiresvit.engine._build_child"


@dataclass(frozen=True)
class BuildSettings:
    """What can be chosen about a plan.

    ``backend`` is a name of `tensorrt_api.BACKENDS`; None takes what is installed. ``shapes`` are the profiles of
    the dynamic inputs. ``workspace`` limits scratch memory, in bytes. ``timing_cache`` is a folder with a file for
    each TensorRT version and GPU; TensorRT-RTX has no such cache, and the report says so. ``opt_level`` is 0 to 5,
    None the builder's own. ``max_aux_streams=0`` keeps one stream: no waits, and a fraction of the activation
    memory. ``hw_compat`` (``ampere+``, ``same``) and ``version_compatible`` are TensorRT's, for plans that run on
    other GPUs and versions; ``sm`` is TensorRT-RTX's, the GPUs to compile for as 86 or 120.
    """

    backend: str | None = None
    shapes: Mapping[str, Profile] = field(default_factory=dict)
    workspace: int | None = None
    timing_cache: Path | None = None
    opt_level: int | None = None
    max_aux_streams: int = 0
    hw_compat: HardwareLevel | None = None
    version_compatible: bool = False
    sm: tuple[int, ...] = ()


DEFAULTS = BuildSettings()


def build_engine(
    graph: Path,
    plan: Path,
    settings: BuildSettings = DEFAULTS,
    *,
    replace: bool = True,
    on_progress: Callable[[str, float], None] | None = None,
) -> EngineReport:
    """Build ``graph``, write ``plan`` and its sidecar (see `hiresvit.device.plan`), and return the report.

    With ``replace=False`` a plan that appears there while this one is built stays, and HiresvitError says so.

    ``on_progress(phase, fraction)`` is called in this thread; what it raises stops the build. The fraction never
    falls; it counts the builder's steps: one of them, compiling kernels, takes most of the time.

    Nothing is left behind when it fails or is interrupted. Raises MissingDependency without the library or, for
    TensorRT, without a GPU; UsageError on settings that do not fit the library or the graph, IllegalGraphError
    when the parser refuses a node, BuildError when the build fails or its process dies, HiresvitError when a file
    cannot be read or written.
    """
    backend = find_backend(settings.backend)
    check_settings(settings, backend)
    model = load_graph(graph)
    check_profiles(graph, model, settings.shapes)
    _check_target(graph, plan)
    digest = file_digest(graph, model)
    beside = sidecar_path(plan)
    # Each is locked and cleared away if this process dies, and neither gets its name before both are on the disk.
    with atomic_path(beside) as staged, atomic_path(plan, replace=replace) as temporary:
        request = _request(graph, temporary, settings, backend)
        built = _run_builder(request, backend, on_progress)
        layers, moved = _counted(model, built.pop("layers"), settings.shapes)
        report = EngineReport.from_json({**built, "attentions_total": count_attentions(model), "traffic": moved})
        metadata = {prop.key: prop.value for prop in model.metadata_props}
        if file_digest(graph, model) != digest:
            raise HiresvitError(f"{graph} was changed while the plan was built from it; build it again")
        staged.write_text(sidecar_text(Sidecar(graph.name, digest, report, layers, metadata)), encoding="utf-8")
        sync(staged)
        refuse_existing(plan, replace=replace)
        beside.unlink(missing_ok=True)  # at no time does an old one stand beside a new plan
    return report


def _counted(
    model: ModelProto, layers: list[dict[str, Any]], shapes: Mapping[str, Profile]
) -> tuple[tuple[dict[str, Any], ...], dict[str, Any] | None]:
    """The layers with what each multiplies, at the best shapes, and the plan's sums; None where nothing is told."""
    index = index_graph(model, {name: best for name, (_, best, _) in shapes.items()})
    listed = [Kernel.from_json(layer) for layer in layers]
    sized = at_best_shapes(listed, index)
    macs = macs_by_kernel(index, sized)
    counted = tuple(with_counts(listed, sized, macs))
    try:
        found = traffic(sized, macs)
    except ArtefactError:
        return counted, None  # no list, or of names alone: a warning says so, and who asks for bytes is told again
    total = found.total
    moved = PlanTraffic(total.read, total.written, total.weights, found.macs, len(found.untold))
    return counted, asdict(moved)


def _request(graph: Path, plan: Path, settings: BuildSettings, backend: Backend) -> dict[str, Any]:
    """What the child is told. It stops when this process is gone."""
    cache = settings.timing_cache
    paths = {"graph": str(graph), "plan": str(plan), "timing_cache": str(cache) if cache else None}
    return {**asdict(settings), **paths, "backend": backend, "parent": os.getpid()}


def check_settings(settings: BuildSettings, backend: Backend) -> None:
    """Raise UsageError for a value out of range and for a setting that the library does not have."""
    if settings.max_aux_streams not in AUX_STREAMS:
        raise UsageError(f"{settings.max_aux_streams} auxiliary streams: give {AUX_STREAMS[0]} to {AUX_STREAMS[-1]}")
    if settings.workspace is not None and settings.workspace < 1:
        raise UsageError(f"a workspace of {settings.workspace} bytes: give 1 or more")
    if settings.opt_level is not None and settings.opt_level not in OPT_LEVELS:
        raise UsageError(f"optimization level {settings.opt_level}: give {OPT_LEVELS[0]} to {OPT_LEVELS[-1]}")
    only_tensorrt = {"hardware compatibility": settings.hw_compat, "version compatibility": settings.version_compatible}
    if backend == "tensorrt_rtx":
        for name, value in only_tensorrt.items():
            if value:
                raise UsageError(
                    f"{name} is an option of TensorRT: a plan of TensorRT-RTX runs on every GPU that it was"
                    " compiled for (--sm), in its own version only; leave it out"
                )
    elif settings.sm:
        raise UsageError(
            f"--sm {','.join(map(str, settings.sm))} is an option of TensorRT-RTX; TensorRT builds for the GPU"
            " it runs on, leave it out or take --backend tensorrt_rtx"
        )
    if len(set(settings.sm)) != len(settings.sm):
        raise UsageError(f"--sm {','.join(map(str, settings.sm))} names a GPU twice")


def _check_target(graph: Path, plan: Path) -> None:
    """Raise HiresvitError for a name that cannot become a plan, before anything is built."""
    for path in (plan, sidecar_path(plan)):
        with naming_target(path):
            if path.is_dir():
                raise HiresvitError(f"cannot write {path}: it is a folder; choose another name")
            if path.exists() and path.samefile(graph):
                raise UsageError(f"{path} is the graph itself; choose another name for the plan")


def _run_builder(
    request: dict[str, Any], backend: Backend, on_progress: Callable[[str, float], None] | None
) -> dict[str, Any]:
    """Run the child, forward its progress, and return its result or raise its error."""
    phase = "starting"
    final: dict[str, Any] = {}

    def on_line(line: str) -> None:
        nonlocal phase
        event = json.loads(line)
        if "phase" not in event:
            final.update(event)
            return
        phase = event["phase"]
        if on_progress is not None:
            on_progress(phase, event["fraction"])

    child = run_child(["-m", _BUILDER, json.dumps(request)], on_line=on_line)
    if child.returncode == 0 and "result" in final:
        return dict(final["result"])
    if "error" in final:
        raise getattr(errors, final["error"])(final["message"])
    said = "".join(f"; {line}" for line in child.stderr[-2:])
    raise BuildError(
        f"{request['graph']}: engine build failed: the {TITLES[backend]} builder {child.outcome} at {phase!r}{said}"
    )
