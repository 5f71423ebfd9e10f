"""What the system says no to is one line that names what was asked for, in every command: never a mistake of ours."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Cli
from PIL import Image

from hiresvit.errors import refused
from hiresvit.files import native_path

_DAC = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of linux/capability.h


@contextmanager
def no_superuser() -> Iterator[None]:
    """Whom permissions stop: root may do without two capabilities for a while, capset(2). Others are stopped anyway."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their upper halves
    assert libc.capget(head, sets) == 0
    before = sets[0]
    sets[0] = before & ~_DAC
    assert libc.capset(head, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(head, sets) == 0


@pytest.fixture
def locked(tmp_path: Path, tiny_bundle: Path) -> Iterator[Path]:
    """A folder with one of everything that may not be entered."""
    folder = tmp_path / "locked"
    shutil.copytree(tiny_bundle, folder / "b")
    for name in (
        "a.onnx",
        "p.plan",
        "w.pth",
        "w.pdparams",
        "w.safetensors",
        "t.json",
        "l.txt",
        "x.npz",
        "classes.json",
    ):
        (folder / name).write_bytes(b"x")
    (folder / "pics").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "p.png")
    folder.chmod(0)
    with no_superuser():
        yield folder
    folder.chmod(0o700)


NANO = Path(__file__).parents[2] / "examples" / "hrvit_nano.safetensors"
READ = """
inspect {l}/b
inspect {l}/a.onnx
inspect {l}/p.plan
run {l}/b {p}
run {l}/a.onnx {p}
run {l}/p.plan {p}
run {b} {l}/p.png
run {b} {p} --data {l}/pics
bench {l}/b
bench {l}/a.onnx
compare {l}/b {b}
compare {b} {l}/a.onnx
compare {b} {b} --image {l}/p.png
check {l}/b --no-build
check {l}/a.onnx --no-build
build {l}/b
build {l}/a.onnx
calibrate {l}/b --calib scenes
calibrate {l}/a.onnx --calib scenes
calibrate {b} --calib {l}/pics
calibrate {b} --calib {l}/l.txt
calibrate {b} --calib {l}/x.npz
calibrate {b} --data {l}
calibrate {b} --calib scenes --calib-table {l}/t.json
convert {l}/w.pth x.safetensors --model hrvit_b1
convert {l}/w.pdparams x.safetensors --model hrvit_b1
convert {l}/w.safetensors x.safetensors --model hrvit_b1
eval {l}/b --dataset scenes
eval {b} --data {l}
export hrvit_b1 --imgsz 64 --weights {l}/w.pth
export hrvit_b1 --imgsz 64 --int8 --calib {l}/pics
"""
WRITTEN = """
run {b} {p} -o {l}/o.png
build {b}/fp16.onnx -o {l}/x.plan
calibrate {b} --calib scenes -o {l}/i.onnx
convert {w} {l}/x.safetensors --model hrvit_nano
export hrvit_b1 --imgsz 64 -o {l}/e
"""


def test_a_folder_that_may_not_be_entered(
    cli: Cli, tmp_path: Path, locked: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HIRESVIT_DEBUG", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    picture = tmp_path / "p.png"
    Image.new("RGB", (8, 8)).save(picture)
    said = {}
    for typed in (READ + WRITTEN).strip().splitlines():
        if typed:
            result = cli(*typed.format(l=locked, b=tiny_bundle, p=picture, w=NANO).split())
            said[typed] = (result.code, result.err.splitlines()[-1])
    verb = dict.fromkeys(READ.splitlines(), "read|open") | dict.fromkeys(WRITTEN.splitlines(), "write|open")
    wrong = {
        typed: line
        for typed, (code, line) in said.items()
        if code != 1 or not re.match(rf"error: cannot ({verb[typed]}) {locked}\S*: Permission denied", line)
    }
    assert wrong == {}
    assert os.listdir() == []


@pytest.mark.parametrize("name", ["manifest.json", "cpu.onnx", "golden.npz", ""])
def test_a_bundle_of_somebody_else_is_not_damaged(cli: Cli, tmp_path: Path, tiny_bundle: Path, name: str) -> None:
    bundle = tmp_path / "b"
    shutil.copytree(tiny_bundle, bundle)
    (bundle / name).chmod(0)
    with no_superuser():
        result = cli("inspect", bundle)
    (bundle / name).chmod(0o700)
    assert result.code == 1
    assert re.match(rf"error: cannot (read|open) {bundle / name}: Permission denied", result.err)
    assert "again" not in result.err


def test_a_name_that_is_too_long(cli: Cli) -> None:
    for typed in (
        "inspect {}",
        "eval {} --dataset scenes",
        "check {}.onnx --no-build",
        "export hrvit_b1 --weights {}.pth",
    ):
        result = cli(*typed.format("a" * 300).split())
        assert (typed, result.code) == (typed, 1)
        assert re.match(r"error: cannot \w+ a{300}\S*: File name too long", result.err)


def test_an_error_of_a_library_is_not_the_systems() -> None:
    assert refused(OSError("image file is truncated")) is None
    assert refused(ValueError("Permission denied")) is None
    assert str(refused(OSError(errno.EIO, "Input/output error", "a"))) == "cannot open a: Input/output error"
    assert (
        str(refused(OSError(errno.ENOSPC, "No space left"))) == "No space left; make room there or choose another place"
    )


# Names that are not UTF-8


def test_a_folder_whose_name_is_not_utf8(
    cli: Cli, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xff\xe9"))
    bundle, graph, picture = folder / "b", folder / os.fsdecode(b"g\xfe.onnx"), folder / os.fsdecode(b"p\xfe.png")
    shutil.copytree(tiny_bundle, bundle)
    shutil.copy(tiny_bundle / "simplified.onnx", graph)
    Image.new("RGB", (64, 64), (9, 99, 9)).save(picture)
    for typed in (
        ("inspect", bundle),
        ("inspect", graph),
        ("inspect", folder),
        ("run", bundle, picture, "-o", folder / "o.png"),
        ("run", graph, picture, "--json"),
        ("run", bundle, picture, "--runner", "openvino"),
        ("compare", bundle, graph, "--image", picture, "--images", "0", "--json"),
        ("bench", graph, "--min-s", "0"),
        ("check", bundle, "--no-build"),
        ("check", graph, "--no-build", "--json"),
        ("build", graph, "--dry-run"),
        ("calibrate", graph, "--calib", folder, "--calib-images", "2", "-o", folder / "i.onnx"),
    ):
        result = cli(*typed)
        calibrated = typed[0] == "calibrate"  # with fewer pictures than were asked for
        assert result.code == 0 or calibrated, (typed, result.err)
        assert "internal" not in result.err
    assert (folder / "o.png").exists()


def test_native_code_finds_the_files_beside_a_graph(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xff"))
    folder.mkdir()
    (folder / "g.onnx").write_bytes(b"graph")
    (folder / "g.data").write_bytes(b"weights")
    with native_path(folder / "g.onnx") as name:
        name.encode()
        assert Path(name).read_bytes() == b"graph"
        assert Path(name).with_name("g.data").read_bytes() == b"weights"
    assert not Path(name).exists(), "the descriptor is closed"
    with native_path(tmp_path / "a.onnx") as name:
        assert name == str(tmp_path / "a.onnx")


# A bundle one folder deeper


def test_the_bundle_in_a_folder_is_taken_and_said(cli: Cli, tmp_path: Path, tiny_bundle: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "download" / "hrvit_b1-segment-64x96")
    (tmp_path / "download" / "pictures").mkdir()
    inner = tmp_path / "download" / "hrvit_b1-segment-64x96"
    note = f"note: {tmp_path / 'download'} is no bundle, the one in it is taken: {inner}\n"
    picture = tmp_path / "p.png"
    Image.new("RGB", (64, 64)).save(picture)
    for typed in (
        ("inspect",),
        ("bench", "--min-s", "0"),
        ("check", "--no-build"),
        ("build", "--dry-run"),
        ("run", picture, "-o", tmp_path / "o.png"),
    ):
        result = cli(typed[0], tmp_path / "download", *typed[1:])
        assert (typed, result.code) == (typed, 0)
        assert result.err.startswith(note)
    shutil.copytree(inner, tmp_path / "download" / "another")
    for command in ("inspect", "bench", "check", "build"):
        result = cli(command, tmp_path / "download")
        assert (command, result.code) == (command, 1)
        assert f"give one of those in it: {tmp_path / 'download' / 'another'}, {inner}" in result.err
