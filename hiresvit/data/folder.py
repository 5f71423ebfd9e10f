"""A data set on a disk: pictures, what they show, and a list of the classes.

::

    DIR/classes.json                    the class list, see `hiresvit.data.class_list`
    DIR/images/**/NAME.jpg              task segment: a picture, and
    DIR/labels/**/NAME.png              the class of each of its pixels, an 8-bit or 16-bit grey or a palette PNG
    DIR/images/CLASS/**/NAME.jpg        task classify: the folder is called as the class

Labels are of the picture as it is seen: a picture is turned as its EXIF orientation says, its labels are not. Hidden
files are passed over.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data.class_list import read_class_list, spelling
from hiresvit.data.dataset import Colour, Sample
from hiresvit.data.preprocess import SUFFIXES, load_image
from hiresvit.errors import HiresvitError
from hiresvit.spec import Task

CLASS_LIST = "classes.json"
LAYOUT = (
    f"a data set is DIR/{CLASS_LIST} with DIR/images/NAME.jpg and DIR/labels/NAME.png,"
    " or with DIR/images/CLASS/NAME.jpg"
)
_COLOURED = {2: "RGB", 4: "grey with alpha", 6: "RGB with alpha"}  # kinds of PNG; 0 is grey, 3 a palette
_SHOWN = 5  # wrong labels that a message names


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
        pictures = _files(self.folder / "images", SUFFIXES)
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
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise HiresvitError(f"{folder}: no files here that end in {', '.join(suffixes)}; {LAYOUT}")
    return found


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
