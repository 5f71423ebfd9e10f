"""`hiresvit package` on the command line: what it prints, and one line for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Cli
from packages import make_bundle

from hiresvit.spec import ContractSpec


def test_a_package_and_what_is_said_of_it(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bundle(tmp_path / "street")
    monkeypatch.chdir(tmp_path)
    result = cli("package", "street", "--format", "deepstream")
    assert result.code == 0, result.err
    assert "wrote street-deepstream/Makefile" in result.out
    assert "next: read street-deepstream/README.md" in result.out
    assert "note: DeepStream prepares pictures otherwise than the network was trained: one scale for" in result.err
    document = json.loads(cli("package", "street", "--format", "deepstream", "--force", "--json").out)
    assert document["format"] == "deepstream"
    assert document["output"] == "street-deepstream"
    assert "config_infer_primary_hiresvit.txt" in document["files"]
    assert len(document["notes"]) == 2


def test_what_cannot_be_is_one_line(cli: Cli, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", ContractSpec("image"))
    (tmp_path / "p").mkdir()
    for words, code, said in (
        (
            ("package", bundle, "--format", "deepstream"),
            2,
            "and the contract image takes uint8 pixels; export it with: ",
        ),
        (("package", bundle, "--format", "zip"), 2, "Invalid value for '--format'"),
        (("package", bundle), 2, "Missing option '--format'"),
        (("package", tmp_path / "none", "--format", "cpp"), 1, "is not a bundle folder; give one that"),
        (("package", bundle, "--format", "cpp", "-o", tmp_path / "p"), 1, "exists and is not a package; remove it"),
        (("package", bundle, "--format", "cpp", "--graph", "int8"), 7, "has no int8 file, only"),
        (("package", bundle, "--format", "cpp", "-o", bundle / "fp32.onnx" / "p"), 1, "cannot write"),
    ):
        result = cli(*words)
        assert (result.code, result.out) == (code, ""), result.err
        assert said in result.err
        assert len(result.err.splitlines()) == 1, result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "p"]
