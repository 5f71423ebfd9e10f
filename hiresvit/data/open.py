"""The data sets there are: one row each, by the name that ``--dataset`` and ``--calib`` take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiresvit.data import ade20k, cityscapes, coco_stuff, folder, imagenet, scenes
from hiresvit.data.dataset import Dataset, Part
from hiresvit.errors import UsageError

Size = tuple[int, int]  # (height, width) of what is drawn
SPLITS = ("val", "train")  # of published sets; of test nobody has the labels, or only void


@dataclass(frozen=True)
class Row:
    """How a data set is opened to measure on: from its folder, a split of it, the size of what is drawn, and how many.

    Of ``splits`` the first is meant where none is named. ``drawn``, for one that lies in no folder: what calibrates and
    what an INT8 search looks at, which share no picture with what is measured on.
    """

    open: Callable[[Path, str, Size, int | None], Dataset]
    layout: str = ""
    splits: Sequence[str] = ()
    drawn: Callable[[Size], tuple[Dataset, Dataset]] | None = None


def _stored(read: Callable[[Path, str], Dataset], layout: str, splits: Sequence[str] = ()) -> Row:
    """One that lies in a folder."""

    def open_some(folder: Path, split: str, _: Size, limit: int | None) -> Dataset:
        found = read(folder, split)
        return found if limit is None else Part(found, range(min(limit, len(found))))

    return Row(open_some, layout, splits)


DATASETS = {
    "scenes": Row(
        lambda _folder, _split, imgsz, limit: scenes.Scenes(limit or scenes.HELD_OUT_COUNT, imgsz),
        drawn=lambda imgsz: (
            scenes.Scenes(scenes.CALIBRATION_COUNT, imgsz, scenes.CALIBRATION),
            scenes.Scenes(scenes.SEARCH_COUNT, imgsz, scenes.SEARCH),
        ),
    ),
    "folder": _stored(lambda path, _: folder.Folder(path), folder.LAYOUT),
    "cityscapes": _stored(cityscapes.open_cityscapes, cityscapes.LAYOUT, SPLITS),
    "ade20k": _stored(ade20k.open_ade20k, ade20k.LAYOUT, SPLITS),
    "coco_stuff": _stored(coco_stuff.open_coco_stuff, coco_stuff.LAYOUT, SPLITS),
    "imagenet": _stored(imagenet.open_imagenet, imagenet.LAYOUT, SPLITS),
}


def find_dataset(name: str, folder: Path | None = None, split: str | None = None) -> Row:
    """The row of a name. Raises UsageError for no name, no split of it, and a folder that is missing or of no use."""
    if name not in DATASETS:
        raise UsageError(f"no data set is called {name}: there is {', '.join(DATASETS)}")
    row = DATASETS[name]
    if folder is None and row.drawn is None:
        raise UsageError(f"the data set {name} lies somewhere: give --data DIR; {row.layout}")
    if folder is not None and row.drawn is not None:
        raise UsageError(f"the data set {name} is drawn and lies nowhere: leave out --data {folder}")
    if split is not None and split not in row.splits:
        there = f"there is {', '.join(row.splits)}" if row.splits else "it has none, leave out --split"
        raise UsageError(f"--split {split}: no split of {name} is called so; {there}")
    return row


def open_dataset(
    name: str, *, folder: Path | None = None, split: str | None = None, imgsz: Size, limit: int | None = None
) -> Dataset:
    """A labelled data set to measure on, or its first ``limit`` pictures.

    ``folder`` is where one on a disk lies, ``split`` a part of it, ``imgsz`` (height, width) the size of one that is
    drawn. Raises as `find_dataset`, UsageError for a limit under 1, and HiresvitError for a folder that is no data set;
    what is wrong with single files is said when they are read.
    """
    row = find_dataset(name, folder, split)
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit}: give at least 1 image, or leave it out for all of {name}")
    return row.open(folder or Path(), split or next(iter(row.splits), ""), imgsz, limit)
