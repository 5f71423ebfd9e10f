"""Pictures to calibrate with: a folder, a list, an ``.npz``, or a data set's; a few of them, always the same.

Which ones is decided by a seed over the sorted names. Every picture is opened once before anything is computed, so
that a damaged one is known by name at the start, and again each time it is needed: nothing is kept in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.dataset import Dataset
from hiresvit.data.image import SUFFIXES, load_image
from hiresvit.data.open import DATASETS
from hiresvit.data.preprocess import check_image, preprocess
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.progress import OnStep, silent
from hiresvit.spec import ModelSpec

_SOURCES = f"a folder of pictures, a .txt, an .npz, or {', '.join(name for name, row in DATASETS.items() if row.drawn)}"
DAMAGED_SHARE = 0.05  # more than this, and the folder is not what the user takes it for

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Chosen pictures: their names, how to get each, and a digest of what is in them.

    ``skipped``: names of damaged ones, with the reason. ``small``: how many are smaller than the network's input.
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
        return {self.name: preprocess(self.pictures[index], self.spec.preprocess, self.spec.imgsz)}


def open_pictures(
    source: str | Dataset, imgsz: tuple[int, int], count: int, *, seed: int = 0, on_step: OnStep = silent
) -> Pictures:
    """Choose up to ``count`` pictures from ``source``, all of them if there are fewer.

    ``source`` is a folder (searched through), a ``.txt`` with a path per line (relative to itself), an ``.npz`` with
    uint8 ``images`` (N, H, W, 3), the name of a data set that is drawn (``scenes``), or a data set, whose pictures are
    then called by their numbers. ``imgsz`` (height, width) is the size of drawn scenes.
    Raises UsageError on a count under 1 or a source of another kind; HiresvitError on one that is missing or empty,
    and when more than 5 % of the pictures looked at are damaged.
    """
    if count < 1:
        raise UsageError(f"{count} calibration images: give at least 1")
    names, load = find_pictures(source, imgsz)
    said = source if isinstance(source, str) else source.name
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    chosen: list[str] = []
    digests: list[str] = []
    skipped: list[str] = []
    small = 0
    for name in order:
        if len(chosen) == count:
            break
        on_step("look at images", len(chosen) / count)
        try:
            image = load(name)
        except HiresvitError as error:
            skipped.append(str(error))
            continue
        chosen.append(name)
        digests.append(hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest())
        small += image.shape[0] < imgsz[0] or image.shape[1] < imgsz[1]
    if len(skipped) > DAMAGED_SHARE * (len(chosen) + len(skipped)):
        raise HiresvitError(
            f"{said}: {len(skipped)} of {len(chosen) + len(skipped)} pictures cannot be read, more than"
            f" {DAMAGED_SHARE:.0%} is no calibration set; the first: {skipped[0]}"
        )
    return Pictures(said, tuple(chosen), load, tuple(digests), tuple(skipped), small)


def find_pictures(source: str | Dataset, imgsz: tuple[int, int]) -> tuple[list[str], Callable[[str], Image]]:
    """Sorted names and what opens one of them; nothing is opened yet. Raises as `open_pictures`."""
    if isinstance(source, str) and (row := DATASETS.get(source)) and row.drawn:
        source, _ = row.drawn(imgsz)
    if not isinstance(source, str):
        dataset = source
        return [str(i) for i in range(len(dataset))], lambda name: dataset[int(name)].image
    path = Path(source)
    if not path.exists():
        raise HiresvitError(f"{source} does not exist; give {_SOURCES}")
    if path.suffix == ".npz" and path.is_file():
        return _open_npz(path)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise HiresvitError(f"{source}: no pictures in this folder; looked for {', '.join(SUFFIXES)}")
    elif path.suffix == ".txt":
        found = list(_listed(path))
        if not found:
            raise HiresvitError(f"{source}: the list is empty; write one path per line")
    else:
        raise UsageError(f"{source}: give {_SOURCES}")
    return [str(p) for p in found], lambda name: load_image(Path(name))


def _listed(path: Path) -> Iterator[Path]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise HiresvitError(f"{path}: not a list of paths ({error})") from error
    return (path.parent / line.strip() for line in sorted(set(lines)) if line.strip())


def _open_npz(path: Path) -> tuple[list[str], Callable[[str], Image]]:
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            images = file["images"]
    except Exception as error:  # a damaged archive makes numpy raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HiresvitError(f"{path}: no array called images can be read ({reason})") from error
    if images.ndim != 4 or not len(images):
        raise HiresvitError(f"{path}: images is {images.dtype} {images.shape}; it must be uint8 (N, H, W, 3)")
    check_image(images[0])
    return [str(i) for i in range(len(images))], lambda name: images[int(name)]
