"""Cityscapes as its two archives unpack it: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip.

::

    DIR/leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png
    DIR/gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png
"""

from __future__ import annotations

from pathlib import Path

from hiresvit.data.dataset import IGNORE
from hiresvit.data.labels import class_list
from hiresvit.data.pairs import LabelMap, Pair, Pairs, by_stem, find_place, match, names_in, read_labels, require_some

LAYOUT = (
    "Cityscapes is DIR/leftImg8bit/val/CITY/*_leftImg8bit.png with DIR/gtFine/val/CITY/*_gtFine_labelIds.png"
    " or *_gtFine_labelTrainIds.png"
)
_PICTURE = "_leftImg8bit.png"
_IDS, _TRAIN_IDS = "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
# The ids of the 19 classes that are evaluated, in the order of their train ids; 0 to 33 are used (cityscapesScripts,
# labels.py).
_EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_BY_ID = dict.fromkeys(range(34), IGNORE) | {number: index for index, number in enumerate(_EVALUATED)}
_BY_TRAIN_ID = {number: number for number in (*range(19), IGNORE)}


def open_cityscapes(root: Path, split: str) -> Pairs:
    """A split in its true layout. Raises HiresvitError for another one; what lies in it is listed later."""
    find_place(root, [f"leftImg8bit/{split}"], LAYOUT)
    find_place(root, [f"gtFine/{split}"], LAYOUT)
    return Pairs(f"cityscapes {split}", root, class_list("cityscapes"), lambda: _find(root, split), _read)


def _find(root: Path, split: str) -> list[Pair]:
    pictures = _by_frame(root, f"leftImg8bit/{split}", _PICTURE)
    labels = _by_frame(root, f"gtFine/{split}", _IDS) or _by_frame(root, f"gtFine/{split}", _TRAIN_IDS)
    require_some(pictures, root / "leftImg8bit" / split, f"CITY/*{_PICTURE}", LAYOUT)
    require_some(labels, root / "gtFine" / split, f"CITY/*{_IDS} or CITY/*{_TRAIN_IDS}", LAYOUT)
    return match(root, pictures, labels, LAYOUT)


def _by_frame(root: Path, place: str, ending: str) -> dict[str, str]:
    """Paths by city, sequence and frame: ``frankfurt/frankfurt_000000_000294``."""
    cities = [city for city in names_in(root / place) if (root / place / city).is_dir()]
    found = [(city, by_stem(root, f"{place}/{city}", ending)) for city in cities]
    return {f"{city}/{frame}": path for city, frames in found for frame, path in frames.items()}


def _read(path: Path) -> LabelMap:
    if path.name.endswith(_TRAIN_IDS):
        return read_labels(path, _BY_TRAIN_ID, "Cityscapes has train ids 0 to 18, and 255 for none")
    return read_labels(path, _BY_ID, "Cityscapes has ids 0 to 33")
