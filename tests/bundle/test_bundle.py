"""Bundles: what is written is read back, what was damaged or exchanged is found, a failure leaves nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiresvit.bundle.folder import (
    Bundle,
    FileEntry,
    Manifest,
    Role,
    Weights,
    file_entry,
    read_bundle,
    read_golden,
    write_golden,
    write_manifest,
    writing_bundle,
)
from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.files import sha256_file
from hiresvit.spec import ModelSpec, PreprocessSpec, TensorSpec

WEIGHTS = Weights("hrvit_b1.pth.tar", "ab" * 32)
GRAPHS: tuple[tuple[str, Role], ...] = (
    ("fp32.onnx", "fp32"),
    ("simplified.onnx", "simplified"),
    ("fp16.onnx", "fp16"),
    ("fp16.plan", "plan"),
)
ALL_NAMES = ["fp16.onnx", "fp16.plan", "fp32.onnx", "golden.npz", "manifest.json", "simplified.onnx"]
Values = dict[str, Any]


def manifest_of(*files: FileEntry, weights: Weights = WEIGHTS) -> Manifest:
    return Manifest(
        spec=ModelSpec(
            "hrvit_b1", "hrvit", "segment", (512, 512), 19, PreprocessSpec(), (("windows", (1, 2)),)
        ),
        inputs=(TensorSpec("image", "float32", (1, 3, 512, 512)),),
        outputs=(TensorSpec("logits", "float32", ("batch", 19, 128, 128)),),
        weights=weights,
        files=files,
        tools={"torch": "2.13.0"},
        command=["hiresvit", "export", "hrvit_b1", "-o", "sch\u00f6n"],
        parity=[{"stage": "fp16", "cosine": 0.99999}],
    )


def fill(folder: Path, content: bytes = b"graph") -> None:
    """A whole bundle: each file made from the one before, the first and the golden pair from the weights."""
    files: list[FileEntry] = []
    parent: FileEntry | Weights = WEIGHTS
    for name, role in GRAPHS:
        (folder / name).write_bytes(content + name.encode())
        parent = file_entry(folder, name, role, parent=parent)
        files.append(parent)
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    write_golden(folder / "golden.npz", {"image": image}, {"logits": image[:, :1] + 1})
    write_manifest(folder, manifest_of(*files, file_entry(folder, "golden.npz", "golden", parent=WEIGHTS)))


def make(target: Path, *, force: bool = False, content: bytes = b"graph") -> Path:
    with writing_bundle(target, force=force) as folder:
        fill(folder, content)
    return target


def snapshot(folder: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in folder.iterdir()}


def edit(folder: Path, change: Callable[[Values], object]) -> None:
    """Change a manifest and seal it again by the documented rule, as somebody who knows it would."""
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    values["manifest_sha256"] = "0" * 64
    text = json.dumps(values, indent=2)
    path.write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()))


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
    assert (
        files["fp16.plan"].parent_sha256 == files["fp16.onnx"].sha256 == sha256_file(tmp_path / "b/fp16.onnx")
    )


def test_a_role_the_bundle_lacks_is_named_with_those_it_has(tmp_path: Path) -> None:
    with writing_bundle(tmp_path / "b", force=False) as folder:
        (folder / "fp32.onnx").write_bytes(b"graph")
        write_manifest(folder, manifest_of(file_entry(folder, "fp32.onnx", "fp32", parent=WEIGHTS)))
    with pytest.raises(ArtefactError, match="has no plan file, only fp32"):
        read_bundle(tmp_path / "b").path("plan")


def test_fresh_weights_have_no_sum(tmp_path: Path) -> None:
    fresh = Weights("fresh, seed 0")
    with writing_bundle(tmp_path / "b", force=False) as folder:
        (folder / "fp32.onnx").write_bytes(b"graph")
        entry = file_entry(folder, "fp32.onnx", "fp32", parent=fresh)
        write_manifest(folder, manifest_of(entry, weights=fresh))
    assert read_bundle(tmp_path / "b").manifest.weights == fresh


def test_the_same_content_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    one, two = snapshot(make(tmp_path / "one")), snapshot(make(tmp_path / "two"))
    assert one == two
    assert b'"created": "1970-01-02T00:00:00Z"' in one["manifest.json"]


def test_a_source_date_that_is_no_number_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        manifest_of()


def test_infinity_is_refused_since_json_has_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_manifest(tmp_path, replace(manifest_of(), parity={"sqnr_db": float("inf")}))
    assert os.listdir(tmp_path) == []


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
def test_an_interrupt_leaves_nothing_and_the_old_bundle(
    tmp_path: Path, stop: type[BaseException], force: bool
) -> None:
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


def test_a_rename_that_fails_brings_the_old_bundle_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(make(tmp_path / "b"))
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if target.name == "b" and (self / "fp32.onnx").read_bytes().startswith(b"better"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "b", force=True, content=b"better")
    assert snapshot(tmp_path / "b") == before
    assert os.listdir(tmp_path) == ["b"]


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
        "from hiresvit.bundle.folder import write_golden, writing_bundle\n"
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


def test_verify_false_reads_no_content_but_still_checks_sizes(bundle: Path) -> None:
    path = bundle / "fp16.plan"
    path.write_bytes(path.read_bytes().replace(b"graph", b"grapf"))
    assert read_bundle(bundle, verify=False).path("plan") == path
    path.write_bytes(b"short")
    with pytest.raises(ArtefactError, match="has 5 bytes"):
        read_bundle(bundle, verify=False)


def test_every_single_byte_of_the_manifest_is_guarded(bundle: Path) -> None:
    path = bundle / "manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ArtefactError, match=r"manifest\.json"):
            read_bundle(bundle, verify=False)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"kind": "other", "schema_version": 1}'],
)
def test_a_manifest_that_is_none_is_one_line(bundle: Path, content: bytes) -> None:
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(ArtefactError, match=r"manifest\.json [^\n]+\Z"):
        read_bundle(bundle)


def test_an_unknown_schema_says_both_versions(bundle: Path) -> None:
    edit(bundle, lambda values: values.update(schema_version=99))
    with pytest.raises(ArtefactError, match="has schema version 99, this hiresvit reads 3"):
        read_bundle(bundle)


def first_file(**changes: object) -> Callable[[Values], object]:
    return lambda values: values["files"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first_file(name="../fp32.onnx"), "not a plain file name"),
        (first_file(name="/etc/passwd"), "not a plain file name"),
        (first_file(name="a\\b"), "not a plain file name"),
        (first_file(name="a\n"), "not a plain file name"),
        (first_file(name=".."), "not a plain file name"),
        (first_file(name="manifest.json"), "not a plain file name"),
        (first_file(name=7), "is not a manifest"),
        (lambda values: values["files"][1].update(name="fp32.onnx"), "there twice"),
        (first_file(role="golden"), "there twice"),
        (first_file(role="int4"), "unknown"),
        (first_file(sha256="abc"), "without a sha256"),
        (first_file(sha256=None), "without a sha256"),
        (first_file(parent="fp32.onnx"), "not listed before it"),
        (first_file(parent="fp16.plan"), "not listed before it"),
        (first_file(parent=["a"]), "is not a manifest"),
        (first_file(parent_sha256="cd" * 32), "made from weights cdcdcdcdcdcd, which is abababababab here"),
        (first_file(sha256="cd" * 32), "simplified.onnx made from fp32.onnx"),
        (first_file(color="red"), "is not a manifest"),
        (lambda values: values.pop("tools"), "is not a manifest"),
        (lambda values: values.pop("created"), "is not a manifest"),
        (lambda values: values["spec"].update(imgsz=[1, 2, 3]), "is not a manifest"),
        (lambda values: values.update(files=None), "is not a manifest"),
        (lambda values: values["weights"].update(sha256="cd" * 32), "made from weights"),
    ],
)
def test_an_edited_and_resealed_manifest_is_still_checked(
    bundle: Path, change: Callable[[Values], object], message: str
) -> None:
    edit(bundle, change)
    with pytest.raises(ArtefactError, match=message) as caught:
        read_bundle(bundle)
    assert "\n" not in str(caught.value)


def test_resealing_by_the_documented_rule_is_accepted(bundle: Path) -> None:
    """Else the test above would see nothing but broken seals."""
    edit(bundle, lambda values: values["tools"].update(torch="3.0"))
    assert read_bundle(bundle).manifest.tools == {"torch": "3.0"}


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
        parent: FileEntry | Weights = WEIGHTS
        files = []
        for (name, role), content in zip(GRAPHS, contents, strict=False):
            (folder / name).write_bytes(content)
            parent = file_entry(folder, name, role, parent=parent)
            files.append(parent)
        write_manifest(folder, manifest_of(*files))
        assert read_bundle(folder).manifest.files == tuple(files)

        victim = data.draw(st.integers(0, len(contents) - 1), label="victim")
        other = data.draw(st.binary(max_size=40).filter(lambda new: new != contents[victim]), label="content")
        (folder / GRAPHS[victim][0]).write_bytes(other)
        with pytest.raises(ArtefactError, match=re.escape(GRAPHS[victim][0])):
            read_bundle(folder)

        def hide(values: Values) -> None:  # the manifest now fits the new content, its child does not
            values["files"][victim].update(sha256=hashlib.sha256(other).hexdigest(), bytes=len(other))

        edit(folder, hide)
        if victim + 1 < len(contents):
            with pytest.raises(ArtefactError, match=re.escape(GRAPHS[victim + 1][0])):
                read_bundle(folder)


# The golden pair


def test_a_golden_pair_is_read_back_exactly(tmp_path: Path) -> None:
    inputs = {"image": np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32)}
    outputs = {"labels": np.asfortranarray(np.arange(20).reshape(4, 5)), "score": np.float32(0.5).reshape(())}
    write_golden(tmp_path / "golden.npz", inputs, outputs)
    read_inputs, read_outputs = read_golden(tmp_path / "golden.npz")
    for expected, found in ((inputs, read_inputs), (outputs, read_outputs)):
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, strict=True)


def test_equal_arrays_give_equal_bytes_whatever_their_layout(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_golden(tmp_path / "one.npz", {"a": array, "b": array}, {"c": array})
    write_golden(tmp_path / "two.npz", {"b": np.asfortranarray(array), "a": array}, {"c": array})
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "flipped", "other", "pickled"])
def test_a_damaged_golden_pair_is_one_line(tmp_path: Path, how: str) -> None:
    path = tmp_path / "golden.npz"
    array = np.arange(6, dtype=np.float32)
    write_golden(path, {"image": array}, {"logits": array})
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[:-30])
    elif how == "flipped":  # inside the first array's numbers
        content[content.index(array.tobytes()) + 3] ^= 1
        path.write_bytes(content)
    elif how == "other":
        np.savez(path, image=array)
    elif how == "pickled":
        np.savez(path, allow_pickle=True, image=np.array([{}], dtype=object))
    with pytest.raises(ArtefactError, match=r"golden\.npz [^\n]+\Z"):
        read_golden(path)


def test_a_copied_bundle_is_still_whole(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "copy")
    assert read_bundle(tmp_path / "copy").manifest == read_bundle(bundle).manifest
