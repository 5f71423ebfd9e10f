"""The table of chips, held against Qualcomm's own library: it compiles for every row, in the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hiresvit.device.chips import CHIPS, Chip, chip_of, find_chip, library_options
from hiresvit.device.qnn_api import COMPATIBILITY
from hiresvit.errors import UsageError
from hiresvit.process import Worker
from hiresvit.runtime.qnn_messages import Failed, Opened, Opening


def test_a_chip_is_found_by_its_name_and_by_its_part() -> None:
    for chip in CHIPS.values():
        assert find_chip(chip.name) is find_chip(chip.part) is chip_of(chip.soc_model) is chip
    with pytest.raises(UsageError, match=r"no chip 'ar9': choose one of ar1, .*xr2-gen2.*sm8750"):
        find_chip("ar9")


def test_a_chip_is_called_by_what_it_is_sold_as_if_anybody_says() -> None:
    assert str(CHIPS["ar1"]) == "Snapdragon AR1 Gen 1 (SSG2125P, V73)"
    assert str(CHIPS["sxr2330p"]) == "SXR2330P (V79)"


def test_the_library_is_told_the_number_the_architecture_and_the_memory_if_it_is_known() -> None:
    assert library_options(58) == {"soc_model": "58", "htp_arch": "73", "vtcm_mb": "2"}
    assert library_options(CHIPS["qcs8550"].soc_model) == {"soc_model": "66", "htp_arch": "73"}
    assert library_options(999) == {"soc_model": "999"}


@pytest.fixture(scope="module")
def library() -> Iterator[Worker]:
    pytest.importorskip("onnxruntime_qnn")
    worker = Worker(["-m", "hiresvit.runtime._qnn_child"])
    yield worker
    worker.close()


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_floats_are_refused_where_the_table_says_so_and_integers_taken_everywhere(
    chip: Chip, library: Worker, tmp_path: Path
) -> None:
    floats, integers = tmp_path / "float.onnx", tmp_path / "integer.onnx"
    _write_convolution(floats, quantized=False)
    _write_convolution(integers, quantized=True)
    taken = library.ask(Opening(str(floats), chip.soc_model))
    assert isinstance(taken, Opened if chip.fp16 else Failed), taken

    context = tmp_path / "context.onnx"
    assert isinstance(library.ask(Opening(str(integers), chip.soc_model, context=str(context))), Opened)
    said = {entry.key: entry.value for entry in onnx.load(context).metadata_props}[COMPATIBILITY].split(":")
    assert said[4:7] == [str(chip.arch), str(chip.soc_model), str(chip.vtcm_mb or 0)]


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_the_library_calls_a_number_by_the_part_of_its_row(chip: Chip, library: Worker, tmp_path: Path) -> None:
    """A context for two chips names them; what reads the names is in the library's wheel for Python 3.12 only."""
    tools = pytest.importorskip("onnxruntime_qnn.libDlModelToolsPy312")
    other = CHIPS["sm8550" if chip.name == "sm8650" else "sm8650"]
    graph, context = tmp_path / "integer.onnx", tmp_path / "context.onnx"
    _write_convolution(graph, quantized=True)
    both = tuple((key, f"{value},{library_options(other.soc_model)[key]}") for key, value in _told(chip).items())
    assert isinstance(library.ask(Opening(str(graph), chip.soc_model, context=str(context), options=both)), Opened)
    reader = tools.IrDlcReader()
    reader.open(str(next(tmp_path.glob("*.bin"))))
    records = reader.get_record_names_by_record_type(tools.DlcRecordType.HTP_CACHE_RECORD, False)
    assert {reader.get_cache_soc_model_name(name): reader.get_cache_dsp_arch(name) for name in records} == {
        chip.part: chip.arch,
        other.part: other.arch,
    }


def _told(chip: Chip) -> dict[str, str]:
    return {key: value for key, value in library_options(chip.soc_model).items() if key != "vtcm_mb"}


def _write_convolution(path: Path, *, quantized: bool) -> None:
    """A 1x1 convolution of (1, 3, 8, 8), in FP32 or, with Q/DQ, in uint8 with int8 weights."""
    weights = np.random.default_rng(0).integers(-127, 128, (4, 3, 1, 1))
    constants = {"w": weights.astype(np.int8 if quantized else np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    if quantized:
        constants |= {"scale": np.float32(0.02), "zero": np.uint8(128), "int8": np.int8(0)}
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w", "scale", "int8"], ["wd"]),
            helper.make_node("Conv", ["xd", "wd"], ["c"]),
            helper.make_node("QuantizeLinear", ["c", "scale", "zero"], ["cq"]),
            helper.make_node("DequantizeLinear", ["cq", "scale", "zero"], ["y"]),
        ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 8, 8))
    kept = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "convolution", [x], [y], kept)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
