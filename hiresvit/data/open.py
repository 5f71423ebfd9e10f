"""The data sets there are: one row each, by the name that ``--dataset`` and ``--calib`` take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hiresvit.data import scenes
from hiresvit.data.dataset import Dataset, Part
from hiresvit.data.folder import LAYOUT, Folder
from hiresvit.errors import UsageError

Size = tuple[int, int]  # (height, width) of what is drawn


@dataclass(frozen=True)
class Row:
    """How a data set is opened to measure on: from its folder, the size of what is drawn, and how many at most.

    ``drawn``, for one that lies in no folder: what calibrates and what an INT8 search looks at, which share no picture
    with what is measured on.
    """

    open: Callable[[Path, Size, int | None], Dataset]
    drawn: Callable[[Size], tuple[Dataset, Dataset]] | None = None


def _open_folder(folder: Path, _: Size, limit: int | None) -> Dataset:
    found = Folder(folder)
    return found if limit is None else Part(found, range(min(limit, len(found))))


DATASETS = {
    "scenes": Row(
        lambda _, imgsz, limit: scenes.Scenes(limit or scenes.HELD_OUT_COUNT, imgsz),
        lambda imgsz: (
            scenes.Scenes(scenes.CALIBRATION_COUNT, imgsz, scenes.CALIBRATION),
            scenes.Scenes(scenes.SEARCH_COUNT, imgsz, scenes.SEARCH),
        ),
    ),
    "folder": Row(_open_folder),
}


def find_dataset(name: str, folder: Path | None = None) -> Row:
    """The row of a name. Raises UsageError for no name, and for a folder that is missing or of no use."""
    if name not in DATASETS:
        raise UsageError(f"no data set is called {name}: there is {', '.join(DATASETS)}")
    row = DATASETS[name]
    if folder is None and row.drawn is None:
        raise UsageError(f"the data set {name} lies somewhere: give --data DIR; {LAYOUT}")
    if folder is not None and row.drawn is not None:
        raise UsageError(f"the data set {name} is drawn and lies nowhere: leave out --data {folder}")
    return row


def open_dataset(name: str, *, folder: Path | None = None, imgsz: tuple[int, int], limit: int | None = None) -> Dataset:
    """A labelled data set to measure on, or its first ``limit`` pictures.

    ``folder`` is where one on a disk lies, ``imgsz`` (height, width) the size of one that is drawn. Raises as
    `find_dataset`, UsageError for a limit under 1, and HiresvitError for a folder that is no data set; what is wrong
    with single files is said when they are read.
    """
    row = find_dataset(name, folder)
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit}: give at least 1 image, or leave it out for all of {name}")
    return row.open(folder or Path(), imgsz, limit)
