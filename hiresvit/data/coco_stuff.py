"""COCO-Stuff's 171 classes of all of COCO 2017 (164k): pictures beside stuffthingmaps_trainval2017.zip.

::

    DIR/images/val2017/000000000139.jpg             or DIR/val2017/, as COCO itself lies
    DIR/annotations/val2017/000000000139.png        or DIR/stuffthingmaps/val2017/
"""

from __future__ import annotations

from pathlib import Path

from hiresvit.data.dataset import IGNORE
from hiresvit.data.labels import class_list
from hiresvit.data.pairs import CONVERTED, LabelMap, Pairs, find_beside, find_place, read_labels

LAYOUT = (
    "COCO-Stuff is DIR/images/val2017/*.jpg (or DIR/val2017) with DIR/annotations/val2017/*.png (or"
    " DIR/stuffthingmaps/val2017), or *_labelTrainIds.png there"
)
# Of the 182 names these eleven are not in use, and the others count on without them (labels.txt of nightrome/cocostuff,
# less one as the files have it; coco_stuff164k.py of mmseg's dataset_converters).
_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
_BY_ID = {number: index for index, number in enumerate(n for n in range(182) if n not in _UNUSED)} | {IGNORE: IGNORE}
_BY_TRAIN_ID = {number: number for number in (*range(171), IGNORE)}


def open_coco_stuff(root: Path, split: str) -> Pairs:
    """A split in its true layout. Raises HiresvitError for another one; what lies in it is listed later."""
    pictures = find_place(root, [f"images/{split}2017", f"{split}2017"], LAYOUT)
    labels = find_place(root, [f"annotations/{split}2017", f"stuffthingmaps/{split}2017"], LAYOUT)
    known = class_list("coco_stuff")
    return Pairs(f"coco_stuff {split}", root, known, lambda: find_beside(root, pictures, labels, LAYOUT), _read)


def _read(path: Path) -> LabelMap:
    if path.name.endswith(CONVERTED):
        return read_labels(path, _BY_TRAIN_ID, "mmseg's converter writes 0 to 170, and 255 for none")
    unused = ", ".join(map(str, _UNUSED))
    return read_labels(path, _BY_ID, f"COCO-Stuff has 0 to 181 without {unused}, and 255 for none")
