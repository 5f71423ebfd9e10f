"""Where pictures lie: the files of a folder or a pattern, and what of it was left out and why.

Nobody's folder holds photos only: label maps lie beside them, and what file browsers, macOS, a NAS and notebooks keep
for themselves. Names say which; where a name only suggests a label map, the first file of that name is looked at.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hiresvit.data.image import SOMETIMES, STDIN, SUFFIXES, local_path, open_picture, readable_suffixes, refuse_url
from hiresvit.errors import HiresvitError, UsageError

UNREADABLE = "folders that may not be read"
_SYSTEMS = {"@eadir", "__macosx", "$recycle.bin", "#recycle", "system volume information", "lost+found"}
_THUMBNAILS = {"thumbnails", "thumbnail", "thumbs"}
# Pictures and films that are not looked for, so that a folder of them is not just empty.
_OTHER = {*SOMETIMES, ".gif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".psd", ".exr", ".hdr"}
_OTHER |= {".svg", ".pdf", ".tga", ".jp2", ".jxl", ".ppm", ".pgm", ".dcm", ".mp4", ".mov", ".avi", ".mkv", ".webm"}
# How data sets call what is no photo: Cityscapes, ADE20K, Pascal VOC, COCO-Stuff, Mapillary Vistas, BDD100K, CamVid,
# KITTI and mmsegmentation's own layout.
_MAP_FOLDER = re.compile(
    r"gt|gt_?(fine|coarse)|ground_?truths?|annotations?|ann_dir|labels?(_\w+|approved\w*)?|masks?(_\w+)?|colou?rmaps?"
    r"|segmentation_?(class|object)\w*|seg(mentation)?s?|stuffthingmaps|panoptic\w*|instances?(_\w+)?|semantics?(_\w+)?"
    r"|(train|val|test)annot|disparity|depths?"
)
_MAP_NAME = re.compile(
    r".*?[_-](gt_?(fine|coarse)[_-]\w+|(label|instance)_?(train)?_?ids?|colou?rs?|labels?|masks?|seg|segmentation"
    r"|gt|parts_\d+|panoptic|disparity|depth)"
)
_LOSSLESS = (".png", ".tif", ".tiff", ".bmp")
_FLAT = 0.9  # of neighbours are equal in a label map, in a photo hardly half
_FEW_VALUES = 64


@dataclass
class Found:
    """Files of pictures in order, and for each reason to leave one out how many there were, and the first."""

    paths: list[Path] = field(default_factory=list)
    left_out: dict[str, tuple[int, str]] = field(default_factory=dict)

    def leave(self, reason: str, path: Path | str) -> None:
        """Count what is left out."""
        count, first = self.left_out.get(reason, (0, str(path)))
        self.left_out[reason] = count + 1, first

    def notes(self) -> list[str]:
        """A line for each reason."""
        return [f"{count} {reason}, the first is {first}" for reason, (count, first) in self.left_out.items()]

    def require(self, where: str, what: str) -> Found:
        """Itself. Raises HiresvitError if it is empty, with what was there instead."""
        if self.paths:
            return self
        instead = f"; left out: {'; '.join(self.notes())}" if self.left_out else ""
        raise HiresvitError(f"{where}: {what}{instead}")


def walk(folder: Path, suffixes: Sequence[str], found: Found, *, besides: Sequence[Path] = ()) -> Iterator[Path]:
    """The files under a folder that end so, sorted by folder, and into ``found`` what is in the way.

    Linked files and folders are followed, each folder once; hidden ones, a system's own and ``besides`` are passed
    over. Raises HiresvitError if the folder itself cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    apart = {_identity(path.stat()) for path in besides if path.exists()}
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            status = here.stat()
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            if here == folder:
                raise HiresvitError(f"{folder} cannot be read: {error.strerror}") from None
            found.leave(UNREADABLE, here)
            continue
        this = _identity(status)
        if this in seen:
            found.leave("links to folders that are in it anyway", here)
        if this in seen or this in apart:
            continue
        seen.add(this)
        folders = []
        for entry in entries:
            path = here / entry.name
            if not _is_folder(entry):
                if reason := _why_not(entry, suffixes):
                    found.leave(reason, path)
                elif path.suffix.lower() in suffixes:
                    yield path
            elif entry.name.startswith(".") or entry.name.lower() in _SYSTEMS:
                found.leave("hidden folders or a system's own", path)
            else:
                folders.append(path)
        waiting += reversed(folders)


def find_in_folder(folder: Path, *, besides: Sequence[Path] = ()) -> Found:
    """The photos under a folder, sorted, without label maps and thumbnails. Raises HiresvitError if there is none."""
    found = Found()
    looked_at: dict[tuple[Path, str], bool] = {}
    for path in sorted(walk(folder, readable_suffixes(), found, besides=besides)):
        inside = path.relative_to(folder)
        hint = _hint(inside)
        if any(part.lower() in _THUMBNAILS for part in inside.parts[:-1]):
            found.leave("thumbnails", path)
            continue
        if hint and (path.parent, hint) not in looked_at:
            looked_at[path.parent, hint] = is_label_map(path, hinted=True)
        if hint and looked_at[path.parent, hint]:
            found.leave("label maps by their names", path)
        else:
            found.paths.append(path)
    return found.require(str(folder), f"no pictures in this folder; looked for {', '.join(SUFFIXES)}")


def find_files(texts: Iterable[str], *, besides: Sequence[Path] = ()) -> Found:
    """What was typed, a picture each: files and pipes as they are, folders searched, patterns resolved.

    Whether a file is there and is a picture is seen when it is read. Raises HiresvitError for a folder without
    pictures and a pattern that nothing matches, UsageError for an address on the network.
    """
    found = Found()
    for text in texts:
        name = _existing(text)
        if os.path.isdir(name):
            inside = find_in_folder(Path(name), besides=besides)
            found.paths += inside.paths
            for reason, (count, first) in inside.left_out.items():
                found.left_out[reason] = found.left_out.get(reason, (0, first))[0] + count, first
        elif name not in STDIN and glob.has_magic(name) and not os.path.lexists(name):
            found.paths += _matches(name)
        else:
            if name not in STDIN and not os.path.lexists(name):
                refuse_url(name)
            found.paths.append(Path(name))
    found.paths = list(dict.fromkeys(found.paths))
    return found


def is_label_map(path: Path, *, hinted: bool) -> bool:
    """Whether a picture without losses is a map of numbers: of few values, with large areas of one.

    ``hinted``: whether its name says so; then colours may code classes, and depths need not be flat. Without that only
    palettes count, and grey that shows nothing, as it ends below 64 but for an ignored 255. A damaged file is what its
    name says.
    """
    if path.suffix.lower() not in _LOSSLESS:
        return False
    try:
        with open_picture(path) as picture:
            if hinted and picture.mode.startswith(("I", "F")):
                return True
            if not hinted and picture.mode not in ("P", "L", "I;16"):
                return False
            picture.load()
            values = np.asarray(picture).reshape(picture.height, picture.width, -1)
    except Exception:  # whoever reads it says what is wrong
        return hinted
    rows = values[:: max(len(values) // 256, 1)].astype(np.int64)
    numbers = rows @ 256 ** np.arange(rows.shape[2])
    flat = float(np.mean(numbers[:, 1:] == numbers[:, :-1])) if numbers.shape[1] > 1 else 0.0
    there = np.unique(numbers)
    few = there[there != 255]
    shows = not hinted and picture.mode != "P" and few.size > 0 and few[-1] >= _FEW_VALUES
    most = 256 if hinted else _FEW_VALUES
    return flat >= _FLAT and 1 < len(there) <= most and not shows


def _existing(text: str) -> str:
    """What was typed, without the quotes, the ``~`` and the ``file://`` that a shell has not resolved."""
    for meant in (text, text.strip().strip("\"'")):
        name = os.path.expanduser(local_path(meant))
        if os.path.lexists(name):
            return name
    return os.path.expanduser(local_path(text))


def _matches(pattern: str) -> list[Path]:
    """The files that a pattern is for; hidden ones only if it says so, and no loop of links without end."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    try:
        found = sorted(Path(*parts[:fixed]).glob(str(Path(*parts[fixed:]))))
    except (ValueError, NotImplementedError, OSError) as error:
        raise UsageError(f"{pattern}: no pattern ({error}); give one such as 'photos/*.jpg'") from None
    meant = [
        path
        for path in found
        if not path.is_dir() and (parts[-1].startswith(".") or not any(p.startswith(".") for p in path.parts[fixed:]))
    ]
    if not meant:
        raise HiresvitError(f"{pattern}: no file matches this pattern; give pictures, or a folder")
    return meant


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _why_not(entry: os.DirEntry[str], suffixes: Sequence[str]) -> str | None:
    """Why what is called as a picture is none that anybody means, or none that is read."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix not in suffixes:
        other = suffix in _OTHER and not entry.name.startswith(".")
        return f"{suffix} files, which are not read here" if other else None
    if entry.name.startswith("."):
        return "hidden files (macOS keeps ._NAME beside NAME)"
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "links to nothing"
    return None if stat.S_ISREG(mode) else "pipes or devices"


def _hint(inside: Path) -> str | None:
    """The part of a path that says it is a label map; photos have losses, and label maps cannot."""
    if inside.suffix.lower() not in _LOSSLESS:
        return None
    if found := _MAP_NAME.fullmatch(inside.stem.lower()):
        return found[1]
    folders = [part.lower() for part in inside.parts[:-1]]
    return next((name for name in folders if _MAP_FOLDER.fullmatch(name) or _MAP_NAME.fullmatch(name)), None)
