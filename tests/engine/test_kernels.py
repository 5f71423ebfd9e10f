"""Parsing of what TensorRT lists: the builder's log, the inspector's answer, and real builds.

``tests/golden/rtx_layers.txt`` says in its head how it was made. ``inspector_10.json`` and ``inspector_11.json`` are
written by hand, for want of a GPU with the full TensorRT: the form of 10 after rows in NVIDIA/TensorRT#4397 (Myelin's
kernels), the trt-engine-explorer's mobilenet_v2_residuals.qat.onnx.engine.graph.json (the others) and its parser.py
(the separators of Metadata); that of 11 after NVIDIA's "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x"
and, for Myelin's kernels, the log of TensorRT-RTX 1.7.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphs import build, noise
from rtx import compiled, needs_rtx

from hiresvit.engine.kernels import (
    Kernel,
    count_kinds,
    parse_inspector,
    parse_layers,
    parse_memory,
    realised_precision,
)
from hiresvit.spec import TensorSpec

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = FOLDER / "rtx_layers.txt"


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


def test_golden_nodes(kernels: list[Kernel]) -> None:
    (attention,) = [kernel for kernel in kernels if kernel.kind == "attention"]
    assert attention.nodes == ("mix", "softmax", "scores")
    assert [kernel.nodes for kernel in kernels if kernel.kind == "conv"] == [
        ("coarse",),
        ("qkv",),
        ("fine", "fine_relu"),
    ]
    assert kernels[0].nodes == ()  # moves the input


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
        ("__mye8037_gemm_mha_v2", "kgen", "attention"),  # TensorRT 9
        ("_gemv_mha_v1_myl0_1", "kgen", "attention"),  # TensorRT 10, for one query
        ("/mha/MatMul_myl0_1", "gemm", "gemm"),  # named after an ONNX node
        ("__myl_FcAddAdd_myl0_10", "runtime_fusion", "gemm"),
        ("__myl_CorrMulAddMinMaxMul_myl0_1", "runtime_fusion", "conv"),
        ("__myl_DecoDivCastErf_myl0_2", "runtime_fusion", "conv"),
        ("node_conv2d_1_myl0_2", "correlation", "conv"),
        ("__myl_SlicReshTranReshMove_myl0_17", "kgen", "copy"),
        ("__myl_AddReshTranReshMove_myl0_6", "kgen", "pointwise"),
        ("node_max_pool2d_myl0_4", "maxpool", "maxpool"),
        ("__myl_Inor_myl0_9", "runtime_function", "runtime_function"),
        ("__myl_FcAddErf_myl3_6", "fusion", "gemm"),
        ("__myl_TraSliResMov_myl0_2", "kgen", "copy"),
        ("__myl_MulSumAddCas_myl0_0", "kgen", "pointwise"),
        ("a/Conv + a/Add", "CaskConvolution", "conv"),
        ("a/Conv + PWN(a/Clip)", "CaskConvActPool", "conv"),
        ("a/ConvTranspose", "CaskDeconvolutionV2", "conv"),
        ("a/Conv", "CaskGemmConvolution", "conv"),
        ("a/MatMul", "CaskGemmMatrixMultiply", "gemm"),
        ("PWN(a/Relu)", "PointWiseV2", "pointwise"),
        ("a/Softmax", "CaskSoftMaxV2", "pointwise"),
        ("a/Transpose", "Shuffle", "copy"),
        ("a/TopK", "TopK", "TopK"),
        ("a", "", "unknown"),
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


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("mm_myl0_1", "int8"),
        ("__myl_FcMulAdd_myl0_1", "int8"),
        ("__myl_CastMulFc_myl0_1", "fp16"),  # what is INT8 is widened, and multiplied in FP16
        ("__myl_CastMulAdd_myl0_1", "fp16"),  # no product, but the sum of one
    ],
)
def test_what_it_computes_in(name: str, precision: str) -> None:
    layer_type = "gemm" if name.startswith("mm") else "kgen"
    (kernel,) = parse_layers("Layers:\n" + INT8_GEMM.format(name=name, layer_type=layer_type))
    assert kernel.computed_in == precision
    assert kernel.precision == (precision if kernel.kind == "gemm" else None)


def test_nodes_by_any_name() -> None:
    separated = (
        "[ONNX Layer: a[0]/Mat, Mul]\x1f[ONNX Layer: b][x]]\x1e"
        "[ONNX Layer: fc1/Conv]__gemm_from_conv1x1\x1f[ONNX Layer: c]"
    )
    (kernel,) = parse_layers("Layers:\n" + INT8_GEMM.format(name="mm", layer_type="gemm") + separated)
    assert kernel.nodes == ("a[0]/Mat, Mul", "b][x]", "fc1/Conv", "c")
    copied = "[ONNX Layer: a.0/Add][ONNX Layer: a.0/Mul] [ONNX Layer: a.0/Add]"  # a log from a terminal
    (kernel,) = parse_layers("Layers:\n" + INT8_GEMM.format(name="mm", layer_type="gemm") + copied)
    assert kernel.nodes == ("a.0/Add", "a.0/Mul")


def test_the_log_of_tensorrt_10() -> None:
    # after a log in a public tutorial on trtexec of TensorRT 10
    row = (
        "Name: /features/0/Conv + /features/1/Relu, LayerType: CaskConvolution, Inputs: [ { Name: /input, "
        "Location: Device, Dimensions: [1,3,224,224], Format/Datatype: Half }], Outputs: [ { Name: /relu, "
        "Location: Device, Dimensions: [1,64,55,55], Format/Datatype: Channel major FP16 format where channel % 8 "
        "== 0 }], ParameterType: Convolution, Kernel: [11,11], Weights: {Type: Half, Count: 23232}, TacticName: "
        "sm80_xmma_fprop, TacticValue: 0x7f01, StreamId: 0, Metadata: [ONNX Layer: /features/0/Conv]"
    )
    (kernel,) = parse_layers(f"Layers:\n{row}\n\nBindings:\ninput")
    assert kernel.inputs == (TensorSpec("/input", "float16", (1, 3, 224, 224)),)
    assert kernel.outputs == (TensorSpec("/relu", "float16", (1, 64, 55, 55)),)
    assert (kernel.kind, kernel.precision, kernel.tactic) == ("conv", "fp16", "sm80_xmma_fprop")
    assert kernel.nodes == ("/features/0/Conv",)


def test_json_round_trip(kernels: list[Kernel]) -> None:
    for kernel in kernels:
        values = json.loads(json.dumps(kernel.to_json()))
        assert Kernel.from_json(values) == kernel
        assert (values["kind"], values["precision"]) == (kernel.kind, kernel.precision)


@pytest.mark.parametrize("values", [{}, {"name": "a"}, {"name": "a", "inputs": 3}])
def test_json_that_is_no_kernel(values: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError)):
        Kernel.from_json(values)


def test_inspector_of_tensorrt_10() -> None:
    kernels = parse_inspector((FOLDER / "inspector_10.json").read_text())
    found = [(kernel.kind, kernel.precision, kernel.nodes) for kernel in kernels]
    assert found == [
        ("copy", None, ()),
        ("conv", "fp16", ("stem.conv/Conv", "stem.act/HardSwish")),
        ("conv", "int8", ("down/QuantizeLinear", "down/Conv")),
        ("gemm", "fp16", ("attn.qkv/MatMul", "attn.qkv/Add")),
        ("copy", None, ("attn/Reshape",)),
        ("attention", "fp16", ("attn/MatMul_2", "attn/Softmax", "attn/Add", "attn/MatMul")),
        ("gemm", "fp16", ("ffn.fc1/MatMul", "ffn.act/Gelu")),
        ("pointwise", None, ("norm/LayerNormalization",)),
        ("gemm", "fp32", ("head.fc/MatMul",)),
        ("pointwise", None, ("out/Sigmoid",)),
    ]
    assert kernels[0].inputs == (TensorSpec("image", "float32", (1, 3, 64, 96)),)
    assert kernels[2].inputs[0].dtype == "int8"
    assert kernels[8].outputs == (TensorSpec("logits", "float32", ("?", 5)),)
    assert kernels[1].tactic.startswith("sm80_xmma_fprop")


def test_inspector_of_tensorrt_11() -> None:
    kernels = parse_inspector((FOLDER / "inspector_11.json").read_text())
    assert [(kernel.kind, kernel.precision) for kernel in kernels] == [
        ("conv", "fp16"),
        ("attention", "int8"),
        ("conv", "bf16"),
    ]
    assert kernels[0].inputs == (TensorSpec("image", "float16", (1, 8, 64, 96)),)
    assert kernels[1].nodes == ("attn/MatMul_2", "attn/Softmax", "attn/MatMul")
    assert kernels[2].constants[0].dtype == "bfloat16"
    assert kernels[2].nodes == ("head/Conv",)


def test_inspector_of_a_plan_without_detail() -> None:
    # after NVIDIA/TensorRT#4020, what --exportLayerInfo writes without detailed verbosity
    text = json.dumps({"Layers": ["stem/Conv + stem/Relu", "{ForeignNode[a...b]}"], "Bindings": ["x", "y"]})
    kernels = parse_inspector(text)
    assert [(kernel.name, kernel.kind, kernel.precision) for kernel in kernels] == [
        ("stem/Conv + stem/Relu", "unknown", None),
        ("{ForeignNode[a...b]}", "unknown", None),
    ]


def test_inspector_with_bare_separators() -> None:
    """JSON allows no control characters in a string, but 8.6 wrote them (NVIDIA/TensorRT#2779)."""
    text = '{"Layers": [{"Name": "a", "LayerType": "gemm", "Metadata": "[ONNX Layer: b]\x1e[ONNX Layer: c]"}]}'
    assert parse_inspector(text)[0].nodes == ("b", "c")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "Layers:",
            "[]",
            "{}",
            '{"Layers": []}',
            '{"Layers": [3]}',
            '{"Layers": [{"LayerType": "gemm"}]}',
        ),
        '{"Layers": [{"Name": "a", "Inputs": ["x"]}]}',
    ],
)
def test_no_answer_of_the_inspector(text: str) -> None:
    with pytest.raises(ValueError, match="the inspector's answer"):
        parse_inspector(text)


@needs_rtx
def test_nodes_of_real_kernels(tmp_path: Path) -> None:
    """By any name, and by the parser's own for a node without one."""
    text = """odd (float16[49,64] x) => (float16[49,64] y)
    { a = MatMul(x, w) b = Relu(a) c = MatMul(b, w) y = Add(c, x) }"""
    odd, none = (build(text, {"w": noise(64, 64).astype("float16")}) for _ in range(2))
    names = ["a[0]/Mat, Mul", "b][x]", "ünï/код λ", "x: {y}, Inputs: [z]"]
    for node, name in zip(odd.graph.node, names, strict=True):
        node.name = name
    found = compiled({"odd": odd, "none": none}, tmp_path)
    assert {name for kernel in found["odd"] for name in kernel.nodes} == set(names)
    assert {name for kernel in found["none"] for name in kernel.nodes} == {f"node_of_{name}" for name in "abcy"}


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
