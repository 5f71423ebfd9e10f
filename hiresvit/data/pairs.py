"""Pictures in files and what they show: which belong together, and the numbers in a label file.

Every data set on a disk is `Pairs`; what differs is where its files lie and what its numbers mean.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data.dataset import ClassList, Sample
from hiresvit.data.image import load_image
from hiresvit.errors import HiresvitError

Pair = tuple[str, str | int]  # a picture, and its labels' file or its class; paths in the data set's folder
LabelMap = NDArray[np.uint8] | NDArray[np.uint16]
MOST = 65535  # what 16 bits of a label can say
CONVERTED = "_labelTrainIds.png"  # how mmseg's converter of COCO-Stuff ends its files' names
_COLOURED = {2: "RGB", 4: "grey with alpha", 6: "RGB with alpha"}  # kinds of PNG; 0 is grey, 3 a palette
_SHOWN = 5  # wrong labels that a message names
_WANTED = "labels are numbers, write a PNG of 8-bit or 16-bit grey or with a palette"


class Pairs:
    """A data set on a disk.

    ``find`` lists what there is, when it is first asked for; ``read`` makes labels of a file, as the network numbers
    them. Raises what they raise and HiresvitError for files that do not belong together, then or when a sample is read.
    """

    exact = True
    upright = False  # of pictures as they are stored, which is what these labels were drawn on

    def __init__(
        self,
        name: str,
        root: Path,
        known: ClassList,
        find: Callable[[], Sequence[Pair]],
        read: Callable[[Path], LabelMap] | None = None,
    ) -> None:
        self.name, self.root = name, root
        self.task, self.classes, self.colours, self.ignore = known.task, known.classes, known.colours, known.ignore
        self.find, self.read = find, read or load_labels

    @cached_property
    def pairs(self) -> Sequence[Pair]:
        """Each picture with its labels, in the order of their numbers."""
        return self.find()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        name, truth = self.pairs[index]
        image = load_image(self.root / name, upright=self.upright)
        if isinstance(truth, int):
            return Sample(image, truth)
        labels = self.read(self.root / truth)
        if labels.shape != image.shape[:2]:
            sizes = [f"{height}x{width}" for height, width in (labels.shape, image.shape[:2])]
            turned = " (EXIF turns the picture, and not its labels)" if labels.T.shape == image.shape[:2] else ""
            raise HiresvitError(
                f"{self.root / truth} is {sizes[0]}, {self.root / name} {sizes[1]}{turned}; give a label for each pixel"
            )
        return Sample(image, labels)

    def name_of(self, index: int) -> str:
        """The picture's path in the folder."""
        return self.pairs[index][0]

    def files_of(self, index: int) -> tuple[Path, ...]:
        """The picture, and the labels where they are a file."""
        return tuple(self.root / part for part in self.pairs[index] if isinstance(part, str))


def find_place(root: Path, places: Sequence[str], layout: str) -> str:
    """The first of ``places`` that is a folder in ``root``, as it was given.

    Raises HiresvitError where none is, with the ``layout`` and, if it lies a folder higher or deeper, where.
    """
    if not os.path.isdir(root):
        raise HiresvitError(f"{root} is no folder; {layout}")
    for place in places:
        if os.path.isdir(root / place):
            return place
    root = Path(os.path.abspath(root))
    beside = [root.parent, root.parent.parent, *(root / name for name in names_in(root))]
    telling = [place for place in places if "/" in place]  # a folder val is in many data sets
    near = next((path for path in beside for place in telling if os.path.isdir(path / place)), None)
    meant = f" (but {near} has: give --data {near})" if near else ""
    raise HiresvitError(f"{root} has no folder {' or '.join(places)}{meant}; {layout}")


def names_in(folder: Path, *endings: str) -> list[str]:
    """What lies in a folder and ends so, sorted; hidden files (macOS keeps ._NAME beside NAME) are passed over.

    Raises HiresvitError if it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.name.endswith(endings or "") and not e.name.startswith("."))
    except OSError as error:
        raise HiresvitError(f"{folder} cannot be read: {error.strerror}") from None


def by_stem(root: Path, place: str, ending: str) -> dict[str, str]:
    """What lies in ``root / place`` and ends so, as paths in ``root``, by the name without the ending."""
    return {name.removesuffix(ending): f"{place}/{name}" for name in names_in(root / place, ending)}


def find_beside(root: Path, pictures: str, labels: str, layout: str) -> list[Pair]:
    """Pictures NAME.jpg of one folder with NAME.png of another, or where those are not with what mmseg made of them.

    Raises HiresvitError if either has none and for one without the other.
    """
    shown, found = by_stem(root, pictures, ".jpg"), by_stem(root, labels, CONVERTED)
    own = {name: path for name, path in by_stem(root, labels, ".png").items() if not path.endswith(CONVERTED)}
    require_some(shown, root / pictures, "*.jpg", layout)
    require_some(own or found, root / labels, "*.png", layout)
    return match(root, shown, own or found, layout)


def require_some(found: Collection[Any], folder: Path, what: str, layout: str) -> None:
    """Raise HiresvitError if nothing was found in ``folder`` of ``what`` is looked for."""
    if not found:
        raise HiresvitError(f"{folder}: no {what} in it; {layout}")


def match(root: Path, pictures: Mapping[str, str], labels: Mapping[str, str], rule: str) -> list[Pair]:
    """Pictures with the labels of the same name, both by that name and with their paths in ``root``.

    Raises HiresvitError, which says the ``rule``, if one of them is alone.
    """
    for first, second, what, other in (
        (pictures, labels, "pictures", "labels"),
        (labels, pictures, "label files", "picture"),
    ):
        if lonely := [path for name, path in first.items() if name not in second]:
            raise HiresvitError(
                f"{root}: {len(lonely)} of {len(first)} {what} have no {other}, the first is {root / lonely[0]}; {rule}"
            )
    return [(path, labels[name]) for name, path in pictures.items()]


def read_labels(path: Path, meaning: Mapping[int, int], allowed: str) -> LabelMap:
    """A file's numbers as labels (H, W), each as it is called in ``meaning``.

    Raises as `load_labels`, and HiresvitError, which says what is ``allowed``, for a number that means nothing.
    """
    numbers = load_labels(path)
    table = np.full(MOST + 1, -1, np.int32)
    table[list(meaning)] = list(meaning.values())
    labels = table[numbers]
    if labels.min(initial=0) < 0:
        raise HiresvitError(f"{path} has labels {_some(np.unique(numbers[labels < 0]).tolist())}; {allowed}")
    return labels.astype(np.uint16 if numbers.dtype == np.uint16 else np.uint8)


def load_labels(path: Path) -> LabelMap:
    """A PNG's numbers (H, W), as they are written: grey values of 1 to 16 bits, or indices into its palette.

    Raises HiresvitError for a file that is no PNG or a damaged one, and for one with colours.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large but still allowed sizes
            with Image.open(path, formats=["PNG"]) as picture, path.open("rb") as stream:
                depth, kind = stream.read(26)[24:]  # of IHDR, which is a PNG's first chunk
                values: NDArray[Any] = np.array(() if kind in _COLOURED else picture)
    except Exception as error:  # a damaged file makes Pillow's decoders raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HiresvitError(f"{path}: not a readable PNG ({reason}); {_WANTED}") from error
    if kind in _COLOURED:
        raise HiresvitError(f"{path} is {_COLOURED[kind]}; {_WANTED}")
    if kind == 0 and depth in (2, 4):  # which Pillow spreads over 8 bits
        values = values // (255 // (2**depth - 1))
    return values.astype(np.uint16 if depth == 16 else np.uint8)


def _some(values: Sequence[int]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(map(str, values[:_SHOWN])) + more
