"""Atomic writing: the target is the old file or the new one, and nothing else stays behind."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from hiresvit import files
from hiresvit.errors import HiresvitError
from hiresvit.files import atomic_path, clear_abandoned, exchange, naming_target, scratch_folder, temporary_name


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_the_target_appears_only_when_the_body_is_done(tmp_path: Path) -> None:
    target = tmp_path / "graph.onnx"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
        assert not target.exists()
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".onnx"  # writers such as numpy's add their own to a name without it
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["graph.onnx"]


def test_bytes_are_on_the_disk_before_the_name_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the rename would else leave an empty file; an inode keeps its number over a rename."""
    done: list[int | str] = []
    replace = os.replace

    def renamed(old: Path, new: Path) -> None:
        done.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(os.fstat(descriptor).st_ino))
    monkeypatch.setattr(os, "replace", renamed)
    with atomic_path(tmp_path / "graph.onnx") as temporary:
        temporary.write_bytes(b"new")
    file, folder = (path.stat().st_ino for path in (tmp_path / "graph.onnx", tmp_path))
    assert done == [file, "rename", folder]


def test_a_file_system_that_cannot_sync_a_folder_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_path(tmp_path / "graph.onnx") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "graph.onnx").read_bytes() == b"new"
    assert names(tmp_path) == ["graph.onnx"]


def test_a_target_that_somebody_else_made_meanwhile_stays_if_it_shall(tmp_path: Path) -> None:
    target = tmp_path / "a.plan"

    def write() -> None:
        with atomic_path(target, replace=False) as own:
            own.write_bytes(b"ours")
            target.write_bytes(b"theirs")

    with pytest.raises(HiresvitError, match="made by somebody else"):
        write()
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["a.plan"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_interrupted_body_leaves_the_old_file(tmp_path: Path, stop: type[BaseException]) -> None:
    target = tmp_path / "graph.onnx"
    target.write_bytes(b"old")

    def write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise stop

    with pytest.raises(stop):
        write()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["graph.onnx"]


def test_parent_folders_are_created_and_removed_again_on_failure(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "graph.onnx"

    def write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert names(tmp_path) == []
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always-full device")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    target = tmp_path / "graph.onnx"

    def write() -> None:
        with atomic_path(target), open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(HiresvitError, match=r"cannot write .*graph\.onnx: No space left on device"):
        write()
    assert names(tmp_path) == []


@pytest.mark.parametrize("under", ["file/graph.onnx", "file", "x" * 300])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, under: str) -> None:
    (tmp_path / "file").mkdir()
    target = tmp_path / under
    if under != "file":  # a path below a file fails for root too, whom permissions do not stop
        (tmp_path / "file").rmdir()
        (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HiresvitError, match=r"\Acannot write [^\n]+\Z"), atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
    assert names(tmp_path) == ["file"]


def test_an_error_that_is_not_the_disks_passes_through(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError), atomic_path(tmp_path / "graph.onnx"):
        raise TimeoutError(errno.ETIMEDOUT, "the builder hangs")
    assert names(tmp_path) == []


# What a process leaves that was killed

WRITERS = {
    "file": "atomic_path(folder / 'a.plan')",
    "folder": "writing_bundle(folder / 'a', force=False)",
    "scratch": "scratch_folder()",
}


@contextmanager
def writer(folder: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is in the middle of writing into a folder."""
    code = f"""
import sys, time
from pathlib import Path
from hiresvit.bundle.folder import writing_bundle
from hiresvit.files import atomic_path, scratch_folder
folder = Path(sys.argv[1])
with {WRITERS[what]} as temporary:
    (temporary / "half" if temporary.is_dir() else temporary).write_bytes(b"half")
    print("writes", flush=True)
    time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(folder)}
    argv = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writes\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("what", list(WRITERS))
def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_writes_is_not(tmp_path: Path, what: str) -> None:
    with writer(tmp_path, what) as living, writer(tmp_path, what) as dead:
        assert len(names(tmp_path)) == 2
        dead.kill()
        dead.wait()
        assert len(names(tmp_path)) == 2
        clear_abandoned(tmp_path)
        [left] = names(tmp_path)
        clear_abandoned(tmp_path)
        assert names(tmp_path) == [left]
        living.send_signal(signal.SIGINT)  # which still finds its own, and removes it
        living.wait()
        assert names(tmp_path) == []


@pytest.mark.parametrize("what", ["file", "scratch"])
def test_the_next_that_is_written_clears_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    writing: list[Callable[[], AbstractContextManager[Path]]] = [lambda: atomic_path(tmp_path / "b"), scratch_folder]
    for written in writing:
        files._cleared.cache_clear()
        with writer(tmp_path, "file") as process:
            process.kill()
            process.wait()
        assert len(names(tmp_path)) == 1
        with written() as path:
            assert names(tmp_path) == [path.name]
            if path.is_file():
                path.write_bytes(b"whole")
        (tmp_path / "b").unlink(missing_ok=True)
    files._cleared.cache_clear()
    with writer(tmp_path, what) as process:
        process.kill()
        process.wait()
    assert len(names(tmp_path)) == 1
    with atomic_path(tmp_path / "b") if what == "file" else scratch_folder() as path:
        assert names(tmp_path) == [path.name]
        if what == "file":
            path.write_bytes(b"whole")


def test_what_is_not_ours_is_never_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = temporary_name(tmp_path / "a")
    elsewhere = tmp_path / f".{'0' * 8}{mine.name[9:]}"  # of another machine, or before this one was started again
    for path in (elsewhere, tmp_path / ".0123abcd.tmp.a", tmp_path / ".a.calibration.npz", tmp_path / f"x{mine.name}"):
        path.write_bytes(b"theirs")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"theirs")
    temporary_name(tmp_path / "link").symlink_to(tmp_path / "b")
    os.mkfifo(temporary_name(tmp_path / "pipe"))
    before = names(tmp_path)
    clear_abandoned(tmp_path)
    assert names(tmp_path) == before
    mine.write_bytes(b"another user's")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    clear_abandoned(tmp_path)
    assert mine.exists()
    monkeypatch.undo()
    clear_abandoned(tmp_path)
    assert names(tmp_path) == before


def test_where_there_are_no_locks_nothing_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_descriptor: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"whole")
        clear_abandoned(tmp_path)
        assert temporary.exists()
    assert names(tmp_path) == ["a"]


def test_one_that_is_cleared_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process may come between the two at any time: it is done here at the two that matter."""
    real, times = files.lock_path, iter(("before", "after"))

    def lock_path(path: Path) -> int:
        when = next(times, None)
        if when == "before":
            path.unlink()
        found = real(path)
        if when == "after":
            path.unlink()
        return found

    monkeypatch.setattr(files, "lock_path", lock_path)
    with atomic_path(tmp_path / "a") as temporary:
        assert temporary.exists()
        temporary.write_bytes(b"whole")
    assert names(tmp_path) == ["a"]


def test_two_folders_change_places_in_one_step(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    with pytest.raises(FileNotFoundError):
        exchange(one, other)
    other.write_bytes(b"a file will do, too")
    assert exchange(one, other), "tests run on a disk that can"
    assert one.is_file()
    assert other.is_dir()


# Whose fault it is


def test_no_room_for_temporary_files_is_not_the_targets_fault(tmp_path: Path) -> None:
    def write() -> None:
        with naming_target(tmp_path / "bundle"), scratch_folder():
            raise OSError(errno.ENOSPC, "No space left on device")

    where = tempfile.gettempdir()
    with pytest.raises(HiresvitError, match=f"^cannot write temporary files in {where}: No space left .* set TMPDIR"):
        write()


def test_nor_that_there_is_no_place_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "nowhere")])
    with pytest.raises(HiresvitError, match="No usable temporary directory"), naming_target(tmp_path / "a"):
        scratch_folder().__enter__()


def test_what_is_written_elsewhere_meanwhile_is(tmp_path: Path) -> None:
    said = r"cannot write \S+bundle: Is a directory"
    with pytest.raises(HiresvitError, match=said), naming_target(tmp_path / "bundle"), scratch_folder():
        Path("/").write_bytes(b"")
