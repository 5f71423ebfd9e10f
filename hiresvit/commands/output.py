"""What the command line writes: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.files import atomic_path
from hiresvit.progress import OnStep, silent
from hiresvit.report.harmless import harmless

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA_VERSION = 1
_SETTLED = 5.0  # seconds after which the speed of a step says something
INTERRUPTED = 130  # what a shell reports for SIGINT: 128 and the signal's number


class Stopped(KeyboardInterrupt):
    """A signal that asks the program to end; ``number`` says which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def answer(
    as_json: bool,
    document: dict[str, Any],
    items: Sequence[RenderableType],
    failure: BaseException | None = None,
    notes: Sequence[str] | None = None,
    *,
    save: Path | None = None,
) -> None:
    """Print a result, as a document or for people; a failure belongs to it and ends the program.

    ``notes`` are what is to be said of where it comes from: on stderr, and in the document. ``save`` is a file that
    the document is written to, too, whole or not at all; that it cannot be is a failure like another.
    """
    for note in notes or ():
        print_note(note)
    if notes is not None:
        document = {**document, "notes": list(notes)}
    if save is not None:
        try:
            with atomic_path(save) as temporary:
                temporary.write_text(json_text(document, failure) + "\n", encoding="utf-8")
            following = [] if failure else [f"next: hiresvit report {shlex.quote(str(save))}"]
            items = [*items, f"\nwrote {save}", *following]
        except HiresvitError as error:  # what took minutes to measure is shown all the same
            if failure:
                print_note(str(error))
            failure = failure or error
    if as_json:
        print_json(document, failure)
    else:
        from hiresvit.report.tables import render

        print_text(render(items))
    if failure:
        print_error(failure)
        raise typer.Exit(exit_code(failure))


def wrote_line(paths: Sequence[Path], began: float) -> str:
    """What was written, with sizes, and the seconds since ``began`` (of `time.monotonic`)."""
    from hiresvit.report.tables import size_text

    sizes = ", ".join(f"{path} ({size_text(path.stat().st_size)})" for path in paths)
    return f"\nwrote {sizes}, in {time.monotonic() - began:.1f} s"


def print_json(document: dict[str, Any], failure: BaseException | None = None) -> None:
    """Print the one document of ``--json``."""
    print_text(json_text(document, failure))


def json_text(document: dict[str, Any], failure: BaseException | None = None) -> str:
    """The document of ``--json``, which `answer` also writes to a file."""
    error = {"error": {"message": explain(failure), "exit_code": exit_code(failure)}} if failure else {}
    values = {"schema_version": SCHEMA_VERSION, **document, **error}
    return json.dumps(values, indent=2, allow_nan=False)


def print_text(text: str) -> None:
    """Print on stdout and see it through. Raises BrokenPipeError, and HiresvitError if the disk is full."""
    try:
        print(_encodable(harmless(text, sys.stdout.isatty()), sys.stdout), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon_stdout()
        raise HiresvitError(f"cannot write the result to stdout: {error.strerror}") from error


def _encodable(text: str, stream: TextIO) -> str:
    """With what a stream cannot say spelled out, as the bytes of a file's name that are no text."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def abandon_stdout() -> None:
    """Send what is still buffered nowhere; Python would fail on it once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(error: BaseException) -> None:
    """Print what went wrong as one line on stderr."""
    prefix = "" if isinstance(error, KeyboardInterrupt) or not expected(error) else "error: "
    print(_encodable(prefix + explain(error), sys.stderr), file=sys.stderr)


def print_note(text: str) -> None:
    """Print one line on stderr that is to be said beside a result."""
    print(_encodable(f"note: {harmless(' '.join(text.split()))}", sys.stderr), file=sys.stderr)


def expected(error: BaseException) -> bool:
    """Whether an exception is the user's or the machine's doing, and no mistake of ours."""
    ours = (HiresvitError, typer.TyperException, KeyboardInterrupt)
    return isinstance(error, ours) or _out_of_memory(error)


def explain(error: BaseException) -> str:
    """An exception in one line."""
    said = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    text = harmless(" ".join(said.split()))
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        return f"{text} (see `{context.command_path if context else 'hiresvit'} --help`)"
    if _out_of_memory(error):
        why = f" ({text})" if text else ""
        return f"out of memory{why}; close other programs or choose a smaller --imgsz"
    if expected(error):
        return text
    return f"internal error: {type(error).__name__}: {text}; set HIRESVIT_DEBUG=1 for the traceback"


def exit_code(error: BaseException) -> int:
    """The exit code of an exception."""
    if isinstance(error, HiresvitError):
        return error.exit_code
    if isinstance(error, typer.TyperException):
        return UsageError.exit_code
    if isinstance(error, Stopped):
        return 128 + error.number
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else HiresvitError.exit_code


def _out_of_memory(error: BaseException) -> bool:
    """PyTorch raises a RuntimeError where Python raises a MemoryError."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def load_onnxruntime() -> None:
    """Import ONNX Runtime without the warning that its native code then prints where it finds no GPU.

    No setting of ONNX Runtime turns it off (onnxruntime issue 27092), and a Jetson is such a machine.
    """
    with suppress(OSError):  # stderr is closed
        stderr = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        try:
            importlib.import_module("onnxruntime")
        except ImportError:
            pass  # whoever needs it says so
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.close(null)


def time_left(passed: float, start: float, fraction: float) -> str:
    """What is left of a step that took ``passed`` seconds from a share ``start`` to ``fraction``; "" below a minute."""
    if passed < _SETTLED or fraction <= start:
        return ""
    minutes = (1 - fraction) * passed / (fraction - start) / 60
    if minutes < 1:
        return ""
    return f", about {minutes:.0f} min left" if minutes < 90 else f", about {minutes / 60:.1f} h left"


@contextmanager
def progress() -> Iterator[OnStep]:
    """Yield ``on_step(name, fraction)``, which shows stages on stderr; ``a: b`` is a step of stage ``a``.

    Nothing is written where stderr is no terminal. The spinner rests while latency is measured: drawing it
    would take time from the calls that are timed.
    """
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    stage, began = "", time.monotonic()
    step, since, start = "", began, 0.0

    def finish() -> None:
        if stage:
            console.print(f"  {stage:<10} {time.monotonic() - began:6.1f} s")

    with console.status("", refresh_per_second=5) as status:

        def on_step(name: str, fraction: float | None) -> None:
            nonlocal stage, began, step, since, start
            name = harmless(name)
            if name != step:
                step, since, start = name, time.monotonic(), fraction or 0.0
            now = name.partition(":")[0]
            if now != stage:
                finish()
                stage, began = now, time.monotonic()
            if now == "latency":
                status.stop()
                console.print("  latency ...", end="\r")
                return
            left = "" if fraction is None else time_left(time.monotonic() - since, start, fraction)
            status.update(Text(name if fraction is None else f"{name} {fraction:.0%}{left}"))
            status.start()

        yield on_step
    finish()
