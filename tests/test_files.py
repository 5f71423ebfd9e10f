"""Atomic writing: the target is the old file or the new one, and nothing else stays behind."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from hiresvit.errors import HiresvitError
from hiresvit.files import atomic_path


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
