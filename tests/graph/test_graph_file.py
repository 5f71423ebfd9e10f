"""Graphs on the disk: what is wrong with them in one line, and weights in files of their own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import build, content, noise
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hiresvit.errors import HiresvitError
from hiresvit.graph.file import file_digest, load_graph, load_weights

WEIGHTS = {"w": noise(8, 300), "v": noise(300, 8)}


def network() -> ModelProto:
    return build("g (float[1,8] x) => (float[1,8] y) { a = MatMul(x, w) y = MatMul(a, v) }", WEIGHTS)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Its weights are in a file beside it, one behind the other."""
    path = tmp_path / "net.onnx"
    onnx.save(network(), path, save_as_external_data=True, location="net.data", size_threshold=0)
    return path


def place(graph: Path, **entries: str) -> None:
    """Say something else of where the first weight lies."""
    model = onnx.load(graph, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    graph.write_bytes(content(model))


def test_weights_are_read_when_they_are_asked_for(graph: Path) -> None:
    model = load_graph(graph)
    assert all(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer)
    load_weights(graph, model)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in WEIGHTS.items()
    }


def test_weights_behind_a_link(graph: Path, tmp_path: Path) -> None:
    """As the cache of a model hub lays files out."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "net.data").rename(tmp_path / "blobs" / "a1b2")
    (tmp_path / "net.data").symlink_to(Path("blobs", "a1b2"))
    model = load_graph(graph)
    load_weights(graph, model)
    assert np.array_equal(numpy_helper.to_array(model.graph.initializer[0]), WEIGHTS["w"])


@pytest.mark.parametrize(
    ("dtype", "count", "size"),
    [(TensorProto.INT4, 3, 2), (TensorProto.UINT2, 5, 2), (TensorProto.BFLOAT16, 2, 4)],
)
def test_types_that_numpy_does_not_have(tmp_path: Path, dtype: int, count: int, size: int) -> None:
    """Those of less than a byte lie side by side."""
    model = network()
    model.graph.initializer.append(helper.make_tensor("odd", dtype, [count], bytes(size), raw=True))
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=0)
    model = load_graph(tmp_path / "a.onnx")
    load_weights(tmp_path / "a.onnx", model)
    assert len(model.graph.initializer[-1].raw_data) == size


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "zzz"}, r"where weight 'w' lies cannot be read from \{.*'offset': 'zzz'"),
        ({"offset": "-5"}, r"where weight 'w' lies cannot be read"),
        ({"offset": "99999"}, r"net\.data has \d+ bytes, its weights need 109599"),
        (
            {"length": "10"},
            r"weight 'w' has 9600 bytes by its shape and type, 10 by what is said of its file",
        ),
        ({"location": "../net.data"}, r"its weights are in '\.\./net\.data'; they must be in a file in"),
    ],
)
def test_weights_that_cannot_be_where_they_are_said_to_be(graph: Path, entries: dict[str, str], message: str) -> None:
    place(graph, **entries)
    with pytest.raises(HiresvitError, match=message) as caught:
        load_graph(graph)
    assert "\n" not in str(caught.value)


def test_a_plan_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "a.plan").write_bytes(b"vtrt")
    with pytest.raises(HiresvitError, match=r"a\.plan is a plan and no ONNX graph: give the graph"):
        load_graph(tmp_path / "a.plan")


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HiresvitError, match=r"pipe is no file: write the graph to one"):
        load_graph(tmp_path / "pipe")


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "net\udcff.onnx"
    path.write_bytes(content(network()))
    assert load_graph(path) == network()


def test_the_digest_is_of_every_file(graph: Path, tmp_path: Path) -> None:
    before = file_digest(graph, load_graph(graph))
    assert file_digest(graph, load_graph(graph)) == before
    data = bytearray((tmp_path / "net.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "net.data").write_bytes(data)
    assert file_digest(graph, load_graph(graph)) != before
