"""Graphs that mean harm: each is a line where it is read, and no more of it is made than its file has."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.inliner
import onnx.parser
import pytest
from hostile_graphs import hostile_graphs, write_all

from hiresvit.errors import HiresvitError
from hiresvit.graph.file import load_graph
from hiresvit.runtime.open import open_runner
from hiresvit.wire import MOST_NODES, count_nodes

WRONG = {
    "calls_itself": "local functions call themselves",
    "call_each_other": "local functions call themselves",
    "sixteen_million_nodes": "with them it is 1,000,000 parts and more",
    "opset_4611686018427387904": "it is of operator set 4611686018427387904 of 'ONNX'",
    "opset_-3": "operator set -3",
    "opset_2147483648": "operator set 2147483648",
    "weight_negative": r"weight 'w' has the shape \[-1, 3, 8, 8\]",
    "name_no_utf8": "name of NodeProto is no text",
    "value_no_utf8": "is no text",
    "stamp_bytes": "value of StringStringEntryProto is no text",
    "external_offset_text": "where weight 'w' lies cannot be read",
    "external_offset_negative": "where weight 'w' lies cannot be read",
    "external_length_negative": "where weight 'w' lies cannot be read",
    "external_offset_digits": "where weight 'w' lies cannot be read",
    "external_offset_huge": "w.bin has 768 bytes, its weights need 1180591620717411304192",
    "external_above": "must be in a file in the graph's folder",
    "external_absolute": "must be in a file in the graph's folder",
    "external_null": "where weight 'w' lies cannot be read",
    "external_folder": "which is not there",
    "external_none": "must be in a file in the graph's folder",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hostile")
    write_all(made)
    return made


@pytest.mark.parametrize("name", list(hostile_graphs()))
def test_what_no_reader_could_use_is_a_line(folder: Path, name: str) -> None:
    if name not in WRONG:
        load_graph(folder / f"{name}.onnx")  # a rule, or who uses it, says more
        return
    with pytest.raises(HiresvitError, match=WRONG[name]) as caught:
        load_graph(folder / f"{name}.onnx")
    assert "\n" not in str(caught.value)


def test_nodes_are_counted_as_they_are_inlined(folder: Path, tmp_path: Path) -> None:
    """Against onnx's own inliner, with a body inside of a function."""
    text = """<ir_version: 9, opset_import: ["" : 20, "f" : 1]>
    g (float[2] x, bool c) => (float[2] y) { t = f.A(x) u = f.A(t) y = f.C(u, c) }
    <opset_import: ["" : 20], domain: "f"> B (a) => (b) { t = Relu(a) b = Neg(t) }
    <opset_import: ["" : 20, "f" : 1], domain: "f"> A (a) => (b) { t = f.B(a) u = f.B(t) b = Abs(u) }
    <opset_import: ["" : 20, "f" : 1], domain: "f"> C (a, c) => (b) {
        b = If (c) <then_branch = d () => (e) { e = f.A(a) }, else_branch = h () => (i) { i = Abs(a) }>
    }"""
    model = onnx.parser.parse_model(text)
    (tmp_path / "functions.onnx").write_bytes(model.SerializeToString())
    [*plain, branch] = onnx.inliner.inline_local_functions(model).graph.node
    bodies = sum(len(attribute.g.node) for attribute in branch.attribute)
    assert count_nodes(tmp_path / "functions.onnx") == len(plain) + 1 + bodies == 17
    assert count_nodes(folder / "sixteen_million_nodes.onnx") == MOST_NODES
    assert count_nodes(folder / "circle.onnx") is None, "it has no functions"
    (folder / "no.onnx").write_bytes(b"\x0a\xff\xff\xff\xff\x0f")
    assert count_nodes(folder / "no.onnx") is None
    (folder / "parts.onnx").write_bytes(b"\x72\x00" * (MOST_NODES + 1))
    assert count_nodes(folder / "parts.onnx") == MOST_NODES, "before protobuf makes something of each"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "is an HTML page"),
        (b"\x1f\x8b\x08\x00" + bytes(30), "is a gzip archive"),
        (b"PK\x03\x04" + bytes(60), "is a zip archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "is a PNG picture"),
        (b"Entry not found\n", "is text that begins 'Entry not found'"),
        (b"\x08\x09\x12\xff", "is not an ONNX graph: it does not decode as one"),
    ],
)
def test_a_file_that_is_something_else_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    """In the same words by what loads it and by what runs it."""
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    for read in (load_graph, open_runner):
        with pytest.raises(HiresvitError, match=said):
            read(path)
