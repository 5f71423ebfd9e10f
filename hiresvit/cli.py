"""The command line's entry: its commands, and what an error is for the shell.

Results go to stdout, progress and errors to stderr; with ``--json`` stdout is exactly one document. Exit codes
are those of `hiresvit.errors`, and 130 after Ctrl-C. Everything heavy is imported inside the command that needs
it, so that ``hiresvit --help`` is there at once.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from inspect import getdoc
from typing import Annotated

import typer

from hiresvit.commands import output as out
from hiresvit.commands.bench import bench
from hiresvit.commands.build import build
from hiresvit.commands.calibrate import calibrate
from hiresvit.commands.check import check
from hiresvit.commands.compare import compare
from hiresvit.commands.convert import convert
from hiresvit.commands.doctor import doctor
from hiresvit.commands.eval import evaluate
from hiresvit.commands.export import export
from hiresvit.commands.inspect import inspect
from hiresvit.commands.list import list_models
from hiresvit.commands.package import package
from hiresvit.commands.plan_sizes import plan_sizes
from hiresvit.commands.report import report
from hiresvit.commands.run import run
from hiresvit.commands.sweep import sweep
from hiresvit.commands.verify import verify
from hiresvit.errors import HiresvitError, UsageError, missing_extra, refused
from hiresvit.version import __version__

BROKEN_PIPE = 141  # what a shell reports for SIGPIPE

# In the order of --help.
COMMANDS: Mapping[str, Callable[..., None]] = {
    "list": list_models,
    "plan-sizes": plan_sizes,
    "export": export,
    "calibrate": calibrate,
    "build": build,
    "check": check,
    "convert": convert,
    "inspect": inspect,
    "verify": verify,
    "compare": compare,
    "bench": bench,
    "run": run,
    "eval": evaluate,
    "report": report,
    "package": package,
    "sweep": sweep,
    "doctor": doctor,
}

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


for _name, _command in COMMANDS.items():
    # Its first paragraph whole: the list of commands would cut it to a line.
    app.command(_name, short_help=(getdoc(_command) or "").partition("\n\n")[0])(_command)


def _stop(number: int, _frame: object) -> None:
    """Unwind as Ctrl-C does, so that nothing is left."""
    raise out.Stopped(number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; ``argv`` leaves out the program's name."""
    args = join_camera(list(sys.argv[1:] if argv is None else argv))
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
        error = refused(error) or error
        out.print_error(error)
        if "--json" in args:
            with suppress(OSError, HiresvitError):  # of two failures the first is the one to report
                out.print_json({}, error)
        return out.exit_code(error)


def join_camera(args: list[str]) -> list[str]:
    """``--contract camera 1080x1920``, in three words or two, as ``--contract camera:1080x1920``."""
    found: list[str] = []
    for arg in args:
        camera = found[-1:] == ["--contract=camera"] or found[-2:] == ["--contract", "camera"]
        if camera and re.fullmatch(r"\d+[xX]?\d*", arg, re.ASCII):
            found[-1] += f":{arg}"
        else:
            found.append(arg)
    return found


def _invoke(args: list[str]) -> int:
    """Typer's `main` without its own handling of errors."""
    try:
        with typer.main.get_command(app).make_context("hiresvit", list(args), obj=args) as context:
            context.command.invoke(context)
    except typer.Exit as leaving:
        return leaving.exit_code
    return 0
