"""`hiresvit inspect` of a bundle: what its manifest says of the graphs, and of schema 3, what the graphs say."""

from __future__ import annotations

import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hiresvit.bundle.folder import read_bundle
from hiresvit.bundle.manifest import write_manifest
from hiresvit.errors import install_line
from hiresvit.report.results import inspect_report
from hiresvit.spec import PreprocessSpec
from hiresvit.workflows import inspect as inspecting
from hiresvit.workflows.inspect import graph_summary, inspect_source
from hiresvit.workflows.open import open_source


@pytest.fixture
def schema_4(schema_3: Path) -> Path:
    """The same bundle as it would be exported now."""
    bundle = read_bundle(schema_3)
    graphs = graphs_of(bundle.folder)
    write_manifest(schema_3, replace(bundle.manifest, graphs=graphs))
    return schema_3


GRAPHS = ("fp32", "simplified", "cpu", "fp16", "int8")


def graphs_of(folder: Path) -> dict[str, Any]:
    return {role: graph_summary(folder / f"{role}.onnx") for role in GRAPHS}


def said(found: dict[str, Any]) -> str:
    console = Console(file=StringIO(), width=200, markup=False)
    for item in inspect_report(found):
        console.print(item)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_bundle_that_describes_its_graphs_is_not_parsed(schema_4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = graphs_of(schema_4)
    monkeypatch.setattr(inspecting, "graph_summary", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = inspect_source(str(schema_4))
    assert found["graphs"] == parsed
    assert {role: graph["stage"] for role, graph in parsed.items()} == {role: role for role in GRAPHS}
    assert found["notes"] == read_bundle(schema_4).manifest.notes


def test_schema_3_and_schema_4_look_the_same(schema_3: Path) -> None:
    before = said(inspect_source(str(schema_3)))
    bundle = read_bundle(schema_3)
    graphs = graphs_of(bundle.folder)
    write_manifest(schema_3, replace(bundle.manifest, graphs=graphs))
    assert said(inspect_source(str(schema_3))) == before
    assert "plans, built and not run" in before
    places = [before.index(f"\n{name} ", before.index("graphs")) for name in ("fp32", "simplified", "cpu", "fp16")]
    assert places == sorted(places), "in the order of an export, which JSON does not keep"
    assert "4 Conv, 3 Relu, 2 Cast, 1 Resize" in before, "most first, which JSON does not keep either"


def test_schema_3_without_onnx_says_what_is_left_out(schema_3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = inspect_source(str(schema_3))
    assert list(found["graphs"]) == list(GRAPHS)
    assert {graph["nodes"] for graph in found["graphs"].values()} == {None}
    assert found["notes"] == read_bundle(schema_3).manifest.notes
    assert f"nodes and attentions are counted with onnx: {install_line('export')}" in " ".join(said(found).split())


@pytest.mark.parametrize("graph", [None, "fp16", "int8"])
def test_schema_3_is_opened_and_its_pair_comes_out(schema_3: Path, graph: str | None) -> None:
    with open_source(str(schema_3), graph=graph, threads=1).runner as runner:
        assert runner.outputs[0].shape == (1, 2, 32, 32)


def test_what_is_done_to_a_picture_is_said_of_everything(schema_3: Path) -> None:
    """A stretch has no crop, with the numbers of the size it goes to."""
    bundle, graph = said(inspect_source(str(schema_3))), said(inspect_source(str(schema_3 / "fp32.onnx")))
    for text in (bundle, graph):
        assert "stretched to 32x32; bilinear by Pillow" in text
        assert "crop" not in text
    manifest = read_bundle(schema_3).manifest
    spec = replace(manifest.spec, preprocess=PreprocessSpec("keep"))
    write_manifest(schema_3, replace(manifest, spec=spec))
    assert "fit into 32x32, the rest filled" in said(inspect_source(str(schema_3)))
    model = said(inspect_source("lrformer_t"))
    assert "fit into 512x512, each side up to a multiple of 32" in model
    assert "cover 256x256, of which the central 224x224 is taken (crop_pct 0.875)" in model
