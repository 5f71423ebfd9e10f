"""`hiresvit build`: from a graph's file to a plan's file, and the line that does the same without us."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hiresvit.bundle.folder import read_bundle
from hiresvit.bundle.stages import BUILDABLE
from hiresvit.device.plan import SUFFIXES, EngineReport, is_plan_file, sidecar_path
from hiresvit.device.tensorrt_api import BACKENDS, TITLES, Backend, installed, load
from hiresvit.engine.build import BuildSettings, build_engine, check_settings
from hiresvit.engine.config import find_capabilities
from hiresvit.engine.profiles import check_profiles
from hiresvit.engine.trtexec import ALWAYS_TYPED, trtexec_line
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.files import naming_target
from hiresvit.graph.file import load_graph
from hiresvit.runtime.preflight import installed_version

_OLDEST_MAJOR = 10
_SAME_SINCE = "10.9"  # TensorRT's "same compute capability"


@dataclass(frozen=True)
class Built:
    """What was written, the plan first, and the report of `build_engine`."""

    paths: tuple[Path, ...]
    report: EngineReport


def find_graph(source: Path, graph: str | None = None) -> Path:
    """The graph to build from: a file as it is, or of a bundle its ``graph`` (default: its FP16 graph).

    Raises UsageError for a role that is no graph, and as `read_bundle` does.
    """
    try:
        there = source.exists()
    except OSError as error:
        raise HiresvitError(f"cannot read {source}: {error.strerror}") from error
    if not source.is_dir():
        if graph is not None and there:
            raise UsageError(f"--graph picks a file of a bundle folder; {source} is one file")
        if not there and not source.suffix:
            from hiresvit.models.zoo import MODELS

            if str(source) in MODELS:
                raise UsageError(f"{source} is a model and no graph; first: hiresvit export {source} --fp16")
        return source
    if graph and graph not in BUILDABLE:
        raise UsageError(f"--graph {graph}: one of {', '.join(BUILDABLE)}")
    return read_bundle(source).path(graph or BUILDABLE[0])


def build_file(
    source: Path,
    target: Path | None,
    settings: BuildSettings,
    *,
    graph: str | None = None,
    force: bool = False,
    on_progress: Callable[[str, float], None] | None = None,
) -> Built:
    """Write a plan and its sidecar, and return what is known of them.

    Raises HiresvitError for files that are there already, and whatever `build_engine` raises.
    """
    path, plan = find_graph(source, graph), plan_name(source, target, graph)
    for one in (plan, sidecar_path(plan)):
        with naming_target(one):
            if one.exists() and not force:
                raise HiresvitError(f"{one} exists; pass --force to replace it or choose another --output")
    report = build_engine(path, plan, settings, replace=force, on_progress=on_progress)
    return Built((plan, sidecar_path(plan)), report)


def plan_name(source: Path, target: Path | None, graph: str | None) -> Path:
    """Where the plan goes: ``target``, or in the current folder ``STEM.plan``, or ``BUNDLE-fp16.plan``.

    Raises UsageError for a name that no runner would know as a plan.
    """
    if target is None:
        stem = f"{source.resolve().name}-{graph or BUILDABLE[0]}" if source.is_dir() else source.stem
        return Path(f"{stem}{SUFFIXES[0]}")
    if not is_plan_file(target):
        raise UsageError(f"--output {target}: a plan is written, give a name that ends in {' or '.join(SUFFIXES)}")
    return target


def trtexec_lines(
    source: Path, target: Path | None, settings: BuildSettings, graph: str | None = None
) -> list[dict[str, str]]:
    """What a build would be with NVIDIA's own programs: title and line, for the version that is installed here.

    A library that is not here has a line for each of its major versions, unless the settings do not fit it. Raises
    UsageError when they fit none, and as `build_engine` does on the graph.
    """
    path, plan = find_graph(source, graph), plan_name(source, target, graph)
    check_profiles(path, load_graph(path), settings.shapes)
    wanted = [backend for backend in BACKENDS if settings.backend in (None, backend)]
    if not wanted:
        raise UsageError(f"backend {settings.backend!r}: one of {', '.join(BACKENDS)}")
    lines, refused = [], []
    for backend in [*filter(installed, wanted)] or wanted:
        try:
            check_settings(settings, backend)
        except UsageError as error:
            refused.append(error)
            continue
        if settings.sm and installed(backend):
            find_capabilities(load(backend), settings.sm)
        for title, major in _versions(backend):
            note = ""
            if settings.timing_cache is not None and backend == "tensorrt_rtx":
                note = ", which has no timing cache"
            if settings.hw_compat == "same" and major == _OLDEST_MAJOR:
                note = f", from {_SAME_SINCE} on"
            line = trtexec_line(path, plan, settings, backend=backend, major=major)
            lines.append({"title": title + note, "line": line})
    if not lines:
        raise refused[0]
    return lines


def _versions(backend: Backend) -> list[tuple[str, int]]:
    """The versions to print a line for, as titles and major numbers."""
    if version := installed_version(backend):
        return [(f"{TITLES[backend]} {version}", int(version.partition(".")[0]))]
    majors = (_OLDEST_MAJOR, ALWAYS_TYPED) if backend == "tensorrt" else (1,)
    return [(f"{TITLES[backend]} {major}", major) for major in majors]
