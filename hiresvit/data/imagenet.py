"""ImageNet-1k (ILSVRC 2012): a folder for each class, or the flat validation set beside a list of its classes.

::

    DIR/val/n01440764/ILSVRC2012_val_00000293.JPEG      a class is the place of its WNID among the sorted 1000
    DIR/val/ILSVRC2012_val_00000001.JPEG                with one of `LISTS` in DIR or beside the pictures

A list has a line for each picture, ``FILE CLASS``, or only the class, in the pictures' order. WNIDs are clear; numbers
are not: people count the sorted WNIDs or the development kit's own order, from 0 or from 1, and each of the four gives
an accuracy of 0.1 % in another's place. So a list must say of some pictures what everybody knows of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from hiresvit.data.labels import class_list, table_rows
from hiresvit.data.pairs import Pair, Pairs, find_place, names_in, require_some
from hiresvit.errors import HiresvitError

LISTS = (  # Kaggle's, caffe's and mmpretrain's, MLPerf's, PaddleClas', TensorFlow's, the development kits'
    "LOC_val_solution.csv",
    "val.txt",
    "val_map.txt",
    "val_list.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "ILSVRC2012_validation_ground_truth.txt",
)
LAYOUT = (
    "ImageNet is DIR/val/WNID/*.JPEG, or DIR/val/ILSVRC2012_val_*.JPEG with their classes in a list:"
    f" {', '.join(LISTS[:-1])} or {LISTS[-1]}"
)
_PLACES = {
    "val": ("val", "validation", "ILSVRC2012_img_val", "ILSVRC/Data/CLS-LOC/val"),
    "train": ("train", "ILSVRC2012_img_train", "ILSVRC/Data/CLS-LOC/train"),
}
_ENDINGS = (".JPEG", ".jpeg", ".jpg", ".JPG", ".png")
_PICTURE = re.compile(r"ILSVRC2012_val_(\d{8})\b")
_LINE = re.compile(r"(?:[^,]*?ILSVRC2012_val_(\d{8})[^\s,]*[\s,]+)?(n\d{8}|\d+)(?:[\s,].*)?")
# Classes of the pictures 1 to 10 and of each 1000th, as caffe's val.txt (get_ilsvrc_aux.sh) has them. The development
# kit's ILSVRC2012_validation_ground_truth.txt says the same of all 50,000 through the ids of its map_clsloc.txt.
_FIRST = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332)
_EACH_1000TH = (
    *(495, 149, 373, 925, 321, 655, 852, 200, 26, 710, 276, 359, 882, 233, 727, 282, 550, 49, 752, 366, 183, 331, 497),
    *(285, 610, 266, 470, 660, 730, 96, 471, 164, 150, 60, 861, 622, 679, 475, 555, 82, 151, 130, 829, 193, 576, 41),
    *(68, 945, 3, 355),
)
_KNOWN = dict(enumerate(_FIRST, 1)) | {1000 * place: number for place, number in enumerate(_EACH_1000TH, 1)}


def open_imagenet(root: Path, split: str) -> Pairs:
    """A split in one of its layouts. Raises HiresvitError for another one; what lies in it is listed later.

    ``root`` may also be the folder of the split itself, if it is called as one.
    """
    places = _PLACES[split]
    itself = Path(os.path.abspath(root)).name in {os.path.basename(place) for place in places}
    place = find_place(root, [*places, *([""] if itself else [])], LAYOUT)
    return Pairs(f"imagenet {split}", root, class_list("imagenet"), lambda: _find(root, place))


def _find(root: Path, place: str) -> list[Pair]:
    """Pictures in the order of their own names, which is the same in both layouts."""
    folder = root / place
    flat = names_in(folder, *_ENDINGS)
    classes = [name for name in names_in(folder) if not name.endswith(_ENDINGS) and os.path.isdir(folder / name)]
    if flat and classes:
        raise HiresvitError(f"{folder} has folders and {len(flat)} pictures beside them, such as {flat[0]}; {LAYOUT}")
    if flat:
        return [(os.path.join(place, name), number) for name, number in _listed(root, folder, flat)]
    numbers = _orders()[0]
    if foreign := [name for name in classes if name not in numbers]:
        raise HiresvitError(f"{folder / foreign[0]} is called as no class of ImageNet-1k, as n01440764 is; {LAYOUT}")
    found = sorted((name, wnid) for wnid in classes for name in names_in(folder / wnid, *_ENDINGS))
    require_some(found, folder, "WNID/*.JPEG", LAYOUT)
    for name, wnid in found:
        match = _PICTURE.match(name)
        if match and numbers[wnid] != _KNOWN.get(int(match[1]), numbers[wnid]):
            raise _contradiction(folder, int(match[1]), wnid)
    return [(os.path.join(place, wnid, name), numbers[wnid]) for name, wnid in found]


def _listed(root: Path, folder: Path, names: Sequence[str]) -> list[tuple[str, int]]:
    """Pictures with the classes that a list gives them. It may have more: a part of the set keeps the whole list."""
    where = dict.fromkeys((root, folder, folder.parent, root / "meta", root / "ILSVRC2012_devkit_t12" / "data"))
    path = next((path / name for path in where for name in LISTS if (path / name).is_file()), None)
    if path is None:
        raise HiresvitError(f"{folder} has pictures in no folders of classes, and there is no list of those; {LAYOUT}")
    classes = _read_list(path)
    numbers = {name: int(match[1]) for name in names if (match := _PICTURE.match(name))}
    if lonely := [name for name in names if numbers.get(name) not in classes]:
        said = f"no class for {len(lonely)} of {len(names)} pictures, the first is {folder / lonely[0]}"
        raise HiresvitError(f"{path} has {said}; {LAYOUT}")
    return [(name, classes[number]) for name, number in numbers.items()]


def _read_list(path: Path) -> dict[int, int]:
    """The class of each picture, by the pictures' numbers, in the one order that agrees with what is known."""
    said = _said(path)
    known = sorted(said.keys() & _KNOWN.keys())
    orders = [order for order in _orders() if order.keys() >= set(said.values())]
    if not orders:
        number = next((n for n, text in said.items() if not any(text in order for order in _orders())), min(said))
        raise HiresvitError(
            f"{path} says {said[number]} of {_name(number)}; give all classes as WNIDs (n01440764), or all as numbers"
        )
    meant = [order for order in orders if all(order[said[n]] == _KNOWN[n] for n in known)]
    if not meant:
        raise _contradiction(path, known[0], said[known[0]])
    if len(meant) > 1:
        raise HiresvitError(
            f"{path}: numbers say nothing without the order that they count in, which is seen by what they say of"
            f" {_name(1)} to 10 and of each 1000th, and it has none or too few of these; write WNIDs (n01440764)"
        )
    return {number: meant[0][text] for number, text in said.items()}


def _said(path: Path) -> dict[int, str]:
    """What a list says of each picture, by the pictures' numbers: WNIDs, or numbers of classes."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:  # ValueError: no UTF-8
        raise HiresvitError(f"{path}: not a list of classes ({error}); {LAYOUT}") from error
    said: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(("#", "ImageId")):  # Kaggle's first line
            continue
        if (match := _LINE.fullmatch(line.strip())) is None:
            raise HiresvitError(f'{path}: line {number} is "{line[:60]}"; a line is FILE CLASS, or CLASS')
        said[int(match[1] or len(said) + 1)] = match[2]
    require_some(said, path, "lines", LAYOUT)
    return said


@cache
def _orders() -> tuple[Mapping[str, int], ...]:
    """What a class may be called in a list: its WNID, or its number in two orders from 0 or 1."""
    rows = table_rows("imagenet")
    counted = [{str(i + start): i for i in range(len(rows))} for start in (0, 1)]
    kit = [{str(row["ilsvrc"] - 1 + start): i for i, row in enumerate(rows)} for start in (0, 1)]
    return {row["wnid"]: i for i, row in enumerate(rows)}, *counted, *kit


def _contradiction(where: Path, number: int, said: str) -> HiresvitError:
    row = table_rows("imagenet")[_KNOWN[number]]
    return HiresvitError(
        f"{where} says {said} of {_name(number)}, which is a {row['name']}: {row['wnid']}, {_KNOWN[number]} among the"
        f" sorted WNIDs and {row['ilsvrc']} in the development kit; the classes are another set's or in a wrong order"
    )


def _name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}"
