"""The errors against the table that documents them, and what the command line makes of each."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from hiresvit import errors
from hiresvit.commands.output import exit_code, expected, explain
from hiresvit.errors import HiresvitError, UsageError, install_line, missing_extra

ERRORS: dict[str, type[HiresvitError]] = {
    name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, HiresvitError)
}


def documented() -> dict[str, tuple[str | None, int]]:
    """Parent and exit code by name, from the tree in the module's docstring."""
    found: dict[str, tuple[str | None, int]] = {}
    above: list[tuple[int, str]] = []  # column and name of the last on each level
    for line in (errors.__doc__ or "").splitlines():
        row = re.match(r"([ │├└─]*)([A-Z]\w+) +(\d) ", line)
        if row is None:
            continue
        column, name = len(row[1]), row[2]
        above = [(at, other) for at, other in above if at < column]
        found[name] = (above[-1][1] if above else None, int(row[3]))
        above.append((column, name))
    return found


def test_the_table_has_every_error_its_parent_and_its_exit_code() -> None:
    assert len(ERRORS) == 8
    assert documented() == {
        name: (None if error is HiresvitError else error.__bases__[0].__name__, error.exit_code)
        for name, error in ERRORS.items()
    }


def test_each_kind_of_failure_has_a_code_of_its_own() -> None:
    """BuilderRefusal is a BuildError to a script; everything else is told apart."""
    codes = [error.exit_code for name, error in ERRORS.items() if name != "BuilderRefusal"]
    assert sorted(codes) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("error", ERRORS.values())
def test_the_command_line_says_the_message_and_nothing_else(error: type[HiresvitError]) -> None:
    raised = error("x is 3: give 1 or 2")
    assert expected(raised)
    assert explain(raised) == "x is 3: give 1 or 2"
    assert exit_code(raised) == error.exit_code


def test_a_usage_error_is_pythons_own_too() -> None:
    with pytest.raises(ValueError, match="give 1 or 2"):
        raise UsageError("x is 3: give 1 or 2")
    assert not any(issubclass(error, ValueError) for error in ERRORS.values() if error is not UsageError)


@pytest.mark.parametrize(
    ("module", "name"),
    [("torch", "PyTorch"), ("onnx", "onnx"), ("onnxscript", "onnxscript"), ("onnxsim", "onnxsim")],
)
def test_a_library_of_the_extra_is_named_with_its_remedy(module: str, name: str) -> None:
    found = missing_extra(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert found is not None
    assert str(found) == f"this needs {name}, which is not installed: {install_line('export')}"
    assert found.exit_code == 6


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'torch.gone'", name="torch.gone"),  # torch is there, and another one
        ModuleNotFoundError("No module named 'numpy'", name="numpy"),
        ImportError("libc10.so: cannot open shared object file", name="torch"),
        KeyboardInterrupt(),
    ],
)
def test_any_other_failure_is_left_alone(error: BaseException) -> None:
    assert missing_extra(error) is None


def advised(place: Path, monkeypatch: pytest.MonkeyPatch, origin: str | None) -> str:
    """For a package that lies in ``place`` and that pip says it has from ``origin``."""
    monkeypatch.setattr(errors, "__file__", str(place / "hiresvit" / "errors.py"))
    known = SimpleNamespace(read_text=lambda _name: origin)
    monkeypatch.setattr("importlib.metadata.distribution", lambda _name: known)
    return install_line.__wrapped__("rtx")


def test_what_is_advised_names_where_the_package_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on no index: a bare ``pip install hiresvit[rtx]`` finds nothing, or somebody else's."""
    site, clone, wheel = tmp_path / "site", tmp_path / "my clone", tmp_path / "hiresvit-1-py3-none-any.whl"
    clone.mkdir()
    wheel.touch()
    origins = {
        f'{{"url": "{clone.as_uri()}", "dir_info": {{}}}}': f"pip install '{clone}[rtx]'",
        f'{{"url": "{wheel.as_uri()}", "archive_info": {{}}}}': f"pip install '{wheel}[rtx]'",
        '{"url": "https://a.example/h.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}': (
            "pip install 'hiresvit[rtx] @ git+https://a.example/h.git@abc'"
        ),
        '{"url": "https://a.example/h.whl", "archive_info": {}}': "pip install 'hiresvit[rtx] @ https://a.example/h.whl'",
    }
    assert {origin: advised(site, monkeypatch, origin) for origin in origins} == origins
    for nothing in (None, "", "{}", "no JSON"):
        assert advised(site, monkeypatch, nothing) == "pip install '.[rtx]' in a clone of hiresvit"
    (clone / "pyproject.toml").touch()
    assert advised(clone, monkeypatch, None) == f"pip install -e '{clone}[rtx]'"
