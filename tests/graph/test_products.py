"""How much a graph multiplies: counted by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import indexed, named_graph, ones
from onnx import ModelProto

from hiresvit.graph.index import index_graph
from hiresvit.graph.products import find_products


@pytest.mark.parametrize(
    ("model", "macs"),
    [
        pytest.param(
            named_graph(
                "y = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, w)",
                "float[2,8,16,16] x",
                "float[2,6,8,8] y",
                w=ones(6, 8, 3, 3),
            ),
            2 * 6 * 8 * 8 * 8 * 9,
            id="conv",
        ),
        pytest.param(
            named_graph("y = Conv<group = 8>(x, w)", "float[1,8,16,16] x", "float[1,8,14,14] y", w=ones(8, 1, 3, 3)),
            8 * 14 * 14 * 9,
            id="depthwise",
        ),
        pytest.param(
            named_graph("y = Conv(x, w)", "float[N,4,9] x", "float[N,5,7] y", w=ones(5, 4, 3)),
            5 * 7 * 4 * 3,
            id="dynamic-batch",
        ),
        pytest.param(
            named_graph(
                "y = ConvTranspose<strides = [2, 2]>(x, w)",
                "float[1,8,4,4] x",
                "float[1,6,8,8] y",
                w=ones(8, 6, 2, 2),
            ),
            8 * 4 * 4 * 6 * 4,
            id="transposed-conv",
        ),
        pytest.param(
            named_graph("y = Gemm<transA = 1, transB = 1>(x, w)", "float[7,3] x", "float[3,5] y", w=ones(5, 7)),
            3 * 7 * 5,
            id="gemm",
        ),
        pytest.param(
            named_graph("y = MatMul(x, w)", "float[2,3,5,7] x", "float[2,3,5,11] y", w=ones(7, 11)),
            6 * 5 * 7 * 11,
            id="matmul",
        ),
        pytest.param(named_graph("y = MatMul(x, w)", "float[3,5] x", "float[3] y", w=ones(5)), 15, id="vector"),
        pytest.param(
            named_graph(
                'y = Einsum<equation = "bqhd,bkhd->bhqk">(x, z)',
                "float[2,5,3,7] x, float[2,4,3,7] z",
                "float[2,3,5,4] y",
            ),
            2 * 3 * 5 * 4 * 7,
            id="einsum",
        ),
        pytest.param(
            named_graph(
                "y = Attention(q, k, v)",
                "float[2,4,5,8] q, float[2,2,6,8] k, float[2,2,6,3] v",
                "float[2,4,5,3] y",
                23,
            ),
            2 * 4 * 5 * 6 * (8 + 3),
            id="attention",
        ),
        pytest.param(
            named_graph(
                "y = Attention<q_num_heads = 4, kv_num_heads = 2>(q, k, v)",
                "float[2,5,32] q, float[2,6,16] k, float[2,6,6] v",
                "float[2,5,12] y",
                23,
            ),
            2 * 4 * 5 * 6 * (8 + 3),
            id="attention-of-tokens",
        ),
    ],
)
def test_macs(model: ModelProto, macs: int) -> None:
    assert find_products(indexed(model)).macs == {model.graph.node[0].name: macs}


def test_a_product_of_constants_is_none() -> None:
    model = named_graph("c = MatMul(a, b) y = MatMul(x, c)", "float[2,3] x", "float[2,5] y", a=ones(3, 4), b=ones(4, 5))
    assert find_products(indexed(model)).macs == {"m.y/MatMul": 2 * 3 * 5}


def test_recurrence() -> None:
    model = named_graph(
        'y, = LSTM<hidden_size = 6, direction = "bidirectional">(x, w, r)',
        "float[7,2,5] x",
        "float[7,2,2,6] y",
        w=ones(2, 24, 5),
        r=ones(2, 24, 6),
    )
    # 7 steps of 2 sequences, 2 directions, 4 gates of 6, which read 5 values and 6 of the state
    assert find_products(indexed(model)).macs == {"m.y/LSTM": 7 * 2 * 2 * 4 * 6 * (5 + 6)}


def test_types_are_the_graphs() -> None:
    model = named_graph(
        "a = MatMul(x, w) b = Cast<to = 1>(a) y = MatMul(b, v)",
        "float16[3,4] x",
        "float[3,6] y",
        w=ones(4, 5).astype(np.float16),
        v=ones(5, 6),
    )
    assert find_products(indexed(model)).types == {"m.a/MatMul": "fp16", "m.y/MatMul": "fp32"}


def test_sizes_that_are_not_static() -> None:
    model = named_graph("y = MatMul(x, w)", "float[1,L,3] x", "float[1,L,5] y", w=ones(3, 5))
    found = find_products(indexed(model))
    assert (found.macs, found.uncounted) == ({}, ("MatMul 'm.y/MatMul'",))
    assert find_products(index_graph(model, {"x": (1, 7, 3)})).macs == {"m.y/MatMul": 7 * 3 * 5}


def test_an_axis_of_minus_one_is_dynamic() -> None:
    model = named_graph("y = MatMul(x, w)", "float[N,8] x", "float[N,4] y", w=ones(8, 4))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert find_products(indexed(model)).macs == {"m.y/MatMul": 8 * 4}  # for a batch of 1
    assert find_products(index_graph(model, {"x": (3, 8)})).macs == {"m.y/MatMul": 3 * 8 * 4}


@pytest.mark.parametrize(
    ("equation", "operands", "macs"),
    [("ab,bc", "x, x", {"it": 8}), ("ab->ba", "x", {}), ("ab->b", "x", {})],
    ids=["result-unsaid", "transpose", "sum"],
)
def test_other_einsums(equation: str, operands: str, macs: dict[str, int]) -> None:
    model = named_graph(f'y = Einsum<equation = "{equation}">({operands})', "float[2,2] x", "float y")
    model.graph.node[0].name = "it"
    found = find_products(indexed(model))
    assert (found.macs, found.uncounted) == (macs, ())


@pytest.mark.parametrize(
    ("body", "counted"),
    [
        ("y = If<then_branch = t () => (float[2,2] p) { p = MatMul(x, x) }, else_branch = {ELSE}>(c)", False),
        ("y = If<then_branch = t () => (float[2,2] p) { p = Relu(x) }, else_branch = {ELSE}>(c)", True),
        ('y = Einsum<equation = "...b,bc->...c">(x, x)', False),
        ("y = foreign.Attend(x)", False),
        ("y = trt.TRT_FP8QuantizeLinear(x, x)", True),
        ("y = mine.Multiply(x)", False),
        ("y = mine.Plain(x)", True),
        ("y = DeformConv(x, x, x)", False),
        ("y = STFT(x, x)", False),
        ("y = foreign.QuantizeLinear(x, x)", True),
    ],
    ids=[
        "in-a-body",
        "harmless-body",
        "ellipsis",
        "plugin",
        "nvidia",
        "in-a-function",
        "function",
        "deformable",
        "stft",
        "foreign-quantizer",
    ],
)
def test_what_cannot_be_counted_is_named(body: str, counted: bool) -> None:
    text = f"""
    <ir_version: 9, opset_import: ["" : 20, "foreign" : 1, "mine" : 1, "trt" : 1]>
    g (float[2,2] x, bool c) => (float[2,2] y)
    {{ {body.replace("{ELSE}", "e () => (float[2,2] q) { q = Neg(x) }")} }}
    <domain: "mine", opset_import: ["" : 20]> Multiply (a) => (b) {{ b = MatMul(a, a) }}
    <domain: "mine", opset_import: ["" : 20]> Plain (a) => (b) {{ b = Relu(a) }}
    """
    model = onnx.parser.parse_model(text)
    node = model.graph.node[0]
    node.name = "it"
    found = find_products(indexed(model))
    assert (found.macs, found.uncounted) == ({}, () if counted else (f"{node.op_type} 'it'",))
