"""`hiresvit build`: a plan from a graph."""

from __future__ import annotations

import re
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import one_bundle
from hiresvit.errors import UsageError

if TYPE_CHECKING:
    from hiresvit.engine.build import BuildSettings
    from hiresvit.workflows.build_htp import BuiltContext

QNN = "qnn"


@dataclass(frozen=True)
class BuildOptions:
    """What a builder can be told."""

    backend: Annotated[
        str | None,
        typer.Option("--backend", help="tensorrt, tensorrt_rtx or qnn; default: what is installed of TensorRT."),
    ] = None
    shapes: opt.Shapes = None
    workspace: Annotated[
        float | None,
        typer.Option("--workspace", metavar="MIB", help="Most scratch memory; default: all there is."),
    ] = None
    timing_cache: Annotated[
        Path | None,
        typer.Option("--timing-cache", metavar="DIR", help="Keep TensorRT's measurements here.", readable=False),
    ] = None
    opt_level: Annotated[int | None, typer.Option("--opt-level", metavar="N", help="0 (quick) to 5; default: 3.")] = (
        None
    )
    aux_streams: Annotated[
        int, typer.Option("--aux-streams", metavar="N", help="Streams beside the first; each costs memory.")
    ] = 0
    hw_compat: Annotated[
        Literal["ampere+", "same"] | None,
        typer.Option("--hw-compat", help="TensorRT: also for other GPUs, or others of the same capability."),
    ] = None
    version_compatible: Annotated[
        bool,
        typer.Option("--version-compatible", help="TensorRT: a plan that later versions load, too."),
    ] = False
    sm: Annotated[
        str | None,
        typer.Option("--sm", metavar="86,89,120", help="TensorRT-RTX: the GPUs to compile for."),
    ] = None

    def settings(self) -> BuildSettings:
        """What they ask for. Raises UsageError on texts that cannot be read."""
        from hiresvit.engine.build import BuildSettings
        from hiresvit.engine.profiles import parse_shapes

        space = self.workspace
        if space is not None and not 1 <= space * 2**20 < 2**60:  # as an integer of 64 bits with room to spare
            raise UsageError(f"--workspace {space:g}: give a size in MiB, more than 0, as 512")
        numbers = self.sm.split(",") if self.sm is not None else []
        if not all(re.fullmatch(r" *\d{2,3} *", number, re.ASCII) for number in numbers):
            raise UsageError(f"--sm {self.sm}: give numbers such as 86,89,120")
        return BuildSettings(
            backend=self.backend,
            shapes=parse_shapes(self.shapes or ()),
            workspace=None if space is None else int(space * 2**20),
            timing_cache=self.timing_cache,
            opt_level=self.opt_level,
            max_aux_streams=self.aux_streams,
            hw_compat=self.hw_compat,
            version_compatible=self.version_compatible,
            sm=tuple(int(number) for number in numbers),
        )

    def refuse(self) -> None:
        """Raise UsageError for any that was given beside the backend: a context is for Qualcomm's HTP."""
        default = BuildOptions(backend=self.backend)
        if given := [name for name, value in vars(self).items() if value != getattr(default, name)]:
            raise UsageError(
                f"{', '.join(map(opt.option_name, given))}: of TensorRT; leave them out with --backend {QNN}"
            )


@dataclass(frozen=True)
class HtpOptions:
    """What a build for Qualcomm's HTP can be told."""

    target: Annotated[
        str | None, typer.Option("--target", metavar="CHIP", help="qnn: the chip to compile for, as ar1 or sm8650.")
    ] = None
    allow_cpu: Annotated[
        bool, typer.Option("--allow-cpu", help="qnn: leave what the HTP does not take to the CPU.")
    ] = False
    require_precision: Annotated[
        str | None,
        typer.Option("--require-precision", metavar="a16w8:95%", help="qnn: least share of the products in it."),
    ] = None

    def chip(self) -> str:
        """The chip's name. Raises UsageError without one."""
        if self.target is None:
            from hiresvit.device.chips import CHIPS

            raise UsageError(f"--backend {QNN} compiles for one chip: add --target, one of {', '.join(CHIPS)}")
        return self.target

    def refuse(self) -> None:
        """Raise UsageError for any that was given, since the build is TensorRT's."""
        if given := [name for name, value in vars(self).items() if value]:
            raise UsageError(f"{', '.join(map(opt.option_name, given))}: for --backend {QNN}, which is not given")


@opt.grouped
def build(
    graph: opt.BuildGraph,
    *,
    which: opt.BundleGraph = None,
    building: BuildOptions,
    htp: HtpOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build nothing; print the line for NVIDIA's own program.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Default: ./STEM.plan or ./BUNDLE-fp16.plan; for a chip ./BUNDLE-htp_a16w8-ar1.onnx.",
            readable=False,
        ),
    ] = None,
    force: opt.ForceFile = False,
    as_json: opt.Json = False,
) -> None:
    """Build a plan, or for Qualcomm's HTP a context, and say what became of the graph.

    Precision is in the graph: there is no option for it. Beside what is built is written what is known about it.
    """
    began = time.monotonic()
    if building.backend == QNN:
        building.refuse()
        if dry_run:
            raise UsageError(f"--dry-run prints NVIDIA's own line; --backend {QNN} has none: leave one of them out")
        _answer_context(as_json, graph, _build_context(graph, which, htp, output, force), began)
        return
    htp.refuse()
    settings, graph = building.settings(), one_bundle(graph)
    from hiresvit.report.results import engine_report
    from hiresvit.workflows.build import build_file, trtexec_lines

    if dry_run:
        lines = trtexec_lines(graph, output, settings, which)
        out.answer(as_json, {"lines": lines}, [f"# {line['title']}\n{line['line']}" for line in lines])
        return
    with out.progress() as on_step:
        made = build_file(
            graph,
            output,
            settings,
            graph=which,
            force=force,
            on_progress=lambda phase, done: on_step(f"build: {phase}", done),
        )
    plan = shlex.quote(str(made.paths[0]))
    following = f"run {plan} PHOTO.jpg" if made.report.device else f"inspect {plan}"
    engine = made.report.to_json()
    found = {"graph": str(graph), "output": [str(path) for path in made.paths], "engine": engine}
    items = [*engine_report(engine), out.wrote_line(made.paths, began), f"next: hiresvit {following}"]
    out.answer(as_json, found, items)


def _build_context(graph: Path, which: str | None, htp: HtpOptions, output: Path | None, force: bool) -> BuiltContext:
    chip, graph = htp.chip(), one_bundle(graph)
    from hiresvit.workflows.build_htp import build_htp

    with out.progress() as on_step:
        return build_htp(
            graph,
            output,
            chip,
            graph=which,
            force=force,
            allow_cpu=htp.allow_cpu,
            require=htp.require_precision,
            on_progress=lambda phase, _: on_step(f"build: {phase}", None),
        )


def _answer_context(as_json: bool, graph: Path, made: BuiltContext, began: float) -> None:
    from hiresvit.report.context import context_report

    report, paths = made.report.to_json(), made.paths
    found = {"graph": str(graph), "output": [str(path) for path in paths], "context": report}
    following = f"next: hiresvit run {shlex.quote(str(paths[0]))} PHOTO.jpg"
    out.answer(as_json, found, [*context_report(report), out.wrote_line(paths, began), following])
