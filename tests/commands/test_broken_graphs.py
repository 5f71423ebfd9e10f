"""One broken graph has one exit code, whichever command is given it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Cli
from onnx import ModelProto, TensorProto
from PIL import Image
from tiny import tiny_simplified, tiny_spec

from hiresvit.device.tensorrt_api import INSTALL_HINT, installed

COMMANDS = (
    "inspect a.onnx",
    "bench a.onnx --min-s 0",
    "bench a.onnx --min-s 0 --runner openvino",
    "run a.onnx p.png",
    "compare a.onnx a.onnx --images 1",
    "eval a.onnx --dataset scenes --limit 1",
    "check a.onnx --no-build",
    "build a.onnx --backend tensorrt_rtx",
    "calibrate a.onnx --calib scenes --calib-images 2",
)


def no_such_operator(model: ModelProto) -> None:
    model.graph.node[5].op_type = "Teleport"


def undefined_input(model: ModelProto) -> None:
    model.graph.node[5].input[0] = "nowhere"


def made_twice(model: ModelProto) -> None:
    model.graph.node[5].output[0] = model.graph.node[3].output[0]


def no_operator_set(model: ModelProto) -> None:
    del model.opset_import[:]


def another_output(model: ModelProto) -> None:
    model.graph.output[0].name = "nothing"


def a_wrong_type(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64


def a_weight_cut(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] += 1


def weights_left_behind(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="gone.bin")


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def a_web_page(_data: bytes) -> bytes:
    return b"<!DOCTYPE html><html><body>404</body></html>"


def empty(_data: bytes) -> bytes:
    return b""


def zeros(_data: bytes) -> bytes:
    return bytes(5000)


ILLEGAL = (
    no_such_operator,
    undefined_input,
    made_twice,
    no_operator_set,
    another_output,
    a_wrong_type,
    a_weight_cut,
)
NO_GRAPH = (cut, a_web_page, empty, zeros)


@pytest.mark.skipif(not installed("tensorrt_rtx"), reason=INSTALL_HINT)
@pytest.mark.parametrize(
    ("change", "code"),
    [
        *((change, 3) for change in ILLEGAL),
        (weights_left_behind, 1),
        *((change, 1) for change in NO_GRAPH),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_command_gives_the_same_code(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., bytes | None], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (96, 64)).save("p.png")
    model = ModelProto()
    model.CopyFrom(tiny_simplified(tiny_spec()))
    if code == 3 or change is weights_left_behind:
        change(model)
        data = model.SerializeToString()
    else:
        data = change(model.SerializeToString()) or b""
    Path("a.onnx").write_bytes(data)
    found = {typed: cli(*typed.split()) for typed in COMMANDS}
    assert {typed: result.code for typed, result in found.items()} == dict.fromkeys(COMMANDS, code)
    assert [result.err for result in found.values() if result.err.count("\n") != 1 or "internal" in result.err] == []
