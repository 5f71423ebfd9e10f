"""What a network's answers are called: as somebody says, as its trainer wrote down, or as their number suggests.

Tables that are known by name lie in ``class_names/``, names and colours in the order of the networks' answers. They are
facts of the data sets: ADE20K's 150 classes with the colours of the MIT scene parsing benchmark, COCO-Stuff's 171 of
its labels.txt (those that are not in use left out) with mmseg's colours, ImageNet-1k's 1000 as torchvision calls them
with their WNIDs and their ids in the development kit (map_clsloc.txt).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.dataset import CITYSCAPES, IGNORE, ClassList, Colour, Dataset, Labels, check_fit, palette
from hiresvit.data.folder import read_class_list
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.spec import ModelSpec, Task

CHECKPOINT, FILE, DATASET, ASSUMED = "checkpoint", "file", "dataset", "assumed"
_LONGEST = 200  # characters of a name; ImageNet's longest has 31
_FILE = 2**24  # bytes of a list of names; ImageNet's in any of its forms has under a hundred thousand
_DEPTH, _ENTRIES = 5, 10_000  # how far names are looked for among what a checkpoint says about itself


@dataclass(frozen=True)
class Table:
    """A list of classes that is known by name: what it is called in a sentence, its task and how many it has."""

    title: str
    task: Task
    count: int


TABLES: Mapping[str, Table] = {
    "imagenet": Table("ImageNet-1k", "classify", 1000),
    "ade20k": Table("ADE20K", "segment", 150),
    "coco_stuff": Table("COCO-Stuff", "segment", 171),
    "cityscapes": Table("Cityscapes", "segment", 19),
    "coco": Table("COCO", "detect", 80),
}


def find_labels(spec: ModelSpec, dataset: Dataset | None = None, known: Labels | None = None) -> Labels:
    """The names and colours of a network's answers.

    They are the data set's; without one those that are ``known`` of the network; else those of the table that has as
    many, which is assumed and said (`assumption`); else ``class 0``, ``class 1`` and so on, as is what a data set
    leaves out. Raises UsageError if the network does not fit the data set, or ``known`` not the network.
    """
    count = spec.num_classes
    if dataset is not None:
        check_fit(spec, dataset)
        colours = palette(count)
        for index, colour in dataset.colours.items():
            colours[index] = colour
        return Labels(tuple(dataset.classes.get(i, f"class {i}") for i in range(count)), colours, DATASET)
    if known is not None:
        require_count(known, count)
        return known
    task = "segment" if spec.task == "masks" else spec.task  # the same classes
    for name, table in TABLES.items():
        if (table.task, table.count) == (task, count):
            found = read_table(name)
            return Labels(found.names, found.colours, f"{ASSUMED} {name}")
    return Labels(tuple(f"class {i}" for i in range(count)), palette(count), "")


def assumption(labels: Labels) -> str | None:
    """What is to be said where names are shown that nobody gave; None for those that somebody did."""
    assumed, _, name = labels.source.partition(" ")
    if assumed != ASSUMED:
        return None
    return f"{len(labels.names)} classes without names: taken for those of {TABLES[name].title}; --classes names others"


@cache
def read_table(name: str) -> Labels:
    """A table that is known by name."""
    if name == "cityscapes":
        return Labels(tuple(CITYSCAPES), np.array(list(CITYSCAPES.values()), np.uint8), name)
    rows = table_rows(name)
    names = tuple(row["name"] for row in rows)
    return Labels(names, _colours(names, [bytes.fromhex(row["colour"][1:]) for row in rows if "colour" in row]), name)


@cache
def table_rows(name: str) -> Sequence[Mapping[str, Any]]:
    """What lies in ``class_names``, a row for each class; of ImageNet also its WNID and the development kit's id."""
    if name == "coco":
        return table_rows("coco_stuff")[: TABLES[name].count]  # whose first classes are COCO's things, in its order
    rows: list[dict[str, Any]] = json.loads(
        (files("hiresvit.data") / "class_names" / f"{name}.json").read_text(encoding="utf-8")
    )
    return rows


def class_list(name: str) -> ClassList:
    """The classes of the data set that a table is of."""
    found, task = read_table(name), TABLES[name].task
    colours: dict[int, Colour] = {index: (r, g, b) for index, (r, g, b) in enumerate(found.colours.tolist())}
    return ClassList(task, dict(enumerate(found.names)), colours, IGNORE if task == "segment" else -1)


def read_classes(text: str, count: int) -> Labels:
    """The names that ``--classes`` means: a table's, or those of a file, for a network of ``count`` classes.

    A file is ``classes.json`` as a data set has it, a JSON list or object (``{"0": name}``, ``{"0": [id, name]}``,
    ``{name: 0}``), or text with a name on each line that does not start with #. Raises UsageError for another number of
    names and for what is neither, HiresvitError for a file that cannot be read.
    """
    path = Path(text)
    if text in TABLES:
        found = read_table(text)
    elif path.is_file():
        found = _read_file(path)
    elif path.suffix or len(path.parts) > 1 or path.exists():
        raise HiresvitError(f"--classes {text}: no such file; give a list of names, or one of {', '.join(TABLES)}")
    else:
        raise UsageError(f"--classes {text}: give a file, or one of {', '.join(TABLES)}")
    require_count(found, count, f"--classes {text}: ")
    return found


def require_count(labels: Labels, count: int, what: str = "") -> None:
    """Raise UsageError unless there is a name for each of ``count`` classes."""
    if len(labels.names) != count:
        raise UsageError(f"{what}{len(labels.names)} names for a network of {count} classes; give one for each")


def names_of_trainer(beside: Mapping[str, Any], count: int) -> tuple[Labels | None, str]:
    """The names that a checkpoint holds ``beside`` its weights for ``count`` classes, and what is to be said of others.

    Looked for at any depth: mmseg's ``meta: {CLASSES, PALETTE}``, mmengine's ``dataset_meta: {classes, palette}``,
    ``class_names``, ``class_to_idx`` and the like, as a list or by number. Names of another number of classes are of
    something else, for example of what the backbone was trained on first.
    """
    others: set[int] = set()
    for names, colours in _named(beside):
        if len(names) == count:
            return Labels(names, _colours(names, colours), CHECKPOINT), ""
        others.add(len(names))
    if not others or not count:
        return None, ""
    has = " and ".join(map(str, sorted(others)))
    return None, f"the file names {has} classes, the model has {count}: the names are left out"


def labels_to_json(labels: Labels) -> dict[str, Any]:
    """Plain JSON values; `labels_from_json` reads them back."""
    return {"names": list(labels.names), "colours": labels.colours.tolist(), "source": labels.source}


def labels_from_json(values: Any, count: int) -> Labels:
    """Rebuild labels for ``count`` classes. Raises KeyError, TypeError or ValueError on values that are none."""
    names, colours, source = values["names"], values["colours"], values["source"]
    if not isinstance(names, list) or len(names) != count:
        raise ValueError(f"labels are not the names of {count} classes")
    if not all(isinstance(text, str) and text == printable(text) for text in (*names, source)):
        raise ValueError("labels have a name that cannot be printed")
    if (rows := _rows(colours)) is None or len(rows) != count:
        raise ValueError(f"labels have not the colours of {count} classes")
    return labels_of(values)


def labels_of(values: Mapping[str, Any]) -> Labels:
    """Labels of values that were checked, as a bundle's manifest is."""
    colours = np.array(values["colours"], np.uint8).reshape(-1, 3)
    return Labels(tuple(values["names"]), colours, values["source"])


def printable(text: str) -> str:
    """A text from a file as one line of at most 200 characters that have no power over a terminal."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())[:_LONGEST].strip()


def _read_file(path: Path) -> Labels:
    try:
        if path.stat().st_size > _FILE:
            raise HiresvitError(f"{path} has {path.stat().st_size} bytes, too many for a list of names")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise HiresvitError(f"{path}: not a text file in UTF-8 ({error}); give a name on each line, or JSON") from error
    if path.suffix.lower() != ".json":
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        return _labels_of(path, lines)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HiresvitError(f"{path}: not a JSON file ({error}); write the list of names again") from error
    if isinstance(values, dict) and "classes" in values and "task" in values:
        listed = read_class_list(path)
        numbers = range(max(listed.classes) + 1)
        if missing := [i for i in numbers if i not in listed.classes]:
            raise UsageError(f"{path} has no class {missing[0]}; name every class from 0 to {numbers[-1]}")
        made = palette(len(numbers))
        for index, colour in listed.colours.items():
            made[index] = colour
        return Labels(tuple(printable(listed.classes[i]) or f"class {i}" for i in numbers), made, FILE)
    names = _names(values)
    if names is None:
        raise HiresvitError(f'{path} is no list of names; give ["road", "sidewalk"] or {{"0": "road"}}')
    return _labels_of(path, names)


def _labels_of(path: Path, names: Sequence[str]) -> Labels:
    if not names:
        raise HiresvitError(f"{path} has no names; give one on each line")
    shown = tuple(map(printable, names))
    if "" in shown:
        raise HiresvitError(f"{path}: the name of class {shown.index('')} cannot be printed; write it again")
    return Labels(shown, palette(len(shown)), FILE)


_NAME_KEYS = frozenset(
    {"classes", "class_names", "names", "label_names", "labels", "id2label", "idx_to_class", "label2id", "class_to_idx"}
)
_COLOUR_KEYS = ("palette", "colors", "colours")


def _named(values: Any, depth: int = 0) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each list of names in nested values, with the colours beside it."""
    if not isinstance(values, Mapping) or depth > _DEPTH or len(values) > _ENTRIES:
        return
    keys = {key.casefold(): value for key, value in values.items() if isinstance(key, str)}
    for key in sorted(_NAME_KEYS & keys.keys()):
        if names := _names(keys[key]):
            shown = tuple(printable(name) or f"class {i}" for i, name in enumerate(names))
            yield shown, next((keys[name] for name in _COLOUR_KEYS if name in keys), None)
    for value in values.values():
        yield from _named(value, depth + 1)


def _names(values: Any) -> list[str] | None:
    """Names in the order of their numbers: of a list, of ``{0: name}``, ``{0: [id, name]}`` or ``{name: 0}``."""
    if isinstance(values, Mapping):
        if len(values) > _ENTRIES:
            return None
        turned = all(type(value) is int for value in values.values())
        numbered = {str(value if turned else key): key if turned else value for key, value in values.items()}
        if numbered.keys() != {str(i) for i in range(len(values))}:
            return None
        values = [numbered[str(i)] for i in range(len(values))]
    if not isinstance(values, list | tuple) or not values or len(values) > _ENTRIES:
        return None
    last = [value[-1] if isinstance(value, list | tuple) and value else value for value in values]
    return [str(name) for name in last] if all(isinstance(name, str) for name in last) else None


def _colours(names: Sequence[str], given: Any) -> NDArray[np.uint8]:
    """The colours that were given for names, or others where they are no colours."""
    rows = _rows(given)
    return palette(len(names)) if rows is None or len(rows) != len(names) else np.array(rows, np.uint8)


def _rows(given: Any) -> list[list[int]] | None:
    """Rows of red, green and blue, None if it is anything else."""
    if not isinstance(given, list | tuple) or len(given) > _ENTRIES:
        return None
    rows = [list(row) for row in given if isinstance(row, list | tuple | bytes) and len(row) == 3]
    whole = all(type(value) is int and 0 <= value <= 255 for row in rows for value in row)
    return rows if whole and len(rows) == len(given) else None
