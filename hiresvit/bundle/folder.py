"""The bundle: one folder that holds what `hiresvit export` made and says where each file came from.

Which files there are and what each is made from is the table of `hiresvit.bundle.stages`, and manifest.json.
`read_bundle` follows the chain of sha256 sums from each file to the weights, so a file that was exchanged, a
plan that was built from another graph and a manifest that was edited are all found. This is integrity, not a
signature: whoever can write the folder can also write a new, consistent manifest.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hiresvit.bundle.manifest import KIND, MANIFEST, FileEntry, Manifest, damaged, read_manifest, short, unreadable
from hiresvit.errors import ArtefactError, HiresvitError
from hiresvit.files import MOST_TEXT, new_folder, read_regular, sha256_file
from hiresvit.schema import read_json


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read: its folder, its manifest, and the names of files in it that nobody listed."""

    folder: Path
    manifest: Manifest
    unlisted: tuple[str, ...]

    def path(self, role: str) -> Path:
        """The file of a role. Raises ArtefactError if the bundle has none."""
        for entry in self.manifest.files:
            if entry.role == role:
                return self.folder / entry.name
        has = ", ".join(entry.role for entry in self.manifest.files)
        raise ArtefactError(f"{self.folder} has no {role} file, only {has}; export it again with one")


@contextmanager
def writing_bundle(target: Path, *, force: bool) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` to fill; on success it is verified and becomes ``target``.

    On any exception, Ctrl-C and a full disk included, the temporary folder is removed and an existing bundle
    stays as it was. With ``force`` an existing bundle is replaced, but never a folder that holds anything
    else. Raises HiresvitError, before the body runs where that is possible, if ``target`` exists or cannot be
    written, and ArtefactError if the body left something that is not a bundle.
    """
    with new_folder(target, lambda place: _require_free(place, force)) as temporary:
        yield temporary
        read_bundle(temporary)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle and check it: the manifest's own sum, its file names, sizes, parents and the files' sums.

    One that is replaced meanwhile is read again. Raises HiresvitError where there is no folder or it cannot be read,
    and ArtefactError on anything damaged, exchanged, edited or written by another schema.
    """
    if not path.is_dir():
        raise HiresvitError(f"{path} is not a bundle folder; give one that `hiresvit export` wrote")
    if inner := bundles_in(path):
        raise HiresvitError(f"{path} is no bundle; give one of those in it: {', '.join(map(str, inner))}")
    while True:
        folder = path.stat()
        try:
            return _read_bundle(path)
        except ArtefactError:
            if os.path.samestat(folder, path.stat()):
                raise


def bundles_in(folder: Path) -> list[Path]:
    """The bundles that lie in a folder which is none itself, by their manifests; nothing for any other path."""
    if not folder.is_dir() or os.path.lexists(folder / MANIFEST):
        return []
    return [one for one in sorted(folder.iterdir()) if one.name[0] != "." and (one / MANIFEST).is_file()]


def _read_bundle(path: Path) -> Bundle:
    manifest = read_manifest(path / MANIFEST)
    for entry in manifest.files:
        _check_file(path, entry)
    listed = {MANIFEST, *(entry.name for entry in manifest.files)}
    return Bundle(path, manifest, tuple(sorted(set(os.listdir(path)) - listed)))


def _require_free(target: Path, force: bool) -> None:
    """Refuse a target that exists, unless ``force`` is given and it is a bundle and nothing else."""
    if not os.path.lexists(target):
        return
    try:
        values = read_json(read_regular(target / MANIFEST, MOST_TEXT))
        listed = {MANIFEST, *(entry["name"] for entry in values["files"])}
        ours = values["kind"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise HiresvitError(f"{target} exists and is not a bundle; remove it yourself or choose another name")
    if not force:
        raise HiresvitError(f"{target} exists; pass --force to replace it or choose another name")
    with os.scandir(target) as items:
        for item in items:
            if item.name not in listed or not item.is_file(follow_symlinks=False):
                raise HiresvitError(f"{target} also holds {item.name!r}, which --force would delete; move it")


def _check_file(folder: Path, entry: FileEntry) -> None:
    path = folder / entry.name
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            damaged(path, "is a link or a folder, not a file of the bundle")
        if status.st_size != entry.bytes:
            damaged(path, f"has {status.st_size} bytes, the manifest says {entry.bytes}")
        found = sha256_file(path)
    except OSError as error:
        unreadable(path, error)
    if found != entry.sha256:
        damaged(path, f"was changed: its sha256 is {short(found)}, not the manifest's {short(entry.sha256)}")
