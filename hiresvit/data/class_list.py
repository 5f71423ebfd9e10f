"""``classes.json``: which labels a data set on a disk uses, what they are called, and how they are painted.

::

    {"task": "segment", "ignore": 255, "classes": [
      {"index": 0, "name": "road", "colour": "#804080"},
      {"index": 1, "name": "sidewalk"}]}
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiresvit.data.dataset import Colour
from hiresvit.errors import HiresvitError
from hiresvit.spec import Task

MOST = 65535  # what 16 bits of a label can say
NOTHING_IGNORED = -1


@dataclass(frozen=True)
class ClassList:
    """Names and, where they are given, colours by the class's number; ``ignore`` is -1 where nothing is ignored."""

    task: Task
    classes: Mapping[int, str]
    colours: Mapping[int, Colour]
    ignore: int


def read_class_list(path: Path) -> ClassList:
    """Read ``classes.json``, with or without a byte order mark. Raises HiresvitError, naming the file and the entry."""
    values = _load(path)
    _check_keys(path, "it", values, ("task", "classes"), ("ignore",))
    task, ignore, entries = values["task"], values.get("ignore", NOTHING_IGNORED), values["classes"]
    if task not in ("segment", "classify"):
        raise HiresvitError(f'{path}: task is {_shown(task)}; give "segment" or "classify"')
    if "ignore" in values and (task == "classify" or not _is_label(ignore)):
        raise HiresvitError(
            f"{path}: ignore is {_shown(ignore)}; it is a label from 0 to {MOST}, and only segmentation has one"
        )
    if not isinstance(entries, list) or not entries:
        raise HiresvitError(f'{path}: classes is {_shown(entries)}; give a list of {{"index": 0, "name": "road"}}')
    classes: dict[int, str] = {}
    colours: dict[int, Colour] = {}
    spellings: dict[str, str] = {}
    for number, entry in enumerate(entries):
        where = f"class {number} of the list"
        _check_keys(path, where, entry, ("index", "name"), ("colour",))
        index, name, colour = entry["index"], entry["name"], entry.get("colour")
        if not _is_label(index) or index == ignore:
            raise HiresvitError(f"{path}: {where} has index {_shown(index)}; give 0 to {MOST}, but not the ignored one")
        if not isinstance(name, str) or not name.strip():
            raise HiresvitError(f"{path}: {where} is called {_shown(name)}; give a name")
        if index in classes:
            raise HiresvitError(f"{path}: {classes[index]} and {name} both have index {index}; give each its own")
        if (other := spellings.setdefault(spelling(name), name)) != name or name in classes.values():
            raise HiresvitError(f"{path}: {other} and {name} are one name twice; give each class a name of its own")
        classes[index] = name
        if colour is not None:
            if not isinstance(colour, str) or not re.fullmatch("#[0-9a-fA-F]{6}", colour):
                raise HiresvitError(f"{path}: the colour of {name} is {_shown(colour)}; give #rrggbb, as #804080")
            red, green, blue = bytes.fromhex(colour[1:])
            colours[index] = red, green, blue
    return ClassList(task, classes, colours, ignore)


def spelling(name: str) -> str:
    """What names that differ in case, spaces, hyphens and underscores have in common."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name)).strip().casefold()


def _load(path: Path) -> Any:
    if not path.is_file():
        raise HiresvitError(f"{path}: no such file; a data set on a disk needs a list of its classes")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: neither UTF-8 nor JSON
        raise HiresvitError(f"{path}: not a JSON file in UTF-8 ({error}); write the list of classes again") from error


def _check_keys(path: Path, what: str, entry: Any, needed: Collection[str], allowed: Collection[str]) -> None:
    names = ", ".join([*needed, *(f"perhaps {name}" for name in allowed)])
    if not isinstance(entry, dict):
        raise HiresvitError(f"{path}: {what} is {_shown(entry)}; give an object with {names}")
    if missing := [name for name in needed if name not in entry]:
        raise HiresvitError(f"{path}: {what} has no {missing[0]}; give {names}")
    if foreign := [name for name in entry if name not in (*needed, *allowed)]:
        raise HiresvitError(f"{path}: {what} has {_shown(foreign[0])}, which means nothing here; give {names}")


def _is_label(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
