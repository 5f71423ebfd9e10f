"""Groups of options: how they reach a command, and what their texts mean."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
import typer
from conftest import Cli
from graphs import build as build_graph
from graphs import content

from hiresvit.cli import COMMANDS
from hiresvit.commands import options as opt
from hiresvit.commands.limit_options import LimitOptions
from hiresvit.errors import UsageError
from hiresvit.evaluation.parity import GATES

PACKAGE = Path(inspect.getfile(opt)).parents[1]


@dataclass(frozen=True)
class Pair:
    """Two options."""

    one: Annotated[int, typer.Option("--one")] = 1
    two: Annotated[str | None, typer.Option("--two")] = None


def test_a_group_is_flattened_where_it_stands_and_comes_back_whole() -> None:
    got: list[Any] = []

    @opt.grouped
    def command(name: str, *, pair: Pair, last: bool = False) -> None:
        """What it does."""
        got.append((name, pair, last))

    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["name", "one", "two", "last"]
    assert [parameters[name].default for name in ("one", "two", "last")] == [1, None, False]
    assert command.__doc__ == "What it does."
    command(name="a", one=2, two="b", last=True)
    assert got == [("a", Pair(2, "b"), True)]


def test_what_a_command_leaves_out_has_its_default() -> None:
    got: list[Pair] = []

    @opt.grouped
    def command(pair: Annotated[Pair, opt.Without("one")]) -> None:
        got.append(pair)

    assert list(inspect.signature(command).parameters) == ["two"]
    command(two="b")
    assert got == [Pair(1, "b")]


def test_an_option_of_a_model_is_the_same_in_every_command() -> None:
    """Name, default and help of an option come from one place; ``convert`` and ``export`` have it, too."""
    flat = {name: inspect.signature(command).parameters for name, command in COMMANDS.items()}
    having = [name for name, parameters in flat.items() if "num_classes" in parameters]
    assert having == ["export", "convert", "compare", "bench", "run", "eval"]
    options = [flat[name]["num_classes"] for name in having]
    said = {(one.default, *vars(one.annotation.__metadata__[0]).values()).__repr__() for one in options}
    assert len(said) == 1


def test_no_function_of_the_package_takes_more_than_eight_parameters() -> None:
    """Those that have a name there; what a dataclass holds has its name where that is made."""
    long = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if len([name for name in names if name not in ("self", "cls")]) > 8:
                    long.append(f"{path.relative_to(PACKAGE)}: {node.name}")
    assert long == []


class TestLimits:
    @pytest.mark.parametrize("texts", [["onnx=30", "20"], ["20", "onnx=30"]])
    def test_what_is_said_of_a_stage_wins_in_any_order(self, texts: list[str]) -> None:
        gates = LimitOptions(min_sqnr=texts).gates(without=())
        assert gates.keys() == GATES.keys()
        assert {stage: gate.min_sqnr_db for stage, gate in gates.items()} == {
            stage: 30 if stage == "onnx" else 20 for stage in GATES
        }
        assert all(gates[stage].min_cosine == GATES[stage].min_cosine for stage in GATES)

    def test_the_last_of_two_for_one_stage_wins(self) -> None:
        assert LimitOptions(min_sqnr=["fp16=30", "fp16=40"]).gates(without=())["fp16"].min_sqnr_db == 40
        assert LimitOptions(min_cosine=["0.5", "0.6"]).limits() == {"min_cosine": 0.6}

    def test_a_stage_that_the_export_lacks(self) -> None:
        options = LimitOptions(min_sqnr=["int8=3"])
        with pytest.raises(UsageError, match="--min-sqnr int8=3: the stages of this export are onnx,"):
            options.gates(without=("int8",))


@pytest.mark.parametrize("typed", [(), ("--threads", "1")])
def test_bench_uses_the_threads_that_it_prints(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...]
) -> None:
    import json

    from hiresvit.runtime import onnxruntime_runner

    (tmp_path / "relu.onnx").write_bytes(content(build_graph("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }")))
    opened = []
    real = onnxruntime_runner.open_session

    def open_session(*args: Any, **options: Any) -> Any:
        session = real(*args, **options)
        opened.append(session.get_session_options().intra_op_num_threads)
        return session

    monkeypatch.setattr(onnxruntime_runner, "open_session", open_session)
    result = cli("bench", tmp_path / "relu.onnx", "--min-s", "0", *typed, "--json")
    assert result.code == 0, result.err
    assert opened == [json.loads(result.out)["latency"]["threads"]]


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_whole_whatever_the_width(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, command: str, columns: int
) -> None:
    """Typer cuts a command's text in the list of commands to what a line holds."""
    monkeypatch.setenv("COLUMNS", str(columns))
    result = cli(*command.split(), "--help")
    assert result.code == 0
    if command:
        texts = [inspect.getdoc(COMMANDS[command]), *(info.help for info in parameters(command))]
    else:
        texts = [(inspect.getdoc(one) or "").partition("\n\n")[0] for one in COMMANDS.values()]
    said = "".join(result.out.split())  # where a line is broken is no matter
    assert [text for text in texts if text and "".join(text.split()) not in said] == []
    assert max(map(len, result.out.splitlines())) <= columns


def parameters(command: str) -> list[Any]:
    """What describes the arguments and options of a command."""
    signature = inspect.signature(COMMANDS[command], eval_str=True)
    return [info for one in signature.parameters.values() for info in get_args(one.annotation)[1:]]


def test_what_cannot_be_read_is_said_by_who_reads_it() -> None:
    """Typer would look first: in other words, and with another exit code than what is not there."""
    looked_at = []
    for name, command in COMMANDS.items():
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            kind, *extra = get_args(parameter.annotation) or (parameter.annotation,)
            if "Path" in str(kind):
                looked_at.append((name, parameter.name, [info.readable for info in extra]))
    assert len(looked_at) > 10
    assert [row for row in looked_at if row[2] != [False]] == []
