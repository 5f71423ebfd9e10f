"""The C++ readers of a bundle against the Python ones, on bundles that Python wrote and on what was done to them."""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_path import ROOT, load

from hiresvit.bundle.golden import write_golden
from hiresvit.bundle.manifest import list_files, read_manifest, write_manifest
from hiresvit.errors import ArtefactError
from hiresvit.spec import AnchorSpec, ContractSpec, PreprocessSpec, TensorSpec

bundles = load(ROOT / "tests" / "bundles.py")
Change = Callable[[dict[str, Any]], object]


class Readers:
    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.t_said.restype = ctypes.c_char_p

    def __call__(self, name: str, *arguments: Any) -> tuple[int, str]:
        code = getattr(self.library, name)(*arguments)
        return int(code), bytes(self.library.t_said()).decode()

    def bundle(self, folder: Path) -> tuple[int, str]:
        return self("t_bundle", str(folder).encode())

    def golden(self, path: Path) -> tuple[int, str]:
        return self("t_golden", str(path).encode())


@pytest.fixture(scope="module")
def readers(cpp_build: Path) -> Readers:
    return Readers(ctypes.CDLL(str(cpp_build / "tests" / "libhiresvit_readers.so")))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder: Path = bundles.make(tmp_path / "bundle")
    return folder


def test_sums_are_sha256(readers: Readers) -> None:
    data = np.random.default_rng(0).bytes(1000)
    for size in (*range(130), 1000):
        for piece in (1, 63, 64, 65, 1000):
            found = readers("t_sha256", data, ctypes.c_size_t(size), ctypes.c_size_t(piece))
            assert found == (0, hashlib.sha256(data[:size]).hexdigest())


def test_a_bundle_is_read_as_python_reads_it(readers: Readers, bundle: Path) -> None:
    shutil.rmtree(bundle)
    bundle.mkdir()
    bundles.fill(bundle)
    prep = PreprocessSpec(
        "slide", "bicubic", 0.9, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "pillow", "round", 8, "bgr", (9, 7), 5
    )
    base = bundles.manifest_of(*list_files(bundle, bundles.WEIGHTS))
    wanted = replace(
        base,
        spec=replace(base.spec, preprocess=prep, num_classes=2),
        contract=ContractSpec("camera", "nv12", (48, 64), "bt709-full", "int32", confidence=True),
        labels={"names": ["road", "schön"], "colours": [[1, 2, 3], [255, 0, 9]], "source": "dataset"},
        inputs=(TensorSpec("y", "uint8", ("batch", 48, 64)), TensorSpec("uv", "uint8", (1, 24, 32, 2))),
        parity={"images": 1, "stages": [
            {"stage": "fp16", "gate": {"min_sqnr_db": 38.0, "min_cosine": 0.9995, "min_agreement": 0.94},
             "report": {"outputs": []}}]},
    )  # fmt: skip
    write_manifest(bundle, wanted)
    assert read_manifest(bundle / "manifest.json") == wanted
    code, said = readers.bundle(bundle)
    assert code == 0, said
    files = "".join(f"{f.role} {f.name} {f.sha256} {f.bytes} {f.parent or 'none'};" for f in wanted.files)
    numbers = " ".join(f"{value:.17g}" for value in (*prep.mean, *prep.std))
    assert said.split("\n") == [
        "hrvit_b1 hrvit 1 512x512 2",
        f"4 1 {prep.crop_pct:.17g} 1 8 1 9x7 5 {numbers}",
        "2 4 48x64 4 1 1 0",
        "y uint8 -1 48 64;uv uint8 1 24 32 2;",
        "logits float32 -1 19 128 128;",
        files,
        f"fp16 {38:.17g} {0.9995:.17g} {0.94:.17g};",
        "road 1 2 3;schön 255 0 9;",
    ]


def test_a_real_bundle_is_read(readers: Readers, tiny_bundle: Path) -> None:
    code, said = readers.bundle(tiny_bundle)
    assert code == 0, said
    code, said = readers.golden(tiny_bundle / "golden.npz")
    assert code == 0, said
    with np.load(tiny_bundle / "golden.npz") as arrays:
        for name, line in zip(sorted(arrays), said.splitlines(), strict=True):
            array = arrays[name]
            sides = "".join(f" {side}" for side in array.shape)
            assert line == f"{name} {array.dtype}{sides} {hashlib.sha256(array.tobytes()).hexdigest()}"


def set_at(*place: str | int, value: Any) -> Change:
    def change(values: Any) -> None:
        for key in place[:-1]:
            values = values[key]
        values[place[-1]] = value

    return change


def without(key: str) -> Change:
    return lambda values: values.pop(key)


def at(path: str, value: Any) -> tuple[str, Change]:
    keys = [int(part) if part.isdigit() else part for part in path.split(".")]
    return f"{path}={json.dumps(value)[:40]}", set_at(*keys, value=value)


GATE = {"min_sqnr_db": "1", "min_cosine": 0, "min_agreement": 0}
BAD = dict(
    [
        *(at("spec.imgsz", value) for value in ([0, 9], [9], [9, 2**16 + 1], [9, 64.0], "9x9", None, [1e300, 1])),
        *(at("spec.num_classes", value) for value in (-1, True, 2**20 + 1, "19", 18446744073709551615)),
        *(at("spec.task", value) for value in ("detect", None, ["segment"])),
        *(at("spec.name", value) for value in ("../x", "a b", "", "x" * 201, ".hidden", "a\n")),
        *(at("spec.preprocess.resize", value) for value in ("zoom", 1)),
        *(at("spec.preprocess.crop_pct", value) for value in (0, 1.01, "1")),
        *(at("spec.preprocess.mean", value) for value in ([1, 2], [1, 2, "3"], [1, 2, 1e101], [0, 0, True])),
        *(at("spec.preprocess.std", value) for value in ([0, 1, 1], [1, 1, -1])),
        *(at("spec.preprocess.divisor", value) for value in (0, 1.5, 2**16 + 1)),
        *(at("spec.preprocess.stride", value) for value in ([0, 1], [1], 7)),
        at("spec.preprocess.more", 1),
        at("spec.more", 1),
        at("more", 1),
        *(at("contract.name", value) for value in ("video", None)),
        *(at("contract.confidence", value) for value in (0, "false", None)),
        *(at("contract.label_type", value) for value in ("int16", 8)),
        *(at("contract.top_k", value) for value in (0, -5, 5.0)),
        *(at("inputs", value) for value in ([], {}, [1])),  # type: ignore[var-annotated]
        *(at("inputs.0.name", value) for value in ("a\u0007", "\u202ex", "x" * 1001, 3)),
        *(at("inputs.0.shape", value) for value in ([-1], [1.0], [2**63], [[1]], [1] * 33)),
        *(at("inputs.0.dtype", value) for value in ("float 32", "")),
        *(at("files.0.name", value) for value in ("../fp32.onnx", "a/b", "..", "manifest.json", "fp16.onnx", "")),
        *(at("files.0.sha256", value) for value in ("", "A" * 64, "0" * 63, None, "1" * 64)),
        *(at("files.0.bytes", value) for value in (-1, "12", 1e3)),
        *(at("files.1.parent", value) for value in ("fp16.onnx", "nothing", "../x", 5, None)),
        *(at("files.1.parent_sha256", value) for value in ("2" * 64, None)),
        at("files.1.role", "fp32"),
        at("files.1.role", "a b"),
        *(at("weights.sha256", value) for value in (None, "3" * 64, 5)),
        *(at("parity.stages.0.gate", value) for value in ({}, [], GATE)),  # type: ignore[var-annotated]
        *(at("labels", value) for value in (  # type: ignore[var-annotated]
            {}, [], {"names": ["a"], "colours": [[0, 0, 0]], "source": "x"},
            {"names": ["a"] * 19, "colours": [[0, 0, 256]] * 19, "source": "x"},
            {"names": ["a"] * 18 + ["\u200b"], "colours": [[0, 0, 0]] * 19, "source": "x"})),
        *(at("notes", value) for value in ("x", [1])),
        *((f"without {key}", without(key)) for key in ("spec", "files", "contract", "tools", "created", "htp")),
        ("without a file's bytes", lambda values: values["files"][0].pop("bytes")),
        ("without the spec's mean", lambda values: values["spec"]["preprocess"].pop("mean")),
        at("kind", "hiresvit-plan"),
        *(at("schema_version", value) for value in (8, "7", None, 10**18)),
    ]
)  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_python_refuses_is_refused(readers: Readers, bundle: Path, name: str) -> None:
    bundles.edit(bundle, BAD[name])
    with pytest.raises(ArtefactError):
        read_manifest(bundle / "manifest.json")
    code, said = readers.bundle(bundle)
    assert code == 7, said
    assert str(bundle / "manifest.json") in said
    assert "\n" not in said


ANCHORS = AnchorSpec((8, 32), (1.0, 1.25), (0.5, 2.0), 3.5, (0.1, 0.2, 0, -1e99), (1, 2, 3, 4), 0.02, 0.1, 50, 0.0, 7)


def as_detector(*changes: Change) -> Change:
    """The bundle of a detector, and what is wrong with it."""

    def change(values: Any) -> None:
        values["spec"] |= {"task": "detect", "anchors": asdict(ANCHORS)}
        for each in changes:
            each(values)

    return change


def test_anchors_are_read_as_python_reads_them(readers: Readers, bundle: Path) -> None:
    bundles.edit(bundle, as_detector())
    assert read_manifest(bundle / "manifest.json").spec.anchors == ANCHORS
    code, said = readers.bundle(bundle)
    assert code == 0, said

    def words(value: Any) -> str:
        return " ".join(f"{one:.17g}" for one in value) + " ;" if isinstance(value, tuple) else f"{value:.17g};"

    assert said.split("\n")[-1] == "".join(words(value) for value in asdict(ANCHORS).values())


DAMAGED = dict(
    [
        *(at("strides", value) for value in ([], [0], [8.0], [8] * 17, 8, None, [2**16 + 1], ["8"])),
        *(at("scales", value) for value in ([], [0], [-1], [1] * 65, [1e7], {}, [None])),
        *(at("ratios", value) for value in ([], [0], ["1"], [1e-7])),
        *(at("base", value) for value in (0, "4", None, True, [4])),
        *(at("means", value) for value in ([0, 0, 0], [0] * 5, [0, 0, 0, 1e101])),
        *(at("stds", value) for value in ([1, 1, 1], [0, 1, 1, 1], [1, 1, 1, -1])),
        *(at("size_clamp", value) for value in (0, 1.5, None)),
        *(at("score_threshold", value) for value in (0, 1, -1, "0.05")),
        *(at("iou_threshold", value) for value in (-0.1, 1.1, None)),
        *(at("per_level", value) for value in (0, 1.0, 2**16 + 1)),
        *(at("max_boxes", value) for value in (0, 0.5, True)),
        at("more", 1),
        *((f"without {key}", without(key)) for key in asdict(ANCHORS)),
    ]
)


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_anchors_are_refused(readers: Readers, bundle: Path, name: str) -> None:
    bundles.edit(bundle, as_detector(lambda values: DAMAGED[name](values["spec"]["anchors"])))
    with pytest.raises(ArtefactError):
        read_manifest(bundle / "manifest.json")
    code, said = readers.bundle(bundle)
    assert (code, "spec.anchors" in said, "\n" in said) == (7, True, False), said


def test_anchors_are_a_detectors_and_nobody_elses(readers: Readers, bundle: Path) -> None:
    for change in (without("anchors"), set_at("task", value="segment"), set_at("anchors", value=None)):
        shutil.rmtree(bundle)
        bundles.make(bundle)
        bundles.edit(bundle, as_detector(lambda values, change=change: change(values["spec"])))  # type: ignore[misc]
        with pytest.raises(ArtefactError):
            read_manifest(bundle / "manifest.json")
        code, said = readers.bundle(bundle)
        assert (code, "anchors" in said) == (7, True), said


def test_what_python_takes_is_taken(readers: Readers, bundle: Path) -> None:
    for change in (
        set_at("spec", "preprocess", "short_side", value=512),
        set_at("spec", "num_classes", value=0),
        set_at("labels", value={"names": ["a"] * 19, "colours": [[0, 9, 255]] * 19, "source": "x"}),
        set_at("parity", value=None),
        set_at("notes", value=["two\nlines"]),
        set_at("inputs", 0, "shape", value=["\u00e4", 0, 2**63 - 1]),
        lambda values: values["spec"]["preprocess"].pop("filter"),
    ):
        shutil.rmtree(bundle)
        bundles.make(bundle)
        bundles.edit(bundle, change)
        read_manifest(bundle / "manifest.json")
        assert readers.bundle(bundle)[0] == 0, readers.bundle(bundle)[1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"kind"', '"created": "x", "kind"'),
        ('"notes": []', '"notes": ' + "[" * 40 + "]" * 40),
        ('"notes": []', '"notes": [' + "9" * 21 + "]"),
        ('"notes": []', '"notes": [1e999]'),
        ('"notes": []', '"notes": [NaN]'),
        ('"notes": []', '"notes": [-Infinity]'),
        ('"notes": []', '"notes": ["\\ud800"]x'),
        ('"notes": []', '"notes": [],'),
        ('"notes": []', '"notes": [] /* */'),
        ("{", "[{"),
    ],
)
def test_texts_that_are_none_are_refused(readers: Readers, bundle: Path, old: str, new: str) -> None:
    path = bundle / "manifest.json"
    text = re.sub(r'"notes": \[[^]]*\]', '"notes": []', path.read_text()).replace(old, new, 1)
    text = re.sub('("manifest_sha256": )"[0-9a-f]*"', r'\1"' + "0" * 64 + '"', text)
    path.write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()))
    with pytest.raises(ArtefactError):
        read_manifest(path)
    code, said = readers.bundle(bundle)
    assert (code, "\n" in said) == (7, False), said


def test_what_was_changed_or_lost_is_found(readers: Readers, bundle: Path) -> None:
    def refused(code: int, *words: str) -> None:
        found, said = readers.bundle(bundle)
        assert found == code, said
        assert all(word in said for word in words), said

    manifest = bundle / "manifest.json"
    text = manifest.read_bytes()
    manifest.write_bytes(text.replace(b'"hrvit"', b'"hrvix"'))
    refused(7, "was edited")
    manifest.write_bytes(text[:-9])
    refused(7, "not valid JSON")
    manifest.write_bytes(b"")
    refused(7, "not valid JSON")
    manifest.write_bytes(text)
    (bundle / "fp16.onnx").write_bytes(b"another")
    refused(7, "fp16.onnx was changed")
    (bundle / "fp16.onnx").unlink()
    refused(7, "fp16.onnx cannot be read", "No such file")
    (bundle / "fp16.onnx").mkdir()
    refused(7, "fp16.onnx cannot be read", "directory")
    manifest.unlink()
    refused(7, "manifest.json cannot be read")
    assert readers.bundle(bundle / "nowhere")[0] == 7


GOLDEN = {"image": np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)}


def npz(path: Path, compression: int = zipfile.ZIP_STORED, comment: bytes = b"", **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
        archive.comment = comment


def npy(array: np.ndarray[Any, Any], version: tuple[int, int] = (1, 0), pickle: bool = False) -> bytes:
    content = BytesIO()
    np.lib.format.write_array(content, array, version, allow_pickle=pickle)
    return content.getvalue()


def test_arrays_of_every_type_are_read(readers: Readers, tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    for index, dtype in enumerate(["b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]):
        for shape in ((), (5,), (2, 3, 4), (0, 3)):
            array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
            npz(path, a=npy(array, (1 + index % 2, 0)))
            code, said = readers.golden(path)
            assert code == 0, said
            sides = "".join(f" {side}" for side in shape)
            assert said == f"a {array.dtype}{sides} {hashlib.sha256(array.tobytes()).hexdigest()}\n"


def test_archives_that_are_no_golden_pair_are_refused(readers: Readers, tmp_path: Path) -> None:
    path, good = tmp_path / "golden.npz", npy(GOLDEN["image"])

    def refused(word: str) -> None:
        code, said = readers.golden(path)
        assert code == 7, said
        assert word in said, said
        assert "\n" not in said

    npz(path, zipfile.ZIP_DEFLATED, a=good)
    refused("compressed")
    npz(path, comment=b"hello", a=good)
    refused("comment")
    npz(path, a=b"\x93NUMPX" + good[6:])
    refused("no .npy")
    npz(path, a=npy(np.asfortranarray(GOLDEN["image"][0, :2])))
    refused("C order")
    npz(path, a=npy(np.array([{}], object), pickle=True))
    refused("type |O")
    npz(path, a=npy(np.arange(4, dtype=">f4")))
    refused("type >f4")
    npz(path, a=good[:-1])
    refused("48 bytes in a member of 47")
    npz(path, a=good + b"x")
    refused("48 bytes in a member of 49")
    npz(path, a=good.replace(b"(1, 3, 2, 2)", b"(9999999999,"))
    refused("more bytes than")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", good)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", good)
    refused("twice")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", good)
    refused("no .npy")
    path.write_bytes(b"")
    refused("no zip")
    path.unlink()
    refused("No such file")


def test_every_cut_and_every_changed_byte_of_a_golden_pair_is_found(readers: Readers, tmp_path: Path) -> None:
    """But in the bytes that mean nothing: the time and the system that a member was written on, and attributes."""
    path = tmp_path / "golden.npz"
    write_golden(path, GOLDEN, {"logits": GOLDEN["image"][:, :1]})
    data = path.read_bytes()
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        assert readers.golden(path)[0] == 7
    taken = []
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        if readers.golden(path)[0] == 0:
            taken.append(place)
    heads = [match.start() for match in re.finditer(b"PK\x03\x04", data)]
    entries = [match.start() for match in re.finditer(b"PK\x01\x02", data)]
    free = {head + i for head in heads for i in (4, 5, *range(10, 14))}
    free |= {entry + i for entry in entries for i in (4, 5, 6, 7, *range(12, 16), *range(34, 42))}
    assert set(taken) <= free
