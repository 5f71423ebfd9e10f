"""The command line: parse, call the library, print.

Results go to stdout, progress and errors to stderr; with ``--json`` stdout is exactly one document. Exit codes
are those of `hiresvit.errors`, and 130 after Ctrl-C. Everything heavy is imported inside the command that needs
it, so that ``hiresvit --help`` is there at once.
"""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.engine import build, check
from hiresvit.commands.export import calibrate, convert, export
from hiresvit.errors import GateError, HiresvitError, UsageError, missing_extra
from hiresvit.version import __version__

if TYPE_CHECKING:
    from hiresvit.workflows.open import Source

BROKEN_PIPE = 141  # what a shell reports for SIGPIPE

app = typer.Typer(
    help="From a PyTorch checkpoint of a high-resolution vision transformer to a verified engine on the edge.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print_text(f"hiresvit {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        out.print_text(context.get_help())
        raise typer.Exit(UsageError.exit_code)


@app.command("list")
def list_models(as_json: opt.Json = False) -> None:
    """List the models: tasks, sizes, parameters, MACs."""
    from hiresvit.models.zoo import MODELS
    from hiresvit.report.results import models_report
    from hiresvit.workflows.inspect import describe_model

    models = [describe_model(name) for name in MODELS]
    out.answer(as_json, {"models": models}, models_report(models))


app.command()(export)
app.command()(calibrate)
app.command()(build)
app.command()(check)
app.command()(convert)


@app.command()
def inspect(source: opt.Anything, as_json: opt.Json = False) -> None:
    """Verify a bundle and say what is in it."""
    out.load_onnxruntime()
    from hiresvit.report.results import inspect_report
    from hiresvit.workflows.inspect import inspect_source

    found = inspect_source(source)
    out.answer(as_json, found, inspect_report(found))


@app.command()
def compare(
    reference: opt.Anything,
    test: opt.Anything,
    *,
    weights: opt.Weights = None,
    ema: opt.Ema = False,
    allow_missing: opt.AllowMissing = None,
    task: opt.TaskOption = None,
    imgsz: opt.Imgsz = None,
    num_classes: opt.Classes = None,
    settings: opt.Settings = None,
    graph: opt.Graph = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture to compare on, too.")] = None,
    images: Annotated[int, typer.Option(min=0, help="How many drawn pictures to compare on.")] = 4,
    min_sqnr: opt.MinSqnr = None,
    min_cosine: opt.MinCosine = None,
    min_agreement: opt.MinAgreement = None,
    threads: opt.Threads = None,
    as_json: opt.Json = False,
) -> None:
    """Compare two networks' answers on pictures."""
    limits = opt.parse_limits(min_sqnr, min_cosine, min_agreement)
    options = opt.model_options(
        weights=weights,
        ema=ema,
        allow_missing=allow_missing,
        task=task,
        imgsz=imgsz,
        num_classes=num_classes,
        settings=settings,
    )
    from hiresvit.data.preprocess import load_image, preprocess
    from hiresvit.data.scenes import sample_images
    from hiresvit.evaluation import parity
    from hiresvit.report.results import parity_table

    pictures = [load_image(path) for path in image or ()]
    with ExitStack() as stack:
        a, b = _open(stack, [reference, test], options, graph, threads)
        spec = a.spec or b.spec
        if spec is None:
            raise UsageError("neither graph says how it takes a picture; one must be from hiresvit")
        pictures += sample_images(images, spec.imgsz)
        name = a.runner.inputs[0].name
        feeds = [{name: preprocess(picture, spec.preprocess, spec.imgsz)} for picture in pictures]
        report = parity.compare(a.runner, b.runner, feeds, spec.task)
    stage = {"stage": b.label, "gate": limits, "report": report.to_json()}
    found = {"reference": a.label, "task": spec.task, "images": len(feeds), "stages": [stage]}
    gate = parity.Gate(**(dict.fromkeys(opt.LIMITS, -math.inf) | limits))
    missed = parity.check_gate(report, gate, b.label)  # NaN and Inf miss any
    failure = GateError("; ".join(missed)) if missed else None
    out.answer(as_json, {"parity": found}, [parity_table(found)], failure)


@app.command()
def bench(
    sources: Annotated[list[str], typer.Argument(help="Model names, .onnx files or bundle folders.")],
    *,
    weights: opt.Weights = None,
    ema: opt.Ema = False,
    allow_missing: opt.AllowMissing = None,
    task: opt.TaskOption = None,
    imgsz: opt.Imgsz = None,
    num_classes: opt.Classes = None,
    settings: opt.Settings = None,
    graph: opt.Graph = None,
    min_s: Annotated[float, typer.Option(help="Seconds to measure each side for.")] = 3.0,
    budget_ms: Annotated[float | None, typer.Option(help="Most the median may take.")] = None,
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph", help="Launch the kernels of a plan as one.")
    ] = False,
    threads: opt.Threads = None,
    as_json: opt.Json = False,
) -> None:
    """Measure latency, several networks in turn."""
    for option, value in (("--min-s", min_s), ("--budget-ms", budget_ms)):
        if value is not None and not 0 <= value < math.inf:
            raise UsageError(f"{option} {value:g}: give a number of 0 or more")
    options = opt.model_options(
        weights=weights,
        ema=ema,
        allow_missing=allow_missing,
        task=task,
        imgsz=imgsz,
        num_classes=num_classes,
        settings=settings,
    )
    from hiresvit.report.results import latency_tables
    from hiresvit.workflows.bench import measure_sources

    with ExitStack() as stack:
        used = threads or len(os.sched_getaffinity(0))
        opened = _open(stack, sources, options, graph, threads, threads_used=used, cuda_graph=cuda_graph)
        latency = {"threads": used, **measure_sources(opened, min_s)}
    over = [
        f"{name}: the median is {side['median_ms']:.2f} ms, --budget-ms allows {budget_ms:g}"
        for name, side in latency["sides"].items()
        if budget_ms is not None and side["median_ms"] > budget_ms
    ]
    missed = GateError("; ".join(over)) if over else None
    out.answer(as_json, {"latency": latency}, latency_tables(latency), missed)


@app.command()
def run(
    source: opt.Anything,
    image: Annotated[Path, typer.Argument(help="A picture.")],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Overlay; default: ./IMAGE-segment.png")
    ] = None,
    weights: opt.Weights = None,
    ema: opt.Ema = False,
    allow_missing: opt.AllowMissing = None,
    task: opt.TaskOption = None,
    imgsz: opt.Imgsz = None,
    num_classes: opt.Classes = None,
    settings: opt.Settings = None,
    graph: opt.Graph = None,
    threads: opt.Threads = None,
    as_json: opt.Json = False,
) -> None:
    """Answer for one picture: overlay or top-5."""
    began = time.monotonic()
    options = opt.model_options(
        weights=weights,
        ema=ema,
        allow_missing=allow_missing,
        task=task,
        imgsz=imgsz,
        num_classes=num_classes,
        settings=settings,
    )
    target = _overlay_name(image, output)
    from hiresvit.data.preprocess import load_image
    from hiresvit.report.results import shares_table, top_table
    from hiresvit.report.tables import size_text
    from hiresvit.runtime.predictor import ClassifyResult, Predictor

    picture = load_image(image)
    with ExitStack() as stack:
        [opened] = _open(stack, [source], options, graph, threads)
        spec = opened.spec
        if spec is None:
            raise UsageError(f"{source} does not say what its answers mean; give one that hiresvit exported")
        if output and spec.task != "segment":
            raise UsageError(f"--output is for the overlay of a segmentation; the task is {spec.task}")
        found = Predictor(opened.runner, spec).predict(picture)
    document: dict[str, Any] = {"source": opened.label, "image": str(image), "task": spec.task}
    if isinstance(found, ClassifyResult):
        top = [{"class": index, "name": f"class {index}", "probability": p} for index, p in found.top]
        out.answer(as_json, document | {"top": top}, [top_table(top)])
        return
    shares = out.save_overlay(target, picture, found.labels, spec.num_classes)
    size = target.stat().st_size
    wrote = f"\nwrote {target}: {size_text(size)}, in {time.monotonic() - began:.1f} s"
    following = f"next: hiresvit bench {shlex.quote(source)}"
    document |= {"output": str(target), "bytes": size, "shares": shares}
    out.answer(as_json, document, [shares_table(shares), wrote, following])


def _overlay_name(image: Path, output: Path | None) -> Path:
    target = output or Path(f"{image.stem}-segment.png")
    if target.suffix.lower() != ".png":
        raise UsageError(f"--output {target}: the overlay is a PNG, give a name that ends in .png")
    if target.exists() and image.exists() and target.samefile(image):
        raise UsageError(f"--output {target}: this is the picture itself; choose another name")
    return target


@app.command("eval")
def evaluate(
    source: opt.Anything,
    *,
    dataset: Annotated[str, typer.Option(help="Labelled pictures: scenes.")],
    limit: Annotated[int | None, typer.Option(min=1, help="How many; default: 200 scenes.")] = None,
    weights: opt.Weights = None,
    ema: opt.Ema = False,
    allow_missing: opt.AllowMissing = None,
    task: opt.TaskOption = None,
    imgsz: opt.Imgsz = None,
    num_classes: opt.Classes = None,
    settings: opt.Settings = None,
    graph: opt.Graph = None,
    threads: opt.Threads = None,
    as_json: opt.Json = False,
) -> None:
    """Measure accuracy on labelled pictures."""
    options = opt.model_options(
        weights=weights,
        ema=ema,
        allow_missing=allow_missing,
        task=task,
        imgsz=imgsz,
        num_classes=num_classes,
        settings=settings,
    )
    from hiresvit.data.scenes import HELD_OUT_COUNT, find_dataset
    from hiresvit.evaluation import accuracy
    from hiresvit.report.int8 import accuracy_table

    make_dataset = find_dataset(dataset)
    with ExitStack() as stack:
        [opened] = _open(stack, [source], options, graph, threads)
        spec = opened.spec
        if spec is None:
            raise UsageError(f"{source} does not say what its answers mean; give one that hiresvit exported")
        pictures = make_dataset(HELD_OUT_COUNT if limit is None else limit, spec.imgsz)
        with out.progress() as on_step:
            found = accuracy.evaluate(opened.runner, spec, pictures, on_step=on_step)
    document = {"source": opened.label, **found.to_json()}
    out.answer(as_json, document, [accuracy_table(document)])


@app.command()
def doctor(as_json: opt.Json = False) -> None:
    """Try what is installed here."""
    out.load_onnxruntime()
    from hiresvit.report.results import doctor_tables
    from hiresvit.workflows.doctor import examine, missing

    found = examine()
    out.answer(as_json, found, doctor_tables(found), missing(found))


def _open(
    stack: ExitStack,
    texts: Sequence[str],
    options: dict[str, Any],
    graph: str | None,
    threads: int | None,
    *,
    threads_used: int | None = None,
    cuda_graph: bool = False,
) -> list[Source]:
    """Open what the texts name and close it with ``stack``; each option goes where it applies, or is refused.

    ``threads`` are what was asked for, ``threads_used`` what is taken where nothing was.
    """
    out.load_onnxruntime()
    from hiresvit.workflows.open import is_plan, open_source

    names = [text for text in texts if not Path(text).suffix and not Path(text).exists()]
    folders = [text for text in texts if Path(text).is_dir()]
    if options and not names:
        given = ", ".join(map(opt.option_text, options))
        raise UsageError(f"{given}: for a model name; {', '.join(texts)} brings its own")
    if graph and not folders:
        raise UsageError(f"--graph picks a file of a bundle folder; there is none in {', '.join(texts)}")
    plans = [is_plan(text, graph if text in folders else None) for text in texts]
    if threads and all(plans):
        raise UsageError(f"--threads {threads} is for PyTorch and ONNX Runtime; a plan runs on the GPU")
    if cuda_graph and not any(plans):
        raise UsageError(f"--cuda-graph is for a plan; there is none in {', '.join(texts)}")
    opened = []
    for text in texts:
        source = open_source(
            text,
            graph=graph if text in folders else None,
            threads=threads or threads_used,
            cuda_graph=cuda_graph,
            **(options if text in names else {}),
        )
        stack.enter_context(source.runner)
        for note in source.notes:
            print(f"note: {source.label}: {note}", file=sys.stderr)
        opened.append(source)
    return opened


def _stop(number: int, _frame: object) -> None:
    """Unwind as Ctrl-C does, so that nothing is left."""
    raise out.Stopped(number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; ``argv`` leaves out the program's name."""
    args = list(sys.argv[1:] if argv is None else argv)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by a shell; what we write is then nobody's
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (for as long as we run)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup wants it
                signal.signal(number, _stop)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a library's word to its developers
            return _invoke(args)
    except BrokenPipeError:
        out.abandon_stdout()
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as raised:
        error = missing_extra(raised) or raised
        if os.environ.get("HIRESVIT_DEBUG") == "1" and not out.expected(error):
            raise
        out.print_error(error)
        if "--json" in args:
            with suppress(OSError, HiresvitError):  # of two failures the first is the one to report
                out.print_json({}, error)
        return out.exit_code(error)


def _invoke(args: list[str]) -> int:
    """Typer's `main` without its own handling of errors."""
    try:
        with typer.main.get_command(app).make_context("hiresvit", list(args), obj=args) as context:
            context.command.invoke(context)
    except typer.Exit as leaving:
        return leaving.exit_code
    return 0
