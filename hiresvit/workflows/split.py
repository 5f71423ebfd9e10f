"""Which pictures calibrate, which the search for modules looks at, and which prove: no picture does two of these."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hiresvit.data.dataset import Dataset, Kept, Part, check_fit
from hiresvit.data.open import DATASETS, open_dataset
from hiresvit.data.pictures import Pictures, open_pictures
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.progress import OnStep, silent
from hiresvit.spec import ModelSpec

ASIDE = (8, 48)  # what does not calibrate if there is a promise to keep: a quarter of all, within these bounds
SEARCH, PROOF = 40, 200  # at most, where there are labels
SHOWN = 40  # of the proof's, where nothing was promised


@dataclass(frozen=True, eq=False)
class Split:
    """The parts: pictures without labels, and what is ``labelled`` (to search on, to prove on) if anything is.

    ``asked``: whether the labels were asked for, as those of a data set on a disk are; others only stand by.
    """

    calib: Pictures
    search: Pictures
    proof: Pictures
    labelled: tuple[Dataset, Dataset] | None
    asked: bool


def picture_source(source: str, folder: Path | None, split: str | None, spec: ModelSpec) -> str | Dataset:
    """What `open_pictures` takes: a data set on a disk that fits the network, else the ``source`` as it is.

    Raises UsageError for a folder or a split that goes with no data set, and for a data set that lies in a folder and
    has none.
    """
    row = DATASETS.get(source)
    if folder is None and split is None and (row is None or row.drawn or Path(source).exists()):
        return source
    found = open_dataset(source, folder=folder, split=split, imgsz=spec.imgsz)
    check_fit(spec, found)
    return found


def split_pictures(
    source: str,
    folder: Path | None,
    spec: ModelSpec,
    *,
    part: str | None = None,
    images: int,
    seed: int,
    promised: bool,
    on_step: OnStep = silent,
) -> Split:
    """Choose ``images`` pictures to calibrate with, and others to search and to prove on, by the seed.

    ``source`` is one of `open_pictures`, or a data set on a disk that lies in ``folder``, or ``part`` of it. Without
    labels and without a ``promised`` accuracy all may calibrate. A data set on a disk is split into the three parts,
    what is drawn has scenes of its own for each. Raises HiresvitError for too few pictures, and whatever opening them
    raises.
    """
    opened = picture_source(source, folder, part, spec)
    disk = None if isinstance(opened, str) else opened
    most = SEARCH + PROOF if disk is not None else ASIDE[1] if promised else 0
    found = open_pictures(opened, spec.imgsz, images + most, seed=seed, on_step=on_step)
    aside = min(max(len(found) // 4, ASIDE[0]), ASIDE[1], most)
    if disk is not None:
        aside = min(max(aside, len(found) - images), most)
    if most and len(found) - aside < 2:
        why = "--max-drop" if promised else "a data set with labels"
        raise HiresvitError(
            f"{found.source}: {len(found)} pictures are too few for {why}, which keeps at least {ASIDE[0]} from"
            f" calibration to prove its result on; give at least {ASIDE[0] + 2}"
        )
    end = len(found) - aside
    middle = end + min(aside // 2, SEARCH)
    search, proof = found.part(end, middle), found.part(middle, len(found))
    labelled = _drawn(source, spec)
    if disk is not None:
        labelled = Part(disk, [*map(int, search.names)]), Part(disk, [*map(int, proof.names)])
    if labelled is not None and not promised:
        labelled = labelled[0], Part(labelled[1], range(min(SHOWN, len(labelled[1]))))
    return Split(found.part(0, min(images, end)), search, proof, labelled, asked=disk is not None)


def _drawn(source: str, spec: ModelSpec) -> tuple[Dataset, Dataset] | None:
    """What is searched and proven on of a data set that is drawn, if the network is for its classes."""
    if source not in DATASETS or (drawn := DATASETS[source].drawn) is None:
        return None
    proof = open_dataset(source, imgsz=spec.imgsz)
    try:
        check_fit(spec, proof)
    except UsageError:  # nobody has asked for these labels
        return None
    return Kept(drawn(spec.imgsz)[1]), proof
