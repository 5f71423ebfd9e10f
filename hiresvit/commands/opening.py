"""Opening what a command line names: each option goes where it applies, or is refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.errors import HiresvitError, UsageError, missing_extra
from hiresvit.progress import OnStep, silent

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from hiresvit.workflows.open import Source, Unopened

_LONG = 5.0  # seconds for a picture that are to be said beforehand


def one_bundle(path: Path) -> Path:
    """The bundle that is alone in a folder which is none itself, said on stderr; any other path as it is."""
    from hiresvit.bundle.folder import bundles_in

    if len(inner := bundles_in(path)) != 1:
        return path
    out.print_note(f"{path} is no bundle, the one in it is taken: {inner[0]}")
    return inner[0]


class How(TypedDict, total=False):
    """How sides are opened: ``threads`` are what was asked for, ``threads_used`` what is taken where nothing was."""

    threads: int | None
    threads_used: int | None
    cuda_graph: bool


def open_sources(
    stack: ExitStack,
    sides: Sequence[tuple[str, str | None]],
    model: opt.ModelOptions,
    graph: str | None,
    **how: Unpack[How],
) -> list[Source]:
    """Open what texts name, each with the runner named beside it, and close it with ``stack``.

    A model name, or a checkpoint's file, is computed by PyTorch and is one side, however many runners are named; beside
    ``COMPILED`` it is another, and a file none. Raises UsageError for an option that applies to none, and whatever
    `open_source` raises.
    """
    from hiresvit.workflows.open import Unopened

    opened: list[Source] = []
    for side in _open_each(stack, sides, model, graph, **how):
        if isinstance(side, Unopened):
            raise side.error
        opened.append(side)
    return opened


def open_sides(
    stack: ExitStack,
    sides: Sequence[tuple[str, str | None]],
    model: opt.ModelOptions,
    graph: str | None,
    **how: Unpack[How],
) -> list[Source | Unopened]:
    """As `open_sources`, in their order with those that their runtime or device cannot start, each with its error.

    Raises what is a mistake in what was typed, an error of code 1 or 2, and the first error if no side starts.
    """
    from hiresvit.workflows.open import Unopened

    found: list[Source | Unopened] = []
    for side in _open_each(stack, sides, model, graph, **how):
        if isinstance(side, Unopened) and side.error.exit_code <= UsageError.exit_code:
            raise side.error
        found.append(side)
    failed = [side.error for side in found if isinstance(side, Unopened)]
    if failed and len(failed) == len(found):
        raise failed[0]
    return found


def _open_each(
    stack: ExitStack,
    sides: Sequence[tuple[str, str | None]],
    model: opt.ModelOptions,
    graph: str | None,
    *,
    threads: int | None = None,
    threads_used: int | None = None,
    cuda_graph: bool = False,
) -> Iterator[Source | Unopened]:
    options = model.given()
    out.load_onnxruntime()
    from hiresvit.models.zoo import names_checkpoint
    from hiresvit.workflows.open import COMPILED, Unopened, is_model, open_source

    found = {text: str(one_bundle(Path(text))) if text else text for text, _ in sides}
    sides = [(found[text], runner) for text, runner in sides]
    names = [text for text in found.values() if is_model(text)]
    folders = [text for text in found.values() if Path(text).is_dir()]
    _refuse_misplaced(sides, names, folders, options, graph=graph, threads=threads, cuda_graph=cuda_graph)
    without = {option: value for option, value in options.items() if option != "weights"}
    by_torch = set()
    for text, runner in sides:
        if runner == COMPILED and text not in names:
            continue
        if text in names and runner:
            if (text, runner == COMPILED) in by_torch:
                continue
            by_torch.add((text, runner == COMPILED))
        try:
            with _compiling(text, runner) as on_step:
                source = open_source(
                    text,
                    graph=graph if text in folders else None,
                    runner=runner if runner == COMPILED or text not in names else None,
                    threads=threads or threads_used,
                    cuda_graph=cuda_graph,
                    on_step=on_step,
                    **({} if text not in names else without if names_checkpoint(text) else options),
                )
        except (HiresvitError, ModuleNotFoundError) as raised:
            error = raised if isinstance(raised, HiresvitError) else missing_extra(raised)
            if error is None:
                raise
            yield Unopened(f"{text}{f' ({runner})' if runner else ''}", error)
            continue
        stack.enter_context(source.runner)
        if source.waits is not None and source.waits >= _LONG:
            out.print_note(
                f"{source.label}: about {source.waits:.0f} s for each picture; at a smaller --imgsz it is less"
            )
        yield source


@contextmanager
def _compiling(text: str, runner: str | None) -> Iterator[OnStep]:
    """Progress where opening takes long: a graph is compiled for an HTP, and its golden pair may be emulated."""
    from hiresvit.runtime.open import chip_of_runner

    if not chip_of_runner(runner):
        yield silent
        return
    with out.progress() as on_step:
        on_step(f"compile: {text} for the HTP", None)
        yield on_step


def _refuse_misplaced(
    sides: Sequence[tuple[str, str | None]],
    names: Collection[str],
    folders: Collection[str],
    options: Mapping[str, Any],
    *,
    graph: str | None,
    threads: int | None,
    cuda_graph: bool,
) -> None:
    """Raise UsageError for an option that applies to none of the sides."""
    from hiresvit.models.zoo import names_checkpoint
    from hiresvit.runtime.open import chip_of_runner
    from hiresvit.workflows.open import COMPILED, is_plan

    texts = list(dict.fromkeys(text for text, _ in sides))
    listed = ", ".join(texts)
    if options and not names:
        given = ", ".join(map(opt.option_text, options))
        raise UsageError(f"{given}: for a model name; {listed} brings its own")
    if "weights" in options and all(map(names_checkpoint, names)):
        raise UsageError(f"--weights {options['weights']}: {', '.join(names)} is a checkpoint itself; leave it out")
    if any(runner == COMPILED for _, runner in sides) and not names:
        raise UsageError(f"--compile is for a model name; {listed} brings its own")
    named = {text for text, runner in sides if runner and runner != COMPILED}
    if named and named.issubset(names):
        raise UsageError(f"--runner picks what opens a file; {', '.join(sorted(named))} is computed by PyTorch")
    if graph and not folders:
        raise UsageError(f"--graph picks a file of a bundle folder; there is none in {listed}")
    plans = [is_plan(text, graph if text in folders else None) for text in texts]
    elsewhere = [is_plan(text, graph if text in folders else None) or chip_of_runner(how) for text, how in sides]
    if threads and all(elsewhere):
        raise UsageError(f"--threads {threads} is for what computes on the CPU; a plan runs on the GPU, qnn on the HTP")
    if cuda_graph and not any(plans):
        raise UsageError(f"--cuda-graph is for a plan; there is none in {listed}")


def notes_of(sides: Sequence[Source | Unopened]) -> list[str]:
    """What is to be said of those that opened beside an answer, each once."""
    from hiresvit.workflows.open import Source

    opened = [side for side in sides if isinstance(side, Source)]
    return list(dict.fromkeys(f"{source.label}: {note}" for source in opened for note in source.notes))
