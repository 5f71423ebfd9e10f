"""Bundles: what is written is read back, what was damaged or exchanged is found, a failure leaves nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import ALL_NAMES, CHAIN, WEIGHTS, Values, edit, fill, make, manifest_of, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from hiresvit.bundle.folder import Bundle, read_bundle, writing_bundle
from hiresvit.bundle.manifest import Manifest, Weights, list_files, write_manifest
from hiresvit.errors import ArtefactError, HiresvitError
from hiresvit.files import sha256_file

# Writing


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    target = make(tmp_path / "hrvit_b1-segment-512x512")
    bundle = read_bundle(target)
    assert isinstance(bundle, Bundle)
    assert bundle.unlisted == ()
    assert bundle.path("plan") == target / "fp16.plan"
    assert bundle.manifest == replace(manifest_of(*bundle.manifest.files), created=bundle.manifest.created)
    assert bundle.manifest == Manifest.from_json(json.loads(json.dumps(bundle.manifest.to_json())))
    assert sorted(os.listdir(target)) == ALL_NAMES
    assert os.listdir(tmp_path) == [target.name]


def test_each_file_names_its_parent_and_the_first_names_the_weights(tmp_path: Path) -> None:
    files = {entry.name: entry for entry in read_bundle(make(tmp_path / "b")).manifest.files}
    assert files["fp32.onnx"].parent is None
    assert files["fp32.onnx"].parent_sha256 == WEIGHTS.sha256
    assert files["fp16.plan"].parent == "fp16.onnx"
    assert files["fp16.plan"].parent_sha256 == files["fp16.onnx"].sha256 == sha256_file(tmp_path / "b/fp16.onnx")


def test_a_role_the_bundle_lacks_is_named_with_those_it_has(tmp_path: Path) -> None:
    with writing_bundle(tmp_path / "b", force=False) as folder:
        (folder / "fp32.onnx").write_bytes(b"graph")
        write_manifest(folder, manifest_of(*list_files(folder, WEIGHTS)))
    with pytest.raises(ArtefactError, match="has no plan file, only fp32"):
        read_bundle(tmp_path / "b").path("plan")


def test_fresh_weights_have_no_sum(tmp_path: Path) -> None:
    fresh = Weights("fresh, seed 0")
    with writing_bundle(tmp_path / "b", force=False) as folder:
        (folder / "fp32.onnx").write_bytes(b"graph")
        write_manifest(folder, manifest_of(*list_files(folder, fresh), weights=fresh))
    assert read_bundle(tmp_path / "b").manifest.weights == fresh


def test_the_same_content_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    one, two = snapshot(make(tmp_path / "one")), snapshot(make(tmp_path / "two"))
    assert one == two
    assert b'"created": "1970-01-02T00:00:00Z"' in one["manifest.json"]


def test_an_existing_bundle_needs_force_and_is_refused_before_the_work(tmp_path: Path) -> None:
    before = snapshot(make(tmp_path / "b"))
    writing = writing_bundle(tmp_path / "b", force=False)
    with pytest.raises(HiresvitError, match="exists; pass --force") as caught, writing:
        pytest.fail("the work must not start")
    assert caught.value.exit_code == 1
    assert snapshot(tmp_path / "b") == before


def test_force_replaces_a_bundle_whole(tmp_path: Path) -> None:
    make(tmp_path / "b")
    make(tmp_path / "b", force=True, content=b"better")
    assert (tmp_path / "b/fp32.onnx").read_bytes() == b"betterfp32.onnx"
    assert os.listdir(tmp_path) == ["b"]


def test_force_replaces_a_damaged_bundle_too(tmp_path: Path) -> None:
    (make(tmp_path / "b") / "fp16.plan").write_bytes(b"damaged")
    make(tmp_path / "b", force=True)
    assert read_bundle(tmp_path / "b").unlisted == ()


def web_app(folder: Path) -> None:
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "a web app", "files": []}')


def empty_folder(folder: Path) -> None:
    folder.mkdir()


def plain_file(path: Path) -> None:
    path.write_bytes(b"thesis")


@pytest.mark.parametrize("create", [web_app, empty_folder, plain_file])
def test_force_never_replaces_what_is_not_a_bundle(tmp_path: Path, create: Callable[[Path], None]) -> None:
    create(tmp_path / "b")
    with pytest.raises(HiresvitError, match="exists and is not a bundle"):
        make(tmp_path / "b", force=True)
    assert (tmp_path / "b").exists()
    assert os.listdir(tmp_path) == ["b"]


def test_force_never_deletes_a_file_that_somebody_put_beside(tmp_path: Path) -> None:
    (make(tmp_path / "b") / "notes.txt").write_text("weeks of work")
    with pytest.raises(HiresvitError, match=r"also holds 'notes\.txt'"):
        make(tmp_path / "b", force=True)
    assert (tmp_path / "b/notes.txt").read_text() == "weeks of work"


def test_a_target_that_appears_during_the_work_is_not_overwritten(tmp_path: Path) -> None:
    def write() -> None:
        with writing_bundle(tmp_path / "b", force=False) as folder:
            fill(folder)
            make(tmp_path / "b", content=b"rival")

    with pytest.raises(HiresvitError, match="exists; pass --force"):
        write()
    assert (tmp_path / "b/fp32.onnx").read_bytes() == b"rivalfp32.onnx"
    assert os.listdir(tmp_path) == ["b"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("force", [False, True])
def test_an_interrupt_leaves_nothing_and_the_old_bundle(tmp_path: Path, stop: type[BaseException], force: bool) -> None:
    before = snapshot(make(tmp_path / "b")) if force else {}

    def write() -> None:
        with writing_bundle(tmp_path / "b", force=force) as folder:
            fill(folder, b"half")
            raise stop

    with pytest.raises(stop):
        write()
    assert os.listdir(tmp_path) == (["b"] if force else [])
    assert not force or snapshot(tmp_path / "b") == before


def test_parents_created_for_a_bundle_that_failed_are_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), writing_bundle(tmp_path / "x/y/b", force=False):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_rename_that_fails_brings_the_old_bundle_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(make(tmp_path / "b"))
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if target.name == "b" and (self / "fp32.onnx").read_bytes().startswith(b"better"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    monkeypatch.setattr("hiresvit.files.exchange", lambda one, other: False)  # so that it takes two renames
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "b", force=True, content=b"better")
    assert snapshot(tmp_path / "b") == before
    assert os.listdir(tmp_path) == ["b"]


def test_whoever_looks_finds_a_bundle_while_it_is_replaced(tmp_path: Path) -> None:
    """Two renames would leave none between them: 2 to 20 % of the looks found that."""
    target = make(tmp_path / "b")
    writers = "import sys\nfrom pathlib import Path\nfrom bundles import make\n"
    writers += "for _ in range(150): make(Path(sys.argv[1]), force=True)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    looks = 0
    with subprocess.Popen([sys.executable, "-c", writers, str(target)], env=environment) as process:
        while process.poll() is None:
            assert (target / "manifest.json").exists(), f"after {looks} looks"
            looks += 1
            if not looks % 10:
                read_bundle(target)
    assert process.returncode == 0
    assert looks > 1000
    assert os.listdir(tmp_path) == ["b"]


@pytest.mark.parametrize("one_step", [True, False])
def test_a_kill_between_two_steps_loses_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_step: bool
) -> None:
    before = snapshot(make(tmp_path / "b"))
    code = f"""
import os, signal
from pathlib import Path
from hiresvit import files
from hiresvit.bundle import folder
from bundles import make
if not {one_step}:
    files.exchange = lambda one, other: False
rename = Path.rename
def killed(self, target):
    if target.name == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = killed
files.shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
folder._require_free = lambda *_: None
make(Path({str(tmp_path / "b")!r}), force=True, content=b"better")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "b").exists() is one_step
    assert len(os.listdir(tmp_path)) == 2
    make(tmp_path / "c")
    assert sorted(os.listdir(tmp_path)) == ["b", "c"], "nothing hidden"
    assert (snapshot(tmp_path / "b") == before) is not one_step


def test_a_bundle_that_does_not_hold_together_never_gets_its_name(tmp_path: Path) -> None:
    def write() -> None:
        with writing_bundle(tmp_path / "b", force=False) as folder:
            fill(folder)
            (folder / "fp16.plan").write_bytes(b"written after the manifest")

    with pytest.raises(ArtefactError, match=r"fp16\.plan"):
        write()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always-full device")
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with writing_bundle(tmp_path / "b", force=False) as folder:
            (folder / "fp32.onnx").write_bytes(b"graph")
            with open("/dev/full", "wb", buffering=0) as full:
                full.write(b"x")

    with pytest.raises(HiresvitError, match=r"\Acannot write \S+: No space left on device\Z") as caught:
        write()
    assert caught.value.exit_code == 1
    assert os.listdir(tmp_path) == []


def test_a_write_cut_off_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    """A child whose files may not grow over 64 KiB writes a golden pair of 400 KB into a bundle."""
    child = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from hiresvit.bundle.folder import writing_bundle\n"
        "from hiresvit.bundle.golden import write_golden\n"
        "from hiresvit.errors import HiresvitError\n"
        "array = np.zeros(100_000, np.float32)\n"
        "try:\n"
        "    with writing_bundle(Path(sys.argv[1]), force=False) as folder:\n"
        "        write_golden(folder / 'golden.npz', {'image': array}, {'logits': array})\n"
        "except HiresvitError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", child, str(tmp_path / "b")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"cannot write \S+golden\.npz: File too large\n", done.stdout), done
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_one_line_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")  # a path below a file stops root too
    writing = writing_bundle(tmp_path / "file/b", force=False)
    with pytest.raises(HiresvitError, match=r"\Acannot write [^\n]+\Z"), writing:
        pytest.fail("the work must not start")


# Reading


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "b")


@pytest.mark.parametrize("name", [name for name in ALL_NAMES if name != "manifest.json"])
@pytest.mark.parametrize("how", ["byte", "shorter", "longer", "missing", "folder", "link"])
def test_each_file_is_guarded(bundle: Path, name: str, how: str) -> None:
    path = bundle / name
    content = path.read_bytes()
    path.unlink()
    if how == "byte":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "shorter":
        path.write_bytes(content[:-1])
    elif how == "longer":
        path.write_bytes(content + b"\0")
    elif how == "folder":
        path.mkdir()
    elif how == "link":  # the same content, but from outside
        (bundle.parent / "elsewhere").write_bytes(content)
        path.symlink_to(bundle.parent / "elsewhere")
    with pytest.raises(ArtefactError, match=rf"/{re.escape(name)} [^\n]+\Z") as caught:
        read_bundle(bundle)
    assert caught.value.exit_code == 7


def test_a_changed_file_is_reported_with_both_sums(bundle: Path) -> None:
    path = bundle / "fp16.plan"
    then = sha256_file(path)
    path.write_bytes(path.read_bytes().replace(b"graph", b"grapf"))
    with pytest.raises(ArtefactError, match=f"{sha256_file(path)[:12]}, not the manifest's {then[:12]}"):
        read_bundle(bundle)


def test_a_file_of_another_size_is_reported_with_both(bundle: Path) -> None:
    path = bundle / "fp16.plan"
    then = path.stat().st_size
    path.write_bytes(b"short")
    with pytest.raises(ArtefactError, match=f"has 5 bytes, the manifest says {then}"):
        read_bundle(bundle)


def test_a_file_that_nobody_listed_is_reported(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    assert read_bundle(bundle).unlisted == ("notes.txt",)


def test_no_folder_is_bad_input_and_not_a_damaged_artefact(tmp_path: Path) -> None:
    with pytest.raises(HiresvitError, match="is not a bundle folder") as caught:
        read_bundle(tmp_path / "nowhere")
    assert caught.value.exit_code == 1


@settings(max_examples=25, deadline=None)
@given(data=st.data(), contents=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4))
def test_any_change_anywhere_in_the_chain_is_found(data: st.DataObject, contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, content in zip(CHAIN, contents, strict=False):
            (folder / name).write_bytes(content)
        files = list_files(folder, WEIGHTS)
        assert [entry.name for entry in files] == list(CHAIN[: len(contents)])
        write_manifest(folder, manifest_of(*files))
        assert read_bundle(folder).manifest.files == files

        victim = data.draw(st.integers(0, len(contents) - 1), label="victim")
        other = data.draw(st.binary(max_size=40).filter(lambda new: new != contents[victim]), label="content")
        (folder / CHAIN[victim]).write_bytes(other)
        with pytest.raises(ArtefactError, match=re.escape(CHAIN[victim])):
            read_bundle(folder)

        def hide(values: Values) -> None:  # the manifest now fits the new content, its child does not
            values["files"][victim].update(sha256=hashlib.sha256(other).hexdigest(), bytes=len(other))

        edit(folder, hide)
        if victim + 1 < len(contents):
            with pytest.raises(ArtefactError, match=re.escape(CHAIN[victim + 1])):
                read_bundle(folder)


def test_a_copied_bundle_is_still_whole(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "copy")
    assert read_bundle(tmp_path / "copy").manifest == read_bundle(bundle).manifest
