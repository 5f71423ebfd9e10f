"""`hiresvit build --backend qnn`: from a graph's file to a context for a chip with Qualcomm's HTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiresvit.bundle.folder import read_bundle
from hiresvit.bundle.stages import BUILDABLE, GRAPHS, HTP, either, htp_stages
from hiresvit.device.chips import Chip, find_chip
from hiresvit.device.context import HtpReport, context_files
from hiresvit.engine.htp import build_context
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.files import naming_target
from hiresvit.workflows.build import find_graph

SUFFIX = ".onnx"


@dataclass(frozen=True)
class BuiltContext:
    """What was written, the ONNX file first, then binary and sidecar; and the report."""

    paths: tuple[Path, Path, Path]
    report: HtpReport


def build_htp(
    source: Path,
    target: Path | None,
    chip: str,
    *,
    graph: str | None = None,
    force: bool = False,
    allow_cpu: bool = False,
    require: str | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> BuiltContext:
    """Write a context, the binary that it names and a sidecar, of a graph's file or of a bundle's form for the chip.

    Raises UsageError for an unknown chip and for a bundle without a form that it takes, HiresvitError for files that
    are there already, and whatever `build_context` raises.
    """
    row = find_chip(chip)
    role = find_form(source, row, graph)
    path = read_bundle(source).path(role) if role else find_graph(source, graph)
    context = context_name(source, target, row, role)
    for one in context_files(context):
        with naming_target(one):
            if one.exists() and not force:
                raise HiresvitError(f"{one} exists; pass --force to replace it or choose another --output")
    report = build_context(
        path, context, row, replace=force, allow_cpu=allow_cpu, require=require, on_progress=on_progress
    )
    return BuiltContext(context_files(context), report)


def find_checked(source: Path, chips: Sequence[Chip], graph: str | None) -> Path:
    """The graph to check for chips: a file as it is, or of a bundle the form that all of them take.

    A bundle without one gives the graph for TensorRT, if it has that. Raises as `find_graph` and `find_form` do.
    """
    strictest = min(chips, key=lambda chip: chip.fp16)
    if source.is_dir() and graph is None:
        has = {entry.role for entry in read_bundle(source).manifest.files}
        if BUILDABLE[0] in has and not htp_stages(has, fp16=strictest.fp16):
            return find_graph(source)
    role = find_form(source, strictest, graph)
    return read_bundle(source).path(role) if role else find_graph(source, graph)


def find_form(source: Path, chip: Chip, graph: str | None) -> str | None:
    """The stage of a bundle to compile: ``graph``, else the first form that fits the chip; None for one file.

    Raises UsageError with what the bundle has and the command that makes what is missing.
    """
    if not source.is_dir():
        return None
    bundle = read_bundle(source)
    has = [entry.role for entry in bundle.manifest.files if entry.role in GRAPHS]
    if graph in has:
        return graph
    fitting = htp_stages(has, fp16=chip.fp16)
    if graph is None and fitting:
        return fitting[0]
    forms = {stage: form for form, stage in HTP.items()}
    form = forms.get(graph or "", "fp16" if chip.fp16 else "a16w8")
    calib = "" if form == "fp16" else " --calib DIR"
    spec = bundle.manifest.spec
    missing = f"no {graph}" if graph else f"no form for {chip}"
    raise UsageError(
        f"{source} has {missing}, only {either(has) if len(has) > 1 else has[0]}: hiresvit export"
        f" {spec.name} --htp {form} --target {chip.name}{calib} makes one"
    )


def context_name(source: Path, target: Path | None, chip: Chip, role: str | None) -> Path:
    """Where the context goes: ``target``, or in the current folder ``BUNDLE-htp_a16w8-ar1.onnx`` or ``STEM-ar1.onnx``.

    Raises UsageError for another suffix.
    """
    if target is None:
        stem = f"{source.resolve().name}-{role}" if role else source.stem
        return Path(f"{stem}-{chip.name}{SUFFIX}")
    if target.suffix.lower() != SUFFIX:
        raise UsageError(
            f"--output {target}: a context is an ONNX file and its binary, give a name that ends in {SUFFIX}"
        )
    return target
