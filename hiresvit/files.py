"""Writing files so that a reader sees the old one or the new one, never half of it; reading only what is a file.

What is half done lies under a hidden name, which holds a mark of the running system (`_system_mark`), and is locked by
who makes it (flock). A process that was killed unlocks what it leaves, and the next one that writes into the same
folder clears that away. What another machine made, or this one before it was started again, is left alone: nobody here
can know whether its owner lives.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO

from hiresvit.errors import HiresvitError

MOST_TEXT = 2**26
"""Bytes: more than any JSON file of ours has."""

# What the disk says no with. Any other OSError is not about the place written to and passes through.
_REFUSALS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS}
    | {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EXDEV}
)


def open_regular(path: Path) -> BinaryIO:
    """A file, to be read. Raises OSError; also for a pipe and a device, which would block or never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device, and no file", str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, most: int) -> bytes:
    """The bytes of a file. Raises OSError as `open_regular` does, and for more than ``most`` bytes."""
    with open_regular(path) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return data


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes as 64 hexadecimal digits. Raises OSError as `open_regular` does."""
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
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
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what is only read does not say that
        if error.errno not in _REFUSALS or not (full or _belongs(error.filename, target)):
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise HiresvitError(f"cannot write {target}: {error.strerror}{where}") from error


def _belongs(named: str | bytes | int | None, target: Path) -> bool:
    """Whether what an error names is the target, a folder above it, in it, or what becomes it; it may name nothing."""
    if named is None or isinstance(named, int):
        return True
    path = Path(os.path.realpath(os.fsdecode(named)))
    place = Path(os.path.realpath(target))
    hidden = path.is_relative_to(place.parent) and path.relative_to(place.parent).name.startswith(f".{_system_mark()}")
    return hidden or path.is_relative_to(place) or place.is_relative_to(path)


@contextmanager
def naming_source(source: Path) -> Iterator[None]:
    """Turn what the system says no with into one line naming ``source``, the file that is read."""
    try:
        yield
    except OSError as error:
        raise HiresvitError(f"cannot read {source}: {error.strerror or error}") from error


@contextmanager
def native_path(path: Path) -> Iterator[str]:
    """A name that native code can open, which takes UTF-8 only: its own, or one by way of /proc for as long as needed.

    Files beside it are found beside that, too, unless the file's own name is not UTF-8. Raises OSError.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        whole = path.name.isascii()
        descriptor = os.open(path.parent if whole else path, os.O_RDONLY)
        try:
            yield f"/proc/self/fd/{descriptor}{f'/{path.name}' if whole else ''}"
        finally:
            os.close(descriptor)
    else:
        yield str(path)


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


def temporary_name(target: Path, kind: str = "tmp") -> Path:
    """A free, hidden name beside ``target`` that keeps its suffix, since some writers look at it."""
    return target.with_name(f".{_system_mark()}{secrets.token_hex(4)}.{kind}.{target.name}")


@cache
def _system_mark() -> str:
    """Eight digits for this machine since it was started, the same in all its containers; random where unknown."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        return hashlib.sha256(boot).hexdigest()[:8]
    return secrets.token_hex(4)


def _new_file(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))


@contextmanager
def temporary_beside(target: Path, make: Callable[[Path], None] = _new_file) -> Iterator[Path]:
    """Make something new under a hidden name beside ``target``, by default a file, and remove what is there at the end.

    It is locked meanwhile, which says that its owner lives. Raises OSError where there can be none.
    """
    held = False
    while not held:
        path, lock = temporary_name(target), None
        try:  # from before it is made: a signal may come at any time
            make(path)
            held, lock = _lock_new(path)
            if held:
                yield path
        finally:
            _remove(path)
            if lock is not None:
                os.close(lock)


def _lock_new(path: Path) -> tuple[bool, int | None]:
    """Whether it is still there, for `clear_abandoned` of another process may come before the lock; and the lock."""
    try:
        lock = lock_path(path)
    except (BlockingIOError, FileNotFoundError):
        return False, None
    except OSError:  # a file system without locks, where nothing is ever cleared
        return True, None
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock), path.lstat()), lock
    return False, lock


def lock_path(path: Path) -> int:
    """Lock a file or a folder, wherever it is moved, until the descriptor that is returned is closed.

    Raises BlockingIOError while another process has it, and another OSError where the file system has no locks.
    """
    kind = path.lstat().st_mode
    if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):  # a pipe would block, a link may lead anywhere
        raise OSError(errno.EINVAL, "neither a file nor a folder", str(path))
    descriptor = os.open(path, (os.O_RDONLY if stat.S_ISDIR(kind) else os.O_RDWR) | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clear_abandoned(folder: Path) -> None:
    """Remove what processes of this machine that are gone have left half done in ``folder``; what cannot be, stays.

    A bundle that such a process had moved aside, with nothing in its place yet, gets its name back.
    """
    with suppress(OSError):
        for name in os.listdir(folder):
            if found := re.fullmatch(rf"\.{_system_mark()}[0-9a-f]{{8}}\.(tmp|old)\.(.+)", name, re.DOTALL):
                _clear(folder / name, found[1] == "old", folder / found[2])


_cleared = cache(clear_abandoned)
"""Once in a process: whoever writes many files into a large folder need not read it each time."""


def _clear(path: Path, aside: bool, target: Path) -> None:
    with suppress(OSError):
        if path.lstat().st_uid != os.geteuid():
            return
        lock = lock_path(path)
        try:
            if aside and not os.path.lexists(target):
                path.rename(target)
            else:
                _remove(path)
        finally:
            os.close(lock)


_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h
_CANNOT_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV})


def exchange(one: Path, other: Path) -> bool:
    """Give two files or folders each other's names in one step; False where the system or the disk cannot.

    renameat2(2), Linux 3.15. Raises OSError, FileNotFoundError if one of them is not there.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    here = -100  # AT_FDCWD
    if not call(here, os.fsencode(one), here, os.fsencode(other), _EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


@contextmanager
def new_folder(target: Path, require_free: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` to fill; on success it becomes ``target``.

    On any exception, Ctrl-C and a full disk included, it is removed and what was there stays as it was.
    ``require_free`` raises where ``target`` may not be replaced; it is asked before and after. Raises HiresvitError
    where the place cannot be written.
    """
    with naming_target(target):
        target = Path(os.path.realpath(target))  # a link is followed, not replaced
        clear_abandoned(target.parent)
        require_free(target)
        with new_parents(target), temporary_beside(target, Path.mkdir) as temporary:
            yield temporary
            require_free(target)
            _replace(temporary, target)


def _replace(temporary: Path, target: Path) -> None:
    """Rename ``temporary`` to ``target``; what was there is under the temporary name then, or gone.

    In one step where that can be: at no time is there no bundle. Where it takes two, one that is moved aside by a
    process that is killed between them is brought back by the next (`clear_abandoned`).
    """
    with suppress(FileNotFoundError):  # nothing is there yet, or not any more
        if exchange(temporary, target):
            return
    if not os.path.lexists(target):
        temporary.rename(target)
        return
    aside, lock = temporary_name(target, "old"), None
    with suppress(OSError):  # a file system without locks
        lock = lock_path(target)
    try:
        target.rename(aside)
        temporary.rename(target)
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
        elif aside.exists():
            aside.rename(target)
        if lock is not None:
            os.close(lock)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder for temporary files, removed at the end. Raises HiresvitError where there is no room for it."""
    with naming_scratch():
        place = Path(tempfile.gettempdir())
        _cleared(place)
        with temporary_beside(place / "hiresvit", partial(os.mkdir, mode=0o700)) as folder:
            yield folder


@contextmanager
def naming_scratch() -> Iterator[None]:
    """Turn what the disk of the temporary files says no with into one line naming them, and not what is made of them.

    What is about a named file elsewhere passes through.
    """
    try:
        yield
    except OSError as error:
        place = tempfile.tempdir or os.environ.get("TMPDIR") or "/tmp"
        elsewhere = error.filename and not os.fsdecode(error.filename).startswith(place)
        if error.errno not in _REFUSALS or elsewhere:
            raise
        raise HiresvitError(
            f"cannot write temporary files in {place}: {error.strerror}; make room there, or set TMPDIR to a folder"
            " that has some"
        ) from error


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
    with naming_target(target), new_parents(target):
        _cleared(target.parent)
        with temporary_beside(target) as temporary:
            yield temporary
            sync(temporary)  # or a power cut leaves it empty; some disks say only now that they are full
            refuse_existing(target, replace=replace)
            os.replace(temporary, target)
            with suppress(OSError):  # not every file system can sync a folder
                sync(target.parent)
