"""What a job makes: an archive that is known by the sum of what is in it, and the folder that keeps such archives."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hiresvit.bundle.manifest import MANIFEST
from hiresvit.errors import ArtefactError
from hiresvit.files import sha256_file

_HALF = "half-"


def sum_of(folder: Path) -> str:
    """The sum of a folder's files: equal for equal networks. The manifest, which has times in it, does not count."""
    digest = hashlib.sha256()
    for name, path in _files(folder):
        if path.name != MANIFEST:
            digest.update(f"{name}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def pack(folder: Path) -> bytes:
    """A folder's files as one archive, the same bytes for the same files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in _files(folder):
            entry = tarfile.TarInfo(name)
            entry.size = path.stat().st_size
            entry.mode = 0o644
            with path.open("rb") as file:
                archive.addfile(entry, file)
    return stream.getvalue()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


class Cache:
    """Folders by the sum of what is in them, under ``root``; a folder is there whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, key: str) -> Path | None:
        """The folder with this sum, if it is here."""
        path = self.root / key
        return path if path.is_dir() else None

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """A folder for what is not whole yet."""
        self.root.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=_HALF, dir=self.root)

    def clear(self) -> None:
        """Remove what killed processes left half done; for whoever has the folder alone."""
        for left in self.root.glob(f"{_HALF}*"):
            shutil.rmtree(left, ignore_errors=True)

    def keep(self, folder: Path) -> str:
        """Take over a folder that a job made; returns its sum."""
        key = sum_of(folder)
        if self.find(key) is None:
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                folder.rename(self.root / key)
            except OSError:
                if self.find(key) is None:  # and not made by another process meanwhile
                    self.unpack(key, pack(folder))
        return key

    def keep_file(self, path: Path) -> str:
        """Take a copy of a file, in a folder of its own; returns the folder's sum."""
        with self.scratch() as folder:
            whole = Path(folder, "whole")
            whole.mkdir()
            shutil.copyfile(path, whole / path.name)
            return self.keep(whole)

    def unpack(self, key: str, archive: bytes) -> Path:
        """Put an archive's files here. Raises ArtefactError if they are not those of the sum."""
        if found := self.find(key):
            return found
        with self.scratch() as folder:
            whole = Path(folder, key)
            whole.mkdir()
            with tarfile.open(fileobj=io.BytesIO(archive)) as stream:
                stream.extractall(whole, filter="data")
            if (got := sum_of(whole)) != key:
                raise ArtefactError(f"an archive that should be {key[:12]} is {got[:12]}: it was changed on its way")
            with suppress(OSError):  # another process may have put it there meanwhile
                whole.rename(self.root / key)
        return self.root / key
