"""The table as a file, what it refuses, and the digest that ties it to a graph."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import build, copied
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hiresvit.calibration.table import (
    CalibrationTable,
    graph_digest,
    load_table,
    preprocess_json,
    require_match,
)
from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.spec import PreprocessSpec

GRAPH, DATA = "a" * 64, "b" * 64
TABLE = CalibrationTable(
    method="entropy",
    amax={"z": 0.1, "a": 1 / 3, "off": 1.0},
    dead=("off",),
    images=64,
    graph=GRAPH,
    data=DATA,
    preprocess=preprocess_json(PreprocessSpec()),
    tools={"onnxruntime": "1.31.1"},
    ranges={"z": (-0.1, 0.05), "a": (0.0, 1 / 3), "off": (0.0, 0.0)},
)


def model() -> ModelProto:
    return build("g (float[1,4] x) => (float[1,4] y) { t = Relu(x) y = Mul(t, w) }", {"w": np.float32(2)})


def saved(folder: Path, **changes: Any) -> Path:
    """A table in a file, with some of its JSON changed; None removes a key."""
    values = {**TABLE.to_json(), **changes}
    path = folder / "table.json"
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return path


def test_a_table_reads_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "calibration.json"
    TABLE.save(path)
    assert load_table(path) == TABLE
    text = path.read_text()
    assert text.index('"a":') < text.index('"off":') < text.index('"z":'), "sorted, a line each"
    assert text.endswith("}\n")
    replace(TABLE, images=2).save(path)
    assert load_table(path).images == 2
    assert [entry.name for entry in path.parent.iterdir()] == ["calibration.json"]


def test_a_table_of_version_1_has_magnitudes_only(tmp_path: Path) -> None:
    table = load_table(saved(tmp_path, schema_version=1, ranges=None))
    assert table == replace(TABLE, ranges={})
    table.save(tmp_path / "again.json")
    assert load_table(tmp_path / "again.json") == table


def test_a_range_that_json_lacks_leaves_the_old_table(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    TABLE.save(path)
    with pytest.raises(ValueError, match="JSON"):
        replace(TABLE, amax={"z": float("inf")}).save(path)
    assert load_table(path) == TABLE


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "hiresvit-bundle"}, "kind must be one of"),
        ({"schema_version": 3}, "schema_version must be one of"),
        ({"kind": None}, "kind"),
        ({"amax": None}, "amax"),
        ({"more": 1}, "more"),
        ({"method": "kl"}, "method must be one of"),
        ({"amax": {"a": 0.0}}, "amax.a must be bigger than 0"),
        ({"amax": {"a": -1}}, "amax.a must be bigger than 0"),
        ({"amax": {"a": 1e39}}, "amax.a must be smaller"),
        ({"amax": {"a": "1"}}, "amax.a must be number"),
        ({"amax": {"a": True}}, "amax.a must be number"),
        ({"amax": [1.0]}, "amax must be object"),
        ({"dead": ["b"]}, "'b' is dead and has no amax"),
        ({"dead": 3}, "dead must be array"),
        ({"images": 0}, "images must be bigger than or equal to 1"),
        ({"images": "64"}, "images must be integer"),
        ({"graph": 5}, "graph must be string"),
        ({"data": ""}, "data must be longer"),
        ({"preprocess": []}, "preprocess must be object"),
        ({"ranges": {"z": [0, 1]}}, "'a' has an amax or a range, and not both"),
        ({"ranges": {"z": [0, 1, 2], "a": [0, 1], "off": [0, 0]}}, "ranges.z must contain less"),
        ({"ranges": {"z": [1, 0], "a": [0, 1], "off": [0, 0]}}, "the range of 'z' ends before it begins"),
    ],
)
def test_a_table_of_another_kind_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = saved(tmp_path, **changes)
    with pytest.raises(ArtefactError, match=reason) as caught:
        load_table(path)
    message = str(caught.value)
    assert str(path) in message
    assert "calibrate again" in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"amax": NaN}', "\xff", "[" * 100_000])
def test_a_damaged_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtefactError, match="not a calibration table") as caught:
        load_table(path)
    assert caught.value.exit_code == 7


def test_not_a_number_is_no_range(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps({**TABLE.to_json(), "amax": {"a": float("nan")}, "dead": []}))
    with pytest.raises(ArtefactError, match="NaN, which is no finite number"):
        load_table(path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(HiresvitError, match=r"none\.json: no such file; give a table"):
        load_table(tmp_path / "none.json")
    with pytest.raises(HiresvitError, match="no such file"):
        load_table(tmp_path)


def test_a_table_belongs_to_its_graph_data_and_preprocessing(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "table.json")
    read = load_table(tmp_path / "table.json")
    for data in (DATA, None):  # None: whatever the data are
        require_match(read, graph=GRAPH, data=data, preprocess=PreprocessSpec())
        with pytest.raises(ArtefactError, match=f"graph {GRAPH[:12]} and not cccccccccccc;"):
            require_match(read, graph="c" * 64, data=data, preprocess=PreprocessSpec())


def test_an_older_table_did_what_was_done_then() -> None:
    older = {name: value for name, value in TABLE.preprocess.items() if name not in ("filter", "rounding", "divisor")}
    table = replace(TABLE, preprocess=older)
    require_match(table, graph=GRAPH, data=DATA, preprocess=PreprocessSpec())
    with pytest.raises(ArtefactError, match=r"\(filter\)"):
        require_match(table, graph=GRAPH, data=DATA, preprocess=PreprocessSpec(filter="opencv"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"graph": "c" * 64}, ["graph aaaaaaaaaaaa and not cccccccccccc;"]),
        ({"data": "d" * 64}, ["data bbbbbbbbbbbb and not dddddddddddd;"]),
        (
            {"preprocess": PreprocessSpec(mean=(0.5, 0.5, 0.5), resize="crop")},
            ["preprocessing", "(mean, resize)"],
        ),
        ({"graph": "c" * 64, "data": "d" * 64}, ["graph aaaaaaaaaaaa", "data bbbbbbbbbbbb"]),
    ],
)
def test_a_stale_table_is_refused_with_both_hashes(changes: dict[str, Any], words: list[str]) -> None:
    given = {"graph": GRAPH, "data": DATA, "preprocess": PreprocessSpec(), **changes}
    with pytest.raises(ArtefactError, match="calibrate again") as caught:
        require_match(TABLE, **given)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    for what in ("graph", "data", "preprocess"):
        assert (f"{what} " in message or f"{what}ing " in message) == (what in changes), message
    assert caught.value.exit_code == 7


def test_the_digest_is_of_what_the_graph_computes() -> None:
    plain = model()
    dressed = copied(plain)
    helper.set_model_props(dressed, {"hiresvit.stage": "simplified"})
    dressed.producer_name, dressed.producer_version, dressed.doc_string = "somebody", "9", "words"
    dressed.model_version = 3
    dressed.graph.doc_string = dressed.graph.node[0].doc_string = "words"
    dressed.graph.initializer[0].doc_string = "words"
    dressed.graph.input[0].doc_string = "words"
    dressed.graph.node[0].metadata_props.add(key="namespace", value="a/b")
    before = dressed.SerializeToString()
    assert graph_digest(dressed) == graph_digest(plain)
    assert graph_digest(onnx.shape_inference.infer_shapes(plain)) == graph_digest(plain)
    assert dressed.SerializeToString() == before
    assert len(graph_digest(plain)) == 64


def test_the_digest_survives_a_file(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "g.onnx")
    assert graph_digest(onnx.load(tmp_path / "g.onnx")) == graph_digest(model())


def test_the_digest_sees_every_change_that_counts() -> None:
    digests = {graph_digest(model())}
    changed = model()
    changed.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(2.0000002), "w"))
    digests.add(graph_digest(changed))
    changed = model()
    changed.graph.node[0].op_type = "Sigmoid"
    digests.add(graph_digest(changed))
    changed = model()
    changed.opset_import[0].version = 21
    digests.add(graph_digest(changed))
    changed = model()
    changed.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    digests.add(graph_digest(changed))
    changed = model()
    changed.graph.node[0].output[0] = changed.graph.node[1].input[0] = "u"  # a table goes by names
    digests.add(graph_digest(changed))
    assert len(digests) == 6


def test_weights_elsewhere_have_no_digest() -> None:
    external = model()
    external.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(UsageError, match="outside the proto"):
        graph_digest(external)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_table_that_is_no_file_does_not_block(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "table.json"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(HiresvitError, match=r"table\.json: no such file; give a table"):
        load_table(path)
