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
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data.dataset import Colour, Sample
from hiresvit.data.image import load_image, readable_suffixes
from hiresvit.data.source import UNREADABLE, Found, walk
from hiresvit.errors import HiresvitError
from hiresvit.spec import Task

CLASS_LIST = "classes.json"
LAYOUT = (
    f"a data set is DIR/{CLASS_LIST} with DIR/images/NAME.jpg and DIR/labels/NAME.png,"
    " or with DIR/images/CLASS/NAME.jpg"
)
_COLOURED = {2: "RGB", 4: "grey with alpha", 6: "RGB with alpha"}  # kinds of PNG; 0 is grey, 3 a palette
_SHOWN = 5  # wrong labels that a message names
MOST = 65535  # what 16 bits of a label can say


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


class Folder:
    """The pictures under a folder, in the order of their names.

    Only the class list is read at first; what there is of pictures is looked up when it is first asked for. Raises
    HiresvitError on a list, pictures and labels that do not belong together, then or when a sample is read.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise HiresvitError(f"{folder} is no folder; {LAYOUT}")
        found = read_class_list(folder / CLASS_LIST)
        self.folder, self.name = folder, str(folder)
        self.task: Task = found.task
        self.classes: Mapping[int, str] = found.classes
        self.colours: Mapping[int, Colour] = found.colours
        self.ignore = found.ignore

    @cached_property
    def pairs(self) -> list[tuple[Path, Path | int]]:
        """Each picture with its labels: a file, or a class."""
        pictures = _files(self.folder / "images", readable_suffixes())
        if self.task == "classify":
            numbers = {_composed(name): index for index, name in self.classes.items()}
            return [(path, self._class_of(path, numbers)) for path in pictures]
        labels = _by_name(self.folder / "labels", _files(self.folder / "labels", (".png",)))
        shown = _by_name(self.folder / "images", pictures)
        for first, second, what in ((shown, labels, "picture"), (labels, shown, "label file")):
            if lonely := [path for name, path in first.items() if name not in second]:
                other = "labels" if first is shown else "picture"
                raise HiresvitError(
                    f"{self.folder}: {len(lonely)} of {len(first)} {what}s have no {other}, the first is {lonely[0]};"
                    " DIR/images/NAME.jpg goes with DIR/labels/NAME.png"
                )
        return [(path, labels[name]) for name, path in shown.items()]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        path, truth = self.pairs[index]
        image = load_image(path)
        if isinstance(truth, int):
            return Sample(image, truth)
        labels = load_labels(truth)
        if labels.shape != image.shape[:2]:
            sizes = [f"{height}x{width}" for height, width in (labels.shape, image.shape[:2])]
            turned = " (EXIF turns the picture, and not its labels)" if labels.T.shape == image.shape[:2] else ""
            raise HiresvitError(f"{truth} is {sizes[0]}, {path} {sizes[1]}{turned}; give a label for each pixel")
        self._check(truth, labels)
        return Sample(image, labels)

    def name_of(self, index: int) -> str:
        """The picture's path in the folder."""
        return self.pairs[index][0].relative_to(self.folder).as_posix()

    def _check(self, path: Path, labels: NDArray[Any]) -> None:
        wrong = [value for value in np.unique(labels).tolist() if value not in {*self.classes, self.ignore}]
        if wrong:
            more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            ignored = f", and {self.ignore} for none" if self.ignore >= 0 else ""
            raise HiresvitError(
                f"{path} has labels {', '.join(map(str, wrong[:_SHOWN]))}{more}; {CLASS_LIST} allows"
                f" {', '.join(map(str, sorted(self.classes)))}{ignored}: repair the labels or the list,"
                ' whose "ignore" is what counts for nothing'
            )

    def _class_of(self, path: Path, numbers: Mapping[str, int]) -> int:
        folder, *rest = path.relative_to(self.folder / "images").parts
        if not rest:
            raise HiresvitError(f"{path} lies in no class's folder; {LAYOUT}")
        if (number := numbers.get(_composed(folder))) is not None:
            return number
        meant = [name for name in self.classes.values() if spelling(name) == spelling(folder)]
        known = f"{meant[0]}, give both one spelling" if meant else ", ".join(self.classes.values())
        raise HiresvitError(f"{path}: {CLASS_LIST} has no class {folder}; it has {known}")


def load_labels(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """A PNG's numbers (H, W), as they are written: grey values of 1 to 16 bits, or indices into its palette.

    Raises HiresvitError for a file that is no PNG or a damaged one, and for one with colours.
    """
    wanted = "labels are numbers, write a PNG of 8-bit or 16-bit grey or with a palette"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large but still allowed sizes
            with Image.open(path, formats=["PNG"]) as picture, path.open("rb") as stream:
                depth, kind = stream.read(26)[24:]  # of IHDR, which is a PNG's first chunk
                values: NDArray[Any] = np.array(() if kind in _COLOURED else picture)
    except Exception as error:  # a damaged file makes Pillow's decoders raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HiresvitError(f"{path}: not a readable PNG ({reason}); {wanted}") from error
    if kind in _COLOURED:
        raise HiresvitError(f"{path} is {_COLOURED[kind]}; {wanted}")
    if kind == 0 and depth in (2, 4):  # which Pillow spreads over 8 bits
        values = values // (255 // (2**depth - 1))
    return values.astype(np.uint16 if depth == 16 else np.uint8)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    found = Found()
    if folder.is_dir():
        found.paths = sorted(walk(folder, suffixes, found))
    if UNREADABLE in found.left_out:
        raise HiresvitError(f"{found.left_out[UNREADABLE][1]} may not be read; give this user the right to")
    return found.require(str(folder), f"no files here that end in {', '.join(suffixes)}; {LAYOUT}").paths


def _by_name(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """By the path in the folder without its ending, which a picture and its labels share."""
    found: dict[str, Path] = {}
    for path in paths:
        name = _composed(str(path.relative_to(folder).with_suffix("")))
        if name in found:
            raise HiresvitError(f"{found[name]} and {path} have one name; its labels could be of either, rename one")
        found[name] = path
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
