"""ADE20K's 150 classes: the scene parsing challenge as ADEChallengeData2016.zip unpacks it.

::

    DIR/ADEChallengeData2016/images/validation/ADE_val_00000001.jpg
    DIR/ADEChallengeData2016/annotations/validation/ADE_val_00000001.png
"""

from __future__ import annotations

from pathlib import Path

from hiresvit.data.dataset import IGNORE
from hiresvit.data.labels import class_list
from hiresvit.data.pairs import LabelMap, Pairs, find_beside, find_place, read_labels

LAYOUT = (
    "ADE20K is DIR/ADEChallengeData2016/images/validation/*.jpg with annotations/validation/*.png; DIR may be that"
    " folder, too"
)
_FOLDERS = {"val": "validation", "train": "training"}
# 0 is everything that is none of the 150, which count from 1: what mmseg calls reduce_zero_label.
_REDUCED = {0: IGNORE} | {number + 1: number for number in range(150)}


def open_ade20k(root: Path, split: str) -> Pairs:
    """A split in its true layout. Raises HiresvitError for another one; what lies in it is listed later."""
    above, folder = "ADEChallengeData2016/", _FOLDERS[split]
    pictures = find_place(root, [f"images/{folder}", f"{above}images/{folder}"], LAYOUT)
    labels = find_place(root, [f"{above if pictures.startswith(above) else ''}annotations/{folder}"], LAYOUT)
    known = class_list("ade20k")
    return Pairs(f"ade20k {split}", root, known, lambda: find_beside(root, pictures, labels, LAYOUT), _read)


def _read(path: Path) -> LabelMap:
    # 255 is none of them on purpose: who has it has subtracted the one already, and would lose the walls
    return read_labels(path, _REDUCED, "ADE20K has 1 to 150, and 0 for none; 255 is in converted labels only")
