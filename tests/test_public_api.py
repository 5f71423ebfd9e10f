"""The library as others call it: every public name is where it says, and looks as was agreed.

``tests/golden/public_api.txt`` has a line for each function; ``python tests/test_public_api.py`` writes it anew. What
differs then is a change for everybody who uses the library: read it, and put it into CHANGELOG.md.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest

import hiresvit

GOLDEN = Path(__file__).parent / "golden" / "public_api.txt"
RECIPE = "# Written by `python tests/test_public_api.py`; read what differs before you commit it.\n"
VERBS = [name for name in hiresvit.__all__ if name != "__version__"]


def shown(parameter: inspect.Parameter) -> str:
    """As in the source, nearly: what a default prints may hold an address, or an order that changes."""
    stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
    text = f"{stars}{parameter.name}: {parameter.annotation}"
    if parameter.default is inspect.Parameter.empty:
        return text
    default = parameter.default
    kind: Any = type(default)
    if is_dataclass(default) and default == kind():
        return f"{text} = {kind.__name__}()"
    if isinstance(default, frozenset):
        return f"{text} = {{{', '.join(map(repr, sorted(default)))}}}"
    return f"{text} = {default.__name__ if callable(default) else repr(default)}"


def signature(name: str, function: Any) -> str:
    """``name(parameter: type = default, *, ...) -> type`` in one line; a method leaves ``self`` out."""
    found = inspect.signature(function)
    parameters = [p for p in found.parameters.values() if p.name != "self"]
    by_name = [p.kind == inspect.Parameter.KEYWORD_ONLY for p in parameters]
    words = [shown(parameter) for parameter in parameters]
    if any(by_name):
        words.insert(by_name.index(True), "*")
    answer = "" if inspect.isclass(function) else f" -> {found.return_annotation}"
    return f"{name}({', '.join(words)}){answer}"


def described() -> str:
    """All of it: a class by what makes one and by its public methods."""
    lines = []
    for name in VERBS:
        value = getattr(hiresvit, name)
        lines.append(signature(name, value))
        if inspect.isclass(value):
            methods = {key: own for key, own in vars(value).items() if not key.startswith("_") and callable(own)}
            lines += [signature(f"{name}.{key}", own) for key, own in methods.items()]
    return RECIPE + "\n".join(lines) + "\n"


def test_signatures_are_as_agreed() -> None:
    assert described() == GOLDEN.read_text(encoding="utf-8"), f"run `python {Path(__file__).name}`; see its top"


def test_no_name_is_left_out_or_there_twice() -> None:
    assert sorted(hiresvit.__all__) == dir(hiresvit) == sorted(["__version__", *hiresvit._VERBS])


@pytest.mark.parametrize("name", VERBS)
def test_a_name_is_what_its_module_defines(name: str) -> None:
    value = getattr(hiresvit, name)
    home = importlib.import_module(hiresvit._VERBS[name])
    assert value is vars(home)[name]
    assert value.__module__ == home.__name__  # there, and not imported from elsewhere
    assert inspect.getdoc(value)


def test_type_checkers_see_the_same_modules() -> None:
    """What they read stands under TYPE_CHECKING, apart from the table that is used when it runs."""
    tree = ast.parse(Path(hiresvit.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (alias.name, node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == set(hiresvit._VERBS.items())


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'hiresvit' has no attribute 'qantize'"):
        hiresvit.qantize  # noqa: B018 (asking is what is tested)


if __name__ == "__main__":
    GOLDEN.write_text(described(), encoding="utf-8")
