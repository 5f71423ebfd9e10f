"""The manifest: what is no manifest, was edited or is of another schema, and the schema before this one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import Values, edit, make, manifest_of

from hiresvit.bundle.folder import read_bundle
from hiresvit.bundle.manifest import write_manifest
from hiresvit.errors import ArtefactError, UsageError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "b")


def test_a_source_date_that_is_no_number_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        manifest_of()


def test_infinity_is_refused_since_json_has_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_manifest(tmp_path, replace(manifest_of(), parity={"sqnr_db": float("inf")}))
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


@pytest.mark.parametrize("schema", [99, 5, "4", None])
def test_an_unknown_schema_says_all_versions(bundle: Path, schema: object) -> None:
    edit(bundle, lambda values: values.update(schema_version=schema))
    said = f"has schema version {schema!r}, this hiresvit reads 3 and 4; export the bundle again or copy it anew"
    with pytest.raises(ArtefactError, match=said):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["hiresvit", "export", "b1", "-o", "my bundle"], "make it anew: hiresvit export b1 -o 'my bundle'"),
        (["hiresvit", "a\nb"], "make it anew: hiresvit 'a b'"),
        ([], "export the bundle again or copy it anew"),
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
        f"{bundle / 'manifest.json'} has schema version 2, this hiresvit reads 3 and 4; {said}"
    )


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


# Schema 3, as the version before wrote it


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
    assert {key: written[key] for key in same} == {key: values[key] for key in same}


def test_a_bundle_of_schema_3_without_plans_is_read(schema_3: Path) -> None:
    def leave_out(values: Values) -> None:
        values.update(engine=None, int8=None)
        values["files"] = [entry for entry in values["files"] if "plan" not in entry["role"]]

    edit(schema_3, leave_out)
    manifest = read_bundle(schema_3).manifest
    assert (manifest.engines, manifest.int8) == ({}, None)


def test_what_was_read_of_schema_3_is_written_as_schema_4(schema_3: Path) -> None:
    before = read_bundle(schema_3).manifest
    write_manifest(schema_3, before)
    assert json.loads((schema_3 / "manifest.json").read_text())["schema_version"] == 4
    assert read_bundle(schema_3).manifest == before


def test_schema_3_is_sealed_over_its_own_bytes(schema_3: Path) -> None:
    path = schema_3 / "manifest.json"
    content = path.read_bytes()
    for place in range(0, len(content), 97):  # each byte of schema 4 is tried above
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ArtefactError, match=r"manifest\.json"):
            read_bundle(schema_3)
    path.write_bytes(content.replace(b'"schema_version": 3', b'"schema_version": 4'))
    with pytest.raises(ArtefactError, match="was edited"):
        read_bundle(schema_3)


@pytest.mark.parametrize("lacks", ["engine", "int8", "spec"])
def test_a_schema_3_that_lacks_something_is_one_line(schema_3: Path, lacks: str) -> None:
    edit(schema_3, lambda values: values.pop(lacks))
    with pytest.raises(ArtefactError, match=r"is not a manifest \(KeyError: [^\n]+\Z"):
        read_bundle(schema_3)
