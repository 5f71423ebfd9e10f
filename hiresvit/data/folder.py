"""A data set on a disk: pictures, what they show, and a list of the classes.

::

    DIR/classes.json                    the list of classes
    DIR/images/**/NAME.jpg              task segment: a picture, and
    DIR/labels/**/NAME.png              the class of each of its pixels, an 8-bit or 16-bit grey or a palette PNG
    DIR/images/CLASS/**/NAME.jpg        task classify: the folder is called as the class

The list says which labels there are, what they are called and how they are painted::

    {"task": "segment", "ignore": 255, "classes": [
      {"index": 0, "name": "road", "colour": "#804080"},
      {"index": 1, "name": "sidewalk"}]}

Labels are of the picture as it is seen: a picture is turned as its EXIF orientation says, its labels are not. Hidden
files are passed over.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from hiresvit.data.dataset import ClassList, Colour
from hiresvit.data.image import readable_suffixes
from hiresvit.data.pairs import MOST, LabelMap, Pair, Pairs, match, read_labels
from hiresvit.data.source import UNREADABLE, Found, walk
from hiresvit.errors import HiresvitError

CLASS_LIST = "classes.json"
LAYOUT = (
    f"a data set is DIR/{CLASS_LIST} with DIR/images/NAME.jpg and DIR/labels/NAME.png,"
    " or with DIR/images/CLASS/NAME.jpg"
)


def read_class_list(path: Path) -> ClassList:
    """Read ``classes.json``, with or without a byte order mark. Raises HiresvitError, naming the file and the entry."""
    values = _load(path)
    _check_keys(path, "it", values, ("task", "classes"), ("ignore",))
    task, ignore, entries = values["task"], values.get("ignore", -1), values["classes"]
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


class Folder(Pairs):
    """The pictures under a folder, in the order of their names.

    Only the class list is read at first; what there is of pictures is looked up when it is first asked for. Raises
    HiresvitError on a list, pictures and labels that do not belong together, then or when a sample is read.
    """

    exact, upright = False, True

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise HiresvitError(f"{folder} is no folder; {LAYOUT}")
        super().__init__(str(folder), folder, read_class_list(folder / CLASS_LIST), self._find, self._read)

    def _find(self) -> list[Pair]:
        pictures = _files(self.root / "images", readable_suffixes())
        if self.task == "classify":
            numbers = {_composed(name): index for index, name in self.classes.items()}
            return [(str(path.relative_to(self.root)), self._class_of(path, numbers)) for path in pictures]
        labels = _files(self.root / "labels", (".png",))
        rule = "DIR/images/NAME.jpg goes with DIR/labels/NAME.png"
        return match(self.root, _by_name(self.root, pictures), _by_name(self.root, labels), rule)

    def _read(self, path: Path) -> LabelMap:
        allowed = sorted(self.classes)
        ignored = [self.ignore] if self.ignore >= 0 else []
        return read_labels(
            path,
            {value: value for value in allowed + ignored},
            f"{CLASS_LIST} allows {', '.join(map(str, allowed))}{f', and {self.ignore} for none' if ignored else ''}:"
            ' repair the labels or the list, whose "ignore" is what counts for nothing',
        )

    def _class_of(self, path: Path, numbers: Mapping[str, int]) -> int:
        folder, *rest = path.relative_to(self.root / "images").parts
        if not rest:
            raise HiresvitError(f"{path} lies in no class's folder; {LAYOUT}")
        if (number := numbers.get(_composed(folder))) is not None:
            return number
        meant = [name for name in self.classes.values() if spelling(name) == spelling(folder)]
        known = f"{meant[0]}, give both one spelling" if meant else ", ".join(self.classes.values())
        raise HiresvitError(f"{path}: {CLASS_LIST} has no class {folder}; it has {known}")


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    found = Found()
    if folder.is_dir():
        found.paths = sorted(walk(folder, suffixes, found))
    if UNREADABLE in found.left_out:
        raise HiresvitError(f"{found.left_out[UNREADABLE][1]} may not be read; give this user the right to")
    return found.require(str(folder), f"no files here that end in {', '.join(suffixes)}; {LAYOUT}").paths


def _by_name(root: Path, paths: Iterable[Path]) -> dict[str, str]:
    """By the path in images/ or labels/ without its ending, which a picture and its labels share."""
    found: dict[str, str] = {}
    for path in paths:
        inside = path.relative_to(root)
        name = _composed(str(Path(*inside.parts[1:]).with_suffix("")))
        if name in found:
            other = root / found[name]
            raise HiresvitError(f"{other} and {path} have one name; its labels could be of either, rename one")
        found[name] = str(inside)
    return found


def _composed(name: str) -> str:
    """Some systems write é as one character and some as two."""
    return unicodedata.normalize("NFC", name)


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
