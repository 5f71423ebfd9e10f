"""The manifest: what is no manifest, was edited or is of another schema, and the schema before this one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from bundles import Values, edit, make, manifest_of

from hiresvit.bundle.folder import read_bundle, writing_bundle
from hiresvit.bundle.manifest import SCHEMA_VERSION, write_manifest
from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.spec import ContractSpec


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "b")


def test_a_source_date_that_is_no_number_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        manifest_of()


def test_infinity_is_refused_since_json_has_none(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="not JSON compliant"):
        write_manifest(tmp_path, replace(manifest_of(), parity={"sqnr_db": float("inf")}))
    assert os.listdir(tmp_path) == []


def test_what_is_not_read_is_not_written(tmp_path: Path) -> None:
    spec = manifest_of().spec
    with pytest.raises(ArtefactError, match=r"cannot be written: spec\.imgsz\[0\] must be integer"):
        write_manifest(tmp_path, replace(manifest_of(), spec=replace(spec, imgsz=(0.5, 2))))  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_every_single_byte_of_the_manifest_is_guarded(bundle: Path) -> None:
    path = bundle / "manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ArtefactError, match=r"manifest\.json"):
            read_bundle(bundle)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"kind": "other", "schema_version": 1}'],
)
def test_a_manifest_that_is_none_is_one_line(bundle: Path, content: bytes) -> None:
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(ArtefactError, match=r"manifest\.json [^\n]+\Z"):
        read_bundle(bundle)


@pytest.mark.parametrize("schema", [99, 8, "5", None, 3.5, True, [], {}])
def test_an_unknown_schema_says_all_versions(bundle: Path, schema: object) -> None:
    edit(bundle, lambda values: values.update(schema_version=schema))
    said = (
        f"has schema version {schema!r}, this hiresvit reads 3, 4, 5, 6 and 7; export the bundle again or copy it anew"
    )
    with pytest.raises(ArtefactError, match=re.escape(said)):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["hiresvit", "export", "b1", "-o", "my bundle"], "make it anew: hiresvit export b1 -o 'my bundle'"),
        (["hiresvit", "a\nb"], "make it anew: hiresvit 'a b'"),
        ([], "export the bundle again or copy it anew"),
        (["rm", "-rf", "/"], "export the bundle again or copy it anew"),
        ("hiresvit", "export the bundle again or copy it anew"),
        (None, "export the bundle again or copy it anew"),
    ],
)
def test_an_older_schema_is_refused_with_the_command_that_makes_it_anew(
    bundle: Path, command: object, said: str
) -> None:
    edit(bundle, lambda values: values.update(schema_version=2, command=command))
    with pytest.raises(ArtefactError) as caught:
        read_bundle(bundle)
    assert str(caught.value) == (
        f"{bundle / 'manifest.json'} has schema version 2, this hiresvit reads 3, 4, 5, 6 and 7; {said}"
    )


def first_file(**changes: object) -> Callable[[Values], object]:
    return lambda values: values["files"][0].update(changes)


def labels(**changes: object) -> Callable[[Values], object]:
    good = {"names": ["a", "b"], "colours": [[0, 0, 0]] * 2, "source": "file"}
    return lambda values: (values["spec"].update(num_classes=2), values.update(labels=good | changes))


def test_labels_that_fit_are_read(bundle: Path) -> None:
    edit(bundle, labels())
    assert (read_bundle(bundle).manifest.labels or {})["names"] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first_file(name="../fp32.onnx"), "must be a plain name"),
        (first_file(name="/etc/passwd"), r"files\[0\]\.name must be a plain name"),
        (first_file(name="a\\b"), "must be a plain name"),
        (first_file(name="a\n"), "must be a plain name"),
        (first_file(name=".."), "must be a plain name"),
        (first_file(name="manifest.json"), "which is the manifest"),
        (first_file(name=7), r"is damaged: files\[0\]\.name must be string"),
        (lambda values: values["files"][1].update(name="fp32.onnx"), "there twice"),
        (first_file(role="golden"), "there twice"),
        (first_file(role="int4"), "unknown"),
        (first_file(sha256="abc"), "must be a sha256"),
        (first_file(sha256=None), "must be string"),
        (first_file(parent="fp32.onnx"), "not listed before it"),
        (first_file(parent="fp16.plan"), "not listed before it"),
        (first_file(parent=["a"]), "must be string or null"),
        (first_file(parent_sha256="cd" * 32), "made from weights cdcdcdcdcdcd, which is abababababab here"),
        (first_file(sha256="cd" * 32), "simplified.onnx made from fp32.onnx"),
        (first_file(color="red"), "must not contain {'color'}"),
        (lambda values: values.pop("tools"), "is damaged: it must contain .'tools'. properties"),
        (lambda values: values.pop("created"), "must contain .'created'."),
        (lambda values: values["spec"].update(imgsz=[1, 2, 3]), "spec.imgsz must contain less than or equal to 2"),
        (lambda values: values.update(files=None), "files must be array"),
        (lambda values: values["weights"].update(sha256="cd" * 32), "made from weights"),
        (labels(names=["a"]), "labels must have a name and a colour for each of 2 classes"),
        (labels(colours=[[0, 0, 0]]), "labels must have a name and a colour for each of 2 classes"),
        (labels(names=["a", "b\x1b"]), r"labels\.names\[1\] must be a name"),
        (labels(names=["a", "\ud800"]), r"labels\.names\[1\] must be a name"),
        (labels(colours=[[0, 0, 256]] * 2), r"labels\.colours\[0\]\[2\] must be smaller"),
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


# Schema 3, as the version before wrote it

LATER = {  # what was done, and was not said
    **{"filter": "pillow", "rounding": "floor", "divisor": 1},
    **{"channels": "rgb", "stride": None, "short_side": None},
}


def test_a_bundle_of_schema_3_is_read(schema_3: Path) -> None:
    values = json.loads((schema_3 / "manifest.json").read_text())
    assert values["schema_version"] == 3
    bundle = read_bundle(schema_3)
    assert [entry.role for entry in bundle.manifest.files] == [
        *("fp32", "simplified", "cpu", "fp16", "plan", "plan_info"),
        *("calibration", "int8", "int8_plan", "int8_plan_info", "golden"),
    ]
    assert bundle.manifest.engines == {"fp16": values["engine"], "int8": values["int8"].pop("engine")}
    assert bundle.manifest.int8 == values["int8"], "the verdict among it"
    assert bundle.manifest.graphs == {}
    same = set(values) - {"kind", "schema_version", "manifest_sha256", "engine", "int8"}
    written = json.loads(json.dumps(bundle.manifest.to_json()))
    values["spec"]["preprocess"] |= LATER
    assert {key: written[key] for key in same} == {key: values[key] for key in same}


def test_a_bundle_of_schema_3_without_plans_is_read(schema_3: Path) -> None:
    def leave_out(values: Values) -> None:
        values.update(engine=None, int8=None)
        values["files"] = [entry for entry in values["files"] if "plan" not in entry["role"]]

    edit(schema_3, leave_out)
    manifest = read_bundle(schema_3).manifest
    assert (manifest.engines, manifest.int8) == ({}, None)


def test_what_was_read_of_schema_3_is_written_as_this_one(schema_3: Path) -> None:
    before = read_bundle(schema_3).manifest
    write_manifest(schema_3, before)
    assert json.loads((schema_3 / "manifest.json").read_text())["schema_version"] == SCHEMA_VERSION
    assert read_bundle(schema_3).manifest == before


def test_schema_3_is_sealed_over_its_own_bytes(schema_3: Path) -> None:
    path = schema_3 / "manifest.json"
    content = path.read_bytes()
    for place in range(0, len(content), 97):  # each byte of this schema is tried above
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ArtefactError, match=r"manifest\.json"):
            read_bundle(schema_3)
    path.write_bytes(content.replace(b'"schema_version": 3', b'"schema_version": 7'))
    with pytest.raises(ArtefactError, match="was edited"):
        read_bundle(schema_3)


@pytest.mark.parametrize("lacks", ["engine", "int8", "spec"])
def test_a_schema_3_that_lacks_something_is_one_line(schema_3: Path, lacks: str) -> None:
    edit(schema_3, lambda values: values.pop(lacks))
    with pytest.raises(ArtefactError, match=rf"is damaged: [^\n]*{lacks}[^\n]*\Z"):
        read_bundle(schema_3)


# Schema 4, which was the last to say nothing of the classes


def test_a_bundle_of_schema_4_is_read_and_written_as_this_one(schema_4: Path) -> None:
    values = json.loads((schema_4 / "manifest.json").read_text())
    assert values["schema_version"] == 4
    assert "labels" not in values
    manifest = read_bundle(schema_4).manifest
    assert manifest.labels is None
    envelope = ("kind", "schema_version", "manifest_sha256")
    values["spec"]["preprocess"] |= LATER
    assert json.loads(json.dumps(manifest.to_json())) == {
        **{key: value for key, value in values.items() if key not in envelope},
        "labels": None,
        "contract": asdict(ContractSpec()),
        "htp": {},
    }
    write_manifest(schema_4, manifest)
    assert json.loads((schema_4 / "manifest.json").read_text())["schema_version"] == SCHEMA_VERSION
    assert read_bundle(schema_4).manifest == manifest


# Schema 5, which was the last without contracts


def test_a_bundle_of_schema_5_is_read_and_written_as_this_one(schema_5: Path) -> None:
    values = json.loads((schema_5 / "manifest.json").read_text())
    assert values["schema_version"] == 5
    assert "contract" not in values
    bundle = read_bundle(schema_5)
    assert (bundle.unlisted, bundle.manifest.contract) == ((), ContractSpec())
    assert (bundle.manifest.labels or {})["names"] == ["road", "sky"]
    envelope = ("kind", "schema_version", "manifest_sha256")
    values["spec"]["preprocess"] = LATER | values["spec"]["preprocess"]
    assert json.loads(json.dumps(bundle.manifest.to_json())) == {
        **{key: value for key, value in values.items() if key not in envelope},
        "contract": asdict(ContractSpec()),
        "htp": {},
    }
    write_manifest(schema_5, bundle.manifest)
    assert json.loads((schema_5 / "manifest.json").read_text())["schema_version"] == SCHEMA_VERSION
    assert read_bundle(schema_5).manifest == bundle.manifest


# Schema 6, which was the last without graphs for Qualcomm's HTP


def test_a_bundle_of_schema_6_is_read_and_written_as_this_one(schema_6: Path) -> None:
    values = json.loads((schema_6 / "manifest.json").read_text())
    assert values["schema_version"] == 6
    assert "htp" not in values
    bundle = read_bundle(schema_6)
    assert (bundle.manifest.htp, bundle.manifest.contract.name) == ({}, "image")
    envelope = ("kind", "schema_version", "manifest_sha256")
    kept = {key: value for key, value in values.items() if key not in envelope}
    assert json.loads(json.dumps(bundle.manifest.to_json())) == {**kept, "htp": {}}
    write_manifest(schema_6, bundle.manifest)
    assert json.loads((schema_6 / "manifest.json").read_text())["schema_version"] == SCHEMA_VERSION
    assert read_bundle(schema_6).manifest == bundle.manifest


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("chip",), {"name": "ar1"}),
        (("emulated", "report"), None),
        (("refused",), [{"node": "a"}]),
        (("refused",), None),
        (("quantize",), 3),
    ],
)
def test_what_is_said_of_the_htp_is_held_to_the_schema(schema_6: Path, place: tuple[str, ...], value: object) -> None:
    chip = {"name": "ar1", "title": "Snapdragon AR1 Gen 1", "part": "SSG2125P", "soc_model": 58, "arch": 73}
    gate = {"min_sqnr_db": 15.0, "min_cosine": 0.9, "min_agreement": 0.5}
    emulated: Values = {"imgsz": [64, 64], "images": 1, "version": "2.7.0", "gate": gate, "report": {"outputs": []}}
    form: Values = {"chip": chip, "emulated": emulated, "refused": []}
    manifest = replace(read_bundle(schema_6).manifest, htp={"a16w8": form})
    write_manifest(schema_6, manifest)
    assert read_bundle(schema_6).manifest == manifest
    *above, last = place
    inner = form
    for key in above:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(ArtefactError, match=rf"cannot be written: htp\.a16w8\.[^\n]*{last}[^\n]*\Z"):
        write_manifest(schema_6, replace(manifest, htp={"a16w8": form}))


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "large"])
def test_a_manifest_that_is_no_file_does_not_block(bundle: Path, what: str) -> None:
    path = bundle / "manifest.json"
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 2**40)  # a terabyte that takes no place on the disk
    with pytest.raises(ArtefactError, match=r"manifest\.json cannot be read: it (is a folder, a pipe|has more than)"):
        read_bundle(bundle)
    with pytest.raises(HiresvitError, match="exists and is not a bundle"), writing_bundle(bundle, force=True):
        pass
