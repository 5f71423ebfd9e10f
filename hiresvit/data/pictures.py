"""Pictures to calibrate with: a folder, a list, an ``.npz``, or a data set's; a few of them, always the same.

Which ones is decided by a seed over the sorted names. Every picture is opened once before anything is computed, so
that a damaged one is known by name at the start, and again each time it is needed: nothing is kept in memory.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.dataset import Dataset
from hiresvit.data.image import load_image, local_path, refuse_url
from hiresvit.data.listing import LISTS, read_list
from hiresvit.data.open import DATASETS
from hiresvit.data.preprocess import check_image, example_input
from hiresvit.data.source import Found, find_in_folder, is_label_map
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.progress import OnStep, silent
from hiresvit.spec import ModelSpec

_SOURCES = f"a folder of pictures, a .txt, an .npz, or {', '.join(name for name, row in DATASETS.items() if row.drawn)}"
DAMAGED_SHARE = 0.05  # more than this, and the folder is not what the user takes it for
NPZ_BYTES, NPZ_RATIO = 2**28, 20  # what an archive may unpack to: this much, or this often its size

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Chosen pictures: their names, how to get each, and a digest of what is in them.

    ``skipped``: damaged ones by name and others by how many, with the reason. ``small``: how many are smaller than the
    network's input.
    """

    source: str
    names: tuple[str, ...]
    load: Callable[[str], Image]
    digests: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    small: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Image:
        return self.load(self.names[index])

    @property
    def digest(self) -> str:
        """A sha256 over the pictures' contents, in order."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()

    def part(self, start: int, stop: int) -> Pictures:
        """The pictures from ``start`` up to ``stop``."""
        return replace(self, names=self.names[start:stop], digests=self.digests[start:stop])


class Feeds(Sequence[Mapping[str, NDArray[np.float32]]]):
    """Pictures as a network's input, preprocessed each time one is asked for: float32 (1, 3, H, W)."""

    def __init__(self, pictures: Pictures, spec: ModelSpec, name: str) -> None:
        self.pictures, self.spec, self.name = pictures, spec, name

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, NDArray[np.float32]]:  # type: ignore[override]
        return {self.name: example_input(self.pictures[index], self.spec.preprocess, self.spec.imgsz)}


@dataclass(frozen=True, eq=False)
class Listing:
    """What a source has: sorted names, what opens one of them, what was left out already, and why one would be."""

    names: list[str]
    load: Callable[[str], Image]
    notes: tuple[str, ...] = ()
    refuse: Callable[[str], str | None] = lambda name: None


def open_pictures(
    source: str | Dataset, imgsz: tuple[int, int], count: int, *, seed: int = 0, on_step: OnStep = silent
) -> Pictures:
    """Choose up to ``count`` pictures from ``source``, all of them if there are fewer.

    ``source`` is a folder (searched through), a list of paths (`read_list`), an ``.npz`` with uint8 ``images``
    (N, H, W, 3), the name of a data set that is drawn (``scenes``), or a data set, whose pictures are then called by
    their numbers. ``imgsz`` (height, width) is the size of drawn scenes. Label maps are left out.
    Raises UsageError on a count under 1 or a source of another kind; HiresvitError on one that is missing or empty,
    and when more than 5 % of the pictures looked at are damaged.
    """
    if count < 1:
        raise UsageError(f"{count} calibration images: give at least 1")
    listing = find_pictures(source, imgsz)
    said = source if isinstance(source, str) else source.name
    order = [listing.names[i] for i in np.random.default_rng(seed).permutation(len(listing.names))]
    chosen: list[str] = []
    digests: list[str] = []
    damaged: list[str] = []
    refused = Found()
    small = 0
    for name in order:
        if len(chosen) == count:
            break
        on_step("look at images", len(chosen) / count)
        if reason := listing.refuse(name):
            refused.leave(reason, name)
            continue
        try:
            image = listing.load(name)
        except HiresvitError as error:
            damaged.append(str(error))
            continue
        chosen.append(name)
        digests.append(hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest())
        small += image.shape[0] < imgsz[0] or image.shape[1] < imgsz[1]
    if len(damaged) > DAMAGED_SHARE * (len(chosen) + len(damaged)):
        raise HiresvitError(
            f"{said}: {len(damaged)} of {len(chosen) + len(damaged)} pictures cannot be read, more than"
            f" {DAMAGED_SHARE:.0%} is no calibration set; the first: {damaged[0]}"
        )
    left_out = (*damaged, *listing.notes, *refused.notes())
    if not chosen:
        raise HiresvitError(f"{said}: no pictures to calibrate with; left out: {'; '.join(left_out)}")
    return Pictures(said, tuple(chosen), listing.load, tuple(digests), left_out, small)


def find_pictures(source: str | Dataset, imgsz: tuple[int, int]) -> Listing:
    """What there is; none of it is decoded yet but for a few label maps. Raises as `open_pictures`."""
    if isinstance(source, str) and (row := DATASETS.get(source)) and row.drawn:
        source, _ = row.drawn(imgsz)
    if not isinstance(source, str):
        dataset = source
        return Listing([str(i) for i in range(len(dataset))], lambda name: dataset[int(name)].image)
    path = Path(os.path.expanduser(local_path(source)))
    try:
        path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null character
        refuse_url(source)
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise HiresvitError(f"{source} does not exist; give {_SOURCES}") from None
        raise HiresvitError(f"cannot read {source}: {getattr(error, 'strerror', error)}") from None
    if path.suffix == ".npz" and path.is_file():
        return _open_npz(path)
    if path.is_dir():
        found = find_in_folder(path)
    elif path.suffix.lower() in LISTS and path.is_file():
        found = read_list(path)
    elif path.is_file():
        raise UsageError(f"{source}: give {_SOURCES}")
    else:
        raise UsageError(f"{source} is a pipe or a device, and pictures are looked at twice: give {_SOURCES}")
    return Listing([str(p) for p in found.paths], load_image, tuple(found.notes()), _refuse)


def _refuse(name: str) -> str | None:
    return "label maps by what is in them" if is_label_map(Path(name), hinted=False) else None


def _open_npz(path: Path) -> Listing:
    try:
        with path.open("rb") as stream:
            _refuse_bomb(path, stream)
            with np.load(stream) as file:
                images = file["images"]
    except HiresvitError:
        raise
    except Exception as error:  # a damaged archive makes numpy raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HiresvitError(f"{path}: no array called images can be read ({reason})") from error
    if images.ndim != 4 or not len(images):
        raise HiresvitError(f"{path}: images is {images.dtype} {images.shape}; it must be uint8 (N, H, W, 3)")
    check_image(images[0])
    return Listing([str(i) for i in range(len(images))], lambda name: images[int(name)])


def _refuse_bomb(path: Path, stream: IO[bytes]) -> None:
    """Raise HiresvitError for an archive that unpacks to far more than pictures do."""
    with zipfile.ZipFile(stream) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    packed = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if unpacked > max(NPZ_BYTES, NPZ_RATIO * packed):
        raise HiresvitError(f"{path}: {packed} bytes that unpack to {unpacked} are no pictures; save them again")
