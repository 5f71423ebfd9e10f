"""Parsing of the builder's layer list: ``tests/golden/rtx_layers.txt``, whose head says how it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiresvit.export.layers import Kernel, count_kinds, parse_layers, parse_memory, realised_precision
from hiresvit.spec import TensorSpec

GOLDEN = Path(__file__).parents[1] / "golden" / "rtx_layers.txt"

# A row of a real dump of TensorRT-RTX 1.7.1.116, and one like it without what is not read.
DYNAMIC = (
    "Name: __myl_Tran_myl0_1, LayerType: kgen, Inputs: [ { Name: k, Dimensions: [-1,64,32], "
    "Strides: [2048,32,1], StrideOrder: [2,1,0], Datatype: Half, Format: (Linear) Row major format }], "
    "Constants: [], Outputs: [ { Name: s.1_6_myl0, Dimensions: [-1,32,64], Strides: [2048,64,1], "
    "StrideOrder: [2,1,0], Datatype: Half, Format: (Linear) Row major format }], "
    "TacticName: __myl_Tran_0x6df5, StreamId: 0, Metadata: [ONNX Layer: kt_]"
)
INT8_GEMM = (
    "Name: {name}, LayerType: {layer_type}, Inputs: [ {{ Name: x, Dimensions: [1,64,64], Datatype: Half}}, "
    "{{ Name: m.1_2_myl0, Dimensions: [1,64,64], Datatype: Int8}}], Constants: [ {{ Name: w, "
    "Dimensions: [1,64,64], Datatype: Int8}}, {{ Name: alpha, Dimensions: [1], Datatype: Float}}], "
    "Outputs: [ {{ Name: y, Dimensions: [1,64,64], Datatype: Half}}], TacticName: , StreamId: 0, Metadata: "
)


@pytest.fixture(scope="module")
def kernels() -> list[Kernel]:
    return parse_layers(GOLDEN.read_text())


def test_golden_rows(kernels: list[Kernel]) -> None:
    rows = [line for line in GOLDEN.read_text().splitlines() if line.startswith("Name: ")]
    silent = [row for row in rows if "LayerType: signal" in row or "LayerType: wait" in row]
    assert len(silent) > 0
    assert len(kernels) == len(rows) - len(silent)
    assert {kernel.layer_type for kernel in kernels} >= {"kgen", "gemm", "correlation"}


def test_golden_counts(kernels: list[Kernel]) -> None:
    kinds = count_kinds(kernels)
    assert kinds == {"copy": 5, "conv": 3, "pointwise": 2, "attention": 1, "gemm": 1}
    assert list(kinds.values()) == sorted(kinds.values(), reverse=True)
    assert realised_precision(kernels) == {"fp16": 5}


def test_golden_attention(kernels: list[Kernel]) -> None:
    (attention,) = [kernel for kernel in kernels if kernel.kind == "attention"]
    assert [tensor.shape for tensor in attention.inputs] == [(2, 64, 16), (2, 16, 64), (2, 64, 16)]
    assert {tensor.dtype for tensor in attention.inputs + attention.outputs} == {"float16"}
    assert attention.tactic.startswith("_gemm_mha")


def test_golden_memory() -> None:
    memory = parse_memory(GOLDEN.read_text())
    assert set(memory) == {"activation_bytes", "weight_bytes", "scratch_bytes"}
    assert all(size > 0 for size in memory.values())
    # Three convolutions and a Linear in FP16; the tolerance is for scalars and alignment.
    values = 32 * 32 * 9 + 32 * 32 * 4 + 32 * 96 + 32 * 32
    assert memory["weight_bytes"] == pytest.approx(2 * values, rel=0.05)


def test_a_dynamic_axis_and_an_empty_list() -> None:
    (kernel,) = parse_layers(f"Layers:\n{DYNAMIC}\n\nI/O Tensors:\n Name: k, IOMode: Input")
    assert kernel.inputs == (TensorSpec("k", "float16", ("?", 64, 32)),)
    assert kernel.constants == ()
    assert kernel.outputs == (TensorSpec("s.1_6_myl0", "float16", ("?", 32, 64)),)
    assert (kernel.kind, kernel.precision) == ("copy", None)


@pytest.mark.parametrize(
    ("name", "layer_type", "kind"),
    [
        ("_gemm_mha_v1_myl0_1", "kgen", "attention"),
        ("/mha/MatMul_myl0_1", "gemm", "gemm"),  # named after an ONNX node
        ("__myl_FcAddAdd_myl0_10", "runtime_fusion", "gemm"),
        ("__myl_CorrMulAddMinMaxMul_myl0_1", "runtime_fusion", "conv"),
        ("__myl_DecoDivCastErf_myl0_2", "runtime_fusion", "conv"),
        ("node_conv2d_1_myl0_2", "correlation", "conv"),
        ("__myl_SlicReshTranReshMove_myl0_17", "kgen", "copy"),
        ("__myl_AddReshTranReshMove_myl0_6", "kgen", "pointwise"),
        ("node_max_pool2d_myl0_4", "maxpool", "maxpool"),
        ("__myl_Inor_myl0_9", "runtime_function", "runtime_function"),
    ],
)
def test_kinds(name: str, layer_type: str, kind: str) -> None:
    (kernel,) = parse_layers("Layers:\n" + INT8_GEMM.format(name=name, layer_type=layer_type))
    assert (kernel.name, kernel.kind) == (name, kind)


def test_a_wider_residual_does_not_hide_the_precision() -> None:
    (kernel,) = parse_layers("Layers:\n" + INT8_GEMM.format(name="mm_myl0_1", layer_type="gemm"))
    assert kernel.inputs[0].dtype == "float16"
    assert kernel.precision == "int8"


def test_an_unknown_datatype_is_said_to_be_unknown() -> None:
    row = INT8_GEMM.format(name="mm", layer_type="gemm").replace("Half", "FP4").replace("Int8", "FP4")
    assert realised_precision(parse_layers("Layers:\n" + row)) == {"unknown": 1}


def test_rows_that_launch_nothing_are_left_out() -> None:
    shape = "Name: __mye253_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: []"
    assert [kernel.layer_type for kernel in parse_layers(f"Layers:\n{shape}\n{DYNAMIC}")] == ["kgen"]


@pytest.mark.parametrize("log", ["", "Layers:\n", "Layers:\n{'Layer': 1}", "Name: x, LayerType: kgen"])
def test_no_layer_list(log: str) -> None:
    with pytest.raises(ValueError, match="no 'Layers:' message"):
        parse_layers(log)


def test_memory_that_is_not_said_is_zero() -> None:
    assert parse_memory("Total Activation Memory: 12 bytes") == {
        "activation_bytes": 12,
        "weight_bytes": 0,
        "scratch_bytes": 0,
    }
