"""The order of steps: read the bundle, write one format into a new folder, say what is in it.

A package has a ``package.json`` with its files, so that ``--force`` replaces what was written here and nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hiresvit.bundle.folder import read_bundle
from hiresvit.errors import HiresvitError
from hiresvit.files import MOST_TEXT, new_folder, read_regular, sha256_file
from hiresvit.schema import read_json
from hiresvit.version import __version__
from hiresvit.workflows.package.cpp import write_cpp
from hiresvit.workflows.package.deepstream import write_deepstream
from hiresvit.workflows.package.isaac_ros import write_isaac_ros
from hiresvit.workflows.package.python import write_python
from hiresvit.workflows.package.shipped import Shipped
from hiresvit.workflows.package.triton import write_triton

Format = Literal["cpp", "triton", "deepstream", "isaac-ros", "python"]
PACKAGE, KIND = "package.json", "hiresvit-package"

# Each fills a folder and returns what is to be said beside it.
FORMATS: Mapping[Format, Callable[[Shipped, Path], list[str]]] = {
    "cpp": write_cpp,
    "triton": write_triton,
    "deepstream": write_deepstream,
    "isaac-ros": write_isaac_ros,
    "python": write_python,
}


@dataclass(frozen=True)
class Package:
    """A package that was written: its folder, its files by their names in it, and what is to be said of it."""

    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]


def package_bundle(
    path: Path, kind: Format, target: Path | None = None, *, graph: str | None = None, force: bool = False
) -> Package:
    """Write a bundle in a format of `FORMATS` into ``target``, by default ``./BUNDLE-FORMAT``, whole or not at all.

    Raises as `read_bundle` does, UsageError for a bundle that the format cannot take, and HiresvitError for a target
    that exists or cannot be written.
    """
    bundle = read_bundle(path)
    target = Path(f"{bundle.folder.resolve().name}-{kind}") if target is None else target
    with new_folder(target, lambda place: _require_free(place, force)) as folder:
        shipped = Shipped(bundle, graph)
        notes = [*shipped.notes(), *FORMATS[kind](shipped, folder)]
        names = _names(folder)
        about = {
            "kind": KIND,
            "schema_version": 1,
            "format": kind,
            "bundle": bundle.manifest.spec.slug,
            "weights": bundle.manifest.weights.source,
            "hiresvit": __version__,
            "files": {name: sha256_file(folder / name) for name in names},
        }
        (folder / PACKAGE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return Package(target, (*names, PACKAGE), tuple(notes))


def _names(folder: Path) -> tuple[str, ...]:
    """All that is in a folder but other folders, links not followed."""
    found = (Path(above, name) for above, _, inside in os.walk(folder) for name in inside)
    return tuple(sorted(path.relative_to(folder).as_posix() for path in found))


def _require_free(target: Path, force: bool) -> None:
    """Refuse a target that exists, unless ``force`` is given and it is a package and nothing else."""
    if not os.path.lexists(target):
        return
    try:
        values = read_json(read_regular(target / PACKAGE, MOST_TEXT))
        ours, listed = values["kind"] == KIND, {PACKAGE, *values["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        ours, listed = False, set()
    if not ours:
        raise HiresvitError(f"{target} exists and is not a package; remove it yourself or choose another name with -o")
    if not force:
        raise HiresvitError(f"{target} exists; pass --force to replace it or choose another name with -o")
    for name in _names(target):
        if name not in listed:
            raise HiresvitError(f"{target} also holds {name!r}, which --force would delete; move it")
