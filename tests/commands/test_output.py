"""How a command ends: a signal, an error, a mistake of ours, each with its exit code and one line."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import typer
from conftest import Cli

from hiresvit.commands.output import INTERRUPTED, Stopped, exit_code, explain
from hiresvit.report import results

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture
def _own_handlers() -> Iterator[None]:
    """Those that a program starts with, and afterwards those of the tests."""
    before = {number: signal.getsignal(number) for number in CODES}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_own_handlers")
@pytest.mark.parametrize(("number", "code"), list(CODES.items()))
def test_a_signal_ends_with_its_own_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    """As a shell counts: 128 and the signal's number. It comes in the middle of a command."""
    monkeypatch.setattr(results, "models_report", lambda _: os.kill(os.getpid(), number))
    result = cli("list")
    assert (result.code, result.out, result.err) == (code, "", "interrupted\n")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
        (Stopped(signal.SIGTERM), 143, "interrupted"),
        (Stopped(signal.SIGHUP), 129, "interrupted"),
        (typer.BadParameter("no size"), 2, "Invalid value: no size (see `hiresvit --help`)"),
        (MemoryError(), 1, "out of memory; close other programs or choose a smaller --imgsz"),
        (KeyError("x"), 1, "internal error: KeyError: 'x'; set HIRESVIT_DEBUG=1 for the traceback"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_is_said_of_an_exception(error: BaseException, code: int, said: str) -> None:
    assert (exit_code(error), explain(error)) == (code, said)
