"""Writing files so that a reader sees the old one or the new one, never half of it; and what is no graph's file."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hiresvit.errors import HiresvitError

# What the disk says no with. Any other OSError is not about the place written to and passes through.
_REFUSALS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS}
    | {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EXDEV}
)


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes as 64 hexadecimal digits. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _fsync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming_target(target: Path) -> Iterator[None]:
    """Turn a full disk, a folder that cannot be written and their like into one line naming ``target``."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise HiresvitError(f"cannot write {target}: {error.strerror}{where}") from error


@contextmanager
def new_parents(target: Path) -> Iterator[None]:
    """Create the folders above ``target``; remove again those that were created if the body fails."""
    created = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in created:  # deepest first; one that somebody else has filled meanwhile stays
            with suppress(OSError):
                folder.rmdir()
        raise


def temporary_name(target: Path) -> Path:
    """A free, hidden name beside ``target`` that keeps its suffix, since some writers look at it."""
    return target.with_name(f".{secrets.token_hex(4)}.tmp.{target.name}")


def refuse_existing(target: Path, *, replace: bool) -> None:
    """Raise HiresvitError for a ``target`` that has appeared while ours was made, unless it may be replaced."""
    if not replace and target.exists():
        raise HiresvitError(f"{target} was made by somebody else meanwhile; choose another name")


@contextmanager
def atomic_path(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` to write to; on success it becomes ``target``.

    On any exception, Ctrl-C and a full disk included, the temporary file is removed and an existing
    ``target`` stays as it was. Missing parent folders are created. Raises HiresvitError where the place
    cannot be written, and with ``replace=False`` for a ``target`` that somebody else has made meanwhile.
    """
    temporary = temporary_name(target)
    with naming_target(target), new_parents(target):
        try:
            yield temporary
            _fsync(temporary)  # or a power cut leaves it empty; some disks say only now that they are full
            refuse_existing(target, replace=replace)
            os.replace(temporary, target)
            with suppress(OSError):  # not every file system can sync a folder
                _fsync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def require_graph_file(path: Path) -> None:
    """Raise HiresvitError, in the same words for every reader, unless there is a file with something in it."""
    if not path.exists():
        raise HiresvitError(f"{path}: no such file; give the path of an .onnx graph")
    if not path.is_file():
        raise HiresvitError(f"{path} is no file: write the graph to one, TensorRT opens it again")
    if not path.stat().st_size:
        raise HiresvitError(f"{path} is empty; copy or export it again")


def no_graph(path: Path, reason: str = "it does not decode as one") -> HiresvitError:
    """The error for a file that is no ONNX graph, or a damaged one."""
    return HiresvitError(f"{path} is not an ONNX graph: {reason}")
